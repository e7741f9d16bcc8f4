//! Recorded gradients in place of a model: what an optimizer does with them can be compared with a reference.

use super::problem::Problem;
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_api::Position;
use tch::Tensor;

/// Gradients of steps 1, 2, ...; step t is the batch of sequence t - 1. Its losses are 0.
#[derive(Debug)]
pub struct Recorded {
    gradients: Vec<Vec<Tensor>>,
}

impl Recorded {
    /// Gradients by step, each one tensor a parameter.
    pub fn new(gradients: Vec<Vec<Tensor>>) -> Self {
        Self { gradients }
    }
}

impl Problem for Recorded {
    fn seq_len(&self) -> usize {
        1
    }

    fn vocab_size(&self) -> usize {
        1
    }

    fn forward_flops(&self, _sequences: u64) -> f64 {
        0.0
    }

    fn losses(&self, _params: &[&Tensor], batch: &Position) -> Result<Vec<f64>> {
        Ok(vec![0.0; batch.sequences as usize])
    }

    fn loss_and_gradient(&self, _params: &[&Tensor], batch: &Position) -> Result<(f64, Vec<Tensor>)> {
        let step = batch.parts.first().map_or(0, |part| part.first) as usize;
        let gradient = self.gradients.get(step).ok_or_else(|| {
            let fault = Fault::new(Exit::Data, "the recorded gradients are used up");
            fault.found(format!("step {}", step + 1)).expected(format!("at most {}", self.gradients.len()))
        })?;
        Ok((0.0, gradient.iter().map(Tensor::copy).collect()))
    }
}
