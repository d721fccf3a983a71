//! `quorate status`: how the mesh is, in one screen, and what to do about it.
//!
//! [`assess`] is the rule: of what DISCO lists it tells what is not well, the worst first, each with
//! what to do.

use clap::Args;
use proto::quorate::v1::{
    GroupSummary, ListGroupsRequest, ListMembersRequest, ListServicesRequest, MemberSummary,
    ServiceSummary,
};
use serde::Serialize;
use serde_json::json;

use super::{DiscoArgs, client::answer, watch::WatchArgs};
use crate::{
    failure::{Code, Failure},
    output::{self, Answer, Format, node_id},
};

#[cfg(test)]
mod tests;

/// Show how the mesh is, and what to do about what is not well.
#[derive(Args, Debug)]
#[command(long_about = "\
Show how the mesh is, and what to do about what is not well.

  quorate status
  quorate status --watch
  quorate status --disco 10.0.0.1:7400,10.0.0.2:7400 --format json

Exits with 0 if all is well, 4 if nobody answers or DISCO has no quorum, 5 if something else is not
well.")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    disco: DiscoArgs,
    #[command(flatten)]
    watch: WatchArgs,
}

/// What DISCO lists, of one moment as nearly as three questions allow.
#[derive(Debug, Default)]
struct Mesh {
    answer: Answer,
    members: Vec<MemberSummary>,
    groups: Vec<GroupSummary>,
    services: Vec<ServiceSummary>,
}

/// Something that is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Ailment {
    severity: Severity,
    what: String,
    /// What to do about it.
    fix: String,
}

/// How bad it is; the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    /// The registry takes no writes.
    NoQuorum,
    /// Something does not serve.
    Broken,
    /// It serves, and one more failure may end that.
    Weakened,
}

impl StatusArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        self.watch.run(format, async || self.show(format).await).await
    }

    async fn show(&self, format: Format) -> Result<u8, Failure> {
        let mesh = self.look().await?;
        let ailments = assess(&mesh);
        match format {
            Format::Table => output::line(&screen(&mesh, &ailments)),
            Format::Json => output::line(&record(&mesh, &ailments).to_string()),
        }
        let Some(worst) = ailments.first() else { return Ok(0) };
        Ok(match worst.severity {
            Severity::NoQuorum => Code::Unreachable as u8,
            Severity::Broken | Severity::Weakened => Code::Unhealthy as u8,
        })
    }

    async fn look(&self) -> Result<Mesh, Failure> {
        let disco = self.disco.client();
        let members = disco
            .ask(ListMembersRequest {}, |mut registry, request| async move {
                registry.list_members(request).await
            })
            .await?;
        let groups = disco
            .ask(ListGroupsRequest {}, |mut registry, request| async move {
                registry.list_groups(request).await
            })
            .await?;
        let services = disco
            .ask(ListServicesRequest {}, |mut registry, request| async move {
                registry.list_services(request).await
            })
            .await?;
        Ok(Mesh {
            answer: answer(members.meta),
            members: members.members,
            groups: groups.groups,
            services: services.services,
        })
    }
}

/// What is not well, the worst first.
fn assess(mesh: &Mesh) -> Vec<Ailment> {
    let mut ailments = Vec::new();
    ailments.extend(quorum_of_disco(mesh));
    ailments.extend(mesh.members.iter().filter_map(down));
    ailments.extend(mesh.groups.iter().filter_map(group_without_leader));
    ailments.extend(mesh.groups.iter().filter_map(group_short_of_voters));
    ailments.extend(mesh.services.iter().filter_map(service_without_instances));
    ailments.extend(mesh.services.iter().filter_map(service_with_silent_instances));
    ailments.sort_by_key(|ailment| ailment.severity);
    ailments
}

fn quorum_of_disco(mesh: &Mesh) -> Option<Ailment> {
    let stale = mesh.answer.stale_for_ms;
    let what = match (&mesh.answer.leader, stale) {
        (Some(_), 0) => return None,
        (None, 0) => "DISCO has no leader".to_owned(),
        (_, _) => format!("DISCO has heard of no quorum for {} s", stale / 1000),
    };
    let down: Vec<String> =
        mesh.members.iter().filter(|it| is_disco(it) && it.state != "up").map(called).collect();
    let fix = if down.is_empty() {
        "look whether the DISCO servers reach each other on their mesh ports".to_owned()
    } else {
        format!("start {}; a majority of the DISCO servers must be up", down.join(", "))
    };
    Some(Ailment { severity: Severity::NoQuorum, what, fix })
}

fn down(member: &MemberSummary) -> Option<Ailment> {
    if member.state != "down" && member.state != "silent" {
        return None;
    }
    let fix = "start it again with its data directory; if it will never come back: \
               quorate member remove";
    Some(Ailment {
        severity: Severity::Weakened,
        what: format!("{} is {}", called(member), member.state),
        fix: format!("{fix} {}", node_id(member.node_id)),
    })
}

