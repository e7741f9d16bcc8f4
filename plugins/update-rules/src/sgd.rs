//! Gradient descent with heavy-ball momentum, as `torch.optim.SGD` without dampening.

use gauntlet_plugin_api::{Params, Result};

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    /// Step size, the schedule included.
    pub lr: f64,
    /// Share of the last velocity that is kept.
    pub momentum: f64,
}

impl Sgd {
    /// One step on lists of equal shapes: m <- beta m + g, w <- w - lr m.
    pub fn step(&self, w: &mut Params, m: &mut Params, g: &Params) -> Result<()> {
        m.scale_(self.momentum)?.axpy_(1.0, g)?;
        w.axpy_(-self.lr, m)?;
        Ok(())
    }
}
