//! `quorate init`: forms a mesh of blank servers, once.
//!
//! Two steps, so that nothing is half done by default: reserve on all servers, then commit on all.
//! Before them every server is asked who it is; one that does not answer, or that belongs to a
//! mesh, ends the command with nothing done. A server that misses the commit adopts it from
//! another member, so a commit is never taken back once one server has it.
//!
//! A mesh is formed for good, so the list of servers is compared with what the servers were told
//! themselves: see [`wiring`].

mod wiring;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use clap::Args;
use futures::future::join_all;
use mesh::MeshId;
use proto::quorate::v1::{
    FormRequest, Formation, FormationMember, HostedGroupsRequest, IdentifyRequest, ServerIdentity,
    form_request::Step,
};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::{client, listed};
use crate::{
    failure::{Code, Failure},
    output::{self, Format, node_id, progress},
    values::{Addresses, distinct_addresses, duration},
};

/// How long one server may take to answer one question.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Pause between attempts while waiting for a server or a leader.
const POLL: Duration = Duration::from_millis(200);

/// How often it says again what it waits for.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Form a mesh of blank servers, once.
#[derive(Args, Debug)]
#[command(long_about = "\
Form a mesh of blank servers, once. The servers were started with --peers and wait for this.

It refuses, with nothing done, if any listed server does not answer, belongs to a mesh already, or
was told of servers that are not listed. Three servers go on working when one fails, five when two
fail.

  quorate init --servers 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400

In a script that may run again, and that starts together with the servers:
  quorate init --servers 10.0.0.1:7400,10.0.0.2:7400,10.0.0.3:7400 --if-needed --wait 60s")]
pub(crate) struct InitArgs {
    /// All servers of the group, as IP:PORT of their mesh ports.
    #[arg(long, value_name = "IP:PORT,…", value_parser = distinct_addresses, required = true)]
    servers: Addresses,
    /// Form the mesh of the listed servers only, although they were told of others; for good.
    #[arg(long)]
    subset: bool,
    /// Succeed, and do nothing, if all listed servers belong to one mesh already.
    #[arg(long)]
    if_needed: bool,
    /// How long to wait for servers that do not answer yet.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "0s")]
    wait: Duration,
    /// How long to wait for the first leader.
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

impl InitArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        let addresses = &self.servers.0;
        if addresses.is_empty() {
            return Err(Failure::usage("--servers names no server")
                .hint("list the mesh addresses of all servers of the group"));
        }
        let deadline = Instant::now() + self.wait;
        let mut servers = self.identify_all(deadline).await?;
        let mut told = false;
        while self.if_needed && is_half_formed(&servers) && Instant::now() < deadline {
            if !told {
                progress("some of the servers belong to a mesh; waiting for the others to join it");
                told = true;
            }
            sleep(POLL).await;
            servers = self.identify_all(deadline).await?;
        }
        for server in &servers {
            progress(&format!("{} is {}", server.address, node_id(server.identity.node_id)));
        }
        if self.if_needed
            && let Some(mesh_id) = common_mesh(&servers)
        {
            progress(&format!("all {} servers belong to mesh {mesh_id} already", servers.len()));
            report(format, &mesh_id, &servers, false);
            return Ok(0);
        }
        check(&servers)?;
        wiring::check(&servers, &unlisted(&servers).await, self.subset)?;
        advise(servers.len());
        let formation = formation(&servers);
        form(&servers, &formation).await?;
        progress(&format!("formed mesh {}; waiting for a leader", formation.mesh_id));
        let leader_id = await_leader(addresses, Instant::now() + self.timeout).await?;
        progress(&format!("{} leads", node_id(leader_id)));
        report(format, &formation.mesh_id, &servers, true);
        Ok(0)
    }

    /// Asks every server who it is; one that does not answer by the deadline fails the command.
    async fn identify_all(&self, deadline: Instant) -> Result<Vec<Server>, Failure> {
        let mut servers = Vec::new();
        for &address in &self.servers.0 {
            let mut told: Option<Instant> = None;
            let identity = loop {
                match identify(address).await {
                    Ok(identity) => break identity,
                    Err(failure) if failure.retryable() && Instant::now() < deadline => {
                        if told.is_none_or(|told| told.elapsed() > TELL_EVERY) {
                            progress(&format!("waiting for {address}: {}", failure.message));
                            told = Some(Instant::now());
                        }
                        sleep(POLL).await;
                    }
                    Err(failure) => return Err(nothing_done(failure)),
                }
            };
            servers.push(Server { address, identity });
        }
        Ok(servers)
    }
}

