//! Whether return probes can be used on this kernel at all.
//!
//! In: any loaded uprobe program. Out: yes or no. Called once at start, before the first library is planned.
//!
//! A return probe sends the function's return through code of the kernel's own, and on `x86_64` since Linux 6.11
//! that code makes a system call (`uretprobe`). Where the kernel shows this call to seccomp filters, a process
//! under a filter that allows only what it knows is killed by it: a probe would break sandboxed programs. Fixed
//! kernels let it pass, and distributions carry the one without the other, so it is tried and not looked up by
//! version: a child of ours takes such a filter upon itself and returns from a probed function.

use std::hint::black_box;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::{code, uprobe};

/// The child needs microseconds; one that takes this long hangs, and is not safe either.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tries whether a process under strict seccomp survives a return probe.
///
/// An error says that it could not be tried: to be taken as "not safe".
pub fn safe(program: BorrowedFd<'_>) -> io::Result<bool> {
    let address = probed as *const () as usize;
    let (file, offset) = code::file_of(address)?;
    let before = instruction(address);
    let probe = uprobe::attach(program, file.as_fd(), offset, true, 0)?;
    // A probe that is not in our code cannot kill, and its silence would be taken for safety.
    if instruction(address) == before {
        return Err(io::Error::other("the kernel took the return probe, but it is not in our code"));
    }
    let answer = survives();
    drop(probe);
    answer
}

/// Whether the program can be attached at all, tried on our own code.
pub(crate) fn attachable(program: BorrowedFd<'_>) -> bool {
    code::file_of(probed as *const () as usize)
        .and_then(|(file, offset)| uprobe::attach(program, file.as_fd(), offset, false, 0))
        .is_ok()
}

/// The function that is probed. It does something that no other function does, so that the compiler can
/// neither fold it into another nor call it elsewhere.
#[inline(never)]
extern "C" fn probed(number: u64) -> u64 {
    black_box(number ^ 0x7461_7073_7461_636b)
}

/// The first bytes of the code at `address`, as this process would run them: a probe replaces one (`x86_64`) or
/// four (aarch64) of them.
fn instruction(address: usize) -> [u8; 4] {
    // SAFETY: code is mapped readable, and a function of ours is longer than four bytes.
    unsafe { std::ptr::read_volatile(address as *const [u8; 4]) }
}

fn survives() -> io::Result<bool> {
    let filter = filter();
    let filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the child of a process with threads may only do what is safe in a signal handler: it makes four
    // bare system calls, calls a function without any, and ends by a fifth.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as said.
        unsafe { run(&filter) };
    }
    if child < 0 {
        return Err(io::Error::last_os_error());
    }
    let status = wait(child)?;
    if libc::WIFEXITED(status) {
        return match libc::WEXITSTATUS(status) {
            DONE => Ok(true),
            NO_FILTER => {
                Err(io::Error::other("a child could not take a seccomp filter upon itself: CONFIG_SECCOMP_FILTER?"))
            }
            other => Err(io::Error::other(format!("a child with a return probe ended with {other}"))),
        };
    }
    Ok(false)
}

const DONE: i32 = 0;
const NO_FILTER: i32 = 2;
const WRONG: i32 = 3;

/// The child's whole life.
///
/// # Safety
/// To be called in a fresh child only: it does not return.
unsafe fn run(filter: &libc::sock_fprog) -> ! {
    const NO: libc::c_ulong = 0;
    // SAFETY: system calls on values; the filter outlives them. No core file is to be written if it is killed.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong, NO, NO, NO);
        libc::prctl(libc::PR_SET_DUMPABLE, NO, NO, NO, NO);
        let taken = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, NO, NO, NO) == 0
            && libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const *filter) == 0;
        if !taken {
            libc::_exit(NO_FILTER);
        }
        // By its address, so that it is this very code that runs.
        let call: extern "C" fn(u64) -> u64 = black_box(probed);
        let right = call(1) == 1 ^ 0x7461_7073_7461_636b;
        libc::_exit(if right { DONE } else { WRONG });
    }
}

/// Allows what a process needs to end; everything else kills it.
fn filter() -> [libc::sock_filter; 7] {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let allowed = |number: libc::c_long, skip| step(JUMP_EQUAL, skip, 0, number as u32);
    [
        // The number is the first field of `struct seccomp_data`.
        step(LOAD, 0, 0, 0),
        allowed(libc::SYS_exit_group, 4),
        allowed(libc::SYS_exit, 3),
        allowed(libc::SYS_write, 2),
        allowed(libc::SYS_rt_sigreturn, 1),
        step(RETURN, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Waits for the child, and kills it when it takes too long.
fn wait(child: libc::pid_t) -> io::Result<libc::c_int> {
    // SAFETY: the child is ours and not waited for yet, so its number is its own. Linux 5.3.
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, child, 0) };
    if handle >= 0 {
        // SAFETY: a new descriptor.
        let handle = unsafe { OwnedFd::from_raw_fd(handle as libc::c_int) };
        let mut polled = libc::pollfd { fd: handle.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        unsafe { libc::poll(&raw mut polled, 1, PATIENCE.as_millis() as libc::c_int) };
        if polled.revents == 0 {
            // SAFETY: as above.
            unsafe { libc::kill(child, libc::SIGKILL) };
        }
    }
    let mut status = 0;
    loop {
        // SAFETY: the status is ours to write.
        if unsafe { libc::waitpid(child, &raw mut status, 0) } == child {
            return Ok(status);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn this_kernel_answers() {
        let Ok(program) = uprobe::nothing() else { return eprintln!("skipped: no program can be loaded here") };
        let begun = std::time::Instant::now();
        match safe(program.as_fd()) {
            Ok(answer) => eprintln!("return probes under seccomp are safe: {answer} ({:?})", begun.elapsed()),
            Err(error) => return eprintln!("skipped: {error}"),
        }
        // Twice, from another thread, gives the same: nothing is left behind.
        let again = std::thread::spawn(move || safe(program.as_fd()).unwrap()).join().unwrap();
        assert!(begun.elapsed() < 2 * PATIENCE);
        eprintln!("again: {again}");
    }

    /// The filter does kill: otherwise every kernel would seem safe.
    #[test]
    fn a_call_that_is_not_allowed_kills_the_child() {
        let filter = filter();
        let filter = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the child makes bare system calls only.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: as said.
            unsafe {
                libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const filter);
                libc::syscall(libc::SYS_getppid);
                libc::_exit(DONE);
            }
        }
        let status = wait(child).unwrap();
        assert!(libc::WIFSIGNALED(status), "{status:#x}");
        assert_eq!(libc::WTERMSIG(status), libc::SIGSYS);
    }
}
