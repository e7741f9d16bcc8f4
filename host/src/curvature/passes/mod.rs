//! Passes of the transformer at a fixed point, written by hand: values, tangents (J v) and pullbacks (J^T u).
//!
//! A micro-batch is passed through once; tangents and pullbacks then use the values of that pass, as often as wanted and
//! for some of the parameters only. Tangents are those of the rules in each file; they are compared with libtorch's
//! forward mode, and the pullback with its reverse mode. Nothing here builds an autograd graph.
//!
//! Matrices of activations are `[N, width]` with the N = batch T tokens of a micro-batch as rows. An absent tangent is
//! zero, and costs nothing.

mod attention;
mod block;
mod head;
mod linear;
mod mlp;
mod norm;
mod sink;

pub use head::{Needs, Part, Rows, Rule, Scores};
pub use linear::Flops;
pub use sink::{Gradient, Nothing, Sink};

use crate::model::{ModelConfig, Places, RopeTable, Transformer, param_specs};
use block::Block;
use gauntlet_torch_ext::kernels::Weights;
use norm::Normed;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// The point that the model is linearized at.
#[derive(Debug)]
pub struct Anchor {
    model: Arc<Transformer>,
    params: Vec<Tensor>,
    places: Places<usize>,
    /// Counts what passes cost.
    pub flops: Flops,
}

/// Tangents of parameters by index; absent ones are zero.
#[derive(Debug)]
pub struct Tangents<'a>(Vec<Option<&'a Tensor>>);

/// Sequences that are computed at once: `tokens` is int64 `[batch, T + 1]`.
#[derive(Debug)]
pub struct MicroBatch {
    inputs: Tensor,
    targets: Tensor,
    shape: [i64; 2],
    /// The weight of each row in the mean over tokens, `w_t / W`.
    pub weights: RowWeights,
}

/// The weights of rows: one number for all, or one a row, `[N, 1]`.
#[derive(Debug)]
pub enum RowWeights {
    /// The same for each.
    Uniform(f64),
    /// One a row.
    Each(Tensor),
}

/// The values of a pass over a micro-batch.
#[derive(Debug)]
pub struct Primal {
    blocks: Vec<Block>,
    norm: Normed,
    /// The probabilities of the next token, `[N, vocab_size]`, where they are kept.
    probabilities: Option<Tensor>,
}

/// The sizes of attention, and tables for its positions.
#[derive(Debug)]
struct Shape {
    batch: i64,
    length: i64,
    heads: i64,
    kv_heads: i64,
    head_width: i64,
    tables: RopeTable,
    mask: Tensor,
}

impl Anchor {
    /// The model at parameters in the order of [`param_specs`]; their storage is shared.
    pub fn new(model: Arc<Transformer>, params: &[&Tensor]) -> Self {
        let places = Places::bind(model.config(), 0..param_specs(model.config()).len());
        let params = params.iter().map(|param| param.detach()).collect();
        Self { model, params, places, flops: Flops::default() }
    }

    /// The model.
    pub fn model(&self) -> &Transformer {
        &self.model
    }

    /// The parameters.
    pub fn params(&self) -> &[Tensor] {
        &self.params
    }

    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    fn param(&self, index: usize) -> &Tensor {
        &self.params[index]
    }

    /// Hands the cotangents of a linear layer's outputs to the sink, if it wants them.
    fn linear_cotangent(&self, param: usize, inputs: &Tensor, outputs: &Tensor, sink: &mut dyn Sink) {
        if sink.wants(param) {
            self.flops.count(1, outputs.size()[1], inputs.size()[0], inputs.size()[1]);
            sink.linear(param, inputs, outputs);
        }
    }

    /// The cotangent of a norm's input for that of its output, added to `into` if there is one; the cotangents of its
    /// vectors go to the sink.
    fn norm_pullback(
        &self,
        norm: &Normed,
        weight: usize,
        bias: Option<usize>,
        dy: &Tensor,
        into: Option<Tensor>,
        sink: &mut dyn Sink,
    ) -> Tensor {
        let wants = [sink.wants(weight), bias.is_some_and(|bias| sink.wants(bias))];
        let (dx, vectors) = norm.pullback(dy, self.param(weight), into, wants);
        for (param, cotangent) in [(Some(weight), vectors.weight), (bias, vectors.bias)] {
            if let (Some(param), Some(cotangent)) = (param, cotangent) {
                sink.vector(param, cotangent);
            }
        }
        dx
    }

