//! Ordered byte streams in, exchanges out. Pure: no I/O, no clock, every buffer bounded.
//!
//! In: for each connection, bytes of its two directions in stream order with kernel time stamps, gaps of
//! known size, and the end of each direction. Out: [`Exchange`]s and the hand-over of what is no longer
//! HTTP/1 ([`Output`]). Called by `pipeline`'s workers, one [`Connection`] each.
//!
//! `start` knows the shapes of first lines, `head` parses a whole head, `reader` turns one direction into
//! messages, `pairing` says which response answers which request, `connection` joins the two directions.

mod connection;
pub mod exchange;
mod head;
mod pairing;
mod reader;
mod start;

#[doc(hidden)]
pub mod fuzz;

pub use connection::{Connection, Limits};
pub use exchange::{Exchange, Framing, GapCause, Head, Message, Note, Output, Side};
