//! What has to hold before a ratio between optimizers says something.

use super::standing::{Standing, Standings};
use super::statistics::Mean;
use super::summary::Summary;
use super::tuning::Tuned;
use serde::{Deserialize, Serialize};

/// Steps at half the batch may exceed those at the batch by at most this share where more batch is of no use.
const PAST_CRITICAL: f64 = 0.15;
/// At a small batch a curvature method and a good baseline are about equal; more than this and the baseline is mistuned.
const ABOUT_EQUAL: f64 = 1.2;
/// Share of steps at the end of the line search's grid beyond which a run is mistuned.
const AT_GRID_END: f64 = 0.1;

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

/// All of them, for what there is.
pub fn of(summary: &Summary) -> Vec<Precondition> {
    let at_main = |standing: &&Standing| standing.batch_sizes.contains(&summary.batch_size);
    let baselines = summary.contenders.iter().filter(|standing| standing.baseline).filter(at_main);
    let mut all: Vec<Precondition> = baselines.map(|baseline| past_critical(summary, baseline)).collect();
    let searching = summary.contenders.iter().filter(|standing| !standing.baseline);
    all.extend(searching.map(|contender| equal_at_small_batch(summary, contender)));
    all.extend(summary.contenders.iter().map(|contender| not_at_edge(summary, contender)));
    all.extend(summary.contenders.iter().filter_map(|contender| search_within_grid(summary, contender)));
    all
}

/// Steps of two standings in the mean over the seeds that both have.
#[derive(Clone, Copy)]
enum Both {
    /// The two means, and how many seeds.
    Known(f64, f64, usize),
    /// A run of them missed the target.
    Missed,
    /// They have no seed in common.
    NotRun,
}

impl Both {
    fn of(a: Option<&Standings>, b: Option<&Standings>) -> Self {
        let (a, b) = (a.map_or(&[][..], |a| &a.runs), b.map_or(&[][..], |b| &b.runs));
        let of_seed = |seed: u64| b.iter().find(|run| run.seed == seed);
        let pairs = a.iter().filter_map(|run| Some((run, of_seed(run.seed)?)));
        let steps: Option<Vec<(f64, f64)>> = pairs.map(|(a, b)| Some((a.crossing?.at, b.crossing?.at))).collect();
        let Some(steps) = steps else { return Self::Missed };
        let (a, b): (Vec<f64>, Vec<f64>) = steps.into_iter().unzip();
        match Mean::of(&a).zip(Mean::of(&b)) {
            Some((a, b)) => Self::Known(a.mean, b.mean, a.n),
            None => Self::NotRun,
        }
    }

    /// How many times the first mean the second is; infinite where one is not known.
    fn times(self) -> f64 {
        match self {
            Self::Known(a, b, _) => b / a,
            Self::Missed | Self::NotRun => f64::INFINITY,
        }
    }

    /// Whether the second is at least `least` times the first, where both are known.
    fn is_at_least(self, least: f64) -> Option<bool> {
        matches!(self, Self::Known(..)).then(|| self.times() >= least)
    }

    fn found(self) -> String {
        match self {
            Self::Known(a, b, seeds) => format!("{a:.1} steps against {b:.1}, seeds at both: {seeds}"),
            Self::Missed => "the target was missed".into(),
            Self::NotRun => "not run".into(),
        }
    }
}

/// A baseline's batch is above its critical one, by the seeds that were run at half the batch too.
fn past_critical(summary: &Summary, baseline: &Standing) -> Precondition {
    let at = |batch_size| baseline.at(batch_size, summary.target_loss);
    let both = Both::of(at(summary.batch_size / 2), at(summary.batch_size));
    Precondition {
        of: baseline.name.clone(),
        what: format!("`{}`: half the batch costs at most 15 % more steps", baseline.name),
        holds: both.is_at_least(1.0 / (1.0 + PAST_CRITICAL)),
        found: both.found(),
    }
}

/// At the smallest batch that it is to run at, a contender is no more than 1.2 times as fast as the best baseline.
fn equal_at_small_batch(summary: &Summary, contender: &Standing) -> Precondition {
    let small = contender.batch_sizes.iter().copied().min().filter(|small| *small < summary.batch_size);
    let at = |standing: &'_ Standing| small.and_then(|small| standing.at(small, summary.target_loss).cloned());
    let own = at(contender);
    let baselines = summary.contenders.iter().filter(|standing| standing.baseline);
    let pairs = baselines.map(|baseline| Both::of(own.as_ref(), at(baseline).as_ref()));
    let best = pairs.min_by(|a, b| a.times().total_cmp(&b.times())).unwrap_or(Both::NotRun);
    Precondition {
        of: contender.name.clone(),
        what: format!("`{}`: at a small batch within 1.2 times of the best baseline", contender.name),
        holds: best.is_at_least(ABOUT_EQUAL).map(|is_faster| !is_faster),
        found: small.map_or("no smaller batch".into(), |small| format!("at {small} sequences {}", best.found())),
    }
}

/// No best value lies at the edge of its list, nor one that was chosen for a contender that it is like.
fn not_at_edge(summary: &Summary, standing: &Standing) -> Precondition {
    let mut lineage = vec![standing];
    while let Some(parent) = lineage.last().and_then(|one| summary.contender(one.like.as_ref()?)) {
        lineage.push(parent);
    }
    let tunings: Vec<&Tuned> = lineage.iter().filter_map(|one| one.tuning.as_ref()).collect();
    let at_edge: Vec<&str> = tunings.iter().flat_map(|one| &one.at_edge).map(String::as_str).collect();
    let no_order: Vec<&str> = tunings.iter().flat_map(|one| &one.no_order).map(String::as_str).collect();
    let mut found = if at_edge.is_empty() { "none".to_owned() } else { at_edge.join(", ") };
    if !no_order.is_empty() {
        found += &format!("; without an order: {}", no_order.join(", "));
    }
    let (holds, found) = match (standing.is_chosen, tunings.is_empty()) {
        (false, _) => (None, "its settings are not chosen".into()),
        (true, true) => (None, "not tuned".into()),
        (true, false) => (Some(at_edge.is_empty()), found),
    };
    let what = format!("`{}`: no chosen value lies at the edge of its grid", standing.name);
    Precondition { of: standing.name.clone(), what, holds, found }
}

/// The line search seldom wants to go below its grid.
fn search_within_grid(summary: &Summary, standing: &Standing) -> Option<Precondition> {
    let at = standing.at(summary.batch_size, summary.target_loss)?;
    let share = at.runs.iter().filter_map(|run| run.at_grid_end).reduce(f64::max)?;
    Some(Precondition {
        of: standing.name.clone(),
        what: format!("`{}`: at most 10 % of the steps take the smallest step size", standing.name),
        holds: Some(share <= AT_GRID_END),
        found: format!("{:.0} %", 100.0 * share),
    })
}
