//! One direction of a handshake: takes the record layer off (RFC 8446 section 5.1) and finds the hello.
//!
//! In: bytes of the direction in any portions. Out: [`Heard`], one thing at a time. Messages may be fragmented over
//! records and share one; only the hello's own bytes are held.

use super::{LIMIT, cursor::Cursor};

/// What one direction said.
#[derive(Debug)]
pub(super) enum Heard {
    /// The body of a `ClientHello`, or its beginning.
    ClientHello { body: Vec<u8>, whole: bool },
    /// The body of a `ServerHello` or a `HelloRetryRequest`, or its beginning.
    ServerHello { body: Vec<u8>, whole: bool },
    /// An alert in the clear.
    Alert { code: u8 },
    /// The direction begins with application data.
    Encrypted,
    /// The direction begins with something else than a record.
    NotTls,
    /// What no TLS library sends; nothing more is read.
    Malformed(&'static str),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// No hello yet.
    #[default]
    Reading,
    /// The hello was handed on; alerts are still looked for.
    Read,
    /// Nothing is read any more.
    Closed,
}

/// Content types (RFC 8446 section 5.1, RFC 6520).
mod content {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
    pub(super) const HEARTBEAT: u8 = 24;
}

/// Handshake types (RFC 8446 section 4; RFC 5246 section 7.4 for the first).
mod message {
    pub(super) const HELLO_REQUEST: u8 = 0;
    pub(super) const CLIENT_HELLO: u8 = 1;
    pub(super) const SERVER_HELLO: u8 = 2;
}

/// Bytes before the body of a handshake message: type, and length in three bytes.
const MESSAGE_HEADER: usize = 4;

/// Longest payload of a record: 2^14 and what encryption may add up to TLS 1.2 (RFC 5246 section 6.2.3).
const LONGEST_RECORD: usize = (1 << 14) + 2048;

/// One direction.
#[derive(Clone, Debug, Default)]
pub(super) struct Direction {
    state: State,
    /// Bytes taken so far, [`LIMIT`] at most.
    taken: usize,
    /// Header of the record: type, version, length.
    header: [u8; 5],
    /// How much of the header is there.
    header_len: usize,
    /// Payload of the record that is still to come.
    left: usize,
    /// Level and code of an alert.
    alert: [u8; 2],
    /// The handshake message so far, with its header.
    message: Vec<u8>,
}

impl Direction {
    /// Takes from `bytes` up to the next thing that was said; `None` when they are used up or nothing more is read.
    pub(super) fn next(&mut self, bytes: &mut &[u8]) -> Option<Heard> {
        while self.state != State::Closed {
            if self.taken == LIMIT {
                return self.cut();
            }
            let within = bytes.len().min(LIMIT - self.taken);
            let available = bytes.get(..within).filter(|bytes| !bytes.is_empty())?;
            let (taken, heard) = if self.header_len < self.header.len() {
                self.take_header(available)
            } else {
                self.take_payload(available)
            };
            self.taken += taken;
            *bytes = bytes.get(taken..).unwrap_or_default();
            if self.header_len == self.header.len() && self.left == 0 {
                self.header_len = 0;
            }
            if heard.is_some() {
                return heard;
            }
        }
        None
    }

    /// No more bytes will come: the beginning of a hello, if there is one.
    pub(super) fn cut(&mut self) -> Option<Heard> {
        let reading = self.state == State::Reading;
        self.state = State::Closed;
        let mut body = std::mem::take(&mut self.message);
        if !reading || body.len() <= MESSAGE_HEADER {
            return None;
        }
        let kind = body.drain(..MESSAGE_HEADER).next();
        let whole = false;
        match kind {
            Some(message::CLIENT_HELLO) => Some(Heard::ClientHello { body, whole }),
            _ => Some(Heard::ServerHello { body, whole }),
        }
    }

    /// Reads nothing more.
    pub(super) fn give_up(&mut self) {
        self.state = State::Closed;
        self.message = Vec::new();
    }

    /// What was handed on was not the hello: reads on, unless the bytes have come to their end.
    pub(super) fn go_on(&mut self) {
        if self.state == State::Read {
            self.state = State::Reading;
        }
    }

    /// The hello was handed on, or will not come.
    pub(super) fn is_settled(&self) -> bool {
        self.state != State::Reading
    }

