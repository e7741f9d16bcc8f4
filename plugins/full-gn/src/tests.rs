//! The conformance suite with every solver, and settings that are refused.

use super::FullGn;
use gauntlet_plugin_api::ErrorCode;
use gauntlet_plugin_api::testing::{Harness, Problem, conformance, json};

#[test]
fn conforms_with_every_rule() {
    let rules = [
        json!("muon"),
        json!({ "muon": { "lr": 0.05, "variant": "optax", "adam": { "weight_decay": 0.001 } } }),
        json!({ "soap": { "lr": 0.05, "precondition_frequency": 2 } }),
        json!({ "adamw": { "lr": 0.05 } }),
        json!({ "sgd": { "lr": 0.3, "momentum": 0.5 } }),
    ];
    for inner in rules {
        for model in ["quadratic", "prox_linear", "linear", "loss"] {
            conformance::<FullGn>(json!({ "inner": inner, "inner_batch_size": 2, "model": model }));
        }
    }
}

#[test]
fn conforms_in_all_parts_of_the_loop() {
    let sgd = json!({ "sgd": { "lr": 0.3, "momentum": 0.5 } });
    conformance::<FullGn>(json!({ "inner": sgd, "inner_batch_size": 4, "line_search": false }));
    conformance::<FullGn>(json!({ "inner": sgd, "inner_batch_size": 1, "line_search": false, "clip_norm": 0.1 }));
    conformance::<FullGn>(json!({
        "inner": sgd, "inner_batch_size": 1, "inner_schedule": "cosine", "inner_warmup_steps": 1, "outer_at": "step",
        "clip_norm": 0.1, "clip": "global", "warm_start": "none", "tikhonov": 0.1, "line_search_candidates": 5,
        "line_search_batches": 3, "line_search_stream": "shared", "line_search_reject": true,
    }));
}

#[test]
fn conforms_with_conjugate_gradients() {
    conformance::<FullGn>(json!({ "inner": "cg", "inner_batch_size": 2 }));
    let cg = json!({ "damping": 0.1, "max_iterations": 12, "preconditioner": false, "backtracking": false });
    conformance::<FullGn>(json!({ "inner": { "cg": cg }, "inner_batch_size": 4, "line_search": false }));
}

/// The error of a configuration on batches of 16 sequences.
fn refused(config: serde_json::Value) -> String {
    let error = Harness::<FullGn>::new(config, Problem::two_layer()).err();
    let error = error.filter(|error| error.code == ErrorCode::CONFIG).map(|error| error.to_string());
    error.unwrap_or_default()
}

#[test]
fn settings_out_of_range_or_without_effect_are_refused() {
    let with = |key: &str, value: serde_json::Value| {
        let mut config = json!({ "inner": { "sgd": { "lr": 0.1 } }, "inner_batch_size": 4 });
        config[key] = value;
        refused(config)
    };
    assert_eq!(with("inner_batch_size", json!(0)), "inner_batch_size: must divide `data.batch_size` = 16, got 0");
    assert_eq!(with("inner_batch_size", json!(5)), "inner_batch_size: must divide `data.batch_size` = 16, got 5");
    assert_eq!(with("inner_batch_size", json!(32)), "inner_batch_size: must divide `data.batch_size` = 16, got 32");
    assert_eq!(with("clip_norm", json!(0.0)), "clip_norm: must be > 0, got 0");
    assert_eq!(with("clip", json!("global")), "clip: has no effect without `clip_norm`");
    assert_eq!(with("inner_warmup_steps", json!(4)), "inner_warmup_steps: must be from 0 to 3, got 4");
    assert_eq!(with("inner_final_fraction", json!(1.5)), "inner_final_fraction: must be in [0, 1], got 1.5");
    assert_eq!(with("tikhonov", json!(-1.0)), "tikhonov: must be >= 0, got -1");
    assert_eq!(with("line_search_candidates", json!(0)), "line_search_candidates: must be from 1 to 100, got 0");
    assert_eq!(with("line_search_batches", json!(0)), "line_search_batches: must be from 1 to 1048576, got 0");
    assert_eq!(with("inner", json!({ "soap": { "eps": -1.0 } })), "inner.soap.eps: must be >= 0, got -1");
    assert_eq!(with("inner", json!({ "sgd": { "lr": 0.0 } })), "inner.sgd.lr: must be > 0, got 0");
    assert_eq!(with("inner", json!({ "cg": { "damping": -1.0 } })), "inner.cg.damping: must be >= 0, got -1");
    assert_eq!(
        with("inner", json!({ "cg": { "start_share": 1.1 } })),
        "inner.cg.start_share: must be in [0, 1], got 1.1"
    );
    assert!(with("inner", json!({ "muon": { "clip_norm": 1.0 } })).starts_with("inner.muon.clip_norm: is set by"));
    assert!(
        with("inner", json!({ "adagrad": {} })).starts_with("inner: "),
        "{}",
        with("inner", json!({ "adagrad": {} }))
    );
    let cg = |key: &str, value: serde_json::Value| {
        let mut config = json!({ "inner": "cg", "inner_batch_size": 4 });
        config[key] = value;
        refused(config)
    };
    assert_eq!(cg("model", json!("prox_linear")), "model: must be \"quadratic\" with conjugate gradients");
    assert_eq!(cg("warm_start", json!("state")), "warm_start: must be \"both\" or \"none\" with conjugate gradients");
    assert_eq!(cg("inner_schedule", json!("cosine")), "inner_schedule: has no effect with conjugate gradients");
    assert_eq!(cg("tikhonov", json!(0.1)), "tikhonov: is `inner.cg.damping` with conjugate gradients");
}
