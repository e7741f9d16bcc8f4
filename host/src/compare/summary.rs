//! `comparison.json`: what the runs that are there say, and which are not there.

use super::batches::Doubling;
use super::plan::Plan;
use super::preconditions::Precondition;
use super::ratios::{RatioCurve, Versus, curves};
use super::result::Measure;
use super::standing::{Found, Reached, Standing, are_equal, counted, standing};
use super::statistics::{Mean, profiles};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Version of this file.
    pub format: u64,
    /// The loss to reach, in nats a token.
    pub target_loss: f64,
    /// All losses that are reported, the largest first.
    pub targets: Vec<f64>,
    /// The batch size that is compared first of all, in sequences.
    pub batch_size: u64,
    /// Horizontal axes of the page.
    pub axes: Vec<Measure>,
    /// Fingerprint of the training data.
    pub data: String,
    /// That of the validation data.
    pub validation_data: String,
    /// The contenders.
    pub contenders: Vec<Standing>,
    /// The baseline that needed the fewest steps to the target at the main batch size, of those that missed it in no run, by
    /// the seeds that all of these were run with (by all seeds of each where there is no such seed); the first one where none
    /// came there.
    #[serde(default)]
    pub best_baseline: Option<String>,
    /// Every contender over every baseline, and over those before it that are none, at every target, at the main batch size.
    pub ratios: Vec<Versus>,
    /// The same in steps as a curve over targets, of the seeds that two contenders have in common.
    pub curves: Vec<RatioCurve>,
    /// What twice the batch saves each contender, where both sizes were run.
    #[serde(default)]
    pub doublings: Vec<Doubling>,
    /// What has to hold before a ratio says something.
    pub preconditions: Vec<Precondition>,
    /// Runs that the comparison asks for and that are not there, by name.
    pub not_run: Vec<String>,
}

/// Version of `comparison.json`.
const FORMAT: u64 = 2;

impl Summary {
    /// Of what there is, in the order of the comparison's contenders.
    pub fn of(plan: &Plan, found: &[Found]) -> Self {
        let comparison = &plan.comparison;
        let contenders = comparison.contender.iter().zip(found);
        let standings: Vec<Standing> = contenders.map(|(contender, found)| standing(plan, contender, found)).collect();
        let mut summary = Self {
            format: FORMAT,
            target_loss: comparison.target_loss,
            targets: comparison.targets(),
            batch_size: plan.main_batch_size(),
            axes: comparison.axes.clone(),
            data: plan.data.clone(),
            validation_data: plan.validation.clone(),
            contenders: standings,
            best_baseline: None,
            ratios: vec![],
            curves: curves(plan, found),
            doublings: vec![],
            preconditions: vec![],
            not_run: found.iter().flat_map(|found| found.missing.clone()).collect(),
        };
        summary.add_profiles();
        summary.best_baseline = summary.fastest_baseline().map(str::to_owned);
        summary.doublings = super::batches::doublings(&summary);
        summary.preconditions = super::preconditions::of(&summary);
        summary.ratios = summary.all_ratios();
        summary
    }

    /// A contender by name.
    pub fn contender(&self, name: &str) -> Option<&Standing> {
        self.contenders.iter().find(|standing| standing.name == name)
    }

    /// [`Self::best_baseline`].
    fn fastest_baseline(&self) -> Option<&str> {
        let baselines = || self.contenders.iter().filter(|standing| standing.baseline);
        let runs = |standing: &Standing| -> Option<BTreeMap<u64, f64>> {
            let at = standing.at(self.batch_size, self.target_loss).filter(|at| !at.runs.is_empty())?;
            at.runs.iter().map(|run| Some((run.seed, run.crossing?.at))).collect()
        };
        let all: Vec<(&str, BTreeMap<u64, f64>)> =
            baselines().filter_map(|standing| Some((standing.name.as_str(), runs(standing)?))).collect();
        let counts = counted(all.iter().map(|(_, runs)| runs.keys().copied().collect()));
        let steps = |runs: &BTreeMap<u64, f64>| {
            let counted = runs.iter().filter(|(seed, _)| counts.contains(*seed)).map(|(_, steps)| *steps);
            Mean::of(&counted.collect::<Vec<_>>()).map_or(f64::INFINITY, |mean| mean.mean)
        };
        let best = all.iter().min_by(|(_, a), (_, b)| steps(a).total_cmp(&steps(b))).map(|(name, _)| *name);
        best.or_else(|| baselines().next().map(|standing| standing.name.as_str()))
    }

    /// Whether the seconds of all contenders at the main batch size are comparable.
    pub fn is_of_one_machine(&self) -> bool {
        let at_main = self.contenders.iter().filter_map(|one| one.at(self.batch_size, self.target_loss));
        are_equal(at_main.flat_map(|at| &at.runs).map(Reached::machine))
    }

    /// Whether a contender's ratios are shown: baselines have some where there is nothing else.
    pub fn is_challenger(&self, name: &str) -> bool {
        let all_are_baselines = self.contenders.iter().all(|standing| standing.baseline);
        all_are_baselines || self.contender(name).is_some_and(|standing| !standing.baseline)
    }

    /// Ratios as a reader wants them: those over the best baseline at every target, then over the others at the main one.
    pub fn shown_ratios(&self) -> Vec<&Versus> {
        let best = self.best_baseline.as_deref();
        let over_best = |versus: &&Versus| Some(versus.baseline.as_str()) == best;
        let challengers = || self.ratios.iter().filter(|versus| self.is_challenger(&versus.contender));
        let others = challengers().filter(|versus| !over_best(versus) && versus.target == self.target_loss);
        challengers().filter(over_best).chain(others).collect()
    }

    /// Profiles over the problems that every contender with runs has: targets times seeds at the main batch size.
    fn add_profiles(&mut self) {
        let has_runs = |standing: &&Standing| !standing.seeds.is_empty();
        let Some(first) = self.contenders.iter().find(has_runs).map(|standing| standing.seeds.clone()) else { return };
        let in_all = |seed: &u64| self.contenders.iter().filter(has_runs).all(|one| one.seeds.contains(seed));
        let common: Vec<u64> = first.into_iter().filter(in_all).collect();
        let row = |standing: &Standing| -> Vec<f64> {
            let problem = |(target, seed): (f64, u64)| {
                let at =
                    standing.at(self.batch_size, target).and_then(|at| at.runs.iter().find(|run| run.seed == seed));
                at.and_then(|run| run.crossing).map_or(f64::INFINITY, |crossing| crossing.at)
            };
            self.targets.iter().flat_map(|target| common.iter().map(|seed| (*target, *seed))).map(problem).collect()
        };
        let rows: Vec<Vec<f64>> = self.contenders.iter().map(row).collect();
        if !common.is_empty() {
            let profiles = profiles(&rows);
            let with_runs = self.contenders.iter_mut().zip(profiles).filter(|(one, _)| !one.seeds.is_empty());
            with_runs.for_each(|(one, profile)| one.profile = Some(profile));
        }
    }
}
