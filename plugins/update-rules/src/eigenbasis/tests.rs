//! Eigenvectors, their refresh, and what happens where a decomposition fails.

use super::*;
use crate::probe::{numbers, on, on_tensor};

/// A symmetric positive definite matrix: a random one times its transpose.
fn spd(n: usize, seed: u64) -> Vec<f64> {
    let mut random = numbers(seed);
    let a: Vec<f64> = (0..n * n).map(|_| random()).collect();
    let entry = |i: usize, j: usize| (0..n).map(|k| a[i * n + k] * a[j * n + k]).sum();
    (0..n * n).map(|at| entry(at / n, at % n)).collect()
}

/// Largest element of Q^T A Q off its diagonal, and whether the diagonal descends.
fn off_diagonal(basis: &Eigenbasis) -> Result<(f64, bool)> {
    let rotated = basis.basis.t()?.matmul(&basis.factor)?.matmul(&basis.basis)?;
    let [_, n, _] = shape(&rotated)?;
    let values = rotated.to_vec()?;
    let (mut most, mut descends) = (0.0_f64, true);
    for (at, value) in values.iter().enumerate() {
        let (row, column) = (at / n % n, at % n);
        match row == column {
            true => descends &= row == 0 || values[at - n - 1] >= *value,
            false => most = most.max(value.abs()),
        }
    }
    Ok((most, descends))
}

#[test]
fn eigenvectors_are_orthogonal_and_descend_and_refreshes_keep_and_follow_them() {
    let factors = [spd(6, 1), spd(6, 2)].concat();
    let (most, descends, deviation, later) = on_tensor(&[2, 6, 6], factors, |factor| {
        let mut basis = Eigenbasis::new(factor, 2, 6)?;
        basis.update(factor, 0.0)?;
        basis.decompose()?;
        let (most, descends) = off_diagonal(&basis)?;
        // The factors move a little; power iteration follows.
        let moved = factor.matmul(&factor.matmul(factor)?)?;
        basis.update(&moved, 0.9)?;
        for _ in 0..200 {
            basis.refresh()?.ok_or_else(|| Error::plugin("failed"))?;
        }
        let order = basis.refresh()?.ok_or_else(|| Error::plugin("failed"))?.to_vec()?;
        assert_eq!(order, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0].repeat(2));
        Ok((most, descends, basis.deviation()?, off_diagonal(&basis)?))
    })
    .unwrap();
    assert!(most < 1e-12 && descends && deviation < 1e-13, "{most:e} {deviation:e}");
    assert!(later.0 < 1e-6 && later.1, "{later:?}");
}

#[test]
fn a_refresh_puts_columns_in_order_and_says_how() {
    let (order, basis) = on_tensor(&[1, 3, 3], vec![1., 0., 0., 0., 3., 0., 0., 0., 2.], |factor| {
        let mut basis = Eigenbasis::new(factor, 1, 3)?;
        basis.update(factor, 0.0)?;
        let order = basis.refresh()?.ok_or_else(|| Error::plugin("failed"))?.to_vec()?;
        Ok((order, basis.basis.abs()?.to_vec()?))
    })
    .unwrap();
    assert_eq!(order, [1.0, 2.0, 0.0]);
    assert_eq!(basis, [0., 0., 1., 1., 0., 0., 0., 1., 0.]);
}

#[test]
fn factors_of_zero_and_infinite_ones_leave_a_finite_orthogonal_basis() {
    let deviations = on_tensor(&[1, 3, 3], vec![0.0; 9], |factor| {
        let mut basis = Eigenbasis::new(factor, 1, 3)?;
        basis.decompose()?;
        let first = basis.deviation()?;
        let refreshed = basis.refresh()?.is_some();
        let second = basis.deviation()?;
        basis.factor.fill_(f64::INFINITY)?;
        let failed = basis.refresh()?.is_none();
        Ok((first, refreshed, second, failed, basis.deviation()?))
    });
    assert_eq!(deviations, Ok((0.0, true, 0.0, true, 0.0)));
}

#[test]
fn an_eigendecomposition_that_fails_twice_is_an_error() {
    let params = vec![(ParamSpec::new("x", &[1, 1, 1], Role::Hidden), vec![f64::INFINITY])];
    let error = on(DType::F32, params, |ctx| eigh(ctx.params().iter().next().unwrap().1).map(drop)).unwrap_err();
    assert_eq!(error.code, ErrorCode::NUMERICAL);
}
