//! Exponent, grafting, blocks, failures.

use super::*;
use crate::blocks::for_each;
use crate::probe::{numbers, on};

const RULE: Shampoo =
    Shampoo { betas: [0.9, 0.95], eps: 1e-9, exponent: 0.25, grafting_eps: 1e-8, refresh: true, t: 1 };

fn random(step: usize, at: usize) -> f64 {
    let mut random = numbers(1 + 100 * step as u64 + at as u64);
    (0..20).fold(0.0, |_, _| random())
}

/// The direction of every step on one matrix, and the number of roots that could not be computed.
fn run(
    dtype: DType,
    shape: [usize; 2],
    (max_precond_dim, grafting): (usize, Grafting),
    rules: Vec<Shampoo>,
    gradients: fn(usize, usize) -> f64,
) -> Result<(Vec<Vec<f64>>, u64)> {
    let spec = ParamSpec::new("w", &shape, Role::Hidden);
    on(dtype, vec![(spec.clone(), vec![0.0; spec.numel()])], move |ctx| {
        let mut states = Preconditioned::all(ctx.params(), max_precond_dim, grafting)?;
        let (mut directions, mut failures) = (vec![], 0);
        for (step, rule) in rules.iter().enumerate() {
            let mut g = ctx.params().zeros_like()?;
            let (_, tensor) = g.iter_mut().next().unwrap();
            let values: Vec<f64> = (0..spec.numel()).map(|at| gradients(step, at)).collect();
            *tensor = tensor.with_values(&spec.shape, &values)?;
            let mut blocks = vec![];
            for state in &mut states {
                let (parts, failed) = state.step(rule, &g)?;
                blocks.extend(parts);
                failures += failed;
            }
            for_each(ctx.params_mut(), blocks, |w, d| w.copy_(d).map(drop))?;
            directions.push(ctx.params().iter().next().unwrap().1.to_vec()?);
        }
        Ok((directions, failures))
    })
}

fn steps(count: u64) -> Vec<Shampoo> {
    (1..=count).map(|t| Shampoo { t, ..RULE }).collect()
}

fn norm(values: &[f64]) -> f64 {
    values.iter().map(|x| x * x).sum::<f64>().sqrt()
}

const PLAIN: (usize, Grafting) = (100, Grafting::None);

/// At step 1, M / (1 - b1) = G, and L / (1 - b2) = G G^T, R / (1 - b2) = G^T G: with G = U S V^T and a regular G the
/// direction is U S^(1 - 4 e) V^T, an orthogonal matrix for e = 1/4 and G itself for e = 0.
#[test]
fn the_exponent_shows_in_the_first_direction() {
    for exponent in [0.25, 0.125, 0.5] {
        let rule = Shampoo { exponent, eps: 0.0, ..RULE };
        let (directions, _) = run(DType::F64, [3, 3], PLAIN, vec![rule], random).unwrap();
        let expected = on(DType::F64, vec![(ParamSpec::new("w", &[3, 3], Role::Hidden), vec![0.0; 9])], move |ctx| {
            let like = ctx.params().iter().next().unwrap().1;
            let [u, s, vt] = like.with_values(&[3, 3], &(0..9).map(|at| random(0, at)).collect::<Vec<_>>())?.svd()?;
            u.mul(&s.powf(1.0 - 4.0 * exponent)?.reshape(&[1, 3])?)?.matmul(&vt)?.to_vec()
        })
        .unwrap();
        let error = directions[0].iter().zip(&expected).map(|(x, r)| (x - r).abs()).fold(0.0, f64::max);
        assert!(error < 1e-10, "exponent {exponent}: {error:e}");
    }
}

#[test]
fn a_grafted_direction_has_the_length_of_adams_and_the_direction_of_its_own() {
    let (own, _) = run(DType::F64, [4, 3], PLAIN, steps(5), random).unwrap();
    let (grafted, _) = run(DType::F64, [4, 3], (100, Grafting::Adam), steps(5), random).unwrap();
    let (mut m, mut v) = ([0.0; 12], [0.0; 12]);
    for (step, (own, grafted)) in own.iter().zip(&grafted).enumerate() {
        let t = step as i32 + 1;
        let adam: Vec<f64> = (0..12)
            .map(|at| {
                let g = random(step, at);
                (m[at], v[at]) = (0.9 * m[at] + 0.1 * g, 0.95 * v[at] + 0.05 * g * g);
                m[at] / (1.0 - 0.9_f64.powi(t)) / ((v[at] / (1.0 - 0.95_f64.powi(t))).sqrt() + 1e-8)
            })
            .collect();
        assert!((norm(grafted) / norm(&adam) - 1.0).abs() < 1e-12, "step {t}");
        let cosine = own.iter().zip(grafted).map(|(a, b)| a * b).sum::<f64>() / norm(own) / norm(grafted);
        assert!((cosine - 1.0).abs() < 1e-12, "step {t}");
    }
}

/// A matrix in blocks of at most 2 is as many matrices of their own.
#[test]
fn blocks_are_preconditioned_apart() {
    let (whole, _) = run(DType::F64, [4, 3], (2, Grafting::Adam), steps(3), random).unwrap();
    let corner = |step, at: usize| random(step, 3 * (at / 2) + at % 2);
    let (corner, _) = run(DType::F64, [2, 2], (2, Grafting::Adam), steps(3), corner).unwrap();
    let edge = |step, at: usize| random(step, 3 * (at + 2) + 2);
    let (edge, _) = run(DType::F64, [2, 1], (2, Grafting::Adam), steps(3), edge).unwrap();
    for ((whole, corner), edge) in whole.iter().zip(&corner).zip(&edge) {
        for (at, x) in [0, 1, 3, 4].into_iter().zip(corner).chain([8, 11].into_iter().zip(edge)) {
            assert!((whole[at] - x).abs() < 1e-12, "{whole:?} {corner:?} {edge:?}");
        }
    }
}

#[test]
fn roots_stay_between_refreshes() {
    let often = run(DType::F64, [3, 3], PLAIN, steps(3), random).unwrap().0;
    let rules = steps(3).into_iter().map(|rule| Shampoo { refresh: rule.t == 1, ..rule }).collect();
    let once = run(DType::F64, [3, 3], PLAIN, rules, random).unwrap().0;
    assert!(often[0] == once[0] && often[1] != once[1]);
}

#[test]
fn zero_gradients_give_zero_directions() {
    for grafting in [Grafting::None, Grafting::Adam] {
        let (directions, failures) = run(DType::F64, [3, 2], (100, grafting), steps(3), |_, _| 0.0).unwrap();
        assert!(directions.iter().flatten().all(|x| *x == 0.0) && failures == 0);
    }
}

/// In f32 the square of 1e30 is infinite: the roots stay as they were, and the fourth failure in a row is an error.
#[test]
fn a_factor_that_overflows_keeps_its_roots_until_it_fails_too_often() {
    let huge = |step, at| if step > 0 { 1e30 } else { random(step, at) };
    let of = |count| run(DType::F32, [2, 2], PLAIN, steps(count), huge);
    let (directions, failures) = of(4).unwrap();
    assert_eq!(failures, 6);
    assert!(directions.iter().flatten().all(|x| x.is_finite()), "{directions:?}");
    let error = of(5).unwrap_err();
    assert_eq!(error.code, ErrorCode::NUMERICAL);
    assert_eq!(error.message, "4 refreshes in a row had an eigendecomposition that failed");
}
