//! The optax variant number by number; clipping.

use super::*;
use crate::probe::{numbers, on};

const STEPS: usize = 6;

/// Parameters of every kind: a hidden matrix of one column, whose orthogonalisation is its direction times a number.
fn params() -> Vec<(ParamSpec, Vec<f64>)> {
    let mut random = numbers(11);
    let mut param = |name: &str, shape: &[usize], role| {
        let spec = ParamSpec::new(name, shape, role);
        let values = (0..spec.numel()).map(|_| random()).collect();
        (spec, values)
    };
    vec![
        param("embed", &[3, 2], Role::Embedding),
        param("w", &[2, 1], Role::Hidden),
        param("norm", &[2], Role::Norm),
        param("head", &[3, 2], Role::Head),
    ]
}

fn gradient(t: usize) -> Vec<Vec<f64>> {
    let mut random = numbers(100 + t as u64);
    params().iter().map(|(spec, _)| (0..spec.numel()).map(|_| random()).collect()).collect()
}

/// The parameters after all steps, flat.
fn run(config: Config) -> Vec<f64> {
    on(DType::F64, params(), move |ctx| {
        let mut optimizer = MuonByRole::new(config, ctx.params())?;
        for t in 1..=STEPS {
            let mut g = ctx.params().zeros_like()?;
            for ((spec, g), values) in g.iter_mut().zip(gradient(t)) {
                let from = g.with_values(&spec.shape, &values)?;
                g.copy_(&from)?;
            }
            optimizer.step(ctx.params_mut(), &mut g, 0.5)?;
        }
        Ok(ctx.params().iter().map(|(_, x)| x.to_vec()).collect::<Result<Vec<_>>>()?.concat())
    })
    .unwrap()
}

/// Newton-Schulz of a number in [0, 1] with Jordan's polynomials.
fn scalar(mut x: f64) -> f64 {
    let [a, b, c] = Coefficients::Jordan.triple(0);
    (0..5).for_each(|_| x = a * x + b * x.powi(3) + c * x.powi(5));
    x
}

/// `optax.contrib.muon` with AdamW for embedding and head, written out (gradient clipping by group before it).
fn optax_written_out(lr: f64, decay: f64, clip: f64) -> Vec<f64> {
    let mut w: Vec<Vec<f64>> = params().into_iter().map(|(_, values)| values).collect();
    let (mut m, mut v) = (w.clone(), w.clone());
    m.iter_mut().chain(&mut v).flatten().for_each(|x| *x = 0.0);
    let (mu, [b1, b2]) = (0.95_f64, [0.9_f64, 0.999_f64]);
    for t in 1..=STEPS {
        let mut g = gradient(t);
        for group in [[0, 3], [1, 2]] {
            let norm = group.iter().flat_map(|i| &g[*i]).map(|x| x * x).sum::<f64>().sqrt();
            let factor = if norm > clip { clip / norm } else { 1.0 };
            group.iter().for_each(|i| g[*i].iter_mut().for_each(|x| *x *= factor));
        }
        let t = t as i32;
        let mut u = vec![];
        for (j, g) in g[1].iter().enumerate() {
            m[1][j] = mu * m[1][j] + (1.0 - mu) * g;
            u.push(mu * m[1][j] / (1.0 - mu.powi(t + 1)) + (1.0 - mu) * g / (1.0 - mu.powi(t)));
        }
        let norm = (u[0] * u[0] + u[1] * u[1]).sqrt();
        for (j, u) in u.iter().enumerate() {
            w[1][j] -= lr * 2.0_f64.sqrt() * scalar(norm / (norm + 1e-8)) * u / norm;
        }
        for i in [0, 2, 3] {
            for (j, g) in g[i].iter().enumerate() {
                m[i][j] = b1 * m[i][j] + (1.0 - b1) * g;
                v[i][j] = b2 * v[i][j] + (1.0 - b2) * g * g;
                let ahead = b1 * m[i][j] / (1.0 - b1.powi(t + 1)) + (1.0 - b1) * g / (1.0 - b1.powi(t));
                let m = if i == 2 { ahead } else { m[i][j] / (1.0 - b1.powi(t)) };
                w[i][j] -= lr * (m / ((v[i][j] / (1.0 - b2.powi(t))).sqrt() + 1e-8) + decay * w[i][j]);
            }
        }
    }
    w.concat()
}

#[test]
fn the_optax_variant_follows_its_formulas() {
    for clip in [0.7, 1e9] {
        let adam = AdamConfig { weight_decay: Some(0.3), ..AdamConfig::default() };
        let config = Config { variant: Variant::Optax, lr: 0.1, clip_norm: Some(clip), adam, ..Config::default() };
        let (found, expected) = (run(config), optax_written_out(0.05, 0.3, clip));
        let error = found.iter().zip(&expected).map(|(x, r)| (x - r).abs()).fold(0.0, f64::max);
        assert!(error < 1e-12, "{error:e}");
    }
}

#[test]
fn absent_settings_of_adam_depend_on_the_variant() {
    let jordan = Config { weight_decay: 0.2, ..Config::default() };
    let optax = Config { variant: Variant::Optax, ..jordan.clone() };
    let AdamW { lr, betas, eps, weight_decay, .. } = jordan.adam_rule(1, 0.5);
    assert_eq!((lr, betas, eps, weight_decay), (1.5e-4, [0.9, 0.95], 1e-10, 0.2));
    let AdamW { lr, betas, eps, weight_decay, .. } = optax.adam_rule(1, 0.5);
    assert_eq!((lr, betas, eps, weight_decay), (0.01, [0.9, 0.999], 1e-8, 0.2));
}
