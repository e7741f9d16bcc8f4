//! The conformance suite, and steps worked out by hand.

use super::Sgd;
use gauntlet_plugin_api::testing::{Harness, Problem, conformance, json};
use gauntlet_plugin_api::{ParamSpec, Role};

#[test]
fn conforms() {
    conformance::<Sgd>(json!({ "lr": 0.1 }));
    conformance::<Sgd>(json!({ "lr": 0.1, "momentum": 0.9 }));
}

#[test]
fn steps_are_those_of_the_formula() {
    let specs = vec![ParamSpec::new("w", &[2], Role::Hidden)];
    let gradients = vec![vec![vec![1.0, -2.0]], vec![vec![3.0, 0.0]]];
    let config = json!({ "lr": 0.5, "momentum": 0.25 });
    let mut harness = Harness::<Sgd>::with_gradients(config, specs, vec![vec![10.0, 20.0]], gradients).unwrap();
    harness.set_schedule(|step| if step == 0.0 { 1.0 } else { 0.5 });
    harness.step().unwrap();
    assert_eq!(harness.params(), [9.5, 21.0]); // m = [1, -2], lr = 0.5
    let result = harness.step().unwrap();
    assert_eq!(harness.params(), [8.6875, 21.125]); // m = [3.25, -0.5], lr = 0.25
    assert_eq!(result.metrics, [("gradient_norm".to_string(), 3.0)]);
}

#[test]
fn trains() {
    let mut harness = Harness::<Sgd>::new(json!({ "lr": 0.5, "momentum": 0.9 }), Problem::squared()).unwrap();
    let first = harness.gradient_norm().unwrap();
    for _ in 0..200 {
        harness.step().unwrap();
    }
    assert!(harness.gradient_norm().unwrap() < 1e-3 * first);
}
