//! Runs everything after the kernel on a recording: no root, no threads, the same result each time.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use super::{Counters, Error, Host, Settings, Shared, Sink, worker::Worker};
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
        counters: Arc::clone(&counters),
        seeds: Arc::default(),
        deadline: OnceLock::new(),
    });
    let mut worker = Worker::new(Arc::clone(&shared), None);
    let mut ticked = 0;
    while let Some(entry) = player.next_entry()? {
        match entry {
            Entry::Process(p) => shared.processes.know(p.process.pid, p.start_ns, p.process),
            Entry::Record(bytes) => {
                let time = match Record::parse(bytes) {
                    Some(Record::Exec(exec)) => {
                        shared.processes.exec(&(&*exec).into());
                        exec.header.time
                    }
                    Some(Record::Data(d, _)) => d.header.time,
                    Some(Record::Connection(c)) => c.header.time,
                    None => 0,
                };
                worker.record(bytes);
                // Time passes as it did: by the records' own clock.
                if time > ticked + 50_000_000 {
                    ticked = time;
                    worker.tick(time);
                }
            }
        }
    }
    worker.finish(ticked);
    Ok(counters)
}
