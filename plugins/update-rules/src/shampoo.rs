//! Shampoo: matrices preconditioned on both sides (Gupta, Koren and Singer, arXiv 1802.09568), with moving averages.

use crate::adamw::bias_correction;
use crate::blocks::{self, Block, BlockBatch};
use crate::inverse_root::inverse_root;
use crate::matrices;
use gauntlet_plugin_api::ErrorCode;
use gauntlet_plugin_api::prelude::*;

/// Where the length of an update comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Grafting {
    /// The update's own.
    #[default]
    None,
    /// That of Adam's update of the same block.
    Adam,
}

/// The numbers of one step t = 1, 2, ...
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shampoo {
    /// Decay rates of the momentum and of the factors.
    pub betas: [f64; 2],
    /// Added to the eigenvalues of a factor.
    pub eps: f64,
    /// Each side of a matrix is multiplied by its factor to the power of minus this; vectors take 1/2.
    pub exponent: f64,
    /// Added to the root of Adam's second moment.
    pub grafting_eps: f64,
    /// Whether the roots are computed anew in this step.
    pub refresh: bool,
    /// The step, from 1.
    pub t: u64,
}

/// Refreshes of a side that may fail one after another.
const MAX_FAILURES: u64 = 3;

/// One side of a batch of blocks: factors and their inverse roots, `[batch, n, n]`.
#[derive(Debug)]
struct Side {
    factor: Tensor,
    root: Tensor,
    /// Refreshes that have failed since the last one that did not.
    failures: u64,
}

impl Side {
    fn new(like: &Tensor, batch: usize, n: usize) -> Result<Self> {
        let root = like.eye(n)?.broadcast_to(&[batch, n, n])?;
        Ok(Self { factor: like.full(&[batch, n, n], 0.0)?, root, failures: 0 })
    }

    /// A <- beta A + (1 - beta) S, and the root of A / (1 - beta^t) where it is due. Gives the number of roots that
    /// could not be computed; they stay as they were.
    fn update(&mut self, statistics: &Tensor, rule: &Shampoo) -> Result<u64> {
        let beta = rule.betas[1];
        fused([&mut self.factor], [statistics], |[a], [s]| [beta * a + (1.0 - beta) * s])?;
        if !rule.refresh {
            return Ok(0);
        }
        let corrected = self.factor.div_scalar(bias_correction(beta, rule.t))?;
        let (root, failed) = inverse_root(&corrected, rule.eps, rule.exponent, &self.root)?;
        self.root = root;
        self.failures = if failed > 0 { self.failures + 1 } else { 0 };
        match self.failures > MAX_FAILURES {
            false => Ok(failed),
            true => {
                let message = format!("{} refreshes in a row had an eigendecomposition that failed", self.failures);
                Err(Error::new(ErrorCode::NUMERICAL, "inverse_root", message))
            }
        }
    }
}

/// What scales a gradient: factors of both sides, or the second moment of vectors.
#[derive(Debug)]
enum Preconditioner {
    Matrix { left: Side, right: Side },
    Vector { second_moment: Tensor },
}

/// The state of equally shaped blocks, `[batch, rows, cols]`.
#[derive(Debug)]
pub struct Preconditioned {
    batch: BlockBatch,
    momentum: Tensor,
    preconditioner: Preconditioner,
    /// Adam's second moment, where updates are grafted.
    graft: Option<Tensor>,
}

impl Preconditioned {
    /// The states of all blocks before the first step.
    pub fn all(params: &Params, max_precond_dim: usize, grafting: Grafting) -> Result<Vec<Self>> {
        let one = |batch: BlockBatch| {
            let Some((_, like)) = params.iter().next() else { return Err(Error::shape("shampoo", "no parameter")) };
            let (count, rows, cols) = (batch.len(), batch.rows, batch.cols);
            let zeros = || like.full(&[count, rows, cols], 0.0);
            let preconditioner = match batch.is_vector {
                true => Preconditioner::Vector { second_moment: zeros()? },
                false => {
                    Preconditioner::Matrix { left: Side::new(like, count, rows)?, right: Side::new(like, count, cols)? }
                }
            };
            let graft = if grafting == Grafting::Adam && !batch.is_vector { Some(zeros()?) } else { None };
            Ok(Self { momentum: zeros()?, preconditioner, graft, batch })
        };
        BlockBatch::all(params, max_precond_dim).into_iter().map(one).collect()
    }

    /// The rule that a parameter follows, in a few words.
    pub fn rule_of(spec: &ParamSpec, max_precond_dim: usize) -> String {
        match (spec.shape.len() < 2, blocks::count(spec, max_precond_dim)) {
            (true, _) => "shampoo, diagonal".into(),
            (false, 1) => "shampoo".into(),
            (false, count) => format!("shampoo, {count} blocks"),
        }
    }

    /// Bytes of the tensors of all states: momentum, factors and roots, second moments.
    pub fn state_bytes(params: &Params, max_precond_dim: usize, grafting: Grafting) -> u64 {
        let size = params.bytes() / params.numel().max(1) as u64;
        let elements = |batch: &BlockBatch| {
            let factors = 2 * batch.len() * (batch.rows * batch.rows + batch.cols * batch.cols);
            let moments = if grafting == Grafting::Adam { 2 } else { 1 };
            if batch.is_vector { 2 * batch.numel() } else { moments * batch.numel() + factors }
        };
        BlockBatch::all(params, max_precond_dim).iter().map(elements).sum::<usize>() as u64 * size
    }

