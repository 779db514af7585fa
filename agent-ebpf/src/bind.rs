//! Which TLS object writes to a socket: decided where the socket's records leave, by evidence in this order.
//!
//! 1. A handshake record leaves right after a TLS call of the same thread.
//! 2. A record leaves whose length fits the last write of the same thread.
//! 3. The object was given the socket's descriptor.
//!
//! Only segments that leave while a process holds the socket's lock count: then the current thread is the sender.
//! Record lengths that speak twice in a row for another object take a binding back.

use core::ffi::c_void;

use agent_ebpf::{counter, evidence, kind};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_ktime_get_ns, bpf_loop, bpf_skb_load_bytes},
};

use crate::{
    kernel::{count, current, locked_by_user, tcp_sock},
    packet::Segment,
    socket::Socket,
    stream::{self, Key, Thread},
};

/// Data records looked at before the search ends, and the checking of what was found.
const LOOKED: u8 = 64;
/// Records of one segment that are looked at.
const RECORDS: u32 = 8;
/// A handshake record belongs to a TLS call that is at most this old, nanoseconds: memory buffers are sent at once,
/// on a busy machine a little later.
const RECENT: u64 = 1_000_000_000;
/// Largest record of plaintext, and with what encryption may add (RFC 8446 section 5.2, RFC 5246 section 6.2.3).
const PLAIN: u64 = 16384;
const LONGEST: u32 = 16384 + 2048;

/// What a socket knows of its TLS object.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Binding {
    pub object: u64,
    pub pid: u32,
    /// Sequence number of the next record's head, when `begun`.
    next: u32,
    pub evidence: u8,
    begun: u8,
    /// Data records looked at.
    looked: u8,
    /// Of them, in a row, those that spoke for another object.
    against: u8,
    /// User space has been told.
    told: u8,
    pad: [u8; 3],
}

/// Whether a record of `len` bytes can hold `written` bytes of plaintext: with GCM and ChaCha20 of TLS 1.3 (+17),
/// GCM and CCM (+24), ChaCha20 and CCM_8 (+16) of TLS 1.2, CCM_8 of 1.3 (+9); or with CBC, a vector of 16 bytes,
/// padding to 16 and a MAC of 20, 32 or 48 bytes, inside or outside of the padding (RFC 7366).
#[inline(always)]
fn fits(len: u32, written: u64) -> bool {
    let n = if written > PLAIN { PLAIN as u32 } else { written as u32 };
    let over = len.wrapping_sub(n);
    if over == 17 || over == 24 || over == 16 || over == 9 {
        return true;
    }
    // At most vector, MAC and 16 bytes of padding.
    if over > 16 + 48 + 16 {
        return false;
    }
    if len & 15 == 0 {
        // over = 16 + MAC + padding of 1 to 16
        over.wrapping_sub(16 + 20 + 1) < 16
            || over.wrapping_sub(16 + 32 + 1) < 16
            || over.wrapping_sub(16 + 48 + 1) < 16
    } else {
        let outside = |mac: u32| len.wrapping_sub(mac) & 15 == 0 && over.wrapping_sub(16 + mac + 1) < 16;
        outside(20) || outside(32) || outside(48)
    }
}

/// Begins anew: the socket's TLS begins at the next segment sent.
#[inline(always)]
pub fn begin(b: &mut Binding) {
    b.begun = 0;
    b.evidence = evidence::NONE as u8;
    b.looked = 0;
    b.against = 0;
    b.told = 0;
}

/// The socket has closed: how much its object has moved is said, and its next handshake is for another socket.
#[inline(always)]
pub unsafe fn close(b: &Binding, cookie: u64) {
    let key = Key::new(b.pid, b.object);
    if b.evidence != evidence::NONE as u8
        && let Some(o) = stream::stream(key)
    {
        unsafe {
            if (*o).cookie == cookie {
                stream::report(kind::FREE, key, &*o);
                (*o).flags |= stream::FREED;
            }
        }
    }
}

