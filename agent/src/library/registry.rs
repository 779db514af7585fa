//! What is probed, and what is known not to need it.
//!
//! In: files, as they are come across. Out: probes in the kernel, and [`Status`] for `explain` and the log.
//! Used by `discover`'s thread; the status may be read from any.
//!
//! A target is a file: the inode that the kernel puts probes on ([`super::overlay`]). It is probed as a whole
//! or not at all, because a call without its result, or a stream without its end, would be read wrongly.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::file::{FileId, Place, Stamp};
use super::{Error, Plan, Planner, Program, overlay};
use crate::probe::uprobe::{self, Attached};

/// Files that are remembered, in two halves: when the younger is full, the older is forgotten.
const MAX_SEEN: usize = 65_536;
/// Names of one target that are kept. Containers of one image have one each.
const MAX_SPOTS: usize = 32;
/// A target that could not be probed is tried again when it is come across after this time.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Looking at one file for so long is worth a note.
const HANGS: Duration = Duration::from_secs(5);

/// How a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// All its probes are in place.
    Attached,
    /// None is; the error says why.
    Failed,
}

/// A file with a TLS library.
#[derive(Clone, Debug)]
pub struct Found {
    /// As its first process sees it.
    pub path: PathBuf,
    /// Where that was: `host`, `container 0123456789ab`, or another root.
    pub root: String,
    /// The real file, where `path` is seen through an overlay.
    pub real: Option<PathBuf>,
    /// The real file's device, as `stat(2)` has it.
    pub device: u64,
    /// The real file's inode.
    pub inode: u64,
    /// `openssl`.
    pub library: &'static str,
    /// What the file says of itself.
    pub version: String,
    /// Where each probe is and why, one line each.
    pub plan: String,
    /// Probes in place.
    pub probes: usize,
    /// How it stands.
    pub state: State,
    /// Why it is not probed.
    pub error: Option<String>,
    /// What else should be known, e.g. that an overlay could not be seen through.
    pub note: Option<String>,
}

/// What discovery has done.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// The targets, by path.
    pub targets: Vec<Found>,
    /// What does not work on this host, and what is done instead.
    pub notes: Vec<String>,
    /// Files that were looked into since the start.
    pub inspected: u64,
    /// Targets that were let go since the start.
    pub let_go: u64,
    /// Times that all processes were read since the start.
    pub scans: u64,
    /// Processes that the last of these met, and how long it took.
    pub last_scan: (usize, Duration),
}

/// Status, shared with whoever asks.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared {
    status: Arc<Mutex<Status>>,
    /// What is being looked at, and since when: a foreign file system may not answer.
    at: Arc<Mutex<Option<(Instant, PathBuf)>>>,
}

/// While it lives, its path is being looked at.
pub(super) struct Looking(Shared);

impl Drop for Looking {
    fn drop(&mut self) {
        *self.0.at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Shared {
    pub(super) fn get(&self) -> Status {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((since, path)) = at.as_ref()
            && since.elapsed() > HANGS
        {
            let (path, since) = (path.display(), since.elapsed().as_secs());
            status
                .notes
                .push(format!("The search has waited for {path} for {since} s: its file system does not answer."));
        }
        status
    }

    pub(super) fn scans(&self) -> u64 {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).scans
    }

    pub(super) fn looking(&self, path: &Path) -> Looking {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), path.to_owned()));
        Looking(self.clone())
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Status)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Adds a note, once.
    pub(super) fn note(&self, text: String) {
        self.change(|status| {
            if !status.notes.contains(&text) {
                tracing::warn!("{text}");
                status.notes.push(text);
            }
        });
    }
}

/// Where a file was come across.
pub(super) struct Sight<'a> {
    /// The process, `None` for a folder of the host.
    pub(super) pid: Option<u32>,
    pub(super) root: FileId,
    /// As seen from that root.
    pub(super) path: &'a Path,
    /// What people call the root.
    pub(super) name: &'a dyn Fn() -> String,
    /// Roots in which an overlay's layers are looked for.
    pub(super) hosts: &'a dyn Fn() -> Vec<PathBuf>,
}

/// A name of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) root: FileId,
    pub(super) path: PathBuf,
    /// What that name leads to: on an overlay not the target's own number.
    pub(super) id: FileId,
}

