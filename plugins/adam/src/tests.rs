//! The conformance suite, golden values, groups, and ranges.

use super::Adam;
use gauntlet_plugin_api::testing::{Harness, conformance, json};
use gauntlet_plugin_api::{ErrorCode, ParamSpec, Role};

#[test]
fn conforms() {
    conformance::<Adam>(json!({}));
    conformance::<Adam>(json!({ "lr": 0.01, "groups": [{ "roles": ["hidden"], "set": { "weight_decay": 0.0 } }] }));
}

/// p = (1, -2), lr 0.1, weight decay 0.01, other defaults; by `torch.optim.AdamW` in float64.
#[test]
fn three_steps_are_those_of_torch() {
    let gradients = vec![vec![vec![0.5, -1.0]], vec![vec![0.1, 2.0]], vec![vec![-0.3, 0.0]]];
    let expected = [
        [0.899_000_002, -1.898_000_001],
        [0.817_796_906_383, -1.932_712_353_471],
        [0.795_907_814_855, -1.959_079_549_646],
    ];
    let specs = vec![ParamSpec::new("p", &[2], Role::Hidden)];
    let config = json!({ "lr": 0.1 });
    let mut harness = Harness::<Adam>::with_gradients(config, specs, vec![vec![1.0, -2.0]], gradients).unwrap();
    for expected in expected {
        harness.step().unwrap();
        for (found, expected) in harness.params().iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}

#[test]
fn a_group_has_its_own_settings() {
    let specs = vec![ParamSpec::new("w", &[1, 1], Role::Hidden), ParamSpec::new("b", &[1], Role::Bias)];
    let config =
        json!({ "lr": 0.1, "weight_decay": 0.5, "groups": [{ "roles": ["bias"], "set": { "weight_decay": 0.0 } }] });
    let gradients = vec![vec![vec![0.0], vec![0.0]]];
    let mut harness = Harness::<Adam>::with_gradients(config, specs, vec![vec![1.0], vec![1.0]], gradients).unwrap();
    harness.step().unwrap();
    assert_eq!(harness.params(), [0.95, 1.0]);
}

#[test]
fn values_out_of_range_and_empty_groups_are_refused() {
    let refused = |config| {
        let specs = vec![ParamSpec::new("p", &[2], Role::Hidden)];
        let error = Harness::<Adam>::with_gradients(config, specs, vec![vec![0.0; 2]], vec![]).err();
        let error = error.map(|error| (error.code, error.to_string()));
        error.filter(|(code, _)| *code == ErrorCode::CONFIG).map(|(_, text)| text).unwrap_or_default()
    };
    assert_eq!(refused(json!({ "lr": 0.0 })), "lr: must be > 0, got 0");
    assert_eq!(refused(json!({ "betas": [0.9, 1.0] })), "betas[1]: must be in [0, 1), got 1");
    assert_eq!(refused(json!({ "weight_decay": -1.0 })), "weight_decay: must be >= 0, got -1");
    assert_eq!(refused(json!({ "groups": [{ "roles": ["norm"], "set": {} }] })), "groups[0]: holds no parameter");
    assert_eq!(
        refused(json!({ "groups": [{ "names": ["q"], "set": {} }] })),
        "groups[0].names: no parameter is named `q`"
    );
    assert!(
        refused(json!({ "beta": 1 })).starts_with("beta: unknown field `beta`"),
        "{}",
        refused(json!({ "beta": 1 }))
    );
}
