//! How settings are chosen: a grid or Halton's points, the worse half given up again and again, the grid grown where its
//! best value lies at its edge.

use super::file::{Contender, Range, Space, Tuning};
use super::plan::{Plan, Settings, Stage};
use super::result::{End, Measure, RunResult};
use super::statistics::first_crossing;
use super::worker::{Job, Outcome, Workers};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What came of a contender's tuning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tuned {
    /// The best settings.
    pub settings: Settings,
    /// Keys whose best value is the first or last of its list, or the least or largest that was tried of its range.
    pub at_edge: Vec<String>,
    /// Keys whose lists are not of numbers, and have no edge that could be told.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub no_order: Vec<String>,
    /// Gradients of the main batch that its trials spent.
    pub spent: f64,
    /// Those of them beyond the budget: of grown grids, and of steps that cost more than was left.
    pub beyond_budget: f64,
    /// Median over the studies of the steps of the fastest trial; absent where a study has none that reached the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub score: Option<f64>,
    /// All trials, the best first.
    pub trials: Vec<Trial>,
}

/// One trial.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Its settings.
    pub settings: Settings,
    /// Steps to the target; absent where it was not reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<f64>,
    /// Its last validation loss; absent where it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// Gradients of the main batch that it spent.
    pub spent: f64,
    /// Its study.
    pub study: usize,
    /// Whether it was refused or its plugin failed: nothing is known of its settings.
    #[serde(skip)]
    failed: bool,
}

/// Chooses the settings of a contender. Trials that have no result yet are made where it `may_run`; `None` where some are
/// missing.
///
/// # Errors
///
/// What keeps any run from being made.
pub fn tune(
    plan: &Plan,
    workers: &Workers,
    tuning: &Tuning,
    contender: &Contender,
    from: &Settings,
    may_run: bool,
) -> Result<Option<Tuned>> {
    let mut search = Search { plan, workers, tuning, contender, from, may_run, trials: vec![] };
    let mut spaces: BTreeMap<String, Space> = contender.tune.clone();
    let points = points(&spaces, tuning.trials);
    search.trials = points.iter().enumerate().map(|(at, point)| search.trial(point, at % tuning.studies)).collect();
    let of_study = |study: usize| (study..points.len()).step_by(tuning.studies).collect();
    let mut kept: Vec<Vec<usize>> = (0..tuning.studies).map(of_study).collect();
    let (rungs, first) = rungs(tuning, &kept.iter().map(Vec::len).collect::<Vec<_>>());
    for rung in 0..rungs {
        let budget = first * f64::from(1 << rung);
        if !search.run(&kept.concat(), budget)? {
            return Ok(None);
        }
        for study in &mut kept {
            search.sort(study);
            study.truncate(study.len().div_ceil(2));
        }
    }
    let last = first * f64::from(1 << (rungs - 1));
    for _ in 0..tuning.extensions {
        let before = spaces.clone();
        let Some(more) = grown(&mut spaces, &search.best().settings) else { break };
        let at = search.trials.len();
        search.trials.push(search.trial(&more, at % tuning.studies));
        if !search.run(&[at], last)? {
            return Ok(None);
        }
        if search.trials[at].failed {
            // Its value is none: the edge is where it was.
            spaces = before;
            break;
        }
    }
    Ok(Some(search.tuned(&spaces)))
}

struct Search<'a> {
    plan: &'a Plan,
    workers: &'a Workers,
    tuning: &'a Tuning,
    contender: &'a Contender,
    from: &'a Settings,
    may_run: bool,
    trials: Vec<Trial>,
}

