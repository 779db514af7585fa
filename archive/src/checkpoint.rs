//! Moves the write-ahead log into the database file, on a thread and a connection of its own: a checkpoint
//! forces data to the disk, which can take longer than the 200 ms in which a commit is due.
//!
//! The log stays short in three steps. At `target` bytes this thread is woken (and 5 s after the first commit
//! in any case: that is what a power cut can cost). The log begins anew only at a moment when all of it has
//! been moved, which under steady load another thread never finds: so from twice the target on, the writer
//! moves the little that is left itself, between two commits. At `most` bytes, when a reader that was stopped
//! in the middle of a read holds an old page, the writer waits; its queue fills, and what comes then is refused
//! and counted, rather than the disk filled.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use rusqlite::Connection;

use crate::{Options, stats::Counters};

/// Longest time between a commit and its being forced to the disk.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub(crate) struct Checkpointer {
    connection: Mutex<Connection>,
    state: Mutex<State>,
    changed: Condvar,
    counters: Arc<Counters>,
    target: u64,
    most: u64,
}

#[derive(Default)]
struct State {
    /// When the oldest commit that was not yet forced to the disk was made.
    since: Option<Instant>,
    /// Length of the log in bytes.
    log: u64,
    /// The archive is being closed: the writer waits for no checkpoint any more.
    hurried: bool,
    /// No last checkpoint: the next opening moves the log.
    quick: bool,
    closed: bool,
}

impl Checkpointer {
    pub(crate) fn new(connection: Connection, counters: Arc<Counters>, options: &Options) -> Self {
        Checkpointer {
            connection: Mutex::new(connection),
            state: Mutex::default(),
            changed: Condvar::new(),
            counters,
            target: target(options),
            most: (options.max_bytes / 12).max(2 << 20),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Thread's body: until [`Checkpointer::close`].
    pub(crate) fn run(&self) {
        loop {
            let mut state = self.state();
            loop {
                if state.closed {
                    let quick = state.quick;
                    drop(state);
                    if !quick {
                        self.last();
                    }
                    return;
                }
                let Some(since) = state.since else {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    continue;
                };
                let Some(left) = PATIENCE.checked_sub(since.elapsed()).filter(|_| state.log < self.target) else {
                    break;
                };
                state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            }
            state.since = None;
            drop(state);
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = Instant::now();
            let result = checkpoint(&connection, "PASSIVE");
            drop(connection);
            let mut state = self.state();
            match result {
                Ok(left) => {
                    self.counters.wal_bytes.store(left, Relaxed);
                    // All is in the file: the writer's next commit begins the log anew.
                    if left == 0 {
                        state.log = 0;
                    }
                }
                Err(error) => {
                    self.counters.failed(format!("checkpoint: {error}"));
                    state.since.get_or_insert(begun);
                }
            }
            // Full again or failing: not at once, lest this thread spins.
            if state.log >= self.target && !state.closed {
                let pause = Duration::from_millis(50);
                drop(self.changed.wait_timeout(state, pause).unwrap_or_else(PoisonError::into_inner));
            }
        }
    }

    /// The writer's word after each commit: the log is now so long.
    pub(crate) fn committed(&self, log: u64) {
        self.counters.wal_bytes.store(log, Relaxed);
        let mut state = self.state();
        let wake = state.since.is_none() || (state.log < self.target && log >= self.target);
        state.log = log;
        state.since.get_or_insert_with(Instant::now);
        drop(state);
        if wake {
            self.changed.notify_all();
        }
    }

    /// The writer's question before each commit: may the log grow? When it has become long, what is left of it
    /// is moved first; when it has become too long, the thread's own checkpoint is waited for.
    pub(crate) fn make_room(&self) -> rusqlite::Result<bool> {
        let State { log, hurried, .. } = *self.state();
        if log < 2 * self.target || hurried {
            return Ok(true);
        }
        let connection = match self.connection.try_lock() {
            Ok(connection) => connection,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
            Err(TryLockError::WouldBlock) if log < self.most => return Ok(true),
            Err(TryLockError::WouldBlock) => self.connection.lock().unwrap_or_else(PoisonError::into_inner),
        };
        let left = checkpoint(&connection, "PASSIVE")?;
        self.counters.wal_bytes.store(left, Relaxed);
        Ok(left == 0 || log < self.most)
    }

    /// Goes on with another connection; the old one is closed when this returns.
    pub(crate) fn replace(&self, connection: Connection) {
        *self.connection.lock().unwrap_or_else(PoisonError::into_inner) = connection;
        let mut state = self.state();
        state.log = 0;
        state.since = None;
    }

    /// The archive is being closed; what the queue still holds is bounded, and so is the log.
    pub(crate) fn hurry(&self) {
        self.state().hurried = true;
    }

    /// Ends the thread, after a last checkpoint unless it has to be `quick`: nothing can end a process while it
    /// forces data to the disk.
    pub(crate) fn close(&self, quick: bool) {
        let mut state = self.state();
        state.quick = quick;
        state.closed = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Leaves an empty log behind. A reader in the middle of a read keeps that from happening, which is no loss.
    fn last(&self) {
        let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let result =
            connection.busy_timeout(Duration::from_millis(200)).and_then(|()| checkpoint(&connection, "TRUNCATE"));
        match result {
            Ok(left) => self.counters.wal_bytes.store(left, Relaxed),
            Err(error) => self.counters.failed(format!("last checkpoint: {error}")),
        }
    }
}

/// The length at which the log is moved into the file. Short, so that no single wait for a slow disk is long: a
/// process cannot end while it forces data to the disk.
pub(crate) fn target(options: &Options) -> u64 {
    (options.max_bytes / 64).clamp(512 << 10, 4 << 20)
}

/// Runs a checkpoint; returns how many bytes of the log are not yet in the file.
fn checkpoint(connection: &Connection, mode: &str) -> rusqlite::Result<u64> {
    let sql = format!("PRAGMA wal_checkpoint({mode})");
    let (log, moved) = connection.query_row(&sql, [], |r| Ok((r.get::<_, i64>(1)?, r.get::<_, i64>(2)?)))?;
    // -1: another process is at it (nobody but this one should be), so nothing is known.
    Ok(if log < 0 { PAGE } else { u64::try_from(log - moved).unwrap_or(0) * PAGE })
}

/// SQLite's default page size, in bytes.
pub(crate) const PAGE: u64 = 4096;
