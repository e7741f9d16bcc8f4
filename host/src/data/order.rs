//! The order of windows: a pure function from (stream, sequence index) to a window, in constant memory.
//!
//! Epoch e of a stream is the sequence indices e * n to e * n + n - 1, where n is the number of windows; within an
//! epoch every window comes exactly once.
//!
//! # The permutation
//!
//! `shuffled` orders epoch e of seed s by a Feistel network over the smallest even number of bits 2h that holds n - 1
//! (h >= 1), walked until it falls below n ("cycle walking", Black and Rogaway 2002, "Ciphers with arbitrary finite
//! domains"). All arithmetic is modulo 2^64:
//!
//! ```text
//! mix(z)       SplitMix64's output function (Steele, Lea and Flood 2014): z ^= z >> 30; z *= 0xbf58476d1ce4e5b9;
//!              z ^= z >> 27; z *= 0x94d049bb133111eb; z ^= z >> 31
//! key_r        mix(mix(mix(s) ^ e) + (r + 1) * 0x9e3779b97f4a7c15), r = 0 to 7
//! round r      (left, right) -> (right, left ^ (mix(key_r + right) >> (64 - h)))
//! window(slot) x = slot; repeat x = network(x) until x < n
//! ```
//!
//! The network is a bijection of 2^2h >= n values, so walking it is one of n values; fewer than 4 rounds of walking are
//! expected since 2^2h < 4n (for n > 1). The order is part of the format of a run: a change here changes every loss
//! curve.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

use crate::error::{Exit, Fault, Result};

/// How the windows of a data set follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they lie in the shards.
    Sequential,
    /// By a permutation that depends on the seed and the epoch alone.
    Shuffled {
        /// The run's seed of the data order.
        seed: u64,
    },
}

/// Which of a data set's streams a sequence index counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stream {
    /// The training data: each epoch from its start.
    Main,
    /// The line search's own data: each epoch from its end backwards. Within one epoch it shares no window with the
    /// main stream as long as both together have drawn no more than the epoch's windows.
    LineSearch,
    /// Fixed windows for evaluation: window i is sequence i whatever the order, and there is no second epoch.
    Evaluation,
}

/// The windows of a data set in their order.
#[derive(Clone, Copy, Debug)]
pub struct WindowOrder {
    windows: NonZeroU64,
    order: Order,
}

impl WindowOrder {
    /// The order of `windows` windows.
    pub fn new(windows: NonZeroU64, order: Order) -> Self {
        Self { windows, order }
    }

    /// The window, in 0 to n - 1, that is sequence `index` of the stream. An evaluation index past the last window is
    /// bad data (65).
    pub fn window(&self, stream: Stream, index: u64) -> Result<u64> {
        let (epoch, position) = (index / self.windows, index % self.windows);
        match stream {
            Stream::Main => Ok(self.at(epoch, position)),
            Stream::LineSearch => Ok(self.at(epoch, self.windows.get() - 1 - position)),
            Stream::Evaluation if epoch == 0 => Ok(index),
            Stream::Evaluation => Err(Fault::new(Exit::Data, "too few windows for the evaluation")
                .found(format!("{} windows", self.windows))
                .expected(format!("more than {index}"))
                .hint("evaluate on fewer sequences, or prepare a larger validation split")),
        }
    }

    fn at(&self, epoch: u64, slot: u64) -> u64 {
        match self.order {
            Order::Sequential => slot,
            Order::Shuffled { seed } => Permutation::new(self.windows, seed, epoch).apply(slot),
        }
    }
}

const ROUNDS: usize = 8;
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// The permutation of one epoch.
struct Permutation {
    windows: u64,
    half_bits: u32,
    keys: [u64; ROUNDS],
}

impl Permutation {
    fn new(windows: NonZeroU64, seed: u64, epoch: u64) -> Self {
        let windows = windows.get();
        let bits = u64::BITS - (windows - 1).leading_zeros();
        let root = mix(mix(seed) ^ epoch);
        let key = |round: usize| mix(root.wrapping_add(GOLDEN_GAMMA.wrapping_mul(round as u64 + 1)));
        Self { windows, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(key) }
    }

    fn apply(&self, slot: u64) -> u64 {
        let mut value = self.network(slot);
        while value >= self.windows {
            value = self.network(value);
        }
        value
    }

