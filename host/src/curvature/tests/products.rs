//! Products of the whole model against dense matrices, and their properties.

use super::*;
use crate::model::fixtures::every_option;
use crate::model::param_specs;
use gauntlet_plugin_api::Labels;

/// Directions: random ones, and one that lives in a single tensor for each tensor.
fn all_directions(case: &Case) -> Vec<Vec<Tensor>> {
    let random = case.direction(21);
    let alone = |index: usize| {
        let keep = |(i, t): (usize, &Tensor)| if i == index { t.copy() } else { t.zeros_like() };
        random.iter().enumerate().map(keep).collect::<Vec<_>>()
    };
    let mut all: Vec<Vec<Tensor>> = (0..random.len()).map(alone).collect();
    all.push(case.direction(22));
    all.push(random);
    all
}

#[test]
fn every_product_is_that_of_the_dense_matrices_for_every_option_and_tensor() {
    for config in every_option() {
        let config = ModelConfig { width: 8, mlp_width: 6, ..config };
        let case = Case::new(&config, 2, 4);
        let (dense, mut at) = (&case.dense, case.whole());
        let hessian = dense.output_hessian();
        let g0 = dense.output_gradient(&dense.logits);
        let (loss, gradient) = at.gradient(Labels::Data);
        assert!((loss - dense.loss(&dense.logits)).abs() < 1e-12 && (at.loss() - loss).abs() < 1e-12);
        assert_close(&gradient, &dense.vjp(&g0), "gradient");
        for (index, v) in all_directions(&case).iter().enumerate() {
            let what = |name: &str| {
                let of = param_specs(&config).get(index).map_or("all".into(), |spec| spec.name.clone());
                format!("{name} along {of}, {config:?}")
            };
            let moved = dense.jvp(&flat(v));
            assert!(error(&at.jvp(&refs(v)), &moved) < 1e-10, "{}", what("jvp"));
            let curved = hessian.mv(&moved.view(-1)).view_as(&moved);
            assert_close(&at.ggn_vector_product(&refs(v)), &dense.vjp(&curved), &what("ggn"));
            let quadratic = at.quadratic(&refs(v));
            assert_close(&quadratic.tensors, &dense.vjp(&(&g0 + &curved)), &what("quadratic"));
            let sum = |x: Tensor| x.sum(Kind::Double).double_value(&[]);
            let (linear, curvature) = (sum(&g0 * &moved), 0.5 * sum(&moved * &curved));
            let expected = [loss, linear, curvature, loss + linear + curvature];
            for (found, expected) in quadratic.values.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-10 * (1.0 + expected.abs()), "{}", what("quadratic's value"));
            }
            let there = &dense.logits + &moved;
            let prox = at.prox_linear(&refs(v));
            assert_close(&prox.tensors, &dense.vjp(&dense.output_gradient(&there)), &what("prox-linear"));
            let expected = dense.loss(&there);
            assert!((prox.values[1] - expected).abs() < 1e-10 * (1.0 + expected), "{}", what("prox-linear's value"));
        }
    }
}

#[test]
fn longer_sequences_go_by_chunks_with_the_same_results() {
    let config = ModelConfig { num_layers: 1, ..small(true, true, false) };
    let (model, params, tokens) = (Arc::new(model(&config)), random_params(&config), tokens(2, 301));
    let draws = LabelDraws::default();
    let tokens_of = || Tokens { micro_batches: vec![tokens.shallow_clone()], draws: draws.clone() };
    let mut at =
        Linearization::new(model.clone(), &refs(&params), tokens_of(), Blocks::whole(params.len()), usize::MAX);
    let leaves: Vec<Tensor> = params.iter().map(|param| param.copy().set_requires_grad(true)).collect();
    let loss = model.loss(&leaves, &tokens, crate::model::Attention::Math);
    let expected = Tensor::run_backward(&[loss], &leaves, false, false);
    assert_close(&at.gradient(Labels::Data).1, &flat(&expected), "gradient");
    let (v, u) = (directions(&config, 4), Tensor::randn([600, 11], (Kind::Double, tch::Device::Cpu)));
    let logits = |step: f64| {
        let moved: Vec<Tensor> = params.iter().zip(&v).map(|(p, v)| p + v * step).collect();
        model.logits(&moved, &tokens.narrow(1, 0, 300), crate::model::Attention::Math).flatten(0, 1)
    };
    let central = |step: f64| (logits(step) - logits(-step)) / (2.0 * step);
    let step = 1e-4;
    let jvp = at.jvp(&refs(&v));
    let found = error(&jvp, &((central(step) * 4.0 - central(2.0 * step)) / 3.0));
    assert!(found < 1e-8, "{found:.1e}");
    let adjoint = dot(&at.vjp(&u).unwrap(), &v);
    assert!((adjoint - (jvp * u).sum(Kind::Double).double_value(&[])).abs() < 1e-9 * adjoint.abs());
}

