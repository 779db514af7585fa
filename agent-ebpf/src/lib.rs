//! Records and settings shared by the kernel programs and user space: plain C layouts, no code.
//!
//! Out of the kernel come two rings. *Control* carries [`Connection`] (opened, owner, closed), [`Exec`] and
//! [`Object`] (bound, unbound, freed); *data* carries [`Data`] and [`Library`] with the bytes behind them. Each
//! data record stands without its connection's opening. Every record begins with [`Header`]. Written by the programs of this crate, read by
//! `agent::probe` (rings, recordings). A change of a layout is a new [`RECORD_VERSION`].
#![no_std]

/// Version of the layouts in this file; recordings carry it.
pub const RECORD_VERSION: u32 = 2;

/// Kinds of records ([`Header::kind`]).
pub mod kind {
    /// [`super::Data`]: bytes of a stream.
    pub const DATA: u8 = 1;
    /// [`super::Data`]: bytes of a TLS handshake, with the same rules as `DATA`.
    pub const HANDSHAKE: u8 = 2;
    /// [`super::Connection`]: established.
    pub const OPEN: u8 = 3;
    /// [`super::Connection`]: the owning process was found or has changed.
    pub const OWNER: u8 = 4;
    /// [`super::Connection`]: closed, with final counts.
    pub const CLOSE: u8 = 5;
    /// [`super::Exec`]: a process runs a new program.
    pub const EXEC: u8 = 6;
    /// [`super::Connection`]: one direction ([`super::Header::direction`]) has ended, HTTP connections only.
    pub const END: u8 = 7;
    /// [`super::Library`]: plaintext that a TLS library was given or has handed out.
    pub const LIBRARY: u8 = 8;
    /// [`super::Object`]: the TLS object belongs to this socket.
    pub const BIND: u8 = 9;
    /// [`super::Object`]: it does not, contrary to what was said.
    pub const UNBIND: u8 = 10;
    /// [`super::Object`]: the TLS object is gone, its streams have ended.
    pub const FREE: u8 = 11;
}

/// Why a TLS object is taken to belong to a socket ([`Library::evidence`], [`Object::evidence`]).
pub mod evidence {
    /// Not bound.
    pub const NONE: u32 = 0;
    /// A handshake record left right after a TLS call of the same thread.
    pub const HANDSHAKE: u32 = 1;
    /// A record left whose length fits the last write of the same thread.
    pub const RECORD: u32 = 2;
    /// The object was given the socket's descriptor.
    pub const DESCRIPTOR: u32 = 3;
}

/// What a probe in a TLS library is there for: the cookie that it is attached with, made by `agent::library`,
/// read by the programs.
pub mod role {
    /// The call receives: `SSL_read` and its like.
    pub const READ: u64 = 1;
    /// The call sends.
    pub const WRITE: u64 = 2;
    /// Mask of `READ` and `WRITE`.
    pub const OPERATION: u64 = 3;
    /// Program `tls_call`: the third argument is a C `int`, not a `size_t`.
    pub const INT: u64 = 4;
    /// Program `tls_call`: the number of bytes is stored where the argument of this index (from 0; none when the
    /// bits are 0) points: `(cookie >> OUT) & 7`.
    pub const OUT: u32 = 8;
    /// Program `tls_result`: the result is the number of bytes itself; otherwise it only says that there are some
    /// and the number is stored.
    pub const COUNT: u64 = 16;
}

/// Directions as the socket sees them ([`Header::direction`]).
pub mod direction {
    /// Sent by the socket.
    pub const OUT: u8 = 0;
    /// Received by it.
    pub const IN: u8 = 1;
}

/// What a connection carries, judged by the shape of its first bytes ([`Header::protocol`]).
pub mod protocol {
    /// Not yet known.
    pub const UNKNOWN: u8 = 0;
    /// A method token and a space (RFC 9110 section 9.1), a status line, or a PROXY protocol head.
    pub const HTTP1: u8 = 1;
    /// The preface of RFC 9113 section 3.4.
    pub const HTTP2: u8 = 2;
    /// A TLS record (RFC 8446 section 5.1).
    pub const TLS: u8 = 3;
    /// Anything else; not copied.
    pub const OTHER: u8 = 4;
}

