//! Counter-based randomness of the model: a stream is a function of (seed, purpose, index) and of nothing else.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

/// The stream `index` for one purpose under a seed. The key is the seed followed by the purpose's first 24 bytes.
pub(super) fn stream(seed: u64, purpose: &str, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].iter_mut().zip(purpose.bytes()).for_each(|(to, from)| *to = from);
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}
