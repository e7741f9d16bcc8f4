//! A step is a transaction over parameters, optimizer state, average, data position and randomness.
//!
//! Randomness is keyed by the step, so it needs no saving. With the policy `skip`, a failed step is undone: the run goes
//! back to its newest snapshot, repeats the good steps since then (they give the same bits again), and passes over the
//! batch that failed.

use crate::curvature::{Streams, TorchBackend, TorchSession};
use crate::error::{Exit, Fault, Result};
use crate::events::Event;
use crate::plugin::PluginOptimizer;
use gauntlet_plugin_abi::{ListReduction, Purpose};
use gauntlet_plugin_api::backend::{Backend, Outcome, SavedState, StepResult};
use std::collections::VecDeque;
use tch::Tensor;

/// What a failed step does to the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The run ends.
    Stop,
    /// The step is undone and its batch passed over.
    Skip {
        /// Steps between snapshots.
        snapshot_every: u64,
        /// Skips allowed within `window` steps.
        max_skips: u64,
        /// Steps over which skips are counted.
        window: u64,
    },
}

/// Everything that the next step depends on.
#[derive(Debug)]
pub struct Snapshot {
    step: u64,
    params: Vec<Tensor>,
    ema: Option<Vec<Tensor>>,
    streams: Streams,
    optimizer: SavedState,
}

impl Snapshot {
    fn take(optimizer: &PluginOptimizer, step: u64) -> Result<Self> {
        let saved = optimizer.save()?;
        let mut state = optimizer.session().lock();
        let (backend, params) = state.backend_and_params();
        let params = tch::no_grad(|| params.into_iter().map(Tensor::copy).collect());
        let ema = backend.ema.as_ref().map(|ema| ema.snapshot());
        Ok(Self { step, params, ema, streams: backend.streams.clone(), optimizer: saved })
    }

    fn restore(&self, optimizer: &mut PluginOptimizer) -> Result<()> {
        optimizer.load(&self.optimizer)?;
        let mut state = optimizer.session().lock();
        tch::no_grad(|| state.replace_params(|index, param| param.copy_(&self.params[index])));
        state.backend.streams = self.streams.clone();
        if let (Some(ema), Some(saved)) = (state.backend.ema.as_mut(), &self.ema) {
            ema.restore(saved);
        }
        Ok(())
    }
}

/// A batch that was passed over: before which step, and where the data go on.
#[derive(Debug)]
struct Skip {
    step: u64,
    streams: Streams,
}

/// Runs steps under a policy.
#[derive(Debug)]
pub(super) struct Transactions {
    policy: Policy,
    /// Where the data stood before the step in progress; `None` between steps.
    before: Option<Streams>,
    snapshot: Option<Snapshot>,
    /// Skips since the newest snapshot, to repeat them.
    since_snapshot: Vec<Skip>,
    /// Steps of recent skips.
    recent: VecDeque<u64>,
}

impl Transactions {
    pub fn new(policy: Policy) -> Self {
        Self { policy, before: None, snapshot: None, since_snapshot: vec![], recent: VecDeque::new() }
    }

    /// Goes on in the middle of a step, or between two, as a checkpoint says.
    pub fn resume(&mut self, before: Option<Streams>, recent: Vec<u64>) {
        self.before = before;
        self.recent = recent.into();
    }

    /// Where the data stood before the step in progress.
    pub fn before(&self) -> Option<&Streams> {
        self.before.as_ref()
    }

    /// Steps of recent skips.
    pub fn recent(&self) -> Vec<u64> {
        self.recent.iter().copied().collect()
    }

    /// Runs one part of step number `step` (from 0). `None` when the step is to go on with the next call: the plugin
    /// asked for it, or the step failed, was undone, and is to be tried with other data.
    pub fn advance(
        &mut self,
        optimizer: &mut PluginOptimizer,
        step: u64,
        emit: &mut dyn FnMut(Event),
    ) -> Result<Option<Done>> {
        if self.before.is_none() {
            self.begin(optimizer, step)?;
        }
        match part(optimizer, step, emit) {
            Ok(Some(done)) => {
                self.before = None;
                Ok(Some(done))
            }
            Ok(None) => Ok(None),
            Err(fault) => self.recover(optimizer, step, fault, emit).map(|()| None),
        }
    }

