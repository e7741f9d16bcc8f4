//! The host's table over a session: every function catches panics and turns errors into values.

use super::session::{Session, State};
use super::{Backend, Product};
use crate::error::{Error, Result};
use crate::guard::guard;
use gauntlet_plugin_abi::expansion::{WithMetadata, staticref};
use gauntlet_plugin_abi::*;
use std::marker::PhantomData;

impl<B: Backend> Session<B> {
    /// The table and this session, for a plugin.
    pub fn host(&'static self) -> Host {
        let ops = HostOpsRef(Table::<B>::OPS.static_as_prefix());
        Host { ops, ctx: std::ptr::from_ref(self).cast() }
    }
}

struct Table<B>(PhantomData<B>);

impl<B: Backend> Table<B> {
    staticref! {
        const OPS: WithMetadata<HostOps> = WithMetadata::new(HostOps {
            tensor_info: tensor_info::<B>,
            tensor_free: tensor_free::<B>,
            tensor_from_bytes: tensor_from_bytes::<B>,
            tensor_to_bytes: tensor_to_bytes::<B>,
            tensor_op: tensor_op::<B>,
            tensor_op_in_place: tensor_op_in_place::<B>,
            tensor_random: tensor_random::<B>,
            list_reduce: list_reduce::<B>,
            list_fused: list_fused::<B>,
            dlpack_export: dlpack_export::<B>,
            query_integer: query_integer::<B>,
            query_real: query_real::<B>,
            query_text: query_text::<B>,
            params: params::<B>,
            batch_next: batch_next::<B>,
            batch_at: batch_at::<B>,
            batch_position: batch_position::<B>,
            batch_slice: batch_slice::<B>,
            batch_concat: batch_concat::<B>,
            batch_free: batch_free::<B>,
            evaluate: evaluate::<B>,
            linearize: linearize::<B>,
            product: product::<B>,
            linearization_free: linearization_free::<B>,
            ema_update: ema_update::<B>,
            supports: supports::<B>,
            log: log::<B>,
            metric: metric::<B>,
        });
    }
}

/// Runs `body` on the session behind `ctx`.
///
/// A panic here is the host's: it must not be blamed on the plugin, whose own guard would say "panicked" as well.
fn with<B: Backend, T>(ctx: Ctx, body: impl FnOnce(&mut State<B>) -> Result<T>) -> RT<T> {
    let outcome = guard(|| on_session(ctx, body)).map_err(|error| match error.code {
        ErrorCode::PANIC => Error { code: ErrorCode::HOST, message: format!("the host {}", error.message), ..error },
        _ => error,
    });
    outcome.map_err(RawError::from).into()
}

/// As [`with`], for calls that have no way to report an error (dropping a handle, a log line).
fn quietly<B: Backend>(ctx: Ctx, body: impl FnOnce(&mut State<B>)) {
    let _ = guard(|| {
        on_session(ctx, |state: &mut State<B>| {
            body(state);
            Ok(())
        })
    });
}

fn on_session<B: Backend, T>(ctx: Ctx, body: impl FnOnce(&mut State<B>) -> Result<T>) -> Result<T> {
    if ctx.is_null() {
        return Err(Error::new(ErrorCode::BAD_HANDLE, "host", "the host pointer is null"));
    }
    // SAFETY: `Session::host` made this pointer from a `&'static Session<B>` together with this table.
    let session = unsafe { &*ctx.cast::<Session<B>>() };
    body(&mut session.lock())
}

fn sizes(shape: RSlice<'_, u64>) -> Result<Vec<usize>> {
    let size = |size: &u64| usize::try_from(*size).map_err(|_| Error::shape("shape", format!("{size} is too large")));
    shape.iter().map(size).collect()
}

fn raw_product(product: Product<RawTensor>) -> RawProduct {
    RawProduct { values: product.values.into(), tensors: product.tensors.into(), extra: RString::new() }
}

extern "C" fn tensor_info<B: Backend>(ctx: Ctx, tensor: RawTensor) -> RT<RawInfo> {
    with(ctx, |state: &mut State<B>| {
        let (shape, dtype) = state.info(tensor)?;
        Ok(RawInfo { shape: shape.into_iter().map(|size| size as u64).collect(), dtype })
    })
}

