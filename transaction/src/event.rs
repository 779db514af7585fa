//! Flat events: small, low in sensitivity, safe to send anywhere. Names as the guides' queries use them.

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Level,
    object::{Direction, End},
};

/// Says that an object exists and where. Also the index row of the archive: everything that a search or a
/// list shows without opening the object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArtifactRecord {
    /// Nanoseconds since 1970, when the request's first byte was seen.
    #[serde(skip)]
    pub time_unix_ns: u64,
    /// The object's name.
    pub digest: Digest,
    /// Method; empty when only a response was seen.
    pub request_method: String,
    /// Host asked for, without port unless it was given.
    pub request_host: String,
    /// `http` or `https`.
    pub request_scheme: String,
    /// Path without query.
    pub request_path: String,
    /// `http1` or `http2`.
    pub request_protocol: String,
    /// Request's content type.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub request_content_type: String,
    /// Absent when there was no response.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub response_status: Option<u16>,
    /// Response's content type.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub response_content_type: String,
    /// Whole duration in nanoseconds; `duration_ms` in the event.
    #[serde(skip)]
    pub duration_ns: u64,
    /// Time to first byte in nanoseconds; `ttfb_ms` in the event.
    #[serde(skip)]
    pub ttfb_ns: Option<u64>,
    /// Bytes sent by the observed process.
    pub bytes_sent: u64,
    /// Bytes received by it.
    pub bytes_received: u64,
    /// Executable.
    pub process_exe: String,
    /// Process id; 0 when not known.
    pub process_pid: u32,
    /// systemd unit.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub process_unit: String,
    /// Container id.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub container_id: String,
    /// Container's name.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub container_name: String,
    /// Direction.
    pub direction: Direction,
    /// Client or server.
    pub end: End,
    /// Level kept.
    pub level: Level,
    /// Nothing is missing.
    pub complete: bool,
    /// Why the exchange is not whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_type: Option<String>,
    /// Identifier of this end of the exchange.
    pub request_id: String,
    /// Identifier of the socket.
    pub connection_id: String,
    /// The same at both local ends.
    pub exchange_id: String,
}

/// Tells of a connection: at 500 ms, then each 10 s, and when it ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ConnectionEvent {
    /// Nanoseconds since 1970, when the event was made.
    #[serde(skip)]
    pub time_unix_ns: u64,
    /// Identifier of the socket.
    pub connection_id: String,
    /// Remote domain or address.
    pub endpoint_id: String,
    /// 0, 1, 2 … for each report of one connection.
    pub part: u32,
    /// The connection has ended; byte counts are final.
    pub finalized: bool,
    /// RFC 3339.
    pub created_at: String,
    /// RFC 3339; empty while open.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub closed_at: String,
    /// Direction.
    pub direction: Direction,
    /// `tcp`.
    pub socket_protocol: String,
    /// `http1`, `http2`, `tls`, `other`.
    pub l7_protocol: String,
    /// Server name asked for in TLS. This and all of `tls_` is empty on cleartext, and where it was not seen.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tls_sni: String,
    /// Protocol chosen in TLS.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tls_alpn: String,
    /// `TLSv1.3` and so on.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tls_version: String,
    /// Cipher suite, IANA name or `0x` number.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tls_cipher: String,
    /// Protocols that the client offered in TLS, in its order, joined by commas.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tls_alpn_offered: String,
    /// Library whose plaintext was read (`openssl`), or `none` when the connection is TLS and none was.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tls_plaintext: String,
    /// Why the handshake failed, when it did in the clear, e.g. `alert handshake_failure (40)`.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub tls_error: String,
    /// Address of the end that connected.
    pub source_ip: String,
    /// Its port.
    pub source_port: u16,
    /// Address of the end that accepted.
    pub destination_ip: String,
    /// Its port.
    pub destination_port: u16,
    /// Bytes of TCP payload sent.
    pub bytes_sent: u64,
    /// Bytes of TCP payload received.
    pub bytes_received: u64,
    /// Exchanges captured on it.
    pub exchanges: u64,
    /// Executable.
    pub process_exe: String,
    /// Process id.
    pub process_pid: u32,
    /// systemd unit.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub process_unit: String,
    /// Container id.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub container_id: String,
    /// Name of the host that captured.
    pub host_name: String,
}
