//! TLS facts of a connection, from the handshake's bytes on the wire.
//!
//! In: the first bytes of both directions of a connection, in stream order and in any portions, and the news that
//! bytes are missing. Out: [`Facts`]: server name, protocols offered and chosen, version, cipher suite, and why a
//! handshake failed. Called by `pipeline` for connections that are TLS, whether their plaintext is read or not.
//!
//! Pure: no I/O, no clock. At most [`LIMIT`] bytes of a direction are looked at, and held only until its hello is
//! read. Any bytes may come: nothing here panics, and every text that comes out is printable ASCII of bounded length.
//!
//! What is not understood: DTLS (UDP), a `ClientHello` in `SSLv2` framing (RFC 5246 appendix E.2; its sender cannot
//! ask for a server name), TLCP. Such a connection is given up at its first bytes. With Encrypted Client Hello the
//! facts are those of the outer hello: its server name is the public one.
//!
//! `record` takes the record layer off, `client` and `server` read the hellos with `cursor`; `suites` and `alert`
//! have the names.

mod alert;
mod client;
mod cursor;
mod record;
mod server;
mod suites;

#[doc(hidden)]
pub mod fuzz;

#[cfg(test)]
mod tests;

use crate::http::Side;

use record::{Direction, Heard};

/// Bytes of one direction that are looked at: as many as the kernel side copies of it. A hello that is longer is read
/// as far as it goes.
pub const LIMIT: usize = 4096;

/// How much of a hello was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Nothing: not sent, missing, or not understood.
    #[default]
    No,
    /// Its beginning; members that are empty may have stood in the rest.
    Part,
    /// All of it; members that are empty were not sent.
    Whole,
}

/// What a handshake says in the clear. A text is empty when it was not sent or not seen; it is printable ASCII, other
/// bytes are written `\xHH`, and so are `,` and `\` in names of protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Who sent the `ClientHello`, or did not send the `ServerHello`.
    pub client: Option<Side>,
    /// How much of the first `ClientHello` was read.
    pub client_hello: Seen,
    /// How much of the `ServerHello` was read.
    pub server_hello: Seen,
    /// Server name that the client asked for (RFC 6066 section 3); at most 255 bytes, a longer one is left out.
    pub sni: String,
    /// Protocols that the client offered, in its order (RFC 7301): the first 16, without reserved ones (RFC 8701).
    pub alpn_offered: Vec<String>,
    /// Highest version that the client offered, written as [`Facts::version`].
    pub version_offered: String,
    /// Protocol that the `ServerHello` names. Always empty with TLS 1.3, which encrypts it: see [`Facts::chosen`].
    pub alpn: String,
    /// Version negotiated: `TLSv1.3`, `TLSv1.2`, `TLSv1.1`, `TLSv1.0`, `SSLv3`, else its number such as `0x0305`.
    pub version: String,
    /// Cipher suite negotiated: its IANA name, or its number such as `0x1A2B` when it has none here.
    pub cipher: String,
    /// Why the handshake failed before a `ServerHello`: an alert of either side, such as
    /// `alert handshake_failure (40)`, or `answer is not TLS`. Alerts after the `ServerHello` are not looked at:
    /// TLS 1.3 encrypts them.
    pub error: String,
    /// The first thing in the hellos that no TLS library sends.
    pub malformed: Option<&'static str>,
}

impl Facts {
    /// The protocol that runs inside, with `seen`, what the plaintext shows (`http/1.1`, `h2`), when it was read.
    ///
    /// Up to TLS 1.2 it is the `ServerHello`'s word, and empty when a whole one names none. TLS 1.3 encrypts the
    /// server's choice; then it is what the plaintext shows, if the client offered that. A server that chose none and
    /// speaks what it would have chosen cannot be told from one that chose. Without plaintext it is empty, also when
    /// one protocol alone was offered: a server may ignore the offer (RFC 7301 section 3.2).
    #[must_use]
    pub fn chosen(&self, seen: Option<&str>) -> String {
        if !self.alpn.is_empty() {
            return self.alpn.clone();
        }
        if self.server_hello == Seen::Whole && self.version != "TLSv1.3" {
            return String::new();
        }
        let offered = |name: &&str| self.alpn_offered.iter().any(|offered| offered == name);
        seen.filter(offered).map(str::to_owned).unwrap_or_default()
    }
}

