//! One contender over another: how many times as much a baseline spends, in pairs of runs with one seed.

use super::plan::Plan;
use super::result::{End, Measure};
use super::standing::{Found, Reached, Standing, Standings};
use super::statistics::{Mean, Ratio, Spent, first_crossing, paired_difference, paired_ratio, seeds_needed};
use super::summary::Summary;
use crate::report::Points;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A contender over a baseline: how many times as much the baseline spends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versus {
    /// The contender.
    pub contender: String,
    /// The baseline.
    pub baseline: String,
    /// The loss.
    pub target: f64,
    /// Baseline over contender, by measure.
    pub by: BTreeMap<Measure, Ratio>,
    /// Steps of the baseline less those of the contender, in pairs in which both reached the target.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fewer_steps: Option<Mean>,
    /// Whether all preconditions of both hold; null where some are not known and none fails. Where this is not true, the
    /// ratio is a figure and no claim.
    pub rests: Option<bool>,
    /// Steps, with the baseline at twice the batch, since a line search draws as many data again; absent where the baseline
    /// was not run there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub steps_with_twice_the_batch: Option<Ratio>,
    /// Seeds with which the interval of the ratio in steps would leave out 1, were they like these.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seeds_needed: Option<usize>,
}

/// How many times as many steps a baseline needs, by the loss to reach.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RatioCurve {
    /// The contender.
    pub contender: String,
    /// The baseline.
    pub baseline: String,
    /// Points (loss, geometric mean of the ratios); losses that not all runs of both reached are absent.
    pub points: Points,
}

/// Points of a curve over targets.
const CURVE_POINTS: usize = 60;

impl Summary {
    /// Every contender over every baseline, and over those before it that are none, at every target.
    pub fn all_ratios(&self) -> Vec<Versus> {
        let mut ratios = vec![];
        for (place, baseline) in self.contenders.iter().enumerate() {
            // Two that are no baselines are compared once.
            let others = self.contenders.iter().enumerate().filter(|(other, contender)| {
                if baseline.baseline { *other != place } else { *other > place && !contender.baseline }
            });
            for (_, contender) in others {
                let at = |target: &f64| self.versus(contender, baseline, *target);
                ratios.extend(self.targets.iter().filter_map(at));
            }
        }
        ratios
    }

    /// Whether all that a comparison of two rests on holds.
    fn rests(&self, contender: &Standing, baseline: &Standing) -> Option<bool> {
        let of_both = self.preconditions.iter().filter(|one| [&contender.name, &baseline.name].contains(&&one.of));
        let holds: Vec<Option<bool>> = of_both.map(|one| one.holds).collect();
        match () {
            () if holds.contains(&Some(false)) => Some(false),
            () if holds.is_empty() || holds.contains(&None) => None,
            () => Some(true),
        }
    }

    /// None where the two have no seed in common.
    fn versus(&self, contender: &Standing, baseline: &Standing, target: f64) -> Option<Versus> {
        let own = contender.at(self.batch_size, target)?;
        let all = |batch_size: u64, measure: Measure| Some(pairs(baseline.at(batch_size, target)?, own, measure));
        let ratio = |batch_size: u64, measure: Measure| {
            all(batch_size, measure).filter(|pairs| !pairs.is_empty()).map(|pairs| paired_ratio(&pairs))
        };
        let by: BTreeMap<Measure, Ratio> =
            Measure::ALL.into_iter().filter_map(|measure| Some((measure, ratio(self.batch_size, measure)?))).collect();
        let steps = by.get(&Measure::Steps)?.ratio;
        let seeds_needed = steps.and_then(|mean| seeds_needed(mean.mean, mean.deviation?.ln()));
        Some(Versus {
            contender: contender.name.clone(),
            baseline: baseline.name.clone(),
            target,
            steps_with_twice_the_batch: ratio(2 * self.batch_size, Measure::Steps),
            fewer_steps: all(self.batch_size, Measure::Steps).and_then(|pairs| paired_difference(&pairs)),
            rests: self.rests(contender, baseline),
            by,
            seeds_needed,
        })
    }
}

/// Runs of the same seed; by seconds those of the same device alone.
pub fn pairs(baseline: &Standings, contender: &Standings, measure: Measure) -> Vec<(Spent, Spent)> {
    let spent = |run: &Reached| {
        let spent = run.spent.get(&measure).copied().unwrap_or(0.0);
        match (run.crossing, run.end) {
            (Some(_), _) => Spent::Reached(spent),
            (None, End::Diverged | End::Failed) => Spent::Never,
            (None, _) => Spent::Censored(spent),
        }
    };
    let pair = |run: &Reached| {
        let other = baseline.runs.iter().find(|other| other.seed == run.seed)?;
        (measure != Measure::Seconds || other.machine() == run.machine()).then(|| (spent(other), spent(run)))
    };
    contender.runs.iter().filter_map(pair).collect()
}

/// Every contender over every baseline at the main batch size.
pub fn curves(plan: &Plan, found: &[Found]) -> Vec<RatioCurve> {
    let main = plan.main_batch_size();
    let runs = |found: &'_ Found| -> BTreeMap<u64, Points> {
        let at_main = found.runs.iter().filter(|run| run.batch_size == main);
        at_main.map(|run| (run.seed, run.curve(Measure::Steps))).collect()
    };
    let all: Vec<_> = plan.comparison.contender.iter().zip(found.iter().map(runs)).collect();
    let mut curves = vec![];
    for (baseline, base) in all.iter().filter(|(contender, _)| contender.baseline) {
        for (contender, own) in all.iter().filter(|(contender, _)| contender.name != baseline.name) {
            let pairs: Vec<_> = own.iter().filter_map(|(seed, own)| Some((base.get(seed)?, own))).collect();
            let points = curve_over_targets(&pairs);
            if !points.is_empty() {
                let (contender, baseline) = (contender.name.clone(), baseline.name.clone());
                curves.push(RatioCurve { contender, baseline, points });
            }
        }
    }
    curves
}

/// Ratios at losses from the largest first one down to the least that every run reached.
fn curve_over_targets(pairs: &[(&Points, &Points)]) -> Points {
    let all = || pairs.iter().flat_map(|(base, own)| [*base, *own]);
    let first = all().filter_map(|curve| curve.first()).map(|at| at.1).fold(f64::INFINITY, f64::min);
    let least = |curve: &Points| curve.iter().map(|at| at.1).fold(f64::INFINITY, f64::min);
    let last = all().map(least).fold(f64::NEG_INFINITY, f64::max);
    let target = |point: usize| first + (last - first) * point as f64 / (CURVE_POINTS - 1) as f64;
    let ratio = |target: f64| {
        let steps = |curve: &Points| first_crossing(curve, target).map(|crossing| crossing.at);
        let logs: Option<Vec<f64>> = pairs.iter().map(|(base, own)| Some((steps(base)? / steps(own)?).ln())).collect();
        Mean::of(&logs?).map(|mean| (target, mean.mean.exp()))
    };
    match last < first {
        true => (0..CURVE_POINTS).filter_map(|point| ratio(target(point))).collect(),
        false => vec![],
    }
}
