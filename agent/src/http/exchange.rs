//! What the HTTP parsers hand on: exchanges as seen on the wire.

/// One of the two directions of a connection. Which of them carries requests is found by the parser.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Sent by the end that the connection's record calls local.
    A,
    /// Received by it.
    B,
}

/// Why bytes are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapCause {
    /// The ring between kernel and agent was full.
    Ring,
    /// The kernel side stops copying a long run after a limit.
    Cap,
    /// The agent's own budget for bodies and reassembly was spent.
    Memory,
    /// The bytes never passed the hook, or a segment was refused by TCP.
    Unseen,
}

impl GapCause {
    /// The word in the object's `completeness`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            GapCause::Ring => "ring",
            GapCause::Cap => "cap",
            GapCause::Memory => "memory",
            GapCause::Unseen => "unseen",
        }
    }
}

/// How the end of a message was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// No body: HEAD, 1xx, 204, 304, or neither length nor transfer coding.
    #[default]
    None,
    /// Content-Length.
    Length,
    /// Transfer-Encoding: chunked.
    Chunked,
    /// Until the connection closed.
    Close,
}

/// A finding about an exchange that does not stop it from being kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Note {
    /// Several differing lengths, or a length beside a transfer coding (RFC 9112 section 6.3).
    ConflictingFraming,
    /// Lines ended by a bare line feed.
    BareLineFeed,
    /// Obsolete line folding was undone (RFC 9112 section 5.2).
    ObsoleteFolding,
    /// A field line that is not `name: value` was kept as its own line.
    MalformedField,
    /// The head was longer than the limit; fields beyond it are missing.
    HeadTooLong,
    /// Bytes before this message could not be understood and were skipped.
    Resynchronised,
    /// A PROXY protocol head came first.
    ProxyProtocol,
    /// Two copies of the same bytes differed (`flow` says so).
    RetransmissionDiffers,
    /// The chunk framing was broken.
    BrokenChunking,
}

impl Note {
    /// The word in the object's `completeness.notes`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Note::ConflictingFraming => "conflicting-framing",
            Note::BareLineFeed => "bare-line-feed",
            Note::ObsoleteFolding => "obsolete-folding",
            Note::MalformedField => "malformed-field",
            Note::HeadTooLong => "head-too-long",
            Note::Resynchronised => "resynchronised",
            Note::ProxyProtocol => "proxy-protocol",
            Note::RetransmissionDiffers => "retransmission-differs",
            Note::BrokenChunking => "broken-chunking",
        }
    }
}

/// Start line and fields, as bytes on the wire; values without surrounding white space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Request: method. Response: empty.
    pub method: Vec<u8>,
    /// Request: target as sent. Response: reason phrase.
    pub target: Vec<u8>,
    /// Response: status code. Request: 0.
    pub status: u16,
    /// 10 for HTTP/1.0, 11 for HTTP/1.1, 20 for HTTP/2.
    pub version: u8,
    /// Fields in order, with repeats. A line that is not `name: value` has an empty name and is the value.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Head {
    /// Values of a field, in order; `name` in lower case.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> + 'a {
        self.fields.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.as_slice())
    }

    /// Whether this is an interim response, which another follows (RFC 9110 section 15.2; 101 is the last
    /// response of its connection as HTTP/1).
    #[must_use]
    pub fn is_interim(&self) -> bool {
        (100..200).contains(&self.status) && self.status != 101
    }

    /// The first value of a field; `name` in lower case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v.as_slice())
    }
}

/// One message of an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Start line and header fields.
    pub head: Head,
    /// Body without transfer coding, up to the limit.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of the head on the wire.
    pub head_bytes: u64,
    /// Bytes of the body without chunk framing, missing ones included where their number is known.
    pub body_bytes: u64,
    /// Bytes of the whole message on the wire.
    pub wire_bytes: u64,
    /// How its end is known.
    pub framing: Framing,
    /// Its end was reached: the last byte was seen, or is inside a gap of known extent (or, with
    /// [`Framing::Close`], the close was seen).
    pub ended: bool,
    /// Bytes of the body beyond the limit were seen and not kept.
    pub cut: bool,
    /// Bytes were not kept because the memory budget was spent.
    pub starved: bool,
    /// Missing bytes: offset in the body (counted with the missing ones), number, cause. [`Message::body`] has
    /// nothing in their place. Where the gap reaches beyond the body, or its place in it is not known (head,
    /// chunk framing), the message breaks off there and the number is that of the stream.
    pub gaps: Vec<(u64, u64, GapCause)>,
    /// Stream offset of its first byte.
    pub offset: u64,
    /// Kernel time of its first byte, nanoseconds.
    pub first_ns: u64,
    /// Kernel time of its last byte seen.
    pub last_ns: u64,
}

/// A request with its response, or one of them alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exchange {
    /// Absent for an unasked response.
    pub request: Option<Message>,
    /// Absent for an unanswered request.
    pub response: Option<Message>,
    /// Interim responses (100, 103, …; never 101 of an upgrade) that came before.
    pub interim: Vec<Head>,
    /// Findings, sorted, each once.
    pub notes: Vec<Note>,
    /// Number of this exchange on its connection, from 0.
    pub number: u64,
    /// The direction that carried the request (for an unasked response: the other one).
    pub client: Option<Side>,
}

/// What a connection's parser hands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// An exchange has ended.
    Exchange(Box<Exchange>),
    /// From here on the connection carries something else (101 Upgrade, or 2xx to CONNECT); bytes that
    /// follow are not HTTP/1 of this connection. The exchange itself was handed on before.
    Handover {
        /// `websocket`, `h2c`, `connect` or the upgrade token in lower case.
        protocol: String,
    },
    /// What was taken for HTTP is not: copying can stop.
    NotHttp,
}
