//! What a parameter is: its name, shape, role and place in the model.

use serde::{Deserialize, Serialize};

/// What a parameter does in the model; optimizers choose their rule by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(crate = "schemars")]
#[non_exhaustive]
pub enum Role {
    /// Token embedding `[vocabulary, width]`; also a weight tied to the head.
    Embedding,
    /// A matrix `[out, in]` inside a transformer block.
    Hidden,
    /// The output head `[vocabulary, width]`.
    Head,
    /// Scale of a normalisation layer.
    Norm,
    /// An additive offset.
    Bias,
}

/// Equal parts of a matrix along one dimension, for example the heads of q, k and v.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubBlocks {
    /// The dimension that is divided.
    pub dim: usize,
    /// How many equal parts it has.
    pub count: usize,
}

/// Name, shape and role of one parameter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ParamSpec {
    /// Unique name, for example `blocks.0.attn.q.weight`.
    pub name: String,
    /// Shape; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// What it does.
    pub role: Role,
    /// Index of the transformer block; `None` outside blocks (embedding, final norm, head).
    #[serde(default)]
    pub layer_idx: Option<usize>,
    /// Inputs that one output sums over; 1 for vectors and embeddings.
    #[serde(default = "one")]
    pub fan_in: usize,
    /// Outputs that one input reaches; the length for vectors.
    #[serde(default = "one")]
    pub fan_out: usize,
    /// Heads of q, k and v (or of the output projection, along its inputs).
    #[serde(default)]
    pub sub_blocks: Option<SubBlocks>,
    /// How often the model uses it: 2 for a weight tied between embedding and head.
    #[serde(default = "one")]
    pub uses: usize,
}

impl ParamSpec {
    /// A parameter outside any block, used once, with fans taken from its shape.
    pub fn new(name: impl Into<String>, shape: &[usize], role: Role) -> Self {
        let (fan_out, fan_in) = match (role, shape) {
            (Role::Embedding, [_, width]) => (*width, 1),
            (_, [out, inputs @ ..]) if !inputs.is_empty() => (*out, inputs.iter().product()),
            _ => (shape.iter().product(), 1),
        };
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            role,
            layer_idx: None,
            fan_in,
            fan_out,
            sub_blocks: None,
            uses: 1,
        }
    }

    /// The same parameter inside transformer block `layer_idx`.
    pub fn in_layer(mut self, layer_idx: usize) -> Self {
        self.layer_idx = Some(layer_idx);
        self
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.shape.iter().product()
    }
}

fn one() -> usize {
    1
}