fn group_without_leader(group: &GroupSummary) -> Option<Ailment> {
    let record = group.record.as_ref()?;
    let ailment = super::groups::ailment(group)?;
    let up = group.replicas.iter().filter(|replica| replica.up).count();
    Some(Ailment {
        severity: Severity::Broken,
        what: format!("{ailment}: it takes no writes"),
        fix: format!(
            "{up} of its {} replicas are up; a majority of its voters must be: see \
             `quorate group show {}`",
            group.replicas.len(),
            record.namespace
        ),
    })
}

fn group_short_of_voters(group: &GroupSummary) -> Option<Ailment> {
    let record = group.record.as_ref()?;
    let up = group.replicas.iter().filter(|it| it.up && super::groups::votes(it)).count();
    let wanted = usize::try_from(record.voters_wanted).unwrap_or(usize::MAX);
    if up >= wanted || super::groups::ailment(group).is_some() {
        return None;
    }
    Some(Ailment {
        severity: Severity::Weakened,
        what: format!("group `{}` has {up} of {wanted} voters", record.namespace),
        fix: "start the data nodes that are down, or more of them".to_owned(),
    })
}

fn service_without_instances(service: &ServiceSummary) -> Option<Ailment> {
    if service.instances == 0 || service.healthy > 0 {
        return None;
    }
    Some(Ailment {
        severity: Severity::Broken,
        what: format!("no instance of service `{}` is healthy", service.name),
        fix: format!("see the reasons with `quorate endpoints {}`", service.name),
    })
}

/// Silent instances stay listed while too many owners are silent at once to believe that all died.
fn service_with_silent_instances(service: &ServiceSummary) -> Option<Ailment> {
    if service.silent == 0 {
        return None;
    }
    let ServiceSummary { name, silent, instances, .. } = service;
    Some(Ailment {
        severity: Severity::Weakened,
        what: format!(
            "{silent} of {instances} instances of service `{name}` are silent: their owners no \
             longer renew their leases"
        ),
        fix: format!(
            "see which with `quorate endpoints {name}`; if their hosts are gone for good: quorate \
             deregister --silent --service {name}"
        ),
    })
}

fn is_disco(member: &MemberSummary) -> bool {
    member.services.iter().any(|service| service == "disco")
}

/// A member by the name that people know, and by its id.
fn called(member: &MemberSummary) -> String {
    match member.name.as_str() {
        "" => node_id(member.node_id),
        name => format!("{name} ({})", node_id(member.node_id)),
    }
}

fn screen(mesh: &Mesh, ailments: &[Ailment]) -> String {
    let mut lines = vec![mesh.answer.line(), String::new()];
    for (title, service) in [("disco", "disco"), ("data", "data")] {
        let of = || mesh.members.iter().filter(|it| it.services.iter().any(|it| it == service));
        let up = of().filter(|member| member.state == "up").count();
        lines.push(format!("{title:<10}{up} of {} up", of().count()));
    }
    for group in &mesh.groups {
        let record = group.record.clone().unwrap_or_default();
        lines.push(format!(
            "{:<10}{}: leader {}, {} of {} voters",
            "group",
            record.namespace,
            super::groups::leader_name(group),
            super::groups::voters(group),
            record.voters_wanted
        ));
    }
    let instances: u32 = mesh.services.iter().map(|it| it.instances).sum();
    let healthy: u32 = mesh.services.iter().map(|it| it.healthy).sum();
    let services = mesh.services.len();
    lines.push(format!("{:<10}{services}, {healthy} of {instances} instances healthy", "services"));
    lines.push(String::new());
    if ailments.is_empty() {
        lines.push("all is well".to_owned());
    }
    for ailment in ailments {
        lines.push(format!("! {}\n  {}", ailment.what, ailment.fix));
    }
    lines.join("\n")
}

fn record(mesh: &Mesh, ailments: &[Ailment]) -> serde_json::Value {
    let count = |service: &str, state: Option<&str>| {
        let of = mesh.members.iter().filter(|it| it.services.iter().any(|it| it == service));
        of.filter(|member| state.is_none_or(|state| member.state == state)).count()
    };
    json!({
        "mesh_id": mesh.answer.mesh_id,
        "revision": mesh.answer.revision,
        "leader": mesh.answer.leader,
        "stale_for_ms": mesh.answer.stale_for_ms,
        "well": ailments.is_empty(),
        "ailments": ailments,
        "disco": { "servers": count("disco", None), "up": count("disco", Some("up")) },
        "data": { "nodes": count("data", None), "up": count("data", Some("up")) },
        "groups": mesh.groups.len(),
        "services": mesh.services.len(),
        "instances": mesh.services.iter().map(|it| it.instances).sum::<u32>(),
        "healthy_instances": mesh.services.iter().map(|it| it.healthy).sum::<u32>(),
    })
}
