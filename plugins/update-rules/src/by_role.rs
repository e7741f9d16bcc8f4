//! Muon for hidden matrices and AdamW for every other parameter, as one optimizer.

use crate::adamw::AdamW;
use crate::muon::{Mix, Muon, Scale};
use crate::newton_schulz::{Coefficients, NewtonSchulz};
use crate::{check, clip};
use gauntlet_plugin_api::prelude::*;

/// Whose rule it is in the details.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Variant {
    /// Keller Jordan's: plain momentum, AdamW for the other parameters.
    #[default]
    Jordan,
    /// optax's: bias-corrected momentum; AdamW for embedding and head; its Nesterov form for vectors.
    Optax,
}

/// Settings of Muon and of the AdamW beside it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Peak step size of hidden matrices; the schedule multiplies it.
    pub lr: f64,
    /// Decay rate of the momentum, in [0, 1).
    pub momentum: f64,
    /// Whether the update looks ahead by one step of the momentum.
    pub nesterov: bool,
    /// Decoupled weight decay of hidden matrices; it multiplies the step size without the scale.
    pub weight_decay: f64,
    /// Factor of the orthogonal update of a matrix `[rows, cols]`.
    pub scale: Scale,
    /// Polynomials of the orthogonalisation.
    pub coefficients: Coefficients,
    /// Iterations of the orthogonalisation, 1 to 99.
    pub ns_steps: usize,
    /// Whether each head of q, k, v and of the output projection is orthogonalised alone.
    pub per_head: bool,
    /// Details of the rule.
    pub variant: Variant,
    /// Largest gradient norm of {embedding, head}, and of {everything else}; no clipping when absent.
    pub clip_norm: Option<f64>,
    /// AdamW for every parameter that is not a hidden matrix.
    pub adam: AdamConfig,
}

/// Settings of AdamW beside Muon.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdamConfig {
    /// Peak step size; when absent 3e-4, with `variant = "optax"` that of the hidden matrices.
    pub lr: Option<f64>,
    /// Decay rates of the moments, each in [0, 1); when absent [0.9, 0.95], with `variant = "optax"` [0.9, 0.999].
    pub betas: Option<[f64; 2]>,
    /// Added to the bias-corrected root of the second moment; when absent 1e-10, with `variant = "optax"` 1e-8.
    pub eps: Option<f64>,
    /// Decoupled weight decay; when absent that of the hidden matrices.
    pub weight_decay: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lr: 0.02,
            momentum: 0.95,
            nesterov: true,
            weight_decay: 0.0,
            scale: Scale::Original,
            coefficients: Coefficients::Jordan,
            ns_steps: 5,
            per_head: false,
            variant: Variant::Jordan,
            clip_norm: None,
            adam: AdamConfig::default(),
        }
    }
}

impl Config {
    /// Checks ranges; `prefix` stands before the keys of messages, for example `inner.muon.`.
    pub fn check(&self, prefix: &str) -> Result<()> {
        let key = |name: &str| format!("{prefix}{name}");
        check::positive(&key("lr"), self.lr)?;
        check::decay_rate(&key("momentum"), self.momentum)?;
        check::not_negative(&key("weight_decay"), self.weight_decay)?;
        check::between(&key("ns_steps"), self.ns_steps, 1, 99)?;
        check::positive(&key("clip_norm"), self.clip_norm.unwrap_or(1.0))?;
        let AdamW { lr, betas, eps, weight_decay, .. } = self.adam_rule(1, 1.0);
        check::positive(&key("adam.lr"), lr)?;
        check::decay_rate(&key("adam.betas[0]"), betas[0])?;
        check::decay_rate(&key("adam.betas[1]"), betas[1])?;
        check::not_negative(&key("adam.eps"), eps)?;
        check::not_negative(&key("adam.weight_decay"), weight_decay)
    }

    /// The rule of hidden matrices at step `t`, from 1.
    pub fn muon_rule(&self, t: u64, schedule: f64) -> Muon {
        let (mix, eps) = match self.variant {
            Variant::Jordan => (Mix::Plain, 1e-7),
            Variant::Optax => (Mix::BiasCorrected(t), 1e-8),
        };
        Muon {
            lr: self.lr * schedule,
            momentum: self.momentum,
            nesterov: self.nesterov,
            mix,
            weight_decay: self.weight_decay,
            scale: self.scale,
            newton_schulz: NewtonSchulz { coefficients: self.coefficients, steps: self.ns_steps, eps },
            per_head: self.per_head,
        }
    }

