//! One probe in a file: attached to what was inspected, whatever its path is by now.
//!
//! In: a loaded program, an open file, an offset. Out: [`Attached`], which detaches when dropped. Called by
//! `library` for its plans and by [`super::returns`] for the self-test.
//!
//! Where the kernel can (Linux 6.6, see [`super::multi`]), one link holds all probes of a program in a file: they are
//! attached and taken away together, links side by side in 0.1 s. Before that each probe has an event of its own, and
//! taking one away waits for RCU grace periods of the whole machine, 0.1 s and more, with the kernel's `event_mutex`
//! held (`perf_trace_event_unreg`), so threads do not help much (30 probes, measured on Linux 6.18: 3.2 s by one, 2.5 s
//! by 32) and others cannot attach meanwhile. At the end of the agent that waiting is left to somebody who has time:
//! see [`leave`].

use std::ffi::CString;
use std::fs;
use std::io::{self, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::OnceLock;
use std::time::Duration;

use super::perf;

/// Where the kernel says how its uprobe events are opened (Linux 4.17).
const SOURCE: &str = "/sys/bus/event_source/devices/uprobe";
/// How long a child may take to get ready in [`leave`]. It needs microseconds.
const PATIENCE: Duration = Duration::from_secs(1);

/// Probes in place. Dropping it takes them away, which takes 0.1 s or so.
#[derive(Debug)]
pub struct Attached {
    /// The link holds the probes, or an event that holds one.
    link: OwnedFd,
    /// It holds all of them itself, and lets them go without the events' lock.
    many: bool,
}

/// Puts probes at these offsets of `file`, each with its cookie: by one link where kernel and program allow it, else
/// by an event each. On an error none stays.
pub fn attach_all(
    program: BorrowedFd<'_>,
    file: BorrowedFd<'_>,
    points: &[(u64, u64)],
    on_return: bool,
) -> io::Result<Vec<Attached>> {
    let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(io::Error::other)?;
    let (offsets, cookies): (Vec<u64>, Vec<u64>) = points.iter().copied().unzip();
    match perf::link_many(program, &path, &offsets, &cookies, on_return) {
        Ok(link) => Ok(vec![Attached { link, many: true }]),
        // What the kernel has against it is said by the other way.
        Err(_) => {
            points.iter().map(|(offset, cookie)| attach_one(program, file, *offset, on_return, *cookie)).collect()
        }
    }
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
    let one = attach_all(program, file, &[(offset, cookie)], on_return)?;
    one.into_iter().next().ok_or_else(|| io::Error::other("nothing was attached"))
}

fn attach_one(
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
    Ok(Attached { link, many: false })
}

/// Takes probes away without long waits. Links of many are taken away here. Probes with events of their own are left to
/// a child process that ends at once: the kernel takes them away as the last one who has them ends. Until then they
/// go on costing their programs what they cost, and nobody reads what comes.
///
/// The child has nothing else: what the agent holds and others may be waiting for (locks, listeners, pipes) it
/// closes before this returns. Where it cannot be had, these are taken away here too, and false is returned.
#[must_use = "says whether it took long"]
pub fn leave(probes: Vec<Attached>) -> bool {
    let (many, probes): (Vec<_>, Vec<_>) = probes.into_iter().partition(|probe| probe.many);
    // Side by side they wait for the same grace periods.
    let threads: Vec<_> = many
        .into_iter()
        .filter_map(|probe| std::thread::Builder::new().stack_size(64 << 10).spawn(move || drop(probe)).ok())
        .collect();
    let left = leave_to_child(probes);
    for thread in threads {
        let _ = thread.join();
    }
    left
}

fn leave_to_child(probes: Vec<Attached>) -> bool {
    let mut kept: Vec<RawFd> = probes.iter().map(|probe| probe.link.as_raw_fd()).collect();
    if kept.is_empty() {
        return true;
    }
    match hand_over(&mut kept) {
        Ok((child, go)) => {
            // While the child still has them, so that nothing is waited for here.
            drop(probes);
            drop(go);
            let reap = move || {
                // SAFETY: the child is ours, and nobody else waits for it. Its end has no further meaning.
                unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
            };
            // Without the thread, the child is waited for by whoever inherits it.
            let _ = std::thread::Builder::new().name("reap".into()).stack_size(64 << 10).spawn(reap);
            true
        }
        Err(error) => {
            tracing::debug!("Probes could not be left to a child: {error}.");
            drop(probes);
            false
        }
    }
}

/// Makes a child that has these descriptors, has closed all others, and ends when what is returned with it is
/// dropped.
fn hand_over(kept: &mut Vec<RawFd>) -> io::Result<(libc::pid_t, PipeWriter)> {
    let (mut ready, tell) = io::pipe()?;
    let (wait, go) = io::pipe()?;
    kept.extend([tell.as_raw_fd(), wait.as_raw_fd()]);
    kept.sort_unstable();
    // SAFETY: the child of a process with threads may only do what is safe in a signal handler: it makes bare
    // system calls and reads a list that is there already.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    if child == 0 {
        // SAFETY: as said.
        unsafe { end_with(kept, tell.as_raw_fd(), wait.as_raw_fd()) };
    }
    drop((tell, wait));
    let mut polled = libc::pollfd { fd: ready.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid entry.
    unsafe { libc::poll(&raw mut polled, 1, PATIENCE.as_millis() as libc::c_int) };
    if polled.revents & libc::POLLIN != 0 && ready.read(&mut [0])? == 1 {
        return Ok((child, go));
    }
    // SAFETY: the child is ours and not waited for yet.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    Err(io::Error::other("the child did not get ready (close_range(2) needs Linux 5.9)"))
}

/// The child's whole life.
///
/// # Safety
/// To be called in a fresh child only: it does not return.
unsafe fn end_with(kept: &[RawFd], tell: RawFd, wait: RawFd) -> ! {
    let close = |first: RawFd, last: RawFd| {
        // SAFETY: the descriptors are the child's own copies, and it uses none of them.
        first > last || unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } == 0
    };
    let mut first = 0;
    let mut closed = true;
    for fd in kept {
        closed &= close(first, fd - 1);
        first = fd + 1;
    }
    closed &= close(first, RawFd::MAX);
    let mut byte = [0u8; 1];
    // SAFETY: a byte of our own. The other end of `wait` is the parent's alone, so its end is an end of this, too.
    unsafe {
        if closed {
            libc::write(tell, byte.as_ptr().cast(), 1);
            libc::read(wait, byte.as_mut_ptr().cast(), 1);
        }
        libc::_exit(0);
    }
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
