//! Tests of the archive as its users see it: through the public interface, with real files and processes.

mod common;
mod round_trip;
