//! Streams of TLS objects whose socket is not known, on their way to the workers.
//!
//! Workers own connections by address, so plaintext waits here until the kernel side has said whose socket it is:
//! that is nearly always known before the first byte. What waits too long, or is too much, goes on without a socket,
//! under an address made of the object's name.

use std::collections::HashMap;

use agent_ebpf::{Address, Library, Object, kind};

use crate::probe::{
    Record,
    record::{library_bytes, object_bytes},
};

/// How long plaintext waits for its socket, nanoseconds.
const PATIENCE_NS: u64 = 2_000_000_000;
/// How often the streams are gone through for it.
const LOOK_NS: u64 = 100_000_000;
/// A stream without a socket that was silent for so long is forgotten.
const IDLE_NS: u64 = 120_000_000_000;
/// Most bytes that wait, of one stream and of all.
const MOST_OF_ONE: usize = 1 << 20;
const MOST: usize = 16 << 20;
/// Most streams without a socket that are known.
const STREAMS: usize = 16384;

/// Process, object, generation.
type Name = (u32, u64, u64);

#[derive(Default)]
pub(super) struct Loose {
    streams: HashMap<Name, Stream>,
    bytes: usize,
    /// When it was last looked after: waiting is counted from there, not from the records' own times, which may lie
    /// far back when the rings are full.
    now_ns: u64,
    /// When the streams were last gone through.
    looked_ns: u64,
}

#[derive(Default)]
struct Stream {
    waiting: Vec<Vec<u8>>,
    bytes: usize,
    first_ns: u64,
    last_ns: u64,
    /// Goes on without a socket.
    alone: bool,
}

/// The address under which a stream without a socket is known: of no network namespace.
fn alone((pid, object, generation): Name) -> Address {
    Address {
        local: [pid, object as u32, (object >> 32) as u32, 0],
        remote: [generation as u32, (generation >> 32) as u32, 0, 0],
        local_port: 0,
        remote_port: 0,
        netns: 0,
    }
}

impl Loose {
    /// Nothing waits, and no stream is without a socket.
    pub(super) fn is_empty(&self) -> bool {
        self.streams.is_empty()
    }

    /// Takes a record of a TLS library or object and gives on what can go on.
    pub(super) fn take(&mut self, record: &Record<'_>, bytes: &[u8], on: &mut impl FnMut(&[u8])) {
        match record {
            Record::Library(l, _) if l.header.cookie != 0 => {
                if !self.streams.is_empty() {
                    self.bind((l.owner, l.object, l.generation), &l.address, l.header.cookie, l.evidence, on);
                }
                on(bytes);
            }
            Record::Library(l, payload) => self.hold(l, payload, on),
            Record::Object(o) => self.object(o, bytes, on),
            _ => on(bytes),
        }
    }

    fn hold(&mut self, l: &Library, payload: &[u8], on: &mut impl FnMut(&[u8])) {
        let name = (l.owner, l.object, l.generation);
        if self.streams.len() >= STREAMS && !self.streams.contains_key(&name) {
            // No room to wait.
            return on(&library_bytes(&Library { address: alone(name), ..*l }, payload));
        }
        let now_ns = self.now_ns;
        let stream = self.streams.entry(name).or_insert_with(|| Stream { first_ns: now_ns, ..Stream::default() });
        stream.last_ns = now_ns;
        let record = library_bytes(&Library { address: alone(name), ..*l }, payload);
        if stream.alone {
            return on(&record);
        }
        stream.bytes += record.len();
        self.bytes += record.len();
        stream.waiting.push(record);
        if stream.bytes > MOST_OF_ONE || self.bytes > MOST {
            self.let_go(name, on);
        }
    }

    fn object(&mut self, o: &Object, bytes: &[u8], on: &mut impl FnMut(&[u8])) {
        let name = (o.owner, o.object, o.generation);
        if o.header.cookie != 0 {
            if o.header.kind == kind::BIND {
                self.bind(name, &o.address, o.header.cookie, o.evidence, on);
            }
            return on(bytes);
        }
        if o.header.kind == kind::FREE {
            self.let_go(name, on);
            self.streams.remove(&name);
            on(&object_bytes(&Object { address: alone(name), ..*o }));
        }
    }

    /// The record that ends a stream without a socket of which nothing more was heard.
    fn ended((pid, object, generation): Name, time: u64) -> Vec<u8> {
        let address = alone((pid, object, generation));
        let mut o = Object { owner: pid, object, generation, address, ..Object::default() };
        o.header.kind = kind::FREE;
        o.header.time = time;
        object_bytes(&o)
    }

    /// The stream's socket is known: what waits goes to it.
    fn bind(&mut self, name: Name, address: &Address, cookie: u64, evidence: u32, on: &mut impl FnMut(&[u8])) {
        let Some(stream) = self.streams.remove(&name) else { return };
        self.bytes -= stream.bytes;
        if stream.alone {
            // What came so far stays without one.
            on(&Self::ended(name, stream.last_ns));
        }
        for record in stream.waiting {
            if let Some(Record::Library(l, payload)) = Record::parse(&record) {
                let mut l = Library { address: *address, evidence, ..l };
                l.header.cookie = cookie;
                on(&library_bytes(&l, payload));
            }
        }
    }

