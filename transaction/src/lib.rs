//! What is kept of an exchange: the object (JSON named by its SHA-1), the flat events that point at it,
//! and the exports made from it (HAR, curl).
//!
//! In: the parts that `agent` has captured, levelled and redacted. Out: bytes and their digest, events.
//! Pure: no I/O, no async, no knowledge of where anything is stored.

pub mod digest;
pub mod event;
pub mod id;
mod json;
pub mod level;
pub mod object;
pub mod seal;
pub mod url;

pub use digest::Digest;
pub use event::{ArtifactRecord, ConnectionEvent};
pub use level::Level;
pub use object::Transaction;
pub use seal::{Sealed, seal};
pub use url::AccessUrl;
