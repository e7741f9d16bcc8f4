//! Four unlike users of the interface: each trains the small problems and passes the conformance suite.

#[path = "fixtures/gauss_newton.rs"]
mod gauss_newton;
#[path = "fixtures/hessian_free.rs"]
mod hessian_free;
#[path = "fixtures/kfac.rs"]
mod kfac;
#[path = "fixtures/psgd.rs"]
mod psgd;

use gauntlet_plugin_api::testing::{Harness, Outcome, Problem, conformance, json};
use gauntlet_plugin_api::{Optimizer, Purpose};
use gauss_newton::GaussNewton;
use hessian_free::HessianFree;
use kfac::Kfac;
use psgd::Psgd;
use serde_json::Value;
use std::sync::LazyLock;

fn gauss_newton(subproblem: &str, layerwise: bool) -> Value {
    json!({
        "subproblem": subproblem, "layerwise": layerwise, "inner_batch_size": 4, "passes": 5,
        "lr": 0.5, "momentum": 0.5, "clip": 1.0,
    })
}

fn kfac(solver: &str) -> Value {
    json!({ "lr": 0.3, "damping": 0.01, "decay": 0.95, "inverse_every": 3, "solver": solver })
}

fn hessian_free() -> Value {
    json!({ "damping": 1.0, "max_iterations": 30 })
}

fn psgd() -> Value {
    json!({ "lr": 0.1, "precond_lr": 0.1, "max_norm": 1.0 })
}

#[test]
fn gauss_newton_conforms() {
    for subproblem in ["quadratic", "prox_linear"] {
        [false, true].into_iter().for_each(|layerwise| conformance::<GaussNewton>(gauss_newton(subproblem, layerwise)));
    }
}

#[test]
fn hessian_free_conforms() {
    conformance::<HessianFree>(hessian_free());
}

#[test]
fn kfac_conforms() {
    ["inverse", "eigen"].into_iter().for_each(|solver| conformance::<Kfac>(kfac(solver)));
}

#[test]
fn psgd_conforms() {
    conformance::<Psgd>(psgd());
}

fn problems() -> [Problem; 3] {
    [Problem::softmax_regression(), Problem::two_layer(), Problem::squared()]
}

fn run<O: Optimizer>(config: Value, problem: Problem, steps: usize) -> Harness<O> {
    let mut harness = Harness::<O>::new(config, problem).unwrap();
    for _ in 0..steps {
        harness.step().unwrap();
    }
    harness
}

/// The losses that Hessian-free reaches on the problems in 40 steps.
static BEST: LazyLock<[f64; 3]> =
    LazyLock::new(|| problems().map(|problem| run::<HessianFree>(hessian_free(), problem, 40).loss().unwrap()));

/// Closes at least nine tenths of the gap between the first loss and the best.
#[track_caller]
fn trains<O: Optimizer>(config: Value, steps: usize) {
    for (problem, best) in problems().into_iter().zip(*BEST) {
        let first = run::<O>(config.clone(), problem.clone(), 0).loss().unwrap();
        let last = run::<O>(config.clone(), problem.clone(), steps).loss().unwrap();
        assert!(last - best < 0.1 * (first - best), "{problem:?}: from {first} to {last}, best {best}");
    }
}

#[test]
fn gauss_newton_trains() {
    for subproblem in ["quadratic", "prox_linear"] {
        [false, true].into_iter().for_each(|layerwise| trains::<GaussNewton>(gauss_newton(subproblem, layerwise), 15));
    }
}

#[test]
fn kfac_trains() {
    ["inverse", "eigen"].into_iter().for_each(|solver| trains::<Kfac>(kfac(solver), 60));
}

#[test]
fn psgd_trains() {
    trains::<Psgd>(psgd(), 150);
}

#[test]
fn gauss_newton_solves_least_squares_in_one_step() {
    for subproblem in ["quadratic", "prox_linear"] {
        let config = json!({
            "subproblem": subproblem, "layerwise": false, "inner_batch_size": 16, "passes": 120,
            "lr": 4.0, "momentum": 0.3, "clip": 1e9,
        });
        let mut harness = Harness::<GaussNewton>::new(config, Problem::squared()).unwrap();
        let first = harness.gradient_norm().unwrap();
        let result = harness.step().unwrap();
        assert_eq!(result.metrics, [("line_search_rate".to_string(), 1.0)]);
        let last = harness.gradient_norm().unwrap();
        assert!(first > 0.1 && last < 1e-12, "from {first} to {last}");
    }
}

#[test]
fn gauss_newton_reads_each_minibatch_and_searches_on_other_data() {
    let mut harness = Harness::<GaussNewton>::new(gauss_newton("quadratic", true), Problem::two_layer()).unwrap();
    let mut calls = 1;
    while harness.call().unwrap().outcome == Outcome::More {
        calls += 1;
    }
    assert_eq!(calls, 5 * 4 + 4 + 1);
    assert_eq!((harness.drawn(Purpose::STEP), harness.drawn(Purpose::LINE_SEARCH)), (16, 16));
}

#[test]
fn hessian_free_reaches_a_stationary_point() {
    // The loss of two layers is not convex: there it takes longer.
    for (problem, tolerance) in problems().into_iter().zip([1e-5, 1e-3, 1e-5]) {
        let mut harness = Harness::<HessianFree>::new(hessian_free(), problem.clone()).unwrap();
        let first = (harness.loss().unwrap(), harness.gradient_norm().unwrap());
        (0..60).for_each(|_| drop(harness.step().unwrap()));
        let last = (harness.loss().unwrap(), harness.gradient_norm().unwrap());
        assert!(last.0 < first.0 && last.1 < tolerance * first.1, "{problem:?}: from {first:?} to {last:?}");
    }
}

#[test]
fn kfac_is_the_same_by_inverse_and_by_eigenvectors() {
    let params = |solver| run::<Kfac>(kfac(solver), Problem::two_layer().batch_size(4), 10).params();
    let worst = params("inverse").iter().zip(params("eigen")).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-10, "{worst:e}");
}
