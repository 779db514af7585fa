//! The object: one transaction as it is stored, in the JSON shape of Qtap's HTTP transaction, with further
//! members for what that shape cannot hold.
//!
//! The shape is a promise to users: members are added, never renamed or given another meaning. A member
//! that would be empty is left out.

use serde::{Deserialize, Serialize};

use crate::Level;

/// One HTTP transaction, as stored and read back.
pub type Transaction = Form<Metadata, Request, Response, String, Completeness, Process, Connection, Tls, Redaction>;

/// The members of a [`Transaction`], their names and their order. Its parts may be values, references, or what has
/// been written already ([`crate::seal`]): all of them give the same bytes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Form<M, Q, A, T, C, P, N, L, R> {
    /// Who was observed, and how the transaction is linked to others.
    pub metadata: M,
    /// The request; absent when only a response was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Q>,
    /// The response; absent when none was seen. No status is ever invented.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<A>,
    /// When the request's first byte was seen: RFC 3339, UTC, nanoseconds.
    pub transaction_time: T,
    /// First byte of the request to last byte of the response, in milliseconds (kernel time).
    pub duration_ms: f64,
    /// `ingress`, `egress-internal` or `egress-external`, seen from the observed process.
    pub direction: Direction,
    /// Which end of the connection the observed process is.
    pub end: End,
    /// The level that this object was kept at.
    pub level: Level,
    /// Name of the rule that chose the level; absent when it was the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<T>,
    /// The same at both local ends of one exchange.
    pub exchange_id: T,
    /// Why there is no whole exchange, in the words of OpenTelemetry's `error.type`; absent when there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_type: Option<T>,
    /// Parts of the exchange's time, in nanoseconds of the kernel's monotonic clock.
    pub timing: Timing,
    /// What was seen, kept, cut and lost.
    pub completeness: C,
    /// The observed process.
    pub process: P,
    /// The socket that carried the exchange.
    pub connection: N,
    /// TLS facts; absent on cleartext.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<L>,
    /// What was replaced before anything was stored.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redactions: Vec<R>,
}

/// Text in an object: `String` where it was read back, borrowed where it is written.
pub trait Text: Serialize + AsRef<str> {}

impl<T: Serialize + AsRef<str>> Text for T {}

fn is_empty<T: AsRef<str>>(text: &T) -> bool {
    text.as_ref().is_empty()
}

/// Members that Qtap's objects have under `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, bound(serialize = "T: Text", deserialize = "T: Deserialize<'de> + Default"))]
pub struct Metadata<T = String> {
    /// Process id, as text.
    pub process_id: T,
    /// Path of the executable.
    pub process_exe: T,
    /// Container's name, when known.
    #[serde(skip_serializing_if = "is_empty")]
    pub container_name: T,
    /// Container's image, when known.
    #[serde(skip_serializing_if = "is_empty")]
    pub container_image: T,
    /// Pod's name, when known.
    #[serde(skip_serializing_if = "is_empty")]
    pub pod_name: T,
    /// Pod's namespace, when known.
    #[serde(skip_serializing_if = "is_empty")]
    pub pod_namespace: T,
    /// Bytes that the observed process sent in this exchange: message heads and bodies as on the wire.
    pub bytes_sent: u64,
    /// Bytes that the observed process received in this exchange.
    pub bytes_received: u64,
    /// Identifier of this end of the exchange.
    pub request_id: T,
    /// Identifier of the socket; the same in all its transactions and connection events.
    pub connection_id: T,
    /// Remote domain or address.
    pub endpoint_id: T,
    /// `key:value` tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<T>,
    /// Name of the host that captured.
    pub host_name: T,
}