/// Why a file could not be looked into.
#[derive(Debug, thiserror::Error)]
enum Inspection {
    #[error("{0}")]
    Open(io::Error),
    #[error(transparent)]
    Plan(Error),
    #[error("taking it apart failed, by a mistake of ours")]
    Panic,
}

#[derive(Debug)]
struct Target {
    place: Place,
    stamp: Stamp,
    /// `None` for a library that cannot be read; the error stands in `found`.
    plan: Option<Plan>,
    probes: Vec<Attached>,
    spots: Vec<Spot>,
    found: Found,
    tried: Instant,
    /// Number of the last scan in which a process had it mapped, or during which it was mapped.
    mapped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Nothing,
    Target(FileId),
}

/// See the module.
pub(super) struct Registry {
    plan: Planner,
    programs: HashMap<Program, OwnedFd>,
    limit: usize,
    targets: HashMap<FileId, Target>,
    young: HashMap<FileId, (Stamp, Verdict)>,
    old: HashMap<FileId, (Stamp, Verdict)>,
    shared: Shared,
    /// To the thread that takes probes away, one after the other: it takes long, and several at a time would keep
    /// this one from attaching.
    away: mpsc::Sender<Vec<Attached>>,
}

impl Registry {
    pub(super) fn new(plan: Planner, programs: HashMap<Program, OwnedFd>, limit: usize, shared: Shared) -> Self {
        let (away, coming) = mpsc::channel::<Vec<Attached>>();
        let started = std::thread::Builder::new().name("let-go".into()).stack_size(64 << 10).spawn(move || {
            for probe in coming.into_iter().flatten() {
                drop(probe);
            }
        });
        if let Err(error) = started {
            // Nobody listens then, and probes are taken away where they are sent.
            tracing::debug!("A thread to detach probes could not be started: {error}.");
        }
        let (targets, young, old) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { plan, programs, limit, targets, young, old, shared, away }
    }

    /// Takes note of a file, and probes it if it is new and has a TLS library. `mapped` is the number of the
    /// scan when a process has it mapped.
    pub(super) fn see(&mut self, place: Place, sight: &Sight<'_>, mapped: Option<u64>) {
        let (id, stamp) = (place.id(), place.stamp());
        let verdict = self.known(id, stamp).unwrap_or_else(|| {
            let verdict = self.look(place, sight);
            self.remember(id, stamp, verdict);
            verdict
        });
        let Verdict::Target(real) = verdict else { return };
        let Some(target) = self.targets.get_mut(&real) else { return };
        if let Some(scan) = mapped {
            target.mapped = target.mapped.max(scan);
        }
        if target.found.state == State::Failed && target.plan.is_some() && target.tried.elapsed() > TRY_AGAIN {
            self.place(real);
        }
    }

    fn known(&self, id: FileId, stamp: Stamp) -> Option<Verdict> {
        let (seen, verdict) = self.young.get(&id).or_else(|| self.old.get(&id))?;
        let live = |verdict: &Verdict| match verdict {
            Verdict::Nothing => true,
            Verdict::Target(target) => self.targets.contains_key(target),
        };
        (*seen == stamp && live(verdict)).then_some(*verdict)
    }

    fn remember(&mut self, id: FileId, stamp: Stamp, verdict: Verdict) {
        if self.young.len() >= MAX_SEEN / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(id, (stamp, verdict));
    }

