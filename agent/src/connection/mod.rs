//! Being written.

pub mod direction;
pub mod seed;
