//! A transformer on training data. Batches of optimizers are cut into micro-batches here, and nowhere else are their
//! losses and gradients summed.

use super::labels::LabelDraws;
use super::linearization::{Linearization, Tokens};
use super::problem::Problem;
use crate::data::{Dataset, Stream};
use crate::error::{Exit, Fault, Result};
use crate::model::{Attention, ModelConfig, Transformer, num_params, param_specs};
use gauntlet_plugin_api::{Blocks, Labels, ParamSpec, Part, Position, Purpose};
use std::sync::Arc;
use tch::Tensor;

/// Bytes of activations that a micro-batch may take where its size is chosen automatically.
const ACTIVATION_BUDGET: usize = 2 << 30;

/// A language model with its training data.
#[derive(Debug)]
pub struct LanguageModel {
    model: Arc<Transformer>,
    data: Arc<Dataset>,
    micro_batch: usize,
    curvature_budget: usize,
}

impl LanguageModel {
    /// A model on a data set; `micro_batch` sequences are computed at once, 0 to choose by memory. A linearization keeps
    /// the values of its first pass up to `curvature_budget` bytes.
    pub fn new(model: Arc<Transformer>, data: Arc<Dataset>, micro_batch: usize, curvature_budget: usize) -> Self {
        let micro_batch = match micro_batch {
            0 => automatic_micro_batch(model.config(), data.seq_len()),
            chosen => chosen,
        };
        Self { model, data, micro_batch, curvature_budget }
    }

    /// Sequences computed at once.
    pub fn micro_batch(&self) -> usize {
        self.micro_batch
    }

    /// Runs `body` on the tokens `[m, T + 1]` of each micro-batch of a batch, in order.
    fn for_each_micro_batch(&self, batch: &Position, mut body: impl FnMut(&Tensor) -> Result<()>) -> Result<()> {
        self.micro_batches(batch).try_for_each(|part| body(&self.tokens(&part)?))
    }

    /// The micro-batches of a batch, in order.
    fn micro_batches(&self, batch: &Position) -> impl Iterator<Item = Part> {
        let most = self.micro_batch as u64;
        batch.parts.iter().flat_map(move |part| {
            let end = part.first + part.count;
            let starts = (part.first..end).step_by(most as usize);
            starts.map(move |first| Part { first, count: most.min(end - first), ..*part })
        })
    }

    /// The tokens `[m, T + 1]` of consecutive sequences.
    fn tokens(&self, part: &Part) -> Result<Tensor> {
        let tokens = self.data.read(stream(part.purpose)?, part.first, part.count as usize)?;
        let shape = [part.count as i64, self.data.seq_len() as i64 + 1];
        Ok(Tensor::from_slice(&tokens).view(shape).to_device(self.model.device()))
    }
}

impl LanguageModel {
    /// The model linearized on a batch, with values kept up to `budget` bytes.
    fn linearization(
        &self,
        anchor: &[&Tensor],
        batch: &Position,
        blocks: Blocks,
        step: u64,
        budget: usize,
    ) -> Result<Linearization> {
        let seq_len = self.data.seq_len() as u64;
        let of_part = |part: &Part| (part.first..part.first + part.count).map(|first| (part.purpose, first)).collect();
        let sequences = self.micro_batches(batch).map(|part| of_part(&part)).collect();
        let draws = LabelDraws { step, seq_len, sequences };
        let micro_batches = self.micro_batches(batch).map(|part| self.tokens(&part)).collect::<Result<_>>()?;
        Ok(Linearization::new(self.model.clone(), anchor, Tokens { micro_batches, draws }, blocks, budget))
    }
}

impl Problem for LanguageModel {
    fn seq_len(&self) -> usize {
        self.data.seq_len()
    }

    fn vocab_size(&self) -> usize {
        self.model.config().vocab_size
    }

    fn forward_flops(&self, sequences: u64) -> f64 {
        forward_flops(self.model.config(), self.data.seq_len(), sequences)
    }

    fn losses(&self, params: &[&Tensor], batch: &Position) -> Result<Vec<f64>> {
        let params = detached(params);
        let mut losses = Vec::with_capacity(batch.sequences as usize);
        self.for_each_micro_batch(batch, |tokens| {
            let each = tch::no_grad(|| self.model.losses(&params, tokens, Attention::Fused));
            losses.extend(Vec::<f64>::try_from(&each).map_err(|error| internal(&error))?);
            Ok(())
        })?;
        Ok(losses)
    }

    fn loss_and_gradient(&self, params: &[&Tensor], batch: &Position) -> Result<(f64, Vec<Tensor>)> {
        let mut at = self.linearization(params, batch, Blocks::whole(params.len()), 0, 0)?;
        Ok(at.gradient(Labels::Data))
    }

    fn linearize(
        &self,
        anchor: &[&Tensor],
        batch: &Position,
        blocks: &Blocks,
        step: u64,
    ) -> Option<Result<Linearization>> {
        Some(self.linearization(anchor, batch, blocks.clone(), step, self.curvature_budget))
    }

    fn has_curvature(&self) -> bool {
        true
    }
}

/// Floating-point operations of one forward pass over sequences of `seq_len` tokens: matrix products, attention counted
/// as if nothing were masked, a multiplication and an addition as two.
pub fn forward_flops(config: &ModelConfig, seq_len: usize, sequences: u64) -> f64 {
    let vector = |spec: &ParamSpec| if spec.shape.len() == 1 { spec.numel() } else { 0 };
    let vectors: usize = param_specs(config).iter().map(vector).sum();
    let embedding = if config.tied_head { 0 } else { config.vocab_size * config.width };
    let per_token = 2.0 * (num_params(config) - vectors - embedding) as f64;
    let attention = 4.0 * (seq_len * config.width * config.num_layers) as f64;
    (sequences * seq_len as u64) as f64 * (per_token + attention)
}

/// Aliases that share storage with the parameters but belong to no autograd graph.
fn detached(params: &[&Tensor]) -> Vec<Tensor> {
    params.iter().map(|param| param.detach()).collect()
}

fn stream(purpose: u32) -> Result<Stream> {
    match Purpose(purpose) {
        Purpose::STEP => Ok(Stream::Main),
        Purpose::LINE_SEARCH => Ok(Stream::LineSearch),
        other => Err(Fault::new(Exit::Data, "purpose of a batch").found(other.name()).expected("step or line_search")),
    }
}

fn internal(error: &tch::TchError) -> Fault {
    let text = error.to_string();
    Fault::new(Exit::Internal, format!("libtorch: {}", text.lines().next().unwrap_or_default())).detail(text)
}

/// Sequences whose activations fit the budget: per token about 34 values of width in a block (attention, MLP, norms)
/// and three rows of logits.
pub fn automatic_micro_batch(config: &ModelConfig, seq_len: usize) -> usize {
    let block = 16 * config.width + 4 * config.mlp_width;
    let per_token = 4 * (config.num_layers * block + 3 * config.vocab_size);
    (ACTIVATION_BUDGET / (per_token * seq_len)).max(1)
}
