//! The discovery thread: from the host's folders, its processes and the kernel's mapping records to probes.
//!
//! In: loaded programs and a planner. Out: probes in the kernel, and [`Status`]. Started by `pipeline` (or
//! `explain`), stopped by it; nothing here runs in the capture's own threads, because looking into a file
//! takes milliseconds and may block.
//!
//! In this order:
//! 1. Mapping records are switched on, so that nothing is missed from here on.
//! 2. Libraries in the host's loader folders are probed before [`Libraries::start`] returns: a program that
//!    lives 30 ms and is started afterwards finds the probes in place.
//! 3. The folders of other roots and the mappings of all processes are read, once.
//! 4. Each new mapping is looked at as it is made, and each watched folder's new file. A root that is new with
//!    it has its folders read.
//! 5. Targets that are opened for writing lose their probes before that, by a thread of `guard`'s, and are looked
//!    at again once they are closed.
//! 6. Targets that are deleted and no longer mapped are let go. Only when there may be some, all processes are
//!    read again.
//!
//! Lost records are made good by another scan. Without records (no right to them) a scan a second takes their
//! place.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::guard::Left;
use super::registry::Registry;
use super::search::Work;
use super::sideband::Sideband;
use super::status::{Shared, Status};
use super::{Error, Plan, Program};
use crate::probe::uprobe;

/// Looks into a file: what to probe there, or nothing. [`super::plan`] is the one; tests have others.
pub type Planner = Arc<dyn Fn(&File) -> Result<Option<Plan>, Error> + Send + Sync>;

/// How discovery works.
#[derive(Clone)]
pub struct Settings {
    /// Looks into a file.
    pub plan: Planner,
    /// Folders of the host that are searched and watched like its loader's, before those.
    pub folders: Vec<PathBuf>,
    /// How often dead targets are looked for.
    pub let_go_every: Duration,
    /// Targets that are probed at a time. Each takes a dozen descriptors.
    pub limit: usize,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn new(plan: Planner) -> Self {
        Self { plan, folders: Vec::new(), let_go_every: Duration::from_secs(30), limit: 1024 }
    }
}

/// The thread is waited for this long; one that hangs in a foreign file system is left to itself.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// [`Libraries::start`] waits at most this long for the first look at all processes: that takes 0.4 s for 10,000,
/// and a few ms for each library that they have; more after a restart, while the kernel is still taking the last
/// agent's probes away.
const FIRST_SCAN: Duration = Duration::from_secs(3);

/// Discovery at work. Dropping it stops it.
#[derive(Debug)]
pub struct Libraries {
    shared: Shared,
    /// `None` when it could not be started; a note says so.
    thread: Option<Running>,
}

#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    /// Tells it to end.
    end: Arc<OwnedFd>,
    /// What it leaves then.
    left: mpsc::Receiver<Left>,
}

impl Libraries {
    /// Starts discovery. Libraries in the host's loader folders are probed when this returns, and those of running
    /// processes and containers unless they take longer than half a second.
    ///
    /// Nothing here fails: what does not work is said in [`Status::notes`] and at the targets.
    #[must_use]
    pub fn start(programs: HashMap<Program, OwnedFd>, settings: Settings) -> Self {
        raise_file_limit();
        Self::start_with(programs, settings, Sideband::open())
    }

    fn start_with(programs: HashMap<Program, OwnedFd>, settings: Settings, sideband: io::Result<Sideband>) -> Self {
        let shared = Shared::default();
        let thread = match run(programs, settings, sideband, &shared) {
            Ok(running) => Some(running),
            Err(error) => {
                shared.note(format!("TLS libraries are not looked for: no thread could be started: {error}."));
                None
            }
        };
        // What runs already should be read from the first request after this, too, but nobody waits for long.
        let begun = Instant::now();
        while thread.is_some() && shared.scans() == 0 && begun.elapsed() < FIRST_SCAN {
            std::thread::sleep(Duration::from_millis(1));
        }
        Self { shared, thread }
    }

    /// What is probed, and what does not work.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.get()
    }

    /// The same, for others than the owner, also after the end.
    pub fn reader(&self) -> impl Fn() -> Status + Send + Sync + use<> {
        let shared = self.shared.clone();
        move || shared.get()
    }

    /// Stops looking and takes all probes away, some of them later ([`uprobe::leave`]).
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let Some(Running { thread, end, left }) = self.thread.take() else { return };
        signal(&end);
        let Ok(Left { probes, leases }) = left.recv_timeout(STOP_PATIENCE) else {
            return tracing::warn!("The search for TLS libraries hangs in a file system and is left to itself.");
        };
        if !uprobe::leave(probes) {
            tracing::debug!("Probes were taken away one after the other.");
        }
        drop(leases);
        // It has nothing left to do.
        let _ = thread.join();
    }
}

impl Drop for Libraries {
    fn drop(&mut self) {
        self.end();
    }
}

fn run(
    programs: HashMap<Program, OwnedFd>,
    settings: Settings,
    sideband: io::Result<Sideband>,
    shared: &Shared,
) -> io::Result<Running> {
    let end = Arc::new(event()?);
    let registry = Registry::new(Arc::clone(&settings.plan), programs, settings.limit, shared.clone())?;
    let mut work = Work::new(registry, settings, shared.clone(), Arc::clone(&end), sideband);
    if catch_unwind(AssertUnwindSafe(|| work.host_folders())).is_err() {
        shared.note("Reading the host's library folders failed: a mistake of ours.".into());
    }
    let (hand_over, left) = mpsc::channel();
    let thread = std::thread::Builder::new().name("libraries".into()).spawn(move || {
        work.run();
        // Nobody listens any more when the thread hung and was left.
        let _ = hand_over.send(work.registry.into_probes());
    })?;
    Ok(Running { thread, end, left })
}

/// A dozen descriptors a library, and more than the usual 1,024 together: the limit is raised to what the
/// service manager allows.
fn raise_file_limit() {
    // SAFETY: the structure is ours; a refusal leaves things as they are.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
    }
}

/// An eventfd that does not block.
pub(super) fn event() -> io::Result<OwnedFd> {
    // SAFETY: makes a descriptor out of flags.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes it readable.
pub(super) fn signal(event: &OwnedFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight bytes, as eventfd(2) wants them.
    unsafe { libc::write(event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
}

#[cfg(test)]
mod tests;
