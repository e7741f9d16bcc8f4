//! The conformance suite, a recorded trace, metrics, faults, ranges.

use super::Shampoo;
use gauntlet_plugin_api::ErrorCode;
use gauntlet_plugin_api::testing::{Fault, Harness, Problem, StepResult, Trace, conformance, json};

#[test]
fn conforms() {
    conformance::<Shampoo>(json!({}));
    conformance::<Shampoo>(json!({ "precondition_frequency": 3, "grafting": "adam", "weight_decay": 0.1 }));
    conformance::<Shampoo>(json!({ "max_precond_dim": 2, "exponent": 0.5 }));
}

/// See `tests/data/traces/README.md`.
#[test]
fn the_trace_of_the_formula_is_followed() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/traces/shampoo.safetensors");
    let worst = Trace::read(path).unwrap().replay::<Shampoo>().unwrap();
    assert!(worst.error <= 1e-8, "{worst}");
}

#[test]
fn it_descends() {
    for config in [json!({ "lr": 0.02 }), json!({ "lr": 0.02, "grafting": "adam", "precondition_frequency": 5 })] {
        let mut run = Harness::<Shampoo>::new(config.clone(), Problem::two_layer()).unwrap();
        let before = run.loss().unwrap();
        (0..50).for_each(|_| drop(run.step().unwrap()));
        let after = run.loss().unwrap();
        assert!(after < before - 0.2, "{config}: {before} {after}");
    }
}

#[test]
fn declared_metrics_are_reported_when_they_are_due() {
    let mut run = Harness::<Shampoo>::new(json!({}), Problem::two_layer()).unwrap();
    let names = |result: StepResult| result.metrics.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let first = names(run.step().unwrap());
    assert_eq!(first.len(), 2 + 7, "{first:?}");
    assert_eq!(names(run.step().unwrap()), ["gradient_norm", "root_failures"]);
}

#[test]
fn gradients_that_are_not_finite_are_an_error_and_spoil_nothing() {
    let mut run = Harness::<Shampoo>::new(json!({}), Problem::two_layer()).unwrap();
    run.step().unwrap();
    let (params, state) = (run.params(), run.save().unwrap());
    run.inject(Some(Fault::NanGradients));
    let error = run.step().unwrap_err();
    assert_eq!(
        (error.code, error.to_string().as_str()),
        (ErrorCode::NUMERICAL, "gradient: the gradient's norm is NaN, expected a finite number")
    );
    assert!(run.params() == params && run.save().unwrap() == state);
}

#[test]
fn values_out_of_range_are_refused() {
    let refused = |config| Harness::<Shampoo>::new(config, Problem::squared()).unwrap_err().to_string();
    assert_eq!(refused(json!({ "lr": 0.0 })), "lr: must be > 0, got 0");
    assert_eq!(refused(json!({ "betas": [0.9, 1.0] })), "betas[1]: must be in [0, 1), got 1");
    assert_eq!(refused(json!({ "eps": 0.0 })), "eps: must be > 0, got 0");
    assert_eq!(refused(json!({ "precondition_frequency": 0 })), "precondition_frequency: must be >= 1, got 0");
    assert_eq!(refused(json!({ "max_precond_dim": 0 })), "max_precond_dim: must be >= 1, got 0");
    assert_eq!(refused(json!({ "exponent": -0.25 })), "exponent: must be > 0, got -0.25");
    let grafting = refused(json!({ "grafting": "sgd" }));
    assert!(grafting.starts_with("grafting: unknown variant `sgd`, expected `none` or `adam`"), "{grafting}");
}
