//! Any bytes into `connection::tls`; what is promised for them stands in `agent/src/connection/tls/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::tls::fuzz::tls_handshake(input));
