//! A connection's ends.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use agent_ebpf::{Address, flag, protocol};

use super::tls::Facts;
use crate::http::Side;

/// Names a pair of addresses in one network namespace, whichever end looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    netns: u32,
    low: ([u32; 4], u16),
    high: ([u32; 4], u16),
}

/// Which end of a [`Key`] a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The one with the lower address.
    Low,
    /// The other.
    High,
}

impl Key {
    /// The key of a socket's addresses, and where the socket stands in it.
    #[must_use]
    pub fn of(a: &Address) -> (Key, Place) {
        let local = (a.local, a.local_port);
        let remote = (a.remote, a.remote_port);
        if local <= remote {
            (Key { netns: a.netns, low: local, high: remote }, Place::Low)
        } else {
            (Key { netns: a.netns, low: remote, high: local }, Place::High)
        }
    }

    /// A number for spreading connections over workers: equal for both ends.
    #[must_use]
    pub fn spread(&self) -> u64 {
        let mut h = u64::from(self.netns);
        let words = self.low.0.iter().chain(&self.high.0).copied();
        for w in words.chain([u32::from(self.low.1) << 16 | u32::from(self.high.1)]) {
            h = (h ^ u64::from(w)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            h ^= h >> 29;
        }
        h
    }
}

/// The socket address of one end of a kernel record.
#[must_use]
pub fn socket_address(words: [u32; 4], port: u16) -> SocketAddr {
    let mut b = [0; 16];
    for (chunk, w) in b.chunks_exact_mut(4).zip(words) {
        chunk.copy_from_slice(&w.to_ne_bytes());
    }
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(b)).to_canonical(), port)
}

/// One end that is a socket of this host.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Socket cookie.
    pub cookie: u64,
    /// Its identifier in objects and events.
    pub id: String,
    /// Owning process, 0 when not known.
    pub pid: u32,
    /// Its start in nanoseconds since boot.
    pub start_ns: Option<u64>,
    /// Its parent, when the kernel said so.
    pub parent: Option<u32>,
    /// Was accepted (true) or connected (false); `None` for sockets older than the agent.
    pub accepted: Option<bool>,
    /// Payload bytes sent and received.
    pub bytes: [u64; 2],
    /// Exchanges handed on.
    pub exchanges: u64,
    /// Reports made.
    pub part: u32,
    /// Has closed.
    pub closed: bool,
    /// The TLS library of its process, when that is read.
    pub library: Option<Library>,
    /// Was counted as a connection with TLS that is not read.
    pub unread_counted: bool,
}

/// What is known of the TLS library behind an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Library {
    /// One of [`agent_ebpf::evidence`].
    pub evidence: u32,
    /// Its plaintext was read.
    pub read: bool,
    /// There was HTTP/1 in it.
    pub http1: bool,
}

/// A connection between two addresses in one network namespace.
#[derive(Clone, Debug)]
pub struct Connection {
    /// Address of each side: A is the end that was seen first.
    pub address: [SocketAddr; 2],
    /// The sockets of this host at side A and B.
    pub ends: [Option<Endpoint>; 2],
    /// One of [`protocol`].
    pub protocol: u8,
    /// Sequence number of each side's first byte: from the opening, or of the first byte seen.
    pub base: [Option<u32>; 2],
    /// Seen from its opening.
    pub fresh: bool,
    /// Kernel time when it was first seen.
    pub first_ns: u64,
    /// Kernel time when it was last seen.
    pub last_ns: u64,
    /// One end is the agent itself.
    pub own: bool,
    /// No socket: a stream of a TLS object that could not be bound to one.
    pub loose: bool,
    /// What the handshake said.
    pub tls: Option<Box<Facts>>,
}

/// The index of a side.
#[must_use]
pub fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

/// The other side.
#[must_use]
pub fn other(side: Side) -> Side {
    match side {
        Side::A => Side::B,
        Side::B => Side::A,
    }
}

