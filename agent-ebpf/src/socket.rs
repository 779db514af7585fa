//! A socket's own state, kept in socket storage: it lives and goes with the socket, and needs no key.

use core::ptr;

use agent_ebpf::{Address, Connection, Header, Settings, counter, flag, kind, stop};
use aya_ebpf::{
    bindings::BPF_SK_STORAGE_GET_F_CREATE,
    btf_maps::SkStorage,
    helpers::generated::{bpf_ktime_get_ns, bpf_sk_storage_get},
    macros::{btf_map, map},
    maps::{Array, LruHashMap, RingBuf},
};

use crate::{
    bind::Binding,
    kernel::{self, SELF, TCP_RCV_NXT, TCP_SND_NXT, Task, address, count, global, member},
    shape::LOOK,
};

/// State of one socket. Index 0 of the pairs is sent, 1 received.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Socket {
    pub address: Address,
    pub owner: u32,
    pub owner_thread: u32,
    pub owner_start: u64,
    pub owner_parent: u32,
    pub bytes: [u64; 2],
    pub segments: [u32; 2],
    pub base: [u32; 2],
    pub lost: [u32; 2],
    /// Bytes since the other direction last had some.
    pub run: [u32; 2],
    /// End of the highest segment received so far.
    pub received: u32,
    /// Handshake bytes copied.
    pub handshake: [u32; 2],
    /// First bytes of the direction that spoke first, until they are judged.
    pub head: [u8; LOOK * 2],
    pub head_len: u32,
    pub head_direction: u8,
    pub protocol: u8,
    /// Bits of [`flag`]: `FRESH`, `OWN`, `ACCEPTED`, `ANNOUNCE` (done).
    pub flags: u8,
    /// Segments of a connection older than the agent that were judged in vain.
    pub tries: u8,
    pub stop_generation: u32,
    /// Address and cookie are filled in.
    pub known: u32,
    pub cookie: u64,
    /// The TLS object behind it.
    pub binding: Binding,
    /// `tunnel::MAYBE`: begins with a CONNECT request or a PROXY head, TLS may follow. `tunnel::ONLY`: it is of
    /// interest only for that.
    pub tunnel: u32,
    /// The last judgement.
    pub verdict: u8,
    pub pad: [u8; 3],
}

/// Values of [`Socket::tunnel`].
pub mod tunnel {
    pub const NO: u32 = 0;
    pub const MAYBE: u32 = 1;
    pub const ONLY: u32 = 2;
}

#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();
/// Opened, owner, closed, exec. The loader may change the size.
#[map]
pub static CONTROL: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
/// Cookies of connections that user space wants no more bytes of.
#[map]
static STOPS: LruHashMap<u64, u32> = LruHashMap::with_max_entries(65536, 0);

/// `BPF_RB_NO_WAKEUP`: the reader comes by itself; a wake-up a record would cost more than the record.
pub const NO_WAKEUP: u64 = 1;

/// The socket's state; null when there is none (or no memory). `sk` is a context's socket or a
/// tracepoint's argument.
#[inline(always)]
pub unsafe fn storage<T>(sk: *mut T, create: bool) -> *mut Socket {
    unsafe {
        bpf_sk_storage_get(
            (&raw const SOCKETS).cast_mut().cast(),
            sk.cast(),
            ptr::null_mut(),
            if create { BPF_SK_STORAGE_GET_F_CREATE as u64 } else { 0 },
        )
        .cast()
    }
}

#[inline(always)]
pub fn settings() -> Option<&'static Settings> {
    SETTINGS.get(0)
}

/// What user space asks of this connection: one of [`agent_ebpf::stop`]. The map is looked into only after
/// something was added to it.
#[inline(always)]
pub fn stopped(s: &mut Socket, settings: &Settings) -> u32 {
    stopping(&mut s.stop_generation, s.cookie, settings)
}

/// The same for whatever keeps a `generation` of its own.
#[inline(always)]
pub fn stopping(generation: &mut u32, cookie: u64, settings: &Settings) -> u32 {
    if *generation == settings.stop_generation {
        return stop::NONE;
    }
    *generation = settings.stop_generation;
    // SAFETY: copied at once.
    unsafe { STOPS.get(&cookie).copied() }.unwrap_or(stop::NONE)
}

/// Fills in what the socket itself says, once; `cookie` gives its cookie.
#[inline(always)]
pub unsafe fn learn(s: &mut Socket, tcp: u64, cookie: impl FnOnce() -> u64) {
    if s.known == 0 {
        unsafe { address(tcp, &mut s.address) };
        s.cookie = cookie();
        s.known = 1;
    }
}

/// Sets the owner; true when it is another process than before.
#[inline(always)]
pub fn own(s: &mut Socket, task: Task) -> bool {
    s.owner_thread = task.thread;
    if s.owner == task.pid && s.owner_start == task.start {
        return false;
    }
    s.owner = task.pid;
    s.owner_start = task.start;
    s.owner_parent = task.parent;
    if task.pid == global(&SELF) {
        s.flags |= flag::OWN;
        s.protocol = agent_ebpf::protocol::OTHER;
    }
    true
}

/// Hands a connection's state to user space.
#[inline(always)]
pub unsafe fn report(kind: u8, direction: u8, s: &Socket, tcp: u64) {
    let Some(mut e) = CONTROL.reserve::<Connection>(0) else {
        count(counter::CONTROL_FULL, 1);
        return;
    };
    unsafe {
        let c = e.as_mut_ptr();
        (*c).header = Header {
            kind,
            direction,
            protocol: s.protocol,
            flags: s.flags,
            len: 0,
            time: bpf_ktime_get_ns(),
            cookie: s.cookie,
        };
        (*c).address = s.address;
        (*c).owner = s.owner;
        (*c).owner_thread = s.owner_thread;
        (*c).owner_start = s.owner_start;
        (*c).bytes = s.bytes;
        (*c).segments = s.segments;
        (*c).base = s.base;
        (*c).lost = s.lost;
        (*c).confirmed = if kind == kind::OWNER { 0 } else { member(tcp, &TCP_RCV_NXT) };
        (*c).sent = if kind == kind::OWNER { 0 } else { member(tcp, &TCP_SND_NXT) };
        (*c).pad = 0;
        (*c).owner_parent = s.owner_parent;
    }
    e.submit(NO_WAKEUP);
}

/// Judges whether the current task is the socket's user, and if so makes it the owner and says so.
#[inline(always)]
pub unsafe fn adopt(s: &mut Socket, tcp: u64) {
    if kernel::locked_by_user(tcp) && own(s, kernel::current()) {
        unsafe { report(kind::OWNER, 0, s, tcp) };
    }
}
