//! Products against brute force: finite differences of the loss, dense matrices, and the identities between them.

use super::super::data::Cursors;
use super::super::loss::Fault;
use super::super::problem::Problem;
use super::*;
use crate::batch::Position;
use crate::random::{fill, purpose_number};
use crate::structure::{Blocks, Structure};
use gauntlet_plugin_abi::{Purpose, RandomKey, RandomKind};

const STEP: f64 = 1e-5;

fn problems() -> [Problem; 3] {
    [Problem::softmax_regression(), Problem::two_layer(), Problem::squared()]
}

fn batch(problem: &Problem, sequences: u64) -> Position {
    Cursors::default().draw(Purpose::STEP, sequences, problem.seq_len).unwrap()
}

fn dense(problem: &Problem, params: &[f64]) -> Dense {
    Dense::new(problem, params.to_vec(), &batch(problem, 4), None, 0).unwrap()
}

fn anchor(problem: &Problem) -> Vec<f64> {
    problem.initial().concat()
}

fn random(count: usize, draw: u64) -> Vec<f64> {
    fill(RandomKind::NORMAL, &RandomKey { seed: 5, purpose: 0, step: 0, draw }, count).unwrap()
}

/// A linearization at the initial parameters.
fn linearized(problem: &Problem, structure: &Structure) -> Linearization {
    let specs = problem.specs();
    let blocks = Blocks::resolve(structure, &specs).unwrap();
    let each = specs.iter().zip(blocks.of_param());
    let block_of = each.flat_map(|(spec, block)| vec![*block; spec.numel()]).collect();
    Linearization::new(dense(problem, &anchor(problem)), block_of, blocks.count(), problem.layers())
}

fn full(problem: &Problem) -> Linearization {
    linearized(problem, &Structure::Full)
}

fn params(answer: Answer) -> Vec<f64> {
    answer.params.unwrap()
}

fn product(at: &Linearization, what: ProductKind, v: &[f64]) -> Answer {
    at.product(&what, v).unwrap()
}

fn loss(problem: &Problem, params: &[f64]) -> f64 {
    evaluate(&dense(problem, params), &Evaluation::Loss, &[]).values[0]
}

fn gradient(problem: &Problem, at: &[f64]) -> Vec<f64> {
    params(evaluate(&dense(problem, at), &Evaluation::Gradient(Labels::Data), &[]))
}

/// Central differences of a scalar function.
fn differences(at: &[f64], f: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    let shifted = |i: usize, by: f64| {
        let mut moved = at.to_vec();
        moved[i] += by;
        f(&moved)
    };
    (0..at.len()).map(|i| (shifted(i, STEP) - shifted(i, -STEP)) / (2.0 * STEP)).collect()
}

fn plus(a: &[f64], scale: f64, b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a + scale * b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[track_caller]
fn assert_near(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let scale = 1.0 + expected.iter().fold(0.0_f64, |a, b| a.max(b.abs()));
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst <= tolerance * scale, "off by {worst:e}: {found:?} instead of {expected:?}");
}

#[test]
fn gradients_are_differences_of_the_loss() {
    for problem in problems() {
        let at = anchor(&problem);
        let expected = differences(&at, |params| loss(&problem, params));
        assert_near(&gradient(&problem, &at), &expected, 1e-9);
        let local = full(&problem);
        assert_near(&params(product(&local, ProductKind::Gradient, &[])), &gradient(&problem, &at), 1e-14);
        assert_eq!(product(&local, ProductKind::Loss, &[]).values, [loss(&problem, &at)]);
    }
}

#[test]
fn jvp_and_vjp_are_adjoint_and_jvp_is_a_difference_of_logits() {
    for problem in problems() {
        let (at, local) = (anchor(&problem), full(&problem));
        let v = random(at.len(), 0);
        let tangent = flat(&product(&local, ProductKind::Jvp, &v).matrices[0]).to_vec();
        let logits = |scale| flat(&dense(&problem, &plus(&at, scale, &v)).logits).to_vec();
        let expected: Vec<f64> = plus(&logits(STEP), -1.0, &logits(-STEP)).iter().map(|d| d / (2.0 * STEP)).collect();
        assert_near(&tangent, &expected, 1e-8);
        let u = random(tangent.len(), 1);
        let pulled = params(product(&local, ProductKind::Vjp, &u));
        assert!((dot(&tangent, &u) - dot(&v, &pulled)).abs() < 1e-12 * (1.0 + dot(&v, &pulled).abs()));
    }
}

