//! Entry of the fuzz target.
