use std::{collections::BTreeSet, iter, path::Path, sync::mpsc};

use mesh::{DataDir, Member, Mesh, MeshConfig};
use tokio::task::JoinSet;

use super::*;
use crate::{
    host::Host,
    level::Commands,
    rows::{EntryMeta, Read, StateMachine, StorageError, Write},
    testing::{GROUP, Words},
    timing::Timing,
};

/// Generous, since it only ends a test that hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// S12: in a longer queue every client would wait until its deadline.
#[tokio::test]
async fn a_command_beyond_the_limit_is_refused_wherever_it_comes_from() {
    let dir = tempfile::tempdir().unwrap();
    let (_host, group) = alone(dir.path(), Words).await;
    let command = || Bytes::from_static(b"put a 1");
    let forwarded = ProposalId { node_id: group.inner.node_id ^ 1, number: 1 };

    let all: Vec<_> = iter::from_fn(|| group.inner.admission.admit(1)).collect();
    let refused = group.write(command(), DEADLINE).await;
    assert!(matches!(refused, Err(WriteError::Busy)), "{refused:?}");
    assert!(matches!(group.propose(command(), forwarded).await, Proposed::Busy));

    drop(all);
    assert!(matches!(group.propose(command(), forwarded).await, Proposed::Applied { .. }));
    group.write(command(), DEADLINE).await.unwrap();
}

/// S12: otherwise callers that give up and come back would fill the log of a slow server.
#[tokio::test]
async fn a_command_counts_until_it_is_applied_although_its_caller_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let (gate, gated) = mpsc::channel();
    let (_host, group) = alone(dir.path(), Gated(gated)).await;
    let mut statuses = group.watch_status();
    let mut callers = JoinSet::new();
    // On one thread all of them are proposed before openraft looks, so it makes few batches.
    for number in 0..=COMMANDS as u64 {
        let group = group.clone();
        let proposal = ProposalId { node_id: group.inner.node_id, number };
        callers.spawn(async move {
            group.propose(Bytes::from_static(b"x"), proposal).await;
        });
    }
    let behind = statuses.wait_for(|it| it.last_index - it.applied > COMMANDS as u64);
    time::timeout(DEADLINE, behind).await.unwrap().unwrap();
    callers.shutdown().await;
    let refused = group.write(Bytes::from_static(b"x"), DEADLINE).await;
    assert!(matches!(refused, Err(WriteError::Busy)), "{refused:?}");

    drop(gate);
    let applied = statuses.wait_for(|it| it.last_index == it.applied);
    time::timeout(DEADLINE, applied).await.unwrap().unwrap();
    group.write(Bytes::from_static(b"x"), DEADLINE).await.unwrap();
}

/// A machine that applies nothing before its gate is dropped.
struct Gated(mpsc::Receiver<()>);

impl StateMachine for Gated {
    fn commands(&self) -> Commands {
        Commands { level: 1, level_of: |_| Some(1) }
    }

    fn load(&mut self, _: &dyn Read) -> Result<(), StorageError> {
        Ok(())
    }

    fn apply(&mut self, _: EntryMeta, _: &[u8], _: &mut dyn Write) -> Result<Bytes, StorageError> {
        // Nothing is ever sent: this returns once the gate is gone.
        let _ = self.0.recv();
        Ok(Bytes::new())
    }

    fn publish(&mut self, _: u64) {}
}

/// A server alone that leads the group and has applied everything.
async fn alone(dir: &Path, machine: impl StateMachine) -> (Host, Group) {
    let services = BTreeSet::from(["data".to_owned()]);
    let config = MeshConfig {
        advertise: "127.0.0.1:7400".parse().unwrap(),
        seeds: Vec::new(),
        awaits_forming: true,
        version: "test".to_owned(),
    };
    let mesh = Mesh::open(DataDir::open(dir, &services, None).unwrap(), config);
    let host = Host::open(mesh, Timing::quick()).unwrap();
    host.mesh().form_alone().unwrap();
    let group = host.start_group(GROUP, "words", machine).await.unwrap();
    let identity = host.identity();
    let own = Member { node_id: identity.node_id, store_id: identity.store_id };
    group.initialize(&[own]).await.unwrap();
    let mut statuses = group.watch_status();
    let leads = statuses
        .wait_for(|it| it.role == Role::Leader && it.last_index > 0 && it.last_index == it.applied);
    time::timeout(DEADLINE, leads).await.unwrap().unwrap();
    (host, group)
}
