//! Products against brute force: finite differences of the loss, dense matrices, reweighted least squares.

mod cases;
mod subproblems;

use super::super::data::Cursors;
use super::super::problem::Problem;
use super::*;
use crate::batch::Position;
use crate::random::fill;
use crate::structure::{Blocks, Structure};
use gauntlet_plugin_abi::{Purpose, RandomKey, RandomKind};

const STEP: f64 = 1e-5;

fn problems() -> [Problem; 3] {
    [Problem::softmax_regression(), Problem::two_layer(), Problem::squared()]
}

fn batch(problem: &Problem, sequences: u64) -> Position {
    Cursors::default().draw(Purpose::STEP, sequences, problem.seq_len).unwrap()
}

fn dense(problem: &Problem, params: &[f64]) -> Dense {
    Dense::new(problem, params.to_vec(), &batch(problem, 4), None, 0).unwrap()
}

fn anchor(problem: &Problem) -> Vec<f64> {
    problem.initial().concat()
}

fn random(count: usize, draw: u64) -> Vec<f64> {
    fill(RandomKind::NORMAL, &RandomKey { seed: 5, purpose: 0, step: 0, draw }, count).unwrap()
}

/// A linearization at the initial parameters.
fn linearized(problem: &Problem, structure: &Structure) -> Linearization {
    let specs = problem.specs();
    let blocks = Blocks::resolve(structure, &specs).unwrap();
    let each = specs.iter().zip(blocks.of_param());
    let block_of = each.flat_map(|(spec, block)| vec![*block; spec.numel()]).collect();
    Linearization::new(dense(problem, &anchor(problem)), block_of, blocks.count(), problem.layers())
}

fn full(problem: &Problem) -> Linearization {
    linearized(problem, &Structure::Full)
}

fn params(answer: Answer) -> Vec<f64> {
    answer.params.unwrap()
}

fn product(at: &Linearization, what: ProductKind, v: &[f64]) -> Answer {
    at.product(&what, v).unwrap()
}

fn loss(problem: &Problem, params: &[f64]) -> f64 {
    evaluate(&dense(problem, params), &Evaluation::Loss, &[]).values[0]
}

fn gradient(problem: &Problem, at: &[f64]) -> Vec<f64> {
    params(evaluate(&dense(problem, at), &Evaluation::Gradient(Labels::Data), &[]))
}

/// Central differences of a scalar function.
fn differences(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let shifted = |i: usize, by: f64| {
        let mut moved = at.to_vec();
        moved[i] += by;
        f(&moved)
    };
    (0..at.len()).map(|i| (shifted(i, STEP) - shifted(i, -STEP)) / (2.0 * STEP)).collect()
}

fn plus(a: &[f64], scale: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + scale * b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let scale = 1.0 + expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * scale, "off by {worst:e}: {found:?} instead of {expected:?}");
}

#[test]
fn gradients_are_differences_of_the_loss() {
    for problem in problems() {
        let at = anchor(&problem);
        let expected = differences(&at, |params| loss(&problem, params));
        assert_near(&gradient(&problem, &at), &expected, 1e-9);
        let local = full(&problem);
        assert_near(&params(product(&local, ProductKind::Gradient, &[])), &gradient(&problem, &at), 1e-14);
        assert_eq!(product(&local, ProductKind::Loss, &[]).values, [loss(&problem, &at)]);
    }
}

#[test]
fn jvp_and_vjp_are_adjoint_and_jvp_is_a_difference_of_logits() {
    for problem in problems() {
        let (at, local) = (anchor(&problem), full(&problem));
        let v = random(at.len(), 0);
        let tangent = flat(&product(&local, ProductKind::Jvp, &v).matrices[0]).to_vec();
        let logits = |scale| flat(&dense(&problem, &plus(&at, scale, &v)).logits).to_vec();
        let expected: Vec<f64> = plus(&logits(STEP), -1.0, &logits(-STEP)).iter().map(|d| d / (2.0 * STEP)).collect();
        assert_near(&tangent, &expected, 1e-8);
        let u = random(tangent.len(), 1);
        let pulled = params(product(&local, ProductKind::Vjp, &u));
        assert!((dot(&tangent, &u) - dot(&v, &pulled)).abs() < 1e-12 * (1.0 + dot(&v, &pulled).abs()));
    }
}

#[test]
fn hessian_products_are_differences_of_the_gradient() {
    for problem in problems() {
        let (at, v) = (anchor(&problem), random(anchor(&problem).len(), 2));
        let ahead = gradient(&problem, &plus(&at, STEP, &v));
        let behind = gradient(&problem, &plus(&at, -STEP, &v));
        let expected: Vec<f64> = plus(&ahead, -1.0, &behind).iter().map(|d| d / (2.0 * STEP)).collect();
        let found = params(product(&full(&problem), ProductKind::HessianVectorProduct, &v));
        assert_near(&found, &expected, 1e-8);
    }
}

