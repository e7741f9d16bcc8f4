//! SOAP for all parameters, equally shaped ones together, as one optimizer.

use crate::check;
use crate::soap::{Rotated, Sides, Soap};
use gauntlet_plugin_api::prelude::*;

/// Settings of SOAP.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Peak step size; the schedule multiplies it.
    pub lr: f64,
    /// Decay rates of the first and the second moment, each in [0, 1).
    pub betas: [f64; 2],
    /// Decay rate of the factors, in [0, 1); -1 takes the second of `betas`.
    pub shampoo_beta: f64,
    /// Added to the root of the second moment, which is not bias-corrected.
    pub eps: f64,
    /// Decoupled weight decay; it multiplies the step size and acts after the update.
    pub weight_decay: f64,
    /// Steps from one refresh of the eigenbases to the next.
    pub precondition_frequency: u64,
    /// A side of a matrix that is longer than this has no factor.
    pub max_precond_dim: usize,
    /// Whether vectors have a factor; Adam's rule otherwise.
    pub precondition_1d: bool,
    /// Whether each update is divided by its root mean square.
    pub normalize_grads: bool,
    /// Whether the step size is bias-corrected.
    pub correct_bias: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lr: 3e-3,
            betas: [0.95, 0.95],
            shampoo_beta: -1.0,
            eps: 1e-8,
            weight_decay: 0.01,
            precondition_frequency: 10,
            max_precond_dim: 10_000,
            precondition_1d: false,
            normalize_grads: false,
            correct_bias: true,
        }
    }
}

impl Config {
    /// Checks ranges; `prefix` stands before the keys of messages, for example `inner.soap.`.
    pub fn check(&self, prefix: &str) -> Result<()> {
        let key = |name: &str| format!("{prefix}{name}");
        check::positive(&key("lr"), self.lr)?;
        check::decay_rate(&key("betas[0]"), self.betas[0])?;
        check::decay_rate(&key("betas[1]"), self.betas[1])?;
        if self.shampoo_beta != -1.0 {
            check::decay_rate(&key("shampoo_beta"), self.shampoo_beta)?;
        }
        check::not_negative(&key("eps"), self.eps)?;
        check::not_negative(&key("weight_decay"), self.weight_decay)?;
        check::at_least(&key("precondition_frequency"), self.precondition_frequency, 1)
    }

    /// Bytes of the tensors of [`SoapByShape`].
    pub fn state_bytes(&self, params: &Params) -> u64 {
        Rotated::state_bytes(params, self.sides())
    }

    fn shampoo_beta(&self) -> f64 {
        if self.shampoo_beta == -1.0 { self.betas[1] } else { self.shampoo_beta }
    }

    fn sides(&self) -> Sides {
        Sides { max_precond_dim: self.max_precond_dim, precondition_1d: self.precondition_1d }
    }

    /// The rule at step `t`, from 1.
    fn rule(&self, t: u64, schedule: f64) -> Soap {
        let Self { lr, betas, eps, weight_decay, normalize_grads, correct_bias, .. } = *self;
        let (shampoo_beta, refresh) = (self.shampoo_beta(), t.is_multiple_of(self.precondition_frequency));
        let lr = lr * schedule;
        Soap { lr, betas, shampoo_beta, eps, weight_decay, normalize_grads, correct_bias, refresh, t }
    }
}

/// Factors, bases and moments, and the number t of updates; `None` before the first step, which only makes the bases.
#[derive(Debug)]
pub struct SoapByShape {
    config: Config,
    rotated: Vec<Rotated>,
    t: Option<u64>,
}

impl SoapByShape {
    /// The state before the first step.
    pub fn new(config: Config, params: &Params) -> Result<Self> {
        Ok(Self { rotated: Rotated::all(params, config.sides())?, config, t: None })
    }

    /// One step; `schedule` multiplies the step size. Gives the number of bases that a refresh left as they were; `None`
    /// of the first step, which makes the bases and leaves the parameters.
    ///
    /// # Errors
    ///
    /// First bases that cannot be made.
    pub fn step(&mut self, w: &mut Params, g: &Params, schedule: f64) -> Result<Option<u64>> {
        let Some(t) = self.t else {
            self.rotated.iter_mut().try_for_each(|part| part.begin(g, self.config.shampoo_beta()))?;
            self.t = Some(0);
            return Ok(None);
        };
        let rule = self.config.rule(t + 1, schedule);
        let mut failures = 0;
        for part in &mut self.rotated {
            failures += rule.step(w, part, g)?;
        }
        self.t = Some(rule.t);
        Ok(Some(failures))
    }

    /// Largest element of |Q^T Q - I| over its bases.
    pub fn deviation(&self) -> Result<f64> {
        self.rotated.iter().try_fold(0.0, |most: f64, part| Ok(most.max(part.deviation()?)))
    }

    /// The rule that a parameter follows, in a few words.
    pub fn rule_of(&self, spec: &ParamSpec) -> &'static str {
        self.config.sides().rule_of(spec)
    }

    /// Saves the state; `prefix` stands before the entries' names.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        self.rotated.iter().try_for_each(|part| part.save(state, prefix))?;
        self.t.map_or(Ok(()), |t| state.u64(&format!("{prefix}t"), t))
    }

    /// Restores what [`SoapByShape::save`] took.
    pub fn load(&mut self, state: &StateReader, prefix: &str) -> Result<()> {
        self.rotated.iter_mut().try_for_each(|part| part.load(state, prefix))?;
        let t = format!("{prefix}t");
        self.t = if state.has(&t) { Some(state.u64(&t)?) } else { None };
        Ok(())
    }
}