/// Looks for the object again when it has forgotten the socket.
#[inline(always)]
pub fn refresh(s: &mut Socket) {
    if s.binding.evidence != evidence::NONE as u8 && !holds(s) {
        begin(&mut s.binding);
    }
}

/// Whether there is nothing left to find out.
#[inline(always)]
pub fn settled(b: &Binding) -> bool {
    b.looked >= LOOKED && (b.told != 0 || b.evidence == evidence::NONE as u8)
}

/// Takes `object` as the socket's.
#[inline(always)]
unsafe fn take(s: &mut Socket, pid: u32, object: u64, why: u32) {
    let key = Key::new(pid, object);
    let Some(o) = stream::make_stream(key, why == evidence::HANDSHAKE) else { return };
    unsafe {
        if !stream::join(&mut *o, why, s.cookie, &s.address) {
            return;
        }
        if s.binding.evidence != evidence::NONE as u8 && (s.binding.object != object || s.binding.pid != pid) {
            let before = Key::new(s.binding.pid, s.binding.object);
            if let Some(o) = stream::stream(before)
                && (*o).cookie == s.cookie
            {
                stream::part(before, &mut *o);
            }
        }
    }
    s.binding.object = object;
    s.binding.pid = pid;
    s.binding.evidence = why as u8;
    s.binding.told = 0;
    s.binding.against = 0;
}

/// Tells user space, again and again until the ring has room.
#[inline(always)]
pub unsafe fn tell(s: &mut Socket) {
    if s.binding.evidence == evidence::NONE as u8 || s.binding.told != 0 {
        return;
    }
    let key = Key::new(s.binding.pid, s.binding.object);
    if let Some(o) = stream::stream(key) {
        unsafe {
            if (*o).cookie != s.cookie || stream::report(kind::BIND, key, &*o) {
                s.binding.told = 1;
            }
        }
    }
}

/// A handshake record leaves.
#[inline(always)]
unsafe fn handshake(s: &mut Socket, pid: u32, t: &Thread, now: u64) {
    if t.last == 0 || now.wrapping_sub(t.time) >= RECENT {
        return;
    }
    if s.binding.evidence != evidence::HANDSHAKE as u8 || (s.binding.object == t.last && !holds(s)) {
        unsafe { take(s, pid, t.last, evidence::HANDSHAKE) };
    }
}

/// Whether the object that the socket is bound to knows of it: it may have been begun anew, or forgotten.
#[inline(always)]
fn holds(s: &Socket) -> bool {
    match stream::stream(Key::new(s.binding.pid, s.binding.object)) {
        // SAFETY: an entry of the map.
        Some(o) => unsafe { (*o).cookie == s.cookie },
        None => false,
    }
}

/// A record of application data leaves.
#[inline(always)]
unsafe fn data(s: &mut Socket, pid: u32, t: &Thread, len: u32) {
    if t.wrote == 0 || !fits(len, t.length) {
        s.binding.against = 0;
        return;
    }
    unsafe {
        if s.binding.evidence == evidence::NONE as u8 {
            take(s, pid, t.wrote, evidence::RECORD);
        } else if s.binding.object == t.wrote && s.binding.pid == pid {
            s.binding.against = 0;
            if !holds(s) {
                take(s, pid, t.wrote, evidence::RECORD);
            }
        } else {
            // The thread's last write was to another object. Where that has its own socket, or the socket's own
            // object has written as much, this says nothing.
            if let Some(o) = stream::stream(Key::new(pid, t.wrote))
                && (*o).cookie != 0
            {
                s.binding.against = 0;
                return;
            }
            let key = Key::new(s.binding.pid, s.binding.object);
            if let Some(o) = stream::stream(key) {
                if (*o).cookie == s.cookie && fits(len, (*o).wrote) {
                    s.binding.against = 0;
                    return;
                }
                s.binding.against += 1;
                // A child that goes on where its parent has only shaken hands need not say it twice.
                let child = s.binding.object == t.wrote && s.binding.pid != pid && stream::untouched(&*o);
                if s.binding.against < 2 && !child {
                    return;
                }
                if (*o).cookie == s.cookie {
                    stream::part(key, &mut *o);
                }
                s.binding.evidence = evidence::NONE as u8;
                take(s, pid, t.wrote, evidence::RECORD);
                if child && let Some(o) = stream::stream(Key::new(pid, t.wrote)) {
                    stream::from_its_start(&mut *o);
                }
                return;
            }
            s.binding.evidence = evidence::NONE as u8;
            take(s, pid, t.wrote, evidence::RECORD);
        }
    }
}