#[derive(Debug)]
struct Server {
    address: SocketAddr,
    identity: ServerIdentity,
}

pub(super) async fn identify(address: SocketAddr) -> Result<ServerIdentity, Failure> {
    let asked = async {
        let mut mesh = client::mesh(address).await?;
        let reply = mesh.identify(IdentifyRequest {}).await;
        reply
            .map(tonic::Response::into_inner)
            .map_err(|status| Failure::from_status(address, &status))
    };
    answered(address, asked).await
}

/// The servers that the listed ones were told of and that are not listed, by address, as far as they
/// answer.
async fn unlisted(servers: &[Server]) -> BTreeMap<SocketAddr, Option<ServerIdentity>> {
    let asking = wiring::unlisted(servers)
        .into_iter()
        .map(|address| async move { (address, identify(address).await.ok()) });
    join_all(asking).await.into_iter().collect()
}

async fn answered<T>(
    address: SocketAddr,
    asked: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let late = || Failure::new(Code::Unreachable, format!("{address} does not answer in time"));
    timeout(ANSWER_TIMEOUT, asked).await.unwrap_or_else(|_| Err(late()))
}

fn nothing_done(failure: Failure) -> Failure {
    let message = format!("{}; nothing was done", failure.message);
    Failure { message, ..failure }
        .hint("every listed server must run and answer; --wait 60s waits for those that start")
}

/// The mesh to which all servers belong, if it is one.
fn common_mesh(servers: &[Server]) -> Option<String> {
    let ids: BTreeSet<_> = servers.iter().map(|server| &server.identity.mesh_id).collect();
    match ids.first() {
        Some(id) if ids.len() == 1 && !id.is_empty() => Some((*id).clone()),
        _ => None,
    }
}

/// Whether some servers belong to a mesh that the blank ones may still learn of by themselves.
fn is_half_formed(servers: &[Server]) -> bool {
    let ids: BTreeSet<_> = servers.iter().map(|server| &server.identity.mesh_id).collect();
    ids.len() == 2 && ids.iter().any(|id| id.is_empty())
}

/// The safety rules: all blank, all waiting, all different, all of one kind.
fn check(servers: &[Server]) -> Result<(), Failure> {
    let taken: Vec<_> = servers
        .iter()
        .filter(|server| !server.identity.mesh_id.is_empty())
        .map(|server| format!("{} belongs to mesh {}", server.address, server.identity.mesh_id))
        .collect();
    if !taken.is_empty() {
        return Err(Failure::refused(format!("{}; nothing was done", taken.join(", "))).hint(
            "a mesh is formed once, by the servers that it was formed of; data nodes join it when \
             they are started with --disco",
        ));
    }
    let unwilling: Vec<_> = servers
        .iter()
        .filter(|server| !server.identity.awaits_forming)
        .map(|server| server.address)
        .collect();
    if !unwilling.is_empty() {
        let message =
            format!("{} was not started to be formed; nothing was done", listed(&unwilling));
        return Err(Failure::refused(message).hint(
            "start the servers with --peers naming each other, and data servers without --disco",
        ));
    }
    let ids: BTreeSet<_> = servers.iter().map(|server| server.identity.node_id).collect();
    if ids.len() < servers.len() {
        return Err(Failure::refused(
            "two of the addresses lead to the same server; nothing was done",
        )
        .hint("list each server once, or check for a copied data directory"));
    }
    let kinds: BTreeSet<_> = servers.iter().map(|server| &server.identity.services).collect();
    if kinds.len() > 1 {
        return Err(Failure::refused("the servers run different services; nothing was done")
            .hint("form one group of DISCO servers, or one of data servers"));
    }
    Ok(())
}

