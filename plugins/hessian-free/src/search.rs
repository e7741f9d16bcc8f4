//! From a solution to a step: the reduction ratio, and a step size that shrinks until the loss falls enough.

use gauntlet_plugin_api::prelude::*;
use update_rules::levenberg_marquardt;
use update_rules::line_search::{self, Shrinking, Verdict};
use update_rules::newton_cg::{self, Solve};
use update_rules::update_norms;

/// What the plugin reports.
pub const METRICS: &[Metric] = &update_norms::after::<19>(&[
    Metric::new("damping", "", "Damping lambda of this step's system"),
    newton_cg::ITERATIONS,
    newton_cg::ITERATIONS_LIMIT,
    newton_cg::RESIDUAL_RATIO,
    Metric::new(
        "cg_not_positive_steps",
        "steps",
        "Steps so far whose matrix was not positive definite along a direction",
    ),
    Metric::new("cg_chosen_iteration", "iterations", "Iteration of the solution that back-tracking chose"),
    Metric::new("model_change", "nats", "Change of the loss that the undamped quadratic model predicts"),
    Metric::new("loss_change", "nats", "Change of the loss at the solution, on the matrix's data"),
    Metric::new("reduction_ratio", "ratio", "Change of the loss by that which the model predicts"),
    line_search::STEP_SIZE,
    Metric::new("update_gradient_cosine", "", "Cosine of the angle between the solution and the negative gradient"),
    Metric::new("rejected_steps", "steps", "Steps so far that no step size was found for"),
]);

/// A solution p on its way to a step.
pub struct Search {
    batch: Position,
    /// p.
    pub step: Params,
    shrinking: Shrinking,
    /// The change of the loss by that which the model predicts.
    pub reduction_ratio: f64,
    /// Numbers that only the report needs.
    noted: [f64; NOTED.len()],
}

/// Metrics that are known before the search.
const NOTED: [&str; 7] = [
    "gradient_norm",
    "damping",
    newton_cg::ITERATIONS.name,
    newton_cg::RESIDUAL_RATIO.name,
    "cg_chosen_iteration",
    "model_change",
    "loss_change",
];

impl Search {
    /// Measures the solution on the matrix's data: the model is 1/2 p^T G p + g^T p, without damping.
    pub fn new(ctx: &StepContext, solve: &Solve, damping: f64) -> Result<Self> {
        let (step, slope) = (solve.step()?, -solve.cg.b.dot(&solve.step()?)?);
        let batch = ctx.batch(&solve.curvature_batch)?;
        let local = ctx.linearize(ctx.params(), &batch, &Structure::Full)?;
        let model_change = slope + 0.5 * local.ggn_vector_product(&step)?.dot(&step)?;
        drop(local);
        let mut moved = ctx.params().try_clone()?;
        moved.axpy_(1.0, &step)?;
        let loss_change = ctx.loss(&moved, &batch)? - ctx.loss(ctx.params(), &batch)?;
        let (iterations, chosen) = (solve.cg.iterations() as f64, solve.chosen_iteration() as f64);
        let ratio = solve.cg.residual_ratio()?;
        Ok(Self {
            batch: solve.batch.clone(),
            step,
            shrinking: Shrinking { loss: solve.loss, slope, shrinks: 0 },
            reduction_ratio: levenberg_marquardt::reduction_ratio(loss_change, model_change),
            noted: [solve.gradient_norm, damping, iterations, ratio, chosen, model_change, loss_change],
        })
    }

    /// The loss before the step.
    pub fn loss(&self) -> f64 {
        self.shrinking.loss
    }

    /// Tries one step size.
    pub fn advance(&mut self, ctx: &StepContext) -> Result<(f64, Verdict)> {
        let size = self.shrinking.size();
        let mut trial = ctx.params().try_clone()?;
        trial.axpy_(size, &self.step)?;
        let loss = ctx.loss(&trial, &ctx.batch(&self.batch)?)?;
        Ok((size, self.shrinking.tell(loss)))
    }

    /// -g^T p / (|g| |p|).
    pub fn cosine(&self) -> Result<f64> {
        let [gradient_norm, ..] = self.noted;
        Ok(-self.shrinking.slope / (gradient_norm * self.step.norm()?))
    }

    /// Adds what is known of the solve to a report. Where the loss rose against the model, the ratio is below 0.
    pub fn report(&self, report: StepReport) -> StepReport {
        let [.., model_change, loss_change] = self.noted;
        let against = loss_change > 0.0 && model_change < 0.0;
        let ratio = if against { loss_change / model_change } else { self.reduction_ratio };
        let report = report.metric("reduction_ratio", ratio);
        NOTED.iter().zip(self.noted).fold(report, |report, (name, value)| report.metric(name, value))
    }

    pub fn save(&self, state: &mut StateWriter) -> Result<()> {
        let Shrinking { loss, slope, shrinks } = self.shrinking;
        state.text("search.batch", &self.batch.to_json()?)?;
        state.params("search.step", &self.step)?;
        state.f64s("search.loss", &[loss, slope, self.reduction_ratio])?;
        state.u64("search.shrinks", shrinks)?;
        state.f64s("search.noted", &self.noted)
    }

    pub fn load(state: &StateReader) -> Result<Self> {
        let [loss, slope, reduction_ratio] = state.f64s("search.loss")?[..] else {
            return Err(Error::state("search.loss", "expected 3 numbers"));
        };
        let noted = state.f64s("search.noted")?;
        Ok(Self {
            batch: Position::from_json(&state.text("search.batch")?)?,
            step: state.params("search.step")?,
            shrinking: Shrinking { loss, slope, shrinks: state.u64("search.shrinks")? },
            reduction_ratio,
            noted: noted.try_into().map_err(|_| Error::state("search.noted", "expected 7 numbers"))?,
        })
    }
}
