//! What is probed, and what is known not to need it.
//!
//! In: files, as they are come across. Out: probes in the kernel, and their state to `status`. Used by
//! `discover`'s thread.
//!
//! A target is a file: the inode that the kernel puts probes on ([`super::overlay`]). It is probed as a whole
//! or not at all, because a call without its result, or a stream without its end, would be read wrongly. While it
//! is probed, `guard` sees to it that it does not change; while it is written, it is not probed, and looked at
//! again soon.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::file::{FileId, Place, Stamp};
use super::guard::{Bare, Cover, Guard, Held, Left};
use super::status::{Found, Shared, State};
use super::{Error, Plan, Planner, Program, overlay};
use crate::probe::uprobe::{self, Attached};

/// Files that are remembered, in two halves: when the younger is full, the older is forgotten.
const MAX_SEEN: usize = 65_536;
/// Names of one target that are kept. Containers of one image have one each.
const MAX_SPOTS: usize = 32;
/// A target that could not be probed is tried again when it is come across after this time.
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// One that was being written is looked at again after this time, then after twice of it, and so on to the longest.
/// Both count for its whole life: a file that is opened for writing again and again costs little.
const SOON: Duration = Duration::from_millis(20);
const LATEST: Duration = Duration::from_secs(2);

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
    /// As it was last seen.
    stamp: Stamp,
    /// `None` for a library that cannot be read; the error stands in `found`.
    plan: Option<Plan>,
    /// What the plan is of.
    planned: Stamp,
    /// Of its probes, with `guard`.
    ticket: Option<u64>,
    spots: Vec<Spot>,
    found: Found,
    /// Why the real file is not known, where it is seen through an overlay.
    hidden: Option<String>,
    tried: Instant,
    /// It was being written: when it is looked at again, and how often it was.
    again: Option<Instant>,
    times: u32,
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
    guard: Guard,
    /// To the thread that takes probes away, one after the other: it takes long, and several at a time would keep
    /// this one from attaching.
    away: mpsc::Sender<Held>,
}

impl Registry {
    /// Fails where no thread can be started.
    pub(super) fn new(
        plan: Planner,
        programs: HashMap<Program, OwnedFd>,
        limit: usize,
        shared: Shared,
    ) -> io::Result<Self> {
        let guard = Guard::start()?;
        let (away, coming) = mpsc::channel::<Held>();
        let started = std::thread::Builder::new().name("let-go".into()).stack_size(64 << 10).spawn(move || {
            for held in coming {
                drop(held);
            }
        });
        if let Err(error) = started {
            // Nobody listens then, and probes are taken away where they are sent.
            tracing::debug!("A thread to detach probes could not be started: {error}.");
        }
        let (targets, young, old) = (HashMap::new(), HashMap::new(), HashMap::new());
        Ok(Self { plan, programs, limit, targets, young, old, shared, guard, away })
    }

