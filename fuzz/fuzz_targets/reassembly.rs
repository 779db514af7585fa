//! Any bytes into `flow`; what is promised for them stands in `agent/src/flow/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzz::flow::fuzz::reassembly(input));
