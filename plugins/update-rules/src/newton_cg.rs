//! The damped Gauss-Newton step of one batch, (G + lambda I) x = -g, by conjugate gradients (Martens, ICML 2010).
//!
//! The solve can stop between any two products or losses and go on in another process: [`Solve::advance`] does one of
//! them at a time.

use crate::cg::{Backtrack, Block, Cg, Stop};
use crate::check;
use gauntlet_plugin_api::prelude::*;

/// Inner steps of a step, or iterations of conjugate gradients.
pub const ITERATIONS: Metric =
    Metric::new("inner_iterations", "iterations", "Inner steps, or iterations of conjugate gradients");
/// Where the solver stops, solved or not.
pub const ITERATIONS_LIMIT: Metric =
    Metric::new("inner_iterations_limit", "", "Iterations of conjugate gradients at most");
/// How far the solve came.
pub const RESIDUAL_RATIO: Metric = Metric::new(
    "cg_residual_ratio",
    "ratio",
    "Residual of conjugate gradients by the gradient, the largest of all blocks",
);

/// Settings of the solver.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// lambda, added to the diagonal of the Gauss-Newton matrix.
    pub damping: f64,
    /// Iterations at most, each one product with the Gauss-Newton matrix.
    pub max_iterations: usize,
    /// Stop where the relative progress over the last k = max(10, i / 10) iterations is below this times k; 0: never.
    pub progress_tolerance: f64,
    /// Stop where the residual's norm by the gradient's is at most this; 0: only where it is 0.
    pub residual_tolerance: f64,
    /// Whether the system is preconditioned by (mean squared gradient of a sequence + damping)^(3/4).
    pub preconditioner: bool,
    /// The solve starts at this share of the last step's solution, in [0, 1].
    pub start_share: f64,
    /// Whether to go back to an earlier iterate where the true loss is lower there.
    pub backtracking: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            damping: 1.0,
            max_iterations: 100,
            progress_tolerance: 5e-4,
            residual_tolerance: 0.0,
            preconditioner: true,
            start_share: 0.95,
            backtracking: true,
        }
    }
}

impl Config {
    /// Checks ranges, and that the host can make the preconditioner; `prefix` stands before the keys of messages.
    pub fn check(&self, prefix: &str, setup: &Setup) -> Result<()> {
        let key = |name: &str| format!("{prefix}{name}");
        check::not_negative(&key("damping"), self.damping)?;
        check::between(&key("max_iterations"), self.max_iterations, 1, 100_000)?;
        check::not_negative(&key("progress_tolerance"), self.progress_tolerance)?;
        check::not_negative(&key("residual_tolerance"), self.residual_tolerance)?;
        check::share(&key("start_share"), self.start_share)?;
        match self.preconditioner && !setup.supports(Capability::SQUARED_GRADIENT) {
            true => {
                Err(Error::config(key("preconditioner"), "this host offers no `squared_gradient`; set it to false"))
            }
            false => Ok(()),
        }
    }

    /// Bytes of the tensors of a solve.
    pub fn state_bytes(&self, params: &Params) -> u64 {
        Cg::lists(self.max_iterations, self.preconditioner) * params.bytes()
    }

    fn stop(&self) -> Stop {
        let Self { max_iterations, progress_tolerance: progress, residual_tolerance: residual, .. } = *self;
        Stop { max_iterations, progress, residual }
    }
}

/// A solve in progress.
#[derive(Debug)]
pub struct Solve {
    config: Config,
    structure: Structure,
    /// Data of the gradient and of the true loss.
    pub batch: Position,
    /// Data of the matrix: the same for the whole solve.
    pub curvature_batch: Position,
    /// The loss at the anchor.
    pub loss: f64,
    /// Norm of the gradient.
    pub gradient_norm: f64,
    damping: f64,
    /// The solver; its right-hand side is -g.
    pub cg: Cg,
    backtrack: Backtrack,
}