    /// The values of a micro-batch.
    pub fn forward(&self, batch: &MicroBatch) -> Primal {
        let shape = self.shape(batch);
        let mut x = self.param(self.places.embed).index_select(0, &batch.inputs);
        let blocks = self.places.blocks.iter().map(|at| Block::forward(self, at, &shape, &mut x)).collect();
        let norm = Normed::rms(&x, self.param(self.places.norm), self.config().norm_eps);
        Primal { blocks, norm, probabilities: None }
    }

    /// The tangent of the head's input `[N, width]`; absent when no parameter before the head has one.
    pub fn tangent(&self, batch: &MicroBatch, primal: &Primal, tangents: &Tangents) -> Option<Tensor> {
        let mut dx = tangents.of(self.places.embed).map(|table| table.index_select(0, &batch.inputs));
        for (block, at) in primal.blocks.iter().zip(&self.places.blocks) {
            dx = block.tangent(self, at, dx, tangents);
        }
        let weight = self.places.norm;
        primal.norm.tangent(dx.as_ref(), self.param(weight), tangents.of(weight), None)
    }

    /// Pulls the cotangent of the head's input `[N, width]` back to the parameters that the sink wants.
    pub fn pullback(&self, batch: &MicroBatch, primal: &Primal, dy: &Tensor, sink: &mut dyn Sink) {
        let mut dy = self.norm_pullback(&primal.norm, self.places.norm, None, dy, None, sink);
        let lowest = self.lowest_wanted(sink);
        for (level, (block, at)) in primal.blocks.iter().zip(&self.places.blocks).enumerate().rev() {
            if lowest > level + 1 {
                return;
            }
            dy = block.pullback(self, at, dy, sink);
        }
        if lowest == 0 {
            sink.table(self.places.embed, &batch.inputs, &dy);
        }
    }

    /// Where a pullback ends: 0 at the embedding, `l + 1` at block l, and beyond the blocks where none is wanted.
    fn lowest_wanted(&self, sink: &dyn Sink) -> usize {
        if sink.wants(self.places.embed) {
            return 0;
        }
        let in_block = |at: &crate::model::BlockPlaces<usize>| {
            let norms = at.qk_norm.iter().flatten().flat_map(|norm| [norm.weight, norm.bias]);
            let all = [at.norm1, at.q, at.k, at.v, at.o, at.norm2, at.up, at.down];
            all.into_iter().chain(at.gate).chain(norms).any(|param| sink.wants(param))
        };
        let first = self.places.blocks.iter().position(in_block);
        first.map_or(self.places.blocks.len() + 1, |block| block + 1)
    }

    /// Bytes of the values that a pass over a micro-batch keeps.
    pub fn bytes_of_values(&self, batch: &MicroBatch) -> usize {
        let config = self.config();
        let mlp = if config.mlp == crate::model::Mlp::Swiglu { 3 } else { 2 };
        let [sequences, length] = batch.shape;
        let scores = attention::kept_scores(length) * config.num_heads;
        let qk_norm = if config.qk_norm { 4 * config.width } else { 0 };
        let block = 9 * config.width + mlp * config.mlp_width + scores + qk_norm;
        let row = config.num_layers * block + 2 * config.width + config.vocab_size;
        row * (sequences * length) as usize * self.params[0].kind().elt_size_in_bytes()
    }

    /// Counts a product with the Hessian: a forward pass, its reverse pass, and the reverse pass of both.
    pub fn count_hessian(&self, batch: &MicroBatch) {
        let config = self.config();
        let matrices = |spec: &gauntlet_plugin_api::ParamSpec| if spec.shape.len() == 2 { spec.numel() } else { 0 };
        let specs = param_specs(config);
        let all: usize = specs.iter().map(matrices).sum();
        let table = if config.tied_head { 0 } else { specs[self.places.embed].numel() };
        let [sequences, length] = batch.shape;
        self.flops.count(7, sequences * length, (all - table) as i64, 1);
        let attention = 7 * 2 * sequences * (config.num_heads * config.num_layers) as i64;
        self.flops.count(attention, length, config.head_width() as i64, length);
    }

