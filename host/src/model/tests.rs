//! The model against finite differences, itself and the other path, for every option.

use gauntlet_torch_ext::ForwardLevel;
use tch::{Device, Kind, Tensor};

use super::fixtures::{directions, every_option, model, random_params, tokens};
use super::*;

fn moved(params: &[Tensor], tangents: &[Tensor], step: f64) -> Vec<Tensor> {
    params.iter().zip(tangents).map(|(p, v)| p + v * step).collect()
}

/// Derivative along `tangents` by central differences of two step sizes, extrapolated to order four.
fn differences(f: impl Fn(&[Tensor]) -> Tensor, params: &[Tensor], tangents: &[Tensor]) -> Tensor {
    let central = |step: f64| (f(&moved(params, tangents, step)) - f(&moved(params, tangents, -step))) / (2.0 * step);
    let step = 1e-4;
    (central(step) * 4.0 - central(2.0 * step)) / 3.0
}

fn distance(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

fn gradient(f: impl Fn(&[Tensor]) -> Tensor, params: &[Tensor]) -> Vec<Tensor> {
    let leaves: Vec<Tensor> = params.iter().map(|p| p.copy().set_requires_grad(true)).collect();
    Tensor::run_backward(&[f(&leaves)], &leaves, false, false)
}

#[test]
fn gradients_are_those_of_finite_differences_for_every_option_and_parameter() {
    let tokens = tokens(2, 7);
    for config in every_option() {
        let model = model(&config);
        let loss = |params: &[Tensor]| model.loss(params, &tokens, Attention::Fused);
        let params = random_params(&config);
        let gradients = gradient(loss, &params);
        let tangents = directions(&config, 9);
        for (index, spec) in param_specs(&config).iter().enumerate() {
            let alone = |i: usize| if i == index { tangents[i].copy() } else { tangents[i].zeros_like() };
            let only: Vec<Tensor> = (0..params.len()).map(alone).collect();
            let expected = differences(loss, &params, &only).double_value(&[]);
            let found = (&gradients[index] * &tangents[index]).sum(Kind::Double).double_value(&[]);
            let error = (found - expected).abs() / expected.abs().max(0.01);
            assert!(error < 1e-9, "{}: {found} for {expected}, error {error:.1e}, {config:?}", spec.name);
        }
    }
}

#[test]
fn forward_mode_tangents_are_those_of_finite_differences_for_every_option() {
    let tokens = tokens(2, 6);
    for config in every_option() {
        let model = model(&config);
        let logits = |params: &[Tensor]| model.logits(params, &tokens, Attention::Math);
        let (params, tangents) = (random_params(&config), directions(&config, 9));
        let level = ForwardLevel::enter().unwrap();
        let duals: Vec<Tensor> = params.iter().zip(&tangents).map(|(p, v)| level.dual(p, v).unwrap()).collect();
        let (primal, tangent) = level.unpack(&logits(&duals)).unwrap();
        let (primal, tangent) = (primal.copy(), tangent.unwrap().copy());
        drop(level);
        assert!(primal.equal(&logits(&params)), "{config:?}");
        let expected = differences(logits, &params, &tangents);
        let error = distance(&tangent, &expected) / expected.abs().max().double_value(&[]);
        assert!(error < 1e-9, "error {error:.1e}, {config:?}");
    }
}

#[test]
fn attention_paths_agree_in_value_and_gradient() {
    let tokens = tokens(3, 40);
    for config in every_option() {
        let model = model(&config);
        let params = random_params(&config);
        let by = |attention| gradient(|params: &[Tensor]| model.loss(params, &tokens, attention), &params);
        let logits = |attention| model.logits(&params, &tokens, attention);
        assert!(distance(&logits(Attention::Fused), &logits(Attention::Math)) < 1e-12, "{config:?}");
        for (fused, math) in by(Attention::Fused).iter().zip(by(Attention::Math)) {
            assert!(distance(fused, &math) < 1e-12, "{config:?}");
        }
    }
}

#[test]
fn a_token_does_not_reach_the_logits_before_it() {
    let tokens = tokens(2, 9);
    let changed = tokens.copy();
    let _ = changed.select(1, 5).fill_(10);
    for (config, attention) in every_option().iter().flat_map(|c| [(c, Attention::Fused), (c, Attention::Math)]) {
        let (model, params) = (model(config), random_params(config));
        let logits = |tokens: &Tensor| model.logits(&params, tokens, attention);
        let (before, after) = (logits(&tokens), logits(&changed));
        assert!(before.narrow(1, 0, 5).equal(&after.narrow(1, 0, 5)), "{attention:?} {config:?}");
        assert!(distance(&before.narrow(1, 8, 1), &after.narrow(1, 8, 1)) > 1e-6, "{attention:?} {config:?}");
    }
}

#[test]
fn sequences_do_not_reach_each_other_and_lengths_do_not_matter() {
    let config = ModelConfig { num_kv_heads: Some(1), ..every_option()[7].clone() };
    let (model, params, tokens) = (model(&config), random_params(&config), tokens(3, 8));
    let logits = |tokens: &Tensor| model.logits(&params, tokens, Attention::Fused);
    let all = logits(&tokens);
    assert!(distance(&all.narrow(0, 1, 1), &logits(&tokens.narrow(0, 1, 1))) < 1e-13);
    assert!(distance(&all.narrow(1, 0, 3), &logits(&tokens.narrow(1, 0, 3))) < 1e-13); // tables of a shorter view
    let longer = super::tests::tokens(3, 20);
    assert_eq!(logits(&longer).size(), [3, 20, 11]); // tables grow
}

#[test]
fn losses_are_sums_and_means_of_the_token_losses() {
    let config = &every_option()[5];
    let (model, params, tokens) = (model(config), random_params(config), tokens(2, 6));
    let logits = model.logits(&params, &tokens.narrow(1, 0, 5), Attention::Fused);
    let log_probabilities = logits.log_softmax(-1, Kind::Double);
    let expected = -log_probabilities.gather(-1, &tokens.narrow(1, 1, 5).unsqueeze(-1), false).squeeze_dim(-1);
    assert!(distance(&model.token_losses(&params, &tokens, Attention::Fused), &expected) < 1e-13);
    let sum = model.loss_sum(&params, &tokens, Attention::Fused);
    assert!(distance(&sum, &expected.sum(Kind::Double)) < 1e-12);
    assert!(distance(&model.loss(&params, &tokens, Attention::Fused), &(sum / 10.0)) < 1e-13);
    let rows = expected.mean_dim([1_i64].as_slice(), false, Kind::Double);
    assert!(distance(&model.losses(&params, &tokens, Attention::Fused), &rows) < 1e-13);
}

#[test]
fn in_single_precision_losses_are_close_and_sums_are_double() {
    let config = &every_option()[31];
    let params = random_params(config);
    let single = Transformer::new(config.clone(), Device::Cpu, Kind::Float).unwrap();
    let rounded: Vec<Tensor> = params.iter().map(|p| p.to_kind(Kind::Float)).collect();
    let tokens = tokens(2, 9);
    let loss = single.loss(&rounded, &tokens, Attention::Fused);
    assert_eq!(loss.kind(), Kind::Double);
    assert!(distance(&loss, &model(config).loss(&params, &tokens, Attention::Fused)) < 1e-5);
}

#[test]
fn a_fresh_model_with_a_small_head_predicts_nothing() {
    let config = ModelConfig { head_std: Some(0.0), ..every_option()[0].clone() };
    let params = init_params(&config, 0, Kind::Double, Device::Cpu);
    let loss = model(&config).loss(&params, &tokens(2, 9), Attention::Fused).double_value(&[]);
    assert!((loss - 11_f64.ln()).abs() < 1e-14);
}

#[test]
fn one_model_serves_many_threads() {
    let config = &every_option()[2];
    let (model, params) = (model(config), std::sync::Mutex::new(random_params(config)));
    let loss = |length| {
        let params: Vec<Tensor> = params.lock().unwrap().iter().map(Tensor::shallow_clone).collect();
        model.loss(&params, &tokens(1, length), Attention::Fused).double_value(&[])
    };
    let alone: Vec<f64> = (3..9).map(loss).collect();
    let together: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (3..9).map(|length| scope.spawn(move || loss(length))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(alone, together);
}

#[test]
fn a_bad_configuration_or_dtype_makes_no_model() {
    let config = ModelConfig { num_heads: 3, ..ModelConfig::default() };
    assert!(Transformer::new(config, Device::Cpu, Kind::Float).is_err());
    let fault = Transformer::new(ModelConfig::default(), Device::Cpu, Kind::Int64).unwrap_err();
    assert_eq!(fault.to_string(), "dtype of the model: found Int64, expected Float or Double");
}
