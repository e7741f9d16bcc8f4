//! The training loop: one step after another until the run's end, with evaluation and the policy for failed steps.
//!
//! The trainer emits events and knows no listener. Its caller drives it step by step and decides what to save.

mod evaluate;
mod schedule;
mod transaction;

pub use evaluate::Evaluator;
pub use schedule::multiplier;
pub use transaction::{Policy, Snapshot};

use crate::curvature::{Streams, TorchSession};
use crate::data::Dataset;
use crate::error::{Exit, Result};
use crate::events::{Evaluated, Event, Step};
use crate::plugin::PluginOptimizer;
use gauntlet_plugin_abi::{Capability, LogLevel, Purpose};
use gauntlet_plugin_api::backend::{Outcome, SavedState};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tch::Tensor;
use transaction::{Done, Transactions};

/// Where a run ends. At least one is set.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ends {
    /// After this many steps.
    pub max_steps: Option<u64>,
    /// When this many tokens were drawn for steps.
    pub max_tokens: Option<u64>,
    /// When the operations of all calls are those of this many gradients of the global batch.
    pub max_gradient_equivalents: Option<f64>,
    /// When the validation loss, in nats a token, is at most this.
    pub target_loss: Option<f64>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// `train.max_steps` is reached.
    MaxSteps,
    /// `train.max_tokens` is reached.
    MaxTokens,
    /// `train.max_gradient_equivalents` is reached.
    MaxGradientEquivalents,
    /// `train.target_loss` is reached.
    TargetLoss,
}

impl End {
    /// The name that events use.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxSteps => "max_steps",
            Self::MaxTokens => "max_tokens",
            Self::MaxGradientEquivalents => "max_gradient_equivalents",
            Self::TargetLoss => "target_loss",
        }
    }
}

/// Where a run goes on.
#[derive(Clone, Debug)]
pub struct Resumed {
    /// Finished steps.
    pub step: u64,
    /// Parts of the next step that are done.
    pub part: u64,
    /// Where the data stood before the step in progress, if one is.
    pub before: Option<Streams>,
    /// Steps of recent skips.
    pub skipped: Vec<u64>,
    /// The last validation loss.
    pub validation_loss: Option<f64>,
}

/// How far a call of [`Trainer::advance`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A part of a step; the step goes on with the next call.
    Part,
    /// A whole step.
    Step,
    /// The run's end.
    End(End),
}

/// What a trainer needs beside its optimizer.
pub struct Options {
    /// Where the run ends.
    pub ends: Ends,
    /// What a failed step does.
    pub policy: Policy,
    /// Steps between evaluations; 0 for none before the end.
    pub eval_every: u64,
    /// Validation, if there are data for it.
    pub evaluator: Option<Evaluator>,
    /// The schedule's multiplier at a fractional step, for the record.
    pub schedule: Box<dyn Fn(f64) -> f64>,
    /// Metrics that the plugin declares.
    pub metrics: BTreeSet<String>,
    /// The training data, for the time that reading them takes.
    pub data: Arc<Dataset>,
}

/// What one step has spent.
struct Spent {
    calls: BTreeMap<String, u64>,
    calls_time: Duration,
    data_time: Duration,
}

/// Metrics of every run, which no plugin has to declare.
const WELL_KNOWN_METRICS: [&str; 1] = ["gradient_norm"];

/// A run in progress.
pub struct Trainer {
    optimizer: PluginOptimizer,
    session: &'static TorchSession,
    options: Options,
    transactions: Transactions,
    step: u64,
    part: u64,
    validation_loss: Option<f64>,
    step_started: Option<Instant>,
    /// Time of all calls, and of reading data, before the step in progress.
    call_time: Duration,
    data_time: Duration,
    /// Calls by kind before the step in progress.
    calls: BTreeMap<Capability, u64>,
    undeclared: BTreeSet<String>,
}

impl Trainer {
    /// A run at its start.
    pub fn new(optimizer: PluginOptimizer, options: Options) -> Self {
        let session = optimizer.session();
        let transactions = Transactions::new(options.policy);
        Self {
            optimizer,
            session,
            options,
            transactions,
            step: 0,
            part: 0,
            validation_loss: None,
            step_started: None,
            call_time: Duration::ZERO,
            data_time: Duration::ZERO,
            calls: BTreeMap::new(),
            undeclared: BTreeSet::new(),
        }
    }

