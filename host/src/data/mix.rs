//! Several data sets drawn from in proportion to weights: a pure function from a sequence's index to a part and an index
//! within it.
//!
//! The weights become whole numbers of slots in a block of 4096, by largest remainders, at least one each. The slots of a
//! block are laid out so that at no place a part is a whole sequence ahead of its share:
//!
//! ```text
//! slot s goes to the part with the greatest count * (s + 1) / 4096 - taken, of equals the first
//! index i = 4096 b + s  ->  part(s), index b * count(part) + (slots of the part before s)
//! ```
//!
//! The layout is part of the format of a run: a change here changes every loss curve of a mix.

use std::path::{Path, PathBuf};

use crate::config::ShardPath;
use crate::error::{Exit, Fault, Result};

/// Slots in a block.
const SLOTS: usize = 4096;

/// A path to shards, maybe with a weight in a mix.
pub trait DataPath {
    /// A folder or file.
    fn path(&self) -> &Path;
    /// Its weight, above 0.
    fn weight(&self) -> Option<f64> {
        None
    }
}

impl DataPath for PathBuf {
    fn path(&self) -> &Path {
        self
    }
}

impl DataPath for ShardPath {
    fn path(&self) -> &Path {
        self.path()
    }

    fn weight(&self) -> Option<f64> {
        self.weight()
    }
}

/// The layout of a block.
#[derive(Clone, Debug)]
pub(super) struct Mix {
    /// Slots of each part.
    counts: Vec<u64>,
    /// For each slot, its part and the slots of that part before it.
    slots: Vec<(u16, u16)>,
}

impl Mix {
    /// The layout for these weights. More parts than slots, or a weight that is no positive number, are bad usage (2).
    pub fn new(weights: &[f64]) -> Result<Self> {
        if weights.is_empty() || weights.len() > SLOTS {
            let fault = Fault::new(Exit::Usage, "bad number of parts in a mix").found(weights.len());
            return Err(fault.expected(format!("1 to {SLOTS}")));
        }
        if let Some(weight) = weights.iter().find(|weight| !(weight.is_finite() && **weight > 0.0)) {
            return Err(Fault::new(Exit::Usage, "bad weight in a mix").found(weight).expected("a number above 0"));
        }
        let counts = counts(weights);
        let mut taken = vec![0; counts.len()];
        let slots = (1..=SLOTS as i64).map(|place| {
            let behind = |part: &usize| counts[*part] as i64 * place - taken[*part] as i64 * SLOTS as i64;
            let part = (0..counts.len()).rev().max_by_key(behind).unwrap_or_default();
            taken[part] += 1;
            (part as u16, taken[part] - 1)
        });
        let slots = slots.collect();
        Ok(Self { counts, slots })
    }

    /// The part that a sequence is drawn from, and its index there.
    pub fn place(&self, index: u64) -> (usize, u64) {
        let (block, slot) = (index / SLOTS as u64, index % SLOTS as u64);
        let (part, before) = self.slots[slot as usize];
        (part.into(), block * self.counts[part as usize] + u64::from(before))
    }

    /// Slots of each part, of 4096.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }
}

/// Whole numbers in proportion to the weights that sum to the number of slots.
fn counts(weights: &[f64]) -> Vec<u64> {
    let largest = weights.iter().fold(0.0, |largest: f64, &weight| largest.max(weight));
    let sum: f64 = weights.iter().map(|weight| weight / largest).sum();
    let free = SLOTS - weights.len();
    // One slot is everybody's; the rest goes by shares of what they lack.
    let wanted: Vec<f64> =
        weights.iter().map(|weight| (weight / largest / sum * SLOTS as f64 - 1.0).max(0.0)).collect();
    let total: f64 = wanted.iter().sum();
    let shares: Vec<f64> =
        wanted.iter().map(|wanted| if total > 0.0 { wanted / total * free as f64 } else { 0.0 }).collect();
    let mut counts: Vec<u64> = shares.iter().map(|share| 1 + share.floor() as u64).collect();
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| shares[b].fract().total_cmp(&shares[a].fract()).then(a.cmp(&b)));
    let left = SLOTS as u64 - counts.iter().sum::<u64>();
    order.iter().cycle().take(left as usize).for_each(|&part| counts[part] += 1);
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_layout() {
        let mix = Mix::new(&[0.7, 0.2, 0.1]).unwrap();
        assert_eq!(mix.counts(), [2867, 819, 410]);
        let parts: Vec<usize> = (0..12).map(|index| mix.place(index).0).collect();
        assert_eq!(parts, [0, 0, 1, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(mix.place(4), (2, 0));
        assert_eq!(mix.place(4096 * 3 + 4), (2, 410 * 3));
        assert_eq!(Mix::new(&[5.0]).unwrap().place(u64::MAX), (0, u64::MAX));
    }

    #[test]
    fn weights_that_mean_nothing_are_refused() {
        for weights in [&[][..], &[0.0], &[1.0, -1.0], &[f64::NAN, 1.0], &[f64::INFINITY], &[1.0; 5000]] {
            assert_eq!(Mix::new(weights).unwrap_err().exit, Exit::Usage);
        }
        assert_eq!(Mix::new(&[1.0; 4096]).unwrap().counts(), [1; 4096]);
        assert_eq!(Mix::new(&[1e300, 1e300]).unwrap().counts(), [2048, 2048]);
        assert_eq!(Mix::new(&[1e-9, 1.0]).unwrap().counts(), [1, 4095]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_index_of_every_part_comes_once_and_no_part_lags(
            weights in prop::collection::vec(0.01f64..10.0, 1..9), first in 0u64..3,
        ) {
            let mix = Mix::new(&weights).unwrap();
            prop_assert_eq!(mix.counts().iter().sum::<u64>(), 4096);
            let mut next: Vec<u64> = mix.counts().iter().map(|count| count * first).collect();
            for place in 0..2 * SLOTS as u64 {
                let (part, index) = mix.place(first * SLOTS as u64 + place);
                prop_assert_eq!(index, next[part]);
                next[part] += 1;
                let share = |part: usize| mix.counts()[part] as f64 * (first as f64 + (place + 1) as f64 / SLOTS as f64);
                prop_assert!((0..weights.len()).all(|part| (next[part] as f64) < share(part) + 1.0));
            }
        }
    }
}