    /// Takes note of a file, and probes it if it is new and has a TLS library. `mapped` is the number of the
    /// scan when a process has it mapped.
    pub(super) fn see(&mut self, place: Place, sight: &Sight<'_>, mapped: Option<u64>) {
        let (id, stamp) = (place.id(), place.stamp());
        let verdict = self.known(id, stamp).or_else(|| {
            let verdict = self.look(place, sight)?;
            self.remember(id, stamp, verdict);
            Some(verdict)
        });
        let Some(Verdict::Target(real)) = verdict else { return };
        let Some(target) = self.targets.get_mut(&real) else { return };
        if let Some(scan) = mapped {
            target.mapped = target.mapped.max(scan);
        }
        let failed = target.found.state == State::Failed && target.plan.is_some() && target.again.is_none();
        if failed && target.tried.elapsed() > TRY_AGAIN {
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

    /// A file that is not known, or not as it is now. `None` for what there is no room for now.
    fn look(&mut self, place: Place, sight: &Sight<'_>) -> Option<Verdict> {
        let _looking = self.shared.looking(sight.path);
        let seen_as = place.id();
        let (place, note) = if place.on_overlay().unwrap_or(false) {
            let process = sight.pid.map_or_else(|| "/proc/self".into(), |pid| format!("/proc/{pid}"));
            match overlay::real(&place, Path::new(&process), sight.path, &(sight.hosts)()) {
                Ok(real) => (real, None),
                // Deleted since, but still mapped: it is what it was.
                Err(_) if let Some(target) = self.with_spot(sight.root, seen_as) => {
                    return Some(Verdict::Target(target));
                }
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
            return Some(Verdict::Target(id));
        }
        if let Some(twin) = self.twin(id, stamp, note.is_some())
            && let Some(target) = self.targets.get_mut(&twin)
        {
            target.add(spot);
            return Some(Verdict::Target(twin));
        }
        if id != seen_as && self.known(id, stamp) == Some(Verdict::Nothing) {
            return Some(Verdict::Nothing);
        }
        let verdict = match self.inspect(&place) {
            Ok(Some(plan)) => self.target(place, Ok(plan), spot, sight, note)?,
            // There is a library, and it cannot be read: people want to know that.
            Err(Inspection::Plan(error @ Error::NoPlace)) => self.target(place, Err(error), spot, sight, note)?,
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
        Some(verdict)
    }

    /// The target that is the same inode as a file, where an overlay hides that from one of them: overlays keep the
    /// inode's number, size, and time of change to the nanosecond. Two targets would count each call twice.
    fn twin(&self, id: FileId, stamp: Stamp, hidden: bool) -> Option<FileId> {
        let same = |other: &FileId, target: &Target| {
            *other != id && other.ino == id.ino && target.stamp == stamp && (hidden || target.hidden.is_some())
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
        hidden: Option<String>,
    ) -> Option<Verdict> {
        let (id, stamp) = (place.id(), place.stamp());
        if let Some(target) = self.targets.get_mut(&id) {
            // Renamed or linked: the file is the same. Written over: its probes are in the wrong places.
            if target.plan.is_some() && target.plan.as_ref() == plan.as_ref().ok() {
                (target.stamp, target.planned) = (stamp, stamp);
                target.add(spot);
                return Some(Verdict::Target(id));
            }
            self.forget(id);
        }
        if self.targets.len() >= self.limit {
            self.shared.note(format!("{} TLS libraries are probed already: others are not.", self.limit));
            tracing::debug!("{} is one too many.", sight.path.display());
            return None;
        }
        let real = (id != spot.id).then(|| place.path());
        let mut found = Found {
            path: sight.path.to_owned(),
            root: (sight.name)(),
            real,
            device: id.dev,
            inode: id.ino,
            library: "openssl",
            version: String::new(),
            plan: String::new(),
            probes: 0,
            state: State::Failed,
            error: None,
            note: hidden.clone(),
        };
        let plan = found.planned(plan);
        let now = Instant::now();
        let target = Target {
            place,
            stamp,
            plan,
            planned: stamp,
            ticket: None,
            spots: vec![spot],
            found,
            hidden,
            tried: now,
            again: None,
            times: 0,
            mapped: 0,
        };
        self.targets.insert(id, target);
        self.place(id);
        Some(Verdict::Target(id))
    }

    /// Puts a target's probes in place, unless it is being written.
    fn place(&mut self, id: FileId) {
        if let Some(cover) = self.cover(id) {
            self.attach(id, cover);
        }
        self.publish();
    }

    /// Sees to it that a target does not change from here on, and that its plan is of what it is.
    fn cover(&mut self, id: FileId) -> Option<Cover> {
        let target = self.targets.get_mut(&id)?;
        target.tried = Instant::now();
        target.again = None;
        let cover = match self.guard.cover(&target.place) {
            Ok(cover) => cover,
            Err(error) => {
                tracing::debug!("{} is not probed: {error}.", target.name());
                target.found.error = Some(error.to_string());
                if matches!(error, Bare::Busy) {
                    target.wait();
                }
                return None;
            }
        };
        let now = target.place.anew().ok()?;
        let stamp = now.stamp();
        if stamp == target.planned {
            return Some(cover);
        }
        let quiet = std::mem::replace(&mut target.stamp, stamp) == stamp;
        if matches!(cover, Cover::Watch(_)) && !quiet {
            // It may be half written: it is to be left alone for a while first.
            target.found.error = Some(Bare::Busy.to_string());
            target.again = Some(target.tried + LATEST);
            return None;
        }
        let plan = match self.inspect(&now) {
            Ok(Some(plan)) => Ok(plan),
            Err(Inspection::Plan(error @ Error::NoPlace)) => Err(error),
            other => {
                if let Err(error) = other {
                    tracing::debug!("{} could not be looked into: {error}.", now.path().display());
                }
                self.forget(id);
                self.remember(id, stamp, Verdict::Nothing);
                return None;
            }
        };
        let target = self.targets.get_mut(&id)?;
        target.planned = stamp;
        target.plan = target.found.planned(plan);
        Some(cover)
    }

    fn attach(&mut self, id: FileId, cover: Cover) {
        let Some(target) = self.targets.get_mut(&id) else { return };
        let begun = Instant::now();
        let name = target.name();
        let Some(plan) = &target.plan else {
            return tracing::warn!("{name}: {}.", target.found.error.as_deref().unwrap_or_default());
        };
        let watched = matches!(cover, Cover::Watch(_)).then(|| {
            "its file system has no leases for us: when it is written in place, programs that map it may be harmed \
             before its probes are taken away"
                .to_owned()
        });
        let (probes, error) = put(plan, &self.programs, &target.place);
        let count = plan.points.len();
        let held = Held::new(probes, cover, id, name.clone());
        if let Some(error) = error {
            tracing::warn!("{} of {name} cannot be read: {error}.", target.found.library);
            target.found.error = Some(error);
            let _ = self.away.send(held.unwatched());
            return;
        }
        let took = begun.elapsed();
        let (library, version) = (target.found.library, &target.found.version);
        tracing::debug!("{library} {version} in {name} is probed in {count} places, in {took:?}.");
        for line in target.found.plan.lines() {
            tracing::debug!("{name}: {line}");
        }
        let notes: Vec<_> = target.hidden.clone().into_iter().chain(watched).collect();
        target.found.note = (!notes.is_empty()).then(|| notes.join("; "));
        target.found.error = None;
        target.found.state = State::Attached;
        target.found.probes = count;
        target.ticket = Some(self.guard.hold(held, &target.place, target.planned));
    }

    /// Can be read when there is something to [`Self::settle`].
    pub(super) fn bell(&self) -> RawFd {
        self.guard.bell()
    }

    /// When there is something to settle, whatever the bell says.
    pub(super) fn due(&self) -> Option<Instant> {
        self.targets.values().filter_map(|target| target.again).min()
    }

    /// Takes note of targets whose probes were taken away because they are written, and looks again at those that
    /// were.
    pub(super) fn settle(&mut self) {
        for lost in self.guard.lost() {
            let Some(target) = self.targets.get_mut(&lost.file) else { continue };
            if target.ticket == Some(lost.ticket) {
                target.ticket = None;
                target.found.state = State::Failed;
                target.found.probes = 0;
                target.found.error = Some(Bare::Busy.to_string());
                target.wait();
                self.publish();
            }
        }
        let now = Instant::now();
        let due = |target: &Target| target.again.is_some_and(|again| again <= now);
        let due: Vec<_> = self.targets.iter().filter(|(_, target)| due(target)).map(|(id, _)| *id).collect();
        for id in due {
            self.place(id);
        }
    }

    /// Takes a target's probes away.
    fn forget(&mut self, id: FileId) -> bool {
        let Some(target) = self.targets.remove(&id) else { return false };
        if let Some(held) = target.ticket.and_then(|ticket| self.guard.take(ticket)) {
            // Comes back, and is dropped here, when the thread is not there.
            let _ = self.away.send(held);
        }
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
    pub(super) fn into_probes(mut self) -> Left {
        self.guard.end()
    }
}

/// Puts the probes of a plan in place. With an error, those are to be taken away again.
fn put(plan: &Plan, programs: &HashMap<Program, OwnedFd>, place: &Place) -> (Vec<Attached>, Option<String>) {
    let mut probes = Vec::new();
    // Points of one kind together, in the order in which their first ones should be attached.
    let mut rest: Vec<_> = plan.points.iter().collect();
    while let Some((program, on_return)) = rest.first().map(|point| (point.program, point.on_return)) {
        let (group, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|point| (point.program, point.on_return) == (program, on_return));
        rest = others;
        let points: Vec<_> = group.iter().map(|point| (point.offset, point.cookie)).collect();
        let attached = match programs.get(&program) {
            Some(loaded) => {
                uprobe::attach_all(loaded.as_fd(), place.as_fd(), &points, on_return).map_err(|error| error.to_string())
            }
            None => Err("its program was not loaded".to_owned()),
        };
        match attached {
            Ok(attached) => probes.extend(attached),
            Err(why) => {
                let symbol = group.first().map_or("", |point| point.symbol);
                return (probes, Some(format!("{} for {symbol}: {why}", program.name())));
            }
        }
    }
    (probes, None)
}

impl Target {
    fn name(&self) -> String {
        format!("{} ({})", self.found.path.display(), self.found.root)
    }

    /// Has it looked at again, later each time.
    fn wait(&mut self) {
        self.again = Some(Instant::now() + LATEST.min(SOON * (1 << self.times.min(7))));
        self.times += 1;
    }

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
