//! Segments in, ordered byte streams out, with every gap known.
//!
//! In: TCP segments of one direction of a connection as the socket's edge saw them ([`Stream::segment`],
//! [`Stream::unconfirmed`]), how far the socket has accepted them ([`Stream::confirm`]), and what the
//! kernel side says it could not copy ([`Stream::lost`], [`Stream::capped`]). Out: the bytes in order and
//! the gaps between them, through [`Sink`]. Called by `pipeline`'s workers, one [`Stream`] a direction.

mod budget;
mod held;
mod stream;

#[doc(hidden)]
pub mod fuzz;

pub use budget::{Budget, Lease};
pub use stream::{Counters, HELD_LIMIT, HOLE_PATIENCE_NS, Sink, Stream, UNCONFIRMED_PATIENCE_NS};
