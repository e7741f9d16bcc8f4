//! What several seeds say of a number of steps: crossings, intervals, ratios, rules and profiles.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

/// Where a curve of losses first comes down to a target.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Crossing {
    /// The place on the horizontal axis, interpolated linearly between the two losses around the target.
    pub at: f64,
    /// Distance of these two on the axis, or from its origin to the first: the crossing is known no better than this without
    /// interpolating.
    pub granularity: f64,
}

/// The first crossing of `target` by losses over rising x; `None` where they never come down to it. Losses that are not
/// finite are passed over. A curve that begins at the target or below crosses at its first point.
pub fn first_crossing(points: &[(f64, f64)], target: f64) -> Option<Crossing> {
    let finite: Vec<(f64, f64)> = points.iter().copied().filter(|(_, loss)| loss.is_finite()).collect();
    let first = finite.iter().position(|(_, loss)| *loss <= target)?;
    let (x, loss) = finite[first];
    let Some((x_before, loss_before)) = first.checked_sub(1).map(|before| finite[before]) else {
        return Some(Crossing { at: x, granularity: x });
    };
    let share = (loss_before - target) / (loss_before - loss);
    Some(Crossing { at: x_before + share * (x - x_before), granularity: x - x_before })
}

/// A mean over seeds with its 95 % interval by Student's t.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mean {
    /// The mean.
    pub mean: f64,
    /// Sample standard deviation; absent for one value.
    pub deviation: Option<f64>,
    /// Lower and upper end of the interval; absent for one value.
    pub interval: Option<[f64; 2]>,
    /// Values.
    pub n: usize,
}

impl Mean {
    /// Of these values; `None` without any.
    pub fn of(values: &[f64]) -> Option<Self> {
        let n = values.len();
        let mean = values.iter().sum::<f64>() / n as f64;
        let deviation = (n > 1).then(|| {
            let squares = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
            (squares / (n - 1) as f64).sqrt()
        });
        let interval = deviation.map(|deviation| {
            let half = t_quantile(n - 1) * deviation / (n as f64).sqrt();
            [mean - half, mean + half]
        });
        (n > 0).then_some(Self { mean, deviation, interval, n })
    }

    /// The mean of logarithms as one of the values themselves: geometric mean, factor of deviation, interval.
    fn exponentiated(self) -> Self {
        Self {
            mean: self.mean.exp(),
            deviation: self.deviation.map(f64::exp),
            interval: self.interval.map(|ends| ends.map(f64::exp)),
            n: self.n,
        }
    }
}

/// The two-sided 95 % quantile of Student's t.
fn t_quantile(freedom: usize) -> f64 {
    StudentsT::new(0.0, 1.0, freedom as f64).map_or(f64::INFINITY, |t| t.inverse_cdf(0.975))
}

/// A ratio between two contenders, by pairs of runs with the same seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ratio {
    /// Geometric mean of the ratios with its interval, from the mean of their logarithms; absent without a whole pair.
    pub ratio: Option<Mean>,
    /// Pairs in which only the baseline missed the target: the ratio is larger than the number given for each.
    pub at_least: Vec<f64>,
    /// Pairs in which only the baseline diverged or failed: no budget would have been enough for it.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub never: usize,
    /// Pairs in which the contender itself missed.
    pub missed: usize,
}

/// One run of a pair: what it had spent when it reached the target, or when it ended without.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spent {
    /// By the time it reached the target.
    Reached(f64),
    /// By its end.
    Censored(f64),
    /// It diverged or failed.
    Never,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Ratios baseline over contender of pairs with the same seed. Runs that missed the target are censored, not dropped.
pub fn paired_ratio(pairs: &[(Spent, Spent)]) -> Ratio {
    let mut logs = vec![];
    let (mut at_least, mut never, mut missed) = (vec![], 0, 0);
    for pair in pairs {
        match *pair {
            (Spent::Reached(baseline), Spent::Reached(contender)) => logs.push((baseline / contender).ln()),
            (Spent::Censored(baseline), Spent::Reached(contender)) => at_least.push(baseline / contender),
            (Spent::Never, Spent::Reached(_)) => never += 1,
            (_, Spent::Censored(_) | Spent::Never) => missed += 1,
        }
    }
    Ratio { ratio: Mean::of(&logs).map(Mean::exponentiated), at_least, never, missed }
}