impl Solve {
    /// Begins a solve at the run's parameters: the gradient, the preconditioner, and the first residual. It starts at
    /// `start_share` of `last`.
    ///
    /// # Errors
    ///
    /// A gradient that is not finite.
    pub fn start(
        ctx: &StepContext,
        config: &Config,
        damping: f64,
        structure: &Structure,
        [batch, curvature_batch]: [&Batch; 2],
        last: Option<Params>,
    ) -> Result<Self> {
        let (loss, mut b) = ctx.loss_and_gradient(ctx.params(), batch)?;
        let gradient_norm = b.norm()?;
        check::finite_gradient(gradient_norm)?;
        b.scale_(-1.0)?;
        let preconditioner = config.preconditioner.then(|| preconditioner(ctx, batch, damping)).transpose()?;
        let mut x = last.map_or_else(|| b.zeros_like(), Ok)?;
        x.scale_(config.start_share)?;
        let local = ctx.linearize(ctx.params(), curvature_batch, structure)?;
        let blocks = local.blocks().clone();
        let cg = Cg::start(config.stop(), blocks, b, x, preconditioner, &mut |v| damped(&local, damping, v))?;
        let (batch, curvature_batch) = (batch.position().clone(), curvature_batch.position().clone());
        let (config, structure, backtrack) = (config.clone(), structure.clone(), Backtrack::default());
        Ok(Self { config, structure, batch, curvature_batch, loss, gradient_norm, damping, cg, backtrack })
    }

    /// One iteration, or one loss on the way back. True when nothing is left to do. `local` keeps the linearization for
    /// the next call within the same call of `step`.
    pub fn advance(&mut self, ctx: &StepContext, local: &mut Option<Linearization>) -> Result<bool> {
        if !self.cg.is_done() {
            let local = match local {
                Some(local) => local,
                None => {
                    let batch = ctx.batch(&self.curvature_batch)?;
                    local.insert(ctx.linearize(ctx.params(), &batch, &self.structure)?)
                }
            };
            self.cg.iterate(&mut |v| damped(local, self.damping, v))?;
            return Ok(false);
        }
        *local = None;
        let trial = if self.config.backtracking { self.backtrack.trial(&self.cg)? } else { None };
        let Some(mut trial) = trial else { return Ok(true) };
        trial.axpy_(1.0, ctx.params())?;
        self.backtrack.tell(&self.cg, ctx.loss(&trial, &ctx.batch(&self.batch)?)?);
        Ok(false)
    }

    /// The step that was chosen.
    pub fn step(&self) -> Result<Params> {
        self.backtrack.step(&self.cg)
    }

    /// The iteration that gave the chosen step, where there is one block.
    pub fn chosen_iteration(&self) -> usize {
        self.backtrack.iteration(&self.cg)
    }

    /// The last iterate, where the next solve starts; it ends this one.
    pub fn into_last(self) -> Params {
        self.cg.x
    }

    /// Blocks that met p^T B p <= 0.
    pub fn not_positive(&self) -> usize {
        self.cg.states().iter().filter(|state| **state == Block::NotPositive).count()
    }

    /// Saves the solve; `prefix` stands before the entries' names.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        let key = |name: &str| format!("{prefix}{name}");
        state.text(&key("batch"), &self.batch.to_json()?)?;
        state.text(&key("curvature_batch"), &self.curvature_batch.to_json()?)?;
        state.f64s(&key("numbers"), &[self.loss, self.gradient_norm, self.damping])?;
        self.cg.save(state, &key("cg."))?;
        self.backtrack.save(state, &key("backtrack."))
    }

    /// Restores what [`Solve::save`] took.
    pub fn load(state: &StateReader, prefix: &str, config: &Config, structure: &Structure) -> Result<Self> {
        let key = |name: &str| format!("{prefix}{name}");
        let [loss, gradient_norm, damping] = state.f64s(&key("numbers"))?[..] else {
            return Err(Error::state(key("numbers"), "expected 3 numbers"));
        };
        Ok(Self {
            batch: Position::from_json(&state.text(&key("batch"))?)?,
            curvature_batch: Position::from_json(&state.text(&key("curvature_batch"))?)?,
            loss,
            gradient_norm,
            damping,
            cg: Cg::load(state, &key("cg."), config.stop(), structure)?,
            backtrack: Backtrack::load(state, &key("backtrack."))?,
            config: config.clone(),
            structure: structure.clone(),
        })
    }
}

/// (G + lambda I) v.
fn damped(local: &Linearization, damping: f64, v: &Params) -> Result<Params> {
    let mut product = local.ggn_vector_product(v)?;
    product.axpy_(damping, v)?;
    Ok(product)
}

/// (mean over sequences of the squared gradient + lambda)^(3/4). Elements that are 0, where neither a gradient nor
/// damping reaches, become 1.
fn preconditioner(ctx: &StepContext, batch: &Batch, damping: f64) -> Result<Params> {
    let mut diagonal = ctx.squared_gradient(ctx.params(), batch, Per::Sequence, Labels::Data)?;
    fused([&mut diagonal], [], |[d], []| {
        let d = d + damping;
        [d.equal(0.0).select(1.0, d.pow(0.75))]
    })?;
    Ok(diagonal)
}