    /// Goes on where a checkpoint was made; parameters, optimizer, average and data position are already there.
    pub fn resume(&mut self, at: Resumed) {
        self.step = at.step;
        self.part = at.part;
        self.validation_loss = at.validation_loss;
        self.transactions.resume(at.before, at.skipped);
    }

    /// Restores the optimizer's state.
    pub fn load_optimizer(&mut self, state: &SavedState) -> Result<()> {
        self.optimizer.load(state)
    }

    /// Begins with an optimizer that is made at the parameters of now.
    pub fn renew_optimizer(&mut self) -> Result<()> {
        self.optimizer.make_anew()
    }

    /// Parts of the step in progress that are done, 0 between steps.
    pub fn part(&self) -> u64 {
        self.part
    }

    /// Where the data stood before the step in progress.
    pub fn streams_before(&self) -> Option<&Streams> {
        self.transactions.before()
    }

    /// Steps of recent skips.
    pub fn skipped(&self) -> Vec<u64> {
        self.transactions.recent()
    }

    /// Finished steps.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// The last validation loss.
    pub fn validation_loss(&self) -> Option<f64> {
        self.validation_loss
    }

    /// The optimizer, to be asked before the first step.
    pub fn optimizer_mut(&mut self) -> &mut PluginOptimizer {
        &mut self.optimizer
    }

    /// The optimizer, to save its state.
    pub fn optimizer(&self) -> &PluginOptimizer {
        &self.optimizer
    }

    /// Runs one step, or a part of a long one, and an evaluation when one is due.
    ///
    /// # Errors
    ///
    /// A failed step beyond the policy; its values are neither evaluated nor to be saved.
    pub fn advance(&mut self, emit: &mut dyn FnMut(Event)) -> Result<Progress> {
        // A step that has begun is finished, also where its tokens are the last.
        if let Some(end) = self.end().filter(|_| self.part == 0) {
            return Ok(Progress::End(end));
        }
        let started = *self.step_started.get_or_insert_with(Instant::now);
        let Some(done) = self.transactions.advance(&mut self.optimizer, self.step, emit)? else {
            self.part = if self.transactions.before().is_some() { self.part + 1 } else { 0 };
            return Ok(Progress::Part);
        };
        self.step_started = None;
        self.part = 0;
        self.step += 1;
        update_ema(self.session);
        self.report(done, started, emit);
        let (every, end) = (self.options.eval_every, self.end());
        if (every > 0 && self.step.is_multiple_of(every)) || end.is_some() {
            self.evaluate(emit)?;
        }
        Ok(self.end().map_or(Progress::Step, Progress::End))
    }

    /// Why the run ends here, if it does.
    pub fn end(&self) -> Option<End> {
        let Ends { max_steps, max_tokens, max_gradient_equivalents, target_loss } = self.options.ends;
        let reached = |limit: Option<u64>, value: u64| limit.is_some_and(|limit| value >= limit);
        let target = target_loss.zip(self.validation_loss).is_some_and(|(target, loss)| loss <= target);
        if target {
            Some(End::TargetLoss)
        } else if reached(max_steps, self.step) {
            Some(End::MaxSteps)
        } else if reached(max_tokens, self.tokens(Purpose::STEP)) {
            Some(End::MaxTokens)
        } else if max_gradient_equivalents.is_some_and(|limit| self.gradient_equivalents() >= limit) {
            Some(End::MaxGradientEquivalents)
        } else {
            None
        }
    }

    fn tokens(&self, purpose: Purpose) -> u64 {
        let state = self.session.lock();
        state.backend.streams.drawn(purpose) * state.backend.problem().seq_len() as u64
    }

    /// Operations of all calls in units of one gradient of the global batch; 0 where a gradient has none.
    fn gradient_equivalents(&self) -> f64 {
        let state = self.session.lock();
        let backend = &state.backend;
        let unit = 3.0 * backend.problem().forward_flops(backend.facts().batch_size);
        if unit > 0.0 { backend.flops() / unit } else { 0.0 }
    }

