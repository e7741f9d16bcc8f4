//! Inverse roots of symmetric positive semi-definite matrices by their eigenvalues.

use crate::eigenbasis::eigh;
use gauntlet_plugin_api::ErrorCode;
use gauntlet_plugin_api::prelude::*;

/// The roots (max(A, 0) + eps I)^(-exponent) of a batch `[batch, n, n]`, and how many could not be computed: these are
/// what `previous` holds.
///
/// A decomposition that fails for the batch is tried for each matrix alone, and then in f64.
pub fn inverse_root(a: &Tensor, eps: f64, exponent: f64, previous: &Tensor) -> Result<(Tensor, u64)> {
    match of_batch(a, eps, exponent) {
        Err(error) if error.code == ErrorCode::NUMERICAL => {}
        result => return Ok((result?, 0)),
    }
    let batch = a.shape()?.first().copied().unwrap_or_default();
    let (mut roots, mut failures) = (vec![], 0);
    for at in 0..batch {
        match of_batch(&a.slice(0, at, at + 1)?, eps, exponent) {
            Ok(root) => roots.push(root),
            Err(error) if error.code == ErrorCode::NUMERICAL => {
                failures += 1;
                roots.push(previous.slice(0, at, at + 1)?);
            }
            Err(error) => return Err(error),
        }
    }
    let [first, others @ ..] = roots.as_slice() else { return Ok((previous.try_clone()?, failures)) };
    Ok((first.cat(&others.iter().collect::<Vec<_>>(), 0)?, failures))
}

fn of_batch(a: &Tensor, eps: f64, exponent: f64) -> Result<Tensor> {
    let [values, q] = eigh(a)?;
    let shape = q.shape()?;
    let powers = values.clamp_min(0.0)?.add_scalar(eps)?.powf(-exponent)?.reshape(&[shape[0], 1, shape[2]])?;
    let root = q.mul(&powers)?.matmul(&q.t()?)?;
    match root.all_finite()? {
        true => Ok(root),
        false => Err(Error::new(ErrorCode::NUMERICAL, "inverse_root", "the root is not finite")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::{numbers, on_tensor};

    const N: usize = 6;

    /// Q diag(lambda) Q^T with condition 1e8 and eigenvectors of a random matrix, so that no two of them commute.
    fn ill_conditioned(x: &Tensor, seed: u64) -> Result<Tensor> {
        let mut random = numbers(seed);
        let values: Vec<f64> = (0..N * N).map(|_| random()).collect();
        let [q, _] = x.with_values(&[N, N], &values)?.qr()?;
        let lambda: Vec<f64> = (0..N).map(|i| 10.0_f64.powf(-8.0 * i as f64 / (N - 1) as f64)).collect();
        q.mul(&x.with_values(&[1, N], &lambda)?)?.matmul(&q.t()?)
    }

    /// The root's power times the matrix is the identity: R^k A = I for exponent 1 / k. The error is that of the inverse,
    /// the condition times the precision.
    #[test]
    fn powers_of_roots_of_ill_conditioned_matrices_are_inverses() {
        for k in [1, 2, 4, 8] {
            let error = on_tensor(&[1], vec![0.0], move |x| {
                let a = ill_conditioned(x, 1)?.stack(&[&ill_conditioned(x, 2)?], 0)?;
                let (root, failures) = inverse_root(&a, 0.0, 1.0 / f64::from(k), &a)?;
                assert_eq!(failures, 0);
                let mut product = a.try_clone()?;
                for _ in 0..k {
                    product = root.matmul(&product)?;
                }
                product.sub(&x.eye(N)?)?.max_abs()
            });
            assert!(error.clone().unwrap() < 1e-7, "exponent 1/{k}: {error:?}");
        }
    }

    /// Two matrices that do not commute: L^(-1/4) G R^(-1/4) differs from the other order and from powers of the product.
    #[test]
    fn a_root_is_that_of_its_eigenvalues() {
        let (root, expected) = on_tensor(&[1, 2, 2], vec![41.0, 12.0, 12.0, 34.0], |a| {
            // Eigenvalues 25 and 50 with eigenvectors (0.6, -0.8) and (0.8, 0.6).
            let (root, _) = inverse_root(a, 0.0, 0.5, a)?;
            Ok((root.to_vec()?, [0.36 / 5.0 + 0.64 / 50f64.sqrt(), -0.48 / 5.0 + 0.48 / 50f64.sqrt()]))
        })
        .unwrap();
        assert!((root[0] - expected[0]).abs() < 1e-14 && (root[1] - expected[1]).abs() < 1e-14, "{root:?}");
    }

    #[test]
    fn negative_eigenvalues_count_as_zero_and_eps_bounds_the_root() {
        let root = on_tensor(&[1, 2, 2], vec![-1e-18, 0.0, 0.0, 1.0], |a| inverse_root(a, 1e-8, 0.25, a)?.0.to_vec());
        let root = root.unwrap();
        assert!((root[0] - 100.0).abs() < 1e-10 && (root[3] - 1.0).abs() < 1e-8, "{root:?}");
    }

    #[test]
    fn a_matrix_that_cannot_be_decomposed_keeps_its_previous_root() {
        let values = [[16.0, 0.0, 0.0, 1.0], [f64::INFINITY, 0.0, 0.0, 1.0]].concat();
        let (roots, failures) = on_tensor(&[2, 2, 2], values, |a| {
            let previous = a.with_values(&[2, 2, 2], &[7.0; 8])?;
            let (roots, failures) = inverse_root(a, 0.0, 0.25, &previous)?;
            Ok((roots.to_vec()?, failures))
        })
        .unwrap();
        assert_eq!(failures, 1);
        assert!((roots[0] - 0.5).abs() < 1e-14 && roots[4..] == [7.0; 4], "{roots:?}");
    }
}
