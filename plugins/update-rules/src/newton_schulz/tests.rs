//! Scalar maps, shapes, convergence, precision.

use super::*;
use crate::probe::{numbers, on, on_tensor};

/// A `rows` by `cols` matrix with these numbers on its diagonal.
fn diagonal(rows: usize, cols: usize, numbers: &[f64]) -> Vec<f64> {
    let mut values = vec![0.0; rows * cols];
    numbers.iter().enumerate().for_each(|(i, number)| values[i * cols + i] = *number);
    values
}

/// p_5(...p_1(x)); the expected values were computed in float64 with the formulas written out.
#[test]
fn five_iterations_map_singular_values_as_the_polynomials_do() {
    const X: [f64; 5] = [1e-3, 0.01, 0.1, 0.5, 1.0];
    let golden = [
        (Coefficients::Jordan, [0.470544, 0.698917, 0.712120, 0.765439, 0.696436]),
        (Coefficients::PolarExpress, [0.846177, 1.066000, 0.874932, 0.934331, 1.028751]),
        (Coefficients::Dion, [0.474982, 1.018025, 1.019050, 0.985869, 0.978346]),
    ];
    for (coefficients, expected) in golden {
        for [rows, cols] in [[5, 5], [5, 7], [7, 5], [5, 9], [9, 5]] {
            let rule = NewtonSchulz { coefficients, steps: 5, eps: 1e-7 };
            let map = move |x: &Tensor| rule.iterate(x.try_clone()?)?.to_vec();
            let found = on_tensor(&[1, rows, cols], diagonal(rows, cols, &X), map).unwrap();
            for (i, expected) in expected.into_iter().enumerate() {
                let found = found[i * cols + i];
                assert!((found - expected).abs() < 5e-7, "{coefficients:?} {rows} x {cols}: {found} {expected}");
            }
        }
    }
}

/// X <- a X + (b A + c A A) X, number by number.
fn written_out(rule: &NewtonSchulz, rows: usize, cols: usize, u: &[f64]) -> Vec<f64> {
    let product = |a: &dyn Fn(usize, usize) -> f64, b: &dyn Fn(usize, usize) -> f64, [m, k, n]: [usize; 3]| {
        let entry = |i, j| (0..k).map(|l| a(i, l) * b(l, j)).sum::<f64>();
        (0..m * n).map(|at| entry(at / n, at % n)).collect::<Vec<f64>>()
    };
    let norm = u.iter().map(|x| x * x).sum::<f64>().sqrt();
    let mut x: Vec<f64> = u.iter().map(|x| x / (rule.coefficients.margin() * norm + rule.eps)).collect();
    for index in 0..rule.steps {
        let [a, b, c] = rule.coefficients.triple(index);
        let gram = product(&|i, l| x[i * cols + l], &|l, j| x[j * cols + l], [rows, cols, rows]);
        let square = product(&|i, l| gram[i * rows + l], &|l, j| gram[l * rows + j], [rows, rows, rows]);
        let p: Vec<f64> = gram.iter().zip(&square).map(|(gram, square)| b * gram + c * square).collect();
        let px = product(&|i, l| p[i * rows + l], &|l, j| x[l * cols + j], [rows, rows, cols]);
        x = x.iter().zip(px).map(|(x, px)| a * x + px).collect();
    }
    x
}

#[test]
fn wide_tall_and_square_batches_agree_with_the_formula_written_out() {
    for coefficients in [Coefficients::Jordan, Coefficients::PolarExpress, Coefficients::Dion] {
        for ([rows, cols], steps) in [([4, 4], 5), ([4, 5], 5), ([6, 4], 6), ([3, 8], 7), ([8, 3], 5), ([1, 5], 1)] {
            let rule = NewtonSchulz { coefficients, steps, eps: 1e-7 };
            let mut random = numbers(7);
            let values: Vec<f64> = (0..2 * rows * cols).map(|_| random()).collect();
            let expected: Vec<f64> =
                values.chunks(rows * cols).flat_map(|u| written_out(&rule, rows, cols, u)).collect();
            let found = on_tensor(&[2, rows, cols], values, move |u| rule.orthogonalize(u)?.to_vec()).unwrap();
            let error = found.iter().zip(&expected).map(|(x, r)| (x - r).abs()).fold(0.0, f64::max);
            assert!(error < 1e-12, "{coefficients:?} {rows} x {cols}: {error:e}");
        }
    }
}

#[test]
fn more_iterations_of_polar_express_give_an_orthogonal_matrix() {
    let rule = NewtonSchulz { coefficients: Coefficients::PolarExpress, steps: 14, eps: 1e-7 };
    for [rows, cols] in [[4, 4], [3, 7], [7, 3]] {
        let mut random = numbers(5);
        let values = (0..rows * cols).map(|_| random()).collect();
        let error = on_tensor(&[1, rows, cols], values, move |u| {
            let o = rule.orthogonalize(u)?;
            let gram = if rows > cols { o.t()?.matmul(&o)? } else { o.matmul(&o.t()?)? };
            gram.sub(&gram.eye(rows.min(cols))?)?.max_abs()
        });
        assert!(error.clone().unwrap() < 1e-12, "{rows} x {cols}: {error:?}");
    }
}