#[test]
fn hessian_products_are_differences_of_the_gradient() {
    for problem in problems() {
        let (at, v) = (anchor(&problem), random(anchor(&problem).len(), 2));
        let ahead = gradient(&problem, &plus(&at, STEP, &v));
        let behind = gradient(&problem, &plus(&at, -STEP, &v));
        let expected: Vec<f64> = plus(&ahead, -1.0, &behind).iter().map(|d| d / (2.0 * STEP)).collect();
        let found = params(product(&full(&problem), ProductKind::HessianVectorProduct, &v));
        assert_near(&found, &expected, 1e-8);
    }
}

/// J^T H J from J and the Hessian of the loss in the logits, both by differences.
fn dense_ggn(problem: &Problem) -> Array2<f64> {
    let (local, size) = (full(problem), anchor(problem).len());
    let z0 = local.dense.logits.clone();
    let data = local.dense.targets(Labels::Data);
    let output_gradient = |z: &[f64]| -> Vec<f64> {
        let loss = |z: &[f64]| local.dense.loss(&Array2::from_shape_vec(z0.dim(), z.to_vec()).unwrap(), &data);
        differences(z, loss)
    };
    let z = flat(&z0).to_vec();
    let mut hessian = Array2::zeros((z.len(), z.len()));
    for i in 0..z.len() {
        let shift = |by: f64| {
            let mut moved = z.clone();
            moved[i] += by;
            output_gradient(&moved)
        };
        // A larger step: these are differences of differences.
        let row: Vec<f64> = plus(&shift(1e-3), -1.0, &shift(-1e-3)).iter().map(|d| d / 2e-3).collect();
        hessian.row_mut(i).assign(&Array1::from(row));
    }
    let mut jacobian = Array2::zeros((z.len(), size));
    for i in 0..size {
        let mut unit = vec![0.0; size];
        unit[i] = 1.0;
        jacobian.column_mut(i).assign(&flat(&product(&local, ProductKind::Jvp, &unit).matrices[0]));
    }
    jacobian.t().dot(&hessian).dot(&jacobian)
}

#[test]
fn ggn_products_are_those_of_the_dense_matrix_symmetric_and_not_negative() {
    for problem in problems() {
        let (local, size) = (full(&problem), anchor(&problem).len());
        let (u, v) = (random(size, 3), random(size, 4));
        let found = params(product(&local, ProductKind::GgnVectorProduct, &v));
        assert_near(&found, &dense_ggn(&problem).dot(&Array1::from(v.clone())).to_vec(), 1e-5);
        let other = params(product(&local, ProductKind::GgnVectorProduct, &u));
        assert!((dot(&u, &found) - dot(&v, &other)).abs() < 1e-12 * (1.0 + dot(&u, &found).abs()));
        assert!(dot(&v, &found) >= 0.0);
    }
}

#[test]
fn ggn_is_the_hessian_where_the_model_is_linear_and_only_there() {
    for (problem, linear) in problems().into_iter().zip([true, false, true]) {
        let (local, v) = (full(&problem), random(anchor(&problem).len(), 5));
        let ggn = params(product(&local, ProductKind::GgnVectorProduct, &v));
        let hessian = params(product(&local, ProductKind::HessianVectorProduct, &v));
        let gap = plus(&ggn, -1.0, &hessian).iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        assert_eq!(gap < 1e-12, linear, "{problem:?}: {gap}");
    }
}

#[test]
fn hessian_of_the_loss_sums_to_zero_and_does_not_see_the_target() {
    let (z, v) = (random(4, 6), random(4, 7));
    let [a, b] = [0, 3].map(|class| super::super::loss::hessian_product(&z, &Target::Class(class), &v));
    assert_eq!(a, b);
    assert!(a.iter().sum::<f64>().abs() < 1e-15);
    let constant = super::super::loss::hessian_product(&z, &Target::Class(0), &[3.0; 4]);
    assert_near(&constant, &[0.0; 4], 1e-15);
}

