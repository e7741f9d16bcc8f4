//! Evaluations and products, straight from their definitions over dense matrices.

use super::data::Target;
use super::dense::{Dense, flat, token_rows};
use crate::backend::{Evaluation, ProductKind};
use crate::curvature::{Labels, Per, Sharing};
use crate::error::{Error, Result};
use ndarray::{Array1, Array2, ArrayView1, Axis};

/// Numbers and arrays that a product gives: lists of one vector a parameter are flat.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub values: Vec<f64>,
    /// One flat vector over all parameters.
    pub params: Option<Vec<f64>>,
    pub matrices: Vec<Array2<f64>>,
}

impl Answer {
    fn values(values: Vec<f64>) -> Self {
        Self { values, ..Self::default() }
    }

    fn params(params: Array1<f64>) -> Self {
        Self { params: Some(params.to_vec()), ..Self::default() }
    }

    fn matrices(matrices: Vec<Array2<f64>>) -> Self {
        Self { matrices, ..Self::default() }
    }
}

/// Something at parameters on a batch; `v` is flat and empty where the evaluation takes none.
pub(super) fn evaluate(dense: &Dense, what: &Evaluation, v: &[f64]) -> Answer {
    let data = dense.targets(Labels::Data);
    match what {
        Evaluation::Loss => Answer::values(vec![dense.loss(&dense.logits, &data)]),
        Evaluation::Losses => Answer::values(means(&dense.losses(&dense.logits, &data), dense.seq_len())),
        Evaluation::Gradient(labels) => {
            let targets = dense.targets(*labels);
            let gradient = mean_rows(&token_gradients(dense, &targets));
            Answer { values: vec![dense.loss(&dense.logits, &targets)], ..Answer::params(gradient) }
        }
        Evaluation::SquaredGradient(per, labels) => {
            let tokens = token_gradients(dense, &dense.targets(*labels));
            let cases = match per {
                Per::Token => tokens,
                Per::Sequence => sequence_gradients(dense, &tokens),
            };
            Answer::params(mean_rows(&cases.mapv(|g| g * g)))
        }
        Evaluation::FisherVectorProduct(labels) => {
            let tokens = token_gradients(dense, &dense.targets(*labels));
            let along = tokens.dot(&ArrayView1::from(v));
            Answer::params(tokens.t().dot(&along) / dense.tokens() as f64)
        }
    }
}

/// A linearization: z0 and J, and which block each element of the parameters belongs to.
#[derive(Debug)]
pub struct Linearization {
    dense: Dense,
    jacobian: Array2<f64>,
    block_of: Vec<usize>,
    blocks: usize,
    layers: &'static [&'static str],
}