    /// A file that is not known, or not as it is now.
    fn look(&mut self, place: Place, sight: &Sight<'_>) -> Verdict {
        let _looking = self.shared.looking(sight.path);
        let seen_as = place.id();
        let (place, note) = if place.on_overlay().unwrap_or(false) {
            let process = sight.pid.map_or_else(|| "/proc/self".into(), |pid| format!("/proc/{pid}"));
            match overlay::real(&place, Path::new(&process), sight.path, &(sight.hosts)()) {
                Ok(real) => (real, None),
                // Deleted since, but still mapped: it is what it was.
                Err(_) if let Some(target) = self.with_spot(sight.root, seen_as) => return Verdict::Target(target),
                Err(why) => (place, Some(format!("seen through an overlay whose layer was not found: {why}"))),
            }
        } else {
            (place, None)
        };
        let (id, stamp) = (place.id(), place.stamp());
        let spot = Spot { root: sight.root, path: sight.path.to_owned(), id: seen_as };
        if let Some(target) = self.targets.get_mut(&id)
            && target.stamp == stamp
        {
            target.add(spot);
            return Verdict::Target(id);
        }
        if let Some(twin) = self.twin(id, stamp, note.is_some())
            && let Some(target) = self.targets.get_mut(&twin)
        {
            target.add(spot);
            return Verdict::Target(twin);
        }
        if id != seen_as && self.known(id, stamp) == Some(Verdict::Nothing) {
            return Verdict::Nothing;
        }
        let verdict = match self.inspect(&place) {
            Ok(Some(plan)) => self.target(place, Ok(plan), spot, sight, note),
            // There is a library, and it cannot be read: people want to know that.
            Err(Inspection::Plan(error @ Error::NoPlace)) => self.target(place, Err(error), spot, sight, note),
            Ok(None) => {
                self.forget(id);
                Verdict::Nothing
            }
            Err(error) => {
                tracing::debug!("{} could not be looked into: {error}.", sight.path.display());
                // What cannot be opened may still be what it was; what is damaged is not.
                if !matches!(error, Inspection::Open(_)) {
                    self.forget(id);
                }
                Verdict::Nothing
            }
        };
        self.remember(id, stamp, verdict);
        verdict
    }

    /// The target that is the same inode as a file, where an overlay hides that from one of them: overlays keep the
    /// inode's number, size, and time of change to the nanosecond. Two targets would count each call twice.
    fn twin(&self, id: FileId, stamp: Stamp, hidden: bool) -> Option<FileId> {
        let same = |other: &FileId, target: &Target| {
            *other != id && other.ino == id.ino && target.stamp == stamp && (hidden || target.found.note.is_some())
        };
        self.targets.iter().find(|(other, target)| same(other, target)).map(|(other, _)| *other)
    }

    /// The target that was come across as this file, in this root.
    fn with_spot(&self, root: FileId, seen_as: FileId) -> Option<FileId> {
        let same = |target: &Target| target.spots.iter().any(|spot| (spot.root, spot.id) == (root, seen_as));
        self.targets.iter().find(|(_, target)| same(target)).map(|(id, _)| *id)
    }

    fn inspect(&mut self, place: &Place) -> Result<Option<Plan>, Inspection> {
        self.shared.change(|status| status.inspected += 1);
        let file = place.read().map_err(Inspection::Open)?;
        // The file is anybody's, and taking it apart must not end the agent.
        let planned = catch_unwind(AssertUnwindSafe(|| (self.plan)(&file).map_err(Inspection::Plan)));
        planned.unwrap_or(Err(Inspection::Panic))
    }

