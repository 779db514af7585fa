//! The workers: each owns the connections whose addresses fall to it, from their records to sealed objects.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    time::Duration,
};

use agent_ebpf::{Address, Connection as Report, Data, Library, Object, direction, flag, kind, protocol, stop};

use super::{
    Counters, Shared,
    batch::Batch,
    report::{self, Source},
    tracked::Tracked,
};
use crate::{
    connection::{Connection, Endpoint, Key, ends},
    http::{Output, Side},
    probe::Record,
};

/// How often waiting segments and due reports are looked after.
const TICK: Duration = Duration::from_millis(50);
/// Connections that a worker keeps; past it the longest idle are forgotten.
const CONNECTIONS: usize = 65536;
/// Records of listeners that wait for their connection's opening.
const EARLY: usize = 256;
/// A first report comes after this time, the next ones after the second.
const FIRST_REPORT_NS: u64 = 500_000_000;
const NEXT_REPORT_NS: u64 = 10_000_000_000;

/// When an end's next report is due: time, connection, generation, side.
type Due = Reverse<(u64, Key, u64, bool)>;

/// One worker's state. Also used without a thread, to replay recordings.
pub(super) struct Worker {
    shared: Arc<Shared>,
    stops: Option<mpsc::Sender<(u64, u32)>>,
    connections: HashMap<Key, Vec<Tracked>>,
    count: usize,
    serial: u64,
    /// Connections with bytes that wait.
    waiting: BTreeSet<(Key, u64)>,
    due: BinaryHeap<Due>,
    early: Vec<(Data, Vec<u8>)>,
    out: Vec<Output>,
}