/// Bits of [`Header::flags`].
pub mod flag {
    /// Known since it was opened: [`super::Data::base`] is the sequence number of its first byte.
    pub const FRESH: u8 = 1;
    /// The filter ran on the listening socket (data in the ACK that ends the handshake): the cookie is the
    /// listener's, the addresses are the packet's.
    pub const LISTENER: u8 = 2;
    /// Seen on a loopback interface: only the sender's side is copied.
    pub const LOOPBACK: u8 = 4;
    /// Copying of this run ends with this record, by the limit in [`super::Settings::cap`].
    pub const CAPPED: u8 = 8;
    /// No bytes: tells of a socket older than the agent.
    pub const ANNOUNCE: u8 = 16;
    /// The agent's own socket.
    pub const OWN: u8 = 32;
    /// Reached ESTABLISHED from SYN_RECV: the socket was accepted, not connected.
    pub const ACCEPTED: u8 = 64;
    /// Received again, and nothing waits in the socket's backlog: [`super::Data::confirmed`] is what TCP has
    /// made of all earlier copies.
    pub const SETTLED: u8 = 128;
}

/// The beginning of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`direction`].
    pub direction: u8,
    /// One of [`protocol`].
    pub protocol: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Payload bytes behind the record's fixed part (data records only).
    pub len: u32,
    /// `CLOCK_MONOTONIC`, nanoseconds.
    pub time: u64,
    /// Socket cookie; 0 in [`Exec`].
    pub cookie: u64,
}

/// Addresses of a socket. IPv4 as IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// Local address, network order.
    pub local: [u32; 4],
    /// Remote address, network order.
    pub remote: [u32; 4],
    /// Local port, host order.
    pub local_port: u16,
    /// Remote port, host order.
    pub remote_port: u16,
    /// Inode number of the network namespace.
    pub netns: u32,
}

/// Bytes of a stream; [`Header::len`] of them follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// Kind `DATA` or `HANDSHAKE`.
    pub header: Header,
    /// The socket's addresses.
    pub address: Address,
    /// Process id of the owner as far as known; 0 otherwise.
    pub owner: u32,
    /// TCP sequence number of the first byte.
    pub seq: u32,
    /// Sequence number of the stream's first byte, when `FRESH`.
    pub base: u32,
    /// Bytes of this direction that were lost because the ring was full, so far.
    pub lost: u32,
    /// Next sequence number that the socket expects from its peer (`rcv_nxt`): everything before it has
    /// been accepted by TCP.
    pub confirmed: u32,
    /// Interface index.
    pub ifindex: u32,
}

/// Plaintext of a TLS library's stream; [`Header::len`] bytes follow. The stream is named by process, object and
/// generation; [`Header::direction`] is `OUT` for what was written.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Library {
    /// Kind `LIBRARY`. Cookie 0 while the object is not bound to a socket. `FRESH`: seen since its handshake.
    pub header: Header,
    /// The socket's addresses; zeros while not bound.
    pub address: Address,
    /// Process id.
    pub owner: u32,
    /// Bytes of this direction that were lost because the ring was full, or could not be read, so far.
    pub lost: u32,
    /// One of [`evidence`].
    pub evidence: u32,
    /// Address of the object in the process.
    pub object: u64,
    /// Tells objects at one address apart; grows.
    pub generation: u64,
    /// Offset of the first byte in the stream: what the calls before have moved, copied or not.
    pub offset: u64,
    /// Start of the process, nanoseconds since boot (suspended time included).
    pub owner_start: u64,
    /// Process id of its parent.
    pub owner_parent: u32,
    /// Unused.
    pub pad: u32,
}

/// What became of a TLS object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object {
    /// Kind `BIND`, `UNBIND` or `FREE`.
    pub header: Header,
    /// The socket's addresses; zeros when not bound.
    pub address: Address,
    /// Process id.
    pub owner: u32,
    /// One of [`evidence`].
    pub evidence: u32,
    /// Unused.
    pub pad: u32,
    /// Address of the object in the process.
    pub object: u64,
    /// As in [`Library`].
    pub generation: u64,
    /// Bytes written and read so far.
    pub bytes: [u64; 2],
}

/// A connection's state.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connection {
    /// Kind `OPEN`, `OWNER`, `END` or `CLOSE`.
    pub header: Header,
    /// The socket's addresses.
    pub address: Address,
    /// Process id of the owner; 0 when not known.
    pub owner: u32,
    /// Its thread.
    pub owner_thread: u32,
    /// Start of the owner's process, nanoseconds since boot (suspended time included); 0 when not known.
    pub owner_start: u64,
    /// Payload bytes sent and received, retransmissions included.
    pub bytes: [u64; 2],
    /// Segments with payload sent and received.
    pub segments: [u32; 2],
    /// Sequence numbers of the first bytes sent and received, when `FRESH`.
    pub base: [u32; 2],
    /// Bytes lost because the ring was full, so far.
    pub lost: [u32; 2],
    /// As in [`Data`].
    pub confirmed: u32,
    /// Process id of the owner's parent: names a forked child that never ran a program of its own.
    pub owner_parent: u32,
    /// Next sequence number to be sent (`snd_nxt`): everything before it has passed the hook.
    pub sent: u32,
    /// Unused.
    pub pad: u32,
}