fn structures() -> [Structure; 3] {
    let partition = [["embedding", "head.weight"].as_slice(), &["norm", "hidden.bias", "hidden.weight"]];
    let partition = partition.iter().map(|block| block.iter().map(|name| name.to_string()).collect()).collect();
    [Structure::Full, Structure::Layerwise, Structure::Partition(partition)]
}

#[test]
fn gradients_of_the_subproblems_are_those_of_their_values() {
    for structure in structures() {
        let local = linearized(&Problem::two_layer(), &structure);
        let delta = random(local.dense.numel(), 8);
        let value = |what: &ProductKind, delta: &[f64]| {
            let values = local.product(what, delta).unwrap().values;
            match what {
                ProductKind::Quadratic => values[0] + values[1] + values[2],
                _ => values[1],
            }
        };
        for what in [ProductKind::Quadratic, ProductKind::ProxLinear] {
            let expected = differences(&delta, |delta| value(&what, delta));
            assert_near(&params(product(&local, what, &delta)), &expected, 1e-8);
        }
    }
}

#[test]
fn subproblems_at_zero_are_the_plain_gradient_and_part_at_second_order() {
    for structure in structures() {
        let problem = Problem::two_layer();
        let local = linearized(&problem, &structure);
        let size = local.dense.numel();
        let plain = gradient(&problem, &anchor(&problem));
        for what in [ProductKind::Quadratic, ProductKind::ProxLinear] {
            let answer = product(&local, what, &vec![0.0; size]);
            let offset = if answer.values.len() == 3 + local.blocks { 3 } else { 2 };
            assert!(answer.values[offset..].iter().all(|value| *value == answer.values[0]), "{:?}", answer.values);
            assert_near(&params(answer), &plain, 1e-14);
        }
        let gap = |scale: f64| {
            let delta = plus(&vec![0.0; size], scale, &random(size, 9));
            let [q, p] = [ProductKind::Quadratic, ProductKind::ProxLinear].map(|w| params(product(&local, w, &delta)));
            plus(&q, -1.0, &p).iter().map(|x| x * x).sum::<f64>().sqrt()
        };
        let ratio = gap(1e-2) / gap(1e-3);
        assert!((ratio - 100.0).abs() < 10.0, "{structure:?}: a tenth of delta leaves 1/{ratio} of the gap");
    }
}

#[test]
fn values_of_blocks_add_up() {
    for structure in structures() {
        let local = linearized(&Problem::two_layer(), &structure);
        let delta = random(local.dense.numel(), 10);
        let quadratic = product(&local, ProductKind::Quadratic, &delta).values;
        let [anchor, linear, curvature, blocks @ ..] = quadratic.as_slice() else { panic!("{quadratic:?}") };
        assert_eq!(blocks.len(), local.blocks);
        let total = anchor + blocks.iter().map(|value| value - anchor).sum::<f64>();
        assert!((anchor + linear + curvature - total).abs() < 1e-12);
        let ggn = params(product(&local, ProductKind::GgnVectorProduct, &delta));
        assert!((curvature - 0.5 * dot(&delta, &ggn)).abs() < 1e-12);
        let prox = product(&local, ProductKind::ProxLinear, &delta).values;
        let total = prox[0] + prox[2..].iter().map(|value| value - prox[0]).sum::<f64>();
        assert!(prox.len() == 2 + local.blocks && (prox[1] - total).abs() < 1e-12);
    }
}

#[test]
fn blocks_do_not_see_each_other() {
    let kinds = [
        ProductKind::Quadratic,
        ProductKind::ProxLinear,
        ProductKind::GgnVectorProduct,
        ProductKind::HessianVectorProduct,
    ];
    let (layerwise, whole) = (linearized(&Problem::two_layer(), &Structure::Layerwise), full(&Problem::two_layer()));
    assert_eq!(layerwise.blocks, 3);
    let delta = random(layerwise.dense.numel(), 11);
    for kind in kinds {
        let joint = params(product(&layerwise, kind.clone(), &delta));
        for block in 0..3 {
            let own = layerwise.part(&delta, block).to_vec();
            // With the other blocks at zero the whole problem is the block's own.
            let alone = layerwise.part(&params(product(&whole, kind.clone(), &own)), block);
            assert_near(&layerwise.part(&joint, block).to_vec(), &alone.to_vec(), 1e-13);
        }
        let coupled = params(product(&whole, kind.clone(), &delta));
        let gap = plus(&joint, -1.0, &coupled).iter().fold(0.0_f64, |a, b| a.max(b.abs()));
        assert!(gap > 1e-3, "{kind:?} does not depend on the structure");
    }
    let single = Structure::Partition(vec![Problem::two_layer().specs().into_iter().map(|spec| spec.name).collect()]);
    let single = linearized(&Problem::two_layer(), &single);
    let value = |local: &Linearization| product(local, ProductKind::Quadratic, &delta).values;
    assert_eq!(value(&single), value(&whole));
}

