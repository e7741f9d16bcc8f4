//! Spaces, budgets, and the order of trials; runs themselves are tested through the whole program.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn spaces(text: &str) -> BTreeMap<String, Space> {
    toml::from_str(text).unwrap()
}

fn settings(value: Value) -> Settings {
    serde_json::from_value(value).unwrap()
}

fn tuning(budget: f64, halving: bool) -> Tuning {
    serde_json::from_value(json!({ "seed": 0, "budget": budget, "halving": halving })).unwrap()
}

#[test]
fn lists_make_a_grid() {
    let grid = points(&spaces("lr = [0.1, 0.2, 0.3]\nkind = ['a', 'b']"), 99);
    assert_eq!(grid.len(), 6);
    assert_eq!(grid[0], settings(json!({ "kind": "a", "lr": 0.1 })));
    assert_eq!(grid[5], settings(json!({ "kind": "b", "lr": 0.3 })));
    assert_eq!(points(&BTreeMap::new(), 5), [Settings::new()], "nothing to choose is one point");
}

#[test]
fn a_range_makes_haltons_points() {
    let shares: Vec<f64> = (1..=6).map(|index| radical_inverse(index, 2)).collect();
    assert_eq!(shares, [0.5, 0.25, 0.75, 0.125, 0.625, 0.375]);
    let thirds: Vec<f64> = (1..=4).map(|index| radical_inverse(index, 3)).collect();
    assert!(thirds.iter().zip([1.0 / 3.0, 2.0 / 3.0, 1.0 / 9.0, 4.0 / 9.0]).all(|(a, b)| (a - b).abs() < 1e-15));
    let found = points(&spaces("a = { low = 1e-4, high = 1e-2, log = true }\nb = ['x', 'y', 'z']"), 3);
    let whole = points(&spaces("n = { low = 1, high = 9, whole = true }"), 3);
    assert_eq!(whole, [5, 3, 7].map(|n| settings(json!({ "n": n }))));
    let expected = [json!({"a": 1e-3, "b": "y"}), json!({"a": 3.162e-4, "b": "z"}), json!({"a": 3.162e-3, "b": "x"})];
    assert_eq!(found, expected.map(settings));
}

#[test]
fn all_rungs_cost_the_budget() {
    assert_eq!(rungs(&tuning(300.0, false), &[6]), (1, 50.0));
    // 6 trials to r, 3 to 2 r, 2 to 4 r: 6 + 3 + 2 * 2 = 13.
    assert_eq!(rungs(&tuning(260.0, true), &[6]), (3, 20.0));
    assert_eq!(rungs(&tuning(10.0, true), &[1]), (1, 10.0));
    // Two studies of 3: each 3 to r and 2 to 2 r, and so 2 * (3 + 2).
    assert_eq!(rungs(&tuning(100.0, true), &[3, 3]), (2, 10.0));
}

proptest! {
    #[test]
    fn halving_spends_what_it_says(trials in 1..200_usize, budget in 1.0..1e4_f64) {
        let (rungs, first) = rungs(&tuning(budget, true), &[trials]);
        let (mut left, mut spent, mut before) = (trials, 0.0, 0.0);
        for rung in 0..rungs {
            let each = first * f64::from(1 << rung);
            spent += left as f64 * (each - before);
            before = each;
            left = left.div_ceil(2);
        }
        prop_assert!((spent - budget).abs() < 1e-6 * budget, "{spent} of {budget}");
        prop_assert!(left <= 2, "{left}");
    }
}

