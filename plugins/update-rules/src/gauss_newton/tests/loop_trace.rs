//! The whole loop against tests/data/gauss-newton/loop.py: gradients, iterates, losses, step sizes, parameters, averages,
//! counts.

use super::*;
use gauntlet_plugin_api::testing::{Outcome, Snapshot};
use safetensors::SafeTensors;

const TRACE: &[u8] = include_bytes!("../../../../../tests/data/gauss-newton/loop.safetensors");
const TOLERANCE: f64 = 1e-8;
/// Inner steps of one step.
const INNER: usize = 3;

/// Rows of a tensor of the trace, of f64 or i64; `None` where the case has no such tensor.
fn rows(name: &str) -> Option<Vec<Vec<f64>>> {
    let trace = SafeTensors::deserialize(TRACE).unwrap();
    let tensor = trace.tensor(name).ok()?;
    let number = |x: &[u8; 8]| match tensor.dtype() {
        safetensors::Dtype::F64 => f64::from_le_bytes(*x),
        _ => i64::from_le_bytes(*x) as f64,
    };
    let numbers: Vec<f64> = tensor.data().as_chunks::<8>().0.iter().map(number).collect();
    let width = tensor.shape().get(1..).map_or(1, |sizes| sizes.iter().product());
    Some(numbers.chunks(width).map(<[f64]>::to_vec).collect())
}

fn problem() -> Problem {
    let tokens = ["tokens.step", "tokens.line_search"].map(|name| {
        let numbers: Vec<usize> = rows(name).unwrap().concat().into_iter().map(|x| x as usize).collect();
        numbers.as_chunks::<2>().0.to_vec()
    });
    let mut params = rows("params").unwrap().concat();
    let sizes: Vec<usize> = Problem::two_layer().specs().iter().map(ParamSpec::numel).collect();
    let params = sizes.iter().map(|size| params.drain(..size).collect()).collect();
    Problem::two_layer_of(tokens, params).unwrap().batch_size(2 * INNER as u64)
}

/// What a run of one case leaves, under the trace's names.
#[derive(Default)]
struct Found {
    gradients: Vec<Vec<f64>>,
    iterates: Vec<Vec<f64>>,
    losses: Vec<Vec<f64>>,
    alphas: Vec<Vec<f64>>,
    params: Vec<Vec<f64>>,
    ema: Vec<Vec<f64>>,
    counters: Vec<Vec<f64>>,
}

/// The gradient that the rule was given, from its state before and after.
fn gradient(config: &Value, before: &SavedState, after: &SavedState) -> Vec<f64> {
    let inner = &config["inner"];
    let (name, beta, share) = match inner.get("sgd") {
        Some(sgd) => ("inner.velocity", sgd["momentum"].as_f64().unwrap(), 1.0),
        None => {
            let beta = inner["adamw"]["betas"][0].as_f64().unwrap();
            ("inner.first_moment", beta, 1.0 - beta)
        }
    };
    let fresh = config["warm_start"] == "none" && before.entries.iter().all(|entry| entry.name != "solve.batch");
    let beta = if fresh { 0.0 } else { beta };
    entry(after, name).iter().zip(entry(before, name)).map(|(after, before)| (after - beta * before) / share).collect()
}

fn schedule(x: f64) -> f64 {
    0.5 * (1.0 + (std::f64::consts::PI * x / 4.0).cos())
}

fn found<K: Kind>(config: &Value) -> Found {
    let mut harness = run::<Gn<K>>(config.clone(), problem());
    harness.set_schedule(schedule);
    let mut found = Found::default();
    for _ in 0..4 {
        for i in 0..INNER {
            if i == INNER - 1 && config["line_search"] != false {
                found.losses.push(candidate_losses::<K>(config, &harness.snapshot().unwrap()));
            }
            let before = harness.save().unwrap();
            let result = harness.call().unwrap();
            let after = harness.save().unwrap();
            found.gradients.push(gradient(config, &before, &after));
            found.iterates.push(entry(&after, "iterate"));
            if result.outcome != Outcome::More {
                found.finish(&harness, &result);
            }
        }
        if config["line_search"] != false {
            let result = harness.step().unwrap();
            found.finish(&harness, &result);
        }
    }
    found
}

impl Found {
    fn finish<K: Kind>(&mut self, harness: &Harness<Gn<K>>, result: &StepResult) {
        self.params.push(harness.params());
        self.alphas.push(vec![metric(result, "line_search_step_size").unwrap_or(1.0)]);
        self.ema.extend(harness.ema());
        let drawn = [Purpose::STEP, Purpose::LINE_SEARCH].map(|purpose| harness.drawn(purpose) as f64);
        self.counters.push([&[metric(result, "line_search_grid_end_steps").unwrap()], &drawn[..]].concat());
        if let (Some(zero), Some(best)) =
            (metric(result, "line_search_loss_at_zero"), metric(result, "line_search_loss"))
        {
            let losses = self.losses.last().unwrap();
            let least = losses[1..].iter().copied().fold(f64::INFINITY, f64::min);
            close(&[zero, best], &[losses[0], least], 1e-14);
        }
    }
}

/// The mean losses at 0 and at every candidate, from a run whose search is one minibatch longer: stopped before that one
/// its state holds the sums.
fn candidate_losses<K: Kind>(config: &Value, before_last_inner: &Snapshot) -> Vec<f64> {
    let longer = with(config.clone(), json!({ "line_search_batches": INNER + 1 }));
    let mut harness = run::<Gn<K>>(longer, problem());
    harness.set_schedule(schedule);
    harness.restore(before_last_inner).unwrap();
    (0..1 + INNER).for_each(|_| drop(harness.call().unwrap()));
    let state = harness.save().unwrap();
    let sums = [entry(&state, "search.loss_at_zero"), entry(&state, "search.losses")].concat();
    sums.into_iter().map(|sum| sum / INNER as f64).collect()
}

#[test]
fn every_number_of_the_loop_is_that_of_the_reference() {
    let (_, metadata) = SafeTensors::read_metadata(TRACE).unwrap();
    let cases: Value = serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap();
    assert_eq!(cases.as_object().unwrap().len(), 11);
    for (name, case) in cases.as_object().unwrap() {
        let config = &case["config"];
        let found = if case["layerwise"] == true { found::<Layerwise>(config) } else { found::<Full>(config) };
        let numbers = [
            ("gradients", found.gradients),
            ("iterates", found.iterates),
            ("losses", found.losses),
            ("alphas", found.alphas),
            ("params", found.params),
            ("ema", found.ema),
            ("counters", found.counters),
        ];
        for (what, found) in numbers {
            let expected = rows(&format!("{name}.{what}")).unwrap_or_default();
            assert_eq!(found.len(), expected.len(), "{name}: {what}");
            for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let distance = distance(found, expected);
                assert!(distance <= TOLERANCE, "{name}: {what}, row {step}: {distance:e}");
            }
        }
    }
}
