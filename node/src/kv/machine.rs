//! The machine as a group applies it: command bytes in, rows and reply bytes out.

use bytes::Bytes;
use prost::Message;
use proto::{
    etcdserverpb::CompactionResponse,
    quorate::v1::{KvCommand, KvReply, kv_command::Command, kv_reply::Outcome},
};
use raft::{
    Commands, EntryMeta, StateMachine,
    rows::{Read, StorageError, Write},
};

use super::{
    compact::{compact, sweep_on},
    layout::Meta,
    read::header,
    refusal::KvError,
    txn::apply_txn,
    validate::{check_delete_range, check_put, check_txn},
    write::{Writer, admit_put},
};

/// The level of commands that this version knows. It is raised with every kind of command, and with
/// every field of a command, that an earlier version would ignore.
const LEVEL: u32 = 1;

/// Applies [`KvCommand`]s to a namespace's rows and answers with [`KvReply`]s.
///
/// It keeps the counters and nothing else. A refused command is answered with a reply. Bytes that
/// this version does not know as a command come from a later version, and they stop the replica. A
/// leader proposes only what it knows itself.
#[derive(Debug)]
pub struct KvMachine {
    meta: Meta,
}

impl KvMachine {
    pub fn new() -> Self {
        Self { meta: Meta::default() }
    }

    fn execute(&mut self, command: &[u8], rows: &mut dyn Write) -> Result<Outcome, KvError> {
        let meta = &mut self.meta;
        Ok(match decode(command).ok_or_else(unknown)? {
            Command::Put(request) => {
                check_put(&request)?;
                admit_put(rows, &request)?;
                let mut writer = Writer::new(rows, meta);
                let response = writer.put(&request)?;
                writer.finish();
                Outcome::Put(response)
            }
            Command::DeleteRange(request) => {
                check_delete_range(&request)?;
                let mut writer = Writer::new(rows, meta);
                let response = writer.delete_range(&request)?;
                writer.finish();
                Outcome::DeleteRange(response)
            }
            Command::Txn(request) => {
                check_txn(&request)?;
                Outcome::Txn(apply_txn(rows, meta, &request)?)
            }
            Command::Compact(request) => {
                compact(rows, meta, &request)??;
                Outcome::Compact(CompactionResponse { header: Some(header(meta.revision)) })
            }
        })
    }
}

fn decode(command: &[u8]) -> Option<Command> {
    KvCommand::decode(command).ok()?.command
}

fn level_of(command: &[u8]) -> Option<u32> {
    decode(command).map(|command| match command {
        Command::Put(_) | Command::DeleteRange(_) | Command::Txn(_) | Command::Compact(_) => 1,
    })
}

fn unknown() -> StorageError {
    StorageError::outdated(
        "a key-value command is of a kind that this version does not know: upgrade this server to \
         the version of the others",
    )
}

impl Default for KvMachine {
    fn default() -> Self {
        Self::new()
    }
}

impl StateMachine for KvMachine {
    fn commands(&self) -> Commands {
        Commands { level: LEVEL, level_of }
    }

    fn load(&mut self, rows: &dyn Read) -> Result<(), StorageError> {
        self.meta = Meta::load(rows)?;
        Ok(())
    }

    fn apply(
        &mut self,
        _entry: EntryMeta,
        command: &[u8],
        rows: &mut dyn Write,
    ) -> Result<Bytes, StorageError> {
        let before = self.meta;
        let outcome = match self.execute(command, rows) {
            Ok(outcome) => outcome,
            Err(KvError::Refused(refusal)) => Outcome::Refused(refusal.to_proto()),
            Err(KvError::Storage(error)) => return Err(error),
        };
        sweep_on(rows, &mut self.meta)?;
        if self.meta != before {
            self.meta.store(rows);
        }
        Ok(KvReply { outcome: Some(outcome) }.encode_to_vec().into())
    }

    /// Reads go to the rows, so there is nothing to publish.
    fn publish(&mut self, _applied: u64) {}
}
