//! The thread that drains the rings. It reads no files and parses nothing but a record's head.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use agent_ebpf::kind;

use super::{Counters, Shared, pool::Pool};
use crate::probe::{
    Kernel, Record,
    kernel::give_back_memory,
    recording::{RecordedProcess, Recorder, TAG_PROCESS, TAG_RECORD},
};

/// Data records taken before the control ring is looked at again.
const TURN: usize = 4096;
/// How long the reader sleeps when the rings were empty: at most 10 ms, at 1 GB/s a third of the data ring.
const NAPS: [(u32, Duration); 3] =
    [(50, Duration::from_millis(2)), (500, Duration::from_millis(5)), (u32::MAX, Duration::from_millis(10))];

/// Rounds without a record (about 300 ms) after which memory of the last burst is given back.
const QUIET: u32 = 100;

/// Ends of connections, and what became of TLS objects, that wait until the data before them have been taken: until the data ring was found empty in a
/// later round (a record that is still being written hides those behind it), or as much was taken as it holds.
struct Ends {
    waiting: VecDeque<(u64, u64, Vec<u8>)>,
    ring_bytes: u64,
    taken: u64,
    /// Rounds that found the ring empty.
    empty: u64,
}

impl Ends {
    fn new(ring_bytes: u64) -> Self {
        Ends { waiting: VecDeque::new(), ring_bytes, taken: 0, empty: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.waiting.push_back((self.taken, self.empty, bytes.to_vec()));
    }

    /// A round has taken so many bytes of the data ring.
    fn consumed(&mut self, bytes: u64, empty: bool) {
        self.taken += bytes;
        self.empty += u64::from(empty);
    }

    /// The next end whose data have been taken.
    fn next(&mut self) -> Option<Vec<u8>> {
        let (taken, empty, _) = self.waiting.front()?;
        // Its own round does not count.
        let due = self.empty >= empty + 2 || self.taken - taken >= self.ring_bytes;
        if due { self.waiting.pop_front().map(|(_, _, bytes)| bytes) } else { None }
    }

    fn len(&self) -> usize {
        self.waiting.len()
    }

    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

pub(super) struct Reader {
    ring_bytes: u64,
    kernel: Kernel,
    workers: Pool,
    shared: Arc<Shared>,
    recorder: Option<Recording>,
    stopping: mpsc::Receiver<(u64, u32)>,
}

/// A recording under way, and the processes that it already tells of.
struct Recording {
    recorder: Recorder,
    known: HashSet<(u32, u64)>,
    failed: bool,
}

impl Recording {
    /// Keeps a record, after the facts of its process when that is new.
    fn keep(&mut self, bytes: &[u8], shared: &Shared) {
        let Some(significant) = Record::significant(bytes) else { return };
        let owner = Record::parse(bytes).map_or((0, 0), |record| record.owner());
        let mut result = Ok(());
        if owner.0 != 0 && !self.known.contains(&owner) && self.known.insert(owner) {
            let process = shared.processes.lookup(owner.0, (owner.1 != 0).then_some(owner.1));
            let entry = RecordedProcess { start_ns: owner.1, process: process.facts.clone() };
            if let Ok(json) = serde_json::to_vec(&entry) {
                result = self.recorder.add(TAG_PROCESS, &json);
            }
        }
        if let Err(error) = result.and_then(|()| self.recorder.add(TAG_RECORD, significant))
            && !std::mem::replace(&mut self.failed, true)
        {
            tracing::error!(%error, "The recording is incomplete from here on.");
        }
    }
}

impl Reader {
    pub(super) fn new(
        kernel: Kernel,
        ring_bytes: u64,
        workers: Pool,
        shared: Arc<Shared>,
        recorder: Option<Recorder>,
        stopping: mpsc::Receiver<(u64, u32)>,
    ) -> Self {
        let recorder = recorder.map(|recorder| Recording { recorder, known: HashSet::new(), failed: false });
        Reader { ring_bytes, kernel, workers, shared, recorder, stopping }
    }

    pub(super) fn run(mut self, stop: &AtomicBool) {
        let mut ends = Ends::new(self.ring_bytes);
        let mut idle = 0u32;
        let mut stopping_now = false;
        let mut counted = Instant::now();
        self.workers.tick(super::worker::now());
        loop {
            let last = stop.load(Ordering::Relaxed);
            if last && !std::mem::replace(&mut stopping_now, true) {
                // From here on nothing new comes.
                if let Err(error) = self.kernel.set(false, 0) {
                    tracing::debug!(%error, "The kernel side goes on copying until it is detached.");
                }
            }
            let Reader { kernel, workers, shared, recorder, stopping, .. } = &mut self;
            // A recording holds the records in the order in which they are handed on.
            let mut hand_on = |record: &Record<'_>, bytes: &[u8]| {
                if let Some(r) = recorder {
                    r.keep(bytes, shared);
                }
                match record {
                    Record::Exec(exec) => shared.processes.exec(&(&**exec).into()),
                    record => workers.push(record, bytes),
                }
            };
            let unreadable = &shared.counters.unreadable_records;
            let control = kernel.drain_control(|bytes| match Record::parse(bytes) {
                Some(Record::Connection(c)) if matches!(c.header.kind, kind::CLOSE | kind::END) => {
                    ends.push(bytes);
                }
                Some(Record::Object(_)) => ends.push(bytes),
                Some(record) => hand_on(&record, bytes),
                None => Counters::add(unreadable, 1),
            });
            let mut taken = 0;
            let data = kernel.drain_data(TURN, |bytes| {
                taken += bytes.len() as u64;
                match Record::parse(bytes) {
                    Some(record) => hand_on(&record, bytes),
                    None => Counters::add(unreadable, 1),
                }
            });
            ends.consumed(taken, data < TURN);
            while let Some(bytes) = ends.next() {
                if let Some(record) = Record::parse(&bytes) {
                    hand_on(&record, &bytes);
                }
            }
            workers.flush();
            let cookies: Vec<(u64, u32)> = stopping.try_iter().take(1024).collect();
            if !cookies.is_empty()
                && let Err(error) = kernel.stop(&cookies)
            {
                tracing::debug!(%error, "Copying goes on for connections that are of no more use.");
            }
            if counted.elapsed() > Duration::from_secs(1) {
                counted = Instant::now();
                shared.host.follow_clock();
                Self::count(kernel, shared);
            }
            workers.tick(super::worker::now());
            if control + data > 0 {
                idle = 0;
            } else {
                idle = idle.saturating_add(1);
                if idle == QUIET {
                    give_back_memory();
                }
            }
            if last && ((data < TURN && ends.is_empty()) || self.shared.late()) {
                Counters::add(&self.shared.counters.dropped_at_stop, ends.len() as u64);
                break;
            }
            if data < TURN {
                let nap = NAPS.iter().find(|(rounds, _)| idle < *rounds).map_or(NAPS[2].1, |n| n.1);
                std::thread::sleep(nap);
            }
        }
        Self::count(&self.kernel, &self.shared);
        // Detach before the workers' last objects are written: from here on nobody waits for this process.
        drop(self.kernel);
        self.workers.stop();
        if let Some(r) = self.recorder {
            match r.recorder.finish() {
                Ok(0) => {}
                Ok(dropped) => {
                    tracing::warn!(dropped, "The recording reached its size limit; later records are not in it.");
                }
                Err(error) => tracing::error!(%error, "The recording is incomplete."),
            }
        }
    }

    fn count(kernel: &Kernel, shared: &Shared) {
        for (to, from) in shared.counters.kernel.iter().zip(kernel.counters()) {
            to.store(from, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Ends;

    #[test]
    fn an_end_waits_for_a_later_round_that_finds_the_ring_empty() {
        let mut ends = Ends::new(1000);
        ends.push(b"first");
        ends.consumed(10, true);
        assert_eq!(ends.next(), None, "its own round does not count");
        ends.push(b"second");
        ends.consumed(0, true);
        assert_eq!(ends.next().as_deref(), Some(&b"first"[..]));
        assert_eq!((ends.next(), ends.len()), (None, 1));
    }

    #[test]
    fn an_end_does_not_wait_for_ever_while_the_ring_is_never_empty() {
        let mut ends = Ends::new(1000);
        ends.push(b"end");
        ends.consumed(999, false);
        assert_eq!(ends.next(), None);
        ends.consumed(1, false);
        assert!(ends.next().is_some() && ends.is_empty());
    }
}
