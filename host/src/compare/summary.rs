//! `comparison.json`: what the runs that are there say, and which are not there.

use super::batches::Doubling;
use super::file::Contender;
use super::plan::{Plan, Settings};
use super::result::{End, Measure, RunResult};
use super::statistics::{
    Crossing, Mean, Profile, Ratio, Spent, first_crossing, is_below, paired_difference, paired_ratio, profiles,
    seeds_needed,
};
use super::tuning::Tuned;
use crate::report::Points;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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

/// Something that has to hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Precondition {
    /// The contender that it is about.
    pub of: String,
    /// What.
    pub what: String,
    /// Whether it does; absent where the runs that would say are not there.
    pub holds: Option<bool>,
    /// The figures.
    pub found: String,
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

    fn all_ratios(&self) -> Vec<Versus> {
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
fn counted(of_each: impl Iterator<Item = BTreeSet<u64>>) -> BTreeSet<u64> {
    let of_each: Vec<BTreeSet<u64>> = of_each.collect();
    let all: BTreeSet<u64> = of_each.iter().flatten().copied().collect();
    let common: BTreeSet<u64> =
        all.iter().copied().filter(|seed| of_each.iter().all(|one| one.contains(seed))).collect();
    if common.is_empty() { all } else { common }
}

/// Whether runs were made on equal machines. One that failed before its record began names none.
fn are_equal<'a>(machines: impl Iterator<Item = (&'a str, usize)>) -> bool {
    let mut machines = machines.filter(|(device, _)| !device.is_empty());
    machines.next().is_none_or(|first| machines.all(|machine| machine == first))
}

impl Reached {
    /// Seconds are comparable between runs on equal ones.
    fn machine(&self) -> (&str, usize) {
        (&self.device, self.threads)
    }
}

fn standing(plan: &Plan, contender: &Contender, found: &Found) -> Standing {
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
fn curves(plan: &Plan, found: &[Found]) -> Vec<RatioCurve> {
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