extern "C" fn tensor_free<B: Backend>(ctx: Ctx, tensor: RawTensor) {
    quietly(ctx, |state: &mut State<B>| state.free(tensor));
}

extern "C" fn tensor_from_bytes<B: Backend>(
    ctx: Ctx,
    dtype: DType,
    shape: RSlice<'_, u64>,
    bytes: RSlice<'_, u8>,
) -> RT<RawTensor> {
    with(ctx, |state: &mut State<B>| state.tensor_from_bytes(dtype, &sizes(shape)?, bytes.as_slice()))
}

extern "C" fn tensor_to_bytes<B: Backend>(ctx: Ctx, tensor: RawTensor) -> RT<RVec<u8>> {
    with(ctx, |state: &mut State<B>| Ok(state.backend.tensor_to_bytes(state.tensor(tensor)?)?.into()))
}

extern "C" fn tensor_op<B: Backend>(
    ctx: Ctx,
    op: TensorOp,
    inputs: RSlice<'_, RawTensor>,
    scalars: RSlice<'_, f64>,
    ints: RSlice<'_, i64>,
) -> RT<RVec<RawTensor>> {
    with(ctx, |state: &mut State<B>| {
        state.op(op, inputs.as_slice(), scalars.as_slice(), ints.as_slice()).map(Into::into)
    })
}

extern "C" fn tensor_op_in_place<B: Backend>(
    ctx: Ctx,
    op: TensorOp,
    target: RawTensor,
    inputs: RSlice<'_, RawTensor>,
    scalars: RSlice<'_, f64>,
    ints: RSlice<'_, i64>,
) -> RT<()> {
    with(ctx, |state: &mut State<B>| {
        state.op_in_place(op, target, inputs.as_slice(), scalars.as_slice(), ints.as_slice())
    })
}

extern "C" fn tensor_random<B: Backend>(
    ctx: Ctx,
    kind: RandomKind,
    dtype: DType,
    shape: RSlice<'_, u64>,
    key: RandomKey,
) -> RT<RawTensor> {
    with(ctx, |state: &mut State<B>| state.random(kind, dtype, &sizes(shape)?, &key))
}

extern "C" fn list_reduce<B: Backend>(
    ctx: Ctx,
    kind: ListReduction,
    a: RSlice<'_, RawTensor>,
    b: RSlice<'_, RawTensor>,
) -> RT<RVec<f64>> {
    with(ctx, |state: &mut State<B>| state.reduce(kind, a.as_slice(), b.as_slice()).map(Into::into))
}

extern "C" fn list_fused<B: Backend>(
    ctx: Ctx,
    program: RSlice<'_, RawInstruction>,
    tensors: RSlice<'_, RawTensor>,
    lists: u32,
) -> RT<()> {
    with(ctx, |state: &mut State<B>| state.fused(program.as_slice(), tensors.as_slice(), lists as usize))
}

extern "C" fn dlpack_export<B: Backend>(ctx: Ctx, tensor: RawTensor) -> RT<*mut ()> {
    with(ctx, |state: &mut State<B>| state.backend.dlpack(state.tensor(tensor)?))
}

extern "C" fn query_integer<B: Backend>(ctx: Ctx, query: IntegerQuery) -> RT<ROption<u64>> {
    with(ctx, |state: &mut State<B>| {
        let (major, minor, patch) = VERSION_NUMBERS;
        let answer = match query {
            IntegerQuery::ABI_VERSION => Some(u64::from(major) << 32 | u64::from(minor) << 16 | u64::from(patch)),
            IntegerQuery::LIVE_TENSORS => Some(state.live_tensors()),
            IntegerQuery::LIVE_HANDLES => Some(state.live_handles()),
            query => state.backend.integer(query)?,
        };
        Ok(answer.into())
    })
}

extern "C" fn query_real<B: Backend>(ctx: Ctx, query: RealQuery, x: f64) -> RT<f64> {
    with(ctx, |state: &mut State<B>| state.backend.real(query, x))
}

