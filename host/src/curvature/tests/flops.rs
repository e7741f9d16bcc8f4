//! What is counted against PyTorch's FlopCounterMode (`tests/data/flops/flops.py` wrote the numbers), and against the
//! operation counts of products in units of a forward pass.

use super::*;
use crate::curvature::forward_flops;
use crate::model::{Mlp, param_specs};
use gauntlet_plugin_api::{Labels, Structure};
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Recorded {
    batch: i64,
    length: i64,
    vocab: usize,
    models: BTreeMap<String, Model>,
}

#[derive(Deserialize)]
struct Model {
    width: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    mlp: usize,
    swiglu: bool,
    forward: f64,
    gradient: f64,
    quadratic: f64,
}

impl Model {
    fn config(&self, vocab_size: usize) -> ModelConfig {
        ModelConfig {
            vocab_size,
            width: self.width,
            num_layers: self.layers,
            num_heads: self.heads,
            num_kv_heads: Some(self.kv_heads),
            mlp_width: self.mlp,
            mlp: if self.swiglu { Mlp::Swiglu } else { Mlp::Gelu },
            ..ModelConfig::default()
        }
    }
}

/// A linearization of a model on tokens that do not matter.
fn at(config: &ModelConfig, [batch, length]: [i64; 2], structure: &Structure) -> (Linearization, Vec<Tensor>) {
    let (model, params) = (Arc::new(model(config)), random_params(config));
    let blocks = Blocks::resolve(structure, &param_specs(config)).unwrap();
    let tokens = Tokens { micro_batches: vec![tokens(batch, length + 1)], draws: LabelDraws::default() };
    (Linearization::new(model, &refs(&params), tokens, blocks, usize::MAX), directions(config, 3))
}

fn close(found: f64, expected: f64, what: &str) {
    assert!((found / expected - 1.0).abs() < 0.01, "{what}: {found} for {expected}");
}

#[test]
fn counts_are_those_of_pytorch() {
    let recorded: Recorded = serde_json::from_str(include_str!("../../../../tests/data/flops/flops.json")).unwrap();
    for (name, model) in &recorded.models {
        let config = model.config(recorded.vocab);
        close(forward_flops(&config, recorded.length as usize, recorded.batch as u64), model.forward, name);
        let fresh = || at(&config, [recorded.batch, recorded.length], &Structure::Full);
        let (mut linearization, _) = fresh();
        linearization.gradient(Labels::Data);
        close(linearization.take_flops(), model.gradient, name);
        let (mut linearization, delta) = fresh();
        linearization.quadratic(&refs(&delta));
        close(linearization.take_flops(), model.quadratic, name);
    }
}

#[test]
fn products_cost_what_their_passes_do() {
    let config = ModelConfig { num_layers: 5, ..small(false, false, false) };
    let shape = [2, 8];
    let forward = forward_flops(&config, 8, 2);
    let head = 2.0 * (2 * 8 * config.width * config.vocab_size) as f64;
    let block = (forward - head) / 5.0;
    let (mut full, v) = at(&config, shape, &Structure::Full);
    full.ggn_vector_product(&refs(&v));
    close(full.take_flops(), 5.0 * forward, "the first product: values, tangents, pullback");
    full.ggn_vector_product(&refs(&v));
    close(full.take_flops(), 4.0 * forward + head, "the second: no values but the head's");
    full.ggn_vector_product(&refs(&v));
    close(full.take_flops(), 4.0 * forward, "later ones: probabilities are kept as well");
    full.hessian_vector_product(&refs(&v));
    close(full.take_flops(), 7.0 * forward, "Hessian");
    let (mut layers, v) = at(&config, shape, &Structure::Layerwise);
    layers.quadratic(&refs(&v));
    let l = 5.0;
    // In a block whose weights do not move, a tangent or a pullback costs as much as the block; its attention, where both
    // factors of each product move, costs twice its share.
    let attention = 2.0 * (4 * 8 * 8 * config.width) as f64;
    let expected = l * (l + 6.0) * block + l * (l + 1.0) * attention + (2.0 * l + 5.0) * head;
    close(layers.take_flops(), expected, "layerwise");
}