/// J^T H J from J and the Hessian of the loss in the logits, both by differences.
fn dense_ggn(problem: &Problem) -> Array2<f64> {
    let (local, size) = (full(problem), anchor(problem).len());
    let z0 = local.dense.logits.clone();
    let data = local.dense.targets(Labels::Data);
    let output_gradient = |z: &[f64]| -> Vec<f64> {
        let loss = |z: &[f64]| local.dense.loss(&Array2::from_shape_vec(z0.dim(), z.to_vec()).unwrap(), &data);
        differences(z, loss)
    };
    let z = flat(&z0).to_vec();
    let mut hessian = Array2::zeros((z.len(), z.len()));
    for i in 0..z.len() {
        let shift = |by: f64| {
            let mut moved = z.clone();
            moved[i] += by;
            output_gradient(&moved)
        };
        // A larger step: these are differences of differences.
        let row: Vec<f64> = plus(&shift(1e-3), -1.0, &shift(-1e-3)).iter().map(|d| d / 2e-3).collect();
        hessian.row_mut(i).assign(&Array1::from(row));
    }
    let mut jacobian = Array2::zeros((z.len(), size));
    for i in 0..size {
        let mut unit = vec![0.0; size];
        unit[i] = 1.0;
        jacobian.column_mut(i).assign(&flat(&product(&local, ProductKind::Jvp, &unit).matrices[0]));
    }
    jacobian.t().dot(&hessian).dot(&jacobian)
}

#[test]
fn ggn_products_are_those_of_the_dense_matrix_symmetric_and_not_negative() {
    for problem in problems() {
        let (local, size) = (full(&problem), anchor(&problem).len());
        let (u, v) = (random(size, 3), random(size, 4));
        let found = params(product(&local, ProductKind::GgnVectorProduct, &v));
        assert_near(&found, &dense_ggn(&problem).dot(&Array1::from(v.clone())).to_vec(), 1e-5);
        let other = params(product(&local, ProductKind::GgnVectorProduct, &u));
        assert!((dot(&u, &found) - dot(&v, &other)).abs() < 1e-12 * (1.0 + dot(&u, &found).abs()));
        assert!(dot(&v, &found) >= 0.0);
    }
}

#[test]
fn ggn_is_the_hessian_where_the_model_is_linear_and_only_there() {
    for (problem, linear) in problems().into_iter().zip([true, false, true]) {
        let (local, v) = (full(&problem), random(anchor(&problem).len(), 5));
        let ggn = params(product(&local, ProductKind::GgnVectorProduct, &v));
        let hessian = params(product(&local, ProductKind::HessianVectorProduct, &v));
        let gap = plus(&ggn, -1.0, &hessian).iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        assert_eq!(gap < 1e-12, linear, "{problem:?}: {gap}");
    }
}

#[test]
fn hessian_of_the_loss_sums_to_zero_and_does_not_see_the_target() {
    let (z, v) = (random(4, 6), random(4, 7));
    let [a, b] = [0, 3].map(|class| super::super::loss::hessian_product(&z, &Target::Class(class), &v));
    assert_eq!(a, b);
    assert!(a.iter().sum::<f64>().abs() < 1e-15);
    let constant = super::super::loss::hessian_product(&z, &Target::Class(0), &[3.0; 4]);
    assert_near(&constant, &[0.0; 4], 1e-15);
}

/// The matrix of iteratively reweighted least squares, `mean over tokens of (diag p - p p^T) x (x x^T)` with a constant
/// input for the bias, in the order of the parameters.
fn reweighted(here: &Dense) -> Array2<f64> {
    let place = |class: usize, input: usize| if input < 4 { class * 4 + input } else { 12 + class };
    let mut matrix = Array2::zeros((15, 15));
    for (case, z) in here.cases.iter().zip(here.logits.outer_iter()) {
        let p = super::super::data::softmax(&z.to_vec());
        let x = [case.features.as_slice(), &[1.0]].concat();
        for (a, b, i, j) in (0..225).map(|n| (n / 75, n / 25 % 3, n / 5 % 5, n % 5)) {
            let weight = p[a] * (f64::from(u8::from(a == b)) - p[b]);
            matrix[[place(a, i), place(b, j)]] += weight * x[i] * x[j] / here.tokens() as f64;
        }
    }
    matrix
}

#[test]
fn newton_on_softmax_regression_is_reweighted_least_squares() {
    use super::super::{Array, ops};
    use gauntlet_plugin_abi::{DType, TensorOp};
    let problem = Problem::softmax_regression();
    let mut at = vec![0.0; 15];
    let mut norms = vec![];
    for _ in 0..9 {
        let here = Dense::new(&problem, at.clone(), &batch(&problem, 16), None, 0).unwrap();
        let g = params(evaluate(&here, &Evaluation::Gradient(Labels::Data), &[]));
        norms.push(dot(&g, &g).sqrt());
        let mut matrix = reweighted(&here);
        let local = Linearization::new(here, vec![0; at.len()], 1, problem.layers());
        let v = random(at.len(), 15);
        let product = params(product(&local, ProductKind::GgnVectorProduct, &v));
        assert_near(&product, &matrix.dot(&Array1::from(v)).to_vec(), 1e-13);
        // A common shift of all classes changes nothing: it is the null space.
        matrix.diag_mut().mapv_inplace(|x| x + 1e-9);
        let array = |shape: &[usize], values| Array::from_vec("", shape, values, DType::F64).unwrap();
        let (matrix, right) = (array(&[15, 15], flat(&matrix).to_vec()), array(&[15, 1], g));
        let l = ops::apply(TensorOp::CHOLESKY, &[&matrix], &[], &[]).unwrap().remove(0);
        let step = ops::apply(TensorOp::CHOLESKY_SOLVE, &[&right, &l], &[], &[]).unwrap().remove(0);
        at = plus(&at, -1.0, &step.to_vec());
    }
    assert!(norms[8] < 1e-12, "{norms:?}");
    assert!((3..9).all(|i| norms[i] < 1e-12 || norms[i] < 100.0 * norms[i - 1].powi(2)), "quadratic: {norms:?}");
}
