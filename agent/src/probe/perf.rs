//! `perf_event_open(2)`: the one structure and the one call that probes and side-band records share.
//!
//! In: an [`Attributes`]. Out: an event's descriptor. Called by [`super::uprobe`] and by the mapping records of
//! `library`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// `PERF_TYPE_SOFTWARE`.
pub(crate) const TYPE_SOFTWARE: u32 = 1;
/// `PERF_COUNT_SW_DUMMY`: counts nothing, carries side-band records (Linux 3.12).
pub(crate) const SOFTWARE_DUMMY: u64 = 9;
/// `PERF_FORMAT_TOTAL_TIME_ENABLED`.
pub(crate) const READ_TIME_ENABLED: u64 = 1;
/// Bit `mmap` of the flags: records of executable mappings.
pub(crate) const FLAG_MMAP: u64 = 1 << 8;
/// Bit `watermark`: `wakeup` is in bytes, and counts every record, not only samples.
pub(crate) const FLAG_WATERMARK: u64 = 1 << 14;
/// Bit `mmap2`: those records with device, inode and generation (Linux 3.12).
pub(crate) const FLAG_MMAP2: u64 = 1 << 23;

/// `struct perf_event_attr` of `linux/perf_event.h` up to `PERF_ATTR_SIZE_VER5` (Linux 4.1).
/// [`open`] fills in the size.
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    pub(crate) kind: u32,
    pub(crate) size: u32,
    pub(crate) config: u64,
    pub(crate) sample_period: u64,
    pub(crate) sample_type: u64,
    pub(crate) read_format: u64,
    pub(crate) flags: u64,
    pub(crate) wakeup: u32,
    pub(crate) bp_type: u32,
    pub(crate) config1: u64,
    pub(crate) config2: u64,
    pub(crate) branch_sample_type: u64,
    pub(crate) sample_regs_user: u64,
    pub(crate) sample_stack_user: u32,
    pub(crate) clockid: i32,
    pub(crate) sample_regs_intr: u64,
    pub(crate) aux_watermark: u32,
    pub(crate) sample_max_stack: u16,
    pub(crate) reserved: u16,
}

/// Opens an event of every process on one CPU.
///
/// # Safety
/// Where the event's kind takes addresses in `config1` or `config2`, they must be valid for the time of the call.
pub(crate) unsafe fn open(mut attributes: Attributes, cpu: u32) -> io::Result<OwnedFd> {
    const EVERY_PROCESS: libc::pid_t = -1;
    const NO_GROUP: libc::c_int = -1;
    const FLAG_FD_CLOEXEC: libc::c_ulong = 8;
    attributes.size = size_of::<Attributes>() as u32;
    // SAFETY: the structure says its own size; addresses in it are the caller's promise.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            EVERY_PROCESS,
            cpu as libc::c_int,
            NO_GROUP,
            FLAG_FD_CLOEXEC,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else closes.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Lets a program run on an event, with a cookie (Linux 5.15). The link holds event and program.
pub(crate) fn link(program: BorrowedFd<'_>, event: BorrowedFd<'_>, cookie: u64) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_PERF_EVENT: u32 = 41;
    /// The part of `union bpf_attr` of `linux/bpf.h` that the command takes for perf events.
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        cookie: u64,
    }
    let attributes = LinkCreate {
        program: program.as_fd().as_raw_fd() as u32,
        target: event.as_raw_fd() as u32,
        attach_type: BPF_PERF_EVENT,
        flags: 0,
        cookie,
    };
    // SAFETY: the structure is valid for the call, its size is given, and the kernel only reads it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attributes, size_of::<LinkCreate>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else closes.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

/// Lets a program run at many places of a file, each with its cookie (`uprobe_multi`, Linux 6.6). The link holds them
/// all. Refused with `EINVAL` by older kernels, and for programs that were not loaded for it.
pub(crate) fn link_many(
    program: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    offsets: &[u64],
    cookies: &[u64],
    on_return: bool,
) -> io::Result<OwnedFd> {
    const BPF_LINK_CREATE: libc::c_long = 28;
    const BPF_F_UPROBE_MULTI_RETURN: u32 = 1;
    /// The part of `union bpf_attr` of `linux/bpf.h` that the command takes for these links.
    #[repr(C)]
    struct LinkCreate {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
        path: u64,
        offsets: u64,
        counters: u64,
        cookies: u64,
        count: u32,
        multi_flags: u32,
        pid: u32,
        pad: u32,
    }
    let attributes = LinkCreate {
        program: program.as_raw_fd() as u32,
        target: 0,
        attach_type: super::multi::ATTACH_TYPE,
        flags: 0,
        path: path.as_ptr() as u64,
        offsets: offsets.as_ptr() as u64,
        counters: 0,
        cookies: cookies.as_ptr() as u64,
        count: offsets.len().min(cookies.len()) as u32,
        multi_flags: if on_return { BPF_F_UPROBE_MULTI_RETURN } else { 0 },
        pid: 0,
        pad: 0,
    };
    // SAFETY: the addresses are of a string that ends with a NUL and of two lists of the length that is given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_CREATE, &raw const attributes, size_of::<LinkCreate>()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else closes.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structure_has_the_size_that_the_kernel_knows() {
        // PERF_ATTR_SIZE_VER5
        assert_eq!(size_of::<Attributes>(), 112);
    }
}
