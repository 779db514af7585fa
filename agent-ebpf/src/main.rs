//! The kernel programs. `edge_out` and `edge_in` see every TCP segment of the host at its socket, `state`
//! sees connections open and close, `reader` and `edge_out` find the owning process, `exec` keeps the names
//! of processes that may be gone when somebody asks. `tls_call` and `tls_result` see the plaintext that passes
//! through a TLS library; `edge_out` finds out whose ciphertext a socket sends.
//!
//! In: sockets, segments, process starts, library calls. Out: the records of this crate's library, in two rings.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod bind;
#[cfg(target_arch = "bpf")]
mod copy;
#[cfg(target_arch = "bpf")]
mod edge;
#[cfg(target_arch = "bpf")]
mod exec;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod library;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod shape;
#[cfg(target_arch = "bpf")]
mod socket;
#[cfg(target_arch = "bpf")]
mod state;
#[cfg(target_arch = "bpf")]
mod stream;

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // Never reached: nothing here can panic, and the verifier would refuse an endless loop.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Built for the host (by `cargo check --workspace`), there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
