//! One direction of a connection: bytes in, messages out.
//!
//! Called by [`Connection`](super::Connection), which decides what only both directions together can say:
//! which direction carries requests, and how a response's body is framed (that depends on its request).
//! [`Reader::feed`] consumes bytes up to the next event; after [`Event::Head`] the caller says how the body
//! is framed with [`Reader::frame`], after [`Event::End`] it takes the message with [`Reader::take`].
//!
//! After bytes that cannot be understood (or are missing) the reader is lost, and looks for a line that
//! begins a message, at the beginning of each delivery and behind each line feed. A head found so must have
//! a registered method and well-formed fields only, else the search goes on: text that talks about HTTP looks
//! much like it.

use memchr::memchr;

use super::Limits;
use super::exchange::{Framing, GapCause, Message, Note};
use super::head::{Facts, Parsed, head_end, parse, parse_trailers, push, trim};
use super::start::{self, Kind, Proxy, STATUS_PREFIX, chomp, status_prefix};
use crate::flow::Lease;

/// Longest head or trailer section that is read at all, bytes on the wire.
pub(super) const HEAD_WIRE: usize = 1 << 20;
/// Longest chunk-size line with its extensions, bytes.
const CHUNK_LINE: usize = 16 << 10;
/// Longest first line that the search for a message considers, bytes.
const SEARCH_LINE: usize = 16 << 10;
/// Gaps listed for one message; behind the last of them no more of its body is kept.
const GAPS: usize = 256;
/// A body's first allocation is its stated length up to this, bytes: a stated length alone costs no memory.
const BODY_FIRST: usize = 256 << 10;

#[derive(Debug)]
enum State {
    /// The very first bytes: a PROXY protocol head may come.
    Opening,
    /// In a PROXY protocol head.
    Skip {
        left: u64,
    },
    /// Before or in a head (then its beginning is in the buffer).
    Start,
    /// A head is read, its framing not yet known.
    Ready,
    /// A response whose request is not known: was it HEAD? A status line instead of a body says so.
    Peek {
        body: Body,
    },
    Length {
        left: u64,
    },
    Close,
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd,
    Trailers,
    Lost,
}

/// How a message's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    None,
    Length(u64),
    Chunked,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// All bytes were consumed.
    More,
    /// A head is read; the caller calls [`Reader::frame`].
    Head,
    /// The beginning of a head is all that came of the message; the caller takes it.
    CutHead,
    /// The message is over; the caller takes it.
    End,
    /// Understanding was lost; with `message` the caller takes an unfinished one.
    Lost { message: bool },
}

/// A message with what belongs to it.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) message: Message,
    pub(super) notes: Vec<Note>,
    /// Bytes of the connection's lease that it holds.
    pub(super) charged: usize,
}

#[derive(Debug)]
pub(super) struct Reader {
    limits: Limits,
    state: State,
    /// What this direction carries, once known.
    role: Option<Kind>,
    /// Stream offset of the next byte.
    pos: u64,
    /// Beginning of a head, a chunk-size line, trailers, or a line in question.
    buffer: Vec<u8>,
    /// Bytes of the connection's lease that the buffer holds.
    buffer_charged: usize,
    /// Bytes of the buffer that hold no end of a head.
    scanned: usize,
    /// The first line in the buffer is whole and begins a message.
    judged: bool,
    /// The search has just passed a line feed.
    line_begins: bool,
    /// Stream offset and kernel time of the first byte in question.
    begin: u64,
    begin_ns: u64,
    message: Message,
    kind: Kind,
    facts: Facts,
    notes: Vec<Note>,
    /// For the next message.
    notes_ahead: Vec<Note>,
    charged: usize,
    /// What precedes the next message is not known: it must look like one beyond doubt.
    resynchronised: bool,
}

impl Reader {
    /// `fresh`: the stream is seen from its first byte.
    pub(super) fn new(limits: Limits, fresh: bool) -> Self {
        Self {
            limits,
            state: if fresh { State::Opening } else { State::Start },
            role: None,
            pos: 0,
            buffer: Vec::new(),
            buffer_charged: 0,
            scanned: 0,
            judged: false,
            line_begins: false,
            begin: 0,
            begin_ns: 0,
            message: Message::default(),
            kind: Kind::Request,
            facts: Facts::default(),
            notes: Vec::new(),
            notes_ahead: Vec::new(),
            charged: 0,
            resynchronised: !fresh,
        }
    }

    /// Where a stream that is not seen from its first byte begins.
    pub(super) fn begin_at(&mut self, offset: u64) {
        self.pos = offset;
    }

