//! Labels, cases and factors: Fisher products, squared gradients, weighted gradients, Kronecker factors.

use super::*;
use gauntlet_plugin_api::{Labels, Per, Sharing};

/// Labels that the model draws, and the gradient of each token's own loss with them, `[N, P]`.
fn token_gradients(case: &Case, labels: &Tensor) -> Tensor {
    let dense = &case.dense;
    let residual = dense.residual(&dense.logits, labels);
    let [rows, vocabulary] = [residual.size()[0], residual.size()[1]];
    let jacobian = dense.jacobian.view([rows, vocabulary, -1]);
    residual.unsqueeze(1).bmm(&jacobian).squeeze_dim(1)
}

/// The labels of a seed by the definition: the first class whose cumulative probability exceeds the uniform number.
fn drawn(case: &Case, seed: u64) -> Tensor {
    let draws = case.split(&[case.tokens.size()[0]]).draws;
    let uniforms = draws.uniforms(Labels::Sampled(seed), 0).unwrap();
    let p = case.dense.probabilities();
    let label = |(row, u): (usize, &f64)| {
        let p = Vec::<f64>::try_from(p.get(row as i64)).unwrap();
        let mut sum = 0.0;
        p.iter()
            .position(|p| {
                sum += p;
                sum > *u
            })
            .unwrap() as i64
    };
    Tensor::from_slice(&uniforms.iter().enumerate().map(label).collect::<Vec<_>>())
}

#[test]
fn gradients_and_fisher_products_use_the_labels_they_were_told() {
    let case = Case::new(&small(true, true, false), 3, 4);
    let v = case.direction(81);
    let mut at = case.at(&case.one_block(), &[2, 1], usize::MAX);
    for (labels, targets) in [(Labels::Data, case.dense.targets.copy()), (Labels::Sampled(5), drawn(&case, 5))] {
        let tokens = token_gradients(&case, &targets);
        assert_close(&at.gradient(labels).1, &tokens.mean_dim([0_i64].as_slice(), false, None::<Kind>), "gradient");
        let fisher = tokens.tr().mv(&tokens.mv(&flat(&v))) / 12.0;
        assert_close(&at.fisher_vector_product(&refs(&v), labels), &fisher, "fisher");
    }
    assert!(error(&drawn(&case, 5).to_kind(Kind::Double), &drawn(&case, 6).to_kind(Kind::Double)) > 0.0);
}

#[test]
fn the_mean_of_sampled_fisher_products_approaches_the_ggn_and_the_data_s_does_not() {
    let case = Case::new(&small(false, false, false), 2, 4);
    let (v, mut at) = (case.direction(82), case.whole());
    let ggn = flat(&at.ggn_vector_product(&refs(&v)));
    let norm = ggn.norm().double_value(&[]);
    let mut mean_error = |seeds: std::ops::Range<u64>| {
        let count = (seeds.end - seeds.start) as f64;
        let sum = seeds.fold(ggn.zeros_like(), |sum, seed| {
            sum + flat(&at.fisher_vector_product(&refs(&v), Labels::Sampled(seed)))
        });
        (sum / count - &ggn).norm().double_value(&[]) / norm
    };
    // Errors of independent means of K draws, each averaged over eight means.
    let average = |errors: Vec<f64>| errors.iter().sum::<f64>() / errors.len() as f64;
    let few = average((0..8).map(|i| mean_error(i * 16..(i + 1) * 16)).collect());
    let many = average((0..8).map(|i| mean_error(1000 + i * 256..1000 + (i + 1) * 256)).collect());
    let rate = (few / many).log(16.0);
    assert!((0.35..0.65).contains(&rate), "the error falls as K^-{rate:.2}");
    let data = (flat(&at.fisher_vector_product(&refs(&v), Labels::Data)) - &ggn).norm().double_value(&[]) / norm;
    assert!(data > 3.0 * many, "{data} {many}");
}

#[test]
fn labels_are_drawn_from_the_model_whatever_the_micro_batches() {
    let case = Case::new(&small(true, false, true), 5, 4);
    let gradient = |sizes: &[i64]| flat(&case.at(&case.one_block(), sizes, 0).gradient(Labels::Sampled(9)).1);
    assert!(error(&gradient(&[2, 3]), &gradient(&[5])) < 1e-12);
}

#[test]
fn squared_gradients_are_means_over_their_cases() {
    let case = Case::new(&small(true, true, true), 3, 4);
    let mut at = case.at(&case.one_block(), &[2, 1], 0);
    let tokens = token_gradients(&case, &case.dense.targets);
    let sequences = tokens.unflatten(0, [3, 4]).mean_dim([1_i64].as_slice(), false, None::<Kind>);
    let mean_square = |cases: &Tensor| cases.square().mean_dim([0_i64].as_slice(), false, None::<Kind>);
    assert_close(&at.squared_gradient(Per::Token, Labels::Data), &mean_square(&tokens), "per token");
    assert_close(&at.squared_gradient(Per::Sequence, Labels::Data), &mean_square(&sequences), "per sequence");
    let drawn = token_gradients(&case, &drawn(&case, 7));
    assert_close(&at.squared_gradient(Per::Token, Labels::Sampled(7)), &mean_square(&drawn), "sampled");
}

