//! Products with the Hessian of the mean loss, by two reverse passes of libtorch: the gradient of <gradient, v>.
//!
//! Attention is computed by plain operations here, since the fused kernel has no second derivative.

use super::passes::{Anchor, MicroBatch};
use crate::model::Attention;
use gauntlet_plugin_api::Blocks;
use tch::Tensor;

/// (d2 L / dtheta2) v by block: a block sees its own part of v and gives its own part of the product.
pub fn product<'a>(
    anchor: &Anchor,
    blocks: &Blocks,
    batches: impl Iterator<Item = (&'a Tensor, &'a MicroBatch)>,
    v: &[&Tensor],
) -> Vec<Tensor> {
    let mut sums: Vec<Tensor> = anchor.params().iter().map(Tensor::zeros_like).collect();
    for (tokens, batch) in batches {
        for block in 0..blocks.count() {
            let params: Vec<usize> = blocks.params_of(block).collect();
            let parts = on_micro_batch(anchor, tokens, batch, &params, v);
            tch::no_grad(|| params.iter().zip(parts).for_each(|(param, part)| drop(sums[*param].g_add_(&part))));
        }
    }
    sums
}

fn on_micro_batch(
    anchor: &Anchor,
    tokens: &Tensor,
    batch: &MicroBatch,
    params: &[usize],
    v: &[&Tensor],
) -> Vec<Tensor> {
    let all: Vec<Tensor> = (anchor.params().iter().enumerate())
        .map(|(index, param)| param.detach().set_requires_grad(params.contains(&index)))
        .collect();
    let leaves: Vec<&Tensor> = params.iter().map(|param| &all[*param]).collect();
    let losses = anchor.model().token_losses(&all, tokens, Attention::Math);
    let loss = batch.weights.total(&losses.view(-1));
    let gradient = Tensor::run_backward(&[&loss], &leaves, true, true);
    let along = gradient.iter().zip(params).map(|(gradient, param)| (gradient * v[*param]).sum(None::<tch::Kind>));
    let along: Tensor = along.sum();
    anchor.count_hessian(batch);
    match along.requires_grad() {
        true => Tensor::run_backward(&[&along], &leaves, false, false),
        false => leaves.iter().map(|leaf| leaf.zeros_like()).collect(),
    }
}
