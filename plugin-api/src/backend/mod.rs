//! The host's end of the wire: what a backend answers, and how its answers reach a plugin.
//!
//! A [`Backend`] computes; a [`Session`] holds the handles and checks every argument once for all backends; an
//! [`Instance`] drives one optimizer. Plugin authors need none of this; the host and `testing` do.

mod instance;
mod program;
mod saved;
mod session;
mod store;
mod table;

pub use instance::{CreateFn, Instance, Outcome, StepResult};
pub use program::{Operand, Program, Statement, allocate_registers};
pub use saved::{SavedEntry, SavedState, SavedTensor};
pub use session::{FusedList, Session, SessionGuard};

use crate::batch::Position;
use crate::curvature::{Labels, Per, Sharing};
use crate::error::{Error, Result};
use crate::spec::ParamSpec;
use crate::structure::{Blocks, Structure};
use gauntlet_plugin_abi::*;
use std::sync::Arc;

/// Numbers and tensors that an evaluation or a product gives, in the order that its kind documents.
#[derive(Debug)]
pub struct Product<T> {
    /// Numbers.
    pub values: Vec<f64>,
    /// Tensors.
    pub tensors: Vec<T>,
}

/// Something at given parameters on a batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Evaluation {
    /// `values = [mean loss over tokens]`.
    Loss,
    /// `values` = one mean loss a sequence.
    Losses,
    /// `values = [mean loss]`, `tensors` = gradient.
    Gradient(Labels),
    /// `tensors` = mean over cases of the squared gradient of a case.
    SquaredGradient(Per, Labels),
    /// `tensors` = Fisher-vector product.
    FisherVectorProduct(Labels),
}

/// A product of a linearization. L, z0, J, g0 and H as in [`crate::Linearization`].
#[derive(Clone, Debug, PartialEq)]
pub enum ProductKind {
    /// `values = [L(z0)]`.
    Loss,
    /// `tensors` = J^T g0.
    Gradient,
    /// `tensors = [J v]`, `[tokens, vocabulary]`.
    Jvp,
    /// `tensors` = J^T u.
    Vjp,
    /// `tensors` = J^T H J v, by block.
    GgnVectorProduct,
    /// `values = [L(z0), linear, curvature, block values...]`, `tensors` = gradient.
    Quadratic,
    /// `values = [L(z0), value, block values...]`, `tensors` = gradient.
    ProxLinear,
    /// `tensors` = Hessian-vector product, by block.
    HessianVectorProduct,
    /// `tensors` = inputs and outputs factor of each named weight.
    KroneckerFactors {
        /// Names of weights of linear layers.
        names: Vec<String>,
        /// Whose labels.
        labels: Labels,
        /// What a case is.
        sharing: Sharing,
    },
    /// `tensors` = sum_n w_n g_n over sequences.
    GradientWeighted(Vec<f64>),
    /// `values` = <g_n, v> for each sequence n.
    SequenceDirectional,
}

/// What computes: libtorch in the host, plain Rust in `testing`.
///
/// The session has checked handles, aliasing, anchors, parameter lists and JSON before it calls. Numbers that a backend
/// does not know are answered with [`Error::unsupported`] by name.
pub trait Backend: Send + 'static {
    /// A tensor that owns its storage.
    type Tensor: Send;
    /// A linearization.
    type Linearization: Send;

    /// Shape and element type.
    fn info(&self, tensor: &Self::Tensor) -> (Vec<usize>, DType);
    /// A tensor from little-endian elements in row-major order; the count has been checked.
    fn tensor_from_bytes(&self, dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Self::Tensor>;
    /// The elements, little-endian, row-major.
    fn tensor_to_bytes(&self, tensor: &Self::Tensor) -> Result<Vec<u8>>;
    /// An operation ([`TensorOp`]).
    fn op(&self, op: TensorOp, inputs: &[&Self::Tensor], scalars: &[f64], ints: &[i64]) -> Result<Vec<Self::Tensor>>;
    /// An operation with the target as first input and as output. Its shape and element type must not change.
    fn op_in_place(
        &self,
        op: TensorOp,
        target: &mut Self::Tensor,
        inputs: &[&Self::Tensor],
        scalars: &[f64],
        ints: &[i64],
    ) -> Result<()>;
    /// One number a tensor, accumulated in f64. Shapes of `a` and `b` have been compared.
    fn reduce(&self, kind: ListReduction, a: &[&Self::Tensor], b: &[&Self::Tensor]) -> Result<Vec<f64>>;
    /// A fused program over lists whose shapes and element types have been compared.
    fn fused(&self, program: &Program, lists: &mut [FusedList<'_, Self::Tensor>]) -> Result<()>;
    /// A `DLManagedTensor*`.
    fn dlpack(&self, _tensor: &Self::Tensor) -> Result<*mut ()> {
        Err(Error::unsupported(Capability::DLPACK.name()))
    }

    /// A whole number about the run.
    fn integer(&self, query: IntegerQuery) -> Result<Option<u64>>;
    /// A real number about the run.
    fn real(&self, query: RealQuery, x: f64) -> Result<f64>;
    /// A text about the run; the session answers `PARAM_SPECS` itself.
    fn text(&self, query: TextQuery) -> Result<String>;
    /// Whether it offers something.
    fn supports(&self, what: Capability) -> bool;

    /// Draws the next sequences of a stream (0 = the global batch) and counts their tokens.
    fn draw(&mut self, purpose: Purpose, count: u64) -> Result<Position>;
    /// Something at parameters on a batch; `vector` is empty or one tensor a parameter.
    fn evaluate(
        &mut self,
        what: &Evaluation,
        params: &[&Self::Tensor],
        batch: &Position,
        vector: &[&Self::Tensor],
    ) -> Result<Product<Self::Tensor>>;
    /// A linearization at an anchor. It must not keep a reference to the anchor's storage beyond its life.
    fn linearize(
        &mut self,
        anchor: &[&Self::Tensor],
        batch: &Position,
        structure: &Structure,
        blocks: &Blocks,
    ) -> Result<Self::Linearization>;
    /// A product; `inputs` is one tensor a parameter, or the cotangent of a vjp, or empty.
    fn product(
        &mut self,
        at: &mut Self::Linearization,
        what: &ProductKind,
        inputs: &[&Self::Tensor],
    ) -> Result<Product<Self::Tensor>>;
    /// Averages parameters into the run's EMA.
    fn ema_update(&mut self, params: &[&Self::Tensor]) -> Result<()>;

    /// A log line.
    fn log(&mut self, level: LogLevel, target: &str, message: &str);
    /// The value of a metric.
    fn metric(&mut self, name: &str, value: f64) -> Result<()>;
}

/// The parameters that a session starts with.
#[derive(Debug)]
pub struct InitialParams<T> {
    /// Their specifications.
    pub specs: Vec<Arc<ParamSpec>>,
    /// Their values.
    pub tensors: Vec<T>,
}
