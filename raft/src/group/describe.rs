//! How a server describes its replica to other servers and to DISCO.

use proto::{millis, quorate::v1 as pb};

use super::{Group, MemberStatus, Role, Status};
use crate::quorum::Quorum;

impl Group {
    pub fn describe(&self) -> pb::HostedGroup {
        let status = self.status();
        pb::HostedGroup {
            group: self.id(),
            namespace: self.namespace().to_owned(),
            role: status.role.as_str().to_owned(),
            term: status.term,
            leader_id: status.leader.unwrap_or_default(),
            last_index: status.last_index,
            committed_index: status.committed,
            applied_index: status.applied,
            members: status.members.iter().map(|it| member(&status, it)).collect(),
            voted_for: status.voted_for,
            quorum_age_ms: status.quorum_age.map(millis),
            no_quorum: match status.quorum {
                Quorum::Held => String::new(),
                Quorum::Electing | Quorum::Lost => status.no_quorum(self.inner.node_id).to_string(),
            },
        }
    }
}

fn member(status: &Status, member: &MemberStatus) -> pb::GroupMember {
    // A follower hears only its leader, until the leader is silent and the follower asks the others
    // for votes.
    let hears_all = status.role == Role::Leader || status.quorum != Quorum::Held;
    pb::GroupMember {
        node_id: member.node_id,
        voter: member.voter,
        lag: member.lag,
        silent: hears_all && !member.is_heard,
    }
}
