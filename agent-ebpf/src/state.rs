//! Connections opening and closing, and the first reader of a socket.

use core::ffi::c_void;

use agent_ebpf::{counter, direction, flag, kind, protocol};
use aya_ebpf::{helpers::generated::bpf_get_socket_cookie, macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    bind,
    kernel::{TCP_RCV_NXT, TCP_SND_NXT, count, current, locked_by_user, member, tcp_sock},
    socket::{learn, own, report, storage},
};

const ESTABLISHED: i32 = 1;
const SYN_SENT: i32 = 2;
const SYN_RECV: i32 = 3;
/// Our FIN was acknowledged: everything sent has arrived.
const FIN_WAIT2: i32 = 5;
const CLOSE: i32 = 7;
/// The peer's FIN has come, and all data before it.
const CLOSE_WAIT: i32 = 8;

/// `tp_btf/inet_sock_set_state(sk, old, new)` (Linux 4.16).
#[btf_tracepoint(function = "inet_sock_set_state")]
pub fn state(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    if new != ESTABLISHED && new != SYN_SENT && new != CLOSE && new != FIN_WAIT2 && new != CLOSE_WAIT {
        return 0;
    }
    let sk = sk.cast_mut();
    unsafe {
        let tcp = tcp_sock(sk);
        if tcp == 0 {
            return 0;
        }
        if new == CLOSE {
            let s = storage(sk, false);
            if !s.is_null() && (*s).known != 0 {
                report(kind::CLOSE, 0, &*s, tcp);
                // A socket that connects again begins anew; only its owner stays.
                let s = &mut *s;
                bind::close(&s.binding, s.cookie);
                s.known = 0;
                s.flags &= flag::OWN;
                if s.flags == 0 {
                    s.protocol = protocol::UNKNOWN;
                }
                s.tries = 0;
                s.head_len = 0;
                s.received = 0;
                s.run = [0; 2];
                s.handshake = [0; 2];
                s.bytes = [0; 2];
                s.segments = [0; 2];
                s.lost = [0; 2];
                s.tunnel = 0;
                bind::begin(&mut s.binding);
            }
            return 0;
        }
        if new == FIN_WAIT2 || new == CLOSE_WAIT {
            let s = storage(sk, false);
            if !s.is_null() && (*s).protocol == protocol::HTTP1 {
                let d = if new == FIN_WAIT2 { direction::OUT } else { direction::IN };
                report(kind::END, d, &*s, tcp);
            }
            return 0;
        }
        let s = storage(sk, true);
        if s.is_null() {
            count(counter::NO_STORAGE, 1);
            return 0;
        }
        let s = &mut *s;
        if new == SYN_SENT {
            // In connect(): the caller is the owner.
            own(s, current());
            // From here on the socket has a cookie: a TLS object may be given its descriptor before it is connected.
            bpf_get_socket_cookie(sk);
            return 0;
        }
        s.flags |= flag::FRESH;
        if old == SYN_RECV {
            s.flags |= flag::ACCEPTED;
        }
        s.base = [member(tcp, &TCP_SND_NXT), member(tcp, &TCP_RCV_NXT)];
        learn(s, tcp, || bpf_get_socket_cookie(sk));
        report(kind::OPEN, 0, s, tcp);
    }
    0
}

/// `tp_btf/tcp_rcv_space_adjust(sk)` (Linux 4.16): in recv(), where the caller is the socket's user. Right
/// for forking servers too, whose parent accepts and whose child reads.
#[btf_tracepoint(function = "tcp_rcv_space_adjust")]
pub fn reader(ctx: BtfTracePointContext) -> i32 {
    let sk: *const c_void = ctx.arg(0);
    let sk = sk.cast_mut();
    unsafe {
        let s = storage(sk, false);
        if s.is_null() || (*s).owner != 0 {
            return 0;
        }
        let tcp = tcp_sock(sk);
        if tcp == 0 || !locked_by_user(tcp) {
            return 0;
        }
        let s = &mut *s;
        learn(s, tcp, || bpf_get_socket_cookie(sk));
        if own(s, current()) {
            report(kind::OWNER, 0, s, tcp);
        }
    }
    0
}
