//! What a Gauss-Newton step says of itself.

use super::Subproblem;
use crate::line_search::{Grid, STEP_SIZE, step_size};
use crate::newton_cg::{self, Solve};
use crate::update_norms;
use gauntlet_plugin_api::prelude::*;

/// Metrics of full-gn and layerwise-gn.
pub const METRICS: &[Metric] = &update_norms::after::<24>(&[
    Metric::new("inner_value_first", "nats", "Value of the model at the first inner step; it may be negative"),
    Metric::new("inner_value_last", "nats", "Value of the model at the last inner step; it may be negative"),
    Metric::new(
        "inner_gradient_norm_first",
        "",
        "Norm of the model's gradient at the first inner step, before clipping",
    ),
    Metric::new("inner_gradient_norm_last", "", "Norm of the model's gradient at the last inner step, before clipping"),
    Metric::new("inner_multiplier_first", "ratio", "Multiplier of the inner rule's step size at the first inner step"),
    Metric::new("inner_multiplier_last", "ratio", "Multiplier of the inner rule's step size at the last inner step"),
    Metric::new("inner_clipped_steps", "steps", "Inner steps of this step whose gradient was clipped"),
    newton_cg::ITERATIONS,
    newton_cg::ITERATIONS_LIMIT,
    newton_cg::RESIDUAL_RATIO,
    Metric::new(
        "cg_not_positive_blocks",
        "blocks",
        "Blocks so far whose matrix was not positive definite along a direction",
    ),
    STEP_SIZE,
    Metric::new("line_search_loss", "nats", "Mean loss of the line search's data at the chosen step size"),
    Metric::new(
        "line_search_loss_at_zero",
        "nats",
        "Mean loss of the line search's data at the parameters before the step",
    ),
    Metric::new("line_search_grid_end_steps", "steps", "Steps so far that chose the smallest step size of the grid"),
    Metric::new(
        "line_search_rejected_steps",
        "steps",
        "Steps so far that were rejected since no step size lowered the loss",
    ),
    Metric::new(
        "failed_steps",
        "steps",
        "Steps so far whose inner iterate diverged or had no finite loss at any step size",
    ),
]);

/// What the solve of a step leaves for its report. A number that does not apply is NaN.
#[derive(Clone, Copy, Debug)]
pub(super) struct Summary {
    anchor_losses: f64,
    minibatches: f64,
    /// Norm of the true gradient, where the first inner step was at the anchor.
    gradient_norm: f64,
    values: [f64; 2],
    norms: [f64; 2],
    multipliers: [f64; 2],
    clipped: f64,
    iterations: f64,
    residual_ratio: f64,
}

/// Events since the run's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Steps whose line search chose its smallest step size.
    pub at_grid_end: u64,
    /// Steps whose line search found no lower loss, where that rejects them.
    pub rejected: u64,
    /// Steps without any finite loss.
    pub failed: u64,
    /// Blocks whose matrix was not positive definite.
    pub not_positive: u64,
}

impl Default for Summary {
    fn default() -> Self {
        let none = f64::NAN;
        Self {
            anchor_losses: 0.0,
            minibatches: 0.0,
            gradient_norm: none,
            values: [none; 2],
            norms: [none; 2],
            multipliers: [none; 2],
            clipped: none,
            iterations: 0.0,
            residual_ratio: none,
        }
    }
}

impl Summary {
    /// Takes note of an inner step.
    pub fn note(&mut self, model: &Subproblem, norm: f64, at_anchor: bool, clipped: bool, multiplier: f64) {
        let first = self.minibatches == 0.0;
        let numbers = [(&mut self.values, model.value), (&mut self.norms, norm), (&mut self.multipliers, multiplier)];
        for (pair, number) in numbers {
            *pair = [if first { number } else { pair[0] }, number];
        }
        if first {
            self.clipped = 0.0;
            self.gradient_norm = if at_anchor { norm } else { f64::NAN };
        }
        self.anchor_losses += model.anchor_loss;
        self.minibatches += 1.0;
        self.iterations += 1.0;
        self.clipped += f64::from(u8::from(clipped));
    }

