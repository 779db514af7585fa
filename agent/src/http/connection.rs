//! The two directions of one connection, joined into exchanges.
//!
//! Called by `pipeline` with what [`Stream`](crate::flow::Stream)s deliver, in any interleaving: the two
//! directions are reassembled on their own, so a response may come here before the request that it answers.
//! It then waits, unparsed behind its head (whether it has a body depends on the request), until
//! - the request comes: it began no later than the response did, by kernel time; or
//! - the requests' direction delivers anything newer than the response's first byte, has a gap, or ends; or
//! - [`HOLD`] bytes wait.
//!
//! In the last two cases it is an unasked response (a server that says 408 and closes, say). The other way
//! round, what a client sends after CONNECT or a request to upgrade waits for the answer to it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::exchange::{GapCause, Note, Output, Side};
use super::head::Facts;
use super::pairing::{Answer, Asked, Over, Pairing};
use super::reader::{Body, Event, Reader};
use super::start::Kind;
use crate::flow::{Budget, Lease};

/// Most bytes of one direction that wait for the other.
pub(super) const HOLD: usize = 256 << 10;
/// What a waiting delivery costs beside its bytes.
const HELD_COST: usize = 64;
/// Most bytes that the unfinished exchanges of one connection keep, whatever the budget has left.
const CONNECTION: usize = 16 << 20;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one head that are kept. Up to 1 MiB on the wire is read for its framing; a longer head ends
    /// the message, marked.
    pub head: usize,
    /// Fields of one head that are kept.
    pub fields: usize,
    /// Bytes of one body that are kept.
    pub body: usize,
    /// Requests that wait for their responses.
    pub pending: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 64 << 10, fields: 512, body: 2 << 20, pending: 1024 }
    }
}

/// What waits in a direction.
#[derive(Debug)]
enum Held {
    Data(Vec<u8>, u64),
    Gap(u64, GapCause),
    End,
}

// Each flag is a fact of its own; they do not exclude one another.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug)]
struct Direction {
    reader: Reader,
    /// Stream offset behind everything taken so far, what waits included.
    next: u64,
    begun: bool,
    /// A message of this direction must wait for the other direction.
    blocked: bool,
    held: VecDeque<Held>,
    held_bytes: usize,
    /// Too much waits: decide with what is known.
    impatient: bool,
    /// Its first bytes were not HTTP.
    foreign: bool,
    /// Bytes of it are missing, so that those that follow say nothing about the protocol.
    gapped: bool,
    /// Kernel time of the newest byte read.
    newest_ns: u64,
    /// The end was given by the caller.
    closing: bool,
    /// The end was read, behind everything that waited.
    ended: bool,
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    limits: Limits,
    lease: Lease,
    directions: [Direction; 2],
    client: Option<Side>,
    pairing: Pairing,
    fresh: bool,
    number: u64,
    /// Of the gap that is being handled.
    cause: Option<GapCause>,
    over: bool,
}

impl Connection {
    /// A connection that is seen from the first byte of both directions.
    #[must_use]
    pub fn new(limits: Limits, budget: Arc<Budget>) -> Self {
        Self::with(limits, budget, true)
    }

    /// A connection that is older than the capture: each direction begins at the offset of its first bytes,
    /// which need not be the beginning of a message.
    #[must_use]
    pub fn midway(limits: Limits, budget: Arc<Budget>) -> Self {
        Self::with(limits, budget, false)
    }

    fn with(limits: Limits, budget: Arc<Budget>, fresh: bool) -> Self {
        let direction = || Direction {
            reader: Reader::new(limits, fresh),
            next: 0,
            begun: fresh,
            blocked: false,
            held: VecDeque::new(),
            held_bytes: 0,
            impatient: false,
            foreign: false,
            gapped: false,
            newest_ns: 0,
            closing: false,
            ended: false,
        };
        Self {
            limits,
            lease: Lease::new(budget, CONNECTION.max(limits.body.saturating_mul(4))),
            directions: [direction(), direction()],
            client: None,
            pairing: Pairing::default(),
            fresh,
            number: 0,
            cause: None,
            over: false,
        }
    }

