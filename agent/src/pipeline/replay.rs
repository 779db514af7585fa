//! Runs everything after the kernel on a recording: no root, no threads, the same result each time.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use super::{Counters, Error, Host, Settings, Shared, Sink, loose::Loose, worker::Worker};
use crate::{
    capture::Capture,
    flow::Budget,
    probe::{
        Record,
        recording::{Entry, Player},
    },
    process,
};

/// Replays the recording at `path` into `sink`; gives the counters.
pub fn replay(path: &Path, settings: &Settings, sink: Arc<dyn Sink>) -> Result<Arc<Counters>, Error> {
    let mut player = Player::open(path)?;
    let counters = Arc::new(Counters::default());
    let shared = Arc::new(Shared {
        host: Host::recorded(player.about()),
        processes: process::Table::offline(),
        capture: Capture::new(settings.level),
        sink,
        budget: Budget::new(settings.budget),
        limits: settings.limits(),
        counters: Arc::clone(&counters),
        seeds: Arc::default(),
        deadline: OnceLock::new(),
    });
    let mut worker = Worker::new(Arc::clone(&shared), None);
    let mut loose = Loose::default();
    let mut ticked = 0;
    while let Some(entry) = player.next_entry()? {
        match entry {
            Entry::Process(p) => shared.processes.know(p.process.pid, p.start_ns, p.process),
            Entry::Record(bytes) => {
                let Some(record) = Record::parse(bytes) else {
                    Counters::add(&counters.unreadable_records, 1);
                    continue;
                };
                let time = record.time();
                if let Record::Exec(exec) = &record {
                    shared.processes.exec(&(&**exec).into());
                } else {
                    loose.take(&record, bytes, &mut |bytes| worker.record(bytes));
                }
                // Time passes as it did: by the records' own clock.
                if time > ticked + 50_000_000 {
                    ticked = time;
                    loose.tick(time, &mut |bytes| worker.record(bytes));
                    worker.tick(time);
                }
            }
        }
    }
    loose.finish(&mut |bytes| worker.record(bytes));
    worker.finish(ticked);
    Ok(counters)
}
