//! Small models with their data: something to train in a plugin's tests.

use super::data::normal;
use super::hyper_dual::HyperDual;
use crate::error::{Error, Result};
use crate::random::purpose_number;
use crate::spec::{ParamSpec, Role};
use gauntlet_plugin_abi::{DType, RandomKey};
use std::sync::Arc;

/// A small model and a fixed data set.
///
/// Sequences have 3 tokens, and a batch is the whole set of 16 sequences unless said otherwise, so that a step sees the
/// same data every time.
#[derive(Clone, Debug)]
pub struct Problem {
    pub(super) model: Model,
    pub(super) dtype: DType,
    pub(super) batch_size: u64,
    pub(super) seq_len: u64,
    pub(super) sequences: u64,
    pub(super) seed: u64,
    pub(super) total_steps: Option<u64>,
    /// Tokens and initial parameters of somebody else.
    pub(super) given: Option<Arc<Given>>,
}

/// Data of another implementation, to compare with it.
#[derive(Debug)]
pub(super) struct Given {
    /// Word and class of each token, of the step's stream and of the line search's.
    pub tokens: [Vec<[usize; 2]>; 2],
    pub params: Vec<Vec<f64>>,
}

#[derive(Clone, Debug)]
pub(super) enum Model {
    Softmax,
    TwoLayer,
    Squared,
    Empty,
    Recorded(Arc<Recorded>),
}

/// Parameters and one gradient a step, instead of a model.
#[derive(Debug)]
pub(super) struct Recorded {
    pub specs: Vec<ParamSpec>,
    pub params: Vec<Vec<f64>>,
    pub gradients: Vec<Vec<Vec<f64>>>,
}

/// What a model gives for one token.
pub(super) struct Outputs {
    pub logits: Vec<HyperDual>,
    /// Input of each linear layer.
    pub inputs: Vec<Vec<HyperDual>>,
}

impl Problem {
    fn new(model: Model) -> Self {
        let (batch_size, seq_len, sequences, seed) = (16, 3, 16, 1);
        Self { model, dtype: DType::F64, batch_size, seq_len, sequences, seed, total_steps: None, given: None }
    }

    /// Cross-entropy of `W x + b`: 4 inputs, 3 classes. Convex; the Gauss-Newton matrix is the Hessian.
    pub fn softmax_regression() -> Self {
        Self::new(Model::Softmax)
    }

    /// Cross-entropy of `W2 tanh(W1 (g * E[word]) + b)`: 5 words, widths 3 and 4. It has a parameter of every role;
    /// the Gauss-Newton matrix differs from the Hessian, and the blocks of a layer from the whole.
    pub fn two_layer() -> Self {
        Self::new(Model::TwoLayer)
    }

    /// [`Problem::two_layer`] with given tokens and initial parameters, for a comparison with another implementation.
    /// Tokens are pairs of a word and the class to predict, 3 to a sequence: those of the step's stream, and those of
    /// the line search's. Each stream begins again at its end.
    ///
    /// # Errors
    ///
    /// Words or classes out of range, no whole sequence, or parameters of other sizes.
    pub fn two_layer_of(tokens: [Vec<[usize; 2]>; 2], params: Vec<Vec<f64>>) -> Result<Self> {
        let mut problem = Self::two_layer();
        let seq_len = problem.seq_len as usize;
        let valid = |stream: &Vec<[usize; 2]>| {
            let known = stream.iter().all(|[word, class]| *word < problem.inputs() && *class < problem.outputs());
            known && !stream.is_empty() && stream.len().is_multiple_of(seq_len)
        };
        if !tokens.iter().all(valid) {
            return Err(Error::argument("tokens", "words and classes must be below 5, in whole sequences of 3"));
        }
        let (found, expected): (Vec<usize>, Vec<usize>) =
            (params.iter().map(Vec::len).collect(), problem.specs().iter().map(ParamSpec::numel).collect());
        if found != expected {
            return Err(Error::shape("params", format!("found counts {found:?}, expected {expected:?}")));
        }
        problem.sequences = (tokens[0].len() / seq_len) as u64;
        problem.given = Some(Arc::new(Given { tokens, params }));
        Ok(problem)
    }

    /// Half the squared distance of `W x` from its target: 4 inputs, 2 outputs. Quadratic: one exact Gauss-Newton step
    /// solves it.
    pub fn squared() -> Self {
        Self::new(Model::Squared)
    }

    /// A model without parameters.
    pub fn empty() -> Self {
        Self::new(Model::Empty)
    }

    /// No model: `gradients[t][i]` is the gradient of parameter `i` in the `t`-th batch of the step's stream. The loss
    /// is 0, and nothing but the gradient is offered.
    ///
    /// # Errors
    ///
    /// Values or gradients that do not fit the specifications.
    pub fn recorded(specs: Vec<ParamSpec>, params: Vec<Vec<f64>>, gradients: Vec<Vec<Vec<f64>>>) -> Result<Self> {
        for (what, list) in std::iter::once(("params", &params)).chain(gradients.iter().map(|list| ("gradients", list)))
        {
            let found: Vec<usize> = list.iter().map(Vec::len).collect();
            let expected: Vec<usize> = specs.iter().map(ParamSpec::numel).collect();
            if found != expected {
                return Err(Error::shape(what, format!("found counts {found:?}, expected {expected:?}")));
            }
        }
        let model = Model::Recorded(Arc::new(Recorded { specs, params, gradients }));
        Ok(Self { batch_size: 1, seq_len: 1, ..Self::new(model) })
    }

