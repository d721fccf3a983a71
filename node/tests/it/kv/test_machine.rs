//! A machine on rows in memory that is sent requests.

use node::kv::{KvError, KvMachine, Refusal, range};
use prost::Message;
use proto::{
    etcdserverpb::{RangeRequest, RangeResponse},
    quorate::v1::{KvCommand, KvRefusal, KvReply, kv_command::Command, kv_reply::Outcome},
};
use raft::{
    EntryMeta, StateMachine,
    rows::{MemoryRows, Read, StorageError},
};

#[derive(Debug)]
pub(crate) struct TestMachine {
    machine: KvMachine,
    pub(crate) rows: MemoryRows,
    index: u64,
}

impl TestMachine {
    pub(crate) fn new() -> Self {
        let mut machine = KvMachine::new();
        let rows = MemoryRows::default();
        machine.load(&rows).unwrap();
        Self { machine, rows, index: 0 }
    }

    /// Applies a command as a group would, by way of its bytes.
    pub(crate) fn apply(&mut self, command: Command) -> Outcome {
        self.apply_bytes(&KvCommand { command: Some(command) }.encode_to_vec())
    }

    pub(crate) fn apply_bytes(&mut self, command: &[u8]) -> Outcome {
        self.index += 1;
        let entry = EntryMeta { index: self.index, term: 1 };
        let reply = self.machine.apply(entry, command, &mut self.rows).unwrap();
        self.machine.publish(self.index);
        KvReply::decode(reply).unwrap().outcome.unwrap()
    }

    /// Applies bytes that this version does not know. Returns the error that stops the replica.
    pub(crate) fn stopped_by(&mut self, command: &[u8]) -> StorageError {
        let entry = EntryMeta { index: self.index + 1, term: 1 };
        self.machine.apply(entry, command, &mut self.rows).unwrap_err()
    }

    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, KvRefusal> {
        range(&self.rows, request).map_err(refusal)
    }

    pub(crate) fn all_rows(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        self.rows
            .scan(&[], None, false, &mut |key, value| {
                rows.push((key.to_vec(), value.to_vec()));
                true
            })
            .unwrap();
        rows
    }

    /// Forgets everything in memory, as a restart does.
    pub(crate) fn restart(&mut self) {
        let mut machine = KvMachine::new();
        machine.load(&self.rows).unwrap();
        self.machine = machine;
    }
}

pub(crate) fn refusal(error: KvError) -> KvRefusal {
    match error {
        KvError::Refused(refusal) => refused(refusal),
        KvError::Storage(error) => panic!("{error}"),
    }
}

pub(crate) fn refused(refusal: Refusal) -> KvRefusal {
    KvRefusal { code: i32::from(refusal.code()), message: refusal.to_string() }
}
