//! One contender: its runs, and what they spent to each target.

use super::file::Contender;
use super::plan::{Plan, Settings};
use super::result::{End, Measure, RunResult};
use super::statistics::{Crossing, Mean, Profile, first_crossing, is_below};
use super::tuning::Tuned;
use crate::report::Points;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One contender.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Whether others are measured against it.
    pub baseline: bool,
    /// The contender that it is like.
    pub like: Option<String>,
    /// Its plugin with the SHA-256 of its file, as its runs said; several where it was built again between them.
    pub plugins: Vec<(String, String)>,
    /// The batch sizes that it is to run at.
    pub batch_sizes: Vec<u64>,
    /// Its settings.
    pub settings: Settings,
    /// Whether these are the ones that its runs are made with, and not the first of its lists.
    #[serde(default)]
    pub is_chosen: bool,
    /// How they were chosen; absent where nothing was to be chosen.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tuning: Option<Tuned>,
    /// The seeds of its runs at the main batch size that are there.
    pub seeds: Vec<u64>,
    /// Steps to the target of each of these; null where it was not reached.
    pub steps_to_target: Vec<Option<f64>>,
    /// The same at every batch size and every target.
    pub at: Vec<Standings>,
    /// Its performance profile over targets and seeds at the main batch size.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub profile: Option<Profile>,
}

/// A contender at one batch size and one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Standings {
    /// Sequences of the batch.
    pub batch_size: u64,
    /// The loss.
    pub target: f64,
    /// The runs.
    pub runs: Vec<Reached>,
    /// Mean of the steps of those that reached it, and its interval.
    pub steps: Option<Mean>,
    /// Runs that did not.
    pub missed: usize,
    /// The first step at which the mean loss over the runs is below the target beyond chance, by the rule of
    /// modded-nanogpt's track 3 with the deviation measured there; absent for one run, and where there is none: runs end at
    /// the lowest target, so that it is seldom there for that one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub certain_at: Option<u64>,
}

/// One run and a target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// Its seed.
    pub seed: u64,
    /// The device that it was made on.
    pub device: String,
    /// Its threads.
    pub threads: usize,
    /// How it ended.
    pub end: End,
    /// Where it came down to the target: steps, and how far apart the evaluations around it are.
    pub crossing: Option<Crossing>,
    /// What it had spent by then, by measure; by its end where it missed.
    pub spent: BTreeMap<Measure, f64>,
    /// Validation loss, moved as [`RunResult::curve`] does, less the mean training loss of its last steps, in nats.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gap: Option<f64>,
    /// Passes over the training data.
    pub epochs: f64,
    /// Share of its steps whose line search chose the smallest step size; absent for those without one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub at_grid_end: Option<f64>,
}

/// What there is of a contender.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// How its settings were chosen.
    pub tuning: Option<Tuned>,
    /// Its settings.
    pub settings: Settings,
    /// Whether these are the ones to run with.
    pub is_chosen: bool,
    /// Its runs.
    pub runs: Vec<RunResult>,
    /// Names of those that are missing.
    pub missing: Vec<String>,
}

impl Standing {
    /// At a batch size and a target.
    pub fn at(&self, batch_size: u64, target: f64) -> Option<&Standings> {
        self.at.iter().find(|at| at.batch_size == batch_size && at.target == target)
    }

    /// Mean steps to a target by batch size, over the seeds that were run at all sizes (all of each where there is none),
    /// without the sizes at which one of these missed.
    pub fn by_batch_size(&self, target: f64) -> Vec<(u64, Mean)> {
        let sizes: Vec<&Standings> = self.at.iter().filter(|at| at.target == target && !at.runs.is_empty()).collect();
        let counts = counted(sizes.iter().map(|at| at.runs.iter().map(|run| run.seed).collect()));
        let steps = |at: &&Standings| {
            let counted = at.runs.iter().filter(|run| counts.contains(&run.seed));
            let steps: Option<Vec<f64>> = counted.map(|run| Some(run.crossing?.at)).collect();
            Some((at.batch_size, Mean::of(&steps?)?))
        };
        sizes.iter().filter_map(steps).collect()
    }
}

impl Standings {
    /// Whether the seconds of all its runs are comparable.
    pub fn is_of_one_machine(&self) -> bool {
        are_equal(self.runs.iter().map(Reached::machine))
    }
}

/// The seeds that several have in common; all of them where there is no such seed.
pub fn counted(of_each: impl Iterator<Item = BTreeSet<u64>>) -> BTreeSet<u64> {
    let of_each: Vec<BTreeSet<u64>> = of_each.collect();
    let all: BTreeSet<u64> = of_each.iter().flatten().copied().collect();
    let common: BTreeSet<u64> =
        all.iter().copied().filter(|seed| of_each.iter().all(|one| one.contains(seed))).collect();
    if common.is_empty() { all } else { common }
}

