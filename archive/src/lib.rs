//! The archive: where everything finished is kept first, before it is sent anywhere. A log of transactions
//! and events in one SQLite file, written by one process and read by any number of others.
//!
//! In: [`Entry`]s from the capture workers ([`Archive::append`]). Out: rows, exact object bytes and events
//! ([`Reader`]), for the gateway, the command line and the forwarders.
//!
//! # Shape
//!
//! A commit takes everything that waits, at most 200 ms or 256 KiB after the first of it. Each entry gets the
//! next *position*, a number that rises and is never used again. The entries' bytes are joined into *blocks*
//! of at most 256 KiB (a larger object is a block of its own), compressed and stored as one value; each
//! transaction has a small row beside it. `schema.rs` has the tables and says why they are as they are.
//!
//! # Promises
//!
//! - What is stored is never rewritten; retention takes whole blocks, oldest first.
//! - SIGKILL loses at most the last 500 ms; a power cut at most what came since the last checkpoint (5 s).
//! - The file stays below 1.2 times the limit, its write-ahead log included.
//! - Nothing that the disk does (full, failing) stops the caller: entries wait, then are refused and counted.
//! - Readers hold no lock for longer than a few milliseconds and never hold the writer up.

#![forbid(unsafe_code)]

mod archive;
mod block;
mod checkpoint;
mod error;
mod filter;
mod folder;
mod profile;
mod queue;
mod reader;
mod retention;
mod row;
mod schema;
mod stats;
mod writer;

pub use archive::{Archive, Entry, Options};
pub use error::{Error, Refused};
pub use filter::{Filter, StatusFilter};
pub use reader::{ConnectionRow, Reader, Row, Summary};
pub use stats::Stats;
