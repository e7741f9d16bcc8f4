//! Hessian-free optimization (Martens, ICML 2010): conjugate gradients on (G + lambda I) x = -g, back-tracking, a
//! Levenberg-Marquardt rule for lambda, and a line search: theta <- theta + alpha p.

mod search;

use gauntlet_plugin_api::prelude::*;
use search::Search;
use update_rules::line_search::{STEP_SIZE, Verdict};
use update_rules::newton_cg::{self, Solve};
use update_rules::{check, levenberg_marquardt, update_norms};

/// `[optimizer.config]` of `hessian-free`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    #[serde(flatten)]
    cg: newton_cg::Config,
    /// Whether lambda follows the reduction ratio; otherwise it stays as it is.
    adapt_damping: bool,
    /// Sequences of the matrix, the first ones of the batch; the whole batch when absent.
    curvature_batch_size: Option<usize>,
    /// Whether a line search shrinks or rejects the step; otherwise it is taken as it is.
    line_search: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { cg: newton_cg::Config::default(), adapt_damping: true, curvature_batch_size: None, line_search: true }
    }
}

/// lambda, the last solution, and where the step is.
pub struct HessianFree {
    config: Config,
    damping: f64,
    last: Option<Params>,
    stage: Stage,
    /// Steps that were rejected, and solves that met p^T B p <= 0.
    rejected: u64,
    not_positive: u64,
}

#[derive(Default)]
enum Stage {
    #[default]
    Between,
    Solve(Box<Solve>),
    Search(Search),
}

impl HessianFree {
    fn begin(&mut self, ctx: &StepContext) -> Result<Stage> {
        let batch = ctx.next_batch()?;
        let curvature_batch = batch.slice(0, self.config.curvature_batch_size.unwrap_or(batch.sequences()))?;
        let (cg, last, batches) = (&self.config.cg, self.last.take(), [&batch, &curvature_batch]);
        Solve::start(ctx, cg, self.damping, &Structure::Full, batches, last).map(|solve| Stage::Solve(Box::new(solve)))
    }

    /// From the solution p to the search: the reduction ratio, and lambda of the next step.
    fn measure(&mut self, ctx: &StepContext, solve: Solve) -> Result<Stage> {
        let search = Search::new(ctx, &solve, self.damping)?;
        if self.config.adapt_damping {
            self.damping = levenberg_marquardt::next_damping(self.damping, search.reduction_ratio);
        }
        self.not_positive += solve.not_positive() as u64;
        self.last = Some(solve.into_last());
        Ok(Stage::Search(search))
    }

    fn finish(&mut self, ctx: &mut StepContext, search: &Search, size: Option<f64>) -> Result<StepReport> {
        let report = match size {
            Some(size) => {
                let norms = update_norms::metrics(ctx.params(), &search.step, size)?;
                ctx.params_mut().axpy_(size, &search.step)?;
                let report = StepReport::new(search.loss()).metric(STEP_SIZE.name, size);
                norms.into_iter().fold(report, |report, (name, norm)| report.metric(name, norm))
            }
            None => {
                self.rejected += 1;
                StepReport::rejected("no step size decreases the loss").with_loss(search.loss())
            }
        };
        let limit = (newton_cg::ITERATIONS_LIMIT.name, self.config.cg.max_iterations as u64);
        let counts = [("rejected_steps", self.rejected), ("cg_not_positive_steps", self.not_positive), limit];
        let report = search.report(report).metric("update_gradient_cosine", search.cosine()?);
        Ok(counts.into_iter().fold(report, |report, (name, count)| report.metric(name, count as f64)))
    }
}

impl Optimizer for HessianFree {
    const NAME: &'static str = "hessian-free";
    const NEEDS: &'static [Capability] =
        &[Capability::LOSS, Capability::GRADIENT, Capability::LINEARIZE, Capability::GGN_VECTOR_PRODUCT];
    const METRICS: &'static [Metric] = search::METRICS;
    const USES_SCHEDULE: bool = false;
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        config.cg.check("", setup)?;
        check::between("curvature_batch_size", config.curvature_batch_size.unwrap_or(1), 1, setup.batch_size()?)?;
        let (damping, stage) = (config.cg.damping, Stage::Between);
        Ok(Self { config, damping, last: None, stage, rejected: 0, not_positive: 0 })
    }

    fn state_bytes(config: &Config, params: &Params) -> u64 {
        config.cg.state_bytes(params)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let mut local = None;
        loop {
            self.stage = match std::mem::take(&mut self.stage) {
                Stage::Between => self.begin(ctx)?,
                Stage::Solve(mut solve) => match solve.advance(ctx, &mut local)? {
                    false => Stage::Solve(solve),
                    true => self.measure(ctx, *solve)?,
                },
                Stage::Search(search) if !self.config.line_search => return self.finish(ctx, &search, Some(1.0)),
                Stage::Search(mut search) => match search.advance(ctx)? {
                    (size, Verdict::Accept) => return self.finish(ctx, &search, Some(size)),
                    (_, Verdict::Reject) => return self.finish(ctx, &search, None),
                    (_, Verdict::Shrink) => Stage::Search(search),
                },
            };
            if ctx.should_return()? {
                return Ok(StepReport::more());
            }
        }
    }

    fn rule_of(&self, _: &ParamSpec) -> String {
        "cg".into()
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        state.f64("damping", self.damping)?;
        state.u64("rejected", self.rejected)?;
        state.u64("not_positive", self.not_positive)?;
        if let Some(last) = &self.last {
            state.params("last", last)?;
        }
        match &self.stage {
            Stage::Between => Ok(()),
            Stage::Solve(solve) => solve.save(state, "solve."),
            Stage::Search(search) => search.save(state),
        }
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.damping = state.f64("damping")?;
        self.rejected = state.u64("rejected")?;
        self.not_positive = state.u64("not_positive")?;
        self.last = state.has("last").then(|| state.params("last")).transpose()?;
        self.stage = if state.has("solve.batch") {
            Stage::Solve(Box::new(Solve::load(state, "solve.", &self.config.cg, &Structure::Full)?))
        } else if state.has("search.batch") {
            Stage::Search(Search::load(state)?)
        } else {
            Stage::Between
        };
        Ok(())
    }
}

export_optimizer!(HessianFree);

#[cfg(test)]
mod tests;