    /// What the parameters move against, block by block, and the number of roots that could not be computed. Of each
    /// block, with its gradient G, at step t:
    ///
    /// ```text
    /// M <- b1 M + (1 - b1) G
    /// L <- b2 L + (1 - b2) G G^T,  R <- b2 R + (1 - b2) G^T G
    /// D = (L / (1 - b2^t) + eps)^(-e) M / (1 - b1^t) (R / (1 - b2^t) + eps)^(-e)
    /// ```
    ///
    /// of vectors D = (v / (1 - b2^t) + eps)^(-1/2) m / (1 - b1^t), v the moving average of g^2. With grafting D gets the
    /// length of Adam's update.
    ///
    /// # Errors
    ///
    /// Roots of a side that could not be computed more than three times in a row.
    pub fn step(&mut self, rule: &Shampoo, g: &Params) -> Result<(Vec<(Block, Tensor)>, u64)> {
        let g = self.batch.gather(g)?;
        let [b1, _] = rule.betas;
        fused([&mut self.momentum], [&g], |[m], [g]| [b1 * m + (1.0 - b1) * g])?;
        let m = self.momentum.div_scalar(bias_correction(b1, rule.t))?;
        let (mut direction, failures) = self.precondition(&m, &g, rule)?;
        if let Some(second_moment) = &mut self.graft {
            let adam = adam(second_moment, &m, &g, rule)?;
            let own = direction.norm_dims(&[1, 2], true)?.add_scalar(1e-16)?;
            direction = direction.mul(&adam.norm_dims(&[1, 2], true)?.div(&own)?)?;
        }
        Ok((self.batch.scatter(&direction)?, failures))
    }

    fn precondition(&mut self, m: &Tensor, g: &Tensor, rule: &Shampoo) -> Result<(Tensor, u64)> {
        let ([_, b2], eps) = (rule.betas, rule.eps);
        match &mut self.preconditioner {
            Preconditioner::Vector { second_moment } => {
                let (mut direction, correction) = (m.try_clone()?, bias_correction(b2, rule.t));
                fused([second_moment, &mut direction], [g], |[v, m], [g]| {
                    let v = b2 * v + (1.0 - b2) * g * g;
                    [v, m / (v / correction + eps).sqrt()]
                })?;
                Ok((direction, 0))
            }
            Preconditioner::Matrix { left, right } => {
                let gt = g.t()?;
                let failures = left.update(&g.matmul(&gt)?, rule)? + right.update(&gt.matmul(g)?, rule)?;
                Ok((left.root.matmul(m)?.matmul(&right.root)?, failures))
            }
        }
    }

    /// The state's tensors by name.
    fn tensors(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        let mut tensors = vec![("momentum", &mut self.momentum)];
        match &mut self.preconditioner {
            Preconditioner::Vector { second_moment } => tensors.push(("second_moment", second_moment)),
            Preconditioner::Matrix { left, right } => tensors.extend([
                ("left_factor", &mut left.factor),
                ("left_root", &mut left.root),
                ("right_factor", &mut right.factor),
                ("right_root", &mut right.root),
            ]),
        }
        tensors.extend(self.graft.as_mut().map(|graft| ("grafting_second_moment", graft)));
        tensors
    }

    /// Saves the state. One entry holds a batch of equally shaped blocks and bears the place of the first.
    pub fn save(&self, state: &mut StateWriter) -> Result<()> {
        let name = |kind: &str| format!("{kind}.{}", self.batch.name);
        state.tensor(&name("momentum"), &self.momentum)?;
        match &self.preconditioner {
            Preconditioner::Vector { second_moment } => state.tensor(&name("second_moment"), second_moment)?,
            Preconditioner::Matrix { left, right } => {
                for (side, Side { factor, root, failures }) in [("left", left), ("right", right)] {
                    state.tensor(&name(&format!("{side}_factor")), factor)?;
                    state.tensor(&name(&format!("{side}_root")), root)?;
                    state.u64(&name(&format!("{side}_failures")), *failures)?;
                }
            }
        }
        self.graft.as_ref().map_or(Ok(()), |graft| state.tensor(&name("grafting_second_moment"), graft))
    }

    /// Restores what [`Preconditioned::save`] took.
    ///
    /// # Errors
    ///
    /// A tensor of another shape: the state of another model.
    pub fn load(&mut self, state: &StateReader) -> Result<()> {
        let name = self.batch.name.clone();
        for (kind, tensor) in self.tensors() {
            matrices::load(state, &format!("{kind}.{name}"), tensor)?;
        }
        if let Preconditioner::Matrix { left, right } = &mut self.preconditioner {
            left.failures = state.u64(&format!("left_failures.{name}"))?;
            right.failures = state.u64(&format!("right_failures.{name}"))?;
        }
        Ok(())
    }
}

/// Adam's update: m / (sqrt(v / (1 - b2^t)) + eps), with v <- b2 v + (1 - b2) g^2.
fn adam(second_moment: &mut Tensor, m: &Tensor, g: &Tensor, rule: &Shampoo) -> Result<Tensor> {
    let ([_, b2], eps) = (rule.betas, rule.grafting_eps);
    let (mut update, correction) = (m.try_clone()?, bias_correction(b2, rule.t).sqrt());
    fused([second_moment, &mut update], [g], |[v, m], [g]| {
        let v = b2 * v + (1.0 - b2) * g * g;
        [v, m / (v.sqrt() / correction + eps)]
    })?;
    Ok(update)
}

#[cfg(test)]
mod tests;