#[test]
fn the_product_is_symmetric_positive_and_adjoint() {
    let case = Case::new(&small(true, true, false), 3, 5);
    let mut at = case.whole();
    let (u, v) = (case.direction(31), case.direction(32));
    let (gu, gv) = (at.ggn_vector_product(&refs(&u)), at.ggn_vector_product(&refs(&v)));
    let (a, b) = (dot(&u, &gv), dot(&v, &gu));
    assert!((a - b).abs() < 1e-11 * a.abs().max(1.0), "{a} {b}");
    assert!(dot(&u, &gu) >= 0.0 && dot(&v, &gv) >= 0.0);
    let cotangent = case.dense.jvp(&flat(&u));
    let (a, b) =
        (dot(&at.vjp(&cotangent).unwrap(), &v), (at.jvp(&refs(&v)) * &cotangent).sum(Kind::Double).double_value(&[]));
    assert!((a - b).abs() < 1e-11 * a.abs(), "{a} {b}");
}

#[test]
fn the_hessian_is_that_of_the_loss() {
    for config in [small(true, true, false), small(false, false, true)] {
        let case = Case::new(&ModelConfig { num_layers: 1, ..config }, 2, 4);
        let dense = dense::hessian(&case.model, &case.params, &case.tokens);
        assert!(error(&dense.tr(), &dense) < 1e-12);
        let mut at = case.at(&case.one_block(), &[1, 1], 0);
        for v in all_directions(&case) {
            assert_close(&at.hessian_vector_product(&refs(&v)), &dense.mv(&flat(&v)), "hessian");
        }
        let v = case.direction(8);
        assert!(error(&flat(&at.ggn_vector_product(&refs(&v))), &dense.mv(&flat(&v))) > 1e-3, "they differ");
    }
}

#[test]
fn models_of_the_loss_meet_at_zero_and_part_at_second_order() {
    let case = Case::new(&small(true, false, false), 2, 5);
    let mut at = case.whole();
    let gradient = at.gradient(Labels::Data).1;
    let zero: Vec<Tensor> = case.params.iter().map(Tensor::zeros_like).collect();
    assert_close(&at.quadratic(&refs(&zero)).tensors, &flat(&gradient), "quadratic at zero");
    assert_close(&at.prox_linear(&refs(&zero)).tensors, &flat(&gradient), "prox-linear at zero");
    let mut distance = |size: f64| {
        let delta: Vec<Tensor> = case.direction(5).iter().map(|v| v * size).collect();
        let (q, l) = (at.quadratic(&refs(&delta)), at.prox_linear(&refs(&delta)));
        (flat(&q.tensors) - flat(&l.tensors)).norm().double_value(&[])
    };
    let ratio = distance(1e-3) / distance(5e-4);
    assert!((ratio - 4.0).abs() < 0.05, "halving the step divides the difference by {ratio}");
}

/// Central differences of the reported values, along a random direction, anchor and iterate apart.
#[test]
fn reported_gradients_are_those_of_the_reported_values() {
    let case = Case::new(&small(true, true, true), 2, 5);
    let mut at = case.whole();
    let (delta, v) = (case.direction(41), case.direction(42));
    let moved = |step: f64| delta.iter().zip(&v).map(|(d, v)| d * 0.3 + v * step).collect::<Vec<Tensor>>();
    let slope = |value: &mut dyn FnMut(&[&Tensor]) -> f64| {
        let mut central = |h: f64| (value(&refs(&moved(h))) - value(&refs(&moved(-h)))) / (2.0 * h);
        (4.0 * central(1e-4) - central(2e-4)) / 3.0
    };
    let q = slope(&mut |d| at.quadratic(d).values[3]);
    let l = slope(&mut |d| at.prox_linear(d).values[1]);
    let here = moved(0.0);
    let found = dot(&at.quadratic(&refs(&here)).tensors, &v);
    assert!((found - q).abs() < 1e-8 * q.abs(), "{found} {q}");
    let found = dot(&at.prox_linear(&refs(&here)).tensors, &v);
    assert!((found - l).abs() < 1e-8 * l.abs(), "{found} {l}");
}

