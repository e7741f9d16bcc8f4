//! The conformance suite, recorded traces, golden values, metrics, faults, ranges.

use super::Soap;
use gauntlet_plugin_api::testing::{Fault, Harness, Problem, Trace, conformance, json};
use gauntlet_plugin_api::{ErrorCode, ParamSpec, Role};

#[test]
fn conforms() {
    conformance::<Soap>(json!({}));
    conformance::<Soap>(json!({ "precondition_frequency": 1, "precondition_1d": true, "shampoo_beta": 0.9 }));
    conformance::<Soap>(json!({ "precondition_frequency": 2, "max_precond_dim": 3, "normalize_grads": true }));
}

/// See `tests/data/traces/README.md`.
#[test]
fn the_traces_of_the_authors_code_are_followed_to_the_precision_of_its_bases() {
    for name in ["soap-f1", "soap-f5", "soap-one-sided"] {
        let path = format!("{}/../../tests/data/traces/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let worst = Trace::read(path).unwrap().replay::<Soap>().unwrap();
        assert!(worst.error <= 1e-5, "{name}: {worst}");
    }
}

/// By `tests/data/traces/soap_golden.py`: the first step leaves the parameters as they are.
#[test]
fn golden_values() {
    let gradients = [[1.0, 2.0, 0.5, -1.0], [0.2, -0.4, 1.0, 0.3], [-0.5, 0.1, 0.7, 0.9], [0.3, 0.3, -0.2, 0.6]];
    let golden = [
        [1.0, 2.0, 3.0, 4.0],
        [0.900000168871, 2.099999935057, 2.899999949008, 3.900000030430],
        [0.958437167494, 2.145562009352, 2.765179361055, 3.817111460293],
        [0.977399123995, 2.170778793446, 2.686980068696, 3.720767975355],
    ];
    let specs = vec![ParamSpec::new("w", &[2, 2], Role::Hidden)];
    let config = json!({ "lr": 0.1, "betas": [0.9, 0.95], "weight_decay": 0.0, "precondition_frequency": 2 });
    let gradients = gradients.map(|gradient| vec![gradient.to_vec()]).to_vec();
    let mut run = Harness::<Soap>::with_gradients(config, specs, vec![golden[0].to_vec()], gradients).unwrap();
    for (step, expected) in golden.into_iter().enumerate() {
        run.step().unwrap();
        let close = run.params().iter().zip(expected).all(|(x, r)| (x - r).abs() < 2e-12);
        assert!(close, "step {}: {:?}", step + 1, run.params());
    }
}

#[test]
fn it_descends() {
    for config in [json!({ "lr": 0.03 }), json!({ "lr": 0.03, "max_precond_dim": 4, "precondition_1d": true })] {
        let mut run = Harness::<Soap>::new(config.clone(), Problem::two_layer()).unwrap();
        let before = run.loss().unwrap();
        (0..50).for_each(|_| drop(run.step().unwrap()));
        let after = run.loss().unwrap();
        assert!(after < before - 0.2, "{config}: {before} {after}");
    }
}

#[test]
fn the_orthogonality_of_the_bases_is_reported_every_tenth_step() {
    let mut run = Harness::<Soap>::new(json!({ "precondition_frequency": 1 }), Problem::two_layer()).unwrap();
    let mut reported = vec![];
    for step in 0..21 {
        let metrics = run.step().unwrap().metrics;
        let of = |name: &str| metrics.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        reported.extend(of("basis_deviation").map(|deviation| (step, deviation)));
        assert_eq!(of("basis_failures"), if step == 0 { None } else { Some(0.0) });
    }
    let steps: Vec<i32> = reported.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [10, 20]);
    assert!(reported.iter().all(|(_, deviation)| *deviation < 1e-14), "{reported:?}");
}

#[test]
fn gradients_that_are_not_finite_are_an_error_and_spoil_nothing() {
    let mut run = Harness::<Soap>::new(json!({}), Problem::two_layer()).unwrap();
    run.step().unwrap();
    let (params, state) = (run.params(), run.save().unwrap());
    run.inject(Some(Fault::NanGradients));
    assert_eq!(run.step().unwrap_err().code, ErrorCode::NUMERICAL);
    assert!(run.params() == params && run.save().unwrap() == state);
}

#[test]
fn values_out_of_range_are_refused() {
    let refused = |config| Harness::<Soap>::new(config, Problem::squared()).unwrap_err().to_string();
    assert_eq!(refused(json!({ "lr": -1.0 })), "lr: must be > 0, got -1");
    assert_eq!(refused(json!({ "betas": [1.0, 0.9] })), "betas[0]: must be in [0, 1), got 1");
    assert_eq!(refused(json!({ "shampoo_beta": -0.5 })), "shampoo_beta: must be in [0, 1), got -0.5");
    assert_eq!(refused(json!({ "weight_decay": -0.1 })), "weight_decay: must be >= 0, got -0.1");
    assert_eq!(refused(json!({ "precondition_frequency": 0 })), "precondition_frequency: must be >= 1, got 0");
    assert!(refused(json!({ "precond_frequency": 1 })).starts_with("precond_frequency: unknown field"));
}
