//! The model linearized at an anchor on a batch, and its products, summed over micro-batches.
//!
//! Values of the first pass are kept for later products within a budget of memory and computed again beyond it. Every
//! product with a structure runs once for each block, with the block's own tangents and parameters; all blocks share
//! the values of one pass.

use super::hessian;
use super::kronecker::Factors;
use super::labels::LabelDraws;
use super::passes::{Anchor, Gradient, MicroBatch, Part, Primal, RowWeights, Rule, Sink, Tangents};
use super::rules::{
    Cotangent, Directional, Fisher, Ggn, Jvp, Loss, ProxLinear, Quadratic, Residual, RowLosses, Targets,
};
use crate::model::Transformer;
use gauntlet_plugin_api::backend::Product;
use gauntlet_plugin_api::{Blocks, Error, Labels, Per, Result, Sharing};
use std::sync::Arc;
use tch::Tensor;

/// A linearization.
#[derive(Debug)]
pub struct Linearization {
    anchor: Anchor,
    blocks: Blocks,
    batches: Vec<Sequences>,
    draws: LabelDraws,
    /// Bytes of values that may be kept.
    budget: usize,
    /// Products so far.
    products: usize,
}

/// A micro-batch, and its values where they are kept.
#[derive(Debug)]
struct Sequences {
    batch: MicroBatch,
    tokens: Tensor,
    kept: Option<Primal>,
}

/// A batch's sequences in micro-batches.
#[derive(Debug)]
pub struct Tokens {
    /// int64 `[m, T + 1]` each.
    pub micro_batches: Vec<Tensor>,
    /// Keys of sampled labels.
    pub draws: LabelDraws,
}

impl Linearization {
    /// The model at `anchor` on sequences. Each token has the same weight in the mean. The anchor's storage is shared.
    pub fn new(model: Arc<Transformer>, anchor: &[&Tensor], tokens: Tokens, blocks: Blocks, budget: usize) -> Self {
        let rows = |tokens: &Tensor| tokens.size()[0] * (tokens.size()[1] - 1);
        let weight = 1.0 / tokens.micro_batches.iter().map(rows).sum::<i64>() as f64;
        let weights = tokens.micro_batches.iter().map(|_| RowWeights::Uniform(weight)).collect();
        Self::weighted(model, anchor, tokens, weights, blocks, budget)
    }

    /// As [`Linearization::new`] with the weights `w_t / W` of each micro-batch's rows, zero for a masked token.
    pub fn weighted(
        model: Arc<Transformer>,
        anchor: &[&Tensor],
        tokens: Tokens,
        weights: Vec<RowWeights>,
        blocks: Blocks,
        budget: usize,
    ) -> Self {
        let sequences = |(tokens, weights): (Tensor, RowWeights)| Sequences {
            batch: MicroBatch::new(&tokens, weights),
            tokens,
            kept: None,
        };
        let batches = tokens.micro_batches.into_iter().zip(weights).map(sequences).collect();
        Self { anchor: Anchor::new(model, anchor), blocks, batches, draws: tokens.draws, budget, products: 0 }
    }

    /// Floating-point operations since this was last asked.
    pub fn take_flops(&self) -> f64 {
        self.anchor.flops.take()
    }

    /// Rows and vocabulary: the shape of what `jvp` gives.
    pub fn output_shape(&self) -> [usize; 2] {
        let rows: i64 = self.batches.iter().map(|sequences| sequences.batch.rows()).sum();
        [rows as usize, self.anchor.model().config().vocab_size]
    }

    /// L(z0).
    pub fn loss(&mut self) -> f64 {
        let mut rule = Loss::default();
        self.each_whole(None, &mut rule, None);
        rule.value
    }

    /// The loss of each sequence.
    pub fn losses(&mut self) -> Vec<f64> {
        let mut losses = vec![];
        for index in 0..self.batches.len() {
            let mut rule = RowLosses::default();
            self.whole(index, None, &mut rule, None);
            let length = self.batches[index].batch.shape()[1] as usize;
            losses.extend(rule.rows.chunks(length).map(|rows| rows.iter().sum::<f64>() / length as f64));
        }
        losses
    }