    fn target(
        &mut self,
        place: Place,
        plan: Result<Plan, Error>,
        spot: Spot,
        sight: &Sight<'_>,
        note: Option<String>,
    ) -> Verdict {
        let id = place.id();
        if let Some(target) = self.targets.get_mut(&id) {
            // Renamed or linked: the file is the same. Written over: its probes are in the wrong places.
            if target.plan.is_some() && target.plan.as_ref() == plan.as_ref().ok() {
                target.stamp = place.stamp();
                target.add(spot);
                return Verdict::Target(id);
            }
            self.forget(id);
        }
        if self.targets.len() >= self.limit {
            self.shared.note(format!(
                "{} TLS libraries are probed already: {} and later ones are not.",
                self.limit,
                sight.path.display()
            ));
            return Verdict::Nothing;
        }
        let real = (id != spot.id).then(|| place.path());
        let (plan, error) = match plan {
            Ok(plan) => (Some(plan), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let found = Found {
            path: sight.path.to_owned(),
            root: (sight.name)(),
            real,
            device: id.dev,
            inode: id.ino,
            library: plan.as_ref().map_or("openssl", |plan| plan.library),
            version: plan.as_ref().map(|plan| plan.version.clone()).unwrap_or_default(),
            plan: plan.as_ref().map(Plan::to_string).unwrap_or_default(),
            probes: 0,
            state: State::Failed,
            error,
            note,
        };
        let stamp = place.stamp();
        let target = Target {
            place,
            stamp,
            plan,
            probes: Vec::new(),
            spots: vec![spot],
            found,
            tried: Instant::now(),
            mapped: 0,
        };
        self.targets.insert(id, target);
        self.place(id);
        Verdict::Target(id)
    }

    /// Puts a target's probes in place.
    fn place(&mut self, id: FileId) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        let begun = Instant::now();
        let path = target.found.path.display();
        let Some(plan) = &target.plan else {
            let error = target.found.error.as_deref().unwrap_or_default();
            tracing::warn!("{path} ({}): {error}.", target.found.root);
            return self.publish();
        };
        let mut probes = Vec::new();
        let mut error = None;
        // Points of one kind together, in the order in which their first ones should be attached.
        let mut rest: Vec<_> = plan.points.iter().collect();
        while let Some((program, on_return)) = rest.first().map(|point| (point.program, point.on_return)) {
            let (group, others): (Vec<_>, Vec<_>) =
                rest.into_iter().partition(|point| (point.program, point.on_return) == (program, on_return));
            rest = others;
            let points: Vec<_> = group.iter().map(|point| (point.offset, point.cookie)).collect();
            let attached = match self.programs.get(&program) {
                Some(program) => uprobe::attach_all(program.as_fd(), target.place.as_fd(), &points, on_return)
                    .map_err(|error| error.to_string()),
                None => Err("its program was not loaded".to_owned()),
            };
            match attached {
                Ok(attached) => probes.extend(attached),
                Err(why) => {
                    let symbol = group.first().map_or("", |point| point.symbol);
                    error = Some(format!("{} for {symbol}: {why}", program.name()));
                    break;
                }
            }
        }
        target.tried = begun;
        if let Some(error) = error {
            tracing::warn!("{} of {path} ({}) cannot be read: {error}.", target.found.library, target.found.root);
            target.found.error = Some(error);
            let _ = self.away.send(probes);
        } else {
            let took = begun.elapsed();
            tracing::debug!(
                "{} {} in {path} ({}) is probed in {} places, in {took:?}.",
                target.found.library,
                target.found.version,
                target.found.root,
                plan.points.len()
            );
            for line in target.found.plan.lines() {
                tracing::debug!("{path}: {line}");
            }
            target.found.error = None;
            target.found.state = State::Attached;
            target.found.probes = plan.points.len();
            target.probes = probes;
        }
        self.publish();
    }

    /// Takes a target's probes away.
    fn forget(&mut self, id: FileId) -> bool {
        let Some(target) = self.targets.remove(&id) else { return false };
        // Comes back, and is dropped here, when the thread is not there.
        let _ = self.away.send(target.probes);
        self.publish();
        true
    }

    fn publish(&self) {
        let mut targets: Vec<_> = self.targets.values().map(|target| target.found.clone()).collect();
        targets.sort_by(|a, b| a.path.cmp(&b.path));
        self.shared.change(|status| status.targets = targets);
    }

    /// Targets that may be dead: deleted, or under none of their names any more. `leads_to` says what a name
    /// leads to now.
    pub(super) fn suspects(&self, leads_to: impl Fn(&Spot) -> Option<FileId>) -> Vec<FileId> {
        let dead = |target: &Target| {
            target.place.links().is_ok_and(|links| links == 0)
                || target.spots.iter().all(|spot| leads_to(spot) != Some(spot.id))
        };
        self.targets.iter().filter(|(_, target)| dead(target)).map(|(id, _)| *id).collect()
    }

    /// Lets those of the suspects go that no process had mapped since a scan began.
    pub(super) fn let_go(&mut self, suspects: &[FileId], scan: u64) {
        for id in suspects {
            let Some(target) = self.targets.get(id).filter(|target| target.mapped < scan) else { continue };
            tracing::debug!(
                "{} ({}) is gone: its probes are taken away.",
                target.found.path.display(),
                target.found.root
            );
            if self.forget(*id) {
                self.shared.change(|status| status.let_go += 1);
            }
        }
    }

    /// All probes, to be taken away at the end.
    pub(super) fn into_probes(self) -> Vec<Attached> {
        self.targets.into_values().flat_map(|target| target.probes).collect()
    }
}

impl Target {
    fn add(&mut self, spot: Spot) {
        if self.spots.contains(&spot) {
            return;
        }
        if self.spots.len() >= MAX_SPOTS {
            // The first stands for what it is called; the others come and go with containers.
            self.spots.remove(1);
        }
        self.spots.push(spot);
    }
}
