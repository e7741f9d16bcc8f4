//! Values and gradients of the Gauss-Newton subproblems, and the independence of blocks.

use super::*;

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
