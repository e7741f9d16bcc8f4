//! The conformance suite, recorded traces, golden values.

use super::Soap;
use gauntlet_plugin_api::testing::{Harness, Trace, conformance, json};
use gauntlet_plugin_api::{ParamSpec, Role};

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
        eprintln!("{name} {worst}");
        assert!(worst.error <= 1e-5, "{name}: {worst}");
    }
}

/// Four steps of the authors' code in float64, whose first leaves the parameters as they are. Its bases are float32, so
/// an error of 1e-5 of the largest number is what can be asked for.
#[test]
fn golden_values() {
    let gradients = [[1.0, 2.0, 0.5, -1.0], [0.2, -0.4, 1.0, 0.3], [-0.5, 0.1, 0.7, 0.9], [0.3, 0.3, -0.2, 0.6]];
    let golden = [
        [1.0, 2.0, 3.0, 4.0],
        [0.9000, 2.1000, 2.9000, 3.9000],
        [0.95844, 2.14556, 2.76518, 3.81711],
        [0.97740, 2.17078, 2.68699, 3.72077],
    ];
    let specs = vec![ParamSpec::new("w", &[2, 2], Role::Hidden)];
    let config = json!({ "lr": 0.1, "betas": [0.9, 0.95], "weight_decay": 0.0, "precondition_frequency": 2 });
    let gradients = gradients.map(|gradient| vec![gradient.to_vec()]).to_vec();
    let mut run = Harness::<Soap>::with_gradients(config, specs, vec![golden[0].to_vec()], gradients).unwrap();
    for (step, expected) in golden.into_iter().enumerate() {
        run.step().unwrap();
        let close = run.params().iter().zip(expected).all(|(x, r)| (x - r).abs() < 1e-5 * 4.0);
        assert!(close, "step {}: {:?}", step + 1, run.params());
    }
}
