//! The bounded queue between the threads that append and the one that writes.
//!
//! Waking the writer costs a system call, so it is woken twice a commit at most: by the first entry, which
//! starts the 200 ms, and when enough bytes wait for a commit.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use transaction::Sealed;

use crate::{Entry, Refused};

/// What an entry is reckoned at beside its bytes: the record's strings and allocations.
const OVERHEAD: usize = 512;

/// See the module.
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Most bytes that may wait.
    limit: usize,
    /// So many bytes are worth a commit at once.
    enough: usize,
}

/// How far the archive's end has come.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Life {
    #[default]
    Open,
    /// Nobody waits for room any more.
    Hurried,
    /// No more entries are taken.
    Closed,
}

#[derive(Default)]
struct State {
    entries: VecDeque<Entry>,
    /// What `entries` and the batch being written are reckoned at.
    bytes: usize,
    /// What `entries` alone is reckoned at.
    waiting: usize,
    /// When the oldest of `entries` came.
    since: Option<Instant>,
    life: Life,
    /// After this moment none is written either.
    deadline: Option<Instant>,
    /// Somebody waits for everything to be written.
    flush: bool,
    /// Somebody has waited for room in vain; true until something is written.
    stuck: bool,
}

/// What the writer finds.
pub(crate) enum Turn {
    /// These are to be written; their bytes count as waiting until [`Queue::written`].
    Batch(Vec<Entry>),
    /// Nothing came in the given time.
    Idle,
    /// Nothing waits and nothing more will come.
    Closed,
}

impl Queue {
    pub(crate) fn new(limit: usize, enough: usize) -> Self {
        Queue { state: Mutex::default(), changed: Condvar::new(), limit, enough }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an entry, or refuses it when the queue would hold more than its limit. An entry larger than the
    /// limit is taken when nothing else waits: otherwise it could never be stored.
    /// While it is full, `patience` long is waited for the writer; not again before the writer has got on.
    pub(crate) fn push(&self, entry: Entry, patience: Duration) -> Result<(), Refused> {
        let size = reckon(&entry);
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            if state.life == Life::Closed {
                return Err(Refused::Closed);
            }
            if state.bytes == 0 || state.bytes.saturating_add(size) <= self.limit {
                break;
            }
            let left =
                if state.stuck || state.life == Life::Hurried { None } else { patience.checked_sub(begun.elapsed()) };
            let Some(left) = left.filter(|left| !left.is_zero()) else {
                state.stuck |= !patience.is_zero();
                return Err(Refused::Full);
            };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let before = state.waiting;
        state.bytes += size;
        state.waiting += size;
        if state.entries.is_empty() {
            state.since = Some(Instant::now());
        }
        state.entries.push_back(entry);
        let wake = before == 0 || (before < self.enough && state.waiting >= self.enough);
        drop(state);
        if wake {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Waits until there is enough for a commit or the oldest entry has waited for `patience`; at most `idle`
    /// when nothing comes. Takes at most `most` bytes, but always one entry.
    pub(crate) fn next(&self, patience: Duration, idle: Duration, most: usize) -> Turn {
        let begun = Instant::now();
        let mut state = self.state();
        loop {
            let wait = match state.since {
                None if state.life == Life::Closed => return Turn::Closed,
                None => idle.checked_sub(begun.elapsed()),
                Some(_) if state.life == Life::Closed || state.flush || state.waiting >= self.enough => None,
                Some(since) => patience.checked_sub(since.elapsed()),
            };
            let Some(wait) = wait else { break };
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        if state.deadline.is_some_and(|d| Instant::now() > d) {
            state.entries.clear();
            return Turn::Closed;
        }
        if state.entries.is_empty() {
            state.flush = false;
            return Turn::Idle;
        }
        let mut batch = Vec::with_capacity(state.entries.len());
        let mut taken = 0;
        while let Some(entry) = state.entries.pop_front() {
            taken += reckon(&entry);
            batch.push(entry);
            if state.entries.front().is_some_and(|next| taken + reckon(next) > most) {
                break;
            }
        }
        state.waiting -= taken.min(state.waiting);
        // What is left has waited as long: its turn is next.
        if state.entries.is_empty() {
            state.since = None;
            state.flush = false;
        }
        Turn::Batch(batch)
    }

    /// The batch is in the database, or was given up: its bytes no longer wait.
    pub(crate) fn written(&self, batch: &[Entry]) {
        let size: usize = batch.iter().map(reckon).sum();
        let mut state = self.state();
        state.bytes = state.bytes.saturating_sub(size);
        state.stuck = false;
        drop(state);
        self.changed.notify_all();
    }

    /// Asks for a commit at once and waits until everything taken so far was written or `timeout` has passed;
    /// returns whether nothing waits.
    pub(crate) fn flush(&self, timeout: Duration) -> bool {
        let begun = Instant::now();
        let mut state = self.state();
        while state.bytes > 0 {
            let Some(left) = timeout.checked_sub(begun.elapsed()) else { return false };
            if !state.entries.is_empty() {
                state.flush = true;
                self.changed.notify_all();
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// From now on nobody waits for room.
    pub(crate) fn hurry(&self) {
        let mut state = self.state();
        state.life = state.life.max(Life::Hurried);
        drop(state);
        self.changed.notify_all();
    }

    /// No more entries are taken; what waits is written, what has no turn within `patience` is let go.
    pub(crate) fn close(&self, patience: Option<Duration>) {
        let mut state = self.state();
        state.life = Life::Closed;
        state.deadline = patience.map(|p| Instant::now() + p);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits for `time`, or until the queue is closed; returns whether it is.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let begun = Instant::now();
        let mut state = self.state();
        while state.life != Life::Closed {
            let Some(left) = time.checked_sub(begun.elapsed()) else { break };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.life == Life::Closed
    }

    /// Whether a commit is due now.
    pub(crate) fn is_due(&self, patience: Duration) -> bool {
        let state = self.state();
        state.waiting >= self.enough || state.since.is_some_and(|s| s.elapsed() >= patience)
    }

    /// Bytes that wait, those of the batch being written included.
    pub(crate) fn bytes(&self) -> u64 {
        self.state().bytes as u64
    }
}

/// What an entry counts for.
fn reckon(entry: &Entry) -> usize {
    OVERHEAD
        + match entry {
            Entry::Transaction(Sealed { bytes, record: r }) => {
                let texts = [&r.request_path, &r.request_host, &r.request_method, &r.request_content_type];
                bytes.len() + r.response_content_type.len() + texts.iter().map(|t| t.len()).sum::<usize>()
            }
            Entry::Connection(_) => OVERHEAD,
        }
}
