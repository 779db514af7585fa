//! The workers as the reader sees them: each record goes to the one that its addresses fall to.

use std::{
    io,
    sync::{Arc, atomic::AtomicU64, mpsc},
    thread::JoinHandle,
};

use agent_ebpf::{Address, Data, Library};

use super::{Counters, Shared, batch::Batch, loose::Loose, worker::Worker};
use crate::{connection::Key, probe::Record};

/// Batches that may wait for a worker; the reader waits when there are as many.
const QUEUE: usize = 8;

/// The workers as the reader sees them.
pub(super) struct Pool {
    lanes: Vec<Lane>,
    loose: Loose,
    counters: Arc<Counters>,
}

struct Lane {
    batch: Batch,
    queue: Option<mpsc::SyncSender<Batch>>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    pub(super) fn start(shared: &Arc<Shared>, count: usize, stops: &mpsc::Sender<(u64, u32)>) -> io::Result<Pool> {
        let mut lanes = Vec::with_capacity(count);
        for n in 0..count {
            let (queue, batches) = mpsc::sync_channel(QUEUE);
            let mut worker = Worker::new(Arc::clone(shared), Some(stops.clone()));
            let thread = std::thread::Builder::new().name(format!("flow-{n}")).spawn(move || worker.run(&batches))?;
            lanes.push(Lane { batch: Batch::default(), queue: Some(queue), thread: Some(thread) });
        }
        Ok(Pool { lanes, loose: Loose::default(), counters: Arc::clone(&shared.counters) })
    }

    /// Puts a record on its way; `bytes` are its own.
    pub(super) fn push(&mut self, record: &Record<'_>, bytes: &[u8]) {
        let Pool { lanes, loose, counters } = self;
        match record {
            Record::Library(l, _) if l.header.cookie != 0 && loose.is_empty() => {}
            Record::Library(..) | Record::Object(_) => {
                return loose.take(record, bytes, &mut |bytes| parse_and_send(lanes, counters, bytes));
            }
            _ => {}
        }
        let size = match record {
            Record::Data(_, payload) => size_of::<Data>() + payload.len(),
            Record::Library(_, payload) => size_of::<Library>() + payload.len(),
            _ => bytes.len(),
        };
        if let Some(address) = record.address() {
            send(lanes, counters, address, &bytes[..size]);
        }
    }

    /// Looks after what waits, at kernel time `now`.
    pub(super) fn tick(&mut self, now: u64) {
        let Pool { lanes, loose, counters } = self;
        loose.tick(now, &mut |bytes| parse_and_send(lanes, counters, bytes));
    }

    pub(super) fn flush(&mut self) {
        let lost = &self.counters.lost_records;
        self.lanes.iter_mut().filter(|l| !l.batch.is_empty()).for_each(|l| l.send(lost));
    }

    /// Ends the workers after what they have.
    pub(super) fn stop(mut self) {
        let Pool { lanes, loose, counters } = &mut self;
        loose.finish(&mut |bytes| parse_and_send(lanes, counters, bytes));
        self.flush();
        for lane in &mut self.lanes {
            lane.queue = None;
            if lane.thread.take().is_some_and(|t| t.join().is_err()) {
                tracing::error!("A worker panicked; its connections are lost.");
            }
        }
    }
}

/// Gives a record to the worker that its addresses fall to.
fn send(lanes: &mut [Lane], counters: &Counters, address: &Address, bytes: &[u8]) {
    let lane = (Key::of(address).0.spread() % lanes.len() as u64) as usize;
    let lane = &mut lanes[lane];
    lane.batch.push(bytes);
    if lane.batch.is_full() {
        lane.send(&counters.lost_records);
    }
}

/// The same for a record that has waited.
fn parse_and_send(lanes: &mut [Lane], counters: &Counters, bytes: &[u8]) {
    if let Some(address) = Record::parse(bytes).and_then(|record| record.address().copied()) {
        send(lanes, counters, &address, Record::significant(bytes).unwrap_or(bytes));
    }
}

impl Lane {
    fn send(&mut self, lost: &AtomicU64) {
        let batch = std::mem::take(&mut self.batch);
        if let Some(Err(gone)) = self.queue.as_ref().map(|queue| queue.send(batch)) {
            // The worker has died, which its guard should not let happen; stop() says so.
            Counters::add(lost, gone.0.records().count() as u64);
        }
    }
}