    /// L(z0) and J^T g0, for labels of the data or drawn.
    pub fn gradient(&mut self, labels: Labels) -> (f64, Vec<Tensor>) {
        let mut sink = self.whole_gradient();
        let mut loss = 0.0;
        for index in 0..self.batches.len() {
            let uniforms = self.draws.uniforms(labels, index);
            let mut rule = Residual { targets: targets(&uniforms), weights: None, loss: 0.0 };
            self.whole(index, None, &mut rule, Some(&mut sink));
            loss += rule.loss;
        }
        (loss, sink.finish(self.anchor.params()))
    }

    /// sum_n w_n g_n over sequences, g_n the gradient of a sequence's mean loss.
    pub fn gradient_weighted(&mut self, weights: &[f64]) -> Result<Vec<Tensor>> {
        let sequences: i64 = self.batches.iter().map(|sequences| sequences.batch.shape()[0]).sum();
        if weights.len() as i64 != sequences {
            return Err(Error::shape(
                "gradient_weighted",
                format!("found {} weights, expected {sequences}", weights.len()),
            ));
        }
        let (mut sink, mut weights) = (self.whole_gradient(), weights.iter());
        for index in 0..self.batches.len() {
            let [count, length] = self.batches[index].batch.shape();
            let of_rows: Vec<f64> = weights
                .by_ref()
                .take(count as usize)
                .flat_map(|weight| std::iter::repeat_n(weight / length as f64, length as usize))
                .collect();
            let weights = RowWeights::each(&of_rows, &self.anchor.params()[0]);
            let mut rule = Residual { targets: Targets::Data, weights: Some(weights), loss: 0.0 };
            self.whole(index, None, &mut rule, Some(&mut sink));
        }
        Ok(sink.finish(self.anchor.params()))
    }

    /// J v, `[tokens, vocab_size]`.
    pub fn jvp(&mut self, v: &[&Tensor]) -> Tensor {
        let mut rule = Jvp { rows: vec![] };
        self.each_whole(Some(v), &mut rule, None);
        Tensor::cat(&rule.rows, 0)
    }

    /// J^T u for `u [tokens, vocab_size]`.
    pub fn vjp(&mut self, u: &Tensor) -> Result<Vec<Tensor>> {
        let expected = self.output_shape().map(|size| size as i64);
        if u.size() != expected || u.kind() != self.anchor.params()[0].kind() {
            let found = format!("found {:?} of {:?}, expected {expected:?} of the model's type", u.size(), u.kind());
            return Err(Error::shape("vjp", found));
        }
        let (mut sink, mut first) = (self.whole_gradient(), 0);
        for index in 0..self.batches.len() {
            let rows = self.batches[index].batch.rows();
            let mut rule = Cotangent { output: u.narrow(0, first, rows) };
            self.whole(index, None, &mut rule, Some(&mut sink));
            first += rows;
        }
        Ok(sink.finish(self.anchor.params()))
    }

    /// J^T H J v by block.
    pub fn ggn_vector_product(&mut self, v: &[&Tensor]) -> Vec<Tensor> {
        self.by_block(v, &mut Ggn)
    }

    /// `[L(z0), linear, curvature, block values...]`, and the gradient of the quadratic model by block.
    pub fn quadratic(&mut self, delta: &[&Tensor]) -> Product<Tensor> {
        let mut rule = Quadratic::default();
        let tensors = self.by_block(delta, &mut rule);
        let terms = rule.linear.iter().zip(&rule.curvature);
        let mut values = vec![rule.anchor_loss, rule.linear.iter().sum(), rule.curvature.iter().sum()];
        values.extend(terms.map(|(linear, curvature)| rule.anchor_loss + linear + curvature));
        Product { values, tensors }
    }

    /// `[L(z0), value, block values...]`, and the gradient of the loss of the linearized model by block.
    pub fn prox_linear(&mut self, delta: &[&Tensor]) -> Product<Tensor> {
        let mut rule = ProxLinear::default();
        let tensors = self.by_block(delta, &mut rule);
        let gains: f64 = rule.values.iter().map(|value| value - rule.anchor_loss).sum();
        let mut values = vec![rule.anchor_loss, rule.anchor_loss + gains];
        values.extend(&rule.values);
        Product { values, tensors }
    }

