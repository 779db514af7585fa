//! Segments in, ordered byte streams out, with every gap known.
