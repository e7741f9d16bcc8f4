//! The conformance suite, Gauss-Newton's own conjugate gradients, damping, rejection, and an ill-conditioned problem.

mod trace;

use super::HessianFree;
use gauntlet_plugin_api::prelude::*;
use gauntlet_plugin_api::testing::{Harness, Outcome, Problem, SavedState, StepResult, conformance, json};
use serde_json::Value;
use update_rules::gauss_newton::{self, GaussNewton};

#[test]
fn conforms() {
    conformance::<HessianFree>(json!({}));
    conformance::<HessianFree>(json!({ "damping": 0.01, "max_iterations": 30, "curvature_batch_size": 2 }));
    conformance::<HessianFree>(json!({
        "adapt_damping": false, "line_search": false, "preconditioner": false, "backtracking": false,
        "progress_tolerance": 0.0, "residual_tolerance": 1e-10,
    }));
}

/// The solver of full-gn.
struct FullGn(GaussNewton);

impl Optimizer for FullGn {
    const NAME: &'static str = "full-gn";
    type Config = gauss_newton::Config;

    fn new(config: gauss_newton::Config, setup: &Setup) -> Result<Self> {
        GaussNewton::new(config, Structure::Full, setup).map(Self)
    }

    fn state_bytes(config: &gauss_newton::Config, params: &Params) -> u64 {
        config.state_bytes(params)
    }

    fn step(&mut self, ctx: &mut StepContext) -> Result<StepReport> {
        self.0.step(ctx)
    }

    fn save(&self, state: &mut StateWriter) -> Result<()> {
        self.0.save(state)
    }

    fn load(&mut self, state: &StateReader) -> Result<()> {
        self.0.load(state)
    }
}

fn metric(result: &StepResult, name: &str) -> f64 {
    let found = result.metrics.iter().find(|(other, _)| other == name);
    found.unwrap_or_else(|| panic!("no metric {name}")).1
}

/// The numbers of a list of tensors in a state, flat.
fn entry(state: &SavedState, name: &str) -> Vec<f64> {
    let entry = state.entries.iter().find(|entry| entry.name == name);
    let tensors = &entry.unwrap_or_else(|| panic!("no entry {name}")).tensors;
    let numbers = tensors.iter().flat_map(|tensor| tensor.bytes.as_chunks::<8>().0);
    numbers.map(|x| f64::from_le_bytes(*x)).collect()
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    let scale = expected.iter().fold(0.0, |a: f64, b| a.max(b.abs()));
    let worst = found.iter().zip(expected).fold(0.0, |worst: f64, (a, b)| worst.max((a - b).abs()));
    assert!(found.len() == expected.len() && worst <= tolerance * scale, "{worst:e} of {scale:e}");
}

#[test]
fn without_a_search_and_adaption_it_is_gauss_newton_by_conjugate_gradients() {
    for damping in [0.01, 1.0] {
        for preconditioner in [false, true] {
            let solver = json!({
                "damping": damping, "max_iterations": 500, "progress_tolerance": 0.0, "residual_tolerance": 1e-10,
                "preconditioner": preconditioner, "backtracking": false,
            });
            let mut config = solver.clone();
            config
                .as_object_mut()
                .unwrap()
                .extend([("line_search".into(), json!(false)), ("adapt_damping".into(), json!(false))]);
            let problem = || Problem::two_layer().batch_size(8);
            let mut hessian_free = Harness::<HessianFree>::new(config, problem()).unwrap();
            let config = json!({ "inner": { "cg": solver }, "inner_batch_size": 2, "line_search": false });
            let mut full_gn = Harness::<FullGn>::new(config, problem()).unwrap();
            for _ in 0..3 {
                let (found, expected) = (full_gn.step().unwrap(), hessian_free.step().unwrap());
                assert_eq!(metric(&found, "inner_iterations"), metric(&expected, "inner_iterations"));
                assert!(metric(&found, "cg_residual_ratio") <= 1e-10);
                close(&full_gn.params(), &hessian_free.params(), 1e-14);
            }
        }
    }
}

#[test]
fn damping_follows_the_reduction_ratio() {
    let mut harness =
        Harness::<HessianFree>::new(json!({ "damping": 5.0 }), Problem::two_layer().batch_size(8)).unwrap();
    let results: Vec<StepResult> = (0..30).map(|_| harness.step().unwrap()).collect();
    let mut changes = [0; 3];
    for pair in results.windows(2) {
        let (ratio, factor) =
            (metric(&pair[0], "reduction_ratio"), metric(&pair[1], "damping") / metric(&pair[0], "damping"));
        let (expected, kind) = match ratio {
            ratio if ratio < 0.25 => (1.5, 0),
            ratio if ratio > 0.75 => (2.0 / 3.0, 1),
            _ => (1.0, 2),
        };
        assert!((factor - expected).abs() < 1e-12, "{ratio}: {factor}");
        changes[kind] += 1;
        let quotient = metric(&pair[0], "loss_change") / metric(&pair[0], "model_change");
        assert!(ratio == f64::NEG_INFINITY || (quotient - ratio).abs() < 1e-12);
    }
    assert!(changes[0] > 0 && changes[1] > 0, "{changes:?}");
}

