//! The only room of the agent that knows all others: threads, queues, start and stop.
//!
//! One reader drains the rings and spreads the records over workers by connection; each worker owns its
//! connections from reassembly to the sealed object, and hands objects and events to a [`Sink`]. Queues
//! between them are bounded: a worker that cannot keep up holds the reader up, the kernel's ring fills, and
//! what is lost there is a counted gap.

mod batch;
pub mod counters;
mod hello;
pub mod host;
mod loose;
mod plaintext;
mod pool;
mod reader;
pub mod replay;
mod report;
mod tracked;
mod worker;

use std::{
    collections::HashMap,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

pub use counters::Counters;
pub use host::Host;
use transaction::{ConnectionEvent, Level, Sealed};

use crate::{
    capture::Capture,
    flow::Budget,
    http,
    library::{self, Libraries, Program},
    probe::{self, Kernel, recording},
    process,
};

/// Where finished transactions and connection events go.
pub trait Sink: Send + Sync {
    /// A transaction; its record says when it was.
    fn transaction(&self, sealed: Sealed);
    /// A connection's report.
    fn connection(&self, event: ConnectionEvent);
}

/// How a pipeline runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The kernel side.
    pub kernel: probe::Options,
    /// Level of every transaction.
    pub level: Level,
    /// Threads that take connections apart; 0 for one a core, at most 4.
    pub workers: usize,
    /// Bytes kept of one body; what is beyond it is cut.
    pub body: usize,
    /// Bytes of memory for all bodies and reassembly together.
    pub budget: usize,
    /// Keep the kernel's records in this file, up to this size.
    pub record: Option<(PathBuf, u64)>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            kernel: probe::Options::default(),
            level: Level::Full,
            workers: 0,
            body: http::Limits::default().body,
            budget: 64 << 20,
            record: None,
        }
    }
}

impl Settings {
    /// Sets the bytes kept of one body, with the kernel side's cap and the budget that it needs.
    pub fn keep_body(&mut self, body: usize) {
        self.body = body;
        self.budget = self.budget.max(body.saturating_mul(8));
        // A body, its head, and chunk framing.
        self.kernel.cap = u32::try_from(body + body / 64 + (256 << 10)).unwrap_or(u32::MAX);
    }

    fn limits(&self) -> http::Limits {
        http::Limits { body: self.body, ..http::Limits::default() }
    }
}

