//! The anchor stays: the model of every inner step is that at the step's parameters, by dense algebra written out here.

use super::*;
use gauntlet_plugin_api::testing::Outcome;
use std::ops::Range;

const TOKENS: [[usize; 2]; 12] =
    [[0, 1], [2, 3], [4, 4], [1, 0], [3, 2], [0, 3], [2, 2], [1, 4], [4, 0], [3, 1], [0, 0], [2, 4]];
const CLASSES: usize = 5;
const WIDTH: usize = 3;
const UNITS: usize = 4;
// Where each parameter begins in a flat vector, and its length.
const EMBEDDING: usize = 0;
const NORM: usize = 15;
const HIDDEN: usize = 18;
const BIAS: usize = 30;
const HEAD: usize = 34;
const END: usize = 54;
/// One block of everything.
const WHOLE: [Range<usize>; 1] = [Range { start: 0, end: END }];

/// Logits of a word and their Jacobian.
pub fn logits(theta: &[f64], word: usize) -> ([f64; CLASSES], [[f64; END]; CLASSES]) {
    let at = |base: usize, row: usize, width: usize, column: usize| base + row * width + column;
    let embedded = |j: usize| theta[at(EMBEDDING, word, WIDTH, j)];
    let input = |j: usize| theta[NORM + j] * embedded(j);
    let unit = |h: usize| {
        let sum: f64 = (0..WIDTH).map(|j| theta[at(HIDDEN, h, WIDTH, j)] * input(j)).sum();
        (sum + theta[BIAS + h]).tanh()
    };
    let (mut z, mut jacobian) = ([0.0; CLASSES], [[0.0; END]; CLASSES]);
    for class in 0..CLASSES {
        let row = &mut jacobian[class];
        for h in 0..UNITS {
            let weight = theta[at(HEAD, class, UNITS, h)];
            z[class] += weight * unit(h);
            row[at(HEAD, class, UNITS, h)] = unit(h);
            let slope = weight * (1.0 - unit(h) * unit(h));
            row[BIAS + h] = slope;
            for j in 0..WIDTH {
                row[at(HIDDEN, h, WIDTH, j)] = slope * input(j);
                row[at(EMBEDDING, word, WIDTH, j)] += slope * theta[at(HIDDEN, h, WIDTH, j)] * theta[NORM + j];
                row[NORM + j] += slope * theta[at(HIDDEN, h, WIDTH, j)] * embedded(j);
            }
        }
    }
    (z, jacobian)
}

fn softmax(z: &[f64]) -> Vec<f64> {
    let sum: f64 = z.iter().map(|z| z.exp()).sum();
    z.iter().map(|z| z.exp() / sum).collect()
}

/// Value, and J_l^T (g0 + H J_l delta_l) or J_l^T grad L(z0 + J_l delta_l) of each block l.
fn model(theta: &[f64], delta: &[f64], tokens: &[[usize; 2]], model: &str, blocks: &[Range<usize>]) -> (f64, Vec<f64>) {
    let (mut value, mut gradient) = (0.0, vec![0.0; END]);
    for [word, class] in tokens {
        let (z, jacobian) = logits(theta, *word);
        let loss = |z: &[f64]| -softmax(z)[*class].ln();
        value += loss(&z);
        for block in blocks {
            let v: Vec<f64> = jacobian.iter().map(|row| block.clone().map(|k| row[k] * delta[k]).sum()).collect();
            let moved: Vec<f64> = z.iter().zip(&v).map(|(z, v)| z + v).collect();
            let (p, label) = (softmax(&z), |c: usize| f64::from(u8::from(c == *class)));
            let mean: f64 = p.iter().zip(&v).map(|(p, v)| p * v).sum();
            let output: Vec<f64> = match model {
                "quadratic" => (0..CLASSES).map(|c| p[c] - label(c) + p[c] * (v[c] - mean)).collect(),
                _ => softmax(&moved).iter().enumerate().map(|(c, p)| p - label(c)).collect(),
            };
            value += match model {
                "quadratic" => (0..CLASSES).map(|c| v[c] * (p[c] - label(c) + 0.5 * p[c] * (v[c] - mean))).sum(),
                _ => loss(&moved) - loss(&z),
            };
            block.clone().for_each(|k| gradient[k] += (0..CLASSES).map(|c| jacobian[c][k] * output[c]).sum::<f64>());
        }
    }
    let mean = |x: f64| x / tokens.len() as f64;
    (mean(value), gradient.into_iter().map(mean).collect())
}