/// The matrix of iteratively reweighted least squares, `mean over tokens of (diag p - p p^T) x (x x^T)` with a constant
/// input for the bias, in the order of the parameters.
fn reweighted(here: &Dense) -> Array2<f64> {
    let place = |class: usize, input: usize| if input < 4 { class * 4 + input } else { 12 + class };
    let mut matrix = Array2::zeros((15, 15));
    for (case, z) in here.cases.iter().zip(here.logits.outer_iter()) {
        let p = super::super::data::softmax(&z.to_vec());
        let x = [case.features.as_slice(), &[1.0]].concat();
        for (a, b, i, j) in (0..225).map(|n| (n / 75, n / 25 % 3, n / 5 % 5, n % 5)) {
            let weight = p[a] * (f64::from(u8::from(a == b)) - p[b]);
            matrix[[place(a, i), place(b, j)]] += weight * x[i] * x[j] / here.tokens() as f64;
        }
    }
    matrix
}

#[test]
fn newton_on_softmax_regression_is_reweighted_least_squares() {
    use super::super::{Array, ops};
    use gauntlet_plugin_abi::{DType, TensorOp};
    let problem = Problem::softmax_regression();
    let mut at = vec![0.0; 15];
    let mut norms = vec![];
    for _ in 0..9 {
        let here = Dense::new(&problem, at.clone(), &batch(&problem, 16), None, 0).unwrap();
        let g = params(evaluate(&here, &Evaluation::Gradient(Labels::Data), &[]));
        norms.push(dot(&g, &g).sqrt());
        let mut matrix = reweighted(&here);
        let local = Linearization::new(here, vec![0; at.len()], 1, problem.layers());
        let v = random(at.len(), 15);
        let product = params(product(&local, ProductKind::GgnVectorProduct, &v));
        assert_near(&product, &matrix.dot(&Array1::from(v)).to_vec(), 1e-13);
        // A common shift of all classes changes nothing: it is the null space.
        matrix.diag_mut().mapv_inplace(|x| x + 1e-9);
        let array = |shape: &[usize], values| Array::from_vec("", shape, values, DType::F64).unwrap();
        let (matrix, right) = (array(&[15, 15], flat(&matrix).to_vec()), array(&[15, 1], g));
        let l = ops::apply(TensorOp::CHOLESKY, &[&matrix], &[], &[]).unwrap().remove(0);
        let step = ops::apply(TensorOp::CHOLESKY_SOLVE, &[&right, &l], &[], &[]).unwrap().remove(0);
        at = plus(&at, -1.0, &step.to_vec());
    }
    assert!(norms[8] < 1e-12, "{norms:?}");
    assert!((3..9).all(|i| norms[i] < 1e-12 || norms[i] < 100.0 * norms[i - 1].powi(2)), "quadratic: {norms:?}");
}

