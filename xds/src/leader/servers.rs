//! Which DISCO servers are up, as seen from this one.
//!
//! They hold no leases, so the registry cannot tell which are up. Each server calls the others
//! every second, at their addresses in the book. A server is up if it answered one of the last few
//! calls: one lost call is no sign, since a bad network loses single calls.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery::registry::ServerStatus;
use futures::future::join_all;
use mesh::dial::endpoint;
use proto::quorate::v1::{IdentifyRequest, mesh_client::MeshClient};
use raft::{Group, Host, MemberStatus, Role, Status as GroupStatus};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// How often the others are called.
const EVERY: Duration = Duration::from_secs(1);

/// How long a server may take to say who it is: long enough for a few lost packets.
const IDENTIFY_PATIENCE: Duration = Duration::from_secs(2);

/// A server that has missed this many calls in a row is down.
const MISSES: u32 = 3;

/// Keeps calling the other servers. Clones share what is known.
#[derive(Clone, Debug)]
pub(crate) struct Servers {
    host: Host,
    known: Arc<Mutex<BTreeMap<u64, KnownServer>>>,
}

/// What is known of another server.
#[derive(Clone, Debug, Default)]
struct KnownServer {
    /// Calls missed since the last answer; none before the first call has ended.
    missed: Option<u32>,
    /// Kept as long as the address is the same.
    channel: Option<(SocketAddr, Channel)>,
}

impl Servers {
    pub(crate) fn new(host: Host) -> Self {
        Self { host, known: Arc::default() }
    }

    /// The role and the health of each member of the DISCO group. One that was not called yet is
    /// left out: nothing is known of it.
    pub(crate) fn statuses(&self, group: &GroupStatus) -> BTreeMap<u64, ServerStatus> {
        let own_id = self.host.identity().node_id;
        let known = self.lock();
        let members = group.members.iter().filter_map(|member| {
            let up = if member.node_id == own_id {
                true
            } else {
                known.get(&member.node_id)?.is_up()?
            };
            let role = role_of(group, member, own_id).to_owned();
            Some((member.node_id, ServerStatus { role, up }))
        });
        members.collect()
    }

    /// Whether a server has answered none of the last calls.
    pub(crate) fn is_down(&self, node_id: u64) -> bool {
        let known = self.lock();
        known.get(&node_id).and_then(KnownServer::is_up) == Some(false)
    }

    /// Calls the others, until `stopping`.
    pub(crate) async fn run(self, group: Group, stopping: CancellationToken) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let own_id = self.host.identity().node_id;
            let members = group.status().members;
            self.lock().retain(|id, _| members.iter().any(|it| it.node_id == *id));
            let others = members.iter().filter(|it| it.node_id != own_id);
            join_all(others.map(|it| self.call(it.node_id))).await;
        }
    }

    async fn call(&self, node_id: u64) {
        let answered = match self.host.mesh().book().address(node_id) {
            Some(address) => {
                let channel = self.channel(node_id, address);
                let asked = timeout(IDENTIFY_PATIENCE, identify(channel)).await;
                matches!(asked, Ok(Some(id)) if id == node_id)
            }
            None => false,
        };
        self.lock().entry(node_id).or_default().note(answered);
    }

    fn channel(&self, node_id: u64, address: SocketAddr) -> Channel {
        let mut known = self.lock();
        let known = known.entry(node_id).or_default();
        if let Some((kept, channel)) = &known.channel
            && *kept == address
        {
            return channel.clone();
        }
        let channel = endpoint(address).connect_lazy();
        known.channel = Some((address, channel.clone()));
        channel
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, KnownServer>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KnownServer {
    fn note(&mut self, answered: bool) {
        let missed = self.missed.unwrap_or(0);
        self.missed = Some(if answered { 0 } else { missed.saturating_add(1) });
        if !answered {
            self.channel = None;
        }
    }

    fn is_up(&self) -> Option<bool> {
        self.missed.map(|missed| missed < MISSES)
    }
}

fn role_of(group: &GroupStatus, member: &MemberStatus, own_id: u64) -> &'static str {
    if group.leader == Some(member.node_id) {
        Role::Leader.as_str()
    } else if member.node_id == own_id {
        group.role.as_str()
    } else if member.voter {
        Role::Follower.as_str()
    } else {
        Role::Learner.as_str()
    }
}

async fn identify(channel: Channel) -> Option<u64> {
    let reply = MeshClient::new(channel).identify(IdentifyRequest {}).await.ok()?;
    Some(reply.into_inner().node_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// D15: on a bad network every fifth call is lost, and nobody is down.
    #[test]
    fn a_server_is_down_after_several_missed_calls_and_up_after_one_answer() {
        let mut known = KnownServer::default();
        assert_eq!(known.is_up(), None, "nothing is known of it");
        for answered in [false, true, true, false, false, true] {
            known.note(answered);
            assert_eq!(known.is_up(), Some(true));
        }
        for up in [true, true, false, false] {
            known.note(false);
            assert_eq!(known.is_up(), Some(up));
        }
        known.note(true);
        assert_eq!(known.is_up(), Some(true));
    }
}
