//! Cases in which Gauss-Newton is another, simpler optimizer.

use super::*;

fn schedule(x: f64) -> f64 {
    1.0 / (1.0 + x)
}

/// Params and losses of four steps.
fn four<O: Optimizer>(config: Value, problem: Problem) -> Vec<(f64, Vec<f64>)> {
    let mut harness = run::<O>(config, problem);
    harness.set_schedule(schedule);
    (0..4).map(|_| (harness.step().unwrap().loss, harness.params())).collect()
}

/// One inner step from theta without a line search: the rule itself, bit for bit.
#[test]
fn one_inner_step_from_the_parameters_is_the_rule() {
    let rules = [
        sgd(0.3, 0.9),
        json!({ "adamw": { "lr": 0.05, "weight_decay": 0.1 } }),
        json!({ "muon": { "lr": 0.05, "weight_decay": 0.1 } }),
        json!({ "muon": { "lr": 0.05, "variant": "optax" } }),
        json!({ "soap": { "lr": 0.05, "precondition_frequency": 2 } }),
    ];
    for inner in rules {
        let plain = json!({ "inner": inner, "inner_batch_size": 4 });
        let expected = four::<Plain>(plain.clone(), Problem::two_layer().batch_size(4));
        for model in ["quadratic", "prox_linear"] {
            let config = with(plain.clone(), json!({ "model": model, "line_search": false }));
            for found in [
                four::<Gn<Full>>(config.clone(), Problem::two_layer().batch_size(4)),
                four::<Gn<Layerwise>>(config, Problem::two_layer().batch_size(4)),
            ] {
                for ((loss, params), (expected_loss, expected)) in found.iter().zip(&expected) {
                    assert_eq!(loss.to_bits(), expected_loss.to_bits(), "{inner}");
                    assert_eq!(bits(params), bits(expected), "{inner}");
                }
            }
        }
    }
}

/// Without a warm start a rule keeps no momentum from step to step, so it is tried with rules that have none.
#[test]
fn one_inner_step_without_warm_start_is_a_rule_without_momentum() {
    for inner in [sgd(0.3, 0.0), json!({ "muon": { "lr": 0.05, "momentum": 0.0, "adam": { "betas": [0.0, 0.0] } } })] {
        let plain = json!({ "inner": inner, "inner_batch_size": 4 });
        let reset = with(plain.clone(), json!({ "line_search": false, "warm_start": "none" }));
        let problem = || Problem::two_layer().batch_size(4);
        let (found, expected) = (four::<Gn<Full>>(reset, problem()), four::<Plain>(plain, problem()));
        for ((loss, params), (expected_loss, expected)) in found.iter().zip(&expected) {
            assert_eq!((loss.to_bits(), bits(params)), (expected_loss.to_bits(), bits(expected)));
        }
    }
}

/// L(z0 + J delta) of a model that is linear in its parameters is L at theta + delta: N steps of the rule itself.
#[test]
fn prox_linear_on_a_linear_model_is_the_rule_on_each_minibatch() {
    let rules = [sgd(0.5, 0.8), json!({ "adamw": { "lr": 0.1 } }), json!({ "muon": { "lr": 0.1 } })];
    for inner in rules {
        for (size, problem) in
            [(16, Problem::softmax_regression()), (8, Problem::softmax_regression()), (2, Problem::squared())]
        {
            let plain = json!({ "inner": inner, "inner_batch_size": size });
            let config = with(plain.clone(), json!({ "model": "prox_linear", "line_search": false }));
            let expected = four::<Plain>(plain, problem.clone());
            for (found, expected) in four::<Gn<Full>>(config, problem).iter().zip(&expected) {
                close(&found.1, &expected.1, 1e-11);
            }
        }
    }
}

/// The loss itself is the rule on each minibatch for every model.
#[test]
fn the_loss_as_its_own_model_is_the_rule_on_each_minibatch() {
    for inner in [sgd(0.5, 0.8), json!({ "adamw": { "lr": 0.1 } }), json!({ "muon": { "lr": 0.1 } })] {
        let plain = json!({ "inner": inner, "inner_batch_size": 2 });
        let config = with(plain.clone(), json!({ "model": "loss", "line_search": false }));
        let problem = || Problem::two_layer().batch_size(8);
        for (found, expected) in four::<Gn<Full>>(config, problem()).iter().zip(four::<Plain>(plain, problem())) {
            assert_eq!(bits(&found.1), bits(&expected.1), "{inner}");
        }
    }
}

