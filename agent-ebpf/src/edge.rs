//! The two programs at the root of cgroup v2: every TCP segment with payload, where it leaves or reaches its
//! socket. They never change or drop anything.

use agent_ebpf::{Address, Data, Header, counter, direction, flag, kind, protocol, stop};
use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_tcp_sock},
    macros::cgroup_skb,
    programs::SkBuffContext,
};

use crate::{
    bind,
    copy::{announce, send},
    kernel::{NET_INUM, SOCK_NET, count, locked_by_user, member, tcp_sock},
    packet::{Segment, segment},
    shape::{LOOK, judge},
    socket::{Socket, adopt, learn, settings, stopped, storage, tunnel},
};

/// `BPF_TCP_LISTEN`
const LISTEN: u32 = 10;
/// Handshake bytes copied of each direction: enough for hellos with post-quantum key shares.
const HANDSHAKE: u32 = 4096;
/// Loopback has interface index 1 in every network namespace.
const LOOPBACK: u32 = 1;
/// A connection older than the agent is judged at this many segments before it counts as something else.
const TRIES: u8 = 64;

/// Sent segments.
#[cgroup_skb(egress)]
pub fn edge_out(ctx: SkBuffContext) -> i32 {
    unsafe { edge(ctx.skb.skb, direction::OUT) };
    1
}

/// Received segments.
#[cgroup_skb(ingress)]
pub fn edge_in(ctx: SkBuffContext) -> i32 {
    unsafe { edge(ctx.skb.skb, direction::IN) };
    1
}

/// Addresses from the packet: at a listener the socket has none.
#[inline(always)]
unsafe fn packet_address(skb: *mut __sk_buff, g: &Segment, a: &mut Address) {
    unsafe {
        let mut ports = [0u16; 2];
        bpf_skb_load_bytes(skb.cast(), g.ip_len, ports.as_mut_ptr().cast(), 4);
        a.local_port = u16::from_be(ports[1]);
        a.remote_port = u16::from_be(ports[0]);
        if g.version == 6 {
            bpf_skb_load_bytes(skb.cast(), 8, a.remote.as_mut_ptr().cast(), 16);
            bpf_skb_load_bytes(skb.cast(), 24, a.local.as_mut_ptr().cast(), 16);
        } else {
            a.local[2] = 0xffff_u32.to_be();
            a.remote[2] = 0xffff_u32.to_be();
            bpf_skb_load_bytes(skb.cast(), 12, (&raw mut a.remote[3]).cast(), 4);
            bpf_skb_load_bytes(skb.cast(), 16, (&raw mut a.local[3]).cast(), 4);
        }
    }
}

/// Data in the ACK that ends the handshake: the connection has no socket of its own yet. On loopback the
/// sender's side has it.
#[inline(always)]
unsafe fn listener(skb: *mut __sk_buff, sk: *mut aya_ebpf::bindings::bpf_sock, g: &Segment) {
    count(counter::LISTENER, 1);
    let tcp = tcp_sock(sk);
    if tcp == 0 {
        return;
    }
    unsafe {
        let mut d = describe(skb, direction::IN, g, bpf_get_socket_cookie(skb.cast()));
        d.header.flags = flag::LISTENER;
        packet_address(skb, g, &mut d.address);
        let net: u64 = member(tcp, &SOCK_NET);
        d.address.netns = member(net, &NET_INUM);
        send(skb, &d, g.at, g.len);
    }
}

#[inline(always)]
unsafe fn describe(skb: *mut __sk_buff, direction: u8, g: &Segment, cookie: u64) -> Data {
    Data {
        header: Header {
            kind: kind::DATA,
            direction,
            protocol: 0,
            flags: 0,
            len: 0,
            time: unsafe { bpf_ktime_get_ns() },
            cookie,
        },
        address: Address { local: [0; 4], remote: [0; 4], local_port: 0, remote_port: 0, netns: 0 },
        owner: 0,
        seq: g.seq,
        base: 0,
        lost: 0,
        confirmed: 0,
        ifindex: unsafe { (*skb).ifindex },
    }
}

