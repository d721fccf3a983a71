//! `quorate member remove`: what is done to one server of the mesh.

use clap::{Args, Subcommand};
use proto::quorate::v1::{ListMembersRequest, MemberSummary, RemoveMemberRequest};
use serde_json::json;

use super::DiscoArgs;
use crate::{
    failure::{Code, Failure},
    output::{self, Format, node_id},
};

/// Act on one server of the mesh.
#[derive(Args, Debug)]
pub(crate) struct MemberArgs {
    #[command(subcommand)]
    command: MemberCommand,
}

#[derive(Debug, Subcommand)]
enum MemberCommand {
    Remove(RemoveArgs),
}

/// Remove a server that will not come back.
#[derive(Args, Debug)]
#[command(long_about = "\
Remove a server that will not come back, by its id or its name.

  quorate member remove 3f0c9a5be1d24477
  quorate member remove data-3

Refused with exit code 7 while the server is alive: stop it first. A voter of a data group is replaced
by its group at once, instead of after --replace-after, and its record goes with that; without a
replacement it stays listed as removed. A DISCO server loses its vote, if the voters that are left
have a quorum. A server that was removed must not be started again with its old data directory.")]
struct RemoveArgs {
    /// The server, as `quorate members` lists it.
    #[arg(value_name = "ID|NAME")]
    member: String,
    #[command(flatten)]
    disco: DiscoArgs,
}

impl MemberArgs {
    pub(crate) async fn run(self, format: Format) -> Result<u8, Failure> {
        match self.command {
            MemberCommand::Remove(args) => args.run(format).await,
        }
    }
}

impl RemoveArgs {
    async fn run(self, format: Format) -> Result<u8, Failure> {
        let client = self.disco.client();
        let members = client
            .ask(ListMembersRequest {}, |mut registry, request| async move {
                registry.list_members(request).await
            })
            .await?;
        let id = find(&self.member, &members.members)?;
        let request = RemoveMemberRequest { node_id: id, ..RemoveMemberRequest::default() };
        let reply = client
            .ask(
                request,
                |mut registry, request| async move { registry.remove_member(request).await },
            )
            .await?;
        if !reply.existed {
            return Err(unknown(&self.member));
        }
        let member = node_id(id);
        match format {
            Format::Table if reply.leaving => output::line(&format!(
                "removed {member}; its record goes once its groups have replaced it"
            )),
            Format::Table => output::line(&format!("removed {member}")),
            Format::Json => output::line(
                &json!({ "node_id": member, "removed": true, "leaving": reply.leaving })
                    .to_string(),
            ),
        }
        Ok(0)
    }
}

/// The id of the member that is meant.
fn find(wanted: &str, members: &[MemberSummary]) -> Result<u64, Failure> {
    let is_meant = |it: &&MemberSummary| it.name == wanted || node_id(it.node_id) == wanted;
    let found: Vec<&MemberSummary> = members.iter().filter(is_meant).collect();
    match found[..] {
        [member] => Ok(member.node_id),
        [] => Err(unknown(wanted)),
        _ => Err(Failure::usage(format!("several members are called `{wanted}`"))
            .hint("name the one that is meant by its id; `quorate members` lists them")),
    }
}

fn unknown(wanted: &str) -> Failure {
    Failure::new(Code::NoneFound, format!("the mesh has no member `{wanted}`"))
        .hint("`quorate members` lists them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_found_by_id_or_by_a_name_that_one_has() {
        let member = |node_id, name: &str| MemberSummary {
            node_id,
            name: name.to_owned(),
            ..MemberSummary::default()
        };
        let members = [member(1, "a"), member(2, "b"), member(3, "b")];
        assert_eq!(find("a", &members), Ok(1));
        assert_eq!(find("0000000000000003", &members), Ok(3));
        assert_eq!(find("b", &members).unwrap_err().code, Code::Usage);
        assert_eq!(find("c", &members).unwrap_err().code, Code::NoneFound);
    }
}