    fn shape(&self, batch: &MicroBatch) -> Shape {
        let config = self.config();
        let [sequences, length] = batch.shape;
        let (tables, mask) = self.model.position_tables(length);
        Shape {
            batch: sequences,
            length,
            heads: config.num_heads as i64,
            kv_heads: config.kv_heads() as i64,
            head_width: config.head_width() as i64,
            tables,
            mask,
        }
    }
}

impl Clone for Shape {
    fn clone(&self) -> Self {
        let (tables, mask) = (self.tables.shallow_clone(), self.mask.shallow_clone());
        Self { tables, mask, ..*self }
    }
}

impl<'a> Tangents<'a> {
    /// One tangent a parameter, of those that `choose` chooses.
    pub fn new(all: &[&'a Tensor], choose: impl Fn(usize) -> bool) -> Self {
        Self(all.iter().enumerate().map(|(index, tangent)| choose(index).then_some(*tangent)).collect())
    }

    /// None of `params`.
    pub fn none(params: usize) -> Self {
        Self((0..params).map(|_| None).collect())
    }

    fn of(&self, param: usize) -> Option<&'a Tensor> {
        self.0[param]
    }
}

impl MicroBatch {
    /// Sequences `tokens [batch, T + 1]` with the weight of their rows.
    pub fn new(tokens: &Tensor, weights: RowWeights) -> Self {
        let shape = [tokens.size()[0], tokens.size()[1] - 1];
        let part = |first: i64| tokens.narrow(1, first, shape[1]).contiguous().view(-1);
        Self { inputs: part(0), targets: part(1), shape, weights }
    }

    /// Number of rows N.
    pub fn rows(&self) -> i64 {
        self.shape[0] * self.shape[1]
    }

    /// Number of sequences, and their length T.
    pub fn shape(&self) -> [i64; 2] {
        self.shape
    }

    /// The tokens that follow, int64 `[N]`.
    pub fn targets(&self) -> &Tensor {
        &self.targets
    }
}

impl RowWeights {
    /// One number a row.
    pub fn each(weights: &[f64], like: &Tensor) -> Self {
        let weights = Tensor::from_slice(weights).to_kind(like.kind()).to_device(like.device());
        Self::Each(weights.view([-1, 1]))
    }

    /// The weights of `count` rows from `first` on.
    pub fn rows(&self, first: i64, count: i64) -> Self {
        match self {
            Self::Uniform(weight) => Self::Uniform(*weight),
            Self::Each(weights) => Self::Each(weights.narrow(0, first, count)),
        }
    }

    /// As loops over rows take them.
    pub fn kernel(&self) -> Weights<'_> {
        match self {
            Self::Uniform(weight) => Weights::Uniform(*weight),
            Self::Each(weights) => Weights::Each(weights),
        }
    }

    /// Multiplies the rows of `u`.
    pub fn apply(&self, first: i64, mut u: Tensor) -> Tensor {
        match self {
            Self::Uniform(weight) => u.g_mul_scalar_(*weight),
            Self::Each(weights) => {
                let rows = u.size()[0];
                u.g_mul_(&weights.narrow(0, first, rows))
            }
        }
    }

    /// The weighted sum of one value a row, as part of an autograd graph.
    pub fn total(&self, values: &Tensor) -> Tensor {
        match self {
            Self::Uniform(weight) => values.sum(None::<Kind>) * *weight,
            Self::Each(weights) => (values * weights.view(-1)).sum(None::<Kind>),
        }
    }

    /// The weighted sum of one value a row, accumulated in f64.
    pub fn sum(&self, first: i64, values: &Tensor) -> f64 {
        let values = values.to_kind(Kind::Double).view([-1, 1]);
        self.apply(first, values).sum(Kind::Double).double_value(&[])
    }
}

impl Primal {
    /// Forgets the probabilities, if they were kept.
    pub fn forget_probabilities(&mut self) {
        self.probabilities = None;
    }
}
