//! Gauss-Newton for language models (Abreu et al., arXiv 2510.09378): a step minimises a model of the loss, linearized
//! at the parameters theta at its beginning, over N minibatches of its batch, then searches along the way found.
//!
//! ```text
//! phi <- where the last step ended before its line search (or theta, without a warm start)
//! for i = 1..N:  phi <- rule(phi, gradient of the model at theta on minibatch i, at delta = phi - theta)
//! alpha = argmin over 2^(-i/2) of the loss at theta + alpha (phi - theta), on minibatches of its own
//! theta <- theta + alpha (phi - theta)
//! ```
//!
//! Full and layerwise Gauss-Newton differ by the [`Structure`] alone. A step returns after every inner step and every
//! minibatch of the line search; with conjugate gradients when the host asks.

mod config;
mod report;
mod state;

pub use config::{Clip, Config, Inner, Model, Name, Solver, Stream, WarmStart};
pub use report::METRICS;

use crate::inner::Inner as Rule;
use crate::inner_schedule::InnerSchedule;
use crate::line_search::{Grid, step_size};
use crate::newton_cg::{self, Solve};
use crate::{check, clip};
use gauntlet_plugin_api::prelude::*;
use report::{Counts, Summary};

/// The solver of full-gn and layerwise-gn.
#[derive(Debug)]
pub struct GaussNewton {
    config: Config,
    structure: Structure,
    blocks: Blocks,
    schedule: InnerSchedule,
    clip: Clip,
    /// N.
    inner_steps: usize,
    /// phi.
    iterate: Params,
    solver: Running,
    counts: Counts,
    stage: Stage,
}

/// What minimises the model, with its state.
#[derive(Debug)]
enum Running {
    Rule(Box<Rule>),
    /// Conjugate gradients, with the solution of the last step.
    Cg(newton_cg::Config, Option<Params>),
}

/// Where a step is.
#[derive(Debug, Default)]
enum Stage {
    #[default]
    Between,
    /// Inner steps are to be done.
    Inner { batch: Position, done: usize, summary: Summary },
    /// Conjugate gradients are on their way.
    Cg(Box<Solve>),
    /// The line search is to go on.
    Search { batch: Position, grid: Grid, summary: Summary },
}

/// What a part of a step comes to.
enum Part {
    /// Another part of this stage or the next.
    More(Stage),
    /// The solve is done.
    Solved(Summary),
    /// An inner gradient is not finite, away from the anchor.
    Diverged(Summary),
}

/// A model of the loss at a point.
struct Subproblem {
    anchor_loss: f64,
    value: f64,
    gradient: Params,
}

