//! What is known of a connection: its two ends, their owners, its byte counts, its identifiers.
//!
//! In: kernel records of its sockets. Out: facts for `capture`, and connection events. On loopback both ends
//! are sockets of this host and one `Connection` stands for both; otherwise the other end is not known.

pub mod direction;
pub mod ends;
pub mod seed;
pub mod tls;

pub use ends::{Connection, Endpoint, Key, Place};
