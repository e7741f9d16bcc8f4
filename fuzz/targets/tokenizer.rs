//! Target `tokenizer` of `gauntlet::fuzzed`.
#![no_main]

// Panics of the crate that reads such files are caught where they happen, and are no finding.
libfuzzer_sys::fuzz_target!(init: std::panic::set_hook(Box::new(|_| ())), |bytes: &[u8]| {
    gauntlet_fuzz::check("tokenizer", bytes)
});
