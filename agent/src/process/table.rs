//! The table of processes: what was read, what exec records said, bounded.
//!
//! Shared by the workers. Each entry is one process, (pid, start in ticks); the least recently used go first.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use transaction::object::Process as Facts;

use super::cgroup::{Names, Place};
use super::proc::Stat;
use super::user::Users;
use super::{Boot, Exec, Process, UNKNOWN_EXE, cgroup, command, proc};

const SHARDS: usize = 16;
/// Processes remembered in one shard: 16 Ki in all.
const MAX_SLOTS: usize = 1024;
/// Bytes of text in one shard: 32 MiB in all, so that long arguments cannot fill the memory.
const MAX_BYTES: usize = 2 << 20;
/// Bytes kept of an exec record's file name and arguments.
const MAX_EXEC: usize = 8 << 10;
/// How long facts of a live process hold: units and users can change without an exec.
const FRESH: Duration = Duration::from_secs(30);
/// The same when only the pid was asked for, which another process may have by now.
const FRESH_PID: Duration = Duration::from_secs(1);
/// Attempts at a process that changes while it is read.
const ATTEMPTS: usize = 3;

/// All processes that were asked for or executed something, the latest 16 Ki of them.
#[derive(Debug)]
pub struct Table {
    boot: Boot,
    users: Users,
    cgroups: Option<Names>,
    /// Nothing is read from `/proc`: the records come from elsewhere.
    offline: bool,
    shards: [RwLock<Shard>; SHARDS],
    /// Counts look-ups: the entries' age.
    clock: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    slots: BTreeMap<(u32, u64), Slot>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Slot {
    exec: Option<Arc<Exec>>,
    known: Option<Known>,
    /// Execs seen: facts read before the last one are not kept.
    execs: u64,
    used: AtomicU64,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Known {
    process: Arc<Process>,
    read: Instant,
    /// The process has ended: these facts are final.
    gone: bool,
}

impl Table {
    /// An empty table that turns start times into times of day by `boot`.
    #[must_use]
    pub fn new(boot: Boot) -> Self {
        Table {
            boot,
            users: Users::new("/etc/passwd".into()),
            cgroups: None,
            offline: false,
            shards: std::array::from_fn(|_| RwLock::default()),
            clock: AtomicU64::new(0),
        }
    }

    /// Takes the open root of cgroup v2, so that a process that is gone still has its unit and container while
    /// its cgroup exists.
    #[must_use]
    pub fn with_cgroups(mut self, root: OwnedFd) -> Self {
        self.cgroups = Names::new(root).inspect_err(|error| tracing::debug!(%error, "No cgroup names.")).ok();
        self
    }

    /// A table for records of another time or host: it knows what it is told ([`Table::know`], [`Table::exec`])
    /// and never looks into `/proc`.
    #[must_use]
    pub fn offline() -> Self {
        let boot = Boot { unix_ns: 0, ticks_per_second: 100 };
        Table { offline: true, users: Users::new("/dev/null".into()), ..Table::new(boot) }
    }

    /// Takes over facts that were known when a recording was made; for good.
    pub fn know(&self, pid: u32, start_ns: u64, facts: Facts) {
        let ticks = self.boot.ticks(start_ns);
        let process = Arc::new(Process { facts, start_ticks: Some(ticks) });
        self.change((pid, ticks), |slot| slot.known = Some(Known { process, read: Instant::now(), gone: true }));
    }

    /// Remembers an exec; facts read before it are forgotten.
    pub fn exec(&self, record: &Exec) {
        let mut record = record.clone();
        record.filename.truncate(MAX_EXEC);
        record.args.truncate(MAX_EXEC);
        let key = (record.pid, self.boot.ticks(record.start_ns));
        self.change(key, |slot| {
            slot.exec = Some(Arc::new(record));
            slot.known = None;
            slot.execs += 1;
        });
    }

    /// The facts about a process; from memory where they are fresh, else from `/proc`, else from its exec.
    ///
    /// `start_ns`: its start on the boot-time clock in nanoseconds, as the kernel side records it; without it
    /// (or 0) the process that has the pid now, or had it last, is meant. Pid 0 stands for an unknown owner.
    #[must_use]
    pub fn lookup(&self, pid: u32, start_ns: Option<u64>) -> Arc<Process> {
        let ticks = start_ns.filter(|ns| *ns != 0).map(|ns| self.boot.ticks(ns));
        if pid == 0 {
            return Arc::new(self.nobody(pid, None));
        }
        if let Some(known) = self.known(pid, ticks)
            && (known.gone && ticks.is_some() || known.read.elapsed() < if ticks.is_some() { FRESH } else { FRESH_PID })
        {
            return known.process;
        }
        if self.offline {
            return self.unseen(pid, ticks, true);
        }
        for _ in 0..ATTEMPTS {
            let Some(stat) = proc::stat(pid).filter(|stat| ticks.is_none_or(|ticks| ticks == stat.start_ticks)) else {
                return self.unseen(pid, ticks, true);
            };
            let key = (pid, stat.start_ticks);
            let (exec, execs) = self.last_exec(key);
            let process = Arc::new(self.read(pid, stat, exec.as_deref()));
            let after = proc::stat(pid);
            // Ended while it was read: what could be read before that is true of it.
            if after == Some(stat) || (after.is_none() && process.facts.exe != UNKNOWN_EXE) {
                let known = Known { process: process.clone(), read: Instant::now(), gone: after.is_none() };
                if self.keep(key, execs, known) {
                    return process;
                }
            }
        }
        // It executes one program after the other, faster than it can be read.
        self.unseen(pid, ticks, false)
    }

    /// As [`Table::lookup`]; a forked child that ran no program of its own and is gone has its parent's
    /// executable, arguments and user.
    #[must_use]
    pub fn lookup_child(&self, pid: u32, start_ns: Option<u64>, parent: Option<u32>) -> Arc<Process> {
        let process = self.lookup(pid, start_ns);
        let Some(parent) = parent.filter(|_| process.facts.exe == UNKNOWN_EXE) else { return process };
        let Some(ticks) = process.start_ticks else { return process };
        let Some(of_parent) = self.parent_facts(parent, ticks) else { return process };
        let facts = Facts {
            pid,
            started: process.facts.started.clone(),
            parent_pid: Some(parent),
            parent_exe: of_parent.exe.clone(),
            ..of_parent
        };
        let child = Arc::new(Process { facts, start_ticks: Some(ticks) });
        self.change((pid, ticks), |slot| {
            slot.known = Some(Known { process: child.clone(), read: Instant::now(), gone: true });
        });
        child
    }

    /// Facts about a parent, alive or gone. A process younger than the child is not its parent.
    fn parent_facts(&self, parent: u32, child_ticks: u64) -> Option<Facts> {
        let alive = !self.offline && proc::stat(parent).is_some_and(|stat| stat.start_ticks <= child_ticks);
        let facts = if alive {
            self.lookup(parent, None).facts.clone()
        } else {
            let shard = self.shard(parent);
            let (key, slot) = shard.slots.range((parent, 0)..=(parent, child_ticks)).next_back()?;
            match (&slot.known, &slot.exec) {
                (Some(known), _) => known.process.facts.clone(),
                (None, Some(exec)) => {
                    let (key, exec) = (*key, exec.clone());
                    drop(shard);
                    self.remembered(key, &exec).facts
                }
                (None, None) => return None,
            }
        };
        (facts.exe != UNKNOWN_EXE).then_some(facts)
    }

    /// Facts from `/proc`; what a zombie no longer shows comes from its exec.
    fn read(&self, pid: u32, stat: Stat, exec: Option<&Exec>) -> Process {
        let exe = proc::exe(pid);
        let mut args = command::split(&proc::read(pid, "cmdline", command::MAX_READ).unwrap_or_default());
        if let Some(exec) = exec
            && exe.is_none()
            && args.is_empty()
        {
            args = command::split(&exec.args);
        }
        let exe = exe.or_else(|| exec.and_then(filename));
        let uid = proc::read(pid, "status", 4096).ok().and_then(|status| proc::parse_uid(&status));
        let place = cgroup::place(&proc::read(pid, "cgroup", cgroup::MAX_READ).unwrap_or_default());
        let parent = Some(stat.parent).filter(|parent| *parent != 0);
        self.process(pid, Some(stat.start_ticks), exe, args, uid, place, parent, parent.and_then(proc::exe))
    }

    /// Facts about a process that `/proc` does not show; `gone` when it never will again.
    fn unseen(&self, pid: u32, ticks: Option<u64>, gone: bool) -> Arc<Process> {
        let shard = self.shard(pid);
        let found = shard.find(pid, ticks).map(|(key, slot)| (key, slot.execs, slot.exec.clone(), slot.known.clone()));
        drop(shard);
        let Some((key, execs, exec, known)) = found else {
            let process = Arc::new(self.nobody(pid, ticks));
            if let Some(ticks) = ticks {
                self.keep((pid, ticks), 0, Known { process: process.clone(), read: Instant::now(), gone });
            }
            return process;
        };
        let process = match (known, exec) {
            (Some(known), _) => known.process,
            (None, Some(exec)) => Arc::new(self.remembered(key, &exec)),
            (None, None) => Arc::new(self.nobody(pid, ticks)),
        };
        self.keep(key, execs, Known { process: process.clone(), read: Instant::now(), gone });
        process
    }

    fn remembered(&self, key: (u32, u64), exec: &Exec) -> Process {
        let place = self.cgroups.as_ref().filter(|_| exec.cgroup_id != 0).and_then(|names| names.place(exec.cgroup_id));
        let parent = Some(exec.ppid).filter(|parent| *parent != 0);
        let parent_exe = parent.and_then(|parent| self.parent_exe(parent, key.1));
        let args = command::split(&exec.args);
        let uid = Some(exec.uid);
        self.process(key.0, Some(key.1), filename(exec), args, uid, place.unwrap_or_default(), parent, parent_exe)
    }

    /// Executable of a parent that may be gone too. A process younger than the child is not its parent.
    fn parent_exe(&self, parent: u32, child_ticks: u64) -> Option<String> {
        if let Some(stat) = proc::stat(parent)
            && stat.start_ticks <= child_ticks
        {
            return proc::exe(parent);
        }
        let shard = self.shard(parent);
        let (_, slot) = shard.slots.range((parent, 0)..=(parent, child_ticks)).next_back()?;
        match (&slot.known, &slot.exec) {
            (Some(known), _) => Some(known.process.facts.exe.clone()).filter(|exe| exe != UNKNOWN_EXE),
            (None, Some(exec)) => filename(exec),
            (None, None) => None,
        }
    }

    #[expect(clippy::too_many_arguments, reason = "each is one fact; two callers")]
    fn process(
        &self,
        pid: u32,
        start_ticks: Option<u64>,
        exe: Option<String>,
        args: Vec<String>,
        uid: Option<u32>,
        place: Place,
        parent_pid: Option<u32>,
        parent_exe: Option<String>,
    ) -> Process {
        // A container has users of its own; only root is the same one.
        let same_users = place.container_id.is_empty() || uid == Some(0);
        let user = uid.map(|uid| if same_users { self.users.name(uid) } else { uid.to_string() });
        let facts = Facts {
            pid,
            started: start_ticks.map(|ticks| self.boot.rfc3339(ticks)).unwrap_or_default(),
            exe: exe.unwrap_or_else(|| UNKNOWN_EXE.to_owned()),
            args,
            user: user.unwrap_or_default(),
            uid,
            unit: place.unit,
            container_id: place.container_id,
            parent_pid,
            parent_exe: parent_exe.unwrap_or_default(),
        };
        Process { facts, start_ticks }
    }

    fn nobody(&self, pid: u32, ticks: Option<u64>) -> Process {
        self.process(pid, ticks, None, Vec::new(), None, Place::default(), None, None)
    }

    fn known(&self, pid: u32, ticks: Option<u64>) -> Option<Known> {
        let shard = self.shard(pid);
        let (_, slot) = shard.find(pid, ticks)?;
        slot.used.store(self.tick(), Ordering::Relaxed);
        slot.known.clone()
    }

    fn last_exec(&self, key: (u32, u64)) -> (Option<Arc<Exec>>, u64) {
        self.shard(key.0).slots.get(&key).map(|slot| (slot.exec.clone(), slot.execs)).unwrap_or_default()
    }

    /// Keeps what was read, unless an exec came in between: then `false`.
    fn keep(&self, key: (u32, u64), execs: u64, known: Known) -> bool {
        self.change(key, |slot| {
            let same = slot.execs == execs;
            if same {
                slot.known = Some(known);
            }
            same
        })
    }

    fn change<T>(&self, key: (u32, u64), change: impl FnOnce(&mut Slot) -> T) -> T {
        let now = self.tick();
        let mut shard = self.shard_mut(key.0);
        let slot = shard.slots.entry(key).or_default();
        slot.used.store(now, Ordering::Relaxed);
        let before = slot.bytes;
        let result = change(slot);
        slot.bytes = slot.weight();
        let after = slot.bytes;
        shard.bytes = shard.bytes + after - before;
        shard.shrink();
        result
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    fn lock(&self, pid: u32) -> &RwLock<Shard> {
        &self.shards[pid as usize % SHARDS]
    }

    fn shard(&self, pid: u32) -> RwLockReadGuard<'_, Shard> {
        // No holder of the lock can leave a shard half changed.
        self.lock(pid).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_mut(&self, pid: u32) -> RwLockWriteGuard<'_, Shard> {
        self.lock(pid).write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shard {
    /// The process of that start; without one the latest of that pid.
    fn find(&self, pid: u32, ticks: Option<u64>) -> Option<((u32, u64), &Slot)> {
        let range = match ticks {
            Some(ticks) => (pid, ticks)..=(pid, ticks),
            None => (pid, 0)..=(pid, u64::MAX),
        };
        self.slots.range(range).next_back().map(|(key, slot)| (*key, slot))
    }

    /// Past a limit an eighth goes at once, the least recently used, so that the search for them is rare.
    fn shrink(&mut self) {
        if self.slots.len() <= MAX_SLOTS && self.bytes <= MAX_BYTES {
            return;
        }
        let mut ages: Vec<_> = self.slots.iter().map(|(key, slot)| (slot.used.load(Ordering::Relaxed), *key)).collect();
        ages.sort_unstable();
        for (_, key) in ages {
            if self.slots.len() <= MAX_SLOTS * 7 / 8 && self.bytes <= MAX_BYTES * 7 / 8 {
                break;
            }
            if let Some(slot) = self.slots.remove(&key) {
                self.bytes -= slot.bytes;
            }
        }
    }
}

impl Slot {
    /// Bytes of text, and a flat rate for the rest.
    fn weight(&self) -> usize {
        let exec = self.exec.as_ref().map_or(0, |exec| exec.filename.len() + exec.args.len());
        let known = self.known.as_ref().map_or(0, |known| {
            let facts = &known.process.facts;
            let args: usize = facts.args.iter().map(|arg| arg.len() + size_of::<String>()).sum();
            args + facts.exe.len() + facts.unit.len() + facts.parent_exe.len()
        });
        512 + exec + known
    }
}

fn filename(exec: &Exec) -> Option<String> {
    (!exec.filename.is_empty()).then(|| String::from_utf8_lossy(&exec.filename).into_owned())
}

#[cfg(test)]
mod tests;
