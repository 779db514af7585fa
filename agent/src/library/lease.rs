//! A read lease on one file: whoever opens it for writing, or truncates it, waits until the lease is given up.
//!
//! In: an open file, a thread. Out: [`Lease`]. Called by `guard`, whose thread is told by a signal.
//!
//! Facts are those of `fcntl(2)`, "Leases", and of `fs/locks.c`: the lease belongs to the open file description
//! and ends when its last descriptor is closed; renaming, deleting, and reading do not break it; it is not
//! granted while anybody has the file open (or mapped) for writing; a writer waits
//! `/proc/sys/fs/lease-break-time` (45 s) at most, and one with `O_NONBLOCK` not at all: it is refused until the
//! lease is gone. It takes `CAP_LEASE` or owning the file.
//!
//! NFS and SMB answer like a file that is open for writing when they have no delegation (`nfs4_setlease`,
//! `cifs_setlease`), and what other hosts write breaks nothing: they are taken for file systems without leases.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// Of `asm-generic/fcntl.h`; `libc` has them for some targets only.
const F_SETOWN_EX: libc::c_int = 15;
const F_OWNER_TID: libc::c_int = 0;

/// NFS, SMB, CIFS, SMB 2: of `linux/magic.h` and `fs/smb/client`.
const REMOTE: [u32; 4] = [0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42];

/// `struct f_owner_ex` of `fcntl(2)`.
#[repr(C)]
struct Owner {
    kind: libc::c_int,
    id: libc::pid_t,
}

/// Why there is no lease.
#[derive(Debug)]
pub(super) enum Refused {
    /// Somebody has the file open for writing, or waits for that.
    Busy,
    /// There can be none: the file system has none, or we have no right to it.
    Never(io::Error),
}

/// A lease. It is given up when dropped, unless another process has the descriptor, too.
#[derive(Debug)]
pub(super) struct Lease(File);

impl Lease {
    /// Takes it. `file` is open for reading only. That it is to be given up is told to the thread `told` with
    /// `SIGIO`, which that thread has to block: its default is to end the process.
    pub(super) fn take(file: File, told: libc::pid_t) -> Result<Self, Refused> {
        if is_remote(&file)? {
            return Err(Refused::Never(io::Error::other("its file system is on another host")));
        }
        let owner = Owner { kind: F_OWNER_TID, id: told };
        // SAFETY: an open descriptor and a structure of the right type. Before the lease: the kernel makes the
        // process the owner where there is none.
        if unsafe { libc::fcntl(file.as_raw_fd(), F_SETOWN_EX, &raw const owner) } != 0 {
            return Err(Refused::Never(io::Error::last_os_error()));
        }
        // SAFETY: an open descriptor and a number.
        if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) } != 0 {
            let error = io::Error::last_os_error();
            let busy = error.raw_os_error() == Some(libc::EAGAIN);
            return Err(if busy { Refused::Busy } else { Refused::Never(error) });
        }
        Ok(Self(file))
    }

    /// Lets those in who wait, at once: closing would do that only when no child has the descriptor, and one that is
    /// about to become another program still has.
    pub(super) fn give_up(self) {
        // SAFETY: an open descriptor and a number. One that is gone already is an error without effect.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) };
    }

    /// Whether somebody waits for it, or has waited too long and has got in.
    pub(super) fn is_broken(&self) -> bool {
        // SAFETY: an open descriptor. What is answered is what the lease is to become.
        unsafe { libc::fcntl(self.0.as_raw_fd(), libc::F_GETLEASE) != libc::c_int::from(libc::F_RDLCK as i16) }
    }
}

impl From<Lease> for OwnedFd {
    fn from(lease: Lease) -> Self {
        lease.0.into()
    }
}

fn is_remote(file: &File) -> Result<bool, Refused> {
    // SAFETY: all zeros is a valid value; the kernel fills it in.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: an open descriptor and a structure of the right type.
    if unsafe { libc::fstatfs(file.as_raw_fd(), &raw mut facts) } != 0 {
        return Err(Refused::Never(io::Error::last_os_error()));
    }
    Ok(REMOTE.contains(&(facts.f_type as u32)))
}

/// Blocks `SIGIO` in this thread, and returns a descriptor that can be read, by this thread alone, when one came.
pub(super) fn signals() -> io::Result<OwnedFd> {
    // SAFETY: the set is ours and made by sigemptyset; the mask changed is that of this thread.
    let fd = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGIO);
        let failed = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes what signals came. Which files they are about is not asked: signals of one kind are merged.
pub(super) fn drain(signals: RawFd) {
    let mut buffer = [0u8; size_of::<libc::signalfd_siginfo>() * 4];
    // SAFETY: a buffer of our own and its size; the descriptor does not block.
    while unsafe { libc::read(signals, buffer.as_mut_ptr().cast(), buffer.len()) } > 0 {}
}