#[test]
fn sequences_have_their_own_gradients_and_losses() {
    let case = Case::new(&small(true, true, false), 3, 4);
    let mut at = case.at(&case.one_block(), &[1, 2], 0);
    let tokens = token_gradients(&case, &case.dense.targets);
    let sequences = tokens.unflatten(0, [3, 4]).mean_dim([1_i64].as_slice(), false, None::<Kind>);
    let weights = [0.5, -2.0, 3.0];
    let expected = sequences.tr().mv(&Tensor::from_slice(&weights));
    assert_close(&at.gradient_weighted(&weights).unwrap(), &expected, "weighted");
    assert!(at.gradient_weighted(&weights[1..]).unwrap_err().message.contains("found 2 weights, expected 3"));
    let v = case.direction(83);
    let along = Tensor::from_slice(&at.sequence_directional(&refs(&v)));
    assert!(error(&along, &sequences.mv(&flat(&v))) < 1e-10);
    let losses = Tensor::from_slice(&at.losses());
    assert!((losses.mean(Kind::Double).double_value(&[]) - at.loss()).abs() < 1e-12);
    let expected = case.model.losses(&case.params, &case.tokens, crate::model::Attention::Math);
    assert!(error(&losses, &expected) < 1e-12);
}

/// Inputs and cotangents of layers, from a linear layer's own gradient: dW = s^T a for each case.
#[test]
fn kronecker_factors_rebuild_the_gradient_of_a_single_case() {
    let config = small(true, true, false);
    let case = Case::new(&config, 1, 1);
    let names: Vec<String> = ["attn.v", "attn.o", "mlp.up", "mlp.gate", "mlp.down"]
        .iter()
        .map(|name| format!("blocks.1.{name}.weight"))
        .chain(["head.weight".into()])
        .collect();
    let specs = crate::model::param_specs(&config);
    let mut at = case.whole();
    let gradient = at.gradient(Labels::Data).1;
    for sharing in [Sharing::Expand, Sharing::Reduce] {
        let factors = at.kronecker_factors(&names, Labels::Data, sharing).unwrap();
        for (name, pair) in names.iter().zip(factors.chunks(2)) {
            // One case: A = a a^T, S = s s^T and G = s a^T, so S (x) A is G (x) G, and tr A tr S = |G|^2.
            let own = &gradient[specs.iter().position(|spec| spec.name == *name).unwrap()];
            let (a, s) = (&pair[0], &pair[1]);
            assert!(error(&(s * a.trace()), &own.mm(&own.tr())) < 1e-10, "{name}");
            assert!(error(&(a * s.trace()), &own.tr().mm(own)) < 1e-10, "{name}");
        }
    }
}

#[test]
fn kronecker_factors_are_means_over_cases() {
    let config = small(false, true, false);
    let case = Case::new(&config, 3, 4);
    let names: Vec<String> =
        ["head.weight", "blocks.0.attn.q.weight", "blocks.0.attn.k.weight"].map(String::from).into();
    let of = |sizes: &[i64], sharing| {
        case.at(&case.one_block(), sizes, 0).kronecker_factors(&names, Labels::Data, sharing).unwrap()
    };
    let hidden = case.model.hidden(&case.params, &case.tokens.narrow(1, 0, 4), crate::model::Attention::Math);
    let residual = case.dense.residual(&case.dense.logits, &case.dense.targets);
    let mean = |rows: &Tensor| rows.tr().mm(rows) / rows.size()[0] as f64;
    let expand = of(&[2, 1], Sharing::Expand);
    assert!(error(&expand[0], &mean(&hidden.flatten(0, 1))) < 1e-10);
    assert!(error(&expand[1], &mean(&residual)) < 1e-10);
    assert!(expand[2].equal(&expand[4]), "q and k share their inputs");
    let reduce = of(&[2, 1], Sharing::Reduce);
    let by_sequence =
        |rows: &Tensor| rows.unflatten(0, [3, 4]).sum_dim_intlist([1_i64].as_slice(), false, None::<Kind>);
    assert!(error(&reduce[0], &mean(&(by_sequence(&hidden.flatten(0, 1)) / 4.0))) < 1e-10);
    assert!(error(&reduce[1], &mean(&by_sequence(&residual))) < 1e-10);
    let unknown = case.whole().kronecker_factors(&["norm.weight".into()], Labels::Data, Sharing::Expand);
    assert!(unknown.unwrap_err().message.contains("`norm.weight`"));
}