impl Linearization {
    /// `block_of` names the block of each element of the parameters.
    pub(super) fn new(dense: Dense, block_of: Vec<usize>, blocks: usize, layers: &'static [&'static str]) -> Self {
        Self { jacobian: dense.jacobian(), dense, block_of, blocks, layers }
    }

    /// A product; `v` is flat, over the parameters or (for a vjp) over the outputs.
    pub(super) fn product(&self, what: &ProductKind, v: &[f64]) -> Result<Answer> {
        let dense = &self.dense;
        let data = dense.targets(Labels::Data);
        Ok(match what {
            ProductKind::Loss => Answer::values(vec![dense.loss(&dense.logits, &data)]),
            ProductKind::Gradient => Answer::params(self.jacobian.t().dot(&flat(&self.g0(&data)))),
            ProductKind::Jvp => Answer::matrices(vec![self.jvp(&Array1::from(v.to_vec()))]),
            ProductKind::Vjp => Answer::params(self.jacobian.t().dot(&ArrayView1::from(v))),
            ProductKind::GgnVectorProduct => Answer::params(self.over_blocks(v, |v| self.ggn_product(v))),
            ProductKind::HessianVectorProduct => {
                let g0 = self.g0(&data);
                let residual = |v: &Array1<f64>| dense.residual_hessian_product(&g0, &v.to_vec());
                Answer::params(self.over_blocks(v, |v| self.ggn_product(v) + Array1::from(residual(v))))
            }
            ProductKind::Quadratic => self.quadratic(&data, v),
            ProductKind::ProxLinear => self.prox_linear(&data, v),
            ProductKind::KroneckerFactors { names, labels, sharing } => {
                self.kronecker_factors(names, &dense.targets(*labels), *sharing)?
            }
            ProductKind::GradientWeighted(weights) => {
                let gradients = sequence_gradients(dense, &token_gradients(dense, &data));
                if weights.len() != gradients.nrows() {
                    let found = format!("found {} weights, expected {}", weights.len(), gradients.nrows());
                    return Err(Error::shape("gradient_weighted", found));
                }
                Answer::params(gradients.t().dot(&ArrayView1::from(weights)))
            }
            ProductKind::SequenceDirectional => {
                let gradients = sequence_gradients(dense, &token_gradients(dense, &data));
                Answer::values(gradients.dot(&ArrayView1::from(v)).to_vec())
            }
        })
    }

    /// Shape of the outputs, `[tokens, outputs]`.
    pub(super) fn output_shape(&self) -> [usize; 2] {
        [self.dense.tokens(), self.dense.logits.ncols()]
    }

    /// g0: the derivative of the mean loss at z0.
    fn g0(&self, targets: &[Target]) -> Array2<f64> {
        self.dense.output_gradients(&self.dense.logits, targets) / self.dense.tokens() as f64
    }

    fn jvp(&self, v: &Array1<f64>) -> Array2<f64> {
        let shape = self.output_shape();
        let tangent = self.jacobian.dot(v);
        Array2::from_shape_fn(shape, |(t, c)| tangent[t * shape[1] + c])
    }

    fn ggn_product(&self, v: &Array1<f64>) -> Array1<f64> {
        self.jacobian.t().dot(&flat(&self.dense.output_hessian_product(&self.jvp(v))))
    }

    /// The part of a vector in one block, zeros elsewhere.
    fn part(&self, v: &[f64], block: usize) -> Array1<f64> {
        v.iter().zip(&self.block_of).map(|(x, of)| if *of == block { *x } else { 0.0 }).collect()
    }

    /// The product of a block-diagonal matrix whose blocks are those of `product`.
    fn over_blocks(&self, v: &[f64], product: impl Fn(&Array1<f64>) -> Array1<f64>) -> Array1<f64> {
        let mut result = Array1::zeros(v.len());
        for block in 0..self.blocks {
            result += &self.part(&product(&self.part(v, block)).to_vec(), block);
        }
        result
    }

    /// `[L(z0), linear, curvature, block values...]` and J_l^T (g0 + H J_l delta_l).
    fn quadratic(&self, data: &[Target], delta: &[f64]) -> Answer {
        let (g0, anchor_loss) = (self.g0(data), self.dense.loss(&self.dense.logits, data));
        let (mut linear, mut curvature, mut values) = (0.0, 0.0, vec![]);
        let mut gradient = Array1::zeros(delta.len());
        for block in 0..self.blocks {
            let tangent = self.jvp(&self.part(delta, block));
            let curved = self.dense.output_hessian_product(&tangent);
            let terms = ((&g0 * &tangent).sum(), 0.5 * (&tangent * &curved).sum());
            (linear, curvature) = (linear + terms.0, curvature + terms.1);
            values.push(anchor_loss + terms.0 + terms.1);
            gradient += &self.part(&self.jacobian.t().dot(&flat(&(&g0 + &curved))).to_vec(), block);
        }
        values.splice(0..0, [anchor_loss, linear, curvature]);
        Answer { values, ..Answer::params(gradient) }
    }

    /// `[L(z0), value, block values...]` and J_l^T grad L(z0 + J_l delta_l).
    fn prox_linear(&self, data: &[Target], delta: &[f64]) -> Answer {
        let (dense, anchor_loss) = (&self.dense, self.dense.loss(&self.dense.logits, data));
        let (mut value, mut values) = (anchor_loss, vec![]);
        let mut gradient = Array1::zeros(delta.len());
        for block in 0..self.blocks {
            let moved = &dense.logits + &self.jvp(&self.part(delta, block));
            let loss = dense.loss(&moved, data);
            value += loss - anchor_loss;
            values.push(loss);
            let output = dense.output_gradients(&moved, data) / dense.tokens() as f64;
            gradient += &self.part(&self.jacobian.t().dot(&flat(&output)).to_vec(), block);
        }
        values.splice(0..0, [anchor_loss, value]);
        Answer { values, ..Answer::params(gradient) }
    }

    /// E[a a^T] and E[s s^T] of each named layer.
    fn kronecker_factors(&self, names: &[String], targets: &[Target], sharing: Sharing) -> Result<Answer> {
        let outputs = self.dense.output_gradients(&self.dense.logits, targets);
        let mut factors = vec![];
        for name in names {
            let layer = self.layers.iter().position(|layer| layer == name);
            let unknown = || Error::argument("kronecker_factors", format!("no linear layer has a weight `{name}`"));
            let layer = layer.ok_or_else(unknown)?;
            let (inputs, jacobian) = (self.dense.layer_inputs(layer), self.dense.layer_jacobian(layer));
            let derivatives = pull_back(&jacobian, &outputs);
            let seq_len = self.dense.seq_len();
            let pair = match sharing {
                Sharing::Expand => [inputs, derivatives],
                Sharing::Reduce => [sums(&inputs, seq_len) / seq_len as f64, sums(&derivatives, seq_len)],
            };
            factors.extend(pair.map(|cases| cases.t().dot(&cases) / cases.nrows() as f64));
        }
        Ok(Answer::matrices(factors))
    }
}

/// J_t^T u_t for each token t, `[tokens, columns of J]`.
fn pull_back(jacobian: &Array2<f64>, outputs: &Array2<f64>) -> Array2<f64> {
    let mut rows = Array2::zeros((outputs.nrows(), jacobian.ncols()));
    for (t, (mut row, u)) in rows.outer_iter_mut().zip(outputs.outer_iter()).enumerate() {
        row.assign(&token_rows(jacobian, t, u.len()).t().dot(&u));
    }
    rows
}

/// The gradient of each token's own loss, `[tokens, params]`.
fn token_gradients(dense: &Dense, targets: &[Target]) -> Array2<f64> {
    pull_back(&dense.jacobian(), &dense.output_gradients(&dense.logits, targets))
}

/// The gradient of each sequence's mean loss, `[sequences, params]`.
fn sequence_gradients(dense: &Dense, tokens: &Array2<f64>) -> Array2<f64> {
    sums(tokens, dense.seq_len()) / dense.seq_len() as f64
}

/// Sums of each group of `size` rows.
fn sums(rows: &Array2<f64>, size: usize) -> Array2<f64> {
    let groups: Vec<Array1<f64>> = rows.axis_chunks_iter(Axis(0), size).map(|group| group.sum_axis(Axis(0))).collect();
    Array2::from_shape_fn((groups.len(), rows.ncols()), |(i, j)| groups[i][j])
}

fn mean_rows(rows: &Array2<f64>) -> Array1<f64> {
    rows.sum_axis(Axis(0)) / rows.nrows() as f64
}

fn means(values: &[f64], size: usize) -> Vec<f64> {
    values.chunks(size).map(|group| group.iter().sum::<f64>() / group.len() as f64).collect()
}

#[cfg(test)]
mod tests;
