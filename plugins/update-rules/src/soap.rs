//! SOAP: Adam in the eigenbases of Shampoo's factors (Vyas et al., arXiv 2409.11321), as the authors' code computes it.

use crate::adamw::bias_correction;
use crate::eigenbasis::Eigenbasis;
use crate::matrices::{self, MatrixBatch};
use gauntlet_plugin_api::prelude::*;

/// The numbers of one step t = 1, 2, ...; the step that makes the first bases is not counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Soap {
    /// Step size, the schedule included.
    pub lr: f64,
    /// Decay rates of the first and second moment.
    pub betas: [f64; 2],
    /// Decay rate of the factors.
    pub shampoo_beta: f64,
    /// Added to the root of the second moment, which is not bias-corrected.
    pub eps: f64,
    /// Decoupled weight decay; it multiplies `lr` and acts after the update.
    pub weight_decay: f64,
    /// Whether each update is divided by its root mean square.
    pub normalize_grads: bool,
    /// Whether the step size is bias-corrected.
    pub correct_bias: bool,
    /// Whether the bases are refreshed after this step.
    pub refresh: bool,
    /// The step, from 1.
    pub t: u64,
}

/// Which sides of a parameter get a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sides {
    /// A longer side has none.
    pub max_precond_dim: usize,
    /// Whether vectors have one.
    pub precondition_1d: bool,
}

impl Sides {
    /// Sizes of the left and the right factor. A side of length 1 has none: its basis would be a sign.
    fn of(&self, batch: &MatrixBatch) -> [Option<usize>; 2] {
        let size = |n: usize| (n > 1 && n <= self.max_precond_dim).then_some(n);
        match batch.is_vector {
            true => [size(batch.rows).filter(|_| self.precondition_1d), None],
            false => [size(batch.rows), size(batch.cols)],
        }
    }

    /// The rule that a parameter follows, in a few words.
    pub fn rule_of(&self, spec: &ParamSpec) -> &'static str {
        match self.of(&MatrixBatch::of(spec, false, 0)) {
            [Some(_), Some(_)] => "soap",
            [Some(_), None] => "soap, left side",
            [None, Some(_)] => "soap, right side",
            [None, None] => "adam",
        }
    }
}

/// The state of equally shaped parameters: factors, bases, and the moments in those bases, `[batch, rows, cols]`.
#[derive(Debug)]
pub struct Rotated {
    batch: MatrixBatch,
    name: String,
    left: Option<Eigenbasis>,
    right: Option<Eigenbasis>,
    first_moment: Tensor,
    second_moment: Tensor,
}

impl Rotated {
    /// The states of all parameters before the first step.
    pub fn all(params: &Params, sides: Sides) -> Result<Vec<Self>> {
        let one = |batch: MatrixBatch| {
            let Some((_, like)) = params.iter().next() else { return Err(Error::shape("soap", "no parameter")) };
            let [left, right] = sides.of(&batch).map(|size| size.map(|n| Eigenbasis::new(like, batch.len(), n)));
            let zeros = || like.full(&[batch.len(), batch.rows, batch.cols], 0.0);
            let (first_moment, second_moment) = (zeros()?, zeros()?);
            let name = batch.name(params).to_owned();
            Ok(Self { name, left: left.transpose()?, right: right.transpose()?, first_moment, second_moment, batch })
        };
        MatrixBatch::all(params, false).into_iter().map(one).collect()
    }

    /// Bytes of the tensors of all states: two moments, and a factor and a basis for each side that has one.
    pub fn state_bytes(params: &Params, sides: Sides) -> u64 {
        let size = params.bytes() / params.numel().max(1) as u64;
        let elements = |batch: &MatrixBatch| {
            let factors: usize = sides.of(batch).iter().flatten().map(|n| n * n).sum();
            2 * (batch.numel() + batch.len() * factors) as u64
        };
        MatrixBatch::all(params, false).iter().map(elements).sum::<u64>() * size
    }

    /// The first step: factors from the gradient, bases from the factors. It updates no parameter.
    ///
    /// # Errors
    ///
    /// An eigendecomposition that fails.
    pub fn begin(&mut self, g: &Params, shampoo_beta: f64) -> Result<()> {
        self.update_factors(&self.batch.gather(g)?, shampoo_beta)?;
        self.bases_mut().try_for_each(Eigenbasis::decompose)
    }

    /// L <- beta L + (1 - beta) G G^T, R <- beta R + (1 - beta) G^T G.
    fn update_factors(&mut self, g: &Tensor, beta: f64) -> Result<()> {
        if self.left.is_none() && self.right.is_none() {
            return Ok(());
        }
        let gt = g.t()?;
        if let Some(left) = &mut self.left {
            left.update(&g.matmul(&gt)?, beta)?;
        }
        if let Some(right) = &mut self.right {
            right.update(&gt.matmul(g)?, beta)?;
        }
        Ok(())
    }