impl GaussNewton {
    /// What the host must offer.
    pub const NEEDS: &'static [Capability] = &[
        Capability::LOSS,
        Capability::GRADIENT,
        Capability::LINEARIZE,
        Capability::QUADRATIC,
        Capability::PROX_LINEAR,
        Capability::GGN_VECTOR_PRODUCT,
    ];

    /// The solver before the first step.
    ///
    /// # Errors
    ///
    /// Settings out of range, and a structure that does not fit the model.
    pub fn new(config: Config, structure: Structure, setup: &Setup) -> Result<Self> {
        config.check(setup)?;
        if config.model == Model::Loss && structure != Structure::Full {
            return Err(Error::config("model", "\"loss\" is of the whole model: its blocks depend on each other"));
        }
        let params = setup.params();
        let solver = Running::new(&config.inner.solver(), params)?;
        let clip = config.clip.unwrap_or(match structure {
            Structure::Full => Clip::PerOptimizerGroup,
            _ => Clip::PerBlock,
        });
        Ok(Self {
            blocks: Blocks::resolve(&structure, params.specs())?,
            schedule: config.schedule(),
            inner_steps: config.inner_steps(setup.batch_size()?)?,
            iterate: params.try_clone()?,
            counts: Counts::default(),
            stage: Stage::Between,
            config,
            structure,
            clip,
            solver,
        })
    }

    /// One part of a step.
    pub fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let part = match std::mem::take(&mut self.stage) {
            Stage::Between => self.begin(ctx)?,
            Stage::Inner { batch, done, summary } => self.inner_step(ctx, batch, done, summary)?,
            Stage::Cg(solve) => self.conjugate(ctx, solve)?,
            Stage::Search { batch, grid, summary } => return self.search(ctx, batch, grid, summary),
        };
        match part {
            Part::More(stage) => {
                self.stage = stage;
                Ok(StepReport::more())
            }
            Part::Diverged(summary) => self.fail(ctx, summary, "the inner iterate diverged"),
            Part::Solved(summary) if self.config.line_search => {
                let batch = self.search_batch(ctx)?.position().clone();
                let grid = Grid::new(self.config.line_search_candidates);
                self.stage = Stage::Search { batch, grid, summary };
                Ok(StepReport::more())
            }
            Part::Solved(summary) => self.accept(ctx, summary, 1.0, vec![]),
        }
    }

    /// The rule that solves for a parameter, and its block where there are several.
    pub fn rule_of(&self, spec: &ParamSpec) -> String {
        let rule = match &self.solver {
            Running::Rule(rule) => rule.rule_of(spec),
            Running::Cg(..) => "cg",
        };
        let at = self.iterate.specs().iter().position(|own| own.name == spec.name);
        match at.and_then(|at| self.blocks.of_param().get(at)) {
            Some(block) if self.blocks.count() > 1 => format!("{rule}, block {block}"),
            _ => rule.into(),
        }
    }

    fn begin(&mut self, ctx: &StepContext) -> Result<Part> {
        self.restart(ctx, self.config.warm_start)?;
        let batch = ctx.next_batch()?;
        match &mut self.solver {
            Running::Rule(_) => self.inner_step(ctx, batch.position().clone(), 0, Summary::default()),
            Running::Cg(config, last) => {
                let (config, last) = (config.clone(), last.take());
                let solve = Solve::start(ctx, &config, config.damping, &self.structure, [&batch, &batch], last)?;
                self.conjugate(ctx, Box::new(solve))
            }
        }
    }

    /// phi <- theta, and the inner optimizer before its first step, but for what is kept.
    fn restart(&mut self, ctx: &StepContext, kept: WarmStart) -> Result<()> {
        if !matches!(kept, WarmStart::Both | WarmStart::Iterate) {
            self.iterate.copy_(ctx.params())?;
        }
        if !matches!(kept, WarmStart::Both | WarmStart::State) {
            self.solver = Running::new(&self.config.inner.solver(), ctx.params())?;
        }
        Ok(())
    }

    /// Inner step number `i`, from 0.
    fn inner_step(&mut self, ctx: &StepContext, batch: Position, i: usize, mut summary: Summary) -> Result<Part> {
        let size = self.config.inner_batch_size as u64;
        let minibatch = ctx.batch(&batch.slice(i as u64 * size, size)?)?;
        let delta = difference(&self.iterate, ctx.params())?;
        let at_anchor = delta.max_abs()? == 0.0;
        let mut model = self.model(ctx, &minibatch, &delta, at_anchor)?;
        let norm = model.gradient.norm()?;
        if !norm.is_finite() && !at_anchor && model.anchor_loss.is_finite() && self.config.line_search {
            return Ok(Part::Diverged(summary));
        }
        check::finite_gradient(norm)?;
        let clipped = self.clip(&mut model.gradient)?;
        let multiplier = self.schedule.at(ctx, i, self.inner_steps);
        summary.note(&model, norm, at_anchor, clipped, multiplier);
        let Running::Rule(rule) = &mut self.solver else { return Err(Error::plugin("no inner rule")) };
        rule.step(&mut self.iterate, &mut model.gradient, multiplier)?;
        if self.averages_iterates() && ctx.supports(Capability::EMA_UPDATE) {
            ctx.ema_update(&self.iterate)?;
        }
        match i + 1 == self.inner_steps {
            true => Ok(Part::Solved(summary)),
            false => Ok(Part::More(Stage::Inner { batch, done: i + 1, summary })),
        }
    }

    /// The study averages every inner iterate of full Gauss-Newton without a line search, and otherwise steps.
    fn averages_iterates(&self) -> bool {
        self.structure == Structure::Full && !self.config.line_search
    }

    /// The model at delta, the penalty included. At delta = 0 it has the loss's own value and gradient.
    fn model(&self, ctx: &StepContext, batch: &Batch, delta: &Params, at_anchor: bool) -> Result<Subproblem> {
        if at_anchor {
            let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), batch)?;
            return Ok(Subproblem { anchor_loss: loss, value: loss, gradient });
        }
        let local = || ctx.linearize(ctx.params(), batch, &self.structure);
        let mut model = match self.config.model {
            Model::Quadratic => {
                let q = local()?.quadratic(delta)?;
                Subproblem { anchor_loss: q.anchor_loss, value: q.value(), gradient: q.gradient }
            }
            Model::ProxLinear => {
                let l = local()?.prox_linear(delta)?;
                Subproblem { anchor_loss: l.anchor_loss, value: l.value, gradient: l.gradient }
            }
            Model::Linear => {
                let (anchor_loss, gradient) = ctx.loss_and_gradient(ctx.params(), batch)?;
                Subproblem { anchor_loss, value: anchor_loss + gradient.dot(delta)?, gradient }
            }
            Model::Loss => {
                let (value, gradient) = ctx.loss_and_gradient(&self.iterate, batch)?;
                Subproblem { anchor_loss: ctx.loss(ctx.params(), batch)?, value, gradient }
            }
        };
        let lambda = self.config.tikhonov;
        if lambda > 0.0 {
            model.value += 0.5 * lambda * delta.dot(delta)?;
            model.gradient.axpy_(lambda, delta)?;
        }
        Ok(model)
    }

    /// Clips the gradient; true where a part of it was longer than allowed.
    fn clip(&self, gradient: &mut Params) -> Result<bool> {
        let Some(max_norm) = self.config.clip_norm else { return Ok(false) };
        let norms = match self.clip {
            Clip::PerOptimizerGroup => clip::by_optimizer_group(gradient, max_norm)?.to_vec(),
            Clip::PerBlock => clip::by_block(gradient, &self.blocks, max_norm)?,
            Clip::Global => vec![clip::to_norm(gradient, max_norm)?],
        };
        Ok(norms.iter().any(|norm| *norm > max_norm))
    }

    /// Goes on with conjugate gradients until they are done or the host wants its turn.
    fn conjugate(&mut self, ctx: &StepContext, mut solve: Box<Solve>) -> Result<Part> {
        let mut local = None;
        while !solve.advance(ctx, &mut local)? {
            if ctx.should_return()? {
                return Ok(Part::More(Stage::Cg(solve)));
            }
        }
        let summary = Summary::of_solve(&solve)?;
        self.counts.not_positive += solve.not_positive() as u64;
        self.iterate.copy_(ctx.params())?.axpy_(ctx.schedule(), &solve.step()?)?;
        if let Running::Cg(_, last) = &mut self.solver {
            *last = Some(solve.into_last());
        }
        Ok(Part::Solved(summary))
    }

    /// Data of the line search.
    fn search_batch(&self, ctx: &StepContext) -> Result<Batch> {
        let batches = self.config.line_search_batches.unwrap_or(self.inner_steps);
        let purpose = match self.config.line_search_stream {
            Stream::Own => Purpose::LINE_SEARCH,
            Stream::Shared => Purpose::STEP,
        };
        ctx.next_batch_for(purpose, batches * self.config.inner_batch_size)
    }

    /// The losses of one minibatch; after the last one the step size.
    fn search(
        &mut self,
        ctx: &mut StepContext,
        batch: Position,
        mut grid: Grid,
        summary: Summary,
    ) -> Result<StepReport> {
        let size = self.config.inner_batch_size as u64;
        let minibatch = ctx.batch(&batch.slice(grid.batches() * size, size)?)?;
        grid.add(|alpha| ctx.loss(&self.point(ctx.params(), alpha)?, &minibatch))?;
        if grid.batches() * size < batch.sequences {
            self.stage = Stage::Search { batch, grid, summary };
            return Ok(StepReport::more());
        }
        let Some(best) = grid.best() else { return self.fail(ctx, summary, "no step size gives a finite loss") };
        self.counts.at_grid_end += u64::from(grid.is_last(best));
        let metrics = report::of_search(&grid, best);
        if self.config.line_search_reject && grid.loss(best) >= grid.loss_at_zero() {
            self.counts.rejected += 1;
            let report = summary.report(StepReport::rejected("no step size lowers the loss"));
            return Ok(self.report(report::with(report, metrics)));
        }
        self.accept(ctx, summary, step_size(best), metrics)
    }

    /// Adds what holds over the run to a step's report.
    fn report(&self, report: StepReport) -> StepReport {
        let report = self.counts.report(report);
        match &self.solver {
            Running::Cg(config, _) => report.metric(newton_cg::ITERATIONS_LIMIT.name, config.max_iterations as f64),
            Running::Rule(_) => report,
        }
    }

    /// theta + alpha (phi - theta).
    fn point(&self, theta: &Params, alpha: f64) -> Result<Params> {
        if alpha == 1.0 {
            return self.iterate.try_clone();
        }
        let mut point = theta.try_clone()?;
        if alpha != 0.0 {
            fused([&mut point], [&self.iterate], |[w], [phi]| [w + alpha * (phi - w)])?;
        }
        Ok(point)
    }

    /// theta <- theta + alpha (phi - theta).
    fn accept(
        &self,
        ctx: &mut StepContext,
        summary: Summary,
        alpha: f64,
        search: Vec<(&'static str, f64)>,
    ) -> Result<StepReport> {
        let delta = difference(&self.iterate, ctx.params())?;
        let norms = crate::update_norms::metrics(ctx.params(), &delta, alpha)?;
        match alpha == 1.0 {
            true => ctx.params_mut().copy_(&self.iterate).map(drop)?,
            false => fused([ctx.params_mut()], [&self.iterate], |[w], [phi]| [w + alpha * (phi - w)])?,
        }
        let report = summary.report(StepReport::new(summary.loss()));
        Ok(self.report(report::with(report::with(report, search), norms)))
    }

    /// Rejects a step that led nowhere. The next one starts at the parameters with a fresh inner optimizer.
    fn fail(&mut self, ctx: &StepContext, summary: Summary, reason: &str) -> Result<StepReport> {
        self.restart(ctx, WarmStart::None)?;
        self.counts.failed += 1;
        Ok(self.report(summary.report(StepReport::rejected(reason))))
    }
}

impl Running {
    fn new(solver: &Solver, params: &Params) -> Result<Self> {
        Ok(match solver.rule() {
            Ok(rule) => Self::Rule(Box::new(Rule::new(&rule, params)?)),
            Err(config) => Self::Cg(config.clone(), None),
        })
    }
}

/// phi - theta.
fn difference(phi: &Params, theta: &Params) -> Result<Params> {
    let mut delta = phi.try_clone()?;
    delta.axpy_(-1.0, theta)?;
    Ok(delta)
}

#[cfg(test)]
mod tests;