/// What the loop over a segment's records reads. It changes nothing in it (what changes is in the socket's storage),
/// so the verifier is done after one round.
#[repr(C)]
struct Walk {
    skb: *mut __sk_buff,
    socket: *mut Socket,
    /// The sender's, when the sender is known and has used a library.
    thread: *mut Thread,
    now: u64,
    pid: u32,
    /// Of the segment: sequence number, offset in the packet, length.
    seq: u32,
    at: u32,
    len: u32,
}

extern "C" fn record(_: u32, walk: *mut Walk) -> i64 {
    // SAFETY: the loop hands over the pointer that seek() gave it.
    unsafe {
        let w = &*walk;
        let s = &mut *w.socket;
        let at = s.binding.next.wrapping_sub(w.seq);
        if at >= w.len {
            return 1;
        }
        let mut head = [0u8; 8];
        if bpf_skb_load_bytes(w.skb.cast(), w.at + at, head.as_mut_ptr().cast(), 5) != 0 {
            return 1;
        }
        let len = (head[3] as u32) << 8 | head[4] as u32;
        if head[1] != 3 || head[0] < 0x14 || head[0] > 0x17 || len > LONGEST {
            // Not at a head.
            s.binding.begun = 0;
            return 1;
        }
        s.binding.next = s.binding.next.wrapping_add(5 + len);
        if head[0] == 0x17 {
            if s.binding.looked < LOOKED {
                s.binding.looked += 1;
                if s.binding.looked == LOOKED && s.binding.evidence == evidence::NONE as u8 {
                    count(counter::SEARCH_ENDED, 1);
                }
            }
            if !w.thread.is_null() {
                data(s, w.pid, &*w.thread, len);
            }
        } else if head[0] != 0x15 && !w.thread.is_null() {
            handshake(s, w.pid, &*w.thread, w.now);
        }
        0
    }
}

/// Looks at the records of a segment that leaves a socket with TLS.
///
/// # Safety
/// `skb` is the context of the running program, `sk` its socket.
#[inline(always)]
pub unsafe fn seek(skb: *mut __sk_buff, sk: *mut aya_ebpf::bindings::bpf_sock, s: &mut Socket, g: &Segment) {
    unsafe {
        let ahead = s.binding.next.wrapping_sub(g.seq);
        if s.binding.begun == 0 || (ahead as i32) < 0 {
            // The first; or sent again; or the heads were lost track of, then they begin with a segment sooner or
            // later.
            s.binding.begun = 1;
            s.binding.next = g.seq;
        } else if ahead >= g.len {
            return;
        }
        let tcp = tcp_sock(sk);
        if tcp == 0 {
            return;
        }
        let task = current();
        let id = (task.pid as u64) << 32 | task.thread as u64;
        let locked = locked_by_user(tcp);
        let mut thread = core::ptr::null_mut();
        if locked
            && let Some(t) = stream::thread(id)
            && (*t).start == task.start
        {
            thread = t;
        }
        let mut walk =
            Walk { skb, socket: s, thread, now: bpf_ktime_get_ns(), pid: task.pid, seq: g.seq, at: g.at, len: g.len };
        bpf_loop(RECORDS, record as *mut c_void, (&raw mut walk).cast(), 0);
        if locked
            && s.binding.evidence == evidence::NONE as u8
            && let Some(key) = stream::described(s.cookie)
            && key.pid == task.pid
        {
            take(s, key.pid, key.object, evidence::DESCRIPTOR);
        }
        tell(s);
    }
}
