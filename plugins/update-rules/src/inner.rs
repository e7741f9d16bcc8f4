//! An update rule with its state as one value, chosen by configuration: what solves a Gauss-Newton subproblem.

use crate::adamw::AdamW;
use crate::by_role::{self, MuonByRole};
use crate::by_shape::{self, SoapByShape};
use crate::check;
use crate::sgd::Sgd;
use gauntlet_plugin_api::prelude::*;

/// Which rule, with its settings: `inner = { muon = { lr = 0.01 } }`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum InnerConfig {
    /// Muon for hidden matrices, AdamW for the rest.
    Muon(by_role::Config),
    /// SOAP for all parameters; its first step makes the bases and moves nothing.
    Soap(by_shape::Config),
    /// AdamW for all parameters.
    AdamW(AdamWConfig),
    /// Gradient descent with heavy-ball momentum.
    Sgd(SgdConfig),
}

/// Settings of AdamW.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamWConfig {
    /// Peak step size; the schedule multiplies it.
    pub lr: f64,
    /// Decay rates of the first and the second moment, each in [0, 1).
    pub betas: [f64; 2],
    /// Added to the bias-corrected root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; it multiplies the step size.
    pub weight_decay: f64,
}

impl Default for AdamWConfig {
    fn default() -> Self {
        Self { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01 }
    }
}

/// Settings of gradient descent.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SgdConfig {
    /// Peak step size; the schedule multiplies it.
    pub lr: f64,
    /// Share of the last velocity that is kept, in [0, 1).
    #[serde(default)]
    pub momentum: f64,
}

impl InnerConfig {
    /// Checks ranges; `prefix` stands before the keys of messages, for example `inner.`.
    pub fn check(&self, prefix: &str) -> Result<()> {
        match self {
            Self::Muon(config) => config.check(&format!("{prefix}muon.")),
            Self::Soap(config) => config.check(&format!("{prefix}soap.")),
            Self::AdamW(AdamWConfig { lr, betas, eps, weight_decay }) => {
                let key = |name: &str| format!("{prefix}adamw.{name}");
                check::positive(&key("lr"), *lr)?;
                check::decay_rate(&key("betas[0]"), betas[0])?;
                check::decay_rate(&key("betas[1]"), betas[1])?;
                check::not_negative(&key("eps"), *eps)?;
                check::not_negative(&key("weight_decay"), *weight_decay)
            }
            Self::Sgd(SgdConfig { lr, momentum }) => {
                check::positive(&format!("{prefix}sgd.lr"), *lr)?;
                check::decay_rate(&format!("{prefix}sgd.momentum"), *momentum)
            }
        }
    }

    /// Peak step size, of the hidden matrices where there are several.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Muon(config) => config.lr,
            Self::Soap(config) => config.lr,
            Self::AdamW(config) => config.lr,
            Self::Sgd(config) => config.lr,
        }
    }

    /// Bytes of the tensors that the rule holds for these parameters.
    pub fn state_bytes(&self, params: &Params) -> u64 {
        match self {
            Self::Muon(_) => MuonByRole::state_bytes(params),
            Self::Soap(config) => config.state_bytes(params),
            Self::AdamW(_) => 2 * params.bytes(),
            Self::Sgd(_) => params.bytes(),
        }
    }
}

/// A rule with its state.
#[derive(Debug)]
pub enum Inner {
    /// Muon and AdamW by role.
    Muon(MuonByRole),
    /// SOAP.
    Soap(SoapByShape),
    /// AdamW with its first and second moment and the number of steps.
    AdamW(AdamWConfig, Params, Params, u64),
    /// Gradient descent with its velocity.
    Sgd(SgdConfig, Params),
}

impl Inner {
    /// A rule before its first step.
    pub fn new(config: &InnerConfig, params: &Params) -> Result<Self> {
        Ok(match config {
            InnerConfig::Muon(config) => Self::Muon(MuonByRole::new(config.clone(), params)?),
            InnerConfig::Soap(config) => Self::Soap(SoapByShape::new(config.clone(), params)?),
            InnerConfig::AdamW(config) => Self::AdamW(config.clone(), params.zeros_like()?, params.zeros_like()?, 0),
            InnerConfig::Sgd(config) => Self::Sgd(config.clone(), params.zeros_like()?),
        })
    }

    /// One step along any gradient; `schedule` multiplies the peak step sizes. The gradient is clipped in place where
    /// the rule's own configuration says so, and otherwise left as it is.
    ///
    /// # Errors
    ///
    /// An eigenbasis of SOAP that cannot be made or refreshed.
    pub fn step(&mut self, w: &mut Params, g: &mut Params, schedule: f64) -> Result<()> {
        match self {
            Self::Muon(muon) => muon.step(w, g, schedule),
            Self::Soap(soap) => match soap.step(w, g, schedule)?.unwrap_or(0) {
                0 => Ok(()),
                failures => Err(Error::plugin(format!("inner.soap: {failures} eigenbases could not be refreshed"))),
            },
            Self::AdamW(config, first_moment, second_moment, t) => {
                *t += 1;
                let AdamWConfig { lr, betas, eps, weight_decay } = *config;
                let rule = AdamW { lr: lr * schedule, betas, eps, weight_decay, nesterov: false, t: *t };
                rule.step(w, first_moment, second_moment, g)
            }
            Self::Sgd(SgdConfig { lr, momentum }, velocity) => {
                Sgd { lr: *lr * schedule, momentum: *momentum }.step(w, velocity, g)
            }
        }
    }

    /// The rule that a parameter follows, in a few words.
    pub fn rule_of(&self, spec: &ParamSpec) -> &'static str {
        match self {
            Self::Muon(muon) => muon.rule_of(spec),
            Self::Soap(soap) => soap.rule_of(spec),
            Self::AdamW(..) => "adamw",
            Self::Sgd(..) => "sgd",
        }
    }

    /// Saves the state; `prefix` stands before the entries' names, for example `inner.`.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        match self {
            Self::Muon(muon) => muon.save(state, prefix),
            Self::Soap(soap) => soap.save(state, prefix),
            Self::AdamW(_, first_moment, second_moment, t) => {
                state.params(&format!("{prefix}first_moment"), first_moment)?;
                state.params(&format!("{prefix}second_moment"), second_moment)?;
                state.u64(&format!("{prefix}t"), *t)
            }
            Self::Sgd(_, velocity) => state.params(&format!("{prefix}velocity"), velocity),
        }
    }

    /// Restores what [`Inner::save`] took.
    pub fn load(&mut self, state: &StateReader, prefix: &str) -> Result<()> {
        match self {
            Self::Muon(muon) => muon.load(state, prefix)?,
            Self::Soap(soap) => soap.load(state, prefix)?,
            Self::AdamW(_, first_moment, second_moment, t) => {
                *first_moment = state.params(&format!("{prefix}first_moment"))?;
                *second_moment = state.params(&format!("{prefix}second_moment"))?;
                *t = state.u64(&format!("{prefix}t"))?;
            }
            Self::Sgd(_, velocity) => *velocity = state.params(&format!("{prefix}velocity"))?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