#[test]
fn sequences_and_tokens_add_up_to_the_batch() {
    for problem in problems() {
        let (at, local) = (anchor(&problem), full(&problem));
        let here = dense(&problem, &at);
        let losses = evaluate(&here, &Evaluation::Losses, &[]).values;
        assert_eq!(losses.len(), 4);
        assert!((losses.iter().sum::<f64>() / 4.0 - loss(&problem, &at)).abs() < 1e-14);
        let plain = gradient(&problem, &at);
        assert_near(&params(product(&local, ProductKind::GradientWeighted(vec![0.25; 4]), &[])), &plain, 1e-14);
        let v = random(at.len(), 12);
        let along = product(&local, ProductKind::SequenceDirectional, &v).values;
        assert!((along.iter().sum::<f64>() / 4.0 - dot(&plain, &v)).abs() < 1e-13);
        let own = params(product(&local, ProductKind::GradientWeighted(vec![0.0, 0.0, 1.0, 0.0]), &[]));
        assert!((dot(&own, &v) - along[2]).abs() < 1e-13);
        let third = batch(&problem, 4).slice(2, 1).unwrap();
        let third = Dense::new(&problem, at.clone(), &third, None, 0).unwrap();
        assert_near(&params(evaluate(&third, &Evaluation::Gradient(Labels::Data), &[])), &own, 1e-14);
    }
    let wrong = full(&Problem::squared()).product(&ProductKind::GradientWeighted(vec![1.0]), &[]).unwrap_err();
    assert_eq!(wrong.to_string(), "gradient_weighted: found 1 weights, expected 4");
}

#[test]
fn squared_gradients_are_means_over_cases() {
    let problem = Problem::two_layer();
    let at = anchor(&problem);
    let local = full(&problem);
    let unit = |n: usize| (0..4).map(|i| f64::from(u8::from(i == n))).collect::<Vec<f64>>();
    let mut expected = vec![0.0; at.len()];
    for n in 0..4 {
        let g = params(product(&local, ProductKind::GradientWeighted(unit(n)), &[]));
        expected.iter_mut().zip(g).for_each(|(sum, g)| *sum += g * g / 4.0);
    }
    let found = evaluate(&dense(&problem, &at), &Evaluation::SquaredGradient(Per::Sequence, Labels::Data), &[]);
    assert_near(&params(found), &expected, 1e-14);
    // Per token it is the diagonal of the empirical Fisher matrix.
    let found = params(evaluate(&dense(&problem, &at), &Evaluation::SquaredGradient(Per::Token, Labels::Data), &[]));
    for i in [0, 7, at.len() - 1] {
        let mut unit = vec![0.0; at.len()];
        unit[i] = 1.0;
        let fisher = evaluate(&dense(&problem, &at), &Evaluation::FisherVectorProduct(Labels::Data), &unit);
        assert!((params(fisher)[i] - found[i]).abs() < 1e-14);
    }
}

#[test]
fn fisher_with_sampled_labels_has_the_ggn_as_its_mean() {
    for problem in problems() {
        let at = anchor(&problem);
        let v = random(at.len(), 13);
        let here = dense(&problem, &at);
        let mut mean = vec![0.0; at.len()];
        const DRAWS: u64 = 1000;
        for seed in 0..DRAWS {
            let draw = evaluate(&here, &Evaluation::FisherVectorProduct(Labels::Sampled(seed)), &v);
            mean = plus(&mean, 1.0 / DRAWS as f64, &params(draw));
        }
        let ggn = params(product(&full(&problem), ProductKind::GgnVectorProduct, &v));
        let gap = plus(&mean, -1.0, &ggn);
        assert!(dot(&gap, &gap).sqrt() < 0.1 * dot(&ggn, &ggn).sqrt(), "{problem:?}");
    }
}

#[test]
fn sampled_labels_depend_on_seed_step_and_token_not_on_the_split() {
    let problem = Problem::two_layer();
    let at = anchor(&problem);
    let targets = |batch: &Position, seed, step| {
        Dense::new(&problem, at.clone(), batch, None, step).unwrap().targets(Labels::Sampled(seed))
    };
    let whole = batch(&problem, 8);
    assert_eq!(targets(&whole, 1, 0), targets(&whole, 1, 0));
    assert_ne!(targets(&whole, 1, 0), targets(&whole, 2, 0));
    assert_ne!(targets(&whole, 1, 0), targets(&whole, 1, 1));
    let halves = [targets(&whole.slice(0, 4).unwrap(), 1, 0), targets(&whole.slice(4, 4).unwrap(), 1, 0)].concat();
    assert_eq!(halves, targets(&whole, 1, 0));
    assert_ne!(purpose_number("labels.1"), purpose_number("labels.2"));
}

