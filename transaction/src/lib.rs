//! What is kept of an exchange: the object (JSON named by its SHA-1), the flat events that point at it,
//! and the exports made from it (HAR, curl).
//!
//! In: the parts that `agent` has captured, levelled and redacted. Out: bytes and their digest, events.
//! Pure: no I/O, no async, no knowledge of where anything is stored.

pub mod curl;
pub mod digest;
pub mod event;
pub mod flat;
pub mod har;
pub mod id;
mod json;
pub mod level;
pub mod object;
pub mod query;
pub mod seal;
pub mod time;
pub mod url;
mod write;

pub use curl::curl;
pub use digest::Digest;
pub use event::{ArtifactRecord, ConnectionEvent};
pub use flat::Flat;
pub use har::har;
pub use level::Level;
pub use object::Transaction;
pub use seal::{Sealed, seal};
pub use url::AccessUrl;
