//! What every fuzz program does with the bytes that it is given.

use gauntlet::fuzzed::Target;

/// Reads bytes with the target of this name.
///
/// # Panics
///
/// Where the target breaks a rule, which is what the fuzzer looks for, or where there is none of this name.
pub fn check(name: &str, bytes: &[u8]) {
    let target = Target::named(name).expect("a fuzz program has the name of its target");
    if let Some(fault) = target.broken(bytes) {
        panic!("`{name}` refuses by a rule that it breaks: {fault:?}");
    }
}
