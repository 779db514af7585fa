//! What is known of TLS objects and of the threads that use them.
//!
//! Filled by the library's probes, read where segments leave their sockets: there an object meets its socket.

use agent_ebpf::{Address, Header, Object, counter, evidence, flag, kind};
use aya_ebpf::{
    helpers::generated::bpf_ktime_get_ns,
    macros::map,
    maps::{HashMap, LruHashMap},
};

use crate::{
    kernel::{count, current},
    shape::LOOK,
    socket::{CONTROL, NO_WAKEUP},
};

/// One call that has begun.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Call {
    pub object: u64,
    pub buffer: u64,
    /// Arguments 3 and 4.
    pub arguments: [u64; 2],
    /// `role::READ`, `role::WRITE`; 0: no call.
    pub operation: u32,
    /// Index of the argument that says where the number of bytes will be stored; 0: it is the result.
    pub out: u32,
    pub time: u64,
    /// Stack pointer: tells the calls of one thread apart.
    pub stack: u64,
}

/// Calls of one thread that may be open at a time: TLS inside TLS, coroutines.
pub const CALLS: usize = 4;
/// A result lies at most this far above its call on the stack, bytes.
const FRAME: u64 = 4096;
/// Stacks are farther apart than this.
const STACK: u64 = 65536;

/// One thread's calls into the library.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Thread {
    pub calls: [Call; CALLS],
    /// Start of the process: thread ids come again.
    pub start: u64,
    /// The object of the last call, and when that was.
    pub last: u64,
    pub time: u64,
    /// The last write: object and length.
    pub wrote: u64,
    pub length: u64,
}

/// Where a call that begins is kept, and the call that was there and whose end will not be seen.
#[inline(always)]
pub fn begin(t: &mut Thread, object: u64, operation: u32, stack: u64) -> (&mut Call, u64) {
    let mut place = CALLS;
    let mut i = 0;
    while i < CALLS {
        let c = &t.calls[i];
        // An object is used by one call at a time, and what lies below the stack's end has returned.
        if c.operation != 0 && ((c.object == object && c.operation == operation) || stack.wrapping_sub(c.stack) < STACK)
        {
            place = i;
            break;
        }
        i += 1;
    }
    if place == CALLS {
        i = 0;
        while i < CALLS {
            if t.calls[i].operation == 0 {
                place = i;
                break;
            }
            i += 1;
        }
    }
    let c = &mut t.calls[place & (CALLS - 1)];
    let gone = if c.operation == 0 { 0 } else { c.object };
    (c, gone)
}

/// The call of this kind that has ended, with the stack pointer as it is now.
#[inline(always)]
pub fn end(t: &mut Thread, operation: u32, stack: u64) -> Option<&Call> {
    let mut place = CALLS;
    let mut least = FRAME;
    let mut i = 0;
    while i < CALLS {
        let c = &t.calls[i];
        let above = stack.wrapping_sub(c.stack);
        if c.operation == operation && above < least {
            least = above;
            place = i;
        }
        i += 1;
    }
    if place == CALLS {
        return None;
    }
    let c = &mut t.calls[place & (CALLS - 1)];
    c.operation = 0;
    Some(c)
}

/// Names a TLS object.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Key {
    pub pid: u32,
    pub pad: u32,
    pub object: u64,
}

impl Key {
    #[inline(always)]
    pub fn new(pid: u32, object: u64) -> Key {
        Key { pid, pad: 0, object }
    }
}

/// The object was freed or cleared, or its socket has closed: the next handshake at this address begins another one.
/// Uses of it before that are its own (it is counted by reference).
pub const FREED: u8 = 1;
/// Seen since its handshake.
pub const FRESH: u8 = 2;

