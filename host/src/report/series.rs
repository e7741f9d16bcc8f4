//! Curves of several runs: which loss over which cost, smoothed, and few enough points to draw.

use super::history::{Cost, History, Loss};

/// Points of a curve that are drawn, at most.
const MOST_POINTS: usize = 1200;
/// Steps over which losses are averaged, at most.
const LONGEST_AVERAGE: f64 = 50.0;
/// Losses beyond this, either way, are drawn here.
const LARGEST_LOSS: f64 = 1e12;
/// Costs beyond this are drawn here.
const LARGEST_COST: f64 = 1e18;

/// A curve: its points with rising x.
pub type Points = Vec<(f64, f64)>;

/// What the horizontal axis measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Finished steps.
    Steps,
    /// Tokens drawn.
    Tokens,
    /// Floating-point operations in units of one gradient of the global batch.
    GradientEquivalents,
    /// Wall time.
    Seconds,
}

impl Axis {
    /// A cost on this axis.
    fn of(self, cost: &Cost) -> f64 {
        let value = match self {
            Self::Steps => cost.step as f64,
            Self::Tokens => cost.tokens as f64,
            Self::GradientEquivalents => cost.gradient_equivalents,
            Self::Seconds => cost.seconds,
        };
        value.clamp(0.0, LARGEST_COST)
    }
}

/// Losses over an axis, those that are absent left out.
pub fn points(losses: &[Loss], axis: Axis) -> Points {
    let point = |at: &Loss| Some((axis.of(&at.cost), at.loss?.clamp(-LARGEST_LOSS, LARGEST_LOSS)));
    losses.iter().filter_map(point).collect()
}

/// Steps over which the training losses of these runs are averaged: a hundredth of the longest run, 1 to 50.
pub fn average_length(runs: &[History]) -> f64 {
    let longest = runs.iter().map(|run| run.train.len()).max().unwrap_or(0);
    (longest as f64 / 100.0).round().clamp(1.0, LONGEST_AVERAGE)
}

/// The exponential moving average over about `length` points; each value weighs as if there were none before the first.
pub fn averaged(points: &[(f64, f64)], length: f64) -> Points {
    let old = 1.0 - 1.0 / length;
    let (mut sum, mut weight) = (0.0, 0.0);
    let average = |&(x, y): &(f64, f64)| {
        (sum, weight) = (old * sum + (1.0 - old) * y, old * weight + (1.0 - old));
        (x, sum / weight)
    };
    points.iter().map(average).collect()
}

/// At most [`MOST_POINTS`] of the points that show the same curve: of each stretch its ends, its least and its largest.
pub fn thinned(points: Points) -> Points {
    if points.len() <= MOST_POINTS {
        return points;
    }
    let stretch = points.len().div_ceil(MOST_POINTS / 4);
    let of_stretch = |stretch: &[(f64, f64)]| {
        let by_loss = |a: &usize, b: &usize| stretch[*a].1.total_cmp(&stretch[*b].1);
        let least = (0..stretch.len()).min_by(by_loss).unwrap_or(0);
        let largest = (0..stretch.len()).max_by(by_loss).unwrap_or(0);
        let mut kept = [0, least, largest, stretch.len() - 1].to_vec();
        kept.sort_unstable();
        kept.dedup();
        kept.into_iter().map(|at| stretch[at]).collect::<Vec<_>>()
    };
    points.chunks(stretch).flat_map(of_stretch).collect()
}