    /// What conjugate gradients leave.
    pub fn of_solve(solve: &Solve) -> Result<Self> {
        Ok(Self {
            anchor_losses: solve.loss,
            minibatches: 1.0,
            gradient_norm: solve.gradient_norm,
            values: [solve.loss, solve.loss + solve.cg.value()],
            iterations: solve.cg.iterations() as f64,
            residual_ratio: solve.cg.residual_ratio()?,
            ..Self::default()
        })
    }

    /// The step's training loss: the mean over its minibatches, at the anchor.
    pub fn loss(&self) -> f64 {
        self.anchor_losses / self.minibatches
    }

    /// Adds loss and metrics to a report.
    pub fn report(&self, report: StepReport) -> StepReport {
        let metrics = vec![
            ("gradient_norm", self.gradient_norm),
            ("inner_value_first", self.values[0]),
            ("inner_value_last", self.values[1]),
            ("inner_gradient_norm_first", self.norms[0]),
            ("inner_gradient_norm_last", self.norms[1]),
            ("inner_multiplier_first", self.multipliers[0]),
            ("inner_multiplier_last", self.multipliers[1]),
            ("inner_clipped_steps", self.clipped),
            (newton_cg::ITERATIONS.name, self.iterations),
            (newton_cg::RESIDUAL_RATIO.name, self.residual_ratio),
        ];
        with(report.with_loss(self.loss()), metrics)
    }

    /// The numbers, for a state.
    pub fn numbers(&self) -> [f64; 12] {
        let Self { values: [v0, v1], norms: [n0, n1], multipliers: [m0, m1], .. } = *self;
        let (sums, ends) = ([self.anchor_losses, self.minibatches, self.gradient_norm], [v0, v1, n0, n1, m0, m1]);
        let [a, b, c] = sums;
        let [v0, v1, n0, n1, m0, m1] = ends;
        [a, b, c, v0, v1, n0, n1, m0, m1, self.clipped, self.iterations, self.residual_ratio]
    }

    /// The reverse of [`Summary::numbers`].
    pub fn of_numbers(numbers: &[f64]) -> Result<Self> {
        let [anchor_losses, minibatches, gradient_norm, v0, v1, n0, n1, m0, m1, clipped, iterations, residual_ratio] =
            *numbers
        else {
            return Err(Error::state("summary", format!("found {} numbers, expected 12", numbers.len())));
        };
        let (values, norms, multipliers) = ([v0, v1], [n0, n1], [m0, m1]);
        Ok(Self {
            anchor_losses,
            minibatches,
            gradient_norm,
            values,
            norms,
            multipliers,
            clipped,
            iterations,
            residual_ratio,
        })
    }
}

impl Counts {
    /// Adds the counts to a report.
    pub fn report(&self, report: StepReport) -> StepReport {
        let metrics = vec![
            ("line_search_grid_end_steps", self.at_grid_end as f64),
            ("line_search_rejected_steps", self.rejected as f64),
            ("failed_steps", self.failed as f64),
            ("cg_not_positive_blocks", self.not_positive as f64),
        ];
        with(report, metrics)
    }
}

/// The metrics of a line search that chose step size number `best`.
pub(super) fn of_search(grid: &Grid, best: usize) -> Vec<(&'static str, f64)> {
    vec![
        (STEP_SIZE.name, step_size(best)),
        ("line_search_loss", grid.loss(best)),
        ("line_search_loss_at_zero", grid.loss_at_zero()),
    ]
}

/// A report with more metrics; those that are no number are left out.
pub(super) fn with(report: StepReport, metrics: Vec<(&'static str, f64)>) -> StepReport {
    let known = metrics.into_iter().filter(|(_, value)| !value.is_nan());
    known.fold(report, |report, (name, value)| report.metric(name, value))
}
