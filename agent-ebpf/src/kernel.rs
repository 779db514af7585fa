//! What depends on the running kernel: offsets of structure members, set by the loader before the programs
//! are verified, and loads through them.
//!
//! The globals lie in a frozen map, so the verifier knows their values: a load at `pointer + OFFSET` from a
//! BTF pointer is checked like one in C. No helper call a field, and it works where reading kernel memory
//! by helper is locked down.

use core::ptr;

use agent_ebpf::{Address, counter};
use aya_ebpf::{
    helpers::generated::{bpf_get_current_task_btf, bpf_skc_to_tcp_sock},
    macros::map,
    maps::PerCpuArray,
};

macro_rules! globals {
    ($($(#[$doc:meta])* $name:ident)*) => { $( $(#[$doc])* #[unsafe(no_mangle)] pub static $name: u32 = 0; )* };
}
globals! {
    /// The agent's own process id.
    SELF
    /// `task_struct.pid`
    TASK_PID
    /// `task_struct.tgid`
    TASK_TGID
    /// `task_struct.group_leader`
    TASK_LEADER
    /// `task_struct.real_parent`
    TASK_PARENT
    /// `task_struct.start_boottime`
    TASK_START
    /// `task_struct.mm`
    TASK_MM
    /// `mm_struct.arg_start`
    MM_ARG_START
    /// `mm_struct.arg_end`
    MM_ARG_END
    /// `linux_binprm.interp`: the binary really executed, also for scripts
    BINPRM_INTERP
    /// `sock.sk_lock.owned`
    SOCK_OWNED
    /// `sock.__sk_common.skc_family`
    SOCK_FAMILY
    /// `sock.__sk_common.skc_dport`
    SOCK_DPORT
    /// `sock.__sk_common.skc_rcv_saddr`
    SOCK_LOCAL4
    /// `sock.__sk_common.skc_daddr`
    SOCK_REMOTE4
    /// `sock.__sk_common.skc_v6_rcv_saddr`
    SOCK_LOCAL6
    /// `sock.__sk_common.skc_v6_daddr`
    SOCK_REMOTE6
    /// `sock.__sk_common.skc_net`
    SOCK_NET
    /// `net.ns.inum`
    NET_INUM
    /// `inet_sock.inet_sport`: kept after a close, when `skc_num` is already 0
    INET_SPORT
    /// `task_struct.files`
    TASK_FILES
    /// `files_struct.fdt`
    FILES_FDT
    /// `fdtable.max_fds`
    FDT_MAX
    /// `fdtable.fd`
    FDT_FD
    /// `file.private_data`
    FILE_PRIVATE
    /// `socket.file`
    SOCKET_FILE
    /// `socket.sk`
    SOCKET_SK
    /// `sock.__sk_common.skc_cookie`
    SOCK_COOKIE
    /// `tcp_sock.rcv_nxt`
    TCP_RCV_NXT
    /// `tcp_sock.snd_nxt`
    TCP_SND_NXT
}

/// Value of a global that the loader has set.
#[inline(always)]
pub fn global(p: &'static u32) -> u32 {
    // SAFETY: a reference is always readable; volatile, because the loader replaces the value.
    unsafe { ptr::read_volatile(p) }
}

/// Loads a member. `base` must be a BTF pointer of the type that `offset` belongs to.
///
/// # Safety
/// The verifier checks the access; a wrong offset is refused at load.
#[inline(always)]
pub unsafe fn member<T: Copy>(base: u64, offset: &'static u32) -> T {
    unsafe { ptr::read_volatile((base + global(offset) as u64) as *const T) }
}

/// A process and its thread, with the process's start.
#[derive(Clone, Copy)]
pub struct Task {
    pub pid: u32,
    pub thread: u32,
    pub start: u64,
    pub parent: u32,
}

/// The current task.
#[inline(always)]
pub fn current() -> Task {
    // SAFETY: as above; the leader of a running task is not null.
    unsafe {
        let t = bpf_get_current_task_btf() as u64;
        let leader: u64 = member(t, &TASK_LEADER);
        let parent: u64 = member(leader, &TASK_PARENT);
        Task {
            pid: member(t, &TASK_TGID),
            thread: member(t, &TASK_PID),
            start: member(leader, &TASK_START),
            parent: member(parent, &TASK_TGID),
        }
    }
}

/// The socket as `struct tcp_sock`, 0 if it is none. Takes a context's socket or a tracepoint's argument.
#[inline(always)]
pub fn tcp_sock<T>(sk: *mut T) -> u64 {
    // SAFETY: the helper checks the protocol and gives null otherwise.
    unsafe { bpf_skc_to_tcp_sock(sk.cast()) as u64 }
}

/// Whether a process holds the socket's lock: then the current task is the one that uses the socket. In
/// softirq it is anybody.
#[inline(always)]
pub fn locked_by_user(tcp: u64) -> bool {
    // SAFETY: `tcp` comes from tcp_sock() and is not null.
    unsafe { member::<u32>(tcp, &SOCK_OWNED) != 0 }
}

/// Addresses of a socket.
///
/// # Safety
/// `tcp` comes from [`tcp_sock`] and is not 0.
#[inline(always)]
pub unsafe fn address(tcp: u64, a: &mut Address) {
    unsafe {
        let net: u64 = member(tcp, &SOCK_NET);
        a.netns = member(net, &NET_INUM);
        a.local_port = u16::from_be(member(tcp, &INET_SPORT));
        a.remote_port = u16::from_be(member(tcp, &SOCK_DPORT));
        if member::<u16>(tcp, &SOCK_FAMILY) == 2 {
            a.local = [0, 0, 0xffff_u32.to_be(), member(tcp, &SOCK_LOCAL4)];
            a.remote = [0, 0, 0xffff_u32.to_be(), member(tcp, &SOCK_REMOTE4)];
        } else {
            let l = tcp + global(&SOCK_LOCAL6) as u64;
            let r = tcp + global(&SOCK_REMOTE6) as u64;
            let word = |p: u64| ptr::read_volatile(p as *const u32);
            a.local = [word(l), word(l + 4), word(l + 8), word(l + 12)];
            a.remote = [word(r), word(r + 4), word(r + 8), word(r + 12)];
        }
    }
}

#[map]
static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(counter::COUNT, 0);

/// Adds to a counter of [`counter`].
#[inline(always)]
pub fn count(index: u32, by: u64) {
    if let Some(p) = COUNTERS.get_ptr_mut(index) {
        // SAFETY: a value of this CPU's; an interrupt between load and store can lose a count, no more.
        unsafe { *p += by };
    }
}