/// The request's side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    default,
    bound(
        serialize = "T: Text, B: AsRef<[u8]>",
        deserialize = "T: Deserialize<'de> + Default, B: AsRef<[u8]> + From<Vec<u8>> + Default"
    )
)]
pub struct Request<T = String, B: AsRef<[u8]> = Vec<u8>> {
    /// Method as sent.
    pub method: T,
    /// Absolute address with the query string, redacted.
    pub url: T,
    /// `http` or `https`.
    pub scheme: T,
    /// Path without the query string.
    pub path: T,
    /// Host and port as asked for.
    pub authority: T,
    /// `http1` or `http2`, as Qtap writes it.
    pub protocol: T,
    /// Version as on the wire: `HTTP/1.0`, `HTTP/1.1`, `HTTP/2`.
    pub version: T,
    /// Value of `X-Request-Id`, when there is one.
    #[serde(skip_serializing_if = "is_empty")]
    pub request_id: T,
    /// Value of `User-Agent`.
    #[serde(skip_serializing_if = "is_empty")]
    pub user_agent: T,
    /// Value of `Content-Type`.
    #[serde(skip_serializing_if = "is_empty")]
    pub content_type: T,
    /// Headers with canonical names, repeated ones joined by `, ` (`Set-Cookie` by a line feed), and the
    /// pseudo headers `:authority :method :path :scheme`. Absent at level summary.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers<T>,
    /// Header fields as sent: names, order and repeats. Absent at level summary.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header_list: Vec<(T, T)>,
    /// Trailer fields as sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailer_list: Vec<(T, T)>,
    /// Body after transfer and content decoding and redaction, base64. Absent when empty or not kept.
    #[serde(skip_serializing_if = "Body::is_empty")]
    pub body: Body<B>,
}

/// The response's side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(
    default,
    bound(
        serialize = "T: Text, B: AsRef<[u8]>",
        deserialize = "T: Deserialize<'de> + Default, B: AsRef<[u8]> + From<Vec<u8>> + Default"
    )
)]
pub struct Response<T = String, B: AsRef<[u8]> = Vec<u8>> {
    /// Status code.
    pub status: u16,
    /// Reason phrase as sent.
    #[serde(skip_serializing_if = "is_empty")]
    pub reason: T,
    /// Version as on the wire.
    pub version: T,
    /// Value of `Content-Type`.
    #[serde(skip_serializing_if = "is_empty")]
    pub content_type: T,
    /// As in the request; the pseudo header is `:status`.
    #[serde(skip_serializing_if = "Headers::is_empty")]
    pub headers: Headers<T>,
    /// Header fields as sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header_list: Vec<(T, T)>,
    /// Trailer fields as sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailer_list: Vec<(T, T)>,
    /// Interim responses (1xx) that came before, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub interim: Vec<Interim<T>>,
    /// Body after decoding and redaction, base64. Absent when empty or not kept.
    #[serde(skip_serializing_if = "Body::is_empty")]
    pub body: Body<B>,
}

/// An interim response.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "T: Deserialize<'de> + Default"))]
pub struct Interim<T = String> {
    /// 100 to 199.
    pub status: u16,
    /// Header fields as sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header_list: Vec<(T, T)>,
}

/// `headers`: a JSON object of strings, in order of first appearance.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Headers<T = String>(pub Vec<(T, T)>);

impl<T> Headers<T> {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: AsRef<str>> Headers<T> {
    /// The joined value of a header; `name` in any case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n.as_ref().eq_ignore_ascii_case(name)).map(|(_, v)| v.as_ref())
    }
}

/// Body bytes; base64 (RFC 4648 section 4, padded) in JSON.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Body<B: AsRef<[u8]> = Vec<u8>>(pub B);

impl<B: AsRef<[u8]>> Body<B> {
    /// Whether there are no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_empty()
    }
}

impl<B: AsRef<[u8]>> std::fmt::Debug for Body<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Body({} bytes)", self.0.as_ref().len())
    }
}

/// Direction as Qtap names it. Loopback, RFC 1918, `fc00::/7`, link-local, 100.64/10 and the host's own
/// addresses are internal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// The observed process accepted the connection.
    Ingress,
    /// It connected, to an internal address.
    #[default]
    EgressInternal,
    /// It connected, to any other address.
    EgressExternal,
}

impl Direction {
    /// The name in objects, events and rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Direction::Ingress => "ingress",
            Direction::EgressInternal => "egress-internal",
            Direction::EgressExternal => "egress-external",
        }
    }
}

/// Which end of the connection was observed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// The one that asks.
    #[default]
    Client,
    /// The one that answers.
    Server,
}

impl End {
    /// `client` or `server`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            End::Client => "client",
            End::Server => "server",
        }
    }
}

/// Durations in nanoseconds; a part whose end was not seen is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Timing {
    /// First to last byte of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_ns: Option<u64>,
    /// First byte of the request to first byte of the (final) response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttfb_ns: Option<u64>,
    /// First to last byte of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_ns: Option<u64>,
    /// First byte of the request to last byte of what was seen.
    pub total_ns: u64,
}

