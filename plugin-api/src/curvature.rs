//! A linearization of the model at an anchor on a batch, and its products.
//!
//! Notation: f(theta) are the logits, L the mean cross-entropy over tokens, theta0 the anchor, z0 = f(theta0),
//! J = df/dtheta at theta0, g0 = dL/dz and H = d2L/dz2 at z0.

use crate::batch::Batch;
use crate::error::{Error, Result};
use crate::host::{Answer, Link};
use crate::params::Params;
use crate::structure::{Blocks, Structure};
use crate::tensor::Tensor;
use gauntlet_plugin_abi::{Capability, ErrorCode, RawLinearization};
use serde::{Deserialize, Serialize};

/// Which labels a Fisher estimate uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Labels {
    /// The data's own targets (the "empirical Fisher").
    #[default]
    Data,
    /// Drawn from the model's distribution with this seed; the host adds the step and the token to the key. Another
    /// seed gives another draw.
    Sampled(u64),
}

/// What a case is in a mean over cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Per {
    /// One predicted token.
    Token,
    /// One sequence, with its mean loss.
    #[default]
    Sequence,
}

/// How a weight that is used at many positions enters its Kronecker factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Sharing {
    /// Every token is a case of its own.
    #[default]
    Expand,
    /// A sequence is a case: inputs are averaged and derivatives summed over its tokens first (KFAC-reduce of
    /// Eschenhagen et al., arXiv 2311.00636).
    Reduce,
}

/// What a call of [`Linearization::quadratic`] gave.
#[derive(Debug)]
pub struct Quadratic {
    /// L(z0).
    pub anchor_loss: f64,
    /// <g0, J delta>, summed over blocks.
    pub linear: f64,
    /// 1/2 <J delta, H J delta>, summed over blocks.
    pub curvature: f64,
    /// L(z0) + linear + curvature of each block.
    pub block_values: Vec<f64>,
    /// J_l^T (g0 + H J_l delta_l) for each block l.
    pub gradient: Params,
}

impl Quadratic {
    /// L(z0) + linear + curvature. It may be far below zero (a model of the loss, not a loss).
    pub fn value(&self) -> f64 {
        self.anchor_loss + self.linear + self.curvature
    }
}

/// What a call of [`Linearization::prox_linear`] gave.
#[derive(Debug)]
pub struct ProxLinear {
    /// L(z0).
    pub anchor_loss: f64,
    /// L(z0) + sum over blocks of (L(z0 + J_l delta_l) - L(z0)).
    pub value: f64,
    /// L(z0 + J_l delta_l) of each block.
    pub block_values: Vec<f64>,
    /// J_l^T grad L(z0 + J_l delta_l) for each block l.
    pub gradient: Params,
}

/// Kronecker factors of one linear layer with weight `[out, in]`.
#[derive(Debug)]
pub struct KroneckerFactors {
    /// The weight's name.
    pub name: String,
    /// E[a a^T], `[in, in]`.
    pub inputs: Tensor,
    /// E[s s^T], `[out, out]`; s is the derivative of the token's own loss, not divided by the number of tokens.
    pub outputs: Tensor,
}

/// The model linearized at an anchor on a batch. It ends with the call of `step` at the latest.
///
/// `loss`, `gradient`, `jvp` and `vjp` do not depend on the structure; the products are those of the block-diagonal
/// problem. While it lives, writing to the anchor is an error.
#[derive(Debug)]
pub struct Linearization {
    link: Link,
    raw: RawLinearization,
    blocks: Blocks,
    like: Params,
}

impl Linearization {
    pub(crate) fn new(anchor: &Params, batch: &Batch, structure: &Structure) -> Result<Self> {
        let blocks = Blocks::resolve(structure, anchor.specs())?;
        let args = json(&serde_json::json!({ "structure": structure }))?;
        let like = anchor.like(anchor.iter().map(|(_, t)| Tensor::borrowed(t.link(), t.raw())).collect())?;
        let raw = anchor.link().linearize(&anchor.raw(), batch.raw(), &args)?;
        Ok(Self { link: anchor.link(), raw, blocks, like })
    }

    /// The blocks of its structure.
    pub fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// L(z0) in nats a token.
    pub fn loss(&self) -> Result<f64> {
        scalar(&self.product(Capability::ANCHOR_LOSS, &[], "")?)
    }

    /// J^T g0.
    pub fn gradient(&self) -> Result<Params> {
        self.params(self.product(Capability::ANCHOR_GRADIENT, &[], "")?)
    }

    /// J v, `[tokens, vocabulary]`.
    ///
    /// # Errors
    ///
    /// The result would exceed `curvature.max_output_bytes`.
    pub fn jvp(&self, v: &Params) -> Result<Tensor> {
        one_tensor(self.product(Capability::JVP, &[v], "")?)
    }