/// Without curvature all inner steps see the gradient at the anchor: by plain descent they are one step of the batch.
#[test]
fn inner_descent_on_a_linear_model_is_one_step_of_the_batch() {
    let problem = || Problem::two_layer().batch_size(8);
    let config = |model: &str| {
        let rest = json!({ "model": model, "outer_at": "step", "line_search": false });
        with(json!({ "inner": sgd(0.1, 0.0), "inner_batch_size": 2 }), rest)
    };
    let expected = four::<Plain>(json!({ "inner": sgd(0.4, 0.0), "inner_batch_size": 8 }), problem());
    let full = four::<Gn<Full>>(config("linear"), problem());
    let by_layer = four::<Gn<Layerwise>>(config("linear"), problem());
    for ((full, by_layer), expected) in full.iter().zip(&by_layer).zip(&expected) {
        assert_eq!(bits(&full.1), bits(&by_layer.1));
        close(&full.1, &expected.1, 1e-13);
    }
    assert!(distance(&four::<Gn<Full>>(config("quadratic"), problem())[0].1, &full[0].1) > 1e-6);
}

/// On the squared loss the quadratic model of a linear model is the loss too; on cross-entropy it is not.
#[test]
fn the_quadratic_model_is_the_loss_only_where_the_loss_is_quadratic() {
    let plain = json!({ "inner": sgd(0.5, 0.8), "inner_batch_size": 4 });
    let config = with(plain.clone(), json!({ "model": "quadratic", "line_search": false }));
    let last = |config: &Value, problem: Problem| four::<Gn<Full>>(config.clone(), problem)[3].1.clone();
    close(&last(&config, Problem::squared()), &four::<Plain>(plain.clone(), Problem::squared())[3].1, 1e-11);
    let softmax = Problem::softmax_regression;
    assert!(distance(&last(&config, softmax()), &four::<Plain>(plain, softmax())[3].1) > 1e-4);
}

#[test]
fn a_partition_of_one_block_is_full_bit_for_bit() {
    let problem = || Problem::two_layer().batch_size(8);
    let configs = [
        json!({ "inner": sgd(0.8, 0.5), "inner_batch_size": 2, "clip": "global", "clip_norm": 0.2 }),
        json!({ "inner": "muon", "inner_batch_size": 2, "model": "prox_linear" }),
        json!({ "inner": { "cg": { "damping": 0.01, "max_iterations": 25 } }, "inner_batch_size": 4 }),
    ];
    for config in configs {
        let full = four::<Gn<Full>>(config.clone(), problem());
        assert_eq!(four::<Gn<OneBlock>>(config.clone(), problem()), full, "{config}");
        assert_ne!(four::<Gn<Layerwise>>(config.clone(), problem()), full, "{config}");
    }
    // A block's own norm is the whole gradient's where there is one block.
    let clipped = |clip: &str| json!({ "inner": sgd(0.8, 0.5), "inner_batch_size": 2, "clip": clip, "clip_norm": 0.2 });
    let (per_block, global) = (clipped("per_block"), clipped("global"));
    for (found, expected) in four::<Gn<OneBlock>>(per_block, problem()).iter().zip(four::<Gn<Full>>(global, problem()))
    {
        close(&found.1, &expected.1, 1e-12);
    }
}

/// The blocks of one layerwise step are independent: a partition with one block's learning alone gives that block.
#[test]
fn clipping_a_block_does_not_touch_the_others() {
    let problem = || Problem::two_layer().batch_size(2);
    let config =
        |more: Value| with(json!({ "inner": sgd(0.8, 0.0), "inner_batch_size": 1, "line_search": false }), more);
    let first = |config: Value| {
        let mut harness = run::<Gn<Layerwise>>(config, problem());
        harness.call().unwrap();
        entry(&harness.save().unwrap(), "inner.velocity")
    };
    let (free, clipped) = (first(config(json!({}))), first(config(json!({ "clip_norm": 0.05 }))));
    let norm = |g: &[f64]| g.iter().map(|x| x * x).sum::<f64>().sqrt();
    for block in [0..15, 15..34, 34..54] {
        let (free, clipped) = (&free[block.clone()], &clipped[block]);
        let scale = (0.05 / norm(free)).min(1.0);
        close(clipped, &free.iter().map(|g| scale * g).collect::<Vec<_>>(), 1e-12);
    }
    assert!([0..15, 15..34, 34..54].into_iter().any(|block| norm(&free[block]) > 0.05));
}
