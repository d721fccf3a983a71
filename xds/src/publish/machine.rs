//! The registry as the state machine of the DISCO group.
//!
//! The rules are [`Registry`]'s; this adapter writes its rows and publishes what was written. It
//! holds the registry twice: its own, which is ahead by the current batch, and the one on the
//! [board](super::board), to which the same batch is applied once its rows are written. So a reader
//! never sees half a batch, nor anything that a crash could undo.

use std::{fmt, mem};

use bytes::Bytes;
use discovery::{
    registry::{Outcome, RecordKey, Registry},
    snapshot::Snapshot,
    translation::Translator,
};
use prost::Message;
use proto::quorate::v1::RegistryCommand;
use raft::{
    Commands, EntryMeta, StateMachine, StorageError,
    rows::{Read, Write},
};

use super::{board::Publisher, leases::Leases, levels};

#[cfg(test)]
mod tests;

/// The state machine of the DISCO group.
pub(crate) struct RegistryMachine {
    registry: Registry,
    batch: Batch,
    translator: Translator,
    snapshot: Snapshot,
    publisher: Publisher,
    leases: Leases,
}

/// What was applied and not published.
#[derive(Default)]
struct Batch {
    /// The rows were replaced, so anything may have changed.
    reloaded: bool,
    commands: Vec<(EntryMeta, RegistryCommand)>,
    /// What the commands did, together.
    outcome: Outcome,
}

impl RegistryMachine {
    pub(crate) fn new(publisher: Publisher, leases: Leases) -> Self {
        Self {
            registry: Registry::default(),
            batch: Batch::default(),
            translator: Translator::default(),
            snapshot: Snapshot::empty(),
            publisher,
            leases,
        }
    }

    fn publish_registry(&self, batch: &mut Batch) {
        let commands = mem::take(&mut batch.commands);
        self.publisher.change(|readable| {
            if batch.reloaded {
                readable.clone_from(&self.registry);
                return;
            }
            for (entry, command) in commands {
                readable.apply(command, entry.index, entry.term);
            }
        });
        if batch.reloaded {
            self.leases.reload(&self.registry);
        } else {
            self.leases.follow(&self.registry, &batch.outcome);
        }
    }

    fn publish_snapshot(&mut self, applied: u64, batch: &Batch) {
        let next = if batch.reloaded {
            let everything = self.translator.translate_all(&self.registry);
            Snapshot::empty().with_changes(applied, everything)
        } else {
            let changes = self.translator.translate(&self.registry, &batch.outcome.touched);
            let next = self.snapshot.with_changes(applied, changes);
            // Most commands repeat something. A step without a change would wake every stream for
            // nothing and push another step out of the snapshot's memory.
            if !next.differs_from(&self.snapshot) {
                return;
            }
            next
        };
        self.snapshot = next;
        self.publisher.announce_snapshot(self.snapshot.clone());
    }
}

impl StateMachine for RegistryMachine {
    fn commands(&self) -> Commands {
        Commands { level: levels::KNOWN, level_of }
    }

    fn load(&mut self, rows: &dyn Read) -> Result<(), StorageError> {
        let mut found = Vec::new();
        rows.scan(b"", None, false, &mut |key, value| {
            found.push((key.to_vec(), value.to_vec()));
            true
        })?;
        self.registry = Registry::restore(found).map_err(|error| {
            StorageError::with_source("the registry's rows cannot be read", error)
        })?;
        self.batch = Batch { reloaded: true, ..Batch::default() };
        Ok(())
    }

    fn apply(
        &mut self,
        entry: EntryMeta,
        command: &[u8],
        rows: &mut dyn Write,
    ) -> Result<Bytes, StorageError> {
        let command = decode(command).ok_or_else(unknown)?;
        let outcome = self.registry.apply(command.clone(), entry.index, entry.term);
        for key in &outcome.touched {
            match self.registry.record(key) {
                Some(record) => rows.put(key.encode(), record),
                None => rows.delete(key.encode()),
            }
        }
        if !outcome.touched.is_empty() {
            self.batch.commands.push((entry, command));
        }
        self.batch.outcome.touched.extend(outcome.touched);
        self.batch.outcome.leases.extend(outcome.leases);
        Ok(outcome.reply.encode_to_vec().into())
    }

    fn publish(&mut self, applied: u64) {
        let mut batch = mem::take(&mut self.batch);
        self.publish_registry(&mut batch);
        self.publish_snapshot(applied, &batch);
        if batch.reloaded || batch.outcome.touched.iter().any(is_topology) {
            self.publisher.announce_topology(applied);
        }
        self.publisher.announce_applied(applied);
    }
}

/// Whether the record is one of the topology: a server, a node or a group.
fn is_topology(key: &RecordKey) -> bool {
    match key {
        RecordKey::Server(_) | RecordKey::Node(_) | RecordKey::Group(_) => true,
        RecordKey::Service(_) | RecordKey::Instance { .. } | RecordKey::Resource(_) => false,
    }
}

fn decode(command: &[u8]) -> Option<RegistryCommand> {
    RegistryCommand::decode(command).ok().filter(|it| it.command.is_some())
}

fn level_of(command: &[u8]) -> Option<u32> {
    decode(command).map(|it| levels::level_of(&it))
}

/// Bytes that this version does not know as a command come from a later version: a leader proposes
/// only what it knows itself.
fn unknown() -> StorageError {
    StorageError::outdated(
        "a registry command is of a kind that this version does not know: upgrade this server to \
         the version of the others",
    )
}

impl fmt::Debug for RegistryMachine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryMachine")
            .field("snapshot", &self.snapshot.revision())
            .finish_non_exhaustive()
    }
}
