//! Parts of a step: their data, the step sizes of the inner rule, averages, and what a step says of itself.

use super::*;
use gauntlet_plugin_api::Position;
use gauntlet_plugin_api::testing::Outcome;

/// Positions that the state holds under a name at every return of `steps` steps.
fn positions(harness: &mut Harness<Gn<Full>>, name: &str, steps: usize) -> Vec<Position> {
    let mut positions: Vec<Position> = vec![];
    while harness.steps() < steps as u64 {
        harness.call().unwrap();
        let state = harness.save().unwrap();
        let entry = state.entries.iter().find(|entry| entry.name == name);
        let position = entry.map(|entry| Position::from_json(std::str::from_utf8(&entry.bytes).unwrap()).unwrap());
        positions.extend(position.filter(|position| positions.last() != Some(position)));
    }
    positions
}

#[test]
fn every_minibatch_is_fresh_and_the_search_has_its_own() {
    let config = |stream: &str| {
        json!({
            "inner": sgd(0.1, 0.0), "inner_batch_size": 2, "line_search_stream": stream, "line_search_batches": 2,
        })
    };
    let batches = |stream: &str, name: &str| {
        let mut harness = run::<Gn<Full>>(config(stream), Problem::two_layer().batch_size(6));
        let parts = positions(&mut harness, name, 3).into_iter().map(|position| {
            let part = position.parts[0];
            (part.purpose, part.first, part.count)
        });
        (parts.collect::<Vec<_>>(), [Purpose::STEP, Purpose::LINE_SEARCH].map(|purpose| harness.drawn(purpose)))
    };
    let (step, search) = (Purpose::STEP.0, Purpose::LINE_SEARCH.0);
    let own = [(step, 0, 6), (step, 6, 6), (step, 12, 6)];
    assert_eq!(batches("own", "solve.batch"), (own.to_vec(), [18, 12]));
    assert_eq!(batches("own", "search.batch").0, [(search, 0, 4), (search, 4, 4), (search, 8, 4)]);
    // The authors' order: the search reads on where the solve ended.
    assert_eq!(batches("shared", "solve.batch"), (vec![(step, 0, 6), (step, 10, 6), (step, 20, 6)], [30, 0]));
    assert_eq!(batches("shared", "search.batch").0, [(step, 6, 4), (step, 16, 4), (step, 26, 4)]);
}

#[test]
fn a_step_returns_after_every_inner_step_and_every_minibatch_of_the_search() {
    let config = json!({ "inner": sgd(0.1, 0.0), "inner_batch_size": 2, "line_search_batches": 4 });
    let mut harness = run::<Gn<Full>>(config, Problem::two_layer().batch_size(6));
    let mut calls = 1;
    while harness.call().unwrap().outcome == Outcome::More {
        calls += 1;
    }
    assert_eq!(calls, 3 + 4);
}

/// T = 5 steps, the run's cosine read once a step, an inner cosine: the first of each step, by its peak.
#[test]
fn schedules_compose() {
    let multipliers = |more: Value| {
        let config = json!({ "inner": sgd(0.1, 0.0), "inner_batch_size": 1, "line_search": false });
        let mut harness = run::<Gn<Full>>(with(config, more), Problem::softmax_regression().batch_size(4));
        harness.set_schedule(|x| 0.5 * (1.0 + (std::f64::consts::PI * x / 5.0).cos()));
        let of = |result: &StepResult| {
            ["inner_multiplier_first", "inner_multiplier_last"].map(|name| metric(result, name).unwrap())
        };
        (0..5).map(|_| of(&harness.step().unwrap())).collect::<Vec<_>>()
    };
    let near = |found: f64, expected: f64| assert!((found - expected).abs() < 5e-4, "{found} {expected}");
    let global_and_inner = multipliers(json!({ "outer_at": "step", "inner_schedule": "cosine" }));
    for ([first, last], expected) in global_and_inner.iter().zip([1.0, 0.905, 0.655, 0.345, 0.095]) {
        near(*first, expected);
        near(*last, expected * 0.5 * (1.0 + (0.75 * std::f64::consts::PI).cos()));
    }
    // The global cosine over all T N inner steps: the counter goes on from step to step.
    let global = multipliers(json!({}));
    for (t, [first, last]) in global.iter().enumerate() {
        let at = |c: f64| 0.5 * (1.0 + (std::f64::consts::PI * c / 20.0).cos());
        near(*first, at(4.0 * t as f64));
        near(*last, at(4.0 * t as f64 + 3.0));
    }
    // Without a warm start the run's schedule goes on all the same.
    assert_eq!(multipliers(json!({ "warm_start": "none" })), global);
}

#[test]
fn full_averages_inner_iterates_without_a_search_and_leaves_steps_to_the_host() {
    fn average<K: Kind>(search: bool) -> (Option<Vec<f64>>, Vec<Vec<f64>>) {
        let config = json!({ "inner": sgd(0.5, 0.0), "inner_batch_size": 2, "line_search": search });
        let mut harness = run::<Gn<K>>(config, Problem::two_layer().batch_size(6));
        let mut iterates = vec![];
        for _ in 0..3 {
            harness.call().unwrap();
            iterates.push(entry(&harness.save().unwrap(), "iterate"));
        }
        (harness.ema(), iterates)
    }
    let (ema, iterates) = average::<Full>(false);
    let expected = iterates.iter().skip(1).fold(iterates[0].clone(), |average, iterate| {
        average.iter().zip(iterate).map(|(a, x)| 0.9 * a + 0.1 * x).collect()
    });
    close(&ema.unwrap(), &expected, 1e-14);
    assert!(average::<Full>(true).0.is_none() && average::<Layerwise>(false).0.is_none());
}

/// The minimum of the model over free logits is (1 - 1 / p) / 2 for a token whose label has probability p. That of this
/// model was found to be -0.3331857537760774 by the functions of tests/data/gauss-newton/loop.py.
#[test]
fn a_negative_value_of_the_model_is_shown_beside_the_true_loss() {
    let config = json!({ "inner": sgd(0.05, 0.9), "inner_batch_size": 1, "line_search": false });
    let mut harness = run::<Gn<Full>>(config, super::exact::one_sequence().batch_size(401));
    let result = harness.step().unwrap();
    close(&[metric(&result, "inner_value_first").unwrap(), result.loss], &[2.222_035_566_845_264_5; 2], 1e-14);
    close(&[metric(&result, "inner_value_last").unwrap()], &[-0.333_185_753_776_077_4], 1e-12);
}

#[test]
fn norms_of_the_update_by_role_are_those_of_the_change() {
    let config = json!({ "inner": sgd(3.0, 0.5), "inner_batch_size": 1, "line_search_candidates": 6 });
    let mut harness = run::<Gn<Full>>(config, super::anchor::problem());
    for _ in 0..3 {
        let before = harness.params();
        let result = harness.step().unwrap();
        let change: Vec<f64> = harness.params().iter().zip(&before).map(|(a, b)| a - b).collect();
        let norm = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>().sqrt();
        for (name, expected) in [
            ("update_norm", norm(&change)),
            ("param_norm", norm(&before)),
            ("update_norm_embedding", norm(&change[..15])),
            ("update_norm_norm", norm(&change[15..18])),
            ("update_norm_hidden", norm(&change[18..30])),
            ("update_norm_bias", norm(&change[30..34])),
            ("update_norm_head", norm(&change[34..])),
        ] {
            close(&[metric(&result, name).unwrap()], &[expected], 1e-12);
        }
    }
}
