//! Plans of probes for TLS libraries: for real ones, for small ones made here, and for hostile files. The decoder is
//! for x86-64 only, and a plan is made for this machine's files only.
#![cfg(target_arch = "x86_64")]

mod build;
mod hostile;
mod real;
mod small;