    /// sum over tokens of `(w_t / W) J_t^T (p_t - y_t) (p_t - y_t)^T J_t v` by block.
    pub fn fisher_vector_product(&mut self, v: &[&Tensor], labels: Labels) -> Vec<Tensor> {
        let mut sink = self.gradient_by_block();
        for index in 0..self.batches.len() {
            let uniforms = self.draws.uniforms(labels, index);
            let mut rule = Fisher { targets: targets(&uniforms) };
            self.blocks_of(index, v, &mut rule, &mut sink);
        }
        self.products += 1;
        sink.finish(self.anchor.params())
    }

    /// (d2/dtheta2 L) v by block.
    pub fn hessian_vector_product(&mut self, v: &[&Tensor]) -> Vec<Tensor> {
        hessian::product(&self.anchor, &self.blocks, self.batches.iter().map(|s| (&s.tokens, &s.batch)), v)
    }

    /// <g_n, v> for each sequence n.
    pub fn sequence_directional(&mut self, v: &[&Tensor]) -> Vec<f64> {
        let mut values = vec![];
        for index in 0..self.batches.len() {
            let mut rule = Directional::default();
            self.whole(index, Some(v), &mut rule, None);
            let length = self.batches[index].batch.shape()[1] as usize;
            values.extend(rule.rows.chunks(length).map(|rows| rows.iter().sum::<f64>() / length as f64));
        }
        values
    }

    /// E[a a^T] and E[s s^T] of the named linear layers, in the order of the names.
    pub fn kronecker_factors(&mut self, names: &[String], labels: Labels, sharing: Sharing) -> Result<Vec<Tensor>> {
        let mut sink = Factors::new(self.anchor.model().config(), names, sharing)?;
        for index in 0..self.batches.len() {
            let uniforms = self.draws.uniforms(labels, index);
            // s belongs to a token's own loss, which is not divided by the number of tokens.
            let weights = Some(RowWeights::Uniform(1.0));
            let mut rule = Residual { targets: targets(&uniforms), weights, loss: 0.0 };
            sink.start(self.batches[index].batch.shape());
            self.whole(index, None, &mut rule, Some(&mut sink));
        }
        self.products += 1;
        Ok(sink.finish())
    }

    /// The mean over cases of the squared gradient of a case: one pass a sequence, or one a token.
    pub fn squared_gradient(&mut self, per: Per, labels: Labels) -> Vec<Tensor> {
        let mut sums: Vec<Tensor> = self.anchor.params().iter().map(Tensor::zeros_like).collect();
        let mut cases = 0;
        for index in 0..self.batches.len() {
            let [count, length] = self.batches[index].batch.shape();
            let uniforms = self.draws.uniforms(labels, index);
            for sequence in 0..count {
                let rows = (sequence * length)..((sequence + 1) * length);
                let each = match per {
                    Per::Token => rows.map(|row| (row, 1)).collect(),
                    _ => vec![(rows.start, length)],
                };
                for (first, tokens) in each {
                    self.add_square(index, sequence, (first, tokens), &uniforms, &mut sums);
                    cases += 1;
                }
            }
        }
        sums.iter_mut().for_each(|sum| drop(sum.g_mul_scalar_(1.0 / f64::from(cases.max(1)))));
        sums
    }

    /// Adds the square of the gradient of the mean loss of some rows of one sequence.
    fn add_square(
        &mut self,
        index: usize,
        sequence: i64,
        (first, count): (i64, i64),
        uniforms: &Option<Vec<f64>>,
        sums: &mut [Tensor],
    ) {
        let length = self.batches[index].batch.shape()[1];
        let tokens = self.batches[index].tokens.narrow(0, sequence, 1);
        let start = sequence * length;
        let weight = |row: i64| if (first..first + count).contains(&row) { 1.0 / count as f64 } else { 0.0 };
        let weights: Vec<f64> = (start..start + length).map(weight).collect();
        let batch = MicroBatch::new(&tokens, RowWeights::each(&weights, &self.anchor.params()[0]));
        let uniforms = uniforms.as_ref().map(|all| all[start as usize..(start + length) as usize].to_vec());
        let mut rule = Residual { targets: targets(&uniforms), weights: None, loss: 0.0 };
        let mut sink = self.whole_gradient();
        let mut primal = self.anchor.forward(&batch);
        let parts = [Part { block: 0, tangents: Tangents::none(self.anchor.params().len()), hidden: None }];
        pull_back(&self.anchor, &batch, &mut primal, &parts, false, &mut rule, Some(&mut sink));
        for (sum, gradient) in sums.iter_mut().zip(sink.finish(self.anchor.params())) {
            let _ = sum.addcmul_(&gradient, &gradient);
        }
    }

