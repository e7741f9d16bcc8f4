//! The validation loss on fixed batches: the first windows of the validation data, the same every time.

use crate::data::{Dataset, Stream};
use crate::error::{Exit, Fault, Result};
use crate::model::{Attention, Transformer};
use std::sync::Arc;
use tch::Tensor;

/// Fixed validation batches.
#[derive(Clone, Debug)]
pub struct Evaluator {
    model: Arc<Transformer>,
    data: Arc<Dataset>,
    sequences: u64,
    batch_size: usize,
}

impl Evaluator {
    /// The first `batches` batches of `batch_size` sequences, or as many sequences as there are.
    pub fn new(model: Arc<Transformer>, data: Arc<Dataset>, batches: usize, batch_size: usize) -> Self {
        let sequences = ((batches * batch_size) as u64).min(data.windows());
        Self { model, data, sequences, batch_size }
    }

    /// Predicted tokens of one evaluation.
    pub fn tokens(&self) -> u64 {
        self.sequences * self.data.seq_len() as u64
    }

    /// A loss in nats a token as bits a byte of text, by the mean length of the tokens of all validation shards; `None`
    /// where their sidecars do not tell it. For bytes, a separator between documents counts as a byte.
    pub fn bits_per_byte(&self, loss: f64) -> Option<f64> {
        Some(loss / std::f64::consts::LN_2 / self.data.bytes_per_token()?)
    }

    /// Mean loss in nats a token.
    ///
    /// # Errors
    ///
    /// Data that cannot be read ([`Exit::Data`]), a loss that is not finite ([`Exit::NonFinite`]).
    pub fn loss(&self, params: &[Tensor]) -> Result<f64> {
        let params: Vec<Tensor> = params.iter().map(Tensor::detach).collect();
        let mut sum = 0.0;
        for first in (0..self.sequences).step_by(self.batch_size) {
            let count = self.batch_size.min((self.sequences - first) as usize);
            let tokens = Tensor::from_slice(&self.data.read(Stream::Evaluation, first, count)?)
                .view([count as i64, self.data.seq_len() as i64 + 1])
                .to_device(self.model.device());
            sum += tch::no_grad(|| self.model.loss_sum(&params, &tokens, Attention::Fused)).double_value(&[]);
        }
        let loss = sum / self.tokens() as f64;
        match loss.is_finite() {
            true => Ok(loss),
            false => Err(Fault::new(Exit::NonFinite, "the validation loss is not finite").found(loss)),
        }
    }
}
