//! Gradient descent with heavy-ball momentum: m <- beta m + g, w <- w - lr m.

use gauntlet_plugin_api::prelude::*;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Step size.
    lr: f64,
    /// Share of the last update that is kept, beta.
    #[serde(default)]
    momentum: f64,
}

struct Sgd {
    config: Config,
    velocity: Params,
}

impl Optimizer for Sgd {
    const NAME: &'static str = "sgd";
    type Config = Config;

    fn new(config: Config, setup: &Setup) -> Result<Self> {
        Ok(Self { velocity: setup.params().zeros_like()?, config })
    }

    fn state_bytes(_: &Config, params: &Params) -> u64 {
        params.bytes()
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        let lr = self.config.lr * ctx.schedule();
        let batch = ctx.next_batch()?;
        let (loss, gradient) = ctx.loss_and_gradient(ctx.params(), &batch)?;
        self.velocity.scale_(self.config.momentum)?.axpy_(1.0, &gradient)?;
        ctx.params_mut().axpy_(-lr, &self.velocity)?;
        Ok(StepReport::new(loss).gradient_norm(gradient.norm()?))
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        state.params("velocity", &self.velocity)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.velocity = state.params("velocity")?;
        Ok(())
    }
}

export_optimizer!(Sgd);

#[cfg(test)]
mod tests;