    fn begin(&mut self, optimizer: &PluginOptimizer, step: u64) -> Result<()> {
        if let Policy::Skip { snapshot_every, .. } = self.policy
            && self.snapshot.as_ref().is_none_or(|snapshot| step >= snapshot.step + snapshot_every)
        {
            self.snapshot = Some(Snapshot::take(optimizer, step)?);
            self.since_snapshot.clear();
        }
        let mut state = optimizer.session().lock();
        state.take_params_written();
        self.before = Some(state.backend.streams.clone());
        Ok(())
    }

    /// Undoes the failed step and passes over its batch, where the policy allows it.
    fn recover(
        &mut self,
        optimizer: &mut PluginOptimizer,
        step: u64,
        fault: Fault,
        emit: &mut dyn FnMut(Event),
    ) -> Result<()> {
        if let Some(before) = &self.before {
            let after = optimizer.session().lock().backend.streams.clone();
            emit(failed(step, before, &after, &fault));
        }
        let (before, skippable) = (self.before.take(), matches!(fault.exit, Exit::Plugin | Exit::NonFinite));
        let (Policy::Skip { max_skips, window, .. }, Some(before), true) = (self.policy, before, skippable) else {
            return Err(fault);
        };
        if self.snapshot.is_none() {
            let what = format!("{fault}; the step began before the run was resumed, so it cannot be undone");
            return Err(Fault::new(fault.exit, what).hint("resume from an earlier checkpoint"));
        }
        self.allow(step, max_skips, window, &fault)?;
        let after = passed_over(optimizer.session(), &before);
        emit(skipped(step, &before, &after, &fault));
        self.since_snapshot.push(Skip { step, streams: after });
        self.go_back(optimizer, step)
    }

    fn allow(&mut self, step: u64, max_skips: u64, window: u64, fault: &Fault) -> Result<()> {
        while self.recent.front().is_some_and(|earliest| earliest + window <= step) {
            self.recent.pop_front();
        }
        self.recent.push_back(step);
        if self.recent.len() as u64 <= max_skips {
            return Ok(());
        }
        let what = format!("{fault}; it is one failed step too many");
        let found = format!("{} skips within {window} steps", self.recent.len());
        Err(Fault::new(fault.exit, what).found(found).expected(format!("at most {max_skips} (`train.max_skips`)")))
    }

    /// Restores the newest snapshot and repeats what was good since then, up to the start of `step`.
    fn go_back(&mut self, optimizer: &mut PluginOptimizer, step: u64) -> Result<()> {
        let Some(snapshot) = &self.snapshot else { return Ok(()) };
        snapshot.restore(optimizer)?;
        for again in snapshot.step..=step {
            if let Some(skip) = self.since_snapshot.iter().rev().find(|skip| skip.step == again) {
                optimizer.session().lock().backend.streams = skip.streams.clone();
            }
            if again < step {
                repeat(optimizer, again)?;
            }
        }
        discard_reports(&mut optimizer.session().lock().backend);
        Ok(())
    }
}

/// Repeats a step that was good before.
fn repeat(optimizer: &mut PluginOptimizer, step: u64) -> Result<()> {
    optimizer.session().lock().take_params_written();
    while part(optimizer, step, &mut drop)?.is_none() {}
    super::update_ema(optimizer.session());
    Ok(())
}

/// A step that ended as it should.
#[derive(Debug)]
pub(super) struct Done {
    /// What the plugin reported.
    pub result: StepResult,
    /// Norm of the parameters after it; `None` where it was rejected, or the norm is beyond all numbers.
    pub param_norm: Option<f64>,
}