    /// Bytes of memory held.
    pub(super) fn held(&self) -> usize {
        self.message.capacity()
    }

    fn take_header(&mut self, bytes: &[u8]) -> (usize, Option<Heard>) {
        let missing = self.header.get_mut(self.header_len..).unwrap_or_default();
        let count = missing.len().min(bytes.len());
        for (to, from) in missing.iter_mut().zip(bytes) {
            *to = *from;
        }
        self.header_len += count;
        if self.header_len < self.header.len() {
            return (count, None);
        }
        let [kind, major, _, high, low] = self.header;
        self.left = usize::from(u16::from_be_bytes([high, low]));
        let known = (content::CHANGE_CIPHER_SPEC..=content::HEARTBEAT).contains(&kind);
        let is_first = self.taken + count == self.header.len();
        let heard = if !known || major != 3 || self.left > LONGEST_RECORD {
            let heard = if is_first { Heard::NotTls } else { Heard::Malformed("no record where one should begin") };
            self.refuse(heard)
        } else if kind == content::APPLICATION_DATA {
            let heard = if is_first { Heard::Encrypted } else { Heard::Malformed("application data before the hello") };
            self.refuse(heard)
        } else if kind == content::ALERT && self.left != self.alert.len() {
            // Encrypted: alerts in the clear are not fragmented.
            self.refuse(Heard::Malformed("an encrypted alert before the hello"))
        } else {
            None
        };
        (count, heard)
    }

    /// Closes. Behind the hello, whatever comes is in order.
    fn refuse(&mut self, heard: Heard) -> Option<Heard> {
        let reading = self.state == State::Reading;
        self.give_up();
        reading.then_some(heard)
    }

    fn take_payload(&mut self, bytes: &[u8]) -> (usize, Option<Heard>) {
        let bytes = bytes.get(..self.left).unwrap_or(bytes);
        let [kind, ..] = self.header;
        let (count, heard) = match kind {
            content::HANDSHAKE if self.state == State::Reading => self.take_message(bytes),
            content::ALERT => (1, self.take_alert(bytes)),
            _ => (bytes.len(), None),
        };
        self.left -= count;
        (count, heard)
    }

    fn take_alert(&mut self, bytes: &[u8]) -> Option<Heard> {
        let [_, before] = self.alert;
        self.alert = [before, *bytes.first()?];
        if self.left > 1 {
            return None;
        }
        let [level, code] = self.alert;
        // A warning (1) does not end the handshake, unless it is close_notify (RFC 5246 section 7.2).
        if level != 1 || code == 0 {
            self.give_up();
        }
        Some(Heard::Alert { code })
    }

    /// Takes no more than what the message lacks.
    fn take_message(&mut self, bytes: &[u8]) -> (usize, Option<Heard>) {
        let lacking = match self.length() {
            None => MESSAGE_HEADER - self.message.len(),
            Some(length) => MESSAGE_HEADER + length - self.message.len(),
        };
        let part = bytes.get(..lacking).unwrap_or(bytes);
        self.message.extend_from_slice(part);
        (part.len(), self.take_whole())
    }

    /// The length of the message's body, once its header is there.
    fn length(&self) -> Option<usize> {
        let [_, a, b, c] = Cursor(&self.message).array()?;
        Some(u32::from_be_bytes([0, a, b, c]) as usize)
    }

    fn take_whole(&mut self) -> Option<Heard> {
        let length = self.length()?;
        let kind = *self.message.first()?;
        match kind {
            message::HELLO_REQUEST if length == 0 => {
                self.message.clear();
                return None;
            }
            message::CLIENT_HELLO | message::SERVER_HELLO => {}
            _ => return self.refuse(Heard::Malformed("a handshake that does not begin with a hello")),
        }
        let size = MESSAGE_HEADER + length;
        if self.message.len() < size {
            self.message.reserve_exact(size.min(LIMIT).saturating_sub(self.message.len()));
            return None;
        }
        self.state = State::Read;
        let mut body = std::mem::take(&mut self.message);
        body.drain(..MESSAGE_HEADER);
        let whole = true;
        Some(match kind {
            message::CLIENT_HELLO => Heard::ClientHello { body, whole },
            _ => Heard::ServerHello { body, whole },
        })
    }
}