fn advise(count: usize) {
    if count.is_multiple_of(2) {
        progress(&format!(
            "note: {count} servers bear no more failures than {}; an odd number is better",
            count - 1
        ));
    }
}

fn formation(servers: &[Server]) -> Formation {
    let members = servers
        .iter()
        .map(|server| FormationMember {
            node_id: server.identity.node_id,
            store_id: server.identity.store_id,
            address: if server.identity.address.is_empty() {
                server.address.to_string()
            } else {
                server.identity.address.clone()
            },
        })
        .collect();
    Formation { mesh_id: MeshId::generate().to_string(), members }
}

async fn form(servers: &[Server], formation: &Formation) -> Result<(), Failure> {
    for (position, server) in servers.iter().enumerate() {
        if let Err(failure) = step(server.address, formation, Step::Reserve).await {
            // This one too: it may hold the reservation although its answer was lost.
            for held in &servers[..=position] {
                // A reservation that is not released ends by itself.
                let _ = step(held.address, formation, Step::Release).await;
            }
            return Err(nothing_done(failure));
        }
    }
    let mut committed = 0;
    for server in servers {
        match step(server.address, formation, Step::Commit).await {
            Ok(()) => committed += 1,
            Err(failure) => {
                progress(&format!("{}: it will learn of the mesh from the others", failure.message))
            }
        }
    }
    if committed > 0 {
        return Ok(());
    }
    Err(Failure::new(Code::Unreachable, "no server confirmed the forming of the mesh")
        .hint("a confirmation may have been lost: run the command again with --if-needed"))
}

async fn step(address: SocketAddr, formation: &Formation, step: Step) -> Result<(), Failure> {
    let request = FormRequest { formation: Some(formation.clone()), step: step.into() };
    let asked = async {
        let mut mesh = client::mesh(address).await?;
        mesh.form(request).await.map_err(|status| Failure::from_status(address, &status))?;
        Ok(())
    };
    answered(address, asked).await
}

/// Waits until one of the servers hosts a group that has a leader.
async fn await_leader(addresses: &[SocketAddr], deadline: Instant) -> Result<u64, Failure> {
    let mut told = Instant::now();
    while Instant::now() < deadline {
        for &address in addresses {
            if let Some(leader_id) = leader(address).await {
                return Ok(leader_id);
            }
        }
        if told.elapsed() > Duration::from_secs(2) {
            told = Instant::now();
            progress("no leader yet");
        }
        sleep(POLL).await;
    }
    Err(Failure::new(Code::Timeout, "the mesh is formed, but no leader was elected in time")
        .hint("can the servers reach each other at the addresses that they advertise?"))
}

async fn leader(address: SocketAddr) -> Option<u64> {
    let asked = async {
        let mut mesh = client::mesh(address).await?;
        mesh.hosted_groups(HostedGroupsRequest::default())
            .await
            .map(tonic::Response::into_inner)
            .map_err(|status| Failure::from_status(address, &status))
    };
    let reply = answered(address, asked).await.ok()?;
    reply.groups.iter().map(|group| group.leader_id).find(|leader_id| *leader_id != 0)
}

fn report(format: Format, mesh_id: &str, servers: &[Server], formed: bool) {
    match format {
        Format::Table => output::line(mesh_id),
        Format::Json => {
            let servers: Vec<_> = servers
                .iter()
                .map(|server| {
                    json!({
                        "node_id": node_id(server.identity.node_id),
                        "address": server.address.to_string(),
                        "services": server.identity.services,
                    })
                })
                .collect();
            let report = json!({ "mesh_id": mesh_id, "formed": formed, "servers": servers });
            output::line(&report.to_string());
        }
    }
}
