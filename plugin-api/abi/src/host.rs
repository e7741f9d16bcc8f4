//! What the host offers: one table of functions over handles.

use crate::codes::*;
use abi_stable::StableAbi;
use abi_stable::std_types::{ROption, RResult, RSlice, RStr, RString, RVec};

/// A tensor of the host: slot in the low half, generation in the high half. 0 is never given out.
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawTensor(pub u64);

/// A batch of sequences, same form as [`RawTensor`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawBatch(pub u64);

/// A linearization of the model, same form as [`RawTensor`].
#[repr(transparent)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawLinearization(pub u64);

/// An error as a plain value.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawError {
    /// What kind of error.
    pub code: ErrorCode,
    /// Where: an operation, a parameter, a source line.
    pub at: RString,
    /// One line.
    pub message: RString,
    /// Longer diagnostics, may be empty.
    pub detail: RString,
}

/// Result of every call.
pub type RT<T> = RResult<T, RawError>;

/// The host's own pointer, passed back on each call.
pub type Ctx = *const ();

/// The table and the host's pointer. Valid until the process ends.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct Host {
    /// The functions.
    pub ops: HostOpsRef,
    /// The first argument of each of them.
    pub ctx: Ctx,
}

// SAFETY: the contract of the table: every function may be called from any thread with this pointer.
unsafe impl Send for Host {}
// SAFETY: as above.
unsafe impl Sync for Host {}

/// Shape and element type.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawInfo {
    /// Sizes of the dimensions.
    pub shape: RVec<u64>,
    /// Element type.
    pub dtype: DType,
}

/// Names a sequence of random numbers; equal keys give equal numbers on every rank and backend.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomKey {
    /// The run's seed.
    pub seed: u64,
    /// What it is for.
    pub purpose: u64,
    /// The step.
    pub step: u64,
    /// Which draw within the step.
    pub draw: u64,
}

/// One instruction of a fused program.
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug, PartialEq)]
pub struct RawInstruction {
    /// What to do.
    pub op: FusedOp,
    /// List or temporary.
    pub index: u32,
    /// The constant.
    pub value: f64,
}

/// Result of an evaluation or a product.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawProduct {
    /// Numbers, in the order that the product documents.
    pub values: RVec<f64>,
    /// Tensors, owned by the caller.
    pub tensors: RVec<RawTensor>,
    /// JSON for what does not fit, may be empty.
    pub extra: RString,
}

