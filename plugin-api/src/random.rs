//! Counter-based random numbers: equal keys give equal numbers, on every rank and on every backend.

use crate::error::Result;
use crate::host::Link;
use crate::params::Params;
use crate::tensor::Tensor;
use gauntlet_plugin_abi::{RandomKey, RandomKind};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// A stream of random draws. Its whole state is (seed, purpose, step, draw).
#[derive(Clone, Debug)]
pub struct Rng {
    link: Link,
    key: RandomKey,
}

impl Rng {
    pub(crate) fn new(link: Link, seed: u64, purpose: &str, step: u64) -> Self {
        Self { link, key: RandomKey { seed, purpose: purpose_number(purpose), step, draw: 0 } }
    }

    /// How many draws were made. What a long step saves to go on where it was.
    pub fn draw(&self) -> u64 {
        self.key.draw
    }

    /// Goes on at a draw.
    pub fn skip_to(&mut self, draw: u64) {
        self.key.draw = draw;
    }

    /// A standard normal tensor shaped like another.
    pub fn normal_like(&mut self, like: &Tensor) -> Result<Tensor> {
        self.like(RandomKind::NORMAL, like)
    }

    /// Uniform on [0, 1), shaped like another.
    pub fn uniform_like(&mut self, like: &Tensor) -> Result<Tensor> {
        self.like(RandomKind::UNIFORM, like)
    }

    /// -1 or 1 with equal chance, shaped like another.
    pub fn rademacher_like(&mut self, like: &Tensor) -> Result<Tensor> {
        self.like(RandomKind::RADEMACHER, like)
    }

    /// Standard normal, one tensor a parameter.
    pub fn normal_like_params(&mut self, like: &Params) -> Result<Params> {
        like.try_map(|tensor| self.normal_like(tensor))
    }

    /// -1 or 1, one tensor a parameter (a Hutchinson probe).
    pub fn rademacher_like_params(&mut self, like: &Params) -> Result<Params> {
        like.try_map(|tensor| self.rademacher_like(tensor))
    }

    /// A number on [0, 1).
    pub fn uniform(&mut self) -> f64 {
        let value = uniform(&mut stream(&self.key));
        self.key.draw += 1;
        value
    }

    /// A seed for sampled labels, for example.
    pub fn seed(&mut self) -> u64 {
        let value = stream(&self.key).next_u64();
        self.key.draw += 1;
        value
    }

    fn like(&mut self, kind: RandomKind, like: &Tensor) -> Result<Tensor> {
        let tensor = self.link.random(kind, like.dtype()?, &like.shape()?, self.key)?;
        self.key.draw += 1;
        Ok(tensor)
    }
}

/// The numbers behind a key, row-major: what every backend answers. `None` for an unknown kind.
pub fn fill(kind: RandomKind, key: &RandomKey, count: usize) -> Option<Vec<f64>> {
    let mut rng = stream(key);
    match kind {
        RandomKind::NORMAL => Some((0..count).map(|_| StandardNormal.sample(&mut rng)).collect()),
        RandomKind::UNIFORM => Some((0..count).map(|_| uniform(&mut rng)).collect()),
        RandomKind::RADEMACHER => Some((0..count).map(|_| if rng.next_u32() & 1 == 0 { -1.0 } else { 1.0 }).collect()),
        _ => None,
    }
}

/// The generator of a key: ChaCha with eight rounds, the key's four words as its key.
pub fn stream(key: &RandomKey) -> ChaCha8Rng {
    let mut seed = [0; 32];
    for (chunk, word) in seed.chunks_exact_mut(8).zip([key.seed, key.purpose, key.step, key.draw]) {
        chunk.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(seed)
}

/// A purpose's number: FNV-1a of its name.
pub fn purpose_number(purpose: &str) -> u64 {
    purpose.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// A number on [0, 1) from the upper 53 bits of a word.
fn uniform(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 * f64::EPSILON / 2.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(kind: RandomKind, draw: u64) -> Vec<f64> {
        fill(kind, &RandomKey { seed: 1, purpose: purpose_number("probe"), step: 3, draw }, 10_000).unwrap()
    }

    #[test]
    fn equal_keys_give_equal_numbers_and_others_do_not() {
        assert_eq!(draw(RandomKind::NORMAL, 0), draw(RandomKind::NORMAL, 0));
        assert_ne!(draw(RandomKind::NORMAL, 0), draw(RandomKind::NORMAL, 1));
    }

    #[test]
    fn moments_are_those_of_the_distribution() {
        let moments = |kind| {
            let x = draw(kind, 0);
            let mean = x.iter().sum::<f64>() / x.len() as f64;
            (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / x.len() as f64)
        };
        for (kind, mean, variance) in
            [(RandomKind::NORMAL, 0.0, 1.0), (RandomKind::UNIFORM, 0.5, 1.0 / 12.0), (RandomKind::RADEMACHER, 0.0, 1.0)]
        {
            let (m, v) = moments(kind);
            assert!((m - mean).abs() < 0.05 && (v - variance).abs() < 0.05, "{kind:?}: mean {m}, variance {v}");
        }
        assert!(fill(RandomKind(99), &RandomKey { seed: 0, purpose: 0, step: 0, draw: 0 }, 1).is_none());
    }
}
