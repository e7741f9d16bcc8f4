//! One step against PyTorch's, scales, the bias-corrected mix, heads.

use super::*;
use crate::newton_schulz::Coefficients;
use crate::probe::on;
use gauntlet_plugin_api::SubBlocks;

fn rule() -> Muon {
    Muon {
        lr: 0.1,
        momentum: 0.95,
        nesterov: true,
        mix: Mix::Plain,
        weight_decay: 0.1,
        scale: Scale::Original,
        newton_schulz: NewtonSchulz { coefficients: Coefficients::Jordan, steps: 5, eps: 1e-7 },
        per_head: false,
    }
}

/// Steps of a rule from zero momentum on one matrix, with the gradient `g` scaled by each factor.
fn steps(rule: Muon, spec: ParamSpec, w: Vec<f64>, g: Vec<f64>, factors: &'static [f64]) -> Vec<f64> {
    let other = ParamSpec { name: "g".into(), ..spec.clone() };
    on(DType::F64, vec![(spec, w), (other, g)], move |ctx| {
        let g = ctx.params().select(|spec| spec.name == "g").try_clone()?;
        let mut w = ctx.params_mut().select_mut(|spec| spec.name != "g");
        let mut m = g.zeros_like()?;
        for (t, factor) in factors.iter().enumerate() {
            let mut g = g.try_clone()?;
            g.scale_(*factor)?;
            let mix = if let Mix::BiasCorrected(_) = rule.mix { Mix::BiasCorrected(t as u64 + 1) } else { rule.mix };
            Muon { mix, ..rule }.step(&mut w, &mut m, &g)?;
        }
        w.iter().next().unwrap().1.to_vec()
    })
    .unwrap()
}

/// The expected values are those of `torch.optim.Muon` in PyTorch 2.15, whose iterations run in bfloat16.
#[test]
fn one_step_is_that_of_torch_to_the_precision_of_bfloat16() {
    let spec = ParamSpec::new("w", &[2, 3], Role::Hidden);
    let found = steps(rule(), spec, vec![1., 2., 3., 4., 5., 6.], vec![1., 0., 2., 0., -1., 1.], &[1.0]);
    let expected = [0.94508, 1.94992, 2.91023, 3.99008, 5.04023, 5.91012];
    assert!(found.iter().zip(expected).all(|(x, r)| (x - r).abs() < 1e-3), "{found:?}");
}

#[test]
fn scales_are_functions_of_outputs_and_inputs() {
    assert_eq!([Scale::Original.factor(8, 2), Scale::Original.factor(2, 8)], [2.0, 1.0]);
    assert_eq!([Scale::MatchRmsAdamw.factor(25, 4), Scale::MatchRmsAdamw.factor(4, 25)], [1.0, 1.0]);
    assert_eq!(Scale::None.factor(100, 1), 1.0);
}

/// A 1 x 1 matrix shows the sign of the update, the scale and the decay, which takes the unscaled step size.
#[test]
fn the_scale_leaves_weight_decay_alone() {
    let o = 0.696_436; // Newton-Schulz of the number 1
    let spec = ParamSpec::new("w", &[4, 1], Role::Hidden);
    let found = steps(rule(), spec, vec![1.0; 4], vec![1.0; 4], &[1.0]);
    let expected = 0.99 - 0.1 * 2.0 * o / 2.0;
    assert!(found.iter().all(|x| (x - expected).abs() < 1e-6), "{found:?} {expected}");
}

/// At t = 1: m = (1 - mu) g, so u = mu (1 - mu) g / (1 - mu^2) + g; at t = 2 the weights differ from the plain mix, and
/// a gradient of another sign shows which.
#[test]
fn the_bias_corrected_mix_follows_its_formula() {
    let plain = Muon { mix: Mix::Plain, ..rule() };
    let corrected = Muon { mix: Mix::BiasCorrected(1), ..rule() };
    let mu = 0.95_f64;
    assert_eq!(plain.weights(), [mu, 1.0 - mu]);
    let [m, g] = corrected.weights();
    assert!((m - mu / (1.0 - mu * mu)).abs() < 1e-14 && (g - 1.0).abs() < 1e-14);
    let without = Muon { nesterov: false, mix: Mix::BiasCorrected(2), ..rule() };
    assert_eq!(without.weights(), [1.0 / (1.0 - mu.powf(2.0)), 0.0]);
    // Gradients 1 and then -0.4: the plain u is 0.0061, the corrected one -0.0220.
    let spec = || ParamSpec::new("w", &[1, 1], Role::Hidden);
    let moved = |rule: Muon| {
        let newton_schulz = NewtonSchulz { eps: 1e-15, ..rule.newton_schulz };
        let rule = Muon { weight_decay: 0.0, newton_schulz, ..rule };
        steps(rule, spec(), vec![0.0], vec![1.0], &[1.0, -0.4])[0]
            - steps(rule, spec(), vec![0.0], vec![1.0], &[1.0])[0]
    };
    assert!((moved(plain) + 0.0696436).abs() < 1e-6 && (moved(corrected) - 0.0696436).abs() < 1e-6);
}

#[test]
fn heads_are_orthogonalised_alone_where_asked() {
    let heads = |per_head, sub_blocks| {
        let spec = ParamSpec { sub_blocks, ..ParamSpec::new("q", &[2, 2], Role::Hidden) };
        let rule = Muon { per_head, weight_decay: 0.0, ..rule() };
        steps(rule, spec, vec![0.0; 4], vec![4.0, 3.0, 0.6, 0.8], &[1.0])
    };
    let rows = Some(SubBlocks { dim: 0, count: 2 });
    assert_eq!(heads(false, rows), heads(false, None));
    let apart = heads(true, rows);
    for (found, direction) in apart.iter().zip([0.8, 0.6, 0.6, 0.8]) {
        assert!((found + 0.1 * 0.696_436 * direction).abs() < 1e-6, "{apart:?}");
    }
}
