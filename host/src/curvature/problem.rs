//! What is optimized: something with a loss on batches of sequences.

use super::linearization::Linearization;
use crate::error::Result;
use gauntlet_plugin_api::{Blocks, Position};
use tch::Tensor;

/// A loss as a function of parameters and a batch. Losses are means over tokens, in nats.
pub trait Problem: Send {
    /// Predicted tokens of one sequence.
    fn seq_len(&self) -> usize;

    /// Size of the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Floating-point operations of one forward pass over `sequences` sequences, a multiplication and an addition
    /// counted as two.
    fn forward_flops(&self, sequences: u64) -> f64;

    /// The loss of each sequence.
    fn losses(&self, params: &[&Tensor], batch: &Position) -> Result<Vec<f64>>;

    /// The mean loss and its gradient, one tensor a parameter.
    fn loss_and_gradient(&self, params: &[&Tensor], batch: &Position) -> Result<(f64, Vec<Tensor>)>;

    /// The problem linearized at `anchor`, whose storage is shared; `step` is part of the keys of sampled labels. None
    /// where there is no model to linearize.
    fn linearize(
        &self,
        _anchor: &[&Tensor],
        _batch: &Position,
        _blocks: &Blocks,
        _step: u64,
    ) -> Option<Result<Linearization>> {
        None
    }

    /// Whether there is a model to linearize.
    fn has_curvature(&self) -> bool {
        false
    }

    /// The mean loss. Every sequence has the same number of tokens, so it is the mean of the sequences' losses.
    fn loss(&self, params: &[&Tensor], batch: &Position) -> Result<f64> {
        let losses = self.losses(params, batch)?;
        Ok(losses.iter().sum::<f64>() / losses.len() as f64)
    }
}