/// `CLOCK_MONOTONIC` now, as the records' times.
pub(super) fn now() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, stops: Option<mpsc::Sender<(u64, u32)>>) -> Self {
        Worker {
            shared,
            stops,
            connections: HashMap::new(),
            count: 0,
            serial: 0,
            waiting: BTreeSet::new(),
            due: BinaryHeap::new(),
            early: Vec::new(),
            out: Vec::new(),
        }
    }

    pub(super) fn run(&mut self, batches: &mpsc::Receiver<Batch>) {
        let mut ticked = now();
        loop {
            match batches.recv_timeout(TICK) {
                Ok(batch) => {
                    for bytes in batch.records() {
                        if self.shared.late() {
                            Counters::add(&self.shared.counters.dropped_at_stop, 1);
                        } else {
                            self.record(bytes);
                        }
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            }
            let time = now();
            if time.saturating_sub(ticked) >= TICK.as_nanos() as u64 {
                ticked = time;
                self.tick(time);
            }
        }
        self.finish(now());
    }

    /// Takes one record. A panic ends its connection only.
    pub(super) fn record(&mut self, bytes: &[u8]) {
        let Some(record) = Record::parse(bytes) else {
            Counters::add(&self.shared.counters.unreadable_records, 1);
            return;
        };
        let Some(address) = record.address() else { return };
        self.guarded(Key::of(address).0, |worker| match record {
            Record::Data(d, payload) => worker.data(&d, payload),
            Record::Connection(c) => worker.report(&c),
            Record::Library(l, payload) => worker.library(&l, payload),
            Record::Object(o) => worker.object(&o),
            Record::Exec(_) => {}
        });
    }

    /// Runs `f`; a panic in it ends the connections of `key` only, and is counted.
    fn guarded(&mut self, key: Key, f: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| f(self))).is_err() {
            Counters::add(&self.shared.counters.panics, 1);
            self.out.clear();
            let gone = self.connections.remove(&key).map_or(0, |g| g.len());
            self.count = self.count.saturating_sub(gone);
        }
    }

    /// The generation of `key` that a socket belongs to; made when there is none. Its index.
    fn find(&mut self, key: Key, address: &Address, cookie: u64, base: Option<[u32; 2]>, time: u64) -> usize {
        let generations = self.connections.entry(key).or_default();
        // Its own place first: an older generation's end may be handed on after a newer one has begun.
        let its_own = |t: &Tracked| {
            t.connection.ends[ends::index(t.connection.side(address))].as_ref().map(|e| e.cookie) == Some(cookie)
        };
        if let Some(i) = generations.iter().rposition(its_own) {
            return i;
        }
        let fits = |t: &Tracked| t.connection.admits(t.connection.side(address), cookie, base);
        if let Some(i) = generations.iter().rposition(fits) {
            return i;
        }
        self.serial += 1;
        self.count += 1;
        Counters::add(&self.shared.counters.connections, 1);
        generations.push(Tracked::new(Connection::new(address, time), self.serial, self.shared.limits));
        generations.len() - 1
    }

    /// The socket's end, made when it is new.
    fn end<'a>(
        shared: &Shared,
        due: &mut BinaryHeap<Due>,
        key: Key,
        t: &'a mut Tracked,
        side: Side,
        cookie: u64,
    ) -> &'a mut Endpoint {
        let first = t.connection.ends[ends::index(side)].is_none();
        let (time, serial) = (t.connection.first_ns, t.serial);
        let end = t.connection.end(side, cookie, &shared.host.boot_id);
        if first {
            due.push(Reverse((time + FIRST_REPORT_NS, key, serial, side == Side::B)));
        }
        if end.pid == 0
            && let Some((pid, start)) = shared.seeds.get().and_then(|s| s.get(&cookie))
        {
            (end.pid, end.start_ns) = (*pid, *start);
        }
        end
    }

    fn data(&mut self, r: &Data, payload: &[u8]) {
        let (key, _) = Key::of(&r.address);
        if r.header.flags & flag::LISTENER != 0 {
            return self.early(key, r, payload);
        }
        let i = self.find(key, &r.address, r.header.cookie, None, r.header.time);
        let shared = Arc::clone(&self.shared);
        let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) else { return };
        let side = t.connection.side(&r.address);
        let end = Self::end(&shared, &mut self.due, key, t, side, r.header.cookie);
        if end.pid == 0 && r.owner != 0 {
            end.pid = r.owner;
        }
        t.connection.take_flags(side, r.header.flags);
        Self::let_go_own(&shared.counters, self.stops.as_ref(), t);
        t.data(side, r, payload, &shared.budget, &mut self.out);
        if t.waiting() {
            self.waiting.insert((key, t.serial));
        }
        self.emit(key, i);
    }

    /// Data that met a listener: part of the connection that it opens, which may be known already.
    fn early(&mut self, key: Key, r: &Data, payload: &[u8]) {
        let newest = self.connections.get(&key).map_or(0, Vec::len).checked_sub(1);
        if let Some(i) = newest
            && let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i))
        {
            let side = t.connection.side(&r.address);
            let base = t.connection.base[ends::index(ends::other(side))];
            // Of this generation: within a window of its first received byte.
            if !t.connection.is_closed() && base.is_some_and(|b| r.seq.wrapping_sub(b) < 1 << 20) {
                let budget = Arc::clone(&self.shared.budget);
                t.data(side, r, payload, &budget, &mut self.out);
                if t.waiting() {
                    self.waiting.insert((key, t.serial));
                }
                return self.emit(key, i);
            }
        }
        if self.early.len() >= EARLY {
            self.early.remove(0);
        }
        self.early.push((*r, payload.to_vec()));
    }

    fn report(&mut self, c: &Report) {
        let (key, _) = Key::of(&c.address);
        let fresh = c.header.flags & flag::FRESH != 0;
        let base = (c.header.kind == kind::OPEN && fresh).then_some(c.base);
        let i = self.find(key, &c.address, c.header.cookie, base, c.header.time);
        let shared = Arc::clone(&self.shared);
        let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) else { return };
        let side = t.connection.side(&c.address);
        let end = Self::end(&shared, &mut self.due, key, t, side, c.header.cookie);
        if c.owner != 0 {
            (end.pid, end.start_ns) = (c.owner, (c.owner_start != 0).then_some(c.owner_start));
            end.parent = (c.owner_parent != 0).then_some(c.owner_parent);
        }
        end.bytes = c.bytes;
        t.connection.take_flags(side, c.header.flags);
        Self::let_go_own(&shared.counters, self.stops.as_ref(), t);
        t.connection.last_ns = c.header.time;
        if t.connection.protocol == protocol::UNKNOWN {
            t.connection.protocol = c.header.protocol;
        }
        let (mine, theirs) = (ends::index(side), ends::index(ends::other(side)));
        let time = c.header.time;
        match c.header.kind {
            kind::OPEN => {
                t.connection.base[mine] = Some(c.base[0]);
                t.connection.base[theirs] = Some(c.base[1]);
                self.join_early(key);
            }
            kind::END => {
                // What the peer sends ends where this socket has accepted it, its own where it has sent it.
                let (sender, next, lost) = if c.header.direction == direction::IN {
                    (ends::other(side), c.confirmed, c.lost[1])
                } else {
                    (side, c.sent, c.lost[0])
                };
                t.end(sender, next, lost, time, &mut self.out);
                self.emit(key, i);
            }
            kind::CLOSE => {
                if let Some(end) = &mut t.connection.ends[mine] {
                    end.closed = true;
                }
                let mut last = [(0, 0); 2];
                last[mine] = (c.sent, c.lost[0]);
                last[theirs] = (c.confirmed, c.lost[1]);
                t.close(Some(last), time, &shared.counters, &mut self.out);
                self.emit(key, i);
                self.library_ends(key, i, side, time);
                self.closed(key, i, side, time);
            }
            _ => {}
        }
    }

    /// What the TLS library of the process at one end saw.
    fn library(&mut self, r: &Library, payload: &[u8]) {
        let (key, _) = Key::of(&r.address);
        let i = self.find(key, &r.address, r.header.cookie, None, r.header.time);
        let shared = Arc::clone(&self.shared);
        let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) else { return };
        let side = t.connection.side(&r.address);
        if r.header.cookie == 0 && !std::mem::replace(&mut t.connection.loose, true) {
            Counters::add(&shared.counters.unbound_streams, 1);
        }
        let end = Self::end(&shared, &mut self.due, key, t, side, r.header.cookie);
        // The probe ran in the process that used the library: surer than who used the socket.
        (end.pid, end.start_ns) = (r.owner, (r.owner_start != 0).then_some(r.owner_start));
        end.parent = (r.owner_parent != 0).then_some(r.owner_parent);
        let known = end.library.get_or_insert_default();
        known.evidence = r.evidence;
        known.read = true;
        known.http1 |= r.header.protocol == protocol::HTTP1;
        if t.connection.protocol == protocol::UNKNOWN {
            t.connection.protocol = protocol::TLS;
        }
        Self::let_go_own(&shared.counters, self.stops.as_ref(), t);
        t.library(side, r, payload, &shared, &mut self.out);
        self.emit_plaintext(key, i, side);
    }

    /// What became of a TLS object.
    fn object(&mut self, o: &Object) {
        let (key, _) = Key::of(&o.address);
        let its_own = |t: &Tracked| {
            t.connection.ends[ends::index(t.connection.side(&o.address))].as_ref().map(|e| e.cookie)
                == Some(o.header.cookie)
        };
        let Some(i) = self.connections.get(&key).and_then(|g| g.iter().rposition(its_own)) else { return };
        let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) else { return };
        let (side, loose) = (t.connection.side(&o.address), t.connection.loose);
        let time = o.header.time;
        let mine = t.plaintext(side).filter(|p| p.is_of(o.object, o.generation));
        match o.header.kind {
            kind::BIND => {
                if let Some(end) = &mut t.connection.ends[ends::index(side)] {
                    end.library.get_or_insert_default().evidence = o.evidence;
                }
            }
            // What was read belongs to nobody for certain: what is whole has been handed on. Unless it was bound
            // again meanwhile.
            kind::UNBIND => {
                if mine.is_some_and(|p| p.last_ns() <= time) {
                    self.library_ends(key, i, side, time);
                }
            }
            _ => {
                if let Some(plaintext) = mine {
                    plaintext.moved(side, o.bytes);
                }
                // With a socket the stream lives as long as that.
                if loose {
                    if let Some(end) = &mut t.connection.ends[ends::index(side)] {
                        end.closed = true;
                    }
                    self.library_ends(key, i, side, time);
                    self.closed(key, i, side, time);
                }
            }
        }
    }

    /// The TLS library's streams at one end have ended.
    fn library_ends(&mut self, key: Key, i: usize, side: Side, time: u64) {
        if let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) {
            t.library_ends(side, time, &self.shared.counters, &mut self.out);
            self.emit_plaintext(key, i, side);
        }
    }

    /// Hands on what the parser of one end's plaintext has put out.
    fn emit_plaintext(&mut self, key: Key, i: usize, side: Side) {
        if self.out.is_empty() {
            return;
        }
        let outputs = std::mem::take(&mut self.out);
        let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) else { return };
        for output in outputs {
            match output {
                Output::Exchange(exchange) => {
                    let Some((fresh, stream)) = t.plaintext(side).map(|p| (p.fresh(), p.name())) else { continue };
                    let tls = report::tls(&t.connection, side);
                    let source = Source::Library { side, tls: &tls, fresh, stream };
                    report::exchange(&self.shared, &mut t.connection, &exchange, source);
                }
                Output::Handover { .. } | Output::NotHttp => {
                    let counters = &self.shared.counters;
                    let handed = matches!(output, Output::Handover { .. });
                    Counters::add(if handed { &counters.handovers } else { &counters.not_http }, 1);
                    t.library_abandon(side);
                    // The other end's library has its own streams.
                    if !t.connection.loose {
                        Self::stop_copying(self.stops.as_ref(), t.connection.ends[ends::index(side)].iter(), stop::ALL);
                    }
                }
            }
        }
    }

    /// Hands waiting records of a listener to the connection that has opened.
    fn join_early(&mut self, key: Key) {
        if self.early.iter().any(|(r, _)| Key::of(&r.address).0 == key) {
            let (mine, rest) =
                std::mem::take(&mut self.early).into_iter().partition(|(r, _)| Key::of(&r.address).0 == key);
            self.early = rest;
            for (r, payload) in mine as Vec<(Data, Vec<u8>)> {
                self.early(key, &r, &payload);
            }
        }
    }

    /// Reports an end that has closed, and forgets the connection when it was the last.
    fn closed(&mut self, key: Key, i: usize, side: Side, time: u64) {
        let Some(generations) = self.connections.get_mut(&key) else { return };
        let Some(t) = generations.get_mut(i) else { return };
        report::connection(&self.shared, &mut t.connection, side, time, true);
        if t.connection.is_closed() {
            self.waiting.remove(&(key, t.serial));
            generations.remove(i);
            self.count -= 1;
            if generations.is_empty() {
                self.connections.remove(&key);
            }
        }
    }

    /// Hands on what the parser has put out.
    fn emit(&mut self, key: Key, i: usize) {
        if self.out.is_empty() {
            return;
        }
        let outputs = std::mem::take(&mut self.out);
        let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) else { return };
        for output in outputs {
            match output {
                Output::Exchange(exchange) => {
                    report::exchange(&self.shared, &mut t.connection, &exchange, Source::Edge);
                }
                Output::Handover { protocol } => {
                    tracing::debug!(%protocol, "A connection was handed over.");
                    Counters::add(&self.shared.counters.handovers, 1);
                    t.abandon();
                    // In a tunnel TLS may begin.
                    let what = if protocol == "connect" { stop::TUNNEL } else { stop::ALL };
                    Self::stop_copying(self.stops.as_ref(), t.connection.ends.iter().flatten(), what);
                }
                Output::NotHttp => {
                    Counters::add(&self.shared.counters.not_http, 1);
                    t.connection.protocol = protocol::OTHER;
                    t.abandon();
                    Self::stop_copying(self.stops.as_ref(), t.connection.ends.iter().flatten(), stop::ALL);
                }
            }
        }
    }

    /// Of a connection with the agent itself nothing is wanted, at neither end.
    fn let_go_own(counters: &Counters, stops: Option<&mpsc::Sender<(u64, u32)>>, t: &mut Tracked) {
        if t.connection.own && t.abandon() {
            Counters::add(&counters.own_connections, 1);
            Self::stop_copying(stops, t.connection.ends.iter().flatten(), stop::ALL);
        }
    }

    /// Tells the kernel side what is still wanted of these ends' connections.
    fn stop_copying<'a>(stops: Option<&mpsc::Sender<(u64, u32)>>, ends: impl Iterator<Item = &'a Endpoint>, what: u32) {
        if let Some(stops) = stops {
            for end in ends {
                // The reader may be gone already; then there is nothing to stop.
                let _ = stops.send((end.cookie, what));
            }
        }
    }

    /// Gives up what has waited too long in one connection.
    fn expire(&mut self, key: Key, serial: u64, time: u64) {
        let Some(generations) = self.connections.get_mut(&key) else { return };
        let Some(i) = generations.iter().position(|t| t.serial == serial) else { return };
        generations[i].expire(time, &mut self.out);
        if generations[i].waiting() {
            self.waiting.insert((key, serial));
        }
        self.emit(key, i);
    }

    /// Hands on what is unfinished in the connections of `key`.
    fn close_all(&mut self, key: Key, time: u64) {
        for i in 0..self.connections.get(&key).map_or(0, Vec::len) {
            if let Some(t) = self.connections.get_mut(&key).and_then(|g| g.get_mut(i)) {
                t.close(None, time, &self.shared.counters, &mut self.out);
            }
            self.emit(key, i);
            for side in [Side::A, Side::B] {
                self.library_ends(key, i, side, time);
            }
        }
    }

    /// Looks after what waits: segments, reports, records of listeners, and the table's size.
    pub(super) fn tick(&mut self, time: u64) {
        for (key, serial) in std::mem::take(&mut self.waiting) {
            self.guarded(key, |worker| worker.expire(key, serial, time));
        }
        while let Some(Reverse((at, key, serial, second))) = self.due.peek().copied() {
            if at > time {
                break;
            }
            self.due.pop();
            let side = if second { Side::B } else { Side::A };
            let open = self.connections.get_mut(&key).and_then(|g| g.iter_mut().find(|t| t.serial == serial));
            if let Some(t) = open
                && t.connection.ends[ends::index(side)].as_ref().is_some_and(|e| !e.closed)
            {
                report::connection(&self.shared, &mut t.connection, side, time, false);
                self.due.push(Reverse((time + NEXT_REPORT_NS, key, serial, second)));
            }
        }
        self.early.retain(|(r, _)| time.saturating_sub(r.header.time) < 5_000_000_000);
        if self.count > CONNECTIONS {
            self.evict(time);
        }
    }

    /// Forgets the longest idle eighth of the connections: their closing was lost, or there are too many.
    fn evict(&mut self, time: u64) {
        let mut last: Vec<u64> = self.connections.values().flatten().map(|t| t.connection.last_ns).collect();
        let (_, limit, _) = last.select_nth_unstable(CONNECTIONS / 8);
        let limit = *limit;
        let before = self.count;
        let idle = |g: &Vec<Tracked>| g.iter().all(|t| t.connection.last_ns <= limit);
        let keys: Vec<Key> = self.connections.iter().filter(|(_, g)| idle(g)).map(|(k, _)| *k).collect();
        for key in keys {
            self.guarded(key, |worker| worker.close_all(key, time));
            self.connections.remove(&key);
        }
        self.count = self.connections.values().map(Vec::len).sum();
        Counters::add(&self.shared.counters.evicted_connections, (before - self.count) as u64);
    }

    /// Hands on everything that is unfinished: the capture ends.
    pub(super) fn finish(&mut self, time: u64) {
        let keys: Vec<Key> = self.connections.keys().copied().collect();
        for key in keys {
            if self.shared.late() {
                Counters::add(&self.shared.counters.dropped_at_stop, self.count as u64);
                break;
            }
            self.guarded(key, |worker| worker.close_all(key, time));
        }
        self.connections.clear();
        self.count = 0;
    }
}