/// Why a pipeline does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel side.
    #[error(transparent)]
    Probe(#[from] probe::Error),
    /// The recording.
    #[error(transparent)]
    Recording(#[from] recording::Error),
    /// A thread or a clock.
    #[error("{0}")]
    System(#[from] std::io::Error),
}

/// Owners of sockets by cookie: process and start in nanoseconds since boot.
type Owners = HashMap<u64, (u32, Option<u64>)>;

/// What the workers share.
struct Shared {
    host: Host,
    processes: process::Table,
    capture: Capture,
    sink: Arc<dyn Sink>,
    budget: Arc<Budget>,
    limits: http::Limits,
    counters: Arc<Counters>,
    /// Owners of sockets older than the agent, once they are found.
    seeds: Arc<OnceLock<Owners>>,
    /// Set at the stop: what is not done by then is counted and let go.
    deadline: OnceLock<Instant>,
}

/// Time for what is in the rings and queues when the stop is asked for.
const STOP_PATIENCE: Duration = Duration::from_millis(250);

impl Shared {
    /// The stop was asked for and its time is up.
    fn late(&self) -> bool {
        self.deadline.get().is_some_and(|d| Instant::now() > *d)
    }
}

/// A running capture.
pub struct Pipeline {
    shared: Arc<Shared>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    libraries: Option<Libraries>,
    counters: Arc<Counters>,
    notes: Vec<String>,
}

impl Pipeline {
    /// Attaches the programs and starts the threads. When it returns, everything that happens from now on
    /// is captured.
    pub fn start(settings: &Settings, sink: Arc<dyn Sink>) -> Result<Pipeline, Error> {
        let mut kernel = Kernel::load(&settings.kernel)?;
        let mut notes = kernel.notes().to_vec();
        let programs = kernel.library_programs();
        let host = Host::this()?;
        let recorder = match &settings.record {
            Some((path, limit)) => Some(recording::Recorder::create(path, &host.about(), *limit)?),
            None => None,
        };
        let counters = Arc::new(Counters::default());
        let mut processes = process::Table::new(process::Boot::read());
        if let Ok(root) = kernel.cgroup() {
            processes = processes.with_cgroups(root);
        }
        let shared = Arc::new(Shared {
            host,
            processes,
            capture: Capture::new(settings.level),
            sink,
            budget: Budget::new(settings.budget),
            limits: settings.limits(),
            counters: Arc::clone(&counters),
            seeds: Arc::default(),
            deadline: OnceLock::new(),
        });
        let (stops, stopping) = mpsc::channel();
        let workers = pool::Pool::start(&shared, worker_count(settings.workers), &stops)?;
        let stop = Arc::new(AtomicBool::new(false));
        let reader = reader::Reader::new(
            kernel,
            u64::from(settings.kernel.ring_bytes),
            workers,
            Arc::clone(&shared),
            recorder,
            stopping,
        );
        let flag = Arc::clone(&stop);
        let reader = std::thread::Builder::new().name("ring-reader".into()).spawn(move || reader.run(&flag))?;
        // The host's own libraries are probed when this returns; those of containers and running programs soon after.
        let libraries = libraries(programs, &mut notes);
        // Owners of old sockets take a walk through /proc: beside the capture, not before it.
        let seeds = Arc::clone(&shared.seeds);
        // Nobody waits for it: on a large host it takes seconds, and it holds nothing.
        std::thread::Builder::new().name("seed".into()).spawn(move || seed(&seeds))?;
        Ok(Pipeline { shared, stop, reader: Some(reader), libraries, counters, notes })
    }

    /// Counters of all rooms.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// What this kernel lacks, one line each.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The TLS libraries that are read, and how; `None` where this kernel refuses the programs for them.
    #[must_use]
    pub fn libraries(&self) -> Option<library::Status> {
        self.libraries.as_ref().map(Libraries::status)
    }

    /// The same, for others than the owner, also after the stop.
    pub fn libraries_reader(&self) -> impl Fn() -> Option<library::Status> + Send + Sync + use<> {
        let reader = self.libraries.as_ref().map(Libraries::reader);
        move || reader.as_ref().map(|read| read())
    }

    /// Detaches the programs, takes what is still in the rings to its end, and ends the threads.
    pub fn stop(mut self) {
        self.join();
    }

    fn join(&mut self) {
        // The workers see the deadline even while the reader waits for one of them.
        self.shared.deadline.get_or_init(|| Instant::now() + STOP_PATIENCE);
        self.stop.store(true, Ordering::Relaxed);
        if let Some(libraries) = self.libraries.take() {
            libraries.stop();
        }
        if self.reader.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("The thread that reads the rings has panicked; what it held is lost.");
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.join();
    }
}

/// Starts the search for TLS libraries.
fn libraries(programs: Vec<(&'static str, OwnedFd)>, notes: &mut Vec<String>) -> Option<Libraries> {
    const PROGRAMS: [Program; 5] = [Program::Call, Program::Result, Program::Mark, Program::Descriptor, Program::Free];
    let programs: HashMap<Program, OwnedFd> = programs
        .into_iter()
        .filter_map(|(name, fd)| Some((PROGRAMS.into_iter().find(|p| p.name() == name)?, fd)))
        .collect();
    let return_probes = match probe::returns::safe(programs.get(&Program::Result)?.as_fd()) {
        Ok(true) => true,
        Ok(false) => {
            notes.push(
                "return probes kill programs under strict seccomp on this kernel, so they stay off; where plaintext \
                 can be read by them alone, it is not"
                    .to_owned(),
            );
            false
        }
        Err(error) => {
            notes.push(format!("return probes stay off, because trying them failed: {error}"));
            false
        }
    };
    let planner = move |file: &std::fs::File| library::plan(file, library::Options { return_probes });
    let libraries = Libraries::start(programs, library::Settings::new(Arc::new(planner)));
    notes.extend(libraries.status().notes);
    Some(libraries)
}

fn worker_count(asked: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if asked == 0 { cores.min(4) } else { asked.min(64) }
}

fn seed(owners: &OnceLock<Owners>) {
    match crate::connection::seed::seed() {
        Ok(found) => {
            let per_second = process::Boot::read().ticks_per_second.max(1);
            let start = |ticks: u64| (ticks != 0).then(|| ticks.saturating_mul(1_000_000_000 / per_second));
            let found: Owners =
                found.into_iter().filter(|s| s.pid != 0).map(|s| (s.cookie, (s.pid, start(s.start_ticks)))).collect();
            tracing::debug!(sockets = found.len(), "Found the owners of sockets that are older than this process.");
            // Set once, here.
            let _ = owners.set(found);
        }
        Err(error) => {
            tracing::warn!(%error, "Owners of sockets older than this process are found only when they send.");
        }
    }
}
