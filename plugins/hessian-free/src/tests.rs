//! The conformance suite.

use super::HessianFree;
use gauntlet_plugin_api::testing::{conformance, json};

#[test]
fn conforms() {
    conformance::<HessianFree>(json!({}));
    conformance::<HessianFree>(json!({ "damping": 0.01, "max_iterations": 30, "curvature_batch_size": 2 }));
    conformance::<HessianFree>(json!({
        "adapt_damping": false, "line_search": false, "preconditioner": false, "backtracking": false,
        "progress_tolerance": 0.0, "residual_tolerance": 1e-10,
    }));
}