/// Judges a connection that is not judged yet; false when there is nothing to copy.
#[inline(always)]
unsafe fn look(skb: *mut __sk_buff, s: &mut Socket, g: &Segment, direction: u8) -> bool {
    unsafe {
        let fresh = s.flags & flag::FRESH != 0;
        let mut have = s.head_len;
        if have > 0 && s.head_direction != direction {
            // The other end speaks while the first one's beginning is not judged: user space sorts it out.
            return true;
        }
        if !fresh || have as usize >= LOOK {
            have = 0;
        }
        let at = have as usize & (LOOK - 1);
        let want = if g.len > LOOK as u32 { LOOK as u32 } else { g.len };
        let n = (core::ptr::read_volatile(&want).wrapping_sub(1) & (LOOK as u32 - 1)) + 1;
        if bpf_skb_load_bytes(skb.cast(), g.at, s.head.as_mut_ptr().add(at).cast(), n) != 0 {
            count(counter::LOAD_FAILED, 1);
            return false;
        }
        let have = at as u32 + n;
        s.head_len = have;
        s.head_direction = direction;
        if fresh && at == 0 && g.seq != s.base[direction as usize & 1] {
            // Not the first bytes: those met the listener, or this segment has overtaken them. They are judged
            // when they come, or the answer is; user space puts them in order.
            s.head_len = 0;
            return true;
        }
        // Through memory: the verifier would follow each of the judge's paths to the end of the program.
        core::ptr::write_volatile(&raw mut s.verdict, judge(&s.head, have));
        let v = core::ptr::read_volatile(&raw const s.verdict);
        if v == protocol::OTHER {
            s.head_len = 0;
            s.tries += 1;
            if fresh || s.tries > TRIES {
                s.protocol = protocol::OTHER;
            }
            return false;
        }
        if v == protocol::UNKNOWN && !fresh {
            // A few bytes in the middle of a stream: they say nothing.
            s.head_len = 0;
            return false;
        }
        s.protocol = v;
        let connect = s.head[0] == b'C' && s.head[3] == b'N' && s.head[7] == b' ';
        let proxied = (s.head[0] == b'P' && s.head[3] == b'X') || s.head[0] == b'\r';
        if v == protocol::HTTP1 && (connect || proxied) {
            s.tunnel = tunnel::MAYBE;
        }
        true
    }
}

/// Whether TLS begins with this segment in a socket that began with CONNECT: a handshake record with a client's
/// hello (RFC 8446 sections 4 and 5.1).
#[inline(always)]
unsafe fn hello(skb: *mut __sk_buff, g: &Segment) -> bool {
    let mut b = [0u8; 8];
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), g.at, b.as_mut_ptr().cast(), 6) };
    failed == 0 && b[0] == 0x16 && b[1] == 3 && b[2] <= 4 && b[5] == 1
}

/// Type of a record of application data.
const APPLICATION_DATA: u8 = 0x17;
const NO_RECORD: u8 = 0;

/// Type of the TLS record that the segment begins with.
#[inline(always)]
unsafe fn record(skb: *mut __sk_buff, g: &Segment) -> u8 {
    let mut b = [0u8; 8];
    let failed = unsafe { bpf_skb_load_bytes(skb.cast(), g.at, b.as_mut_ptr().cast(), 5) };
    if failed == 0 && b[0] >= 0x14 && b[0] <= 0x17 && b[1] == 3 && b[2] <= 4 && b[3] <= 0x48 { b[0] } else { NO_RECORD }
}