impl Search<'_> {
    fn trial(&self, point: &Settings, study: usize) -> Trial {
        let mut settings = self.from.clone();
        settings.extend(point.clone());
        Trial { settings, steps: None, loss: None, spent: 0.0, study, failed: false }
    }

    /// Lets some trials go on until each has spent `budget`; false when that was stopped.
    fn run(&mut self, which: &[usize], budget: f64) -> Result<bool> {
        let target = self.plan.comparison.target_loss;
        let batch_size = self.plan.batch_sizes(self.contender).first().copied().unwrap_or(0);
        let scale = self.plan.gradients_in_one(batch_size);
        let limit = budget * scale;
        let job = |at: &usize| {
            let settings = &self.trials[*at].settings;
            let spec = self.plan.run(self.contender, Stage::Trial, self.tuning.seed, batch_size, settings);
            Job { spec, limit, targets: vec![target] }
        };
        let jobs: Vec<Job> = which.iter().map(job).collect();
        let outcomes = match self.may_run {
            true => self.workers.run(self.plan, &jobs)?,
            false => self.workers.found(&jobs)?,
        };
        for (at, outcome) in which.iter().zip(outcomes) {
            match outcome {
                Outcome::Done(result) => self.trials[*at].hear(result.up_to(limit), target, scale),
                Outcome::Left(_) | Outcome::Stopped => return Ok(false),
            }
        }
        Ok(true)
    }

    /// The best first: fewest steps to the target, then the least loss.
    fn sort(&self, which: &mut [usize]) {
        let key = |at: &usize| {
            let trial = &self.trials[*at];
            (trial.steps.unwrap_or(f64::INFINITY), trial.loss.filter(|loss| loss.is_finite()).unwrap_or(f64::INFINITY))
        };
        which.sort_by(|a, b| {
            let ((steps, loss), (other_steps, other_loss)) = (key(a), key(b));
            steps.total_cmp(&other_steps).then(loss.total_cmp(&other_loss))
        });
    }

    /// Of the trials that went furthest, the best.
    fn best(&self) -> &Trial {
        &self.trials[self.order()[0]]
    }

    /// All trials, the best first: one that was given up never stands before one that went on, nor one that diverged or failed
    /// before one that did not.
    fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.trials.len()).collect();
        self.sort(&mut order);
        let furthest = self.trials.iter().map(|trial| trial.spent).fold(0.0, f64::max);
        let given_up = |at: &usize| {
            let trial = &self.trials[*at];
            trial.steps.is_none() && trial.spent < 0.75 * furthest
        };
        let came_to_nothing = |at: &usize| {
            let trial = &self.trials[*at];
            trial.steps.is_none() && !trial.loss.is_some_and(f64::is_finite)
        };
        order.sort_by_key(|at| (came_to_nothing(at), given_up(at)));
        order
    }

    fn spent(&self) -> f64 {
        self.trials.iter().map(|trial| trial.spent).sum()
    }

    fn tuned(self, spaces: &BTreeMap<String, Space>) -> Tuned {
        let (spent, order) = (self.spent(), self.order());
        let score = score(&self.trials, self.tuning.studies);
        let trials: Vec<Trial> = order.into_iter().map(|at| self.trials[at].clone()).collect();
        let settings = trials[0].settings.clone();
        let is_at_edge = |key: &String, space: &Space| {
            let tried = || trials.iter().filter_map(|trial| trial.settings.get(key)?.as_f64()).collect();
            let numbers = if matches!(space, Space::Range(_)) { Some(tried()) } else { space.numbers() };
            numbers.is_some_and(|numbers| edge(numbers, settings.get(key)).is_some())
        };
        let at_edge = spaces.iter().filter(|(key, space)| is_at_edge(key, space));
        let at_edge = at_edge.map(|(key, _)| key.clone()).collect();
        let no_order =
            spaces.iter().filter(|(_, space)| matches!(space, Space::Values(_)) && space.numbers().is_none());
        let no_order = no_order.map(|(key, _)| key.clone()).collect();
        let beyond_budget = (spent - self.tuning.budget).max(0.0);
        Tuned { settings, at_edge, no_order, spent, beyond_budget, score, trials }
    }
}

impl Trial {
    fn hear(&mut self, result: RunResult, target: f64, scale: f64) {
        let curve = result.curve(Measure::Steps);
        self.steps = first_crossing(&curve, target).map(|crossing| crossing.at);
        self.loss = result.validation.last().map(|at| at.loss).filter(|_| result.error.is_none());
        self.spent = result.validation.last().map_or(0.0, |at| at.gradient_equivalents / scale);
        self.failed = result.end == End::Failed;
    }
}

/// The median over the studies of the fastest trial's steps; a study without one counts as infinite.
fn score(trials: &[Trial], studies: usize) -> Option<f64> {
    let fastest = |study: usize| {
        let steps = trials.iter().filter(|trial| trial.study == study).filter_map(|trial| trial.steps);
        steps.fold(f64::INFINITY, f64::min)
    };
    let mut fastest: Vec<f64> = (0..studies).map(fastest).collect();
    fastest.sort_by(f64::total_cmp);
    let middle = f64::midpoint(fastest[(studies - 1) / 2], fastest[studies / 2]);
    Some(middle).filter(|middle| middle.is_finite())
}

