//! The conformance suite, a recorded trace.

use super::Shampoo;
use gauntlet_plugin_api::testing::{Trace, conformance, json};

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
    eprintln!("{worst}");
    assert!(worst.error <= 1e-8, "{worst}");
}
