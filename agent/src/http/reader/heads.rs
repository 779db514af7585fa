//! Heads and the search for them: the part of [`Reader`] before a message's body.

use memchr::{memchr, memrchr};

use super::super::exchange::{Message, Note};
use super::super::head::{Parsed, head_end, parse, push};
use super::super::start::{self, Kind, Proxy, status_prefix};
use super::{Event, Reader, State};
use crate::flow::Lease;

/// Longest head that is read at all, bytes on the wire.
const HEAD_WIRE: usize = 1 << 20;
/// Longest first line that the search for a message considers, bytes.
const SEARCH_LINE: usize = 16 << 10;

impl Reader {
    pub(super) fn opening(&mut self, bytes: &[u8], ns: u64) -> (usize, Event) {
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

    pub(super) fn start(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> (usize, Event) {
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
    pub(super) fn begins_message(&self, bytes: &[u8]) -> bool {
        let line = &bytes[..memchr(b'\n', bytes).unwrap_or(bytes.len())];
        start::start_line(line).is_some_and(|start| {
            self.role.is_none_or(|role| role == start.kind()) && (!self.resynchronised || start::is_plain(&start))
        })
    }

    pub(super) fn head(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> Event {
        self.clear_buffer();
        if self.begin_message(bytes, ns, lease) {
            self.state = State::Ready;
            return Event::Head;
        }
        self.lose(false)
    }

    /// Makes a message of the whole lines of a head that breaks off here.
    pub(super) fn cut_head(&mut self, ns: u64, lease: &mut Lease) -> Event {
        let buffer = std::mem::take(&mut self.buffer);
        let lines = memrchr(b'\n', &buffer).map_or(0, |end| end + 1);
        let begun = self.begin_message(&buffer[..lines], ns, lease);
        if begun {
            self.message.head_bytes = buffer.len() as u64;
        }
        self.lose(begun);
        if begun { Event::CutHead } else { Event::Lost { message: false } }
    }

    /// Parses a head; false if it begins no message, or was found by searching and is not well formed.
    pub(super) fn begin_message(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> bool {
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

    /// Looks for a line that begins a message.
    pub(super) fn search(&mut self, bytes: &[u8], ns: u64, boundary: bool, lease: &mut Lease) -> (usize, Event) {
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

    pub(super) fn may_begin(&self, line: &[u8]) -> bool {
        match self.role {
            Some(Kind::Response) => status_prefix(line),
            _ => start::may_begin(line),
        }
    }
}