/// Rungs of the halving, and what each trial may spend on the first: each rung doubles it for half of each study's trials, so
/// that all rungs cost as much as the budget.
fn rungs(tuning: &Tuning, studies: &[usize]) -> (u32, f64) {
    let most = studies.iter().copied().max().unwrap_or(1).max(1);
    let rungs = if tuning.halving { most.ilog2() + 1 } else { 1 };
    let mut left = studies.to_vec();
    let mut units = left.iter().sum::<usize>() as f64;
    for rung in 1..rungs {
        left.iter_mut().for_each(|trials| *trials = trials.div_ceil(2));
        // From one rung to the next a trial spends once more what it has spent.
        units += left.iter().sum::<usize>() as f64 * f64::from(1 << (rung - 1));
    }
    (rungs, tuning.budget / units)
}

/// The points of a search space: the grid of its lists, or Halton's points where it has a range.
fn points(spaces: &BTreeMap<String, Space>, trials: usize) -> Vec<Settings> {
    let is_grid = spaces.values().all(|space| matches!(space, Space::Values(_)));
    if !is_grid {
        return (1..=trials as u64).map(|index| halton_point(spaces, index)).collect();
    }
    let mut points = vec![Settings::new()];
    for (key, space) in spaces {
        let Space::Values(values) = space else { continue };
        let with = |point: &Settings| -> Vec<Settings> {
            let one = |value: &Value| {
                let mut point = point.clone();
                point.insert(key.clone(), value.clone());
                point
            };
            values.iter().map(one).collect()
        };
        points = points.iter().flat_map(with).collect();
    }
    points
}

const PRIMES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];

fn halton_point(spaces: &BTreeMap<String, Space>, index: u64) -> Settings {
    let value = |(place, (key, space)): (usize, (&String, &Space))| {
        let share = radical_inverse(index, PRIMES[place % PRIMES.len()]);
        let value = match space {
            Space::Range(range) => range.number(significant(between(range, share))),
            Space::Values(values) => values[((share * values.len() as f64) as usize).min(values.len() - 1)].clone(),
        };
        (key.clone(), value)
    };
    spaces.iter().enumerate().map(value).collect()
}

/// The number at a share of the way through a range.
fn between(range: &Range, share: f64) -> f64 {
    let Range { low, high, log, .. } = *range;
    if log { (low.ln() + share * (high / low).ln()).exp() } else { low + share * (high - low) }
}

/// Digits of `index` in this base, mirrored at the point: Halton's sequence in one dimension.
fn radical_inverse(mut index: u64, base: u64) -> f64 {
    let (mut value, mut place) = (0.0, 1.0);
    while index > 0 {
        place /= base as f64;
        value += place * (index % base) as f64;
        index /= base;
    }
    value
}

/// At which end of at least two numbers a value lies.
fn edge(numbers: Vec<f64>, value: Option<&Value>) -> Option<Edge> {
    let value = value?.as_f64().filter(|_| numbers.len() > 1)?;
    let (least, largest) = numbers.iter().fold((value, value), |(low, high), one| (low.min(*one), high.max(*one)));
    match () {
        () if value == least => Some(Edge::First),
        () if value == largest => Some(Edge::Last),
        () => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    First,
    Last,
}

/// The best point with its first value at an edge moved one further, in the ratio of the two values there; the list grows by
/// it. `None` where no value is at an edge, or can go further.
fn grown(spaces: &mut BTreeMap<String, Space>, best: &Settings) -> Option<Settings> {
    for (key, space) in spaces.iter_mut() {
        let Some(edge) = space.numbers().and_then(|numbers| edge(numbers, best.get(key))) else { continue };
        let Space::Values(values) = space else { continue };
        let number = |at: usize| values[at].as_f64();
        let (end, next) = match edge {
            Edge::First => (number(0)?, number(1)?),
            Edge::Last => (number(values.len() - 1)?, number(values.len() - 2)?),
        };
        let is_whole = values.iter().all(|value| value.is_i64() || value.is_u64());
        let further = if is_whole { (end * end / next).round() } else { significant(end * end / next) };
        if !further.is_finite() || further == end || further * end <= 0.0 || !may_grow(key, further) {
            continue;
        }
        let further = if is_whole { Value::from(further as i64) } else { further.into() };
        let mut point = best.clone();
        point.insert(key.clone(), further.clone());
        match edge {
            Edge::First => values.insert(0, further),
            Edge::Last => values.push(further),
        }
        return Some(point);
    }
    None
}

/// Shares of a moving average stay below 1.
fn may_grow(key: &str, value: f64) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    let is_share = name.contains("beta") || name.contains("momentum") || name.contains("decay");
    !is_share || value < 1.0
}

/// To four significant digits, as a person would write it.
fn significant(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

#[cfg(test)]
mod tests;