#[inline(always)]
unsafe fn edge(skb: *mut __sk_buff, direction: u8) {
    unsafe {
        let Some(g) = segment(skb) else { return };
        let sk = (*skb).__bindgen_anon_2.sk;
        if sk.is_null() {
            return;
        }
        count(counter::SEGMENTS, 1);
        let loopback = (*skb).ifindex == LOOPBACK;
        if (*sk).state == LISTEN {
            if !loopback {
                listener(skb, sk, &g);
            }
            return;
        }
        let s = storage(sk, true);
        if s.is_null() {
            count(counter::NO_STORAGE, 1);
            return;
        }
        let s = &mut *s;
        let d = direction as usize & 1;
        s.bytes[d] += g.len as u64;
        s.segments[d] += 1;
        // Received again? Kept up in any case, so that it holds when it is needed.
        let mut again = false;
        if direction == direction::IN {
            let end = g.seq.wrapping_add(g.len);
            again = s.segments[1] != 1 && (end.wrapping_sub(s.received) as i32) <= 0;
            if !again {
                s.received = end;
            }
        }
        if s.protocol == protocol::OTHER {
            return;
        }
        if s.known == 0 {
            let tcp = tcp_sock(sk);
            if tcp == 0 {
                return;
            }
            learn(s, tcp, || bpf_get_socket_cookie(skb.cast()));
        }
        // The sender of the first data is nearly always the owner; a socket that is handed on is found at
        // each 64th segment.
        if direction == direction::OUT && (s.owner == 0 || s.segments[0] & 63 == 1) {
            let tcp = tcp_sock(sk);
            if tcp == 0 {
                return;
            }
            adopt(s, tcp);
            if s.protocol == protocol::OTHER {
                return;
            }
        }
        let Some(settings) = settings() else { return };
        match stopped(s, settings) {
            stop::ALL => {
                s.protocol = protocol::OTHER;
                return;
            }
            stop::TUNNEL if s.protocol != protocol::TLS => s.tunnel = tunnel::ONLY,
            _ => {}
        }
        if s.protocol == protocol::UNKNOWN && !look(skb, s, &g, direction) {
            return;
        }
        if s.tunnel != tunnel::NO && s.protocol == protocol::HTTP1 {
            if hello(skb, &g) {
                s.tunnel = tunnel::NO;
                s.protocol = protocol::TLS;
                bind::begin(&mut s.binding);
            } else if s.tunnel == tunnel::ONLY {
                return;
            }
        }
        let mut todo = g.len;
        let mut kind = kind::DATA;
        let mut flags = s.flags & (flag::FRESH | flag::ACCEPTED);
        match s.protocol {
            protocol::TLS => {
                if direction == direction::OUT {
                    if !bind::settled(&s.binding) {
                        bind::seek(skb, sk, s, &g);
                    } else if s.segments[0] & 63 == 1 {
                        bind::refresh(s);
                    }
                }
                let have = s.handshake[d];
                if have >= HANDSHAKE {
                    count(counter::CIPHERTEXT, 1);
                    return;
                }
                let record = record(skb, &g);
                if record == APPLICATION_DATA || (have == 0 && record == NO_RECORD && s.flags & flag::FRESH == 0) {
                    // The hellos are over, or were before the agent.
                    s.handshake[d] = HANDSHAKE;
                    count(counter::CIPHERTEXT, 1);
                    return;
                }
                kind = kind::HANDSHAKE;
                if todo > HANDSHAKE {
                    todo = HANDSHAKE;
                }
                s.handshake[d] = have + todo;
            }
            protocol::HTTP2 => {
                count(counter::HTTP2, 1);
                return;
            }
            protocol::OTHER => return,
            _ => {
                // Bytes of one direction while the other is silent are bounded: so are bodies, without
                // parsing here.
                s.run[1 - d] = 0;
                let run = s.run[d];
                // On loopback the sender's side counts.
                let counted = !loopback || direction == direction::OUT;
                if run >= settings.cap {
                    if counted {
                        count(counter::CAPPED_BYTES, todo as u64);
                    }
                    return;
                }
                let left = settings.cap - run;
                if todo >= left {
                    if todo > left && counted {
                        count(counter::CAPPED_BYTES, (todo - left) as u64);
                    }
                    todo = left;
                    flags |= flag::CAPPED;
                }
                s.run[d] = run + todo;
            }
        }
        if settings.copy == 0 {
            return;
        }
        if loopback {
            flags |= flag::LOOPBACK;
            // The sender's side is copied; user space knows that both sockets are here.
            if direction == direction::IN {
                if s.flags & (flag::FRESH | flag::ANNOUNCE) == 0 {
                    s.flags |= flag::ANNOUNCE;
                    let mut r = describe(skb, direction, &g, s.cookie);
                    r.header.protocol = s.protocol;
                    r.header.flags = flags | flag::ANNOUNCE;
                    r.address = s.address;
                    r.owner = s.owner;
                    announce(&r);
                }
                return;
            }
        }
        let mut r = describe(skb, direction, &g, s.cookie);
        r.header.kind = kind;
        r.header.protocol = s.protocol;
        r.header.flags = flags;
        r.address = s.address;
        r.owner = s.owner;
        r.base = s.base[d];
        r.lost = s.lost[d];
        // On loopback nothing is refused, and only the sender's side is copied.
        if !loopback {
            let t = bpf_tcp_sock(sk);
            if !t.is_null() {
                r.confirmed = (*t).rcv_nxt;
            }
            if again {
                let tcp = tcp_sock(sk);
                if tcp != 0 && !locked_by_user(tcp) {
                    r.header.flags |= flag::SETTLED;
                }
            }
        }
        let lost = send(skb, &r, g.at, todo);
        if lost != 0 {
            s.lost[d] = s.lost[d].wrapping_add(lost);
        }
    }
}
