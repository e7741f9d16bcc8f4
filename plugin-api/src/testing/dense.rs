//! The model on a batch as dense matrices: logits, Jacobian, and everything made of them.

use super::data::{Case, Target, cases};
use super::hyper_dual::HyperDual;
use super::loss::{self, Fault};
use super::problem::{Outputs, Problem};
use crate::batch::Position;
use crate::curvature::Labels;
use crate::error::Result;
use crate::random::purpose_number;
use gauntlet_plugin_abi::RandomKey;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use std::ops::Range;

/// A problem at given parameters on a batch. Vectors in parameter space are flat, in the order of the parameters;
/// those in output space are `[tokens, outputs]`.
#[derive(Debug)]
pub(super) struct Dense {
    problem: Problem,
    pub cases: Vec<Case>,
    params: Vec<f64>,
    /// Place of each parameter in a flat vector.
    pub ranges: Vec<Range<usize>>,
    /// z0.
    pub logits: Array2<f64>,
    fault: Option<Fault>,
    step: u64,
    /// Outputs of each linear layer.
    layer_outputs: Vec<usize>,
}

impl Dense {
    pub fn new(problem: &Problem, params: Vec<f64>, batch: &Position, fault: Option<Fault>, step: u64) -> Result<Self> {
        let specs = problem.specs();
        let rows = |name: &&str| specs.iter().find(|spec| spec.name == **name).map_or(0, |spec| spec.shape[0]);
        let layer_outputs = problem.layers().iter().map(rows).collect();
        let ranges = ranges(specs.iter().map(|spec| spec.numel()));
        let (cases, logits) = (cases(problem, batch)?, Array2::zeros((0, problem.outputs())));
        let mut dense = Self { problem: problem.clone(), cases, params, ranges, logits, fault, step, layer_outputs };
        dense.logits = dense.logits_of(&Seed::default(), |z| z.value);
        Ok(dense)
    }

    /// Number of tokens, W.
    pub fn tokens(&self) -> usize {
        self.cases.len()
    }

    pub fn seq_len(&self) -> usize {
        self.problem.seq_len as usize
    }

    /// Number of parameters, counted by element.
    pub fn numel(&self) -> usize {
        self.params.len()
    }

    /// Data or sampled targets, one a token.
    pub fn targets(&self, labels: Labels) -> Vec<Target> {
        let Labels::Sampled(seed) = labels else {
            return self.cases.iter().map(|case| case.target.clone()).collect();
        };
        let target = |(case, z): (&Case, ndarray::ArrayView1<f64>)| {
            let purpose = purpose_number(&format!("labels.{}", case.stream));
            let key = RandomKey { seed, purpose, step: self.step, draw: case.token };
            loss::sample(&z.to_vec(), &case.target, &key)
        };
        self.cases.iter().zip(self.logits.outer_iter()).map(target).collect()
    }

    /// The loss of each token at logits z.
    pub fn losses(&self, z: &Array2<f64>, targets: &[Target]) -> Vec<f64> {
        z.outer_iter().zip(targets).map(|(z, target)| loss::value(&z.to_vec(), target)).collect()
    }

    /// Mean loss over tokens at logits z.
    pub fn loss(&self, z: &Array2<f64>, targets: &[Target]) -> f64 {
        self.losses(z, targets).iter().sum::<f64>() / self.tokens() as f64
    }

    /// dl_t/dz_t of each token's own loss at logits z.
    pub fn output_gradients(&self, z: &Array2<f64>, targets: &[Target]) -> Array2<f64> {
        let rows = z.outer_iter().zip(targets).map(|(z, target)| loss::gradient(&z.to_vec(), target, self.fault));
        stack(rows)
    }

    /// H v for the Hessian H of the mean loss at z0.
    pub fn output_hessian_product(&self, v: &Array2<f64>) -> Array2<f64> {
        let rows = self.logits.outer_iter().zip(&self.cases).zip(v.outer_iter());
        let product = |((z, case), v): ((ndarray::ArrayView1<f64>, &Case), ndarray::ArrayView1<f64>)| {
            loss::hessian_product(&z.to_vec(), &case.target, &v.to_vec())
        };
        stack(rows.map(product)) / self.tokens() as f64
    }

