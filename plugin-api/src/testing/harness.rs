//! One optimizer on a small problem, through the same table and boundary as in the host.

use super::array::Array;
use super::backend::{MAX_CALLS, PlainBackend, flatten};
use super::data::Cursors;
use super::loss::Fault;
use super::problem::Problem;
use super::subject::Subject;
use crate::backend::{Backend, CreateFn, Evaluation, Instance, Outcome, SavedState, Session, StepResult};
use crate::error::{Error, Result};
use crate::optimizer::Optimizer;
use crate::spec::ParamSpec;
use gauntlet_plugin_abi::{ErrorCode, Purpose};
use std::marker::PhantomData;

/// Calls of `step` within one step; an optimizer that needs more is taken for one that does not end.
const MAX_PARTS: usize = 10_000;

/// A run of one optimizer on a [`Problem`]; see the [module's example](crate::testing). `O` is an [`Optimizer`], or
/// [`Subject`] where the optimizer comes from a loaded library.
pub struct Harness<O> {
    instance: Instance<PlainBackend>,
    step: u64,
    optimizer: PhantomData<fn() -> O>,
}

/// A whole run at one moment, also in the middle of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    params: Vec<Array>,
    ema: Option<Vec<Array>>,
    cursors: Cursors,
    step: u64,
    /// The optimizer's state.
    pub state: SavedState,
}

impl<O: Optimizer> Harness<O> {
    /// A run with a configuration, for example `json!({ "lr": 0.1 })`.
    ///
    /// # Errors
    ///
    /// What the optimizer says of its configuration or of the problem.
    pub fn new(config: serde_json::Value, problem: Problem) -> Result<Self> {
        Self::start(crate::export::create::<O>, &config, problem)
    }

    /// A run on recorded gradients, one list a step: for a comparison with another implementation.
    ///
    /// # Errors
    ///
    /// As [`Harness::new`] and [`Problem::recorded`].
    pub fn with_gradients(
        config: serde_json::Value,
        specs: Vec<ParamSpec>,
        params: Vec<Vec<f64>>,
        gradients: Vec<Vec<Vec<f64>>>,
    ) -> Result<Self> {
        Self::new(config, Problem::recorded(specs, params, gradients)?)
    }
}

impl Harness<Subject> {
    /// A run of a subject.
    ///
    /// # Errors
    ///
    /// As [`Harness::new`].
    pub fn of(subject: &Subject, config: &serde_json::Value, problem: Problem) -> Result<Self> {
        Self::start(subject.create, config, problem)
    }

    /// What a subject says that it will hold beside the parameters, in bytes.
    pub(super) fn declared_state_bytes(&self, subject: &Subject, config: &serde_json::Value) -> Result<u64> {
        let config = config.to_string();
        (subject.state_bytes)(self.instance.session().host(), config.as_str().into()).into_result().map_err(Error::from)
    }
}

impl<O> Harness<O> {
    fn start(create: CreateFn, config: &serde_json::Value, problem: Problem) -> Result<Self> {
        let params = PlainBackend::initial(&problem)?;
        let session = Session::start(PlainBackend::new(problem), params)?;
        let instance = Instance::create(session, create, &config.to_string())?;
        Ok(Self { instance, step: 0, optimizer: PhantomData })
    }

    /// One whole step: calls the optimizer until it is finished. The result is that of the last call.
    ///
    /// # Errors
    ///
    /// The optimizer's own, a step that does not end, and a rejected step that changed the parameters.
    pub fn step(&mut self) -> Result<StepResult> {
        let before = self.arrays();
        for _ in 0..MAX_PARTS {
            let result = self.call()?;
            match &result.outcome {
                Outcome::More => {}
                Outcome::Rejected(_) if !same_bits(&before, &self.arrays()) => {
                    return Err(Error::plugin("the step was rejected, but the parameters have changed"));
                }
                _ => return Ok(result),
            }
        }
        Err(Error::new(ErrorCode::HOST, "step", format!("did not end after {MAX_PARTS} calls")))
    }

    /// One call of `step`, which may be a part of a long step.
    ///
    /// # Errors
    ///
    /// The optimizer's own, and a call that makes so many calls of the host that it seems to hang.
    pub fn call(&mut self) -> Result<StepResult> {
        {
            let mut state = self.instance.session().lock();
            state.backend.step = self.step;
            state.backend.begin_call();
        }
        let result = self.instance.step(self.step);
        if self.instance.session().lock().backend.hung() {
            return Err(Error::new(ErrorCode::HOST, "step", format!("made more than {MAX_CALLS} calls of the host")));
        }
        self.step += u64::from(result.as_ref().is_ok_and(|result| result.outcome != Outcome::More));
        result
    }

    /// Mean loss over the whole data set, at the parameters to evaluate at.
    pub fn loss(&self) -> Result<f64> {
        Ok(self.evaluate(&Evaluation::Loss)?.0.first().copied().unwrap_or(f64::NAN))
    }

    /// Euclidean norm of the gradient over the whole data set, at the parameters to evaluate at.
    pub fn gradient_norm(&self) -> Result<f64> {
        let gradient = self.evaluate(&Evaluation::Gradient(crate::Labels::Data))?.1;
        Ok(gradient.iter().map(|g| g * g).sum::<f64>().sqrt())
    }

