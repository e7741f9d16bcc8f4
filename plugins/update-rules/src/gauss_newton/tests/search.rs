//! The line search where it cannot do its work: no finite loss, no lower loss, the end of the grid.

use super::*;
use gauntlet_plugin_api::testing::Outcome;

fn rejected(result: &StepResult) -> Option<&str> {
    match &result.outcome {
        Outcome::Rejected(reason) => Some(reason),
        _ => None,
    }
}

/// A step size so large that no loss is finite, for one step.
#[test]
fn a_step_without_a_finite_loss_is_rejected_and_the_run_goes_on() {
    for (inner_batch_size, reason) in [(4, "no step size gives a finite loss"), (2, "the inner iterate diverged")] {
        let config = json!({ "inner": sgd(0.5, 0.9), "inner_batch_size": inner_batch_size });
        let mut harness = run::<Gn<Full>>(config, Problem::two_layer().batch_size(4));
        harness.set_schedule(|x| if (1.0..2.0).contains(&x) { f64::MAX } else { 1.0 });
        harness.step().unwrap();
        let before = harness.params();
        let result = harness.step().unwrap();
        assert_eq!(rejected(&result), Some(reason));
        assert!(result.loss.is_finite());
        assert_eq!(metric(&result, "failed_steps"), Some(1.0));
        assert_eq!(bits(&harness.params()), bits(&before));
        let state = harness.save().unwrap();
        assert_eq!(bits(&entry(&state, "iterate")), bits(&before), "it starts anew at the parameters");
        assert!(entry(&state, "inner.velocity").iter().all(|x| *x == 0.0), "with a fresh rule");
        let result = harness.step().unwrap();
        assert_eq!((rejected(&result), metric(&result, "failed_steps")), (None, Some(1.0)));
        assert_ne!(harness.params(), before);
    }
}

#[test]
fn divergence_without_a_search_is_an_error() {
    let config = json!({ "inner": sgd(0.5, 0.9), "inner_batch_size": 2, "line_search": false });
    let mut harness = run::<Gn<Full>>(config, Problem::two_layer().batch_size(4));
    harness.set_schedule(|_| f64::MAX);
    let error = harness.step().unwrap_err();
    assert_eq!(
        (error.code, error.to_string()),
        (
            gauntlet_plugin_api::ErrorCode::NUMERICAL,
            "gradient: the gradient's norm is inf, expected a finite number".into()
        )
    );
}

/// Far beyond the minimum every loss on the grid is above the one at 0.
#[test]
fn a_rise_of_the_loss_is_taken_unless_rejection_is_on() {
    let step = |reject: bool| {
        let config = json!({ "inner": sgd(400.0, 0.0), "inner_batch_size": 4, "line_search_reject": reject });
        let mut harness = run::<Gn<Full>>(config, Problem::softmax_regression().batch_size(4));
        let before = harness.params();
        let result = harness.step().unwrap();
        let loss = |name: &str| metric(&result, name).unwrap();
        assert!(reject || loss("line_search_loss") > loss("line_search_loss_at_zero"));
        assert_eq!(metric(&result, "line_search_grid_end_steps"), Some(1.0), "the smallest step size was the best");
        (before != harness.params(), rejected(&result).is_some(), metric(&result, "line_search_rejected_steps"))
    };
    assert_eq!(step(false), (true, false, Some(0.0)));
    assert_eq!(step(true), (false, true, Some(1.0)));
}

#[test]
fn a_gradient_that_is_not_finite_at_the_anchor_is_an_error() {
    for inner in [sgd(0.5, 0.0), json!("cg")] {
        let config = json!({ "inner": inner, "inner_batch_size": 2 });
        let mut harness = run::<Gn<Full>>(config, Problem::two_layer().batch_size(4));
        harness.step().unwrap();
        harness.inject(Some(gauntlet_plugin_api::testing::Fault::NanGradients));
        assert_eq!(harness.step().unwrap_err().code, gauntlet_plugin_api::ErrorCode::NUMERICAL);
    }
}