/// Runs one part of a step and, at the step's end, checks what it left. `None` when the step goes on.
fn part(optimizer: &mut PluginOptimizer, step: u64, emit: &mut dyn FnMut(Event)) -> Result<Option<Done>> {
    let session = optimizer.session();
    session.lock().backend.step = step;
    let mut nonfinite = |place: &str| emit(Event::NonFinite { step, place: place.into() });
    let result = optimizer.step(step).inspect_err(|fault| {
        if fault.exit == Exit::NonFinite {
            nonfinite("plugin");
        }
    })?;
    let name = optimizer.name();
    if result.metrics.iter().any(|(name, value)| name == "gradient_norm" && !value.is_finite()) {
        nonfinite("gradient");
    }
    match &result.outcome {
        Outcome::More => Ok(None),
        Outcome::Rejected(_) if session.lock().take_params_written() => {
            let what = format!("plugin `{name}`: step {} was rejected, yet wrote to the parameters", step + 1);
            Err(Fault::new(Exit::Plugin, what).hint("write to them only when the step is accepted"))
        }
        Outcome::Rejected(_) => Ok(Some(Done { result, param_norm: None })),
        Outcome::Finished if !result.loss.is_finite() => {
            nonfinite("loss");
            let what = format!("plugin `{name}`: the loss of step {} is not finite", step + 1);
            Err(Fault::new(Exit::NonFinite, what).found(result.loss))
        }
        Outcome::Finished => {
            let norm = finite_norm(session, name, step).inspect_err(|_| nonfinite("params"))?;
            Ok(Some(Done { result, param_norm: norm }))
        }
    }
}

/// The norm of the parameters, whose one pass also tells that all of them are finite.
fn finite_norm(session: &'static TorchSession, plugin: &str, step: u64) -> Result<Option<f64>> {
    let mut state = session.lock();
    let specs = state.specs().to_vec();
    let (backend, params) = state.backend_and_params();
    let over_all = |kind| {
        let values = backend.reduce(kind, &params, &[]);
        values.map_err(|error| Fault::new(Exit::Internal, error.to_string()))
    };
    let norm = over_all(ListReduction::SQUARED_NORM)?.iter().sum::<f64>().sqrt();
    if norm.is_finite() {
        return Ok(Some(norm));
    }
    // Finite f64 values may have squares that are not.
    match specs.iter().zip(over_all(ListReduction::NON_FINITE)?).find(|(_, count)| *count > 0.0) {
        None => Ok(None),
        Some((spec, count)) => {
            let what =
                format!("plugin `{plugin}`: step {} left values in `{}` that are not finite", step + 1, spec.name);
            Err(Fault::new(Exit::NonFinite, what).found(format!("{count} of {}", spec.numel())))
        }
    }
}

/// The data position behind a failed step: at least one global batch is passed over.
fn passed_over(session: &'static TorchSession, before: &Streams) -> Streams {
    let state = session.lock();
    let mut after = state.backend.streams.clone();
    let batch = before.drawn(Purpose::STEP) + state.backend.facts().batch_size;
    after.set(Purpose::STEP, after.drawn(Purpose::STEP).max(batch));
    after
}

/// A step that failed, and the data that it had drawn by then.
fn failed(step: u64, before: &Streams, after: &Streams, fault: &Fault) -> Event {
    let first_sequence = before.drawn(Purpose::STEP);
    let sequences = after.drawn(Purpose::STEP) - first_sequence;
    Event::StepFailed { step, reason: fault.to_string(), exit_code: fault.exit as u8, first_sequence, sequences }
}

fn skipped(step: u64, before: &Streams, after: &Streams, fault: &Fault) -> Event {
    let first_sequence = before.drawn(Purpose::STEP);
    let sequences = after.drawn(Purpose::STEP) - first_sequence;
    let (reason, exit_code) = (fault.to_string(), fault.exit as u8);
    Event::Skipped { step, reason, exit_code, first_sequence, sequences }
}

/// Repeated steps were reported when they first ran.
fn discard_reports(backend: &mut TorchBackend) {
    backend.metrics.clear();
    backend.logs.clear();
    backend.fault = None;
}