/// Both directions of one connection's handshake, each fed in its own order.
#[derive(Clone, Debug, Default)]
pub struct Handshake {
    a: Direction,
    b: Direction,
    /// The side that speaks something else than TLS.
    foreign: Option<Side>,
    facts: Facts,
}

impl Handshake {
    /// A connection of which nothing has been read.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The next bytes of one direction, from the direction's first byte on and in any portions. `from` is the
    /// sender; which side is the client is learned from who sends a `ClientHello`.
    pub fn bytes(&mut self, from: Side, bytes: &[u8]) {
        let mut bytes = bytes;
        while !self.done() {
            match self.direction(from).next(&mut bytes) {
                None => return,
                Some(heard) => self.hear(from, heard),
            }
        }
    }

    /// The next bytes of this direction are missing, or it has ended: what is held of its hello is read, and nothing
    /// more.
    pub fn gap(&mut self, from: Side) {
        if self.done() {
            return;
        }
        if let Some(heard) = self.direction(from).cut() {
            self.hear(from, heard);
        }
    }

    /// Nothing more can be learned: both hellos were read, or are given up. No memory is held then.
    #[must_use]
    pub fn done(&self) -> bool {
        self.a.is_settled() && self.b.is_settled()
    }

    /// What is known by now. Nothing in it changes once [`Handshake::done`].
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The facts, when the connection has ended.
    #[must_use]
    pub fn into_facts(self) -> Facts {
        self.facts
    }

    /// Bytes of memory held besides the facts.
    fn held(&self) -> usize {
        self.a.held() + self.b.held()
    }

    fn direction(&mut self, side: Side) -> &mut Direction {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    fn hear(&mut self, from: Side, heard: Heard) {
        let facts = &mut self.facts;
        match heard {
            Heard::ClientHello { body, whole } => {
                if facts.client == Some(other(from)) {
                    facts.malformed.get_or_insert("both sides sent a ClientHello");
                    return self.direction(from).give_up();
                }
                facts.client = Some(from);
                client::read(&body, whole, facts);
            }
            Heard::ServerHello { body, whole } => {
                if facts.client == Some(from) {
                    facts.malformed.get_or_insert("a client sent a ServerHello");
                    return self.direction(from).give_up();
                }
                if server::is_retry(&body) {
                    return self.direction(from).go_on();
                }
                facts.client = Some(other(from));
                // A warning that came before was no failure.
                facts.error.clear();
                server::read(&body, whole, facts);
            }
            Heard::Alert { code } => {
                if facts.server_hello == Seen::No {
                    facts.error = alert::text(code);
                }
            }
            Heard::Encrypted => {
                // Application data before a hello: the connection is older than the agent.
                self.a.give_up();
                self.b.give_up();
            }
            Heard::NotTls => {
                facts.malformed.get_or_insert("no TLS record");
                self.foreign = Some(from);
            }
            Heard::Malformed(what) => {
                facts.malformed.get_or_insert(what);
            }
        }
        // Which of the two directions is read first depends on the host's CPUs.
        if self.facts.client.is_some() && self.foreign == self.facts.client.map(other) {
            "answer is not TLS".clone_into(&mut self.facts.error);
        }
    }
}

fn other(side: Side) -> Side {
    match side {
        Side::A => Side::B,
        Side::B => Side::A,
    }
}

/// Extension types (IANA registry "TLS `ExtensionType` Values").
mod extension {
    /// `server_name`.
    pub(super) const SERVER_NAME: u16 = 0;
    /// `application_layer_protocol_negotiation`.
    pub(super) const PROTOCOLS: u16 = 16;
    /// `supported_versions`.
    pub(super) const VERSIONS: u16 = 43;
}

/// A version as people write it.
fn version(number: u16) -> String {
    match number {
        0x0304 => "TLSv1.3".to_owned(),
        0x0303 => "TLSv1.2".to_owned(),
        0x0302 => "TLSv1.1".to_owned(),
        0x0301 => "TLSv1.0".to_owned(),
        0x0300 => "SSLv3".to_owned(),
        other => format!("0x{other:04X}"),
    }
}

/// Values that clients send to keep servers tolerant and that mean nothing (RFC 8701): `0x0A0A`, `0x1A1A`, …
fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

/// Bytes as printable ASCII: what is none, and the bytes in `also`, as `\xHH`.
fn printable(bytes: &[u8], also: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && !also.contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02X}");
        }
    }
    text
}
