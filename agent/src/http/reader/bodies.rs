//! Bodies, chunk framing and trailers: the part of [`Reader`] behind a message's head.

use memchr::memchr;

use super::super::exchange::{Framing, GapCause, Note};
use super::super::head::{head_end, parse_trailers, push, trim};
use super::super::start::{STATUS_PREFIX, chomp, status_prefix};
use super::{Body, Event, Reader, State};
use crate::flow::Lease;

/// Longest trailer section that is read at all, bytes on the wire.
const TRAILERS_WIRE: usize = 1 << 20;
/// Longest chunk-size line with its extensions, bytes.
const CHUNK_LINE: usize = 16 << 10;
/// Gaps listed for one message; behind the last of them no more of its body is kept.
const GAPS: usize = 256;
/// A body's first allocation is its stated length up to this, bytes: a stated length alone costs no memory.
const BODY_FIRST: usize = 256 << 10;

impl Reader {
    /// A status line where a body should begin: this was the answer to a HEAD request.
    pub(super) fn peek(&mut self, bytes: &[u8], ns: u64, body: Body, lease: &mut Lease) -> (usize, Event) {
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
    pub(super) fn unpeek(&mut self, lease: &mut Lease) -> bool {
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
    pub(super) fn keep(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) {
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
    pub(super) fn missing(&mut self, len: u64, cause: GapCause) {
        self.add_gap(len, cause);
        self.message.body_bytes += len;
        self.pos += len;
    }

    pub(super) fn add_gap(&mut self, len: u64, cause: GapCause) {
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

    pub(super) fn broken(&mut self) -> Event {
        push(&mut self.notes, Note::BrokenChunking);
        self.lose(true)
    }

    pub(super) fn chunk_size(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> (usize, Event) {
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

    pub(super) fn bare_line_feed(&mut self, line: &[u8]) {
        if !line.ends_with(b"\r\n") {
            push(&mut self.notes, Note::BareLineFeed);
        }
    }

    pub(super) fn chunk_end(&mut self, bytes: &[u8], ns: u64) -> (usize, Event) {
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

    pub(super) fn trailers(&mut self, bytes: &[u8], ns: u64, lease: &mut Lease) -> (usize, Event) {
        self.message.last_ns = ns;
        let held = self.buffer.len();
        if held == 0
            && let Some(end) = section_end(bytes, &mut self.scanned)
        {
            self.pos += end as u64;
            self.add_trailers(&bytes[..end], lease);
            return (end, self.finish(true));
        }
        let n = bytes.len().min(TRAILERS_WIRE - held);
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

    pub(super) fn add_trailers(&mut self, section: &[u8], lease: &mut Lease) {
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
}

pub(super) fn body_state(body: Body) -> State {
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
