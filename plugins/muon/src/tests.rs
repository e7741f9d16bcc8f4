//! The conformance suite, recorded traces, roles, and ranges.

use super::Muon;
use gauntlet_plugin_api::testing::{Harness, Problem, Trace, conformance, json};
use gauntlet_plugin_api::{ErrorCode, ParamSpec, Role};

#[test]
fn conforms() {
    conformance::<Muon>(json!({}));
    conformance::<Muon>(json!({ "scale": "match_rms_adamw", "coefficients": "dion", "weight_decay": 0.1 }));
    conformance::<Muon>(json!({ "variant": "optax", "coefficients": "polar_express", "clip_norm": 1.0 }));
}

/// See `tests/data/traces/README.md`.
#[test]
fn the_traces_of_kellers_formula_are_followed() {
    for name in ["muon-original", "muon-match_rms_adamw"] {
        let path = format!("{}/../../tests/data/traces/{name}.safetensors", env!("CARGO_MANIFEST_DIR"));
        let worst = Trace::read(path).unwrap().replay::<Muon>().unwrap();
        assert!(worst.error <= 1e-10, "{name}: {worst}");
    }
}