    /// Q_L^T X Q_R.
    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        match (&self.left, &self.right) {
            (Some(left), Some(right)) => left.basis.t()?.matmul(x)?.matmul(&right.basis),
            (Some(left), None) => left.basis.t()?.matmul(x),
            (None, Some(right)) => x.matmul(&right.basis),
            (None, None) => x.try_clone(),
        }
    }

    /// Q_L X Q_R^T.
    fn rotate_back(&self, x: Tensor) -> Result<Tensor> {
        let x = if let Some(left) = &self.left { left.basis.matmul(&x)? } else { x };
        if let Some(right) = &self.right { x.matmul(&right.basis.t()?) } else { Ok(x) }
    }

    /// New bases: the second moment follows the new order of the columns, the first is rotated into them. Gives the
    /// number of sides whose decomposition failed; they keep their bases.
    fn refresh(&mut self) -> Result<u64> {
        let shape @ [batch, rows, cols] = [self.batch.len(), self.batch.rows, self.batch.cols];
        let first_moment = self.rotate_back(self.first_moment.try_clone()?)?;
        let mut failures = 0;
        for (side, dim, along) in [(&mut self.left, 1, [batch, rows, 1]), (&mut self.right, 2, [batch, 1, cols])] {
            let Some(side) = side else { continue };
            match side.refresh()? {
                Some(order) => {
                    let order = order.reshape(&along)?.broadcast_to(&shape)?;
                    self.second_moment = self.second_moment.gather(dim, &order)?;
                }
                None => failures += 1,
            }
        }
        self.first_moment = self.rotate(&first_moment)?;
        Ok(failures)
    }

    /// Largest element of |Q^T Q - I| over its bases.
    pub fn deviation(&self) -> Result<f64> {
        let bases = self.left.iter().chain(&self.right);
        bases.map(Eigenbasis::deviation).try_fold(0.0, |most: f64, deviation| Ok(most.max(deviation?)))
    }

    fn bases_mut(&mut self) -> impl Iterator<Item = &mut Eigenbasis> {
        self.left.iter_mut().chain(&mut self.right)
    }

    /// The state's tensors by name.
    fn tensors(&mut self) -> Vec<(&'static str, &mut Tensor)> {
        let mut tensors = vec![("first_moment", &mut self.first_moment), ("second_moment", &mut self.second_moment)];
        if let Some(Eigenbasis { factor, basis }) = &mut self.left {
            tensors.extend([("left_factor", factor), ("left_basis", basis)]);
        }
        if let Some(Eigenbasis { factor, basis }) = &mut self.right {
            tensors.extend([("right_factor", factor), ("right_basis", basis)]);
        }
        tensors
    }

    /// Saves the state; `prefix` stands before the entries' names. One entry holds a batch of equally shaped parameters and bears the name of the first.
    pub fn save(&self, state: &mut StateWriter, prefix: &str) -> Result<()> {
        let mut tensor = |kind: &str, tensor: &Tensor| state.tensor(&format!("{prefix}{kind}.{}", self.name), tensor);
        tensor("first_moment", &self.first_moment)?;
        tensor("second_moment", &self.second_moment)?;
        for (side, basis) in [("left", &self.left), ("right", &self.right)] {
            if let Some(Eigenbasis { factor, basis }) = basis {
                tensor(&format!("{side}_factor"), factor)?;
                tensor(&format!("{side}_basis"), basis)?;
            }
        }
        Ok(())
    }

    /// Restores what [`Rotated::save`] took.
    ///
    /// # Errors
    ///
    /// A tensor of another shape: the state of another model.
    pub fn load(&mut self, state: &StateReader, prefix: &str) -> Result<()> {
        let name = self.name.clone();
        for (kind, tensor) in self.tensors() {
            matrices::load(state, &format!("{prefix}{kind}.{name}"), tensor)?;
        }
        Ok(())
    }
}

impl Soap {
    /// One step on parameters whose first bases are made. Of equally shaped matrices, each with its G and W:
    ///
    /// ```text
    /// G' = Q_L^T G Q_R
    /// M <- b1 M + (1 - b1) G',  V <- b2 V + (1 - b2) G'^2
    /// W <- W - lr sqrt(1 - b2^t) / (1 - b1^t) Q_L (M / (sqrt(V) + eps)) Q_R^T
    /// W <- W - lr wd W
    /// L <- beta L + (1 - beta) G G^T,  R <- beta R + (1 - beta) G^T G
    /// ```
    ///
    /// and, where the bases are refreshed, Q by one step of power iteration; V is permuted and M rotated with them.
    /// Gives the number of decompositions that failed in a refresh.
    pub fn step(&self, w: &mut Params, state: &mut Rotated, g: &Params) -> Result<u64> {
        let Self { lr, betas: [b1, b2], eps, .. } = *self;
        let g = state.batch.gather(g)?;
        let mut update = state.rotate(&g)?;
        fused([&mut state.first_moment, &mut state.second_moment, &mut update], [], |[m, v, g], []| {
            let m = b1 * m + (1.0 - b1) * g;
            let v = b2 * v + (1.0 - b2) * g * g;
            [m, v, m / (v.sqrt() + eps)]
        })?;
        let mut update = state.rotate_back(update)?;
        if self.normalize_grads {
            let root = update.square()?.mean(&[1, 2], true)?.sqrt()?.add_scalar(1e-30)?;
            update = update.div(&root)?;
        }
        let correction = bias_correction(b2, self.t).sqrt() / bias_correction(b1, self.t);
        let size = if self.correct_bias { lr * correction } else { lr };
        let keep = 1.0 - lr * self.weight_decay;
        state.batch.for_each(w, &update, |w, u| fused([w], [u], |[w], [u]| [keep * (w - size * u)]))?;
        state.update_factors(&g, self.shampoo_beta)?;
        if self.refresh { state.refresh() } else { Ok(0) }
    }
}

#[cfg(test)]
mod tests;
