//! Who a process is: (pid, start time) → executable, arguments, user, unit, container, parent.
//!
//! In: the kernel's exec records ([`Exec`]) and `/proc`. Out: [`Process`], the facts that stand in every
//! object. Called by the workers, when a message is handed on: never by the reader of the rings, because
//! `/proc` can block.
//!
//! A process is told from a later one of the same pid by its start time. Nothing is invented: what is not
//! known is empty, and an executable that cannot be read is called [`UNKNOWN_EXE`]. Names and arguments are
//! chosen by the process and may hold any byte; all parsing is total.

mod boot;
mod cgroup;
mod command;
pub(crate) mod proc;
mod table;
mod user;

pub use boot::Boot;
pub use table::Table;

/// Start of a live process in clock ticks since boot: with its id this names it for ever.
#[must_use]
pub fn start_ticks(pid: u32) -> Option<u64> {
    Some(proc::stat(pid)?.start_ticks)
}

/// Container of a live process: 64 hexadecimal digits.
pub(crate) fn container(pid: u32) -> Option<String> {
    let place = cgroup::place(&proc::read(pid, "cgroup", cgroup::MAX_READ).ok()?);
    (!place.container_id.is_empty()).then_some(place.container_id)
}

/// What stands for an executable whose path cannot be known: the process is gone and its exec was not seen,
/// or it is a kernel thread.
pub const UNKNOWN_EXE: &str = "unknown";

/// The kernel's record of one exec. Kept, so that a process that is gone still has its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// Process id in the host's namespace (the kernel's tgid).
    pub pid: u32,
    /// Start of the process: nanoseconds of the boot-time clock (`task_struct.start_boottime` of the group's
    /// leader). An exec does not change it.
    pub start_ns: u64,
    /// Parent's process id.
    pub ppid: u32,
    /// Effective user id.
    pub uid: u32,
    /// What was executed, as given to the system call: usually an absolute path.
    pub filename: Vec<u8>,
    /// Beginning of the argument area: each argument followed by NUL, the last one possibly cut.
    pub args: Vec<u8>,
    /// Identifier of the cgroup in the v2 hierarchy; 0 when not known.
    pub cgroup_id: u64,
}

/// The facts about one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// As they stand in objects. Arguments are not redacted yet.
    pub facts: transaction::object::Process,
    /// Start in clock ticks since boot, as in field 22 of `/proc/PID/stat`; `None` when not known.
    pub start_ticks: Option<u64>,
}

impl From<&agent_ebpf::Exec> for Exec {
    fn from(r: &agent_ebpf::Exec) -> Self {
        let cut = |bytes: &[u8], len: u32| bytes[..(len as usize).min(bytes.len())].to_vec();
        Exec {
            pid: r.pid,
            start_ns: r.start,
            ppid: r.parent,
            uid: r.uid,
            filename: cut(&r.filename, r.filename_len),
            args: cut(&r.arguments, r.arguments_len),
            cgroup_id: r.cgroup,
        }
    }
}
