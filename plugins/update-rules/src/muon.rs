//! Muon: momentum whose matrices are orthogonalised (Jordan et al. 2024, <https://kellerjordan.github.io/posts/muon>).

use crate::adamw::bias_correction;
use crate::matrices::MatrixBatch;
use crate::newton_schulz::NewtonSchulz;
use gauntlet_plugin_api::prelude::*;

/// What the orthogonal update of a `rows` by `cols` matrix is multiplied by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// sqrt(max(1, rows / cols)).
    #[default]
    Original,
    /// 0.2 sqrt(max(rows, cols)): the root mean square of an AdamW update (Moonlight, arXiv 2502.16982).
    MatchRmsAdamw,
    /// 1.
    None,
}

impl Scale {
    /// The factor; `rows` are outputs, `cols` inputs.
    pub fn factor(self, rows: usize, cols: usize) -> f64 {
        let (rows, cols) = (rows as f64, cols as f64);
        match self {
            Self::Original => (rows / cols).max(1.0).sqrt(),
            Self::MatchRmsAdamw => 0.2 * rows.max(cols).sqrt(),
            Self::None => 1.0,
        }
    }
}

/// How gradient and momentum mix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// u = (1 - mu) g + mu m, or m without Nesterov.
    Plain,
    /// u = (1 - mu) g / (1 - mu^t) + mu m / (1 - mu^(t+1)), or m / (1 - mu^t) without Nesterov, at step t = 1, 2, ...
    BiasCorrected(u64),
}

/// The numbers of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Muon {
    /// Step size, the schedule included.
    pub lr: f64,
    /// Decay rate mu of the momentum.
    pub momentum: f64,
    /// Whether the update looks ahead by one step of the momentum.
    pub nesterov: bool,
    /// How gradient and momentum mix.
    pub mix: Mix,
    /// Decoupled weight decay; it multiplies `lr` without the scale.
    pub weight_decay: f64,
    /// Factor of the orthogonal update.
    pub scale: Scale,
    /// The orthogonalisation.
    pub newton_schulz: NewtonSchulz,
    /// Whether each head of a parameter with sub-blocks is a matrix of its own.
    pub per_head: bool,
}

impl Muon {
    /// One step on lists of matrices of equal shapes, with O(u) the orthogonalised u:
    ///
    /// ```text
    /// m <- mu m + (1 - mu) g
    /// u = mix of g and m
    /// w <- (1 - lr wd) w - lr scale O(u)
    /// ```
    ///
    /// Matrices of one shape are orthogonalised in one batch.
    pub fn step(&self, w: &mut Params, m: &mut Params, g: &Params) -> Result<()> {
        let (mu, [of_momentum, of_gradient]) = (self.momentum, self.weights());
        let mut u = g.zeros_like()?;
        fused([m, &mut u], [g], |[m, _], [g]| {
            let m = mu * m + (1.0 - mu) * g;
            [m, of_momentum * m + of_gradient * g]
        })?;
        let keep = 1.0 - self.lr * self.weight_decay;
        for batch in MatrixBatch::all(&u, self.per_head) {
            let orthogonal = self.newton_schulz.orthogonalize(&batch.gather(&u)?)?;
            let size = self.lr * self.scale.factor(batch.rows, batch.cols);
            batch.for_each(w, &orthogonal, |w, o| fused([w], [o], |[w], [o]| [keep * w - size * o]))?;
        }
        Ok(())
    }

    /// Weights of momentum and gradient in the update.
    fn weights(&self) -> [f64; 2] {
        let mu = self.momentum;
        let corrections = match self.mix {
            Mix::Plain => [1.0, 1.0],
            Mix::BiasCorrected(t) => [bias_correction(mu, t), bias_correction(mu, t + 1)],
        };
        match (self.nesterov, corrections) {
            (true, [now, ahead]) => [mu / ahead, (1.0 - mu) / now],
            (false, [now, _]) => [1.0 / now, 0.0],
        }
    }
}

#[cfg(test)]
mod tests;