#[test]
fn micro_batches_masks_and_kept_values_change_nothing() {
    let case = Case::new(&small(true, true, false), 5, 4);
    let v = case.direction(51);
    let mut whole = case.whole();
    for (sizes, budget) in [(vec![2, 3], usize::MAX), (vec![3, 2], 0), (vec![1; 5], 40_000)] {
        let mut parts = case.at(&case.one_block(), &sizes, budget);
        for _ in 0..3 {
            let expected = flat(&whole.ggn_vector_product(&refs(&v)));
            assert_close(&parts.ggn_vector_product(&refs(&v)), &expected, "ggn");
            let expected = flat(&whole.quadratic(&refs(&v)).tensors);
            assert_close(&parts.quadratic(&refs(&v)).tensors, &expected, "quadratic");
        }
    }
    let mask: Vec<f64> = (0..20).map(|t| if t % 3 == 0 { 0.0 } else { 1.0 / 13.0 }).collect();
    let weights = RowWeights::each(&mask, &case.params[0]);
    let RowWeights::Each(column) = &weights else { unreachable!() };
    let dense = Dense::new(&case.model, &case.params, &case.tokens, Some(column.shallow_clone()));
    let split = [RowWeights::Each(column.narrow(0, 0, 8)), RowWeights::Each(column.narrow(0, 8, 12))].into();
    let tokens = case.split(&[2, 3]);
    let mut masked =
        Linearization::weighted(case.model.clone(), &refs(&case.params), tokens, split, case.one_block(), 0);
    assert_close(&masked.ggn_vector_product(&refs(&v)), &dense.ggn().mv(&flat(&v)), "masked ggn");
    let gradient = dense.vjp(&dense.output_gradient(&dense.logits));
    assert_close(&masked.gradient(Labels::Data).1, &gradient, "masked gradient");
}

#[test]
fn the_product_does_not_depend_on_the_targets() {
    let case = Case::new(&small(false, false, false), 2, 6);
    // The last token of a sequence is a target and no input.
    let tokens = case.tokens.copy();
    let last = tokens.select(1, 6);
    tokens.select(1, 6).copy_(&((last + 1i64).remainder(11)));
    let other = Case {
        dense: Dense::new(&case.model, &case.params, &tokens, None),
        tokens,
        ..Case::new(&small(false, false, false), 2, 6)
    };
    let v = case.direction(61);
    let (a, b) = (case.whole().ggn_vector_product(&refs(&v)), other.whole().ggn_vector_product(&refs(&v)));
    assert!(flat(&a).equal(&flat(&b)), "bit for bit");
    let (a, b) = (case.whole().gradient(Labels::Data).1, other.whole().gradient(Labels::Data).1);
    assert!(error(&flat(&a), &flat(&b)) > 1e-3);
}

#[test]
fn a_token_moves_no_logits_of_earlier_tokens() {
    let config = small(true, true, false);
    let mut case = Case::new(&config, 1, 7);
    // Every input token appears once, so a row of the table is a position.
    case.tokens = Tensor::from_slice(&[4_i64, 2, 9, 0, 7, 5, 1, 3]).view([1, 8]);
    let mut v: Vec<Tensor> = case.params.iter().map(Tensor::zeros_like).collect();
    let position = 4;
    v[0] = v[0].copy();
    let _ = v[0].get(7).fill_(1.0);
    let moved = case.whole().jvp(&refs(&v));
    assert_eq!(moved.narrow(0, 0, position).abs().max().double_value(&[]), 0.0);
    assert!(moved.narrow(0, position, 3).abs().max().double_value(&[]) > 1e-6);
}

#[test]
fn single_precision_is_close_to_double() {
    let config = small(true, true, false);
    let case = Case::new(&config, 2, 5);
    let float = |tensors: &[Tensor]| tensors.iter().map(|t| t.to_kind(Kind::Float)).collect::<Vec<_>>();
    let (params, v) = (float(&case.params), case.direction(71));
    let model = Arc::new(Transformer::new(config, tch::Device::Cpu, Kind::Float).unwrap());
    let tokens = case.split(&[2]);
    let mut at = Linearization::new(model, &refs(&params), tokens, case.one_block(), usize::MAX);
    let found = flat(&at.ggn_vector_product(&refs(&float(&v)))).to_kind(Kind::Double);
    let expected = flat(&case.whole().ggn_vector_product(&refs(&v)));
    assert!(error(&found, &expected) < 1e-4);
}