    fn whole_gradient(&self) -> Gradient {
        Gradient::new(&vec![0; self.anchor.params().len()], self.anchor.model().config().vocab_size as i64)
    }

    fn gradient_by_block(&self) -> Gradient {
        Gradient::new(self.blocks.of_param(), self.anchor.model().config().vocab_size as i64)
    }

    /// A product of every block over all micro-batches.
    fn by_block(&mut self, v: &[&Tensor], rule: &mut dyn Rule) -> Vec<Tensor> {
        let mut sink = self.gradient_by_block();
        for index in 0..self.batches.len() {
            self.blocks_of(index, v, rule, &mut sink);
        }
        self.products += 1;
        sink.finish(self.anchor.params())
    }

    fn blocks_of(&mut self, index: usize, v: &[&Tensor], rule: &mut dyn Rule, sink: &mut dyn Sink) {
        let of_param = self.blocks.of_param().to_vec();
        let tangents = |block: usize| Tangents::new(v, |param| of_param[param] == block);
        let all = (0..self.blocks.count()).map(|block| (block, tangents(block))).collect();
        self.run(index, all, rule, Some(sink));
    }

    fn each_whole(&mut self, v: Option<&[&Tensor]>, rule: &mut dyn Rule, mut sink: Option<&mut Gradient>) {
        for index in 0..self.batches.len() {
            self.whole(index, v, rule, sink.as_mut().map(|sink| *sink as &mut dyn Sink));
        }
    }

    /// The whole model as one block, whatever the structure.
    fn whole(&mut self, index: usize, v: Option<&[&Tensor]>, rule: &mut dyn Rule, sink: Option<&mut dyn Sink>) {
        let tangents = match v {
            Some(v) => Tangents::new(v, |_| true),
            None => Tangents::none(self.anchor.params().len()),
        };
        self.run(index, vec![(0, tangents)], rule, sink);
    }

    /// One micro-batch through values, tangents, head and pullbacks.
    fn run(
        &mut self,
        index: usize,
        tangents: Vec<(usize, Tangents)>,
        rule: &mut dyn Rule,
        sink: Option<&mut dyn Sink>,
    ) {
        let _no_grad = tch::no_grad_guard();
        let repeated = self.products > 0;
        let keep = self.may_keep(index);
        let sequences = &mut self.batches[index];
        let mut primal = sequences.kept.take().unwrap_or_else(|| self.anchor.forward(&sequences.batch));
        let mut parts = Vec::with_capacity(tangents.len());
        for (block, tangents) in tangents {
            let hidden = self.anchor.tangent(&sequences.batch, &primal, &tangents);
            parts.push(Part { block, tangents, hidden });
        }
        pull_back(&self.anchor, &sequences.batch, &mut primal, &parts, keep && repeated, rule, sink);
        sequences.kept = keep.then_some(primal);
    }

    /// Whether the values of this micro-batch fit the budget beside those of the earlier ones.
    fn may_keep(&self, index: usize) -> bool {
        let bytes = |sequences: &Sequences| self.anchor.bytes_of_values(&sequences.batch);
        self.batches[..=index].iter().map(bytes).sum::<usize>() <= self.budget
    }
}

/// Runs the head's rule on all parts and pulls each part's cotangent back.
fn pull_back(
    anchor: &Anchor,
    batch: &MicroBatch,
    primal: &mut Primal,
    parts: &[Part],
    keep: bool,
    rule: &mut dyn Rule,
    sink: Option<&mut dyn Sink>,
) {
    let mut nothing = super::passes::Nothing;
    let sink = sink.unwrap_or(&mut nothing);
    let cotangents = anchor.head(batch, primal, parts, keep, rule, sink);
    for (part, cotangent) in parts.iter().zip(cotangents) {
        let Some(cotangent) = cotangent else { continue };
        sink.begin(part.block);
        anchor.pullback(batch, primal, &cotangent, sink);
    }
}

fn targets(uniforms: &Option<Vec<f64>>) -> Targets<'_> {
    match uniforms {
        None => Targets::Data,
        Some(uniforms) => Targets::Sampled(uniforms),
    }
}
