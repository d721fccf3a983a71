//! The note of how far the log was synced, in the file `raft.synced`.
//!
//! A log whose last synced write is damaged looks like a log whose last write was never finished.
//! This file tells the two cases apart. It names a write that was synced before the file was
//! written, so it never names too late a write, whatever a power cut leaves of it. It is written
//! after every synced write, and is itself synced a few times a second by another thread, and at
//! the end. So after a stop or a kill of the process it covers every acknowledged write. After a
//! power cut it may lack the writes since it was last synced.
//!
//! Two slots are written in turn, so that one is whole at any time.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{self, Receiver, SyncSender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

pub(crate) const FILE: &str = "raft.synced";
const MAGIC: [u8; 8] = *b"qsynced1";
/// Far enough apart that no disk sector holds both.
const SLOTS: [u64; 2] = [0, 4096];
/// `magic, store id u64 BE, sequence u64 BE, crc32c u32 BE`
const SLOT_BYTES: usize = 28;
/// Pause between two syncs of the file.
const SYNC_EVERY: Duration = Duration::from_millis(200);

/// The content of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SyncedPosition {
    pub(crate) store_id: u64,
    /// Sequence number of the last write that is known to have been synced.
    pub(crate) sequence: u64,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoteError {
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    #[error("{} is damaged", .0.display())]
    Damaged(PathBuf),
    #[error("cannot read {}", .path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The file, opened for the log writer.
pub(super) struct SyncedNote {
    file: Arc<File>,
    store_id: u64,
    slot: usize,
    /// Wakes the thread that syncs the file. None before that thread is started and while it is being
    /// ended.
    news: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Reads the file of a data directory.
pub(crate) fn read(dir: &Path) -> Result<SyncedPosition, NoteError> {
    let path = dir.join(FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(NoteError::Missing(path));
        }
        Err(source) => return Err(NoteError::Io { path, source }),
    };
    let mut latest: Option<SyncedPosition> = None;
    for slot in SLOTS {
        let mut bytes = [0; SLOT_BYTES];
        match file.read_exact_at(&mut bytes, slot) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(source) => return Err(NoteError::Io { path, source }),
        }
        let noted = decode(&bytes);
        if noted.map(|it| it.sequence) >= latest.map(|it| it.sequence) {
            latest = noted;
        }
    }
    latest.ok_or(NoteError::Damaged(path))
}

impl SyncedNote {
    /// Opens the file, or makes it, and notes `sequence`, durably. The directory entry is synced
    /// later, by the call that records that the stores were made.
    pub(super) fn open(dir: &Path, store_id: u64, sequence: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).write(true).open(dir.join(FILE))?;
        let mut note = Self { file: Arc::new(file), store_id, slot: 0, news: None, thread: None };
        for _ in SLOTS {
            note.write(sequence)?;
        }
        note.file.sync_all()?;
        note.start_thread()?;
        Ok(note)
    }

    /// Starts the thread that syncs what is written from here on.
    fn start_thread(&mut self) -> io::Result<()> {
        let (news, told) = mpsc::sync_channel(1);
        let file = self.file.clone();
        let thread = thread::Builder::new().name("raft-synced".to_owned());
        self.thread = Some(thread.spawn(move || sync_on_news(&file, &told))?);
        self.news = Some(news);
        Ok(())
    }

    /// Notes that everything up to `sequence` has been synced.
    pub(super) fn write(&mut self, sequence: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(self.store_id, sequence), SLOTS[self.slot])?;
        self.slot = (self.slot + 1) % SLOTS.len();
        if let Some(news) = &self.news {
            // Full if the thread has not yet begun the sync that was requested before. That sync
            // covers this write too.
            let _ = news.try_send(());
        }
        Ok(())
    }
}

impl Drop for SyncedNote {
    fn drop(&mut self) {
        self.news = None;
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        // The thread syncs the last write before it ends.
        if thread.join().is_err() {
            tracing::error!("the thread that syncs {FILE} panicked");
        }
    }
}

fn sync_on_news(file: &File, told: &Receiver<()>) {
    while told.recv().is_ok() {
        if let Err(error) = file.sync_data() {
            // The note lags until the next sync. If the disk fails for good, the writes of the log
            // fail too.
            tracing::warn!(%error, "{FILE} was not synced");
        }
        thread::park_timeout(SYNC_EVERY);
    }
}

fn encode(store_id: u64, sequence: u64) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..16].copy_from_slice(&store_id.to_be_bytes());
    bytes[16..24].copy_from_slice(&sequence.to_be_bytes());
    let sum = crc32c::crc32c(&bytes[..24]);
    bytes[24..].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<SyncedPosition> {
    let (magic, rest) = bytes.split_first_chunk::<8>()?;
    let (store_id, rest) = rest.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let sum = rest.first_chunk::<4>()?;
    let whole = *magic == MAGIC && crc32c::crc32c(&bytes[..24]) == u32::from_be_bytes(*sum);
    whole.then_some(SyncedPosition {
        store_id: u64::from_be_bytes(*store_id),
        sequence: u64::from_be_bytes(*sequence),
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_note_is_read_and_the_one_before_if_it_is_torn() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(read(dir.path()), Err(NoteError::Missing(_))));
        let mut note = SyncedNote::open(dir.path(), 7, 1).unwrap();
        note.write(5).unwrap();
        note.write(9).unwrap();
        assert_eq!(read(dir.path()).unwrap(), SyncedPosition { store_id: 7, sequence: 9 });

        let path = dir.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for (slot, left) in [(SLOTS[0], 9), (SLOTS[1], 5)] {
            let mut torn = whole.clone();
            torn[usize::try_from(slot).unwrap() + 20] ^= 1;
            fs::write(&path, torn).unwrap();
            assert_eq!(read(dir.path()).unwrap().sequence, left);
        }
        fs::write(&path, vec![0; whole.len()]).unwrap();
        assert!(matches!(read(dir.path()), Err(NoteError::Damaged(_))));
        fs::write(&path, "").unwrap();
        assert!(matches!(read(dir.path()), Err(NoteError::Damaged(_))));
    }
}
