//! One probe in a file: attached without a path of its own, detached many at a time.
//!
//! In: a loaded program, an open file, an offset. Out: [`Attached`], which detaches when dropped. Called by
//! `library` for its plans and by [`super::returns`] for the self-test.
//!
//! aya could attach these as well, but it detaches one after the other, and each waits for an RCU grace period
//! of the whole machine. Waiting for many at a time takes as long as waiting for one: see [`detach`].

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use super::perf;

/// Where the kernel says how its uprobe events are opened (Linux 4.17).
const SOURCE: &str = "/sys/bus/event_source/devices/uprobe";
/// Threads that detach. Each sleeps nearly all of its time.
const THREADS: usize = 32;

/// A probe in place. Dropping it takes it away, which waits for a grace period: many go faster by [`detach`].
#[derive(Debug)]
pub struct Attached {
    /// The link holds the event, the event holds the probe.
    _link: OwnedFd,
}

/// Puts a probe at `offset` of `file` (at the return of the function that begins there with `on_return`), in
/// every process that maps the file now or later.
///
/// The file is named by its descriptor, so what was inspected is what is probed, whatever its path is by now;
/// one opened with `O_PATH` will do. `cookie` is what `bpf_get_attach_cookie` gives the program.
pub fn attach(
    program: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    offset: u64,
    on_return: bool,
    cookie: u64,
) -> io::Result<Attached> {
    let source = source()?;
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(io::Error::other)?;
    let attributes = perf::Attributes {
        kind: source.kind,
        config: if on_return { source.on_return } else { 0 },
        config1: path.as_ptr() as u64,
        config2: offset,
        ..Default::default()
    };
    // SAFETY: `config1` is the address of a string that ends with a NUL and outlives the call.
    let event = unsafe { perf::open(attributes, 0) }.map_err(|error| placing(&error, offset))?;
    let link = perf::link(program, event.as_fd(), cookie).map_err(|error| linking(&error, offset))?;
    Ok(Attached { _link: link })
}

/// Takes many probes away at once.
pub fn detach(probes: Vec<Attached>) {
    detach_with(probes, THREADS);
}

fn detach_with(probes: Vec<Attached>, threads: usize) {
    let threads = threads.min(probes.len());
    let mut shares: Vec<Vec<Attached>> = (0..threads).map(|_| Vec::new()).collect();
    for (number, probe) in probes.into_iter().enumerate() {
        shares[number % threads].push(probe);
    }
    std::thread::scope(|scope| {
        for share in shares {
            // A share whose thread cannot be started is dropped here and now.
            let started = std::thread::Builder::new()
                .name("detach".into())
                .stack_size(64 << 10)
                .spawn_scoped(scope, move || drop(share));
            if let Err(error) = started {
                tracing::debug!("A thread to detach probes could not be started: {error}.");
            }
        }
    });
}

/// What the kernel's folder says.
#[derive(Clone, Copy, Debug)]
struct Source {
    kind: u32,
    on_return: u64,
}

fn source() -> io::Result<Source> {
    static SOURCE_READ: OnceLock<Source> = OnceLock::new();
    if let Some(source) = SOURCE_READ.get() {
        return Ok(*source);
    }
    let source = read_source()?;
    Ok(*SOURCE_READ.get_or_init(|| source))
}

fn read_source() -> io::Result<Source> {
    let read = |name: &str| {
        fs::read_to_string(format!("{SOURCE}/{name}")).map_err(|error| {
            let advice = "uprobes need a kernel with CONFIG_UPROBE_EVENTS (4.17 or later) and sysfs mounted at /sys";
            io::Error::new(error.kind(), format!("{SOURCE}/{name} cannot be read: {error}; {advice}"))
        })
    };
    let strange = |name: &str, text: &str| io::Error::other(format!("{SOURCE}/{name} says {text:?}: not understood"));
    let kind = read("type")?;
    let kind = kind.trim().parse().map_err(|_| strange("type", &kind))?;
    let format = read("format/retprobe")?;
    let bit = format.trim().strip_prefix("config:").and_then(|bit| bit.parse::<u32>().ok());
    let on_return = bit.and_then(|bit| 1u64.checked_shl(bit)).ok_or_else(|| strange("format/retprobe", &format))?;
    Ok(Source { kind, on_return })
}

fn placing(error: &io::Error, offset: u64) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; it takes CAP_SYS_ADMIN (or CAP_PERFMON where kernel.perf_event_paranoid is 2 or less)"
        }
        Some(libc::EMFILE | libc::ENFILE) => "; too many open files: raise the limit (LimitNOFILE=, ulimit -n)",
        Some(libc::ENOSYS) => "; the kernel was built without CONFIG_PERF_EVENTS",
        Some(libc::EINVAL | libc::EIO) => {
            "; the offset is outside of the file's code, or its file system has no uprobes"
        }
        // The kernel's own word for an instruction that it can neither emulate nor step.
        Some(libc::EOPNOTSUPP) => "; the kernel cannot probe the instruction there",
        _ => "",
    };
    io::Error::new(error.kind(), format!("a probe at {offset:#x} was refused: {error}{advice}"))
}

fn linking(error: &io::Error, offset: u64) -> io::Error {
    let advice = match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => "; it takes CAP_BPF and CAP_PERFMON, or CAP_SYS_ADMIN",
        Some(libc::EINVAL) => "; the program's type is wrong, or the kernel is older than 5.15",
        Some(libc::EMFILE | libc::ENFILE) => "; too many open files: raise the limit (LimitNOFILE=, ulimit -n)",
        _ => "",
    };
    io::Error::new(error.kind(), format!("no program could be tied to the probe at {offset:#x}: {error}{advice}"))
}

/// A program that does nothing, for tests that want to attach something.
#[cfg(test)]
pub(crate) fn nothing() -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    const BPF_PROG_LOAD: libc::c_long = 5;
    const TYPE_KPROBE: u32 = 2;
    /// The beginning of `union bpf_attr` for the command.
    #[repr(C)]
    struct Load {
        kind: u32,
        count: u32,
        instructions: *const u64,
        license: *const libc::c_char,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel: u32,
        flags: u32,
    }
    // r0 = 0 (BPF_ALU64 | BPF_MOV | BPF_K), exit.
    let instructions = [0xb7u64, 0x95];
    let load = Load {
        kind: TYPE_KPROBE,
        count: 2,
        instructions: instructions.as_ptr(),
        license: c"GPL".as_ptr(),
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel: 0,
        flags: 0,
    };
    // SAFETY: the structure and what it points to outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

#[cfg(test)]
mod tests;