extern "C" fn query_text<B: Backend>(ctx: Ctx, query: TextQuery) -> RT<RString> {
    with(ctx, |state: &mut State<B>| match query {
        TextQuery::PARAM_SPECS => Ok(state.specs_json().into()),
        query => state.backend.text(query).map(Into::into),
    })
}

extern "C" fn params<B: Backend>(ctx: Ctx) -> RT<RVec<RawTensor>> {
    with(ctx, |state: &mut State<B>| Ok(state.params().into()))
}

extern "C" fn batch_next<B: Backend>(ctx: Ctx, purpose: Purpose, count: u64) -> RT<RawBatch> {
    with(ctx, |state: &mut State<B>| state.batch_next(purpose, count))
}

extern "C" fn batch_at<B: Backend>(ctx: Ctx, position: RStr<'_>) -> RT<RawBatch> {
    with(ctx, |state: &mut State<B>| state.batch_at(position.as_str()))
}

extern "C" fn batch_position<B: Backend>(ctx: Ctx, batch: RawBatch) -> RT<RString> {
    with(ctx, |state: &mut State<B>| state.batch_position(batch).map(Into::into))
}

extern "C" fn batch_slice<B: Backend>(ctx: Ctx, batch: RawBatch, first: u64, count: u64) -> RT<RawBatch> {
    with(ctx, |state: &mut State<B>| state.batch_slice(batch, first, count))
}

extern "C" fn batch_concat<B: Backend>(ctx: Ctx, batches: RSlice<'_, RawBatch>) -> RT<RawBatch> {
    with(ctx, |state: &mut State<B>| state.batch_concat(batches.as_slice()))
}

extern "C" fn batch_free<B: Backend>(ctx: Ctx, batch: RawBatch) {
    quietly(ctx, |state: &mut State<B>| state.batch_free(batch));
}

extern "C" fn evaluate<B: Backend>(
    ctx: Ctx,
    what: Capability,
    params: RSlice<'_, RawTensor>,
    batch: RawBatch,
    vector: RSlice<'_, RawTensor>,
    args: RStr<'_>,
) -> RT<RawProduct> {
    with(ctx, |state: &mut State<B>| {
        state.evaluate(what, params.as_slice(), batch, vector.as_slice(), args.as_str()).map(raw_product)
    })
}

extern "C" fn linearize<B: Backend>(
    ctx: Ctx,
    anchor: RSlice<'_, RawTensor>,
    batch: RawBatch,
    args: RStr<'_>,
) -> RT<RawLinearization> {
    with(ctx, |state: &mut State<B>| state.linearize(anchor.as_slice(), batch, args.as_str()))
}

extern "C" fn product<B: Backend>(
    ctx: Ctx,
    at: RawLinearization,
    what: Capability,
    inputs: RSlice<'_, RawTensor>,
    args: RStr<'_>,
) -> RT<RawProduct> {
    with(ctx, |state: &mut State<B>| state.product(at, what, inputs.as_slice(), args.as_str()).map(raw_product))
}

extern "C" fn linearization_free<B: Backend>(ctx: Ctx, linearization: RawLinearization) {
    quietly(ctx, |state: &mut State<B>| state.linearization_free(linearization));
}

extern "C" fn ema_update<B: Backend>(ctx: Ctx, params: RSlice<'_, RawTensor>) -> RT<()> {
    with(ctx, |state: &mut State<B>| state.ema_update(params.as_slice()))
}

extern "C" fn supports<B: Backend>(ctx: Ctx, what: Capability) -> u32 {
    let answer = guard(|| on_session(ctx, |state: &mut State<B>| Ok(state.backend.supports(what))));
    u32::from(answer.unwrap_or(false))
}

extern "C" fn log<B: Backend>(ctx: Ctx, level: LogLevel, target: RStr<'_>, message: RStr<'_>) {
    quietly(ctx, |state: &mut State<B>| state.backend.log(level, target.as_str(), message.as_str()));
}

extern "C" fn metric<B: Backend>(ctx: Ctx, name: RStr<'_>, value: f64) -> RT<()> {
    with(ctx, |state: &mut State<B>| state.backend.metric(name.as_str(), value))
}