    /// The rule of the other parameters at step `t`, from 1.
    pub fn adam_rule(&self, t: u64, schedule: f64) -> AdamW {
        let (lr, betas, eps) = match self.variant {
            Variant::Jordan => (3e-4, [0.9, 0.95], 1e-10),
            Variant::Optax => (self.lr, [0.9, 0.999], 1e-8),
        };
        AdamW {
            lr: self.adam.lr.unwrap_or(lr) * schedule,
            betas: self.adam.betas.unwrap_or(betas),
            eps: self.adam.eps.unwrap_or(eps),
            weight_decay: self.adam.weight_decay.unwrap_or(self.weight_decay),
            nesterov: false,
            t,
        }
    }

    /// Whether AdamW takes its Nesterov form for a parameter: optax's Muon does for what is left to it, the vectors.
    fn looks_ahead(&self, spec: &ParamSpec) -> bool {
        self.variant == Variant::Optax && self.nesterov && !clip::is_vocabulary(spec)
    }
}

/// Whether Muon's rule holds for a parameter: a matrix inside a transformer block.
pub fn is_muon(spec: &ParamSpec) -> bool {
    spec.role == Role::Hidden && spec.shape.len() == 2
}

/// Momentum of hidden matrices, both moments of the other parameters, and the number of steps.
#[derive(Debug)]
pub struct MuonByRole {
    config: Config,
    momentum: Params,
    first_moment: Params,
    second_moment: Params,
    t: u64,
}

impl MuonByRole {
    /// The state before the first step.
    pub fn new(config: Config, params: &Params) -> Result<Self> {
        let others = params.select(|spec| !is_muon(spec));
        Ok(Self {
            config,
            momentum: params.select(is_muon).zeros_like()?,
            first_moment: others.zeros_like()?,
            second_moment: others.zeros_like()?,
            t: 0,
        })
    }

    /// Bytes of its tensors.
    pub fn state_bytes(params: &Params) -> u64 {
        params.select(is_muon).bytes() + 2 * params.select(|spec| !is_muon(spec)).bytes()
    }

    /// One step; `schedule` multiplies both step sizes. Clips the gradient in place where `clip_norm` is set.
    pub fn step(&mut self, w: &mut Params, g: &mut Params, schedule: f64) -> Result<()> {
        if let Some(max_norm) = self.config.clip_norm {
            clip::by_optimizer_group(g, max_norm)?;
        }
        self.t += 1;
        let muon = self.config.muon_rule(self.t, schedule);
        muon.step(&mut w.select_mut(is_muon), &mut self.momentum, &g.select(is_muon))?;
        for nesterov in [false, true] {
            let config = &self.config;
            let chosen = |spec: &ParamSpec| !is_muon(spec) && config.looks_ahead(spec) == nesterov;
            let adam = AdamW { nesterov, ..config.adam_rule(self.t, schedule) };
            let (mut m, mut v) = (self.first_moment.select_mut(chosen), self.second_moment.select_mut(chosen));
            adam.step(&mut w.select_mut(chosen), &mut m, &mut v, &g.select(chosen))?;
        }
        Ok(())
    }

    /// The rule that a parameter follows, in a few words.
    pub fn rule_of(&self, spec: &ParamSpec) -> &'static str {
        match (is_muon(spec), self.config.looks_ahead(spec)) {
            (true, _) => "muon",
            (false, false) => "adamw",
            (false, true) => "adamw, nesterov",
        }
    }

    /// Saves the state; `prefix` stands before the entries' names.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        state.params(&format!("{prefix}momentum"), &self.momentum)?;
        state.params(&format!("{prefix}first_moment"), &self.first_moment)?;
        state.params(&format!("{prefix}second_moment"), &self.second_moment)?;
        state.u64(&format!("{prefix}t"), self.t)
    }

    /// Restores what [`MuonByRole::save`] took.
    pub fn load(&mut self, state: &StateReader, prefix: &str) -> Result<()> {
        self.momentum = state.params(&format!("{prefix}momentum"))?;
        self.first_moment = state.params(&format!("{prefix}first_moment"))?;
        self.second_moment = state.params(&format!("{prefix}second_moment"))?;
        self.t = state.u64(&format!("{prefix}t"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