/// Mean of the differences baseline less contender over the pairs in which both reached the target.
pub fn paired_difference(pairs: &[(Spent, Spent)]) -> Option<Mean> {
    let difference = |pair: &(Spent, Spent)| match *pair {
        (Spent::Reached(baseline), Spent::Reached(contender)) => Some(baseline - contender),
        _ => None,
    };
    Mean::of(&pairs.iter().filter_map(difference).collect::<Vec<_>>())
}

/// Deviation of the final loss over seeds, in nats, for which the record rule of modded-nanogpt's track 3 was made.
const TRACK_3_DEVIATION: f64 = 0.0013;
/// That rule's limit for `(target - mean) sqrt(n)`, in nats.
const TRACK_3_LIMIT: f64 = 0.004;

/// Whether losses with this mean over `n` runs are below the target beyond chance: `(target - mean) sqrt(n)` is at least
/// 0.004 where the deviation over seeds is 0.0013 nats, and in proportion for another `deviation`.
pub fn is_below(target: f64, mean: f64, n: usize, deviation: Option<f64>) -> bool {
    let limit = TRACK_3_LIMIT * deviation.unwrap_or(TRACK_3_DEVIATION) / TRACK_3_DEVIATION;
    // The published means have four digits, which binary fractions do not hold.
    (target - mean) * (n as f64).sqrt() >= limit - 1e-9
}

/// Seeds with which the 95 % interval of a paired ratio would leave out 1, were its mean `ratio` again and the deviation of
/// its logarithm over seeds this one; at least 2, `None` beyond 1000.
pub fn seeds_needed(ratio: f64, deviation: f64) -> Option<usize> {
    let distance = ratio.ln().abs();
    (2..=1000).find(|n| t_quantile(n - 1) * deviation / (*n as f64).sqrt() < distance)
}

/// Ratios beyond this count as infinite, as runs that missed do.
const MOST_TIMES: f64 = 4.0;
/// Points of a profile between 1 and [`MOST_TIMES`].
const PROFILE_POINTS: usize = 301;

/// AlgoPerf's performance profiles (arXiv 2306.07179): for each contender the share of problems in which it spent at most
/// tau times what the best spent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    /// Points (tau, share), tau from 1 to 4.
    pub points: Vec<(f64, f64)>,
    /// The integral of the share over tau from 1 to 4, divided by 3: between 0 and 1.
    pub score: f64,
}

/// Profiles of contenders; `spent[contender][problem]` is infinite or not a number where it missed. Problems that nobody
/// solved count as solved by none.
pub fn profiles(spent: &[Vec<f64>]) -> Vec<Profile> {
    let problems = spent.first().map_or(0, Vec::len);
    let best = |problem: usize| spent.iter().map(|row| row[problem]).fold(f64::INFINITY, f64::min);
    let ratios = |row: &Vec<f64>| -> Vec<f64> { (0..problems).map(|problem| row[problem] / best(problem)).collect() };
    let solved = |ratio: &f64| ratio.is_finite() && *ratio <= MOST_TIMES;
    let profile = |row: &Vec<f64>| {
        let ratios: Vec<f64> = ratios(row).into_iter().filter(solved).collect();
        let share = |tau: f64| ratios.iter().filter(|ratio| **ratio <= tau).count() as f64 / problems.max(1) as f64;
        let tau = |point: usize| 1.0 + (MOST_TIMES - 1.0) * point as f64 / (PROFILE_POINTS - 1) as f64;
        let points = (0..PROFILE_POINTS).map(|point| (tau(point), share(tau(point)))).collect();
        // Each problem adds a step from its ratio to the end.
        let area = ratios.iter().fold(0.0, |area, ratio| area + (MOST_TIMES - ratio) / (MOST_TIMES - 1.0));
        Profile { points, score: area / problems.max(1) as f64 }
    };
    spent.iter().map(profile).collect()
}

#[cfg(test)]
mod tests;
