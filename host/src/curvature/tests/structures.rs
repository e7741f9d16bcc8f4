//! Block-diagonal problems: layerwise, and any partition of the parameters.

use super::*;
use crate::model::param_specs;
use gauntlet_plugin_api::{Labels, Structure};

fn layerwise(case: &Case) -> Blocks {
    Blocks::resolve(&Structure::Layerwise, &param_specs(case.model.config())).unwrap()
}

/// The part of a list in one block, zeros elsewhere.
fn part(v: &[Tensor], blocks: &Blocks, block: usize) -> Vec<Tensor> {
    let keep = |(of, t): (&usize, &Tensor)| if *of == block { t.copy() } else { t.zeros_like() };
    blocks.of_param().iter().zip(v).map(keep).collect()
}

/// A partition across layers: alternately two blocks, whatever the tensors are.
fn mixed(case: &Case) -> Blocks {
    let specs = param_specs(case.model.config());
    let names = |rest: usize| specs.iter().skip(rest).step_by(2).map(|spec| spec.name.clone()).collect::<Vec<_>>();
    Blocks::resolve(&Structure::Partition(vec![names(1), names(0)]), &specs).unwrap()
}

#[test]
fn every_block_is_that_of_the_dense_block_diagonal_matrix() {
    for config in [small(true, true, false), small(false, false, true), small(true, false, false)] {
        let case = Case::new(&config, 2, 4);
        let (dense, ggn) = (&case.dense, case.dense.ggn());
        let hessian = dense::hessian(&case.model, &case.params, &case.tokens);
        let g0 = dense.output_gradient(&dense.logits);
        for blocks in [layerwise(&case), mixed(&case), case.one_block()] {
            let (delta, mut at) = (case.direction(14), case.at(&blocks, &[2], usize::MAX));
            let each = |product: &dyn Fn(&Tensor) -> Tensor| {
                let parts = (0..blocks.count()).map(|block| {
                    let whole = dense.unflatten(&product(&flat(&part(&delta, &blocks, block))));
                    flat(&part(&whole, &blocks, block))
                });
                parts.fold(None, |sum: Option<Tensor>, part| Some(sum.map_or(part.copy(), |sum| sum + &part))).unwrap()
            };
            assert_close(&at.ggn_vector_product(&refs(&delta)), &each(&|v| ggn.mv(v)), "ggn");
            assert_close(&at.hessian_vector_product(&refs(&delta)), &each(&|v| hessian.mv(v)), "hessian");
            let linear = dense.vjp(&g0);
            assert_close(&at.quadratic(&refs(&delta)).tensors, &each(&|v| &linear + ggn.mv(v)), "quadratic");
            let there = |v: &Tensor| &dense.logits + dense.jvp(v);
            let expected = each(&|v| dense.vjp(&dense.output_gradient(&there(v))));
            let prox = at.prox_linear(&refs(&delta));
            assert_close(&prox.tensors, &expected, "prox-linear");
            let anchor = dense.loss(&dense.logits);
            let values = (0..blocks.count()).map(|b| dense.loss(&there(&flat(&part(&delta, &blocks, b)))));
            let values: Vec<f64> = values.collect();
            let total = anchor + values.iter().map(|value| value - anchor).sum::<f64>();
            let expected = [vec![anchor, total], values].concat();
            assert_eq!(prox.values.len(), expected.len());
            prox.values.iter().zip(expected).for_each(|(a, b)| assert!((a - b).abs() < 1e-10 * (1.0 + b), "{a} {b}"));
            // Loss, gradient, jvp and vjp know no blocks.
            assert_close(&at.gradient(Labels::Data).1, &linear, "gradient");
            assert!(error(&at.jvp(&refs(&delta)), &dense.jvp(&flat(&delta))) < 1e-10);
        }
    }
}

#[test]
fn a_block_does_not_change_by_a_bit_when_another_moves() {
    let case = Case::new(&small(true, true, false), 2, 5);
    let blocks = layerwise(&case);
    assert_eq!(blocks.count(), 4);
    let mut at = case.at(&blocks, &[2], usize::MAX);
    let (delta, other) = (case.direction(15), case.direction(16));
    let moved: Vec<Tensor> = (blocks.of_param().iter())
        .zip(delta.iter().zip(&other))
        .map(|(of, (delta, other))| if *of == 1 { delta.copy() } else { other.copy() })
        .collect();
    let (a, b) = (at.quadratic(&refs(&delta)).tensors, at.quadratic(&refs(&moved)).tensors);
    let (c, d) = (at.prox_linear(&refs(&delta)).tensors, at.prox_linear(&refs(&moved)).tensors);
    for param in blocks.params_of(1) {
        assert!(a[param].equal(&b[param]) && c[param].equal(&d[param]), "parameter {param}");
    }
    assert!(!a[0].equal(&b[0]));
}

#[test]
fn the_layerwise_form_is_the_sum_over_blocks() {
    let case = Case::new(&small(true, false, false), 2, 5);
    let blocks = layerwise(&case);
    let v = case.direction(17);
    let found = dot(&v, &case.at(&blocks, &[2], 0).ggn_vector_product(&refs(&v)));
    let mut full = case.whole();
    let expected: f64 = (0..blocks.count())
        .map(|block| {
            let own = part(&v, &blocks, block);
            dot(&own, &full.ggn_vector_product(&refs(&own)))
        })
        .sum();
    assert!((found - expected).abs() < 1e-11 * expected, "{found} {expected}");
}

#[test]
fn one_block_equals_full_bit_for_bit() {
    let case = Case::new(&small(false, true, false), 2, 5);
    let specs = param_specs(case.model.config());
    let names = vec![specs.iter().map(|spec| spec.name.clone()).collect()];
    let one = Blocks::resolve(&Structure::Partition(names), &specs).unwrap();
    let v = case.direction(18);
    let (a, b) = (case.at(&one, &[2], 0).quadratic(&refs(&v)), case.whole().quadratic(&refs(&v)));
    assert!(flat(&a.tensors).equal(&flat(&b.tensors)) && a.values == b.values);
}
