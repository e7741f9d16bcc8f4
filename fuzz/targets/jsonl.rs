//! Target `jsonl` of `gauntlet::fuzzed`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gauntlet_fuzz::check("jsonl", bytes));
