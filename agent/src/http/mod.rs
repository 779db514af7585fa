//! Ordered byte streams in, exchanges out. Pure: no I/O, no clock, every buffer bounded.
//!
//! In: for each connection, bytes of its two directions in stream order with kernel time stamps, gaps of
//! known size, and the end of each direction. Out: [`Exchange`]s and the hand-over of what is no longer
//! HTTP/1 ([`Output`]). Called by `pipeline`'s workers, one [`Connection`] each.

pub mod exchange;

pub use exchange::{Exchange, Framing, GapCause, Head, Message, Note, Output, Side};