/// The host's functions. The first argument is always [`Host::ctx`].
///
/// Lists of parameters are in the order of [`TextQuery::PARAM_SPECS`]. Handles that come back belong to the caller
/// (except those of `params`), handles that go in are borrowed for the call.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostOpsRef, prefix_fields = HostOpsPrefix)))]
#[sabi(missing_field(panic))]
pub struct HostOps {
    /// Shape and element type.
    pub tensor_info: extern "C" fn(Ctx, RawTensor) -> RT<RawInfo>,
    /// Give a tensor back; a handle that is already free is ignored.
    pub tensor_free: extern "C" fn(Ctx, RawTensor),
    /// A tensor from its elements, little-endian, row-major.
    pub tensor_from_bytes: for<'a> extern "C" fn(Ctx, DType, RSlice<'a, u64>, RSlice<'a, u8>) -> RT<RawTensor>,
    /// The elements, little-endian, row-major.
    pub tensor_to_bytes: extern "C" fn(Ctx, RawTensor) -> RT<RVec<u8>>,
    /// An operation that gives new tensors.
    pub tensor_op: for<'a> extern "C" fn(
        Ctx,
        TensorOp,
        RSlice<'a, RawTensor>,
        RSlice<'a, f64>,
        RSlice<'a, i64>,
    ) -> RT<RVec<RawTensor>>,
    /// The same operation with the target as first input and as output.
    pub tensor_op_in_place: for<'a> extern "C" fn(
        Ctx,
        TensorOp,
        RawTensor,
        RSlice<'a, RawTensor>,
        RSlice<'a, f64>,
        RSlice<'a, i64>,
    ) -> RT<()>,
    /// A random tensor.
    pub tensor_random: for<'a> extern "C" fn(Ctx, RandomKind, DType, RSlice<'a, u64>, RandomKey) -> RT<RawTensor>,
    /// One f64 for each tensor of a list; `b` is empty where the reduction takes one list.
    pub list_reduce:
        for<'a> extern "C" fn(Ctx, ListReduction, RSlice<'a, RawTensor>, RSlice<'a, RawTensor>) -> RT<RVec<f64>>,
    /// Run a fused program over lists of equal length: tensors list after list, and the number of lists. The tensors
    /// of one position have one shape and element type.
    pub list_fused: for<'a> extern "C" fn(Ctx, RSlice<'a, RawInstruction>, RSlice<'a, RawTensor>, u32) -> RT<()>,
    /// A `DLManagedTensor*` over the tensor's own storage; the consumer calls its deleter.
    pub dlpack_export: extern "C" fn(Ctx, RawTensor) -> RT<*mut ()>,
    /// A whole number about the run.
    pub query_integer: extern "C" fn(Ctx, IntegerQuery) -> RT<ROption<u64>>,
    /// A real number about the run.
    pub query_real: extern "C" fn(Ctx, RealQuery, f64) -> RT<f64>,
    /// A text about the run.
    pub query_text: extern "C" fn(Ctx, TextQuery) -> RT<RString>,
    /// The run's parameters; the handles stay the host's.
    pub params: extern "C" fn(Ctx) -> RT<RVec<RawTensor>>,
    /// Draw the next sequences of a stream; 0 means the global batch.
    pub batch_next: extern "C" fn(Ctx, Purpose, u64) -> RT<RawBatch>,
    /// The batch at a position that `batch_position` gave; counts no tokens.
    pub batch_at: for<'a> extern "C" fn(Ctx, RStr<'a>) -> RT<RawBatch>,
    /// JSON: `{"parts": [{"purpose", "first", "count"}], "sequences", "tokens"}`.
    pub batch_position: extern "C" fn(Ctx, RawBatch) -> RT<RString>,
    /// Sequences `first .. first + count` of a batch.
    pub batch_slice: extern "C" fn(Ctx, RawBatch, u64, u64) -> RT<RawBatch>,
    /// One batch of several.
    pub batch_concat: for<'a> extern "C" fn(Ctx, RSlice<'a, RawBatch>) -> RT<RawBatch>,
    /// Give a batch back.
    pub batch_free: extern "C" fn(Ctx, RawBatch),
    /// Something at given parameters on a batch: [`Capability::LOSS`] and its like. Tensors and JSON are arguments.
    pub evaluate: for<'a> extern "C" fn(
        Ctx,
        Capability,
        RSlice<'a, RawTensor>,
        RawBatch,
        RSlice<'a, RawTensor>,
        RStr<'a>,
    ) -> RT<RawProduct>,
    /// Linearize the model at an anchor on a batch; JSON `{"structure": ...}`. Ends with the call of `step`.
    pub linearize: for<'a> extern "C" fn(Ctx, RSlice<'a, RawTensor>, RawBatch, RStr<'a>) -> RT<RawLinearization>,
    /// A product of a linearization.
    pub product:
        for<'a> extern "C" fn(Ctx, RawLinearization, Capability, RSlice<'a, RawTensor>, RStr<'a>) -> RT<RawProduct>,
    /// Give a linearization back.
    pub linearization_free: extern "C" fn(Ctx, RawLinearization),
    /// Average these parameters into the run's EMA; the host then makes no update of its own.
    pub ema_update: for<'a> extern "C" fn(Ctx, RSlice<'a, RawTensor>) -> RT<()>,
    /// 1 where the host offers a capability, else 0.
    pub supports: extern "C" fn(Ctx, Capability) -> u32,
    /// A log line: level, target, message.
    pub log: for<'a> extern "C" fn(Ctx, LogLevel, RStr<'a>, RStr<'a>),
    /// The value of a declared metric.
    #[sabi(last_prefix_field)]
    // Stays here for all of 1.x; later fields go below, each with `missing_field(option)`.
    pub metric: for<'a> extern "C" fn(Ctx, RStr<'a>, f64) -> RT<()>,
}
