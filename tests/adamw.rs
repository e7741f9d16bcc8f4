//! `adam` through the real boundary, with recorded gradients in float64: against PyTorch, against golden values, and
//! against a plain implementation.

use crate::built::plugin;
use gauntlet::plugin::Plugin;
use gauntlet::plugin::replay::{Recording, Replay, relative_error};
use gauntlet_plugin_api::{ParamSpec, Role};
use serde_json::{Value, json};
use tch::Tensor;

/// `adam` on gradients that are recorded here.
struct Steps(Replay);

impl Steps {
    fn of_adam(
        config: &Value,
        specs: Vec<ParamSpec>,
        params: &[Vec<f64>],
        gradients: &[Vec<Vec<f64>>],
        schedule: fn(f64) -> f64,
    ) -> Self {
        let list = |values: &[Vec<f64>]| -> Vec<Tensor> {
            let shaped = specs.iter().zip(values).map(|(spec, values)| {
                let shape: Vec<i64> = spec.shape.iter().map(|size| *size as i64).collect();
                Tensor::from_slice(values).reshape(shape)
            });
            shaped.collect()
        };
        let (params, gradients) = (list(params), gradients.iter().map(|gradient| list(gradient)).collect());
        let plugin = Plugin::load(plugin("adam"), None).unwrap();
        Self(Replay::new(&plugin, config, Recording { specs, params, gradients }, schedule).unwrap())
    }

    /// One step, and the parameters after it.
    fn step(&mut self) -> Vec<Vec<f64>> {
        let params = self.0.step().unwrap();
        params.into_iter().map(|param| Vec::try_from(param.flatten(0, -1)).unwrap()).collect()
    }
}

/// The relative error of two lists of numbers.
fn error(found: &[f64], reference: &[f64]) -> f64 {
    assert_eq!(found.len(), reference.len());
    relative_error(&Tensor::from_slice(found), &Tensor::from_slice(reference))
}

/// Three steps of two numbers; the values were computed with `torch.optim.AdamW` in float64 at its defaults, with
/// lr = 0.1 and weight decay 0.01.
#[test]
fn golden_values() {
    let gradients = [[0.5, -1.0], [0.1, 2.0], [-0.3, 0.0]].map(|gradient| vec![gradient.to_vec()]);
    let golden = [[0.899000002, -1.898000001], [0.817796906383, -1.932712353471], [0.795907814855, -1.959079549646]];
    let specs = vec![ParamSpec::new("w", &[2], Role::Bias)];
    let config = json!({ "lr": 0.1, "weight_decay": 0.01 });
    let mut replay = Steps::of_adam(&config, specs, &[vec![1.0, -2.0]], &gradients, |_| 1.0);
    for (step, expected) in golden.iter().enumerate() {
        let found = replay.step();
        let close = found[0].iter().zip(expected).all(|(x, r)| (x - r).abs() < 1e-12);
        assert!(close, "step {}: {found:?}", step + 1);
    }
}

/// More than a thousand steps, so that bias corrections are used where they matter and where they do not, with a
/// schedule and a group without weight decay, against the formula written out number by number.
#[test]
fn a_long_run_agrees_with_the_formula_written_out() {
    const STEPS: usize = 1200;
    let (lr, [b1, b2], eps, decay) = (0.02, [0.85, 0.995], 1e-6, 0.3);
    let schedule = |x: f64| 1.0 / (1.0 + 0.01 * x);
    let specs = vec![
        ParamSpec::new("embed.weight", &[5, 3], Role::Embedding),
        ParamSpec::new("blocks.0.up.weight", &[4, 3, 2], Role::Hidden).in_layer(0),
        ParamSpec::new("norm.weight", &[7], Role::Norm),
    ];
    let sizes: Vec<usize> = specs.iter().map(ParamSpec::numel).collect();
    let mut random = numbers(9);
    let mut list = || -> Vec<Vec<f64>> { sizes.iter().map(|size| (0..*size).map(|_| random()).collect()).collect() };
    let mut w = list();
    let gradients: Vec<_> = (0..STEPS).map(|_| list()).collect();
    let config = json!({
        "lr": lr, "betas": [b1, b2], "eps": eps, "weight_decay": decay,
        "groups": [{ "roles": ["norm"], "set": { "weight_decay": 0.0, "lr": 0.05 } }],
    });
    let mut replay = Steps::of_adam(&config, specs, &w, &gradients, schedule);
    let zeros = || -> Vec<Vec<f64>> { sizes.iter().map(|size| vec![0.0; *size]).collect() };
    let (mut m, mut v) = (zeros(), zeros());
    for (step, gradient) in gradients.iter().enumerate() {
        let t = step as i32 + 1;
        for p in 0..w.len() {
            let (lr, decay) = if p == 2 { (0.05, 0.0) } else { (lr, decay) };
            let lr = lr * schedule(step as f64);
            for (i, g) in gradient[p].iter().enumerate() {
                m[p][i] = b1 * m[p][i] + (1.0 - b1) * g;
                v[p][i] = b2 * v[p][i] + (1.0 - b2) * g * g;
                let corrected = (m[p][i] / (1.0 - b1.powi(t)), v[p][i] / (1.0 - b2.powi(t)));
                w[p][i] = w[p][i] - lr * decay * w[p][i] - lr * corrected.0 / (corrected.1.sqrt() + eps);
            }
        }
        for (found, expected) in replay.step().iter().zip(&w) {
            let error = error(found, expected);
            assert!(error <= 1e-12, "step {t}: {error:e}");
        }
    }
}

/// Numbers in [-1, 1), the same everywhere (xorshift, Marsaglia 2003).
fn numbers(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }
}
