//! Every product in float64 against dense matrices, at random parameters and for every model option.

mod dense;
mod evaluations;
mod flops;
mod products;
mod structures;

use super::labels::LabelDraws;
use super::linearization::{Linearization, Tokens};
use super::passes::RowWeights;
use crate::model::fixtures::{directions, model, random_params, tokens};
use crate::model::{ModelConfig, Transformer};
use dense::Dense;
use gauntlet_plugin_api::Blocks;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// A model at random parameters on a batch, with its dense counterpart.
struct Case {
    model: Arc<Transformer>,
    params: Vec<Tensor>,
    tokens: Tensor,
    dense: Dense,
}

impl Case {
    fn new(config: &ModelConfig, sequences: i64, length: i64) -> Self {
        let (model, params, tokens) = (Arc::new(model(config)), random_params(config), tokens(sequences, length + 1));
        let dense = Dense::new(&model, &params, &tokens, None);
        Self { model, params, tokens, dense }
    }

    /// The linearization with micro-batches of the given sizes.
    fn at(&self, blocks: &Blocks, sizes: &[i64], budget: usize) -> Linearization {
        let params: Vec<&Tensor> = self.params.iter().collect();
        Linearization::new(self.model.clone(), &params, self.split(sizes), blocks.clone(), budget)
    }

    fn whole(&self) -> Linearization {
        self.at(&self.one_block(), &[self.tokens.size()[0]], usize::MAX)
    }

    fn one_block(&self) -> Blocks {
        Blocks::whole(self.params.len())
    }

    fn split(&self, sizes: &[i64]) -> Tokens {
        let (mut micro_batches, mut sequences, mut first) = (vec![], vec![], 0);
        for size in sizes {
            micro_batches.push(self.tokens.narrow(0, first, *size));
            sequences.push((first..first + size).map(|index| (0, index as u64)).collect());
            first += size;
        }
        let seq_len = self.tokens.size()[1] as u64 - 1;
        Tokens { micro_batches, draws: LabelDraws { step: 3, seq_len, sequences } }
    }

    fn direction(&self, seed: u64) -> Vec<Tensor> {
        directions(self.model.config(), seed)
    }
}

fn refs(tensors: &[Tensor]) -> Vec<&Tensor> {
    tensors.iter().collect()
}

fn flat(tensors: &[Tensor]) -> Tensor {
    dense::flat(&refs(tensors))
}

fn dot(a: &[Tensor], b: &[Tensor]) -> f64 {
    (flat(a) * flat(b)).sum(Kind::Double).double_value(&[])
}

/// max |a - b| by max |b|.
fn error(found: &Tensor, expected: &Tensor) -> f64 {
    assert_eq!(found.size(), expected.size());
    let scale = expected.abs().max().double_value(&[]).max(1e-300);
    (found - expected).abs().max().double_value(&[]) / scale
}

fn assert_close(found: &[Tensor], expected: &Tensor, what: &str) {
    let error = error(&flat(found), expected);
    assert!(error < 1e-10, "{what}: relative error {error:.1e}");
}

/// A small model with a choice of options.
fn small(qk_norm: bool, grouped: bool, tied_head: bool) -> ModelConfig {
    use crate::model::{Mlp, Rope};
    ModelConfig {
        vocab_size: 11,
        width: 8,
        num_layers: 2,
        num_heads: 2,
        mlp_width: 12,
        mlp: if grouped { Mlp::Swiglu } else { Mlp::Gelu },
        rope: if tied_head { Rope::Half } else { Rope::Interleaved },
        qk_norm,
        num_kv_heads: grouped.then_some(1),
        tied_head,
        ..ModelConfig::default()
    }
}