/// Longest file name in [`Exec`].
pub const FILENAME: usize = 256;
/// Most bytes of arguments in [`Exec`].
pub const ARGUMENTS: usize = 1024;

/// A process runs a new program.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Exec {
    /// Kind `EXEC`.
    pub header: Header,
    /// Process id.
    pub pid: u32,
    /// Parent's process id.
    pub parent: u32,
    /// User id.
    pub uid: u32,
    /// Bytes of `filename` in use; 0 when the kernel does not let programs read it.
    pub filename_len: u32,
    /// Start of the process, nanoseconds since boot (suspended time included).
    pub start: u64,
    /// Id of its cgroup in the version 2 hierarchy.
    pub cgroup: u64,
    /// Bytes of `arguments` in use.
    pub arguments_len: u32,
    /// Unused.
    pub pad: u32,
    /// Path of the binary that runs: for a script its interpreter.
    pub filename: [u8; FILENAME],
    /// NUL-separated, cut at the end.
    pub arguments: [u8; ARGUMENTS],
}

/// Settings that user space may change while the programs run (map `SETTINGS`, one entry).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// 0: count only, 1: copy.
    pub copy: u32,
    /// Bytes copied of one uninterrupted run of one direction; `u32::MAX` for all.
    pub cap: u32,
    /// Raised each time user space adds a cookie to map `STOPS`.
    pub stop_generation: u32,
    /// Unused.
    pub pad: u32,
}

/// What user space asks for by an entry of map `STOPS`.
pub mod stop {
    /// Nothing.
    pub const NONE: u32 = 0;
    /// Nothing more of this connection is wanted.
    pub const ALL: u32 = 1;
    /// Only TLS that begins in it: it has become a tunnel.
    pub const TUNNEL: u32 = 2;
}

/// Index of each counter in the per-CPU array `COUNTERS`.
pub mod counter {
    /// Data records handed over.
    pub const RECORDS: u32 = 0;
    /// Data records lost because the ring was full.
    pub const RING_FULL: u32 = 1;
    /// Bytes lost with them, or because they could not be read: the rest of a segment goes with its first lost
    /// record.
    pub const LOST_BYTES: u32 = 2;
    /// Control records lost because the ring was full.
    pub const CONTROL_FULL: u32 = 3;
    /// Payload could not be read from the packet.
    pub const LOAD_FAILED: u32 = 4;
    /// No memory for a socket's state.
    pub const NO_STORAGE: u32 = 5;
    /// Segments with payload seen.
    pub const SEGMENTS: u32 = 6;
    /// Bytes not copied because of the cap.
    pub const CAPPED_BYTES: u32 = 7;
    /// Segments with payload that met a listening socket.
    pub const LISTENER: u32 = 8;
    /// TLS segments whose ciphertext was not copied.
    pub const CIPHERTEXT: u32 = 9;
    /// HTTP/2 segments in cleartext, not copied.
    pub const HTTP2: u32 = 10;
    /// Library calls that moved bytes.
    pub const CALLS: u32 = 11;
    /// Results of library calls whose beginning is not known: the table of calls was full.
    pub const CALLS_UNKNOWN: u32 = 12;
    /// TLS objects bound to a socket.
    pub const BOUND: u32 = 13;
    /// Bindings taken back because of contradicting evidence.
    pub const UNBOUND: u32 = 14;
    /// Library calls with HTTP/2, not copied.
    pub const LIBRARY_HTTP2: u32 = 15;
    /// Sockets with TLS whose object was looked for in vain.
    pub const SEARCH_ENDED: u32 = 16;
    /// Number of counters.
    pub const COUNT: u32 = 24;
    /// The counters' names, by index.
    pub const NAMES: [&str; 17] = [
        "records",
        "ring_full_records",
        "lost_bytes",
        "control_ring_full_records",
        "load_failed",
        "no_storage",
        "segments",
        "capped_bytes",
        "listener_segments",
        "ciphertext_segments",
        "http2_segments",
        "library_calls",
        "library_calls_unknown",
        "library_bound",
        "library_unbound",
        "library_http2_calls",
        "library_search_ended",
    ];
}
