//! Adam where the bases are identities, one-sided matrices, bases that stay orthogonal.

use super::*;
use crate::probe::{numbers, on};

const RULE: Soap = Soap {
    lr: 0.02,
    betas: [0.9, 0.95],
    shampoo_beta: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    normalize_grads: false,
    correct_bias: true,
    refresh: true,
    t: 1,
};

const TWO_SIDED: Sides = Sides { max_precond_dim: 100, precondition_1d: false };

/// Twelve steps on one matrix, refreshed every other step. Gives the parameters, the largest deviation of a basis, and
/// the number of failures.
fn run(shape: [usize; 2], sides: Sides, gradients: fn(usize, usize) -> f64) -> (Vec<f64>, f64, u64) {
    let spec = ParamSpec::new("w", &shape, Role::Hidden);
    on(DType::F64, vec![(spec.clone(), vec![1.0; spec.numel()])], move |ctx| {
        let mut states = Rotated::all(ctx.params(), sides)?;
        let (mut deviation, mut failures) = (0.0_f64, 0);
        for step in 0..=12 {
            let mut g = ctx.params().zeros_like()?;
            let (_, tensor) = g.iter_mut().next().unwrap();
            let values: Vec<f64> = (0..spec.numel()).map(|at| gradients(step, at)).collect();
            *tensor = tensor.with_values(&spec.shape, &values)?;
            for state in &mut states {
                match step {
                    0 => state.begin(&g, RULE.shampoo_beta)?,
                    t => {
                        let rule = Soap { t: t as u64, refresh: t.is_multiple_of(2), ..RULE };
                        failures += rule.step(ctx.params_mut(), state, &g)?;
                    }
                }
                deviation = deviation.max(state.deviation()?);
            }
        }
        Ok((ctx.params().iter().next().unwrap().1.to_vec()?, deviation, failures))
    })
    .unwrap()
}

fn random(step: usize, at: usize) -> f64 {
    let mut random = numbers(1 + 100 * step as u64 + at as u64);
    (0..20).fold(0.0, |_, _| random())
}

/// Adam with SOAP's eps and decay, number by number.
fn adam(size: usize, gradients: fn(usize, usize) -> f64) -> Vec<f64> {
    let Soap { lr, betas: [b1, b2], eps, weight_decay, .. } = RULE;
    let one = |at| {
        let (mut w, mut m, mut v) = (1.0, 0.0, 0.0);
        for t in 1..=12 {
            let g = gradients(t, at);
            (m, v) = (b1 * m + (1.0 - b1) * g, b2 * v + (1.0 - b2) * g * g);
            w -= lr * (1.0 - b2.powi(t as i32)).sqrt() / (1.0 - b1.powi(t as i32)) * m / (v.sqrt() + eps);
            w *= 1.0 - lr * weight_decay;
        }
        w
    };
    (0..size).map(one).collect()
}

fn error(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(x, r)| (x - r).abs()).fold(0.0, f64::max)
}

#[test]
fn without_factors_it_is_adam() {
    let (found, _, _) = run([4, 3], Sides { max_precond_dim: 0, precondition_1d: false }, random);
    assert!(error(&found, &adam(12, random)) < 1e-13);
}

/// The eigenvectors of diagonal factors are the axes, in an order and with signs that must not matter.
#[test]
fn on_diagonal_gradients_it_is_adam() {
    let diagonal = |step: usize, at: usize| if at.is_multiple_of(5) { random(step, at) } else { 0.0 };
    let (found, deviation, failures) = run([4, 4], TWO_SIDED, diagonal);
    let expected = adam(16, diagonal);
    // An element that should be 0 is rounded to 1e-18, which eps makes 1e-10.
    assert!(error(&found, &expected) < 1e-9 && deviation < 1e-14 && failures == 0, "{found:?} {expected:?}");
}

#[test]
fn bases_stay_orthogonal_and_both_sides_matter() {
    let (square, deviation, failures) = run([5, 5], TWO_SIDED, random);
    assert!(deviation < 1e-13 && failures == 0, "{deviation:e}");
    assert!(error(&square, &adam(25, random)) > 1e-3);
    let (left, deviation, _) = run([3, 5], Sides { max_precond_dim: 4, precondition_1d: false }, random);
    assert!(deviation > 0.0 && deviation < 1e-13);
    assert!(error(&left, &run([3, 5], TWO_SIDED, random).0) > 1e-3);
}

/// Rotating the whole problem by an orthogonal matrix on the left rotates the run, if that side has a basis.
#[test]
fn a_one_sided_run_is_equivariant_on_its_own_side() {
    let rotated = |step: usize, at: usize| {
        let (row, column) = (at / 5, at % 5);
        let (a, b) = (random(step, column), random(step, 5 + column));
        if row == 0 { 0.6 * a - 0.8 * b } else { 0.8 * a + 0.6 * b }
    };
    let sides = Sides { max_precond_dim: 2, precondition_1d: false };
    let (plain, turned) = (run([2, 5], sides, random).0, run([2, 5], sides, rotated).0);
    // Both start from ones, which the rotation takes to (-0.2, 1.4), and the decay is linear.
    let keep = (1.0 - RULE.lr * RULE.weight_decay).powi(12);
    for column in 0..5 {
        let moved = |w: &[f64], row: usize| w[5 * row + column] - keep;
        let expected = 0.6 * moved(&plain, 0) - 0.8 * moved(&plain, 1);
        assert!((moved(&turned, 0) - expected).abs() < 1e-12, "{plain:?} {turned:?}");
    }
}

#[test]
fn zero_gradients_leave_finite_numbers() {
    let (zeros, deviation, failures) = run([3, 4], TWO_SIDED, |_, _| 0.0);
    let decayed = (1.0 - RULE.lr * RULE.weight_decay).powi(12);
    assert!(zeros.iter().all(|x| (x - decayed).abs() < 1e-14) && deviation < 1e-13 && failures == 0);
    let late = |step: usize, at: usize| if step < 6 { 0.0 } else { random(step, at) };
    assert!(run([3, 4], TWO_SIDED, late).0.iter().all(|x| x.is_finite()));
}

#[test]
fn sides_follow_their_limits() {
    let sides = |shape: &[usize], max_precond_dim, precondition_1d| {
        let params = vec![(ParamSpec::new("w", shape, Role::Hidden), vec![0.0; shape.iter().product()])];
        let sides = Sides { max_precond_dim, precondition_1d };
        on(DType::F64, params, move |ctx| Ok(sides.of(&MatrixBatch::all(ctx.params(), false)[0]))).unwrap()
    };
    assert_eq!(sides(&[4, 8], 8, false), [Some(4), Some(8)]);
    assert_eq!(sides(&[4, 8], 7, false), [Some(4), None]);
    assert_eq!(sides(&[4, 1], 8, false), [Some(4), None]);
    assert_eq!(sides(&[4], 8, false), [None, None]);
    assert_eq!(sides(&[4], 8, true), [Some(4), None]);
}