    fn network(&self, value: u64) -> u64 {
        let half = self.half_bits;
        let (mut left, mut right) = (value >> half, value & ((1 << half) - 1));
        for key in self.keys {
            (left, right) = (right, left ^ (mix(key.wrapping_add(right)) >> (u64::BITS - half)));
        }
        (left << half) | right
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn order(windows: u64, order: Order) -> WindowOrder {
        WindowOrder::new(NonZeroU64::new(windows).unwrap(), order)
    }

    fn draw(order: &WindowOrder, stream: Stream, range: std::ops::Range<u64>) -> Vec<u64> {
        range.map(|index| order.window(stream, index).unwrap()).collect()
    }

    #[test]
    fn golden_orders() {
        let shuffled = |windows, seed| order(windows, Order::Shuffled { seed });
        assert_eq!(draw(&shuffled(10, 0), Stream::Main, 0..10), [1, 6, 4, 7, 2, 5, 0, 3, 8, 9]);
        assert_eq!(draw(&shuffled(10, 0), Stream::Main, 10..20), [6, 2, 4, 7, 8, 9, 1, 0, 3, 5]);
        assert_eq!(draw(&shuffled(10, 7), Stream::Main, 0..10), [4, 2, 9, 5, 8, 0, 3, 1, 6, 7]);
        assert_eq!(
            draw(&shuffled(1_000_003, 42), Stream::Main, 3_000_009..3_000_013),
            [72_138, 992_593, 991_343, 864_430]
        );
        assert_eq!(
            draw(&shuffled(u64::MAX, 42), Stream::Main, 0..2),
            [5_469_266_688_396_466_161, 4_010_722_337_817_448_715]
        );
    }

    #[test]
    fn sequential_streams_run_from_the_two_ends() {
        let order = order(4, Order::Sequential);
        assert_eq!(draw(&order, Stream::Main, 0..6), [0, 1, 2, 3, 0, 1]);
        assert_eq!(draw(&order, Stream::LineSearch, 0..6), [3, 2, 1, 0, 3, 2]);
    }

    #[test]
    fn evaluation_windows_ignore_the_order_and_end() {
        let order = order(3, Order::Shuffled { seed: 5 });
        assert_eq!(draw(&order, Stream::Evaluation, 0..3), [0, 1, 2]);
        let fault = order.window(Stream::Evaluation, 3).unwrap_err();
        assert_eq!(fault.exit, Exit::Data);
        assert!(fault.to_string().contains("found 3 windows, expected more than 3"), "{fault}");
    }

    #[test]
    fn the_first_window_is_uniform_over_seeds() {
        let mut counts = [0u32; 10];
        for seed in 0..10_000 {
            counts[order(10, Order::Shuffled { seed }).window(Stream::Main, 0).unwrap() as usize] += 1;
        }
        let chi_squared: f64 = counts.iter().map(|&c| (f64::from(c) - 1000.0).powi(2) / 1000.0).sum();
        assert!(chi_squared < 27.9, "chi squared {chi_squared} of 9 degrees of freedom has p < 0.001: {counts:?}");
    }

    proptest! {
        #[test]
        fn every_epoch_is_a_permutation(windows in 1u64..700, seed in any::<u64>(), epoch in 0u64..1 << 50) {
            let start = epoch * windows;
            let drawn = draw(&order(windows, Order::Shuffled { seed }), Stream::Main, start..start + windows);
            prop_assert_eq!(drawn.into_iter().collect::<BTreeSet<_>>(), (0..windows).collect::<BTreeSet<_>>());
        }

        #[test]
        fn main_and_line_search_share_nothing_within_an_epoch(
            windows in 1u64..300, seed in any::<u64>(), epoch in 0u64..5, share in 0.0..=1.0,
        ) {
            let (start, main) = (epoch * windows, (windows as f64 * share) as u64);
            for kind in [Order::Sequential, Order::Shuffled { seed }] {
                let order = order(windows, kind);
                let mut all = draw(&order, Stream::Main, start..start + main);
                all.extend(draw(&order, Stream::LineSearch, start..start + windows - main));
                prop_assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len() as u64, windows);
            }
        }

        #[test]
        fn epochs_and_seeds_differ(seed in any::<u64>()) {
            let first = draw(&order(64, Order::Shuffled { seed }), Stream::Main, 0..64);
            prop_assert_ne!(&first, &draw(&order(64, Order::Shuffled { seed }), Stream::Main, 64..128));
            prop_assert_ne!(&first, &draw(&order(64, Order::Shuffled { seed: seed ^ 1 }), Stream::Main, 0..64));
        }
    }
}
