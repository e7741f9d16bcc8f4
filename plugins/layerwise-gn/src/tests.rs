//! The conformance suite by layers and by an explicit partition, and partitions that are refused.

use super::LayerwiseGn;
use gauntlet_plugin_api::testing::{Harness, Problem, check, conformance, json};

const NAMES: [&str; 5] = ["embedding", "norm", "hidden.weight", "hidden.bias", "head.weight"];

#[test]
fn conforms() {
    let sgd = json!({ "sgd": { "lr": 0.3, "momentum": 0.5 } });
    for model in ["quadratic", "prox_linear", "linear"] {
        conformance::<LayerwiseGn>(json!({ "inner": sgd, "inner_batch_size": 2, "model": model, "clip_norm": 0.1 }));
    }
    conformance::<LayerwiseGn>(json!({ "inner_batch_size": 2, "line_search": false }));
    let partition = json!([NAMES[..2], NAMES[2..]]);
    let report = check::<LayerwiseGn>(json!({ "inner": sgd, "inner_batch_size": 1, "partition": partition }));
    let failed: Vec<&str> = report.failed().map(|(name, _)| name).collect();
    assert_eq!(failed, ["empty parameters"], "the partition names what an empty model lacks; {report}");
}

#[test]
fn conforms_with_conjugate_gradients() {
    conformance::<LayerwiseGn>(json!({ "inner": "cg", "inner_batch_size": 2 }));
    let cg = json!({ "damping": 0.01, "max_iterations": 11, "residual_tolerance": 1e-3 });
    conformance::<LayerwiseGn>(json!({ "inner": { "cg": cg }, "inner_batch_size": 4, "line_search": false }));
}

#[test]
fn a_partition_that_does_not_hold_every_parameter_once_is_refused() {
    let refused = |partition: serde_json::Value| {
        let config = json!({ "inner_batch_size": 4, "partition": partition });
        Harness::<LayerwiseGn>::new(config, Problem::two_layer()).unwrap_err().to_string()
    };
    assert_eq!(refused(json!([NAMES[1..]])), "partition: `embedding` is in no block");
    assert_eq!(refused(json!([NAMES, ["norm"]])), "partition: `norm` is in two blocks");
    assert_eq!(refused(json!([NAMES, ["head"]])), "partition: no parameter is named `head`");
}

#[test]
fn the_loss_itself_has_no_independent_blocks() {
    let config = json!({ "inner_batch_size": 4, "model": "loss" });
    let said = Harness::<LayerwiseGn>::new(config, Problem::two_layer()).unwrap_err().to_string();
    assert!(said.starts_with("model: \"loss\" is of the whole model"), "{said}");
}

/// The host reads keys, defaults and descriptions from the schema.
#[test]
fn the_schema_is_one_table_of_all_keys() {
    let schema = gauntlet_plugin_api::metadata::Metadata::of::<LayerwiseGn>("0.0.0").schema;
    assert_eq!(schema["properties"].as_object().unwrap().len(), 17, "{schema:#}");
    assert_eq!(schema["required"], json!(["inner_batch_size"]), "{schema:#}");
    assert_eq!(schema["properties"]["inner"]["default"], "muon", "{schema:#}");
    assert_eq!(schema["$defs"]["Name"]["enum"], json!(["muon", "soap", "adamw", "cg"]), "{schema:#}");
}