    /// J^T u for a cotangent u `[tokens, vocabulary]`.
    pub fn vjp(&self, u: &Tensor) -> Result<Params> {
        self.params(self.link.product(self.raw, Capability::VJP, &[u.raw()], "")?)
    }

    /// J^T H J v.
    pub fn ggn_vector_product(&self, v: &Params) -> Result<Params> {
        self.params(self.product(Capability::GGN_VECTOR_PRODUCT, &[v], "")?)
    }

    /// (d2/dtheta2 L) v.
    pub fn hessian_vector_product(&self, v: &Params) -> Result<Params> {
        self.params(self.product(Capability::HESSIAN_VECTOR_PRODUCT, &[v], "")?)
    }

    /// The quadratic model q(delta) = L(z0) + <g0, J delta> + 1/2 <J delta, H J delta> and its gradient: the
    /// subproblem of full Gauss-Newton (arXiv 2510.09378).
    pub fn quadratic(&self, delta: &Params) -> Result<Quadratic> {
        let answer = self.product(Capability::QUADRATIC, &[delta], "")?;
        let [anchor_loss, linear, curvature, block_values @ ..] = answer.values.as_slice() else {
            return Err(incomplete(Capability::QUADRATIC));
        };
        let (anchor_loss, linear, curvature) = (*anchor_loss, *linear, *curvature);
        let block_values = block_values.to_vec();
        Ok(Quadratic { anchor_loss, linear, curvature, block_values, gradient: self.params(answer)? })
    }

    /// L(z0 + J delta) and its gradient: the subproblem of GN-prox-linear (arXiv 2510.09378).
    pub fn prox_linear(&self, delta: &Params) -> Result<ProxLinear> {
        let answer = self.product(Capability::PROX_LINEAR, &[delta], "")?;
        let [anchor_loss, value, block_values @ ..] = answer.values.as_slice() else {
            return Err(incomplete(Capability::PROX_LINEAR));
        };
        let (anchor_loss, value, block_values) = (*anchor_loss, *value, block_values.to_vec());
        Ok(ProxLinear { anchor_loss, value, block_values, gradient: self.params(answer)? })
    }

    /// Kronecker factors of linear layers by the names of their weights, in one pass; q, k and v share `inputs`.
    pub fn kronecker_factors(&self, names: &[&str], labels: Labels, sharing: Sharing) -> Result<Vec<KroneckerFactors>> {
        let args = json(&serde_json::json!({ "names": names, "labels": labels, "sharing": sharing }))?;
        let answer = self.product(Capability::KRONECKER_FACTORS, &[], &args)?;
        if answer.tensors.len() != 2 * names.len() {
            return Err(incomplete(Capability::KRONECKER_FACTORS));
        }
        let mut tensors = answer.tensors.into_iter();
        let pairs = names.iter().filter_map(|name| Some((name, tensors.next()?, tensors.next()?)));
        Ok(pairs.map(|(name, inputs, outputs)| KroneckerFactors { name: name.to_string(), inputs, outputs }).collect())
    }

    /// sum_n w_n g_n over the sequences n of the batch; g_n is the gradient of the sequence's mean loss.
    pub fn gradient_weighted(&self, weights: &[f64]) -> Result<Params> {
        let args = json(&serde_json::json!({ "weights": weights }))?;
        self.params(self.product(Capability::GRADIENT_WEIGHTED, &[], &args)?)
    }

    /// <g_n, v> for each sequence n of the batch.
    pub fn sequence_directional(&self, v: &Params) -> Result<Vec<f64>> {
        Ok(self.product(Capability::SEQUENCE_DIRECTIONAL, &[v], "")?.values)
    }

    fn product(&self, what: Capability, lists: &[&Params], args: &str) -> Result<Answer> {
        let raw: Vec<_> = lists.iter().flat_map(|list| list.raw()).collect();
        self.link.product(self.raw, what, &raw, args)
    }

    fn params(&self, answer: Answer) -> Result<Params> {
        self.like.like(answer.tensors)
    }
}

impl Drop for Linearization {
    fn drop(&mut self) {
        self.link.linearization_free(self.raw);
    }
}

pub(crate) fn json(value: &serde_json::Value) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::argument("arguments", error.to_string()))
}

pub(crate) fn scalar(answer: &Answer) -> Result<f64> {
    answer.values.first().copied().ok_or_else(|| Error::new(ErrorCode::HOST, "", "the host gave no number"))
}

fn one_tensor(mut answer: Answer) -> Result<Tensor> {
    answer.tensors.pop().ok_or_else(|| Error::new(ErrorCode::HOST, "", "the host gave no tensor"))
}

fn incomplete(what: Capability) -> Error {
    Error::new(ErrorCode::HOST, what.name(), "the host's answer is incomplete")
}
