//! The conformance suite, recorded traces, roles, metrics, ranges.

use super::Muon;
use gauntlet_plugin_api::testing::{Harness, Problem, StepResult, Trace, conformance, json};
use gauntlet_plugin_api::{ParamSpec, Role};

#[test]
fn conforms() {
    conformance::<Muon>(json!({}));
    conformance::<Muon>(json!({ "scale": "match_rms_adamw", "coefficients": "dion", "weight_decay": 0.1 }));
    conformance::<Muon>(json!({ "variant": "optax", "coefficients": "polar_express", "clip_norm": 1.0 }));
}

/// Keller Jordan's formula and optax, both in float64; see `tests/data/traces/README.md`.
#[test]
fn traces_are_followed() {
    for name in ["muon-original", "muon-match_rms_adamw", "muon-optax"] {
        let path = format!("{}/../../tests/data/traces/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let worst = Trace::read(path).unwrap().replay::<Muon>().unwrap();
        assert!(worst.error <= 1e-10, "{name}: {worst}");
    }
}

#[test]
fn a_trace_of_other_settings_is_not_followed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/traces/muon-optax.safetensors");
    let trace = Trace::read(path).unwrap();
    for (key, value) in [("variant", json!("jordan")), ("clip_norm", json!(1e9)), ("weight_decay", json!(0.0))] {
        let mut config = trace.config.clone();
        config[key] = value;
        let worst = trace.clone().with_config(config).replay::<Muon>().unwrap();
        assert!(worst.error > 1e-3, "{key}: {worst}");
    }
}

/// One step from zero along gradients of a power of two. AdamW moves every number by its step size, Muon a matrix by the
/// scalar map of its singular value.
#[test]
fn hidden_matrices_take_muon_and_everything_else_adamw() {
    let roles = [Role::Embedding, Role::Hidden, Role::Hidden, Role::Head, Role::Norm, Role::Bias];
    let shapes: [&[usize]; 6] = [&[1, 1], &[1, 1], &[2], &[1, 1], &[2], &[2]];
    let names = ["embed", "matrix", "vector", "head", "norm", "bias"];
    let specs = (0..6).map(|i| ParamSpec::new(names[i], shapes[i], roles[i])).collect::<Vec<_>>();
    let list = |x: f64| specs.iter().map(|spec| vec![x; spec.numel()]).collect::<Vec<_>>();
    let config = json!({ "lr": 0.1, "adam": { "lr": 0.01, "eps": 0.0 } });
    let mut run = Harness::<Muon>::with_gradients(config, specs.clone(), list(0.0), vec![list(-4.0)]).unwrap();
    run.step().unwrap();
    let moved = run.params();
    let expected = [0.01, 0.069_643_6, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.01];
    assert!(moved.iter().zip(expected).all(|(x, r)| (x - r).abs() < 1e-7), "{moved:?}");
}

#[test]
fn update_norms_by_role_are_reported_every_tenth_step() {
    let specs = vec![ParamSpec::new("w", &[1, 1], Role::Hidden), ParamSpec::new("n", &[4], Role::Norm)];
    let gradients = vec![vec![vec![1.0], vec![1.0; 4]]; 11];
    let config = json!({ "lr": 0.1, "adam": { "lr": 0.01 } });
    let mut run = Harness::<Muon>::with_gradients(config, specs, vec![vec![0.0], vec![0.0; 4]], gradients).unwrap();
    let norms = |result: StepResult| result.metrics.into_iter().skip(1).collect::<Vec<_>>();
    let first = norms(run.step().unwrap());
    let (o, adam) = (0.1 * 0.696_436_f64, 0.02); // adam: four numbers of 0.01
    let whole = (o * o + adam * adam).sqrt();
    let names = ["param_norm", "update_norm", "update_norm_hidden", "update_norm_norm"];
    assert!(first.iter().map(|(name, _)| name.as_str()).eq(names), "{first:?}");
    let found = first.iter().map(|(_, value)| value);
    assert!(found.zip([0.0, whole, o, adam]).all(|(x, r)| (x - r).abs() < 1e-6), "{first:?}");
    for _ in 1..10 {
        assert_eq!(norms(run.step().unwrap()), []);
    }
    assert_eq!(norms(run.step().unwrap()).len(), 4);
}

#[test]
fn it_descends() {
    for config in [json!({ "adam": { "lr": 0.02 } }), json!({ "variant": "optax", "clip_norm": 1.0 })] {
        let mut run = Harness::<Muon>::new(config.clone(), Problem::two_layer()).unwrap();
        let before = run.loss().unwrap();
        (0..50).for_each(|_| drop(run.step().unwrap()));
        let after = run.loss().unwrap();
        assert!(after < before - 0.2, "{config}: {before} {after}");
    }
}

#[test]
fn values_out_of_range_are_refused() {
    let refused = |config| Harness::<Muon>::new(config, Problem::squared()).unwrap_err().to_string();
    assert_eq!(refused(json!({ "lr": 0.0 })), "lr: must be > 0, got 0");
    assert_eq!(refused(json!({ "momentum": 1.0 })), "momentum: must be in [0, 1), got 1");
    assert_eq!(refused(json!({ "ns_steps": 0 })), "ns_steps: must be from 1 to 99, got 0");
    assert_eq!(refused(json!({ "clip_norm": 0.0 })), "clip_norm: must be > 0, got 0");
    assert_eq!(refused(json!({ "adam": { "eps": -1.0 } })), "adam.eps: must be >= 0, got -1");
    let scale = refused(json!({ "scale": "spectral" }));
    assert!(scale.starts_with("scale: unknown variant `spectral`, expected one of"), "{scale}");
    assert!(refused(json!({ "adam": { "beta": 1 } })).starts_with("adam.beta: unknown field `beta`"));
}