    /// Whether the streams are known from their first bytes.
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.fresh
    }

    /// The direction that carries requests, once a message has shown it.
    #[must_use]
    pub fn client(&self) -> Option<Side> {
        self.client
    }

    /// Whether nothing more will come out: the connection was handed over, is not HTTP, or was closed.
    #[must_use]
    pub fn over(&self) -> bool {
        self.over
    }

    /// Bytes of one direction; `offset`: stream offset of the first, `ns`: kernel time. Bytes that came
    /// before are left out, bytes left out are a gap.
    pub fn data(&mut self, side: Side, offset: u64, bytes: &[u8], ns: u64, out: &mut Vec<Output>) {
        if self.over || self.directions[index(side)].closing {
            return;
        }
        let direction = &mut self.directions[index(side)];
        if !direction.begun {
            direction.begun = true;
            direction.next = offset;
            direction.reader.begin_at(offset);
        }
        if offset > direction.next {
            let (from, len) = (direction.next, offset - direction.next);
            self.gap(side, from, len, GapCause::Unseen, out);
            if self.over {
                return;
            }
        }
        let direction = &mut self.directions[index(side)];
        let known = direction.next.saturating_sub(offset);
        if known >= bytes.len() as u64 {
            return;
        }
        let bytes = &bytes[known as usize..];
        direction.next += bytes.len() as u64;
        self.run(side, bytes, ns, out);
        self.settle(out);
    }

    /// `len` bytes of one direction are missing at a stream offset.
    pub fn gap(&mut self, side: Side, offset: u64, len: u64, cause: GapCause, out: &mut Vec<Output>) {
        let direction = &mut self.directions[index(side)];
        if self.over || direction.closing {
            return;
        }
        if !direction.begun {
            direction.begun = true;
            direction.next = offset;
            direction.reader.begin_at(offset);
        }
        let end = offset.saturating_add(len);
        if end <= direction.next {
            return;
        }
        let len = end - direction.next;
        direction.next = end;
        direction.gapped = true;
        if direction.blocked {
            direction.held.push_back(Held::Gap(len, cause));
            let fits = self.lease.grow(HELD_COST);
            direction.held_bytes += if fits { HELD_COST } else { 0 };
            direction.impatient |= !fits || direction.held_bytes > HOLD;
        } else {
            self.miss(side, len, cause, out);
        }
        self.settle(out);
    }

    /// A finding of `flow` about the bytes that come next in a direction.
    pub fn note(&mut self, side: Side, note: Note) {
        self.directions[index(side)].reader.note(note);
    }

    /// No more bytes come in this direction (FIN). `_ns`: kernel time of the end; what was read last dates a
    /// message's end, not the close.
    pub fn end(&mut self, side: Side, _ns: u64, out: &mut Vec<Output>) {
        let direction = &mut self.directions[index(side)];
        if self.over || direction.closing {
            return;
        }
        direction.closing = true;
        if direction.blocked {
            direction.held.push_back(Held::End);
        } else {
            self.finish(side, out);
        }
        self.settle(out);
    }

    /// The connection is over: everything unfinished is handed on.
    pub fn close(&mut self, ns: u64, out: &mut Vec<Output>) {
        let client = self.client.unwrap_or(Side::A);
        self.end(client, ns, out);
        self.end(other(client), ns, out);
        if !self.over {
            self.pairing.forsake_all();
            self.drain(out);
            self.stop();
        }
    }

    fn role(&self, side: Side) -> Option<Kind> {
        self.client.map(|client| if client == side { Kind::Request } else { Kind::Response })
    }

    fn run(&mut self, side: Side, bytes: &[u8], ns: u64, out: &mut Vec<Output>) {
        let mut used = 0;
        while used < bytes.len() && !self.over {
            let direction = &mut self.directions[index(side)];
            if direction.blocked {
                if self.hold(side, &bytes[used..], ns) {
                    return;
                }
                self.directions[index(side)].impatient = true;
                self.settle(out);
                let direction = &mut self.directions[index(side)];
                if direction.blocked {
                    // Blocked again by what waited: there is room for one such wait only.
                    let left = (bytes.len() - used) as u64;
                    direction.held.push_back(Held::Gap(left, GapCause::Memory));
                    return;
                }
                continue;
            }
            direction.newest_ns = direction.newest_ns.max(ns);
            let (n, event) = direction.reader.feed(&bytes[used..], ns, &mut self.lease);
            used += n;
            self.handle(side, event, out);
        }
    }

    fn miss(&mut self, side: Side, mut len: u64, cause: GapCause, out: &mut Vec<Output>) {
        while len > 0 && !self.over {
            let direction = &mut self.directions[index(side)];
            if direction.blocked {
                direction.held.push_front(Held::Gap(len, cause));
                return;
            }
            let (n, event) = direction.reader.gap(len, cause, &mut self.lease);
            len -= n;
            self.cause = Some(cause);
            self.handle(side, event, out);
            self.cause = None;
        }
    }

    /// Keeps bytes until the other direction says how to go on; false when there is no room.
    fn hold(&mut self, side: Side, bytes: &[u8], ns: u64) -> bool {
        let direction = &mut self.directions[index(side)];
        let cost = bytes.len() + HELD_COST;
        if direction.held_bytes + cost > HOLD || !self.lease.grow(cost) {
            return false;
        }
        direction.held_bytes += cost;
        direction.held.push_back(Held::Data(bytes.to_vec(), ns));
        true
    }

    fn handle(&mut self, side: Side, event: Event, out: &mut Vec<Output>) {
        match event {
            Event::More => {}
            Event::Head => self.head(side, out),
            Event::CutHead => self.cut_head(side, out),
            Event::End => self.message_ends(side, out),
            Event::Lost { message } => self.lost(side, message, out),
        }
    }

    /// The first message of a connection says which direction carries requests.
    fn learn(&mut self, side: Side, kind: Kind) {
        if self.client.is_none() {
            self.client = Some(if kind == Kind::Request { side } else { other(side) });
            self.directions[index(side)].reader.set_role(kind);
            let answer = if kind == Kind::Request { Kind::Response } else { Kind::Request };
            self.directions[index(other(side))].reader.set_role(answer);
        }
    }

    fn head(&mut self, side: Side, out: &mut Vec<Output>) {
        let reader = &self.directions[index(side)].reader;
        let kind = reader.kind();
        self.learn(side, kind);
        if kind == Kind::Response {
            self.respond(side, out);
            return;
        }
        self.request_begins(side, out);
        let reader = &mut self.directions[index(side)].reader;
        let body = request_body(reader);
        if reader.frame(body, false) {
            self.message_ends(side, out);
        }
    }

    fn request_begins(&mut self, side: Side, out: &mut Vec<Output>) {
        if self.pairing.len() >= self.limits.pending {
            // Which of the later responses answer these is no longer kept.
            self.pairing.responses_lost(false);
            self.drain(out);
        }
        let reader = &self.directions[index(side)].reader;
        let message = reader.message();
        let asked = Asked {
            head: message.head.method == b"HEAD",
            connect: message.head.method == b"CONNECT",
            upgrade: reader.facts().upgrade,
        };
        self.pairing.request_begins(asked, message.first_ns);
        if self.directions[index(other(side))].ended {
            self.pairing.forsake_all();
        }
    }

    /// A response's head is there: asks the pairing whom it answers, and frames its body.
    fn respond(&mut self, side: Side, out: &mut Vec<Output>) {
        let first_ns = self.directions[index(side)].reader.message().first_ns;
        let early = !self.directions[index(side)].impatient && self.request_may_come(side, first_ns);
        let answer = self.pairing.response_begins(first_ns, early);
        let direction = &mut self.directions[index(side)];
        direction.blocked = answer == Answer::Early;
        if direction.blocked {
            return;
        }
        let asked = if let Answer::To(asked) = answer { asked } else { Asked::default() };
        let status = direction.reader.message().head.status;
        let body = response_body(status, asked, direction.reader.facts());
        if direction.reader.frame(body, answer == Answer::Unasked) {
            self.message_ends(side, out);
        }
    }

    /// Whether a request from before `first_ns` may still come from the other direction.
    fn request_may_come(&self, side: Side, first_ns: u64) -> bool {
        let requests = &self.directions[index(other(side))];
        let passed = requests.newest_ns > first_ns && requests.reader.open_head_ns().is_none_or(|ns| ns > first_ns);
        !requests.ended && !passed
    }

    fn message_ends(&mut self, side: Side, out: &mut Vec<Output>) {
        let taken = self.directions[index(side)].reader.take();
        if self.role(side) == Some(Kind::Request) {
            self.pairing.request_ends(taken);
            self.directions[index(side)].blocked = self.pairing.awaits_verdict();
            self.drain(out);
            return;
        }
        let status = taken.message.head.status;
        if taken.message.head.is_interim() {
            let back = self.pairing.interim(taken);
            self.lease.shrink(back);
            return;
        }
        let protocol = if status == 101 {
            let token = taken.message.head.get("upgrade").unwrap_or_default();
            let token = token.split(|b| *b == b',').next().unwrap_or_default();
            Some(String::from_utf8_lossy(token).trim().to_ascii_lowercase())
        } else {
            let tunnel = (200..300).contains(&status) && self.pairing.answers_connect();
            tunnel.then(|| "connect".to_owned())
        };
        let unasked = self.pairing.response_ends(taken);
        self.drain(out);
        if let Some(over) = unasked {
            self.emit(over, out);
        }
        if let Some(protocol) = protocol {
            self.hand_over(protocol, out);
        }
    }

    fn hand_over(&mut self, protocol: String, out: &mut Vec<Output>) {
        if let Some(client) = self.client {
            let reader = &mut self.directions[index(client)].reader;
            if reader.in_message() {
                let taken = reader.take();
                self.pairing.request_ends(taken);
            }
        }
        self.pairing.forsake_all();
        self.drain(out);
        out.push(Output::Handover { protocol });
        self.stop();
    }

    /// Nothing more comes out: gives all memory back.
    fn stop(&mut self) {
        self.over = true;
        self.pairing = Pairing::default();
        for direction in &mut self.directions {
            direction.held = VecDeque::new();
            direction.reader = Reader::new(self.limits, self.fresh);
        }
        self.lease.shrink(self.lease.bytes());
    }

    /// A head broke off.
    fn cut_head(&mut self, side: Side, out: &mut Vec<Output>) {
        let reader = &self.directions[index(side)].reader;
        let (kind, first_ns) = (reader.kind(), reader.message().first_ns);
        self.learn(side, kind);
        if kind == Kind::Request {
            self.request_begins(side, out);
        } else {
            self.pairing.response_begins(first_ns, false);
        }
        self.lost(side, true, out);
    }

    fn lost(&mut self, side: Side, message: bool, out: &mut Vec<Output>) {
        let Some(role) = self.role(side) else {
            let direction = &mut self.directions[index(side)];
            direction.foreign = !direction.gapped;
            let initial = !self.fresh && !direction.gapped;
            self.pairing.requests_lost(initial);
            if self.fresh && self.directions.iter().all(|direction| direction.foreign) {
                out.push(Output::NotHttp);
                self.stop();
            }
            return;
        };
        let taken = message.then(|| self.directions[index(side)].reader.take());
        match role {
            Kind::Request => {
                if let Some(taken) = taken {
                    self.pairing.request_ends(taken);
                }
                self.pairing.requests_lost(false);
            }
            Kind::Response => {
                let unasked = match taken {
                    // Cut short it is still no final response.
                    Some(taken) if taken.message.head.is_interim() => {
                        let back = self.pairing.interim(taken);
                        self.lease.shrink(back);
                        None
                    }
                    Some(taken) => self.pairing.response_ends(taken),
                    None => None,
                };
                self.drain(out);
                if let Some(over) = unasked {
                    self.emit(over, out);
                }
                self.pairing.responses_lost(self.cause == Some(GapCause::Cap));
            }
        }
        self.drain(out);
    }

    fn finish(&mut self, side: Side, out: &mut Vec<Output>) {
        let event = self.directions[index(side)].reader.end(&mut self.lease);
        self.directions[index(side)].ended = true;
        self.handle(side, event, out);
        if self.role(side) == Some(Kind::Response) {
            self.pairing.forsake_all();
        }
        self.drain(out);
    }

    /// Lets what waits go on as far as it can.
    fn settle(&mut self, out: &mut Vec<Output>) {
        loop {
            let mut moved = false;
            for side in [Side::A, Side::B] {
                if self.over || !self.directions[index(side)].blocked {
                    continue;
                }
                if self.role(side) == Some(Kind::Response) {
                    self.respond(side, out);
                } else {
                    self.await_verdict(side, out);
                }
                if !self.directions[index(side)].blocked {
                    moved = true;
                    self.release(side, out);
                }
            }
            if !moved {
                return;
            }
        }
    }

    fn await_verdict(&mut self, side: Side, out: &mut Vec<Output>) {
        let direction = &mut self.directions[index(side)];
        direction.blocked = self.pairing.awaits_verdict();
        if direction.blocked && direction.impatient {
            // So much after an upgrade that nobody answers is hardly HTTP: it is searched like after a gap.
            direction.blocked = false;
            direction.reader.lose(false);
            self.lost(side, false, out);
        }
    }

    fn release(&mut self, side: Side, out: &mut Vec<Output>) {
        loop {
            let direction = &mut self.directions[index(side)];
            if self.over || direction.blocked {
                return;
            }
            let Some(held) = direction.held.pop_front() else {
                direction.impatient = false;
                self.lease.shrink(std::mem::take(&mut direction.held_bytes));
                return;
            };
            match held {
                Held::Data(bytes, ns) => self.run_held(side, &bytes, ns, out),
                Held::Gap(len, cause) => self.miss(side, len, cause, out),
                Held::End => self.finish(side, out),
            }
        }
    }

    /// As `run`, for bytes that waited already: what must wait on goes back to the front.
    fn run_held(&mut self, side: Side, bytes: &[u8], ns: u64, out: &mut Vec<Output>) {
        let mut used = 0;
        let direction = &mut self.directions[index(side)];
        direction.newest_ns = direction.newest_ns.max(ns);
        while used < bytes.len() && !self.over {
            let direction = &mut self.directions[index(side)];
            if direction.blocked {
                direction.held.push_front(Held::Data(bytes[used..].to_vec(), ns));
                return;
            }
            let (n, event) = direction.reader.feed(&bytes[used..], ns, &mut self.lease);
            used += n;
            self.handle(side, event, out);
        }
    }

    fn drain(&mut self, out: &mut Vec<Output>) {
        while let Some(over) = self.pairing.over() {
            self.emit(over, out);
        }
    }

    fn emit(&mut self, (mut exchange, charged): Over, out: &mut Vec<Output>) {
        self.lease.shrink(charged);
        exchange.notes.sort_unstable();
        exchange.number = self.number;
        exchange.client = self.client;
        self.number += 1;
        out.push(Output::Exchange(Box::new(exchange)));
    }
}

fn request_body(reader: &mut Reader) -> Body {
    let facts = reader.facts();
    if facts.coded && !facts.chunked {
        // RFC 9112 section 6.3: the length of such a request cannot be known.
        reader.note(Note::ConflictingFraming);
        return Body::Close;
    }
    if facts.chunked { Body::Chunked } else { facts.length.map_or(Body::None, Body::Length) }
}

/// RFC 9112 section 6.3.
fn response_body(status: u16, asked: Asked, facts: Facts) -> Body {
    let tunnel = asked.connect && (200..300).contains(&status);
    if asked.head || tunnel || status < 200 || status == 204 || status == 304 {
        return Body::None;
    }
    match (facts.chunked, facts.coded, facts.length) {
        (true, ..) => Body::Chunked,
        (_, false, Some(length)) => Body::Length(length),
        _ => Body::Close,
    }
}

fn index(side: Side) -> usize {
    match side {
        Side::A => 0,
        Side::B => 1,
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::A => Side::B,
        Side::B => Side::A,
    }
}
