//! Any bytes as a file of a process; what is promised for its plan stands in `agent/src/library/plan/fuzz.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let _ = fuzz::plan::fuzz::library(input);
});