/// One TLS object's two streams. Index 0 of the pairs is written, 1 read.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stream {
    /// Time of its beginning.
    pub generation: u64,
    /// Start of its process: process ids come again.
    pub start: u64,
    pub parent: u32,
    pub evidence: u32,
    pub offset: [u64; 2],
    pub lost: [u32; 2],
    /// Bytes since the other direction last had some.
    pub run: [u32; 2],
    /// Its socket, 0 while not known.
    pub cookie: u64,
    pub address: Address,
    /// Length of its last write.
    pub wrote: u64,
    /// First bytes, until they are judged.
    pub head: [u8; LOOK * 2],
    pub head_len: u32,
    pub head_direction: u8,
    pub protocol: u8,
    /// `FREED`, `FRESH`.
    pub flags: u8,
    pub tries: u8,
    pub stop_generation: u32,
    pub pad: u32,
}

/// Threads that have used a library, until they end. Not one that forgets by itself: bytes of a call that was
/// forgotten would be missing without a trace.
#[map]
static THREADS: HashMap<u64, Thread> = HashMap::with_max_entries(32768, 0);
#[map]
static STREAMS: LruHashMap<Key, Stream> = LruHashMap::with_max_entries(32768, 0);
/// Sockets whose descriptor was given to an object.
#[map]
static DESCRIPTORS: LruHashMap<u64, Key> = LruHashMap::with_max_entries(16384, 0);

const NOWHERE: Address = Address { local: [0; 4], remote: [0; 4], local_port: 0, remote_port: 0, netns: 0 };
const NO_CALL: Call = Call { object: 0, buffer: 0, arguments: [0; 2], operation: 0, out: 0, time: 0, stack: 0 };
static IDLE: Thread = Thread { calls: [NO_CALL; CALLS], start: 0, last: 0, time: 0, wrote: 0, length: 0 };
/// Too large for the stack.
static EMPTY: Stream = Stream {
    generation: 0,
    start: 0,
    parent: 0,
    evidence: evidence::NONE,
    offset: [0; 2],
    lost: [0; 2],
    run: [0; 2],
    cookie: 0,
    address: NOWHERE,
    wrote: 0,
    head: [0; LOOK * 2],
    head_len: 0,
    head_direction: 0,
    protocol: 0,
    flags: 0,
    tries: 0,
    stop_generation: 0,
    pad: 0,
};

/// The thread's state; `id` as `bpf_get_current_pid_tgid` gives it.
#[inline(always)]
pub fn thread(id: u64) -> Option<*mut Thread> {
    THREADS.get_ptr_mut(id)
}

/// The same, made when it is not there.
#[inline(always)]
pub fn make_thread(id: u64) -> Option<*mut Thread> {
    let start = current().start;
    if let Some(t) = THREADS.get_ptr_mut(id)
        && unsafe { (*t).start } == start
    {
        return Some(t);
    }
    let _ = THREADS.insert(id, &IDLE, 0);
    let Some(t) = THREADS.get_ptr_mut(id) else {
        count(counter::NO_STORAGE, 1);
        return None;
    };
    // SAFETY: an entry of the map.
    unsafe { (*t).start = start };
    Some(t)
}

/// The thread has ended.
#[inline(always)]
pub fn forget_thread(id: u64) {
    let _ = THREADS.remove(id);
}

/// The object is gone, and nothing was known of its socket.
#[inline(always)]
pub fn forget(key: Key) {
    let _ = STREAMS.remove(key);
}

/// What the object has moved from here on does not follow what it moved before: some calls were not seen.
#[inline(always)]
pub fn tear(s: &mut Stream) {
    s.generation = unsafe { bpf_ktime_get_ns() };
    s.offset = [0; 2];
    s.lost = [0; 2];
    s.run = [0; 2];
    s.head_len = 0;
    s.protocol = 0;
    s.tries = 0;
    s.flags &= !FRESH;
}

#[inline(always)]
pub fn stream(key: Key) -> Option<*mut Stream> {
    STREAMS.get_ptr_mut(key)
}

