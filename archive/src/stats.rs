//! Counters of the writer, read by `/metrics` and at the end of a run.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// A copy of the writer's counters, all since [`crate::Archive::open`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries taken by `append`.
    pub appended: u64,
    /// Entries that are in the database.
    pub committed: u64,
    /// Entries refused because the queue was full or the archive closed.
    pub refused: u64,
    /// Commits.
    pub commits: u64,
    /// Blocks written.
    pub blocks: u64,
    /// Bytes of objects and events written, before compression.
    pub bytes: u64,
    /// The same after compression.
    pub stored_bytes: u64,
    /// Blocks that retention has deleted.
    pub deleted_blocks: u64,
    /// Entries that retention has deleted.
    pub deleted: u64,
    /// Commits, deletions and checkpoints that failed; each is tried again.
    pub errors: u64,
    /// The last failure's text; `None` once a commit has succeeded after it.
    pub last_error: Option<String>,
    /// Bytes waiting in the queue.
    pub queued_bytes: u64,
    /// Bytes in use in the database file.
    pub used_bytes: u64,
    /// Bytes in the database file that are free for what comes next.
    pub free_bytes: u64,
    /// Bytes in the write-ahead log that are not yet in the database file.
    pub wal_bytes: u64,
}

/// The counters themselves.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) appended: AtomicU64,
    pub(crate) committed: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) commits: AtomicU64,
    pub(crate) blocks: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) stored_bytes: AtomicU64,
    pub(crate) deleted_blocks: AtomicU64,
    pub(crate) deleted: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) used_bytes: AtomicU64,
    pub(crate) free_bytes: AtomicU64,
    pub(crate) wal_bytes: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Counters {
    /// Counts a failure and keeps its text.
    pub(crate) fn failed(&self, text: String) {
        self.errors.fetch_add(1, Relaxed);
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }

    /// Forgets the last failure's text.
    pub(crate) fn recovered(&self) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A copy; `queued_bytes` is the queue's.
    pub(crate) fn read(&self, queued_bytes: u64) -> Stats {
        Stats {
            appended: self.appended.load(Relaxed),
            committed: self.committed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            commits: self.commits.load(Relaxed),
            blocks: self.blocks.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            stored_bytes: self.stored_bytes.load(Relaxed),
            deleted_blocks: self.deleted_blocks.load(Relaxed),
            deleted: self.deleted.load(Relaxed),
            errors: self.errors.load(Relaxed),
            last_error: self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            queued_bytes,
            used_bytes: self.used_bytes.load(Relaxed),
            free_bytes: self.free_bytes.load(Relaxed),
            wal_bytes: self.wal_bytes.load(Relaxed),
        }
    }
}
