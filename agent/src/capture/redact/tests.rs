//! Each kind of place, one by one.
