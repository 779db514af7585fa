//! `tapstack`: the command line.
fn main() {}
