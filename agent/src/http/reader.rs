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

mod bodies;
mod heads;

use super::Limits;
use super::exchange::{Framing, GapCause, Message, Note};
use super::head::{Facts, push};
use super::start::Kind;
use crate::flow::Lease;
use bodies::body_state;

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
        if self.in_message() {
            // Taken before its end, at a hand-over.
            self.message.wire_bytes = self.pos - self.message.offset;
        }
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
}