/// What was seen of both messages, and what is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound(serialize = "T: Text", deserialize = "T: Deserialize<'de> + Default"))]
pub struct Completeness<T = String> {
    /// Both messages were seen from first to last byte and kept as far as the level says.
    pub complete: bool,
    /// The request's side.
    pub request: Seen<T>,
    /// The response's side.
    pub response: Seen<T>,
    /// Findings about the exchange as a whole, e.g. `conflicting-framing`, `retransmission-differs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<T>,
}

/// What was seen of one message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound(serialize = "T: Text", deserialize = "T: Deserialize<'de> + Default"))]
pub struct Seen<T = String> {
    /// Bytes of the head on the wire.
    pub head_bytes: u64,
    /// Bytes of the body on the wire, without chunk framing, lost ones included when their number is known.
    pub body_bytes: u64,
    /// Bytes of the body that stand in the object, before base64.
    pub kept_bytes: u64,
    /// How the end of the message was known: `length`, `chunked`, `close`, `none` (no body), `cut` (not seen).
    pub end: T,
    /// Content coding on the wire that was undone, e.g. `gzip`.
    #[serde(skip_serializing_if = "is_empty")]
    pub encoding: T,
    /// Why fewer bytes were kept than seen: `limit`, `memory`, `level`, `undecodable`, `gap`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub truncated: Vec<T>,
    /// Runs of bytes that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap<T>>,
}

/// Bytes known to be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, bound(deserialize = "T: Deserialize<'de> + Default"))]
pub struct Gap<T = String> {
    /// Offset in the body of the first missing byte.
    pub offset: u64,
    /// How many are missing.
    pub bytes: u64,
    /// `ring` (overrun), `cap` (kernel's copy limit), `memory`, `unseen` (never passed the hook).
    pub cause: T,
}

/// The observed process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Process id in the host's namespace; 0 when the owner is not known.
    pub pid: u32,
    /// Start time: RFC 3339; empty when not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub started: String,
    /// Path of the executable.
    pub exe: String,
    /// Arguments, redacted and cut.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// User name, or the number when it has none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// User id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// systemd unit from the cgroup.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub unit: String,
    /// Container id from the cgroup: 64 hexadecimal digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container_id: String,
    /// Parent's process id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent_pid: Option<u32>,
    /// Parent's executable.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub parent_exe: String,
}

/// The socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Connection<T = String> {
    /// `address:port` of the observed end.
    pub local: T,
    /// `address:port` of the other end.
    pub remote: T,
    /// Where the bytes were read: `edge`, later `openssl` and others.
    pub source: T,
    /// Seen from its opening; false for connections older than the agent.
    pub from_start: bool,
    /// Number of this exchange on the connection, from 0.
    pub exchange: u64,
}

/// TLS as negotiated. A text is empty when the handshake was not seen, as on connections older than the agent, or
/// does not have it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tls {
    /// Version negotiated: `TLSv1.3`, `TLSv1.2`, `TLSv1.1`, `TLSv1.0`, `SSLv3`, else its number such as `0x0305`.
    pub version: String,
    /// Server name asked for.
    pub sni: String,
    /// Protocol chosen. With TLS 1.3 the server's choice is encrypted: then what the plaintext shows, if anything.
    pub alpn: String,
    /// Cipher suite negotiated: IANA name, or its number such as `0x1305`.
    pub cipher: String,
    /// Protocols that the client offered, in its order, at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub alpn_offered: Vec<String>,
    /// By what evidence the library's TLS object was tied to this socket: `handshake` (a handshake record left right
    /// after a TLS call of the same thread), `record` (a record's length fitted the thread's last write),
    /// `descriptor` (the file descriptor that the object writes to), `none` (it was not: the socket's own members are
    /// not known). Empty in objects that were made before this was kept.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub binding: String,
}

/// One kind of replacement at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Redaction {
    /// Where, e.g. `request.header.Authorization`, `request.query.token`, `response.body.json.password`.
    #[serde(rename = "where")]
    pub place: String,
    /// `mask` or `drop`.
    pub action: String,
    /// How many values.
    pub count: u32,
}
