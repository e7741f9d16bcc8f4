//! The forward pass.

use std::sync::{Mutex, PoisonError};

use tch::{Device, Kind, Tensor};

use super::attention::{Attention, repeat_heads};
use super::norm::{layer_norm, rms_norm};
use super::params::{BlockWeights, Weights};
use super::rope::RopeTable;
use super::spec::ModelConfig;
use crate::error::{Exit, Fault};

/// A decoder-only transformer with pre-norm blocks, as functions of its parameters.
///
/// It owns a configuration and tables of positions, no parameters, and may be used from any thread.
#[derive(Debug)]
pub struct Transformer {
    config: ModelConfig,
    device: Device,
    kind: Kind,
    /// Tables for the longest sequence seen so far.
    tables: Mutex<Option<Tables>>,
}

/// What depends on the sequence length alone.
#[derive(Debug)]
struct Tables {
    length: i64,
    rope: RopeTable,
    /// `[length, length]`: 0 on and below the diagonal, minus infinity above.
    mask: Tensor,
}

impl Transformer {
    /// A model whose parameters live on `device` in `kind`, `Float` or `Double`.
    ///
    /// # Errors
    /// When the configuration has a violation, or `kind` is another one.
    pub fn new(config: ModelConfig, device: Device, kind: Kind) -> Result<Self, Fault> {
        config.check()?;
        if !matches!(kind, Kind::Float | Kind::Double) {
            let fault = Fault::new(Exit::Usage, "dtype of the model").found(format!("{kind:?}"));
            return Err(fault.expected("Float or Double"));
        }
        Ok(Self { config, device, kind, tables: Mutex::new(None) })
    }

    /// Its configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where its parameters live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The dtype of its parameters.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Scores of the next token at each position: `tokens` is int64 `[B, T]`, the result `[B, T, vocab_size]`.
    ///
    /// # Panics
    /// When `params` are not those of [`param_specs`](super::param_specs) in number and shape, `tokens` has another
    /// shape or holds a token outside the vocabulary, or libtorch fails (memory).
    pub fn logits(&self, params: &[Tensor], tokens: &Tensor, attention: Attention) -> Tensor {
        let weights = Weights::bind(&self.config, params);
        linear(&self.hidden_of(&weights, tokens, attention), weights.head)
    }

    /// The normalised residual stream that the head reads: `tokens` is int64 `[B, T]`, the result `[B, T, width]`.
    ///
    /// # Panics
    /// As [`logits`](Self::logits).
    pub fn hidden(&self, params: &[Tensor], tokens: &Tensor, attention: Attention) -> Tensor {
        self.hidden_of(&Weights::bind(&self.config, params), tokens, attention)
    }

    fn hidden_of(&self, weights: &Weights, tokens: &Tensor, attention: Attention) -> Tensor {
        let tables = self.tables(tokens.size()[1]);
        let mut x = Tensor::embedding(weights.embed, tokens, -1, false, false);
        for block in &weights.blocks {
            x = &x + self.attention(block, &rms_norm(&x, block.norm1, self.config.norm_eps), &tables, attention);
            x = &x + self.mlp(block, &rms_norm(&x, block.norm2, self.config.norm_eps));
        }
        rms_norm(&x, weights.norm, self.config.norm_eps)
    }

    /// Attention of one block on its normalised input `[B, T, width]`.
    fn attention(&self, block: &BlockWeights, x: &Tensor, tables: &Tables, attention: Attention) -> Tensor {
        let (mut q, mut k, v) = (linear(x, block.q), linear(x, block.k), linear(x, block.v));
        if let Some([q_norm, k_norm]) = &block.qk_norm {
            q = layer_norm(&q, q_norm, self.config.norm_eps);
            k = layer_norm(&k, k_norm, self.config.norm_eps);
        }
        let heads = |x: &Tensor| x.unflatten(-1, [-1, self.config.head_width() as i64]);
        let repeats = (self.config.num_heads / self.config.kv_heads()) as i64;
        let q = tables.rope.rotate(&heads(&q)).transpose(1, 2);
        let k = repeat_heads(tables.rope.rotate(&heads(&k)), repeats).transpose(1, 2);
        let v = repeat_heads(heads(&v), repeats).transpose(1, 2);
        linear(&attention.attend(&q, &k, &v, &tables.mask).transpose(1, 2).flatten(2, 3), block.o)
    }

    /// MLP of one block on its normalised input `[B, T, width]`.
    fn mlp(&self, block: &BlockWeights, x: &Tensor) -> Tensor {
        let up = linear(x, block.up);
        let hidden = match block.gate {
            Some(gate) => linear(x, gate).silu() * up,
            None => up.gelu("tanh"),
        };
        linear(&hidden, block.down)
    }

    /// The rotations and the causal mask `[length, length]` (0, and minus infinity above the diagonal) for sequences of
    /// `length` tokens.
    pub fn position_tables(&self, length: i64) -> (RopeTable, Tensor) {
        let tables = self.tables(length);
        (tables.rope, tables.mask)
    }

    /// Tables for sequences of `length` tokens, as views of those for the longest length seen.
    fn tables(&self, length: i64) -> Tables {
        let mut longest = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        let tables = match longest.take() {
            Some(tables) if tables.length >= length => tables,
            _ => tch::no_grad(|| self.build_tables(length)),
        };
        let view = tables.first(length);
        *longest = Some(tables);
        view
    }

    fn build_tables(&self, length: i64) -> Tables {
        let head_width = self.config.head_width() as i64;
        let rope = RopeTable::new(self.config.rope, length, head_width, self.config.rope_theta, self.kind, self.device);
        let mask = Tensor::full([length, length], f64::NEG_INFINITY, (self.kind, self.device)).triu(1);
        Tables { length, rope, mask }
    }
}

impl Tables {
    fn first(&self, length: i64) -> Self {
        let mask = self.mask.narrow(0, 0, length).narrow(1, 0, length);
        Self { length, rope: self.rope.first(length), mask }
    }
}

/// `x W^T` for a matrix `[out, in]`.
fn linear(x: &Tensor, weight: &Tensor) -> Tensor {
    x.linear(weight, None::<&Tensor>)
}