    /// The stream goes on without a socket.
    fn let_go(&mut self, name: Name, on: &mut impl FnMut(&[u8])) {
        if let Some(stream) = self.streams.get_mut(&name) {
            self.bytes -= stream.bytes;
            stream.bytes = 0;
            stream.alone = true;
            for record in std::mem::take(&mut stream.waiting) {
                on(&record);
            }
        }
    }

    /// Looks after what waits too long at kernel time `now_ns`.
    pub(super) fn tick(&mut self, now_ns: u64, on: &mut impl FnMut(&[u8])) {
        self.now_ns = now_ns;
        if self.streams.is_empty() || now_ns.saturating_sub(self.looked_ns) < LOOK_NS {
            return;
        }
        self.looked_ns = now_ns;
        let due = |s: &Stream| !s.alone && now_ns.saturating_sub(s.first_ns) > PATIENCE_NS;
        let names: Vec<Name> = self.streams.iter().filter(|(_, s)| due(s)).map(|(n, _)| *n).collect();
        for name in names {
            self.let_go(name, on);
        }
        self.forget(now_ns.saturating_sub(IDLE_NS), on);
    }

    /// Forgets streams without a socket that were silent since `before`.
    fn forget(&mut self, before: u64, on: &mut impl FnMut(&[u8])) {
        let idle: Vec<Name> = self.streams.iter().filter(|(_, s)| s.last_ns < before).map(|(n, _)| *n).collect();
        for name in idle {
            self.let_go(name, on);
            self.streams.remove(&name);
            on(&Self::ended(name, before));
        }
    }

    /// The capture ends: everything goes on.
    pub(super) fn finish(&mut self, on: &mut impl FnMut(&[u8])) {
        let names: Vec<Name> = self.streams.keys().copied().collect();
        for name in names {
            self.let_go(name, on);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use agent_ebpf::{Header, direction};

    fn library(cookie: u64, time: u64) -> Library {
        Library {
            header: Header { kind: kind::LIBRARY, direction: direction::IN, len: 3, time, cookie, ..Header::default() },
            owner: 7,
            object: 0x55_0000_1000,
            generation: 99,
            ..Library::default()
        }
    }

    fn take(loose: &mut Loose, bytes: &[u8]) -> Vec<(u64, u32, Vec<u8>)> {
        let mut out = Vec::new();
        loose.take(&Record::parse(bytes).unwrap(), bytes, &mut |b| out.push(read(b)));
        out
    }

    /// Cookie, namespace and bytes of what went on; `FREE` for an object that is gone.
    fn read(bytes: &[u8]) -> (u64, u32, Vec<u8>) {
        match Record::parse(bytes).unwrap() {
            Record::Library(l, payload) => (l.header.cookie, l.address.netns, payload.to_vec()),
            Record::Object(o) => (o.header.cookie, o.address.netns, vec![o.header.kind]),
            _ => unreachable!(),
        }
    }

    fn bound() -> Object {
        let mut o = Object { owner: 7, object: 0x55_0000_1000, generation: 99, evidence: 1, ..Object::default() };
        o.header.kind = kind::BIND;
        o.header.cookie = 5;
        o.address.netns = 4;
        o
    }

    #[test]
    fn plaintext_waits_for_its_socket_in_order() {
        let mut loose = Loose::default();
        assert!(take(&mut loose, &library_bytes(&library(0, 1), b"one")).is_empty());
        assert!(take(&mut loose, &library_bytes(&library(0, 2), b"two")).is_empty());
        let out = take(&mut loose, &object_bytes(&bound()));
        assert_eq!(out, [(5, 4, b"one".to_vec()), (5, 4, b"two".to_vec()), (5, 4, vec![kind::BIND])]);
        assert!(loose.streams.is_empty() && loose.bytes == 0);
    }

    #[test]
    fn a_record_with_a_socket_releases_what_waits() {
        let mut loose = Loose::default();
        take(&mut loose, &library_bytes(&library(0, 1), b"one"));
        let mut second = library(5, 2);
        second.address.netns = 4;
        let out = take(&mut loose, &library_bytes(&second, b"two"));
        assert_eq!(out, [(5, 4, b"one".to_vec()), (5, 4, b"two".to_vec())]);
    }

    #[test]
    fn what_waits_too_long_goes_on_alone_and_is_never_two_streams_at_once() {
        let mut loose = Loose::default();
        take(&mut loose, &library_bytes(&library(0, 1), b"one"));
        let mut out = Vec::new();
        loose.tick(PATIENCE_NS + 2, &mut |b| out.push(read(b)));
        assert_eq!(out, [(0, 0, b"one".to_vec())]);
        assert_eq!(take(&mut loose, &library_bytes(&library(0, 3), b"two")), [(0, 0, b"two".to_vec())]);
        // Bound after all: the stream without a socket has ended.
        let out = take(&mut loose, &object_bytes(&bound()));
        assert_eq!(out, [(0, 0, vec![kind::FREE]), (5, 4, vec![kind::BIND])]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut loose = Loose::default();
        let big = vec![0; 16384];
        let (mut gone, mut all) = (0, 0);
        for i in 0..2000u64 {
            let mut l = library(0, i);
            l.header.len = 16384;
            l.object = i % 50;
            let bytes = library_bytes(&l, &big);
            all += bytes.len();
            loose.take(&Record::parse(&bytes).unwrap(), &bytes, &mut |b| gone += b.len());
            assert!(loose.bytes <= MOST + 32768);
        }
        assert!(gone > 0);
        assert_eq!(gone + loose.bytes, all);
    }
}
