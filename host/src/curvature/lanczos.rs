//! The spectrum of a symmetric matrix that is known by its products: Lanczos for the ends, Hutchinson for the trace.

use gauntlet_plugin_abi::{RandomKey, RandomKind};
use gauntlet_plugin_api::random::{fill, purpose_number};
use tch::{Kind, Tensor};

/// An eigenvalue with the norm of its residual `|A x - value x|`, which bounds its distance to a true one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Eigenvalue {
    /// The Ritz value.
    pub value: f64,
    /// Norm of its residual.
    pub residual: f64,
}

/// A mean of independent estimates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error; NaN for a single estimate.
    pub standard_error: f64,
}

/// Ritz values of at most `iterations` Lanczos steps, from the largest magnitude down, at most `count`.
///
/// `product` is the matrix times a flat vector of `size` f64 numbers; the starting vector is `project` of a normal one,
/// where `project` is a projection that commutes with the matrix. Every new vector is made orthogonal to all earlier
/// ones twice (Parlett, The Symmetric Eigenvalue Problem, section 13).
pub fn largest(
    product: &mut dyn FnMut(&Tensor) -> Tensor,
    project: &dyn Fn(&Tensor) -> Tensor,
    size: usize,
    (count, iterations): (usize, usize),
    seed: u64,
) -> Vec<Eigenvalue> {
    let start = project(&random(RandomKind::NORMAL, "spectrum.lanczos", size, (seed, 0)));
    let norm = start.norm().double_value(&[]);
    if norm == 0.0 {
        return vec![];
    }
    let (mut basis, mut diagonal, mut beside) = (vec![start / norm], vec![], vec![]);
    for step in 0..iterations {
        let mut next = product(&basis[step]);
        diagonal.push(dot(&next, &basis[step]));
        for _ in 0..2 {
            for earlier in &basis {
                let along = dot(&next, earlier);
                next -= earlier * along;
            }
        }
        let rest = next.norm().double_value(&[]);
        beside.push(rest);
        let scale = diagonal.iter().chain(&beside).fold(0.0_f64, |a, b| a.max(b.abs()));
        if rest <= scale * 1e-12 {
            break;
        }
        basis.push(next / rest);
    }
    ritz(&diagonal, &beside, count)
}

/// The trace: the mean of `z^T A z` over probes z of -1 and 1 (Hutchinson 1990).
pub fn trace(
    product: &mut dyn FnMut(&Tensor) -> Tensor,
    project: &dyn Fn(&Tensor) -> Tensor,
    size: usize,
    probes: usize,
    seed: u64,
) -> Estimate {
    let mut estimate = |probe: usize| {
        let z = project(&random(RandomKind::RADEMACHER, "spectrum.trace", size, (seed, probe as u64)));
        dot(&product(&z), &z)
    };
    let values: Vec<f64> = (0..probes).map(&mut estimate).collect();
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
    Estimate { mean, standard_error: (variance / count).sqrt() }
}

/// Eigenvalues of the tridiagonal matrix; a residual is the last entry of the eigenvector times what follows it.
fn ritz(diagonal: &[f64], beside: &[f64], count: usize) -> Vec<Eigenvalue> {
    let size = diagonal.len();
    let inner = &beside[..size.saturating_sub(1)];
    let matrix = Tensor::from_slice(diagonal).diag(0);
    let matrix = match inner {
        [] => matrix,
        inner => {
            let inner = Tensor::from_slice(inner);
            matrix + inner.diag(1) + inner.diag(-1)
        }
    };
    let (values, vectors) = matrix.linalg_eigh("L");
    let last = beside.last().copied().unwrap_or(0.0);
    let eigenvalue = |i: usize| Eigenvalue {
        value: values.double_value(&[i as i64]),
        residual: (last * vectors.double_value(&[size as i64 - 1, i as i64])).abs(),
    };
    let mut all: Vec<Eigenvalue> = (0..size).map(eigenvalue).collect();
    all.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()));
    all.truncate(count);
    all
}

fn random(kind: RandomKind, purpose: &str, size: usize, (seed, draw): (u64, u64)) -> Tensor {
    let key = RandomKey { seed, purpose: purpose_number(purpose), step: 0, draw };
    Tensor::from_slice(&fill(kind, &key, size).expect("a known kind"))
}

fn dot(a: &Tensor, b: &Tensor) -> f64 {
    a.dot(b).to_kind(Kind::Double).double_value(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A symmetric matrix with eigenvalues -3, 0.01, ..., 5.
    fn matrix() -> (Tensor, Vec<f64>) {
        let values = vec![5.0, -3.0, 2.0, 1.0, 0.5, 0.01, 0.0, 0.0];
        let size = values.len();
        let random = random(RandomKind::NORMAL, "test", size * size, (1, 0)).view([size as i64, size as i64]);
        let (q, _) = Tensor::linalg_qr(&random, "reduced");
        (q.mm(&Tensor::from_slice(&values).diag(0)).mm(&q.tr()), values)
    }

    #[test]
    fn the_largest_eigenvalues_are_found_with_their_residuals() {
        let (matrix, values) = matrix();
        let mut product = |v: &Tensor| matrix.mv(v);
        let found = largest(&mut product, &Tensor::shallow_clone, 8, (3, 8), 7);
        assert_eq!(found.len(), 3);
        for (found, expected) in found.iter().zip(&values) {
            assert!((found.value - expected).abs() < 1e-10 && found.residual < 1e-6, "{found:?} {expected}");
        }
        let early = largest(&mut product, &Tensor::shallow_clone, 8, (1, 3), 7)[0];
        let distance = values.iter().map(|value| (value - early.value).abs()).fold(f64::INFINITY, f64::min);
        assert!(distance <= early.residual + 1e-12, "{early:?} is {distance} away");
    }

    #[test]
    fn the_trace_lies_within_its_errors() {
        let (matrix, values) = matrix();
        let found = trace(&mut |v| matrix.mv(v), &Tensor::shallow_clone, 8, 4000, 3);
        let expected: f64 = values.iter().sum();
        assert!((found.mean - expected).abs() < 4.0 * found.standard_error, "{found:?} {expected}");
        assert!(found.standard_error < 0.2);
    }
}