    /// J, `[tokens * outputs, params]`.
    pub fn jacobian(&self) -> Array2<f64> {
        let seed = |index| Seed { a: Some(index), ..Seed::default() };
        self.matrix(&(0..self.numel()).map(seed).collect::<Vec<_>>())
    }

    /// Derivatives of the logits with respect to the outputs of a linear layer, `[tokens * outputs, layer outputs]`.
    pub fn layer_jacobian(&self, layer: usize) -> Array2<f64> {
        let seed = |index| Seed { offset: Some((layer, index)), ..Seed::default() };
        self.matrix(&(0..self.layer_outputs[layer]).map(seed).collect::<Vec<_>>())
    }

    /// Inputs of a linear layer, `[tokens, inputs]`.
    pub fn layer_inputs(&self, layer: usize) -> Array2<f64> {
        let rows = self.pass(&Seed::default()).map(|outputs| outputs.inputs[layer].iter().map(|x| x.value).collect());
        stack(rows)
    }

    /// `sum_tc g0_tc (d2 z_tc / dtheta2) v`: what the Hessian has beyond the Gauss-Newton matrix.
    pub fn residual_hessian_product(&self, g0: &Array2<f64>, v: &[f64]) -> Vec<f64> {
        let seed = |index| Seed { a: Some(index), b: v.to_vec(), offset: None };
        (0..self.numel()).map(|index| (self.logits_of(&seed(index), |z| z.ab) * g0).sum()).collect()
    }

    /// The derivatives `a` of the logits, a column for each seed.
    fn matrix(&self, seeds: &[Seed]) -> Array2<f64> {
        let mut matrix = Array2::zeros((self.logits.len(), seeds.len()));
        for (mut column, seed) in matrix.axis_iter_mut(Axis(1)).zip(seeds) {
            column.assign(&flat(&self.logits_of(seed, |z| z.a)));
        }
        matrix
    }

    /// A part of the logits, `[tokens, outputs]`.
    fn logits_of(&self, seed: &Seed, part: fn(&HyperDual) -> f64) -> Array2<f64> {
        stack(self.pass(seed).map(|outputs| outputs.logits.iter().map(part).collect()))
    }

    /// The model with derivatives in the seed's directions, token by token.
    fn pass(&self, seed: &Seed) -> impl Iterator<Item = Outputs> + '_ {
        let value = |(index, value): (usize, &f64)| HyperDual {
            value: *value,
            a: f64::from(u8::from(seed.a == Some(index))),
            b: seed.b.get(index).copied().unwrap_or_default(),
            ab: 0.0,
        };
        let params: Vec<HyperDual> = self.params.iter().enumerate().map(value).collect();
        let mut offsets: Vec<Vec<HyperDual>> =
            self.layer_outputs.iter().map(|size| vec![HyperDual::default(); *size]).collect();
        if let Some((layer, index)) = seed.offset {
            offsets[layer][index].a = 1.0;
        }
        self.cases.iter().map(move |case| {
            let params: Vec<&[HyperDual]> = self.ranges.iter().map(|range| &params[range.clone()]).collect();
            let offsets: Vec<&[HyperDual]> = offsets.iter().map(Vec::as_slice).collect();
            self.problem.forward(&params, &offsets, &case.features)
        })
    }
}

/// Directions of a pass: one element of the parameters or of a layer's outputs, and any vector.
#[derive(Clone, Default)]
struct Seed {
    a: Option<usize>,
    offset: Option<(usize, usize)>,
    b: Vec<f64>,
}

/// Places of parts of given sizes, one after the other.
pub(super) fn ranges(sizes: impl Iterator<Item = usize>) -> Vec<Range<usize>> {
    sizes
        .scan(0, |start, size| {
            *start += size;
            Some(*start - size..*start)
        })
        .collect()
}

/// The elements of a matrix in row-major order.
pub(super) fn flat(matrix: &Array2<f64>) -> Array1<f64> {
    matrix.iter().copied().collect()
}

/// Rows of the Jacobian of one token.
pub(super) fn token_rows(jacobian: &Array2<f64>, token: usize, outputs: usize) -> ArrayView2<'_, f64> {
    jacobian.slice(s![token * outputs..(token + 1) * outputs, ..])
}

fn stack(rows: impl Iterator<Item = Vec<f64>>) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = rows.collect();
    Array2::from_shape_fn((rows.len(), rows.first().map_or(0, Vec::len)), |(i, j)| rows[i][j])
}