#[test]
fn kronecker_factors_of_one_token_give_its_gradient() {
    let problem = Problem::two_layer();
    let (at, specs) = (anchor(&problem), problem.specs());
    let one = Problem { seq_len: 1, ..problem.clone() };
    let here = Dense::new(&one, at.clone(), &batch(&one, 1), None, 0).unwrap();
    let g = params(evaluate(&here, &Evaluation::Gradient(Labels::Data), &[]));
    let local = Linearization::new(here, vec![0; at.len()], 1, one.layers());
    let names: Vec<String> = one.layers().iter().map(|name| name.to_string()).collect();
    let kind = ProductKind::KroneckerFactors { names: names.clone(), labels: Labels::Data, sharing: Sharing::Expand };
    let factors = product(&local, kind, &[]).matrices;
    let places = super::super::dense::ranges(specs.iter().map(|spec| spec.numel()));
    for (name, pair) in names.iter().zip(factors.chunks(2)) {
        let index = specs.iter().position(|spec| spec.name == *name).unwrap();
        let [out, inputs] = specs[index].shape[..] else { panic!("a matrix") };
        assert_eq!((pair[0].dim(), pair[1].dim()), ((inputs, inputs), (out, out)));
        // Gradient s a^T: the square of each element is the product of the diagonals.
        let found: Vec<f64> = g[places[index].clone()].iter().map(|g| g * g).collect();
        let expected: Vec<f64> =
            (0..out * inputs).map(|i| pair[1][[i / inputs, i / inputs]] * pair[0][[i % inputs, i % inputs]]).collect();
        assert_near(&found, &expected, 1e-14);
    }
    let unknown = ProductKind::KroneckerFactors {
        names: vec!["norm".into()],
        labels: Labels::Data,
        sharing: Sharing::Expand,
    };
    let error = local.product(&unknown, &[]).unwrap_err();
    assert_eq!(error.to_string(), "kronecker_factors: no linear layer has a weight `norm`");
}

#[test]
fn kronecker_factors_are_means_over_tokens_or_sequences() {
    let (problem, names) = (Problem::squared(), vec!["weight".to_string()]);
    let local = full(&problem);
    let factors = |sharing| {
        let kind = ProductKind::KroneckerFactors { names: names.clone(), labels: Labels::Data, sharing };
        product(&local, kind, &[]).matrices
    };
    let x = Array2::from_shape_fn((12, 4), |(t, j)| local.dense.cases[t].features[j]);
    let s = local.dense.output_gradients(&local.dense.logits, &local.dense.targets(Labels::Data));
    let near = |a: &Array2<f64>, b: Array2<f64>| assert_near(&flat(a).to_vec(), &flat(&b).to_vec(), 1e-14);
    let expand = factors(Sharing::Expand);
    near(&expand[0], x.t().dot(&x) / 12.0);
    near(&expand[1], s.t().dot(&s) / 12.0);
    let reduce = factors(Sharing::Reduce);
    let group = |m: &Array2<f64>| Array2::from_shape_fn((4, m.ncols()), |(n, j)| (0..3).map(|t| m[[3 * n + t, j]]).sum());
    let (x, s) = (group(&x), group(&s));
    near(&reduce[0], x.t().dot(&x) / 4.0);
    near(&reduce[1], s.t().dot(&s) / 4.0);
}

#[test]
fn faults_reach_every_gradient_and_leave_curvature() {
    let problem = Problem::two_layer();
    let at = anchor(&problem);
    let v = random(at.len(), 14);
    let with = |fault| Dense::new(&problem, at.clone(), &batch(&problem, 4), Some(fault), 0).unwrap();
    let plain = params(evaluate(&with(Fault::ZeroGradients), &Evaluation::Gradient(Labels::Data), &[]));
    assert!(plain.iter().all(|g| *g == 0.0));
    let plain = params(evaluate(&with(Fault::NanGradients), &Evaluation::Gradient(Labels::Data), &[]));
    assert!(plain.iter().all(|g| g.is_nan()));
    let healthy = params(product(&full(&problem), ProductKind::GgnVectorProduct, &v));
    let faulty = Linearization::new(with(Fault::NanGradients), vec![0; at.len()], 1, problem.layers());
    assert_eq!(params(product(&faulty, ProductKind::GgnVectorProduct, &v)), healthy);
}