#[test]
fn a_best_value_at_an_edge_makes_its_list_grow() {
    let mut grid = spaces("lr = [0.003, 0.01, 0.03]\nkind = ['a', 'b']");
    let at = |lr: f64| settings(json!({ "lr": lr, "kind": "a" }));
    assert_eq!(grown(&mut grid, &at(0.01)), None);
    assert_eq!(grown(&mut grid, &at(0.03)), Some(at(0.09)));
    assert_eq!(grid["lr"], Space::Values([0.003, 0.01, 0.03, 0.09].map(Value::from).to_vec()));
    assert_eq!(grown(&mut grid, &at(0.003)), Some(at(0.0009)));
    let mut shares = spaces("momentum = [0.9, 0.99]");
    assert_eq!(grown(&mut shares, &settings(json!({ "momentum": 0.99 }))), None, "a share stays below 1");
    let mut zero = spaces("wd = [0.0, 0.1]");
    assert_eq!(grown(&mut zero, &settings(json!({ "wd": 0.0 }))), None, "zero has no ratio");
    let list = Space::Values(vec![json!([0.9, 0.95]), json!([0.9, 0.99])]);
    assert_eq!(list.numbers(), None, "only numbers have edges");
    let mut whole = spaces("every = [1, 2, 4]");
    assert_eq!(grown(&mut whole, &settings(json!({ "every": 4 }))), Some(settings(json!({ "every": 8 }))));
    assert_eq!(grown(&mut whole, &settings(json!({ "every": 1 }))), None, "half a step is none");
}

#[test]
fn a_score_is_the_median_over_studies_of_the_fastest_trial() {
    let trial = |study: usize, steps: Option<f64>| Trial {
        settings: Settings::new(),
        steps,
        loss: None,
        spent: 1.0,
        study,
        failed: false,
    };
    let all = [trial(0, Some(9.0)), trial(1, Some(5.0)), trial(2, None), trial(0, Some(7.0)), trial(1, None)];
    assert_eq!(score(&all, 3), Some(7.0));
    assert_eq!(score(&all[..2], 1), Some(9.0));
    assert_eq!(score(&all[2..3], 3), None);
}

/// A search over the step size, as it stands after its trials.
fn searched<T>(trials: Vec<Trial>, then: impl FnOnce(Search) -> T) -> T {
    let comparison: crate::compare::Comparison = serde_json::from_value(json!({
        "base": [], "dir": "d", "seeds": [1], "target_loss": 1.0, "max_gradient_equivalents": 1.0,
        "contender": [{ "name": "a" }],
    }))
    .unwrap();
    let plan = Plan::without_data(comparison.clone(), 8);
    let workers = Workers::new(&plan, std::sync::Arc::default());
    let (tuning, contender, from) = (tuning(10.0, true), &comparison.contender[0], Settings::new());
    then(Search { plan: &plan, workers: &workers, tuning: &tuning, contender, from: &from, may_run: false, trials })
}

fn trial(lr: f64, steps: Option<f64>, loss: Option<f64>, spent: f64) -> Trial {
    Trial { settings: settings(json!({ "lr": lr })), steps, loss, spent, study: 0, failed: false }
}

#[test]
fn a_trial_that_diverged_late_is_not_the_best() {
    // By halving the first went four times as far as the second, and then diverged.
    let trials =
        vec![trial(400.0, None, None, 8.0), trial(0.01, None, Some(5.5), 2.0), trial(0.003, None, Some(5.6), 2.0)];
    let order = searched(trials, |search| search.order());
    assert_eq!(order, [1, 2, 0]);
}

#[test]
fn the_least_and_the_largest_that_was_tried_of_a_range_are_its_edges() {
    let range = spaces("lr = { low = 0.001, high = 1.0, log = true }");
    let edges = |best: f64| {
        let others = [0.03, 0.1, 0.3].map(|lr| trial(lr, None, Some(if lr == best { 1.0 } else { 2.0 }), 4.0));
        searched(others.to_vec(), |search| search.tuned(&range))
    };
    assert_eq!((edges(0.3).at_edge, edges(0.1).at_edge), (vec!["lr".to_owned()], vec![]));
    assert_eq!((edges(0.1).spent, edges(0.1).beyond_budget), (12.0, 2.0));
}
