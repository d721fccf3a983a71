//! What the unit tests of this crate share.

use std::collections::BTreeSet;

use bytes::Bytes;
use mesh::{DataDir, GroupId};
use openraft::EntryPayload;
use proto::quorate::v1 as pb;
use tempfile::TempDir;

use crate::{
    level::Commands,
    log_store::{GroupLog, LogStore},
    rows::{EntryMeta, Read, StateMachine, StorageError, Write},
    state::{State, StateStore},
    types::{Command, Entry, MachineCommand, ProposalId, log_id},
    view::View,
};

pub(crate) const GROUP: GroupId = 2;

/// A machine whose commands are `put KEY VALUE`, `delete KEY` and `add KEY` (to a count of `x`).
#[derive(Default)]
pub(crate) struct Words;

impl StateMachine for Words {
    fn commands(&self) -> Commands {
        Commands { level: 1, level_of: |_| Some(1) }
    }

    fn load(&mut self, _: &dyn Read) -> Result<(), StorageError> {
        Ok(())
    }

    fn apply(
        &mut self,
        _: EntryMeta,
        command: &[u8],
        rows: &mut dyn Write,
    ) -> Result<Bytes, StorageError> {
        let command = String::from_utf8_lossy(command).into_owned();
        match command.split(' ').collect::<Vec<_>>()[..] {
            ["put", key, value] => rows.put(key.into(), value.into()),
            ["delete", key] => rows.delete(key.into()),
            ["add", key] => {
                let mut count = rows.get(key.as_bytes())?.unwrap_or_default();
                count.push(b'x');
                rows.put(key.into(), count);
            }
            _ => return Err(StorageError::new(format!("unknown command {command:?}"))),
        }
        Ok(command.into())
    }

    fn publish(&mut self, _: u64) {}
}

/// The stores of one data directory.
pub(crate) struct Stores {
    pub(crate) dir: TempDir,
    pub(crate) log: LogStore,
    pub(crate) state: StateStore,
}

impl Stores {
    pub(crate) fn open() -> Self {
        Self::open_at(tempfile::tempdir().unwrap())
    }

    pub(crate) fn open_at(dir: TempDir) -> Self {
        let services = BTreeSet::from(["data".to_owned()]);
        let data_dir = DataDir::open(&dir.path().join("dir"), &services, None).unwrap();
        let (log, _) = LogStore::open(&data_dir.path().join("raft"), data_dir.lock()).unwrap();
        let records = log.records().unwrap();
        let recorded: Vec<_> =
            records.into_iter().map(|(group, record)| (group, record.generation)).collect();
        let state = StateStore::open(data_dir.path(), data_dir.lock(), &recorded).unwrap();
        Self { dir, log, state }
    }

    /// The log and state of [`GROUP`].
    pub(crate) async fn group(&self) -> (GroupLog, State) {
        let record = match self.log.record(GROUP).unwrap() {
            Some(record) => record,
            None => {
                let generation = self.state.create_family(GROUP).unwrap();
                let record = pb::StoredGroup { namespace: "words".into(), generation };
                self.log.put_record(GROUP, &record).await.unwrap();
                record
            }
        };
        let log = self.log.group(GROUP).await.unwrap();
        let (state, _) =
            State::open(self.state.clone(), self.log.clone(), GROUP, &record, Box::new(Words))
                .unwrap();
        (log, state)
    }

    /// What a process would find that was killed now: a copy of every file as it is. RocksDB
    /// removes obsolete files in its own threads, so it is told to keep them meanwhile.
    pub(crate) fn killed(&self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        let databases = [&self.log.db, &self.state.db];
        for database in databases {
            database.disable_file_deletions().unwrap();
        }
        copy_dir(self.dir.path(), copy.path());
        for database in databases {
            database.enable_file_deletions().unwrap();
        }
        Self::open_at(copy)
    }

    pub(crate) fn view(&self) -> View {
        let record = self.log.record(GROUP).unwrap().unwrap();
        self.state.view(GROUP, record.generation).unwrap()
    }

    /// The rows, as `KEY=VALUE`.
    pub(crate) fn rows(&self) -> Vec<String> {
        rows(&self.view())
    }
}

pub(crate) fn rows(view: &dyn Read) -> Vec<String> {
    let mut found = Vec::new();
    view.scan(b"", None, false, &mut |key, value| {
        found.push(format!("{}={}", String::from_utf8_lossy(key), String::from_utf8_lossy(value)));
        true
    })
    .unwrap();
    found
}

pub(crate) fn entry(term: u64, index: u64, command: &str) -> Entry {
    entry_of_level(term, index, command, 1)
}

pub(crate) fn entry_of_level(term: u64, index: u64, command: &str, level: u32) -> Entry {
    let bytes = Bytes::copy_from_slice(command.as_bytes());
    let proposal = ProposalId { node_id: 1, number: index };
    let payload = EntryPayload::Normal(Command::Machine(MachineCommand { bytes, level, proposal }));
    Entry { log_id: log_id(term, index), payload }
}

fn copy_dir(source: &std::path::Path, target: &std::path::Path) {
    std::fs::create_dir_all(target).unwrap();
    for item in std::fs::read_dir(source).unwrap() {
        let item = item.unwrap();
        let to = target.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy_dir(&item.path(), &to);
        } else {
            std::fs::copy(item.path(), to).unwrap();
        }
    }
}
