//! The search itself: what `discover`'s thread does, turn by turn.
//!
//! In: mapping records, changes of folders, processes. Out: files, to `registry`. Nothing here is shared with
//! another thread but the status and the event that says to end.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::discover::Settings;
use super::file::FileId;
use super::mappings::{self, Mapping};
use super::registry::{Registry, Sight, Spot};
use super::roots::{self, Root};
use super::sideband::Sideband;
use super::status::Shared;
use super::watch::Watch;
use crate::process::proc;

/// Roots whose folders are read and watched.
const MAX_ROOTS: usize = 1024;
/// Of these, layers of an overlay are looked for in so many, beside the host's.
const MAX_HOSTS: usize = 32;
/// Mappings told apart in one scan; beyond, some are looked at twice.
const MAX_DISTINCT: usize = 1 << 18;
/// Devices without a number of their own that are remembered.
const MAX_DEVICES: usize = 4096;
/// A mapping that was looked at is not looked at again for so long, however many processes make it.
const RECENT: Duration = Duration::from_secs(2);
const MAX_RECENT: usize = 16_384;
/// After a burst of records is done, the next is let gather: at most 500 wake-ups a second.
const GATHER: Duration = Duration::from_millis(2);
/// How long a scan works before the records are looked at again.
const SLICE: Duration = Duration::from_millis(20);
/// How often CPUs that come and go are looked for.
const REFRESH: Duration = Duration::from_secs(10);
/// Between two scans that are asked for, at least this and twenty times what a scan takes.
const RESCAN: Duration = Duration::from_secs(1);
/// After so many panics the thread gives up.
const MAX_PANICS: usize = 16;

/// A root that processes have.
#[derive(Debug)]
struct Known {
    /// One that lived when it was last looked at; `None` for the host.
    pid: Option<u32>,
    name: String,
    /// Last scan that met it.
    scan: u64,
    /// It may be looked into.
    answers: bool,
}

/// A scan that goes on.
#[derive(Debug)]
struct Scan {
    pids: std::vec::IntoIter<u32>,
    distinct: HashSet<mappings::Of>,
    begun: Instant,
    processes: usize,
    /// Let go when it ends, unless it meets them.
    suspects: Vec<FileId>,
}

/// The thread's state.
pub(super) struct Work {
    pub(super) registry: Registry,
    settings: Settings,
    shared: Shared,
    wake: Arc<OwnedFd>,
    sideband: Option<Sideband>,
    watch: Option<Watch>,
    host: &'static Path,
    host_id: FileId,
    roots: HashMap<FileId, Known>,
    scan: Option<Scan>,
    /// Number of the scan that goes on, or of the last.
    number: u64,
    /// When the next is due.
    next_scan: Option<Instant>,
    last_scan: Duration,
    /// By device: whether it may never answer. Numbers are used again, so they are forgotten with each scan.
    servers: HashMap<(u32, u32), bool>,
    recent: HashSet<u64>,
    recent_since: Instant,
    hasher: RandomState,
    refreshed: Instant,
    let_go_at: Instant,
    buffer: Vec<u8>,
    own_pid: u32,
}

impl Work {
    pub(super) fn new(
        registry: Registry,
        settings: Settings,
        shared: Shared,
        wake: Arc<OwnedFd>,
        sideband: io::Result<Sideband>,
    ) -> Self {
        let sideband = match sideband {
            Ok(sideband) => Some(sideband),
            Err(error) => {
                shared.note(format!(
                    "New TLS libraries are found once a second instead of at once, so those of short-lived programs \
                     may be missed: {error}."
                ));
                None
            }
        };
        let watch = match Watch::open() {
            Ok(watch) => Some(watch),
            Err(error) => {
                shared.note(format!("Upgrades of TLS libraries are found when they are first used: inotify: {error}."));
                None
            }
        };
        let now = Instant::now();
        let host = roots::host();
        Self {
            registry,
            shared,
            wake,
            sideband,
            watch,
            host,
            host_id: Root::open(host).map_or(FileId { dev: 0, ino: 0 }, |root| root.id()),
            roots: HashMap::new(),
            scan: None,
            number: 0,
            next_scan: Some(now),
            last_scan: Duration::ZERO,
            servers: HashMap::new(),
            recent: HashSet::new(),
            recent_since: now,
            hasher: RandomState::new(),
            refreshed: now,
            let_go_at: now + settings.let_go_every,
            settings,
            buffer: Vec::new(),
            own_pid: std::process::id(),
        }
    }