    /// Sequences of one batch of a step.
    pub fn batch_size(self, sequences: u64) -> Self {
        Self { batch_size: sequences, ..self }
    }

    /// Element type of the parameters, F32 or F64.
    pub fn dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// Seed of the data, the initial parameters and the run.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// Steps that the run is said to have.
    pub fn total_steps(self, steps: u64) -> Self {
        Self { total_steps: Some(steps), ..self }
    }

    /// Specifications of the parameters.
    pub fn specs(&self) -> Vec<ParamSpec> {
        let (inputs, outputs) = (self.inputs(), self.outputs());
        match &self.model {
            Model::Softmax => vec![
                ParamSpec::new("weight", &[outputs, inputs], Role::Head),
                ParamSpec::new("bias", &[outputs], Role::Bias),
            ],
            Model::TwoLayer => vec![
                ParamSpec::new("embedding", &[inputs, WIDTH], Role::Embedding),
                ParamSpec::new("norm", &[WIDTH], Role::Norm).in_layer(0),
                ParamSpec::new("hidden.weight", &[HIDDEN, WIDTH], Role::Hidden).in_layer(0),
                ParamSpec::new("hidden.bias", &[HIDDEN], Role::Bias).in_layer(0),
                ParamSpec::new("head.weight", &[outputs, HIDDEN], Role::Head),
            ],
            Model::Squared => vec![ParamSpec::new("weight", &[outputs, inputs], Role::Head)],
            Model::Empty => vec![],
            Model::Recorded(recorded) => recorded.specs.clone(),
        }
    }

    /// Initial values, one list a parameter.
    pub(super) fn initial(&self) -> Vec<Vec<f64>> {
        if let Model::Recorded(recorded) = &self.model {
            return recorded.params.clone();
        }
        if let Some(given) = &self.given {
            return given.params.clone();
        }
        let start = |(index, spec): (usize, &ParamSpec)| {
            let key = RandomKey { seed: self.seed, purpose: purpose_number("initial"), step: 0, draw: index as u64 };
            match spec.role {
                Role::Norm => vec![1.0; spec.numel()],
                _ => normal(&key, spec.numel()).into_iter().map(|x| 0.5 * x).collect(),
            }
        };
        self.specs().iter().enumerate().map(start).collect()
    }

    pub(super) fn inputs(&self) -> usize {
        match self.model {
            Model::TwoLayer => 5,
            _ => 4,
        }
    }

    pub(super) fn outputs(&self) -> usize {
        match self.model {
            Model::TwoLayer => 5,
            Model::Squared => 2,
            _ => 3,
        }
    }

    /// Names of the weights of linear layers.
    pub(super) fn layers(&self) -> &'static [&'static str] {
        match self.model {
            Model::Softmax | Model::Squared => &["weight"],
            Model::TwoLayer => &["hidden.weight", "head.weight"],
            Model::Empty | Model::Recorded(_) => &[],
        }
    }

    /// The outputs for one token. `params` holds the values of each parameter, `offsets` what is added to the outputs
    /// of each linear layer: zeros, whose derivatives are those with respect to a layer's outputs.
    pub(super) fn forward(&self, params: &[&[HyperDual]], offsets: &[&[HyperDual]], features: &[f64]) -> Outputs {
        let x: Vec<HyperDual> = features.iter().map(|x| HyperDual::constant(*x)).collect();
        match (params, offsets) {
            ([embedding, norm, hidden, bias, head], [first, second]) => {
                let word = features.iter().position(|x| *x != 0.0).unwrap_or_default();
                let embedded = &embedding[word * WIDTH..(word + 1) * WIDTH];
                let a: Vec<HyperDual> = norm.iter().zip(embedded).map(|(g, e)| *g * *e).collect();
                let h = linear(hidden, &a, first);
                let h: Vec<HyperDual> = h.iter().zip(*bias).map(|(h, b)| (*h + *b).tanh()).collect();
                Outputs { logits: linear(head, &h, second), inputs: vec![a, h] }
            }
            ([weight, bias], [offset]) => {
                let logits = linear(weight, &x, offset).into_iter().zip(*bias).map(|(z, b)| z + *b).collect();
                Outputs { logits, inputs: vec![x] }
            }
            ([weight], [offset]) => Outputs { logits: linear(weight, &x, offset), inputs: vec![x] },
            _ => Outputs { logits: vec![ZERO; self.outputs()], inputs: vec![] },
        }
    }
}

const WIDTH: usize = 3;
const HIDDEN: usize = 4;
const ZERO: HyperDual = HyperDual { value: 0.0, a: 0.0, b: 0.0, ab: 0.0 };

/// `W x + offset`.
fn linear(weight: &[HyperDual], x: &[HyperDual], offset: &[HyperDual]) -> Vec<HyperDual> {
    let rows = weight.chunks(x.len().max(1)).zip(offset);
    rows.map(|(row, offset)| row.iter().zip(x).fold(*offset, |sum, (w, x)| sum + *w * *x)).collect()
}