pub fn problem() -> Problem {
    let mut random = crate::probe::numbers(7);
    let sizes = [15, 3, 12, 4, 20];
    let params = sizes.iter().map(|size| (0..*size).map(|_| 1.2 * random()).collect()).collect();
    Problem::two_layer_of([TOKENS.to_vec(), TOKENS[3..].to_vec()], params).unwrap().batch_size(4)
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

/// Three steps of four minibatches of one sequence each.
fn anchor_holds<K: Kind>(kind: &str, blocks: &[Range<usize>]) {
    let config = json!({ "inner": sgd(0.8, 0.0), "inner_batch_size": 1, "model": kind, "line_search_candidates": 4 });
    let mut harness = run::<Gn<K>>(config, problem());
    for _ in 0..3 {
        let theta = harness.params();
        let mut values = vec![];
        for minibatch in TOKENS.chunks(3) {
            let phi = entry(&harness.save().unwrap(), "iterate");
            assert_eq!(harness.call().unwrap().outcome, Outcome::More);
            let given = entry(&harness.save().unwrap(), "inner.velocity");
            let (value, expected) = model(&theta, &difference(&phi, &theta), minibatch, kind, blocks);
            close(&given, &expected, 1e-10);
            let true_gradient = model(&phi, &[0.0; END], minibatch, kind, blocks).1;
            assert!(values.is_empty() || distance(&given, &true_gradient) > 1e-3, "{kind}: the anchor moved");
            assert_eq!(bits(&harness.params()), bits(&theta));
            values.push(value);
        }
        let result = harness.step().unwrap();
        for (name, value) in [("inner_value_first", values[0]), ("inner_value_last", values[3])] {
            close(&[metric(&result, name).unwrap()], &[value], 1e-10);
        }
    }
}

#[test]
fn every_inner_gradient_is_that_of_the_model_at_the_steps_parameters() {
    for kind in ["quadratic", "prox_linear"] {
        anchor_holds::<Full>(kind, &WHOLE);
        anchor_holds::<Layerwise>(kind, &[EMBEDDING..NORM, NORM..HEAD, HEAD..END]);
    }
}

#[test]
fn the_next_step_starts_at_the_rest_of_the_way() {
    let config = json!({ "inner": sgd(1.0, 0.5), "inner_batch_size": 1, "line_search_candidates": 6 });
    let mut harness = run::<Gn<Full>>(config, problem());
    let mut alphas = vec![];
    for _ in 0..6 {
        let before = harness.params();
        let result = harness.step().unwrap();
        let alpha = metric(&result, "line_search_step_size").unwrap();
        let phi = entry(&harness.save().unwrap(), "iterate");
        let (left, way) = (difference(&phi, &harness.params()), difference(&phi, &before));
        close(&left, &way.iter().map(|x| (1.0 - alpha) * x).collect::<Vec<_>>(), 1e-12);
        alphas.push(alpha);
    }
    assert!(alphas.contains(&1.0) && alphas.iter().any(|alpha| *alpha < 1.0), "{alphas:?}");
}

/// The first inner gradient after a step with alpha < 1 is that of the model at delta = (1 - alpha) (phi - theta), and
/// where the iterate is not taken over the plain one; the rule begins anew where its state is not.
#[test]
fn a_step_takes_over_iterate_and_state_as_it_is_told() {
    for (warm, iterate, state) in
        [("both", true, true), ("iterate", true, false), ("state", false, true), ("none", false, false)]
    {
        let config = json!({
            "inner": sgd(3.0, 0.5), "inner_batch_size": 1, "line_search_candidates": 2, "warm_start": warm,
        });
        let mut harness = run::<Gn<Full>>(config, problem());
        harness.step().unwrap();
        let (theta, before) = (harness.params(), harness.save().unwrap());
        harness.call().unwrap();
        let velocity = entry(&harness.save().unwrap(), "inner.velocity");
        let delta = if iterate { difference(&entry(&before, "iterate"), &theta) } else { vec![0.0; END] };
        let kept = if state { entry(&before, "inner.velocity") } else { vec![0.0; END] };
        let gradient = model(&theta, &delta, &TOKENS[..3], "quadratic", &WHOLE).1;
        let expected: Vec<f64> = gradient.iter().zip(kept).map(|(g, kept)| g + 0.5 * kept).collect();
        close(&velocity, &expected, 1e-10);
    }
}

#[test]
fn the_penalty_enters_value_and_gradient() {
    let config = json!({
        "inner": sgd(0.8, 0.0), "inner_batch_size": 2, "tikhonov": 0.7, "line_search": false,
    });
    let mut harness = run::<Gn<Layerwise>>(config, problem());
    let theta = harness.params();
    harness.call().unwrap();
    let delta = difference(&entry(&harness.save().unwrap(), "iterate"), &theta);
    let result = harness.step().unwrap();
    let blocks = [EMBEDDING..NORM, NORM..HEAD, HEAD..END];
    let (value, gradient) = model(&theta, &delta, &TOKENS[6..], "quadratic", &blocks);
    let penalty: f64 = delta.iter().map(|x| 0.35 * x * x).sum();
    close(&[metric(&result, "inner_value_last").unwrap()], &[value + penalty], 1e-10);
    let expected: Vec<f64> = gradient.iter().zip(&delta).map(|(g, delta)| g + 0.7 * delta).collect();
    close(&entry(&harness.save().unwrap(), "inner.velocity"), &expected, 1e-10);
}