impl Connection {
    /// A connection seen for the first time, from the end whose addresses these are.
    #[must_use]
    pub fn new(address: &Address, time: u64) -> Self {
        Connection {
            address: [
                socket_address(address.local, address.local_port),
                socket_address(address.remote, address.remote_port),
            ],
            ends: [None, None],
            protocol: protocol::UNKNOWN,
            base: [None, None],
            fresh: false,
            first_ns: time,
            last_ns: time,
            own: false,
            loose: false,
            tls: None,
        }
    }

    /// The side that a socket with these addresses is.
    #[must_use]
    pub fn side(&self, address: &Address) -> Side {
        if self.address[0] == socket_address(address.local, address.local_port) { Side::A } else { Side::B }
    }

    /// Whether the socket `cookie` at `side` can be part of this connection: its place is free or its own,
    /// and its first sequence numbers are those of the other end.
    #[must_use]
    pub fn admits(&self, side: Side, cookie: u64, base: Option<[u32; 2]>) -> bool {
        if let Some(end) = &self.ends[index(side)] {
            return end.cookie == cookie;
        }
        match base {
            Some([sent, received]) if self.fresh => {
                let (mine, theirs) = (self.base[index(side)], self.base[index(other(side))]);
                mine.is_none_or(|b| b == sent) && theirs.is_none_or(|b| b == received)
            }
            _ => true,
        }
    }

    /// The end at `side`, made when it is not there yet.
    pub fn end(&mut self, side: Side, cookie: u64, boot_id: &str) -> &mut Endpoint {
        let address = self.address;
        self.ends[index(side)].get_or_insert_with(|| Endpoint {
            cookie,
            id: match cookie {
                // No socket: the addresses are made of the stream's name.
                0 => transaction::id::id(&[boot_id.as_bytes(), format!("{address:?}").as_bytes()]),
                _ => transaction::id::id(&[boot_id.as_bytes(), &cookie.to_le_bytes()]),
            },
            pid: 0,
            start_ns: None,
            parent: None,
            accepted: None,
            bytes: [0; 2],
            exchanges: 0,
            part: 0,
            closed: false,
            library: None,
            unread_counted: false,
        })
    }

    /// Takes over what a record's flags say.
    pub fn take_flags(&mut self, side: Side, flags: u8) {
        if flags & flag::FRESH != 0 {
            self.fresh = true;
            if let Some(end) = &mut self.ends[index(side)] {
                end.accepted = Some(flags & flag::ACCEPTED != 0);
            }
        }
        if flags & flag::OWN != 0 {
            self.own = true;
        }
    }

    /// Every end that is a socket of this host has closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.ends.iter().flatten().all(|e| e.closed) && self.ends.iter().any(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> Address {
        let v4 = |last: u8| [0, 0, 0xffff_u32.to_be(), u32::from_ne_bytes([127, 0, 0, last])];
        Address { local: v4(1), remote: v4(2), local_port: 40000, remote_port: 80, netns: 7 }
    }

    fn mirrored(a: &Address) -> Address {
        Address {
            local: a.remote,
            remote: a.local,
            local_port: a.remote_port,
            remote_port: a.local_port,
            netns: a.netns,
        }
    }

    #[test]
    fn both_ends_have_one_key_and_opposite_places() {
        let one = address();
        let (key, place) = Key::of(&one);
        let (same, opposite) = Key::of(&mirrored(&one));
        assert_eq!(key, same);
        assert_ne!(place, opposite);
        assert_eq!(key.spread(), same.spread());
        assert_ne!(Key::of(&Address { netns: 8, ..one }).0, key);
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        let a = address();
        assert_eq!(socket_address(a.local, a.local_port).to_string(), "127.0.0.1:40000");
    }

    #[test]
    fn a_socket_of_another_generation_is_not_admitted() {
        let a = address();
        let mut c = Connection::new(&a, 0);
        c.end(Side::A, 1, "boot");
        c.take_flags(Side::A, flag::FRESH);
        c.base = [Some(100), Some(200)];
        assert!(c.admits(Side::A, 1, Some([100, 200])));
        assert!(!c.admits(Side::A, 2, Some([100, 200])));
        assert!(c.admits(Side::B, 3, Some([200, 100])));
        assert!(!c.admits(Side::B, 3, Some([900, 100])));
    }
}
