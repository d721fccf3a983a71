//! What the unit tests of this crate share.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use mesh::{DataDir, GroupId};
use openraft::EntryPayload;
use proto::quorate::v1 as pb;
use tempfile::TempDir;

use crate::{
    check::{OpenError, check},
    damage::DamageAlarm,
    level::Commands,
    log_store::{GroupLog, LogStore},
    read_view::ReadView,
    rows::{EntryMeta, Read, StateMachine, StorageError, Write},
    state::{GroupState, Published, StateStore},
    types::{Command, Entry, MachineCommand, ProposalId, log_id},
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

/// Where the stores are: in `DIR/dir`.
pub(crate) struct Dir {
    path: PathBuf,
    _removed_at_the_end: Option<TempDir>,
}

impl Dir {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl From<TempDir> for Dir {
    fn from(dir: TempDir) -> Self {
        Self { path: dir.path().to_owned(), _removed_at_the_end: Some(dir) }
    }
}

/// The stores of one data directory.
pub(crate) struct Stores {
    pub(crate) dir: Dir,
    pub(crate) log: LogStore,
    pub(crate) state: StateStore,
}

impl Stores {
    pub(crate) fn open() -> Self {
        Self::open_at(tempfile::tempdir().unwrap())
    }

    pub(crate) fn open_at(dir: impl Into<Dir>) -> Self {
        let dir = dir.into();
        let (log, state) = open_stores(&dir.path().join("dir"));
        Self { dir, log, state }
    }

    /// In a directory that the caller removes.
    pub(crate) fn open_in(dir: &Path) -> Self {
        Self::open_at(Dir { path: dir.to_owned(), _removed_at_the_end: None })
    }

    /// The log and state of [`GROUP`].
    pub(crate) async fn group(&self) -> (GroupLog, GroupState) {
        let (log, state, _) = self.published_group().await;
        (log, state)
    }

    /// As [`Self::group`], with what readers share with the state.
    pub(crate) async fn published_group(&self) -> (GroupLog, GroupState, Arc<Published>) {
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
        let (mut state, published) =
            GroupState::open(self.state.clone(), self.log.clone(), GROUP, &record, Box::new(Words))
                .unwrap();
        state.allow_gaps();
        (log, state, published)
    }

    /// The stores as they would be found if the process were killed now: a copy of every file.
    /// RocksDB deletes obsolete files in its own threads, so that is disabled meanwhile.
    pub(crate) fn killed(&self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        let databases = [&self.log.db, &self.state.db];
        for database in databases {
            database.disable_file_deletions().unwrap();
        }
        harness::disk::copy(self.dir.path(), copy.path());
        for database in databases {
            database.enable_file_deletions().unwrap();
        }
        Self::open_at(copy)
    }

    pub(crate) fn view(&self) -> ReadView {
        self.try_view().unwrap()
    }

    pub(crate) fn try_view(&self) -> Result<ReadView, StorageError> {
        let record = self.log.record(GROUP)?.unwrap();
        Ok(self.state.view(GROUP, record.generation).unwrap())
    }

    /// The rows, as `KEY=VALUE`.
    pub(crate) fn rows(&self) -> Vec<String> {
        rows(&self.view())
    }
}

/// The store id that the identity file in `DIR/dir` says.
pub(crate) fn store_id(dir: &Path) -> u64 {
    let services = BTreeSet::from(["data".to_owned()]);
    DataDir::claim(&dir.join("dir"), &services, None).unwrap().stores().unwrap().0
}

/// Opens the stores of a data directory as a server does, after the same check.
pub(crate) fn open_stores(path: &Path) -> (LogStore, StateStore) {
    try_open_stores(path).unwrap_or_else(|error| panic!("{error:?}"))
}

pub(crate) fn try_open_stores(path: &Path) -> Result<(LogStore, StateStore), OpenError> {
    let services = BTreeSet::from(["data".to_owned()]);
    let mut dir = DataDir::open(path, &services, None).unwrap();
    let store_id = dir.identity().store_id;
    let checked = check(path, store_id, dir.store_made())?;
    checked.cut()?;
    let alarm = DamageAlarm::default();
    let expect = checked.expect;
    let (log, _) = LogStore::open(path, store_id, dir.lock(), expect, alarm.clone())?;
    let recorded: Vec<_> =
        log.records()?.into_iter().map(|(group, record)| (group, record.generation)).collect();
    let state = StateStore::open(path, store_id, dir.lock(), expect, &recorded, alarm)?;
    dir.set_store_made().unwrap();
    Ok((log, state))
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