#[test]
fn zeros_stay_zeros_and_a_matrix_of_rank_one_stays_finite() {
    let rule = NewtonSchulz { coefficients: Coefficients::Jordan, steps: 5, eps: 1e-7 };
    for [rows, cols] in [[3, 3], [2, 5], [5, 2]] {
        let zeros = on_tensor(&[1, rows, cols], vec![0.0; rows * cols], move |u| rule.orthogonalize(u)?.max_abs());
        assert_eq!(zeros, Ok(0.0));
        let ones = on_tensor(&[1, rows, cols], vec![1.0; rows * cols], move |u| rule.orthogonalize(u)?.to_vec());
        // One singular value: p_5(...p_1(1)) = 0.696436, spread over all entries.
        let expected = 0.696_436 / ((rows * cols) as f64).sqrt();
        assert!(ones.unwrap().iter().all(|x| (x - expected).abs() < 1e-6), "{rows} x {cols}");
    }
    let empty = on_tensor(&[2, 0, 3], vec![], move |u| rule.orthogonalize(u)?.shape());
    assert_eq!(empty.unwrap(), [2, 0, 3]);
}

#[test]
fn single_precision_keeps_three_digits_of_an_ill_conditioned_matrix() {
    let mut random = numbers(3);
    let scaled = |index: usize, x: f64| x * 10.0_f64.powi(-((index / 24) as i32));
    let values: Vec<f64> = (0..6 * 24).map(|index| scaled(index, random())).collect();
    let rule = NewtonSchulz { coefficients: Coefficients::Jordan, steps: 5, eps: 1e-7 };
    let of = |dtype| {
        let params = vec![(ParamSpec::new("x", &[1, 6, 24], Role::Hidden), values.clone())];
        on(dtype, params, move |ctx| rule.orthogonalize(ctx.params().iter().next().unwrap().1)?.to_vec()).unwrap()
    };
    let (single, double) = (of(DType::F32), of(DType::F64));
    let error = single.iter().zip(&double).map(|(x, r)| (x - r).abs()).fold(0.0, f64::max);
    assert!(error < 1e-3, "{error:e}");
}

/// Eigenvalues of A that rounding makes negative would explode after some more iterations than the usual five.
#[test]
fn many_iterations_on_a_long_matrix_of_low_rank_stay_finite_in_single_precision() {
    for coefficients in [Coefficients::Jordan, Coefficients::PolarExpress, Coefficients::Dion] {
        for steps in [5, 8, 20] {
            let rule = NewtonSchulz { coefficients, steps, eps: 1e-7 };
            let mut random = numbers(9);
            let [left, right] = [8, 40].map(|n| (0..2 * n).map(|_| random()).collect::<Vec<f64>>());
            let entry = |i: usize, j: usize| left[2 * i] * right[2 * j] + 0.1 * left[2 * i + 1] * right[2 * j + 1];
            let values: Vec<f64> = (0..320).map(|at| entry(at / 40, at % 40)).collect();
            let of = |dtype| {
                let params = vec![(ParamSpec::new("x", &[1, 8, 40], Role::Hidden), values.clone())];
                let body = move |ctx: &mut StepContext| {
                    let (_, x) = ctx.params().iter().next().ok_or_else(|| Error::plugin("none"))?;
                    let o = rule.orthogonalize(x)?;
                    let [_, s, _] = o.svd()?;
                    s.to_vec()
                };
                on(dtype, params, body).unwrap()
            };
            // Two singular values are near 1, the others near 0, of which rounding makes anything up to 1.
            let (single, double) = (of(DType::F32), of(DType::F64));
            assert!(single.iter().all(|s| *s < 1.3), "{coefficients:?} {steps}: {single:?}");
            let close = double[..2].iter().all(|r| single.iter().any(|x| (x - r).abs() < 2e-3));
            assert!(close, "{coefficients:?} {steps}: {single:?} {double:?}");
        }
    }
}

#[test]
fn iterations_in_a_row_on_the_gram_matrix_are_few_enough() {
    let count = |coefficients: Coefficients, steps| {
        let triples: Vec<[f64; 3]> = (0..steps).map(|index| coefficients.triple(index)).collect();
        safe_count(&triples)
    };
    assert_eq!([1, 5, 12].map(|steps| count(Coefficients::Jordan, steps)), [1, 5, 5]);
    assert_eq!([count(Coefficients::PolarExpress, 5), count(Coefficients::Dion, 9)], [4, 5]);
}