    fn evaluate(&self, what: &Evaluation) -> Result<(Vec<f64>, Vec<f64>)> {
        let handles = self.instance.evaluation_params()?;
        let mut state = self.instance.session().lock();
        let params = match handles {
            Some(handles) => handles.iter().map(|raw| state.tensor(*raw).cloned()).collect::<Result<Vec<_>>>()?,
            None => state.backend_and_params().1.into_iter().cloned().collect(),
        };
        let (sequences, seq_len) = (state.backend.problem().sequences, state.backend.problem().seq_len);
        let batch = Cursors::default().draw(Purpose::STEP, sequences, seq_len)?;
        state.backend.begin_call();
        let product = state.backend.evaluate(what, &params.iter().collect::<Vec<_>>(), &batch, &[])?;
        Ok((product.values, flatten(&product.tensors.iter().collect::<Vec<_>>())))
    }

    /// All parameters, flat, in their order.
    pub fn params(&self) -> Vec<f64> {
        flatten(&self.arrays().iter().collect::<Vec<_>>())
    }

    /// Parameters that the optimizer wants to be evaluated at, flat; `None` where they are the run's own.
    pub fn evaluation_params(&self) -> Result<Option<Vec<f64>>> {
        let Some(handles) = self.instance.evaluation_params()? else { return Ok(None) };
        let state = self.instance.session().lock();
        let arrays = handles.iter().map(|raw| state.tensor(*raw)).collect::<Result<Vec<_>>>()?;
        Ok(Some(flatten(&arrays)))
    }

    /// The run's EMA as the optimizer made it with `ema_update` (it keeps 0.9 of the old average), flat.
    pub fn ema(&self) -> Option<Vec<f64>> {
        let state = self.instance.session().lock();
        state.backend.ema.as_ref().map(|ema| flatten(&ema.iter().collect::<Vec<_>>()))
    }

    /// Finished steps.
    pub fn steps(&self) -> u64 {
        self.step
    }

    /// Sequences drawn for a purpose.
    pub fn drawn(&self, purpose: Purpose) -> u64 {
        self.instance.session().lock().backend.cursors.get(purpose)
    }

    /// Metrics sent during steps (those of a report are in [`StepResult`]).
    pub fn metrics(&self) -> Vec<(String, f64)> {
        self.instance.session().lock().backend.metrics.clone()
    }

    /// Lines of the log.
    pub fn log(&self) -> Vec<String> {
        self.instance.session().lock().backend.log.clone()
    }

    /// Tensors, and batches and linearizations, that the optimizer holds.
    pub fn live(&self) -> (u64, u64) {
        live(self.instance.session())
    }

    /// Lets something go wrong from now on, or right again.
    pub fn inject(&mut self, fault: Option<Fault>) {
        self.instance.session().lock().backend.fault = fault;
    }

    /// The learning-rate multiplier as a function of the fractional step; 1 unless set.
    pub fn set_schedule(&mut self, schedule: impl Fn(f64) -> f64 + Send + 'static) {
        self.instance.session().lock().backend.schedule = Box::new(schedule);
    }

    /// What `ctx.should_return()` answers; `false` unless set.
    pub fn set_should_return(&mut self, should_return: bool) {
        self.instance.session().lock().backend.should_return = should_return;
    }

    /// Lets a coming call of the host fail: the first is 1.
    pub(super) fn fail_at(&mut self, call: u64) {
        let backend = &mut self.instance.session().lock().backend;
        backend.fails_at = Some(backend.total() + call);
    }

    /// Calls of the host since the start.
    pub(super) fn calls(&self) -> u64 {
        self.instance.session().lock().backend.total()
    }

    /// The optimizer's state.
    ///
    /// # Errors
    ///
    /// The optimizer's own.
    pub fn save(&self) -> Result<SavedState> {
        self.instance.session().lock().backend.begin_call();
        self.instance.save()
    }

    /// Restores the optimizer's state.
    ///
    /// # Errors
    ///
    /// The optimizer's own.
    pub fn load(&mut self, state: &SavedState) -> Result<()> {
        self.instance.session().lock().backend.begin_call();
        self.instance.load(state)
    }

    /// The whole run: parameters, EMA, place in the data, step, and the optimizer's state.
    ///
    /// # Errors
    ///
    /// The optimizer's own.
    pub fn snapshot(&self) -> Result<Snapshot> {
        let (state, params) = (self.save()?, self.arrays());
        let backend = &self.instance.session().lock().backend;
        let (ema, cursors) = (backend.ema.clone(), backend.cursors.clone());
        Ok(Snapshot { params, ema, cursors, step: self.step, state })
    }

    /// Goes on where a snapshot was taken, of this run or another one of the same problem.
    ///
    /// # Errors
    ///
    /// The optimizer's own.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<()> {
        {
            let mut state = self.instance.session().lock();
            state.replace_params(|index, array| *array = snapshot.params[index].clone());
            state.backend.ema = snapshot.ema.clone();
            state.backend.cursors = snapshot.cursors.clone();
        }
        self.step = snapshot.step;
        self.load(&snapshot.state)
    }

    /// Ends the optimizer; what [`Harness::live`] counts afterwards has leaked.
    pub fn finish(self) -> (u64, u64) {
        let session = self.instance.session();
        drop(self.instance);
        live(session)
    }

    fn arrays(&self) -> Vec<Array> {
        self.instance.session().lock().backend_and_params().1.into_iter().cloned().collect()
    }
}

impl<O> std::fmt::Debug for Harness<O> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Harness at step {}", self.step)
    }
}

fn live(session: &'static Session<PlainBackend>) -> (u64, u64) {
    let state = session.lock();
    (state.live_tensors(), state.live_handles())
}

fn same_bits(a: &[Array], b: &[Array]) -> bool {
    a.iter().map(Array::to_bytes).eq(b.iter().map(Array::to_bytes))
}

#[cfg(test)]
mod tests;
