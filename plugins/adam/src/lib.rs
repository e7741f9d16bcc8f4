//! AdamW: Adam with decoupled weight decay, as PyTorch computes it (arXiv 1711.05101).

use gauntlet_plugin_api::prelude::*;
use update_rules::{adamw::AdamW, check};

/// `[optimizer.config]` of `adam`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Peak step size; the run's schedule multiplies it.
    pub lr: f64,
    /// Decay rates of the first and the second moment, each in [0, 1).
    pub betas: [f64; 2],
    /// Added to the bias-corrected root of the second moment.
    pub eps: f64,
    /// Decoupled weight decay; it multiplies the step size.
    pub weight_decay: f64,
    /// Other settings for some of the parameters, by role or name.
    pub groups: Vec<Group<Override>>,
}

/// What a group sets instead.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Override {
    /// Peak step size of the group.
    pub lr: Option<f64>,
    /// Weight decay of the group.
    pub weight_decay: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.01, groups: vec![] }
    }
}

impl Config {
    fn check(&self) -> Result<()> {
        check::positive("lr", self.lr)?;
        check::decay_rate("betas[0]", self.betas[0])?;
        check::decay_rate("betas[1]", self.betas[1])?;
        check::not_negative("eps", self.eps)?;
        check::not_negative("weight_decay", self.weight_decay)?;
        for (i, group) in self.groups.iter().enumerate() {
            check::positive(&format!("groups[{i}].set.lr"), group.set.lr.unwrap_or(self.lr))?;
            let decay = group.set.weight_decay.unwrap_or(self.weight_decay);
            check::not_negative(&format!("groups[{i}].set.weight_decay"), decay)?;
        }
        Ok(())
    }
}

/// First moment m, second moment v, and the number of steps t.
pub struct Adam {
    config: Config,
    groups: Vec<Option<usize>>,
    first_moment: Params,
    second_moment: Params,
    t: u64,
}

impl Adam {
    /// The rule of one group of parameters at this step.
    fn rule(&self, group: Option<usize>, schedule: f64) -> AdamW {
        let Config { lr, betas, eps, weight_decay, groups } = &self.config;
        let set = group.map(|group| &groups[group].set);
        let lr = set.and_then(|set| set.lr).unwrap_or(*lr) * schedule;
        let weight_decay = set.and_then(|set| set.weight_decay).unwrap_or(*weight_decay);
        AdamW { lr, betas: *betas, eps: *eps, weight_decay, nesterov: false, t: self.t }
    }
}

impl Optimizer for Adam {
    const NAME: &'static str = "adam";
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        config.check()?;
        let params = setup.params();
        let groups = groups::resolve(&config.groups, params)?;
        Ok(Self { config, groups, first_moment: params.zeros_like()?, second_moment: params.zeros_like()?, t: 0 })
    }

    fn state_bytes(_: &Config, params: &Params) -> u64 {
        2 * params.bytes()
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let batch = ctx.next_batch()?;
        let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        self.t += 1;
        let schedule = ctx.schedule();
        for group in &self.groups {
            let rule = self.rule(*group, schedule);
            let chosen = |spec: &ParamSpec| groups::find(&self.config.groups, spec) == *group;
            let mut w = ctx.params_mut().select_mut(chosen);
            let mut m = self.first_moment.select_mut(chosen);
            let mut v = self.second_moment.select_mut(chosen);
            rule.step(&mut w, &mut m, &mut v, &gradient.select(chosen))?;
        }
        Ok(StepReport::new(loss).gradient_norm(gradient.norm()?))
    }

    fn rule_of(&self, spec: &ParamSpec) -> String {
        match groups::find(&self.config.groups, spec) {
            Some(group) => format!("adamw, groups[{group}]"),
            None => "adamw".into(),
        }
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        state.params("first_moment", &self.first_moment)?;
        state.params("second_moment", &self.second_moment)?;
        state.u64("t", self.t)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.first_moment = state.params("first_moment")?;
        self.second_moment = state.params("second_moment")?;
        self.t = state.u64("t")?;
        Ok(())
    }
}

export_optimizer!(Adam);

#[cfg(test)]
mod tests;
