//! How much of a long test to do: a sample in the ordinary suite, all of it in `cargo xtask soak`.

/// Rounds of a test: `sample`, or `whole` where the variable `GAUNTLET_SOAK` is set.
pub fn rounds(sample: u64, whole: u64) -> u64 {
    if std::env::var_os("GAUNTLET_SOAK").is_some() { whole } else { sample }
}

/// Numbers that look random, in [0, 1), the same each time.
pub fn random(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// `sample` of the numbers below `all`, spread evenly with a random offset; all of them in a soak.
pub fn spread(sample: u64, all: u64) -> Vec<u64> {
    let count = rounds(sample, all).min(all);
    let offset = random(all)();
    (0..count).map(|i| ((i as f64 + offset) * all as f64 / count as f64) as u64).collect()
}