/// Whether runs were made on equal machines. One that failed before its record began names none.
pub fn are_equal<'a>(machines: impl Iterator<Item = (&'a str, usize)>) -> bool {
    let mut machines = machines.filter(|(device, _)| !device.is_empty());
    machines.next().is_none_or(|first| machines.all(|machine| machine == first))
}

impl Reached {
    /// Seconds are comparable between runs on equal ones.
    pub fn machine(&self) -> (&str, usize) {
        (&self.device, self.threads)
    }
}

/// Of what there is of a contender, by batch size and target.
pub fn standing(plan: &Plan, contender: &Contender, found: &Found) -> Standing {
    let mut at = vec![];
    let batch_sizes = plan.batch_sizes(contender);
    for batch_size in &batch_sizes {
        let runs: Vec<&RunResult> = found.runs.iter().filter(|run| run.batch_size == *batch_size).collect();
        let of = |target: &f64| standings(*batch_size, *target, &runs);
        at.extend(plan.comparison.targets().iter().filter(|_| !runs.is_empty()).map(of));
    }
    let main = at.iter().find(|at| at.batch_size == plan.main_batch_size() && at.target == plan.comparison.target_loss);
    let runs = main.map(|main| main.runs.clone()).unwrap_or_default();
    let plugin = |run: &RunResult| (run.made_with.plugin.clone(), run.made_with.plugin_sha256.clone());
    let plugins: BTreeSet<(String, String)> = found.runs.iter().map(plugin).collect();
    Standing {
        name: contender.name.clone(),
        about: contender.about.clone(),
        baseline: contender.baseline,
        like: contender.like.clone(),
        plugins: plugins.into_iter().filter(|(name, _)| !name.is_empty()).collect(),
        batch_sizes,
        settings: found.settings.clone(),
        is_chosen: found.is_chosen,
        tuning: found.tuning.clone(),
        seeds: runs.iter().map(|run| run.seed).collect(),
        steps_to_target: runs.iter().map(|run| run.crossing.map(|crossing| crossing.at)).collect(),
        at,
        profile: None,
    }
}

fn standings(batch_size: u64, target: f64, runs: &[&RunResult]) -> Standings {
    let certain_at = certain_at(target, runs);
    let runs: Vec<Reached> = runs.iter().map(|run| reached(run, target)).collect();
    let steps: Vec<f64> = runs.iter().filter_map(|run| run.crossing.map(|crossing| crossing.at)).collect();
    let missed = runs.len() - steps.len();
    Standings { batch_size, target, runs, steps: Mean::of(&steps), missed, certain_at }
}

/// The first step that all runs evaluated at which their mean loss is below the target beyond chance.
fn certain_at(target: f64, runs: &[&RunResult]) -> Option<u64> {
    let curves: Vec<BTreeMap<u64, f64>> = runs
        .iter()
        .map(|run| run.curve(Measure::Steps).into_iter().map(|(step, loss)| (step as u64, loss)).collect())
        .collect();
    let is_certain = |step: &u64| {
        let losses: Option<Vec<f64>> = curves.iter().map(|curve| curve.get(step).copied()).collect();
        let mean = losses.as_deref().and_then(Mean::of);
        mean.is_some_and(|mean| mean.n > 1 && is_below(target, mean.mean, mean.n, mean.deviation))
    };
    curves.first()?.keys().copied().find(is_certain)
}

fn reached(run: &RunResult, target: f64) -> Reached {
    let losses = run.losses();
    let curve = |measure: Measure| -> Points {
        run.validation.iter().map(|at| measure.of(at)).zip(losses.iter().copied()).collect()
    };
    let crossing = first_crossing(&curve(Measure::Steps), target);
    let spent = |measure: Measure| {
        let at = first_crossing(&curve(measure), target).map(|crossing| crossing.at);
        at.or_else(|| run.validation.last().map(|last| measure.of(last))).map(|spent| (measure, spent))
    };
    let last = run.validation.last();
    let steps = last.map_or(0, |last| last.step).max(1) as f64;
    Reached {
        seed: run.seed,
        device: run.made_with.device.clone(),
        threads: run.made_with.threads,
        end: run.end,
        crossing,
        spent: Measure::ALL.into_iter().filter_map(spent).collect(),
        gap: losses.last().zip(run.train_loss).map(|(loss, train)| loss - train),
        epochs: run.epochs,
        at_grid_end: run.metrics.get("line_search_grid_end_steps").map(|count| count / steps),
    }
}