/// The object's streams, begun when they are not known, or when the process is another one. To be called in the
/// object's process.
#[inline(always)]
pub fn make_stream(key: Key, fresh: bool) -> Option<*mut Stream> {
    let task = current();
    if let Some(s) = STREAMS.get_ptr_mut(key)
        && unsafe { (*s).start } == task.start
    {
        return Some(s);
    }
    let _ = STREAMS.insert(key, &EMPTY, 0);
    let Some(p) = STREAMS.get_ptr_mut(key) else {
        count(counter::NO_STORAGE, 1);
        return None;
    };
    // SAFETY: an entry of the map; one that is evicted meanwhile stays readable.
    unsafe {
        (*p).generation = bpf_ktime_get_ns();
        (*p).start = task.start;
        (*p).parent = task.parent;
        (*p).flags = if fresh { FRESH } else { 0 };
    }
    Some(p)
}

/// Seen since its handshake, and nothing has moved yet.
#[inline(always)]
pub fn untouched(s: &Stream) -> bool {
    s.flags & FRESH != 0 && s.offset[0] | s.offset[1] == 0
}

/// Nothing was missed of it, if nothing was counted yet.
#[inline(always)]
pub fn from_its_start(s: &mut Stream) {
    if s.offset[0] | s.offset[1] == 0 {
        s.flags |= FRESH;
    }
}

/// Begins another object at the same address.
#[inline(always)]
pub fn renew(s: &mut Stream) {
    s.generation = unsafe { bpf_ktime_get_ns() };
    s.evidence = evidence::NONE;
    s.offset = [0; 2];
    s.lost = [0; 2];
    s.run = [0; 2];
    s.cookie = 0;
    s.address = NOWHERE;
    s.wrote = 0;
    s.head_len = 0;
    s.protocol = 0;
    s.tries = 0;
    s.flags = FRESH;
}

/// Remembers which object was given a socket's descriptor.
#[inline(always)]
pub fn describe(cookie: u64, key: Key) {
    let _ = DESCRIPTORS.insert(cookie, key, 0);
}

/// The object that was given this socket's descriptor.
#[inline(always)]
pub fn described(cookie: u64) -> Option<Key> {
    // SAFETY: copied at once; an entry replaced meanwhile is as good.
    unsafe { DESCRIPTORS.get(cookie).copied() }
}

/// Tells user space what became of an object; false when the ring was full.
#[inline(always)]
pub unsafe fn report(kind: u8, key: Key, s: &Stream) -> bool {
    let Some(mut e) = CONTROL.reserve::<Object>(0) else {
        count(counter::CONTROL_FULL, 1);
        return false;
    };
    unsafe {
        let r = e.as_mut_ptr();
        (*r).header = Header {
            kind,
            direction: 0,
            protocol: s.protocol,
            flags: if s.flags & FRESH != 0 { flag::FRESH } else { 0 },
            len: 0,
            time: bpf_ktime_get_ns(),
            cookie: s.cookie,
        };
        (*r).address = s.address;
        (*r).owner = key.pid;
        (*r).evidence = s.evidence;
        (*r).pad = 0;
        (*r).object = key.object;
        (*r).generation = s.generation;
        (*r).bytes = s.offset;
    }
    e.submit(NO_WAKEUP);
    true
}

/// A socket is the object's: later records carry it. False when the evidence is not enough.
#[inline(always)]
pub unsafe fn join(s: &mut Stream, evidence: u32, cookie: u64, address: &Address) -> bool {
    if evidence == evidence::HANDSHAKE && s.flags & FREED != 0 {
        renew(s);
    } else if s.cookie != 0 && s.cookie != cookie {
        // It has another socket: what is known stays.
        return false;
    }
    if evidence == evidence::HANDSHAKE && s.offset[0] | s.offset[1] == 0 {
        s.flags |= FRESH;
    }
    s.cookie = cookie;
    s.address = *address;
    s.evidence = evidence;
    count(counter::BOUND, 1);
    true
}

/// The socket is not the object's after all.
#[inline(always)]
pub unsafe fn part(key: Key, s: &mut Stream) {
    unsafe { report(kind::UNBIND, key, s) };
    s.cookie = 0;
    s.evidence = evidence::NONE;
    count(counter::UNBOUND, 1);
}
