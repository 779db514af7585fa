//! Any bytes into `http`; what is promised for them stands in `agent/src/http/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::http::fuzz::http1(input));