    fn report(&mut self, Done { result, param_norm }: Done, started: Instant, emit: &mut dyn FnMut(Event)) {
        let gradient_equivalents = self.gradient_equivalents();
        let (metrics, logs, flops) = {
            let mut state = self.session.lock();
            let mut metrics = std::mem::take(&mut state.backend.metrics);
            metrics.extend(result.metrics);
            let logs = std::mem::take(&mut state.backend.logs);
            (metrics, logs, state.backend.flops())
        };
        let spent = self.spent();
        logs.into_iter().for_each(|(level, message)| emit(log(level, message)));
        let metrics = self.declared(metrics, emit);
        emit(Event::Step(Step {
            step: self.step,
            loss: Some(result.loss).filter(|loss| loss.is_finite()),
            schedule: (self.options.schedule)((self.step - 1) as f64),
            tokens: self.tokens(Purpose::STEP),
            line_search_tokens: self.tokens(Purpose::LINE_SEARCH),
            flops,
            gradient_equivalents,
            seconds: started.elapsed().as_secs_f64(),
            call_seconds: spent.calls_time.as_secs_f64(),
            data_seconds: spent.data_time.as_secs_f64(),
            param_norm,
            calls: spent.calls,
            rejected: match result.outcome {
                Outcome::Rejected(reason) => Some(reason),
                _ => None,
            },
            metrics,
        }));
    }

    /// What the step that ends now has spent: the differences to the end of the one before.
    fn spent(&mut self) -> Spent {
        let state = self.session.lock();
        let counts = &state.backend.calls;
        let call_time: Duration = counts.values().map(|count| count.time).sum();
        let calls: BTreeMap<Capability, u64> = counts.iter().map(|(call, count)| (*call, count.calls)).collect();
        let data_time = self.options.data.read_time();
        let before = std::mem::replace(&mut self.calls, calls);
        let new = |(call, count): (&Capability, &u64)| {
            let new = count - before.get(call).copied().unwrap_or(0);
            (new > 0).then(|| (call.name(), new))
        };
        Spent {
            calls: self.calls.iter().filter_map(new).collect(),
            calls_time: call_time.saturating_sub(std::mem::replace(&mut self.call_time, call_time)),
            data_time: data_time.saturating_sub(std::mem::replace(&mut self.data_time, data_time)),
        }
    }

    /// The metrics that may be exported; each undeclared one is named once.
    fn declared(&mut self, metrics: Vec<(String, f64)>, emit: &mut dyn FnMut(Event)) -> BTreeMap<String, f64> {
        let mut kept = BTreeMap::new();
        for (name, value) in metrics {
            if WELL_KNOWN_METRICS.contains(&name.as_str()) || self.options.metrics.contains(&name) {
                if value.is_finite() {
                    kept.insert(name, value);
                }
            } else if self.undeclared.insert(name.clone()) {
                let message =
                    format!("plugin `{}`: metric `{name}` is not declared, so it is dropped", self.optimizer.name());
                emit(log(LogLevel::WARN, message));
            }
        }
        kept
    }

    /// Evaluates at the plugin's own parameters, else at the average, else at the parameters.
    fn evaluate(&mut self, emit: &mut dyn FnMut(Event)) -> Result<()> {
        let Some(evaluator) = &self.options.evaluator else { return Ok(()) };
        let (started, step) = (Instant::now(), self.step);
        emit(Event::Evaluating { step });
        let (at, params) = self.evaluation_params()?;
        let loss = evaluator.loss(&params).inspect_err(|fault| {
            if fault.exit == Exit::NonFinite {
                emit(Event::NonFinite { step, place: "validation".into() });
            }
        })?;
        self.validation_loss = Some(loss);
        let (tokens, seconds) = (evaluator.tokens(), started.elapsed().as_secs_f64());
        let bits_per_byte = evaluator.bits_per_byte(loss);
        emit(Event::Evaluated(Evaluated { step, loss, bits_per_byte, tokens, at: at.into(), seconds }));
        Ok(())
    }

    /// What the run is judged and used at, and its name: `plugin`, `ema` or `params`.
    pub fn evaluation_params(&self) -> Result<(&'static str, Vec<Tensor>)> {
        if let Some(params) = self.optimizer.evaluation_params()? {
            return Ok(("plugin", params));
        }
        let mut state = self.session.lock();
        let (backend, params) = state.backend_and_params();
        Ok(match &backend.ema {
            Some(ema) => ("ema", ema.params().iter().map(Tensor::shallow_clone).collect()),
            None => ("params", params.into_iter().map(Tensor::shallow_clone).collect()),
        })
    }
}

/// The host's own update of the average, unless the plugin averaged its iterates itself.
fn update_ema(session: &'static TorchSession) {
    let mut state = session.lock();
    let (backend, params) = state.backend_and_params();
    if let Some(ema) = backend.ema.as_mut()
        && !ema.take_updated()
    {
        ema.update(&params);
        ema.take_updated();
    }
}

fn log(level: LogLevel, message: String) -> Event {
    Event::Log { level: level.name(), message }
}
