//! What a larger batch saves. Beyond the critical batch size doubling it saves few steps.

use super::ratios::pairs;
use super::result::Measure;
use super::standing::{Standing, Standings};
use super::statistics::{Mean, paired_ratio};
use super::summary::Summary;
use super::table::percent;
use serde::{Deserialize, Serialize};

/// One contender at a batch size and at twice that size.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Doubling {
    /// The contender.
    pub contender: String,
    /// Sequences of the smaller batch.
    pub from: u64,
    /// Steps at it over steps at the larger, by pairs of a seed that both were run with and that reached the target at both.
    pub steps: Mean,
    /// Pairs that are not among these, since one of their runs missed the target.
    #[serde(default)]
    pub missed: usize,
}

impl Doubling {
    /// Share of the steps that the larger batch saves, and the interval of it.
    pub fn saved(&self) -> String {
        let saved = |ratio: f64| percent(1.0 - 1.0 / ratio);
        match self.steps.interval {
            Some([low, high]) => format!("{} [{}, {}]", saved(self.steps.mean), saved(low), saved(high)),
            None => saved(self.steps.mean),
        }
    }
}

/// All that were run, in the order of the contenders.
pub fn doublings(summary: &Summary) -> Vec<Doubling> {
    let of = |standing: &Standing| {
        let at = |batch_size: u64| standing.at(batch_size, summary.target_loss);
        let doubling = |small: &Standings| {
            let all = pairs(small, at(2 * small.batch_size)?, Measure::Steps);
            let steps = paired_ratio(&all).ratio?;
            let missed = all.len() - steps.n;
            Some(Doubling { contender: standing.name.clone(), from: small.batch_size, steps, missed })
        };
        let smaller = standing.at.iter().filter(|at| at.target == summary.target_loss);
        let mut doublings: Vec<Doubling> = smaller.filter_map(doubling).collect();
        doublings.sort_by_key(|doubling| doubling.from);
        doublings
    };
    summary.contenders.iter().flat_map(of).collect()
}

/// A head and one row a doubling.
pub fn rows(summary: &Summary) -> Vec<Vec<String>> {
    let head = ["contender", "sequences", "twice", "steps saved", "seeds"].map(str::to_owned).to_vec();
    let row = |one: &Doubling| {
        let (from, to) = (one.from.to_string(), (2 * one.from).to_string());
        let missed = if one.missed == 0 { String::new() } else { format!(", and {} that missed", one.missed) };
        vec![one.contender.clone(), from, to, one.saved(), format!("{}{missed}", one.steps.n)]
    };
    std::iter::once(head).chain(summary.doublings.iter().map(row)).collect()
}
