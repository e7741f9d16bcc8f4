//! A transformer block at a point: `x + attention(norm1(x))`, then `x + mlp(norm2(x))`.

use super::attention::Attention;
use super::linear::add;
use super::mlp::Mlp;
use super::norm::Normed;
use super::sink::Sink;
use super::{Anchor, Shape, Tangents};
use crate::model::BlockPlaces;
use tch::Tensor;

/// A block's values for one micro-batch.
#[derive(Debug)]
pub struct Block {
    norm1: Normed,
    attention: Attention,
    norm2: Normed,
    mlp: Mlp,
}

impl Block {
    /// The values at the anchor; `x [N, width]` becomes the block's output.
    pub fn forward(anchor: &Anchor, at: &BlockPlaces<usize>, shape: &Shape, x: &mut Tensor) -> Self {
        let eps = anchor.config().norm_eps;
        let norm1 = Normed::rms(x, anchor.param(at.norm1), eps);
        let attention = Attention::forward(anchor, at, shape, &norm1.output, x);
        let norm2 = Normed::rms(x, anchor.param(at.norm2), eps);
        let mlp = Mlp::forward(anchor, at, &norm2.output, x);
        Self { norm1, attention, norm2, mlp }
    }

    /// The tangent of the block's output for that of its input.
    pub fn tangent(
        &self,
        anchor: &Anchor,
        at: &BlockPlaces<usize>,
        dx: Option<Tensor>,
        tangents: &Tangents,
    ) -> Option<Tensor> {
        let norm = |normed: &Normed, dx: Option<&Tensor>, weight: usize| {
            normed.tangent(dx, anchor.param(weight), tangents.of(weight), None)
        };
        let normed = norm(&self.norm1, dx.as_ref(), at.norm1);
        let dx = add(dx, self.attention.tangent(anchor, at, &self.norm1.output, normed.as_ref(), tangents));
        let normed = norm(&self.norm2, dx.as_ref(), at.norm2);
        add(dx, self.mlp.tangent(anchor, at, &self.norm2.output, normed.as_ref(), tangents))
    }

    /// The cotangent of the block's input for that of its output.
    pub fn pullback(&self, anchor: &Anchor, at: &BlockPlaces<usize>, dy: Tensor, sink: &mut dyn Sink) -> Tensor {
        let normed = self.mlp.pullback(anchor, at, &self.norm2.output, &dy, sink);
        let dy = through_norm(anchor, &self.norm2, at.norm2, dy, &normed, sink);
        let normed = self.attention.pullback(anchor, at, &self.norm1.output, &dy, sink);
        through_norm(anchor, &self.norm1, at.norm1, dy, &normed, sink)
    }
}

/// The cotangent of the residual stream before a branch: what passes by the branch, and what comes back through its norm.
fn through_norm(
    anchor: &Anchor,
    norm: &Normed,
    weight: usize,
    dy: Tensor,
    normed: &Tensor,
    sink: &mut dyn Sink,
) -> Tensor {
    anchor.norm_pullback(norm, weight, None, normed, Some(dy), sink)
}