#[test]
fn the_next_solve_starts_at_95_hundredths_of_the_last_iterate() {
    let config = json!({ "damping": 0.001, "max_iterations": 60 });
    let mut harness = Harness::<HessianFree>::new(config, Problem::two_layer().batch_size(4)).unwrap();
    harness.set_should_return(true);
    let mut went_back = false;
    for _ in 0..6 {
        let result = harness.step().unwrap();
        went_back |= metric(&result, "cg_chosen_iteration") < metric(&result, "inner_iterations");
        let last = entry(&harness.save().unwrap(), "last");
        assert_eq!(harness.call().unwrap().outcome, Outcome::More);
        let start = entry(&harness.save().unwrap(), "solve.cg.x");
        close(&start, &last.iter().map(|x| 0.95 * x).collect::<Vec<_>>(), 1e-15);
    }
    assert!(went_back, "no step took an earlier iterate");
}

/// At the minimum every step raises the loss. The solve is cut after one iteration, so that it keeps a part of the step
/// before.
#[test]
fn a_step_that_no_shrinking_helps_is_rejected() {
    let config = |iterations: u64| {
        json!({
            "damping": 0.0, "max_iterations": iterations, "progress_tolerance": 0.0, "residual_tolerance": 1e-14,
            "backtracking": false, "adapt_damping": false,
        })
    };
    let mut exact = Harness::<HessianFree>::new(config(300), Problem::squared()).unwrap();
    exact.step().unwrap();
    assert!(exact.gradient_norm().unwrap() < 1e-12);
    let mut cut = Harness::<HessianFree>::new(config(1), Problem::squared()).unwrap();
    cut.restore(&exact.snapshot().unwrap()).unwrap();
    cut.set_should_return(true);
    let before = cut.params();
    let mut tried = 0;
    let result = loop {
        let result = cut.call().unwrap();
        tried += u64::from(cut.save().unwrap().entries.iter().any(|entry| entry.name == "search.batch"));
        if result.outcome != Outcome::More {
            break result;
        }
    };
    assert!(matches!(result.outcome, Outcome::Rejected(_)), "{result:?}");
    assert_eq!(tried, 60, "the search returns before it begins and after each shrink but the last");
    assert_eq!((metric(&result, "rejected_steps"), cut.params()), (1.0, before));
    assert!(result.loss.is_finite());
}

#[test]
fn the_matrix_can_take_a_part_of_the_batch() {
    let config = json!({ "curvature_batch_size": 3 });
    let mut harness = Harness::<HessianFree>::new(config, Problem::two_layer().batch_size(8)).unwrap();
    harness.set_should_return(true);
    harness.step().unwrap();
    harness.call().unwrap();
    let state = harness.save().unwrap();
    let position = |name: &str| {
        let entry = state.entries.iter().find(|entry| entry.name == name).unwrap();
        let part = Position::from_json(std::str::from_utf8(&entry.bytes).unwrap()).unwrap().parts[0];
        (part.first, part.count)
    };
    assert_eq!((position("solve.batch"), position("solve.curvature_batch")), ((8, 8), (8, 3)));
}

/// Widths that differ by a factor of 300, and classes that can be learned: after as many passes as Hessian-free used,
/// gradient descent with its best step size has more than twice its loss.
#[test]
fn an_ill_conditioned_problem_is_solved() {
    let stream: Vec<[usize; 2]> = (0..15).map(|i| [i % 5, (2 * (i % 5) + 1) % 5]).collect();
    let mut params: Vec<Vec<f64>> =
        [15, 3, 12, 4, 20].iter().map(|n| (0..*n).map(|i| ((3 * i + n) as f64).sin()).collect()).collect();
    params[1] = vec![0.02, 0.5, 6.0];
    let problem = || Problem::two_layer_of([stream.clone(), stream.clone()], params.clone()).unwrap().batch_size(5);
    let mut harness = Harness::<HessianFree>::new(json!({}), problem()).unwrap();
    let first = harness.loss().unwrap();
    let mut passes = 0.0;
    for _ in 0..20 {
        passes += 3.0 + metric(&harness.step().unwrap(), "inner_iterations");
    }
    let found = harness.loss().unwrap();
    let descent = |lr: f64| {
        let inner = json!({ "sgd": { "lr": lr, "momentum": 0.0 } });
        let config = json!({ "inner": inner, "inner_batch_size": 5, "line_search": false });
        let mut harness = Harness::<FullGn>::new(config, problem()).unwrap();
        (0..passes as usize).for_each(|_| drop(harness.step().unwrap()));
        harness.loss().unwrap()
    };
    let best = [0.03, 0.1, 0.3, 1.0, 3.0].map(descent).into_iter().fold(f64::INFINITY, f64::min);
    assert!(found < 0.5 * best && best < first, "from {first} to {found}, gradient descent to {best}");
}

/// The host reads keys, defaults and descriptions from the schema.
#[test]
fn the_schema_is_one_table_of_all_keys() {
    let schema = gauntlet_plugin_api::metadata::Metadata::of::<HessianFree>("0.0.0").schema;
    let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 10, "{schema:#}");
    assert_eq!(schema["properties"]["damping"]["default"], 1.0, "{schema:#}");
}

#[test]
fn settings_out_of_range_are_refused() {
    let refused = |config: Value| Harness::<HessianFree>::new(config, Problem::two_layer()).unwrap_err().to_string();
    assert_eq!(refused(json!({ "damping": -1.0 })), "damping: must be >= 0, got -1");
    assert_eq!(refused(json!({ "max_iterations": 0 })), "max_iterations: must be from 1 to 100000, got 0");
    assert_eq!(refused(json!({ "start_share": 1.5 })), "start_share: must be in [0, 1], got 1.5");
    assert_eq!(refused(json!({ "curvature_batch_size": 17 })), "curvature_batch_size: must be from 1 to 16, got 17");
    assert!(refused(json!({ "max_iteration": 5 })).contains("unknown field `max_iteration`"));
}