    pub(super) fn run(&mut self) {
        let mut panics = 0;
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(true) => {}
                Ok(false) => return,
                Err(_) => {
                    panics += 1;
                    tracing::error!("The search for TLS libraries made a mistake (number {panics}); it goes on.");
                    self.scan = None;
                    if panics >= MAX_PANICS {
                        return self
                            .shared
                            .note("The search for TLS libraries was given up after many mistakes.".into());
                    }
                }
            }
        }
    }

    /// Waits for something to do and does it. False when it is time to end.
    fn turn(&mut self) -> bool {
        let now = Instant::now();
        let patience = if self.scan.is_some() {
            Duration::ZERO
        } else {
            let due = [Some(self.let_go_at), self.next_scan, Some(self.refreshed + REFRESH), self.registry.due()];
            due.into_iter().flatten().min().map_or(REFRESH, |due| due.saturating_duration_since(now))
        };
        let rings = self.sideband.iter().flat_map(Sideband::descriptors);
        let own = [self.wake.as_raw_fd(), self.registry.bell()].into_iter();
        let waited = own.chain(rings).chain(self.watch.iter().map(Watch::descriptor));
        if poll(waited, patience) {
            return false;
        }
        self.registry.settle();
        let busy = self.records() | self.changes();
        if self.scan.is_none() && self.next_scan.is_some_and(|due| due <= Instant::now()) {
            self.begin_scan(Vec::new());
        }
        if self.scan.is_some() {
            self.go_on_scanning();
        } else if busy && poll([self.wake.as_raw_fd()].into_iter(), GATHER) {
            return false;
        }
        self.refresh();
        self.look_for_dead();
        true
    }

    /// New mappings. True when there were any.
    fn records(&mut self) -> bool {
        let Some(sideband) = &mut self.sideband else { return false };
        let drained = sideband.drain();
        if drained.lost > 0 {
            tracing::debug!("{} mapping records were lost: all processes are read again.", drained.lost);
            self.ask_for_scan();
        }
        if self.recent_since.elapsed() > RECENT || self.recent.len() > MAX_RECENT {
            self.recent.clear();
            self.recent_since = Instant::now();
        }
        let busy = !drained.mappings.is_empty();
        for (pid, mapping) in drained.mappings {
            let what = self.hasher.hash_one((mapping.device, mapping.ino, mapping.generation, &mapping.path));
            // A process that is gone already may leave nothing to open: the next one's mapping is tried again.
            if pid != self.own_pid && !self.recent.contains(&what) && self.consider(pid, &mapping).is_ok() {
                self.recent.insert(what);
            }
        }
        busy
    }

    /// New files in watched folders. True when there were any.
    fn changes(&mut self) -> bool {
        let Some(watch) = &mut self.watch else { return false };
        let changes = watch.drain();
        let busy = !changes.files.is_empty();
        for (root, path) in changes.files {
            let Some(known) = self.roots.get(&root) else { continue };
            let Ok(opened) = Root::open(&self.root_path(known.pid)) else { continue };
            if opened.id() == root {
                self.library(&opened, &path);
            }
        }
        if changes.overflow {
            tracing::debug!("Changes of library folders were lost: they are read again.");
            self.host_folders();
            self.roots.retain(|_, known| known.pid.is_none());
            self.ask_for_scan();
        }
        busy
    }

    fn root_path(&self, pid: Option<u32>) -> PathBuf {
        pid.map_or_else(|| self.host.to_owned(), |pid| format!("/proc/{pid}/root").into())
    }

    /// Reads and watches the host's folders.
    pub(super) fn host_folders(&mut self) {
        match Root::open(self.host) {
            Ok(root) => {
                self.roots.insert(root.id(), Known { pid: None, name: "host".into(), scan: u64::MAX, answers: true });
                self.folders(&root, &self.settings.folders.clone());
            }
            Err(error) => self.shared.note(format!("The host's library folders cannot be read: {error}.")),
        }
    }

    fn folders(&mut self, root: &Root, further: &[PathBuf]) {
        for folder in root.folders(further) {
            if let Some(watch) = &mut self.watch
                && let Err(error) = watch.add(root.id(), &folder)
            {
                tracing::debug!("{} cannot be watched: {error}.", folder.path.display());
            }
            for path in Root::libraries(&folder) {
                self.library(root, &path);
            }
        }
    }

    /// A library that lies in a folder.
    fn library(&mut self, root: &Root, path: &Path) {
        let Ok(place) = root.place(path) else { return };
        let Some(known) = self.roots.get(&root.id()) else { return };
        let (pid, name) = (known.pid, known.name.clone());
        let sight = Sight {
            pid,
            root: root.id(),
            path: &root.path_of(&place),
            name: &|| name.clone(),
            hosts: &|| hosts(self.host, &self.roots),
        };
        self.registry.see(place, &sight, None);
    }

    /// Whether a file system may leave us waiting, said once if so.
    fn may_hang(&mut self, pid: u32, device: (u32, u32)) -> bool {
        if device.0 != 0 {
            return false;
        }
        if self.servers.len() > MAX_DEVICES {
            self.servers.clear();
        }
        let hangs = *self.servers.entry(device).or_insert_with(|| roots::may_hang(pid, device));
        if hangs {
            self.shared.note(
                "Files on FUSE file systems are not looked at, because such a file system may never answer: TLS of \
                 programs and libraries that lie there is not captured."
                    .into(),
            );
        }
        hangs
    }

    /// A mapping of a process.
    fn consider(&mut self, pid: u32, mapping: &Mapping) -> io::Result<()> {
        if self.may_hang(pid, mapping.device) {
            return Ok(());
        }
        let root = roots::id_of(pid).inspect(|root| self.meet(*root, pid));
        let place = mapping.open(pid)?;
        let root = root.unwrap_or(self.host_id);
        let name = || self.roots.get(&root).map_or_else(|| roots::name_of(pid), |known| known.name.clone());
        let sight =
            Sight { pid: Some(pid), root, path: &mapping.path, name: &name, hosts: &|| hosts(self.host, &self.roots) };
        self.registry.see(place, &sight, Some(self.number));
        Ok(())
    }

    /// A process has this root: its folders are read when it is a new one.
    fn meet(&mut self, root: FileId, pid: u32) {
        if let Some(known) = self.roots.get_mut(&root) {
            if known.scan < self.number {
                known.scan = self.number;
                known.pid = Some(pid);
            }
            return;
        }
        if self.roots.len() >= MAX_ROOTS {
            return;
        }
        let answers = !self.may_hang(pid, (libc::major(root.dev), libc::minor(root.dev)));
        self.roots.insert(root, Known { pid: Some(pid), name: roots::name_of(pid), scan: self.number, answers });
        let path = self.root_path(Some(pid));
        let _looking = self.shared.looking(&path);
        if answers
            && let Ok(opened) = Root::open(&path)
            && opened.id() == root
        {
            self.folders(&opened, &[]);
        }
    }

    fn ask_for_scan(&mut self) {
        let earliest = Instant::now() + RESCAN.max(self.last_scan * 20);
        self.next_scan = Some(self.next_scan.map_or(earliest, |due| due.min(earliest)));
    }

    fn begin_scan(&mut self, suspects: Vec<FileId>) {
        self.next_scan = None;
        let pids = match proc::pids() {
            Ok(pids) => pids.filter(|pid| *pid != self.own_pid).collect::<Vec<_>>(),
            Err(error) => return self.shared.note(format!("Processes cannot be listed: /proc: {error}.")),
        };
        self.number += 1;
        self.servers.clear();
        let processes = pids.len();
        let pids = pids.into_iter();
        self.scan = Some(Scan { pids, distinct: HashSet::new(), begun: Instant::now(), processes, suspects });
    }

    /// Reads processes for a slice of time; at the end of the last, ends the scan.
    fn go_on_scanning(&mut self) {
        let Some(mut scan) = self.scan.take() else { return };
        let until = Instant::now() + SLICE;
        let mut buffer = std::mem::take(&mut self.buffer);
        let distinct = RefCell::new(std::mem::take(&mut scan.distinct));
        while Instant::now() < until {
            let Some(pid) = scan.pids.next() else {
                self.buffer = buffer;
                return self.end_scan(&scan);
            };
            if let Ok(root) = roots::id_of(pid) {
                self.meet(root, pid);
            }
            if distinct.borrow().len() >= MAX_DISTINCT {
                distinct.borrow_mut().clear();
            }
            let wanted = |file| distinct.borrow_mut().insert(file);
            // Processes that end meanwhile, and those that may not be looked at, are passed over.
            let _ = mappings::of_process(pid, &mut buffer, wanted, |mapping| {
                let file = (mapping.device, mapping.ino);
                if self.consider(pid, &mapping.seen_by(pid)).is_err() {
                    // Perhaps another process lets it be opened.
                    distinct.borrow_mut().remove(&file);
                }
            });
        }
        scan.distinct = distinct.into_inner();
        self.buffer = buffer;
        self.scan = Some(scan);
    }

    fn end_scan(&mut self, scan: &Scan) {
        self.last_scan = scan.begun.elapsed();
        tracing::debug!("{} processes were read in {:?}.", scan.processes, self.last_scan);
        self.shared.change(|status| {
            status.scans += 1;
            status.last_scan = (scan.processes, self.last_scan);
        });
        // Roots that nobody has any more.
        self.roots.retain(|_, known| known.scan >= self.number);
        if let Some(watch) = &mut self.watch {
            watch.keep(|root| self.roots.contains_key(&root));
        }
        if !scan.suspects.is_empty() {
            let still = self.suspects();
            let dead: Vec<_> = scan.suspects.iter().copied().filter(|id| still.contains(id)).collect();
            self.registry.let_go(&dead, self.number);
        }
        if self.sideband.is_none() {
            self.ask_for_scan();
        }
    }

    /// Follows the CPUs.
    fn refresh(&mut self) {
        if self.refreshed.elapsed() < REFRESH {
            return;
        }
        self.refreshed = Instant::now();
        match self.sideband.as_mut().map(Sideband::refresh) {
            Some(Ok(true)) => self.ask_for_scan(),
            Some(Err(error)) => tracing::debug!("A CPU's {error}."),
            Some(Ok(false)) | None => {}
        }
    }

    fn look_for_dead(&mut self) {
        if self.scan.is_some() || Instant::now() < self.let_go_at {
            return;
        }
        self.let_go_at = Instant::now() + self.settings.let_go_every;
        let suspects = self.suspects();
        if !suspects.is_empty() {
            self.begin_scan(suspects);
        }
    }

    fn suspects(&self) -> Vec<FileId> {
        self.registry.suspects(|spot: &Spot| {
            let known = self.roots.get(&spot.root)?;
            let root = Root::open(&self.root_path(known.pid)).ok().filter(|root| root.id() == spot.root)?;
            Some(root.place(&spot.path).ok()?.id())
        })
    }
}

/// Where the layers of an overlay may be: on the host, else with somebody who runs containers in a container.
fn hosts(host: &Path, roots: &HashMap<FileId, Known>) -> Vec<PathBuf> {
    let others = roots.values().filter(|known| known.answers);
    let others = others.filter_map(|known| Some(format!("/proc/{}/root", known.pid?).into()));
    std::iter::once(host.to_owned()).chain(others).take(MAX_HOSTS).collect()
}

/// Waits until one of the descriptors can be read. True when that is the first, which says to end.
fn poll(descriptors: impl Iterator<Item = RawFd>, patience: Duration) -> bool {
    let mut polled: Vec<_> = descriptors.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 }).collect();
    // Rounded up: a wait that ends too early would be begun again at once.
    let patience = libc::c_int::try_from(patience.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX);
    // SAFETY: valid entries and their number. An interrupted wait is a short one.
    unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, patience) };
    polled.first().is_some_and(|stop| stop.revents != 0)
}