    pub(super) fn set_role(&mut self, role: Kind) {
        self.role = Some(role);
    }

    /// What the head just read begins.
    pub(super) fn kind(&self) -> Kind {
        self.kind
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts
    }

    /// The message whose head was read last and that has not been taken.
    pub(super) fn message(&self) -> &Message {
        &self.message
    }

    /// Kernel time of the first byte of a head that is not whole yet.
    pub(super) fn open_head_ns(&self) -> Option<u64> {
        (matches!(self.state, State::Start | State::Opening) && !self.buffer.is_empty()).then_some(self.begin_ns)
    }

    /// Whether a message's head was read and its end was not.
    pub(super) fn in_message(&self) -> bool {
        !matches!(self.state, State::Opening | State::Skip { .. } | State::Start | State::Lost)
    }

    /// Notes something about the message that is being read, else about the next.
    pub(super) fn note(&mut self, note: Note) {
        push(if self.in_message() { &mut self.notes } else { &mut self.notes_ahead }, note);
    }

    pub(super) fn take(&mut self) -> Taken {
        Taken {
            message: std::mem::take(&mut self.message),
            notes: std::mem::take(&mut self.notes),
            charged: std::mem::take(&mut self.charged),
        }
    }

    /// Consumes bytes up to the next event: how many, and which.
    pub(super) fn feed(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> (usize, Event) {
        let mut used = 0;
        let mut event = Event::More;
        while used < bytes.len() && event == Event::More {
            let n;
            (n, event) = self.step(&bytes[used..], ns, used == 0, lease);
            used += n;
        }
        self.uncharge(lease);
        (used, event)
    }

    fn step(&mut self, bytes: &[u8], ns: u64, boundary: bool, lease: &mut Lease) -> (usize, Event) {
        match self.state {
            State::Opening => self.opening(bytes, ns),
            State::Skip { left } => {
                let n = left.min(bytes.len() as u64);
                self.pos += n;
                self.state = if n == left { State::Start } else { State::Skip { left: left - n } };
                (n as usize, Event::More)
            }
            State::Start => self.start(bytes, ns, lease),
            // The caller frames the message before it feeds more.
            State::Ready => (bytes.len(), Event::More),
            State::Peek { body } => self.peek(bytes, ns, body, lease),
            State::Length { left } => {
                let n = left.min(bytes.len() as u64);
                self.keep(&bytes[..n as usize], ns, lease);
                self.state = State::Length { left: left - n };
                (n as usize, if n == left { self.finish(true) } else { Event::More })
            }
            State::Close => {
                self.keep(bytes, ns, lease);
                (bytes.len(), Event::More)
            }
            State::ChunkSize => self.chunk_size(bytes, ns, lease),
            State::ChunkData { left } => {
                let n = left.min(bytes.len() as u64);
                self.keep(&bytes[..n as usize], ns, lease);
                self.state = if n == left { State::ChunkEnd } else { State::ChunkData { left: left - n } };
                (n as usize, Event::More)
            }
            State::ChunkEnd => self.chunk_end(bytes, ns),
            State::Trailers => self.trailers(bytes, ns, lease),
            State::Lost => self.search(bytes, ns, boundary, lease),
        }
    }

    /// Says how the body of the message just begun is framed; true when that ends it. `unsure`: the request
    /// is not known, so this may be the answer to HEAD.
    pub(super) fn frame(&mut self, body: Body, unsure: bool) -> bool {
        self.message.framing = match body {
            Body::None => Framing::None,
            Body::Length(_) => Framing::Length,
            Body::Chunked => Framing::Chunked,
            Body::Close => Framing::Close,
        };
        if matches!(body, Body::None | Body::Length(0)) {
            self.finish(true);
            return true;
        }
        self.state = if unsure { State::Peek { body } } else { body_state(body) };
        false
    }

    /// `len` bytes are missing here: how many of them are accounted for, and what that means.
    pub(super) fn gap(&mut self, len: u64, cause: GapCause, lease: &mut Lease) -> (u64, Event) {
        let answer = self.miss(len, cause, lease);
        self.uncharge(lease);
        answer
    }

    fn miss(&mut self, len: u64, cause: GapCause, lease: &mut Lease) -> (u64, Event) {
        // A gap where the body of a response to nobody knows whom should begin: there may be none, so the
        // gap's place is not known either (State::Peek below).
        match self.state {
            State::Skip { left } => {
                let n = len.min(left);
                self.pos += n;
                self.state = if n == left { State::Start } else { State::Skip { left: left - n } };
                return (n, Event::More);
            }
            State::Length { left } => {
                let n = len.min(left);
                self.missing(n, cause);
                self.state = State::Length { left: left - n };
                return (n, if n == left { self.finish(true) } else { Event::More });
            }
            State::Close => {
                self.missing(len, cause);
                return (len, Event::More);
            }
            State::ChunkData { left } if len <= left => {
                self.missing(len, cause);
                self.state = if len == left { State::ChunkEnd } else { State::ChunkData { left: left - len } };
                return (len, Event::More);
            }
            _ => {}
        }
        // From here on the extent of what is missing is not known in terms of the message.
        let event = if self.in_message() {
            self.add_gap(len, cause);
            self.pos += len;
            return (len, self.lose(true));
        } else if self.buffer.is_empty() {
            self.lose(false)
        } else {
            self.cut_head(self.begin_ns, lease)
        };
        self.pos += len;
        if event == Event::CutHead {
            self.add_gap(len, cause);
        }
        (len, event)
    }

    /// No more bytes come.
    pub(super) fn end(&mut self, lease: &mut Lease) -> Event {
        let event = if self.unpeek(lease) {
            Event::End
        } else if self.in_message() {
            let whole = matches!(self.state, State::Close);
            self.finish(whole)
        } else if matches!(self.state, State::Start | State::Opening) && !self.buffer.is_empty() {
            self.cut_head(self.begin_ns, lease)
        } else {
            Event::More
        };
        self.uncharge(lease);
        event
    }

    /// Gives up on what follows until a message begins.
    pub(super) fn lose(&mut self, message: bool) -> Event {
        if message {
            self.message.wire_bytes = self.pos - self.message.offset;
        }
        self.clear_buffer();
        self.state = State::Lost;
        self.resynchronised = true;
        self.line_begins = false;
        push(&mut self.notes_ahead, Note::Resynchronised);
        Event::Lost { message }
    }

    fn finish(&mut self, ended: bool) -> Event {
        self.clear_buffer();
        self.message.ended = ended;
        self.message.wire_bytes = self.pos - self.message.offset;
        self.state = State::Start;
        Event::End
    }

    /// Adds to the buffer; false when there is no memory.
    fn gather(&mut self, bytes: &[u8], lease: &mut Lease) -> bool {
        if !lease.grow(bytes.len()) {
            return false;
        }
        self.buffer_charged += bytes.len();
        self.buffer.extend_from_slice(bytes);
        true
    }

    fn clear_buffer(&mut self) {
        self.scanned = 0;
        self.judged = false;
        if self.buffer.capacity() > 16 << 10 {
            self.buffer = Vec::new();
        } else {
            self.buffer.clear();
        }
    }

    fn uncharge(&mut self, lease: &mut Lease) {
        if self.buffer_charged > self.buffer.len() {
            lease.shrink(self.buffer_charged - self.buffer.len());
            self.buffer_charged = self.buffer.len();
        }
    }

    fn opening(&mut self, bytes: &[u8], ns: u64) -> (usize, Event) {
        let held = self.buffer.len();
        if held == 0 {
            self.begin = self.pos;
            self.begin_ns = ns;
        }
        // No more than a version 1 head is gathered before the answer is known.
        let n = bytes.len().min(128);
        self.buffer.extend_from_slice(&bytes[..n]);
        match start::proxy(&self.buffer) {
            Proxy::Open => {
                self.pos += n as u64;
                (n, Event::More)
            }
            Proxy::Head(len) => {
                self.clear_buffer();
                self.state = State::Skip { left: (len - held) as u64 };
                push(&mut self.notes_ahead, Note::ProxyProtocol);
                (0, Event::More)
            }
            Proxy::None => {
                self.buffer.truncate(held);
                let empty = self.buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
                self.buffer.drain(..empty);
                self.begin += empty as u64;
                self.state = State::Start;
                (0, Event::More)
            }
        }
    }

    fn start(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> (usize, Event) {
        let held = self.buffer.len();
        if held == 0 {
            let empty = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            if empty > 0 {
                // RFC 9112 section 2.2: empty lines before the start line are ignored.
                self.pos += empty as u64;
                return (empty, Event::More);
            }
            self.begin = self.pos;
            self.begin_ns = ns;
            self.scanned = 0;
            self.judged = false;
            // Most heads come whole: they are read where they are.
            if let Some(end) = head_end(bytes, &mut self.scanned) {
                if !self.begins_message(&bytes[..end]) {
                    return (0, self.lose(false));
                }
                self.pos += end as u64;
                return (end, self.head(&bytes[..end], ns, lease));
            }
        }
        let n = bytes.len().min(HEAD_WIRE - held);
        if !self.gather(&bytes[..n], lease) {
            push(&mut self.notes_ahead, Note::HeadTooLong);
            return (0, self.cut_head(ns, lease));
        }
        if !self.judged {
            let first = memchr(b'\n', &self.buffer[held..]);
            let line = &self.buffer[..first.map_or(self.buffer.len(), |end| held + end)];
            if !(if first.is_some() { self.begins_message(line) } else { start::may_begin(line) }) {
                // What was gathered before this delivery is gone; the search looks at this one again.
                return (0, self.lose(false));
            }
            self.judged = first.is_some();
        }
        if held > 0
            && let Some(end) = head_end(&self.buffer, &mut self.scanned)
        {
            let head = std::mem::take(&mut self.buffer);
            self.pos += (end - held) as u64;
            return (end - held, self.head(&head[..end], ns, lease));
        }
        self.pos += n as u64;
        if self.buffer.len() >= HEAD_WIRE {
            push(&mut self.notes_ahead, Note::HeadTooLong);
            return (n, self.cut_head(ns, lease));
        }
        (n, Event::More)
    }

    /// Whether the first line begins a message that this direction can carry.
    fn begins_message(&self, bytes: &[u8]) -> bool {
        let line = &bytes[..memchr(b'\n', bytes).unwrap_or(bytes.len())];
        start::start_line(line).is_some_and(|start| {
            self.role.is_none_or(|role| role == start.kind()) && (!self.resynchronised || start::is_plain(&start))
        })
    }

    fn head(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> Event {
        self.clear_buffer();
        if self.begin_message(bytes, ns, lease) {
            self.state = State::Ready;
            return Event::Head;
        }
        self.lose(false)
    }

    /// Makes a message of the whole lines of a head that breaks off here.
    fn cut_head(&mut self, ns: u64, lease: &mut Lease) -> Event {
        let buffer = std::mem::take(&mut self.buffer);
        let lines = memchr::memrchr(b'\n', &buffer).map_or(0, |end| end + 1);
        let begun = self.begin_message(&buffer[..lines], ns, lease);
        if begun {
            self.message.head_bytes = buffer.len() as u64;
        }
        self.lose(begun);
        if begun { Event::CutHead } else { Event::Lost { message: false } }
    }

    /// Parses a head; false if it begins no message, or was found by searching and is not well formed.
    fn begin_message(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> bool {
        let mut notes = std::mem::take(&mut self.notes_ahead);
        let parsed = parse(bytes, self.limits.head, self.limits.fields, &mut notes)
            .filter(|p| self.role.is_none_or(|role| role == p.kind) && !(self.resynchronised && p.malformed));
        let Some(Parsed { kind, head, facts, cost, .. }) = parsed else { return false };
        self.resynchronised = false;
        self.kind = kind;
        self.facts = facts;
        self.notes = notes;
        self.message = Message {
            head,
            head_bytes: bytes.len() as u64,
            wire_bytes: self.pos - self.begin,
            offset: self.begin,
            first_ns: self.begin_ns,
            last_ns: ns,
            ..Message::default()
        };
        if lease.grow(cost) {
            self.charged = cost;
        } else {
            self.message.starved = true;
            self.message.head.fields = Vec::new();
            push(&mut self.notes, Note::HeadTooLong);
        }
        true
    }

    /// A status line where a body should begin: this was the answer to a HEAD request.
    fn peek(&mut self, bytes: &[u8], ns: u64, body: Body, lease: &mut Lease) -> (usize, Event) {
        let held = self.buffer.len();
        if held == 0 {
            self.begin = self.pos;
            self.begin_ns = ns;
        }
        let n = bytes.len().min(STATUS_PREFIX - held);
        self.buffer.extend_from_slice(&bytes[..n]);
        if !status_prefix(&self.buffer) {
            self.buffer.truncate(held);
            if body == Body::Chunked && held > 0 {
                return (0, self.broken());
            }
            return (0, if self.unpeek(lease) { Event::End } else { Event::More });
        }
        if self.buffer.len() < STATUS_PREFIX {
            self.pos += n as u64;
            return (n, Event::More);
        }
        self.pos = self.begin;
        self.message.framing = Framing::None;
        let next = std::mem::take(&mut self.buffer);
        self.finish(true);
        self.pos += next.len() as u64;
        self.buffer = next;
        (n, Event::End)
    }

    /// What was looked at is body after all. True when it is the whole of it.
    fn unpeek(&mut self, lease: &mut Lease) -> bool {
        let State::Peek { body } = self.state else { return false };
        let mut held = std::mem::take(&mut self.buffer);
        self.pos -= held.len() as u64;
        self.state = body_state(body);
        let whole = match body {
            Body::Length(length) if length <= held.len() as u64 => length as usize,
            _ => held.len(),
        };
        let ns = self.begin_ns;
        if !held.is_empty() {
            self.keep(&held[..whole], ns, lease);
        }
        let Body::Length(length) = body else { return false };
        if whole as u64 != length {
            self.state = State::Length { left: length - whole as u64 };
            return false;
        }
        self.finish(true);
        held.drain(..whole);
        self.begin = self.pos;
        self.pos += held.len() as u64;
        self.buffer = held;
        true
    }

    /// Keeps body bytes, as far as limits and memory allow.
    fn keep(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) {
        self.pos += bytes.len() as u64;
        let message = &mut self.message;
        message.body_bytes += bytes.len() as u64;
        message.last_ns = ns;
        if message.cut || message.starved {
            return;
        }
        let room = self.limits.body - message.body.len();
        message.cut = bytes.len() > room;
        let bytes = &bytes[..bytes.len().min(room)];
        let needed = message.body.len() + bytes.len();
        if needed > message.body.capacity() {
            let stated = self.facts.length.unwrap_or(0).min(BODY_FIRST as u64) as usize;
            let wanted = needed.max(2 * message.body.capacity()).max(stated).min(self.limits.body);
            // Twice as much saves copies; where that much is not to be had, what is needed will do.
            let Some(capacity) =
                [wanted, needed].into_iter().find(|capacity| lease.grow(capacity - message.body.capacity()))
            else {
                message.starved = true;
                return;
            };
            self.charged += capacity - message.body.capacity();
            message.body.reserve_exact(capacity - message.body.len());
        }
        message.body.extend_from_slice(bytes);
    }

    /// Body bytes that are missing.
    fn missing(&mut self, len: u64, cause: GapCause) {
        self.add_gap(len, cause);
        self.message.body_bytes += len;
        self.pos += len;
    }

    fn add_gap(&mut self, len: u64, cause: GapCause) {
        let at = self.message.body_bytes;
        let gaps = &mut self.message.gaps;
        let full = gaps.len() >= GAPS;
        match gaps.last_mut() {
            Some(last) if full || (last.0 + last.1 == at && last.2 == cause) => {
                last.1 += len;
                self.message.cut |= full;
            }
            _ => gaps.push((at, len, cause)),
        }
    }

    fn broken(&mut self) -> Event {
        push(&mut self.notes, Note::BrokenChunking);
        self.lose(true)
    }

    fn chunk_size(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> (usize, Event) {
        self.message.last_ns = ns;
        let end = memchr(b'\n', bytes);
        let n = end.map_or(bytes.len(), |end| end + 1);
        let size = if end.is_some() && self.buffer.is_empty() {
            self.bare_line_feed(&bytes[..n]);
            chunk_length(&bytes[..n])
        } else if self.buffer.len() + n > CHUNK_LINE || !self.gather(&bytes[..n], lease) {
            None
        } else if end.is_none() {
            self.pos += n as u64;
            return (n, Event::More);
        } else {
            let line = std::mem::take(&mut self.buffer);
            self.bare_line_feed(&line);
            chunk_length(&line)
        };
        self.clear_buffer();
        let Some(size) = size else { return (0, self.broken()) };
        self.pos += n as u64;
        self.state = if size == 0 { State::Trailers } else { State::ChunkData { left: size } };
        (n, Event::More)
    }

    fn bare_line_feed(&mut self, line: &[u8]) {
        if !line.ends_with(b"\r\n") {
            push(&mut self.notes, Note::BareLineFeed);
        }
    }

    fn chunk_end(&mut self, bytes: &[u8], ns: u64) -> (usize, Event) {
        self.message.last_ns = ns;
        match (bytes, self.buffer.is_empty()) {
            ([b'\r', b'\n', ..], true) => {
                self.pos += 2;
                self.state = State::ChunkSize;
                (2, Event::More)
            }
            ([b'\r', ..], true) => {
                self.buffer.push(b'\r');
                self.pos += 1;
                (1, Event::More)
            }
            ([b'\n', ..], bare) => {
                if bare {
                    push(&mut self.notes, Note::BareLineFeed);
                }
                self.clear_buffer();
                self.pos += 1;
                self.state = State::ChunkSize;
                (1, Event::More)
            }
            _ => (0, self.broken()),
        }
    }

    fn trailers(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> (usize, Event) {
        self.message.last_ns = ns;
        let held = self.buffer.len();
        if held == 0
            && let Some(end) = section_end(bytes, &mut self.scanned)
        {
            self.pos += end as u64;
            self.add_trailers(&bytes[..end], lease);
            return (end, self.finish(true));
        }
        let n = bytes.len().min(HEAD_WIRE - held);
        if n == 0 || !self.gather(&bytes[..n], lease) {
            push(&mut self.notes, Note::HeadTooLong);
            return (0, self.lose(true));
        }
        if held > 0
            && let Some(end) = section_end(&self.buffer, &mut self.scanned)
        {
            let section = std::mem::take(&mut self.buffer);
            self.pos += (end - held) as u64;
            self.add_trailers(&section[..end], lease);
            return (end - held, self.finish(true));
        }
        self.pos += n as u64;
        (n, Event::More)
    }

    fn add_trailers(&mut self, section: &[u8], lease: &mut Lease) {
        if section.len() <= 2 {
            self.bare_line_feed(section);
            return;
        }
        let (fields, cost) = parse_trailers(section, self.limits.head, self.limits.fields, &mut self.notes);
        if lease.grow(cost) {
            self.charged += cost;
            self.message.trailers = fields;
        } else {
            self.message.starved = true;
        }
    }

    /// Looks for a line that begins a message.
    fn search(&mut self, bytes: &[u8], ns: u64, boundary: bool, lease: &mut Lease) -> (usize, Event) {
        if !self.buffer.is_empty() {
            let end = memchr(b'\n', bytes);
            let n = end.map_or(bytes.len(), |end| end + 1);
            let fits = self.buffer.len() + n <= SEARCH_LINE && self.gather(&bytes[..n], lease);
            let found = fits && end.is_some() && self.begins_message(&self.buffer);
            self.pos += n as u64;
            self.line_begins = end.is_some();
            if found {
                self.state = State::Start;
                self.scanned = 0;
                self.judged = true;
            } else if end.is_some() || !fits || !self.may_begin(&self.buffer) {
                self.clear_buffer();
            }
            return (n, Event::More);
        }
        let mut at = if boundary || self.line_begins {
            0
        } else {
            match memchr(b'\n', bytes) {
                Some(end) => end + 1,
                None => bytes.len(),
            }
        };
        self.line_begins = false;
        while at < bytes.len() {
            let Some(end) = memchr(b'\n', &bytes[at..]) else { break };
            if self.begins_message(&bytes[at..at + end]) {
                self.pos += at as u64;
                self.state = State::Start;
                return (at, Event::More);
            }
            at += end + 1;
        }
        let rest = &bytes[at..];
        if !rest.is_empty() && rest.len() <= SEARCH_LINE && self.may_begin(rest) && self.gather(rest, lease) {
            self.begin = self.pos + at as u64;
            self.begin_ns = ns;
        }
        self.pos += bytes.len() as u64;
        (bytes.len(), Event::More)
    }

    fn may_begin(&self, line: &[u8]) -> bool {
        match self.role {
            Some(Kind::Response) => status_prefix(line),
            _ => start::may_begin(line),
        }
    }
}

fn body_state(body: Body) -> State {
    match body {
        Body::None => State::Start,
        Body::Length(left) => State::Length { left },
        Body::Chunked => State::ChunkSize,
        Body::Close => State::Close,
    }
}

/// The number that begins a chunk-size line (RFC 9112 section 7.1); extensions are not looked at.
fn chunk_length(line: &[u8]) -> Option<u64> {
    let line = chomp(line);
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let rest = trim(&line[digits..]);
    if digits == 0 || !(rest.is_empty() || rest[0] == b';') {
        return None;
    }
    line[..digits].iter().try_fold(0u64, |sum, digit| {
        let value = u64::from((*digit as char).to_digit(16)?);
        Some(sum * 16 + value).filter(|sum| *sum < 1 << 58)
    })
}

/// End of a trailer section: behind its empty line, which may be all of it.
fn section_end(bytes: &[u8], scanned: &mut usize) -> Option<usize> {
    match bytes {
        [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        [b'\r'] => None,
        _ => head_end(bytes, scanned),
    }
}
