//! What has to hold before a ratio between optimizers says something.

use super::statistics::Mean;
use super::summary::{Precondition, Reached, Standing, Summary};

/// Steps at half the batch may exceed those at the batch by at most this share where more batch is of no use.
const PAST_CRITICAL: f64 = 0.15;
/// At a small batch a curvature method and a good baseline are about equal; more than this and the baseline is mistuned.
const ABOUT_EQUAL: f64 = 1.2;
/// Share of steps at the end of the line search's grid beyond which a run is mistuned.
const AT_GRID_END: f64 = 0.1;

/// All of them, for what there is.
pub fn of(summary: &Summary) -> Vec<Precondition> {
    let baselines = summary.contenders.iter().filter(|standing| standing.baseline);
    let mut all: Vec<Precondition> = baselines.map(|baseline| past_critical(summary, baseline)).collect();
    let searching = summary.contenders.iter().filter(|standing| !standing.baseline);
    all.extend(searching.clone().filter_map(|contender| equal_at_small_batch(summary, contender)));
    all.extend(summary.contenders.iter().filter_map(not_at_edge));
    all.extend(summary.contenders.iter().filter_map(|contender| search_within_grid(summary, contender)));
    all
}

/// The mean of a contender's steps to the main target at a batch size, where all of its runs reached it.
fn steps(summary: &Summary, standing: &Standing, batch_size: u64) -> Option<f64> {
    let at = standing.at(batch_size, summary.target_loss)?;
    at.steps.filter(|_| at.missed == 0).map(|steps| steps.mean)
}

/// A baseline's batch is above its critical one, by the seeds that were run at half the batch too.
fn past_critical(summary: &Summary, baseline: &Standing) -> Precondition {
    let at = |batch_size| baseline.at(batch_size, summary.target_loss).map_or(&[][..], |at| &at.runs);
    let whole = |seed: u64| at(summary.batch_size).iter().find(|run| run.seed == seed);
    let pairs: Vec<(&Reached, &Reached)> =
        at(summary.batch_size / 2).iter().filter_map(|half| Some((half, whole(half.seed)?))).collect();
    // A run that missed its target leaves the mean unknown.
    let steps: Option<Vec<(f64, f64)>> =
        pairs.iter().map(|(half, whole)| Some((half.crossing?.at, whole.crossing?.at))).collect();
    let missed = steps.is_none();
    let (half, whole): (Vec<f64>, Vec<f64>) = steps.unwrap_or_default().into_iter().unzip();
    let both = Mean::of(&half).zip(Mean::of(&whole));
    let found = |(half, whole): (Mean, Mean)| {
        format!("{:.1} steps against {:.1}, {} of the same seeds", half.mean, whole.mean, half.n)
    };
    Precondition {
        of: baseline.name.clone(),
        what: format!("`{}`: half the batch costs at most 15 % more steps", baseline.name),
        holds: both.map(|(half, whole)| half.mean <= (1.0 + PAST_CRITICAL) * whole.mean),
        found: both.map_or_else(|| if missed { "the target was missed" } else { "not run" }.to_owned(), found),
    }
}

/// At the smallest batch that it is to run at, a contender is no more than 1.2 times as fast as the best baseline.
fn equal_at_small_batch(summary: &Summary, contender: &Standing) -> Option<Precondition> {
    let small = contender.batch_sizes.iter().copied().min().filter(|small| *small < summary.batch_size)?;
    let baselines = summary.contenders.iter().filter(|standing| standing.baseline);
    let best = baselines.filter_map(|baseline| steps(summary, baseline, small)).reduce(f64::min);
    let both = best.zip(steps(summary, contender, small));
    let missed = contender.at(small, summary.target_loss).is_some_and(|at| at.missed > 0);
    let found = |(best, own)| format!("{own:.1} steps against {best:.1}");
    Some(Precondition {
        of: contender.name.clone(),
        what: format!("`{}` at a batch of {small} is within 1.2 times of the best baseline", contender.name),
        holds: both.map(|(best, own)| best <= ABOUT_EQUAL * own),
        found: both.map_or_else(|| if missed { "the target was missed" } else { "not run" }.to_owned(), found),
    })
}

/// No best value lies at the edge of its list.
fn not_at_edge(standing: &Standing) -> Option<Precondition> {
    let tuning = standing.tuning.as_ref()?;
    let no_order: String = tuning.no_order.iter().map(|key| format!("; without an order: {key}")).collect();
    let at_edge = if tuning.at_edge.is_empty() { "none".to_owned() } else { tuning.at_edge.join(", ") };
    Some(Precondition {
        of: standing.name.clone(),
        what: format!("`{}`: no chosen value lies at the edge of its grid", standing.name),
        holds: Some(tuning.at_edge.is_empty()),
        found: at_edge + &no_order,
    })
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
