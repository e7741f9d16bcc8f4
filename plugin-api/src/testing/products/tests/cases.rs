//! Products that look at single sequences and tokens, sampled labels, Kronecker factors, faults.

use super::*;
use crate::random::purpose_number;
use crate::testing::Fault;

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
    let places = crate::testing::dense::ranges(specs.iter().map(|spec| spec.numel()));
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
    let unknown =
        ProductKind::KroneckerFactors { names: vec!["norm".into()], labels: Labels::Data, sharing: Sharing::Expand };
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
    let group =
        |m: &Array2<f64>| Array2::from_shape_fn((4, m.ncols()), |(n, j)| (0..3).map(|t| m[[3 * n + t, j]]).sum());
    let (x, s) = (group(&x) / 3.0, group(&s));
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
