//! The plugin's end of the wire: the host's table as safe calls.

use crate::error::{Error, Result};
use crate::tensor::Tensor;
use gauntlet_plugin_abi::*;
use std::fmt;

/// A copyable connection to the host.
#[derive(Clone, Copy)]
pub struct Link(pub(crate) Host);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({:p})", self.0.ctx)
    }
}

/// Numbers and tensors that a product gave.
pub struct Answer {
    pub values: Vec<f64>,
    pub tensors: Vec<Tensor>,
}

impl Link {
    pub fn tensor_info(self, tensor: RawTensor) -> Result<(Vec<usize>, DType)> {
        let info = value((self.0.ops.tensor_info())(self.0.ctx, tensor))?;
        Ok((info.shape.iter().map(|size| *size as usize).collect(), info.dtype))
    }

    pub fn tensor_free(self, tensor: RawTensor) {
        (self.0.ops.tensor_free())(self.0.ctx, tensor);
    }

    pub fn tensor_from_bytes(self, dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        let raw = (self.0.ops.tensor_from_bytes())(self.0.ctx, dtype, shape.as_slice().into(), bytes.into());
        value(raw).map(|raw| Tensor::owned(self, raw))
    }

    pub fn tensor_to_bytes(self, tensor: RawTensor) -> Result<Vec<u8>> {
        value((self.0.ops.tensor_to_bytes())(self.0.ctx, tensor)).map(Into::into)
    }

    pub fn op(self, op: TensorOp, inputs: &[RawTensor], scalars: &[f64], ints: &[i64]) -> Result<Vec<Tensor>> {
        let raw = (self.0.ops.tensor_op())(self.0.ctx, op, inputs.into(), scalars.into(), ints.into());
        Ok(value(raw)?.into_iter().map(|raw| Tensor::owned(self, raw)).collect())
    }

    /// An operation with exactly one result.
    pub fn op_one(self, op: TensorOp, inputs: &[RawTensor], scalars: &[f64], ints: &[i64]) -> Result<Tensor> {
        let mut outputs = self.op(op, inputs, scalars, ints)?;
        match (outputs.pop(), outputs.is_empty()) {
            (Some(output), true) => Ok(output),
            _ => Err(Error::new(ErrorCode::HOST, op.name(), "the host gave another number of results than one")),
        }
    }

    /// An operation with exactly `N` results.
    pub fn op_many<const N: usize>(self, op: TensorOp, inputs: &[RawTensor], ints: &[i64]) -> Result<[Tensor; N]> {
        <[Tensor; N]>::try_from(self.op(op, inputs, &[], ints)?).map_err(|outputs| {
            let message = format!("the host gave {} results instead of {N}", outputs.len());
            Error::new(ErrorCode::HOST, op.name(), message)
        })
    }

    pub fn op_in_place(
        self,
        op: TensorOp,
        target: RawTensor,
        inputs: &[RawTensor],
        scalars: &[f64],
        ints: &[i64],
    ) -> Result<()> {
        let ops = self.0.ops.tensor_op_in_place();
        value(ops(self.0.ctx, op, target, inputs.into(), scalars.into(), ints.into()))
    }

    pub fn random(self, kind: RandomKind, dtype: DType, shape: &[usize], key: RandomKey) -> Result<Tensor> {
        let shape: Vec<u64> = shape.iter().map(|size| *size as u64).collect();
        let raw = (self.0.ops.tensor_random())(self.0.ctx, kind, dtype, shape.as_slice().into(), key);
        value(raw).map(|raw| Tensor::owned(self, raw))
    }

    pub fn list_reduce(self, kind: ListReduction, a: &[RawTensor], b: &[RawTensor]) -> Result<Vec<f64>> {
        value((self.0.ops.list_reduce())(self.0.ctx, kind, a.into(), b.into())).map(Into::into)
    }

    pub fn list_fused(self, program: &[RawInstruction], tensors: &[RawTensor], lists: usize) -> Result<()> {
        value((self.0.ops.list_fused())(self.0.ctx, program.into(), tensors.into(), lists as u32))
    }

    pub fn dlpack(self, tensor: RawTensor) -> Result<*mut ()> {
        value((self.0.ops.dlpack_export())(self.0.ctx, tensor))
    }

    pub fn integer(self, query: IntegerQuery) -> Result<Option<u64>> {
        value((self.0.ops.query_integer())(self.0.ctx, query)).map(Into::into)
    }

    /// A number that every run has.
    pub fn integer_or_fail(self, query: IntegerQuery) -> Result<u64> {
        self.integer(query)?.ok_or_else(|| Error::new(ErrorCode::HOST, query.name(), "the host gave no answer"))
    }

    pub fn real(self, query: RealQuery, x: f64) -> Result<f64> {
        value((self.0.ops.query_real())(self.0.ctx, query, x))
    }

    pub fn text(self, query: TextQuery) -> Result<String> {
        value((self.0.ops.query_text())(self.0.ctx, query)).map(Into::into)
    }

    pub fn params(self) -> Result<Vec<RawTensor>> {
        value((self.0.ops.params())(self.0.ctx)).map(Into::into)
    }

    pub fn batch_next(self, purpose: Purpose, count: usize) -> Result<RawBatch> {
        value((self.0.ops.batch_next())(self.0.ctx, purpose, count as u64))
    }

    pub fn batch_at(self, position: &str) -> Result<RawBatch> {
        value((self.0.ops.batch_at())(self.0.ctx, position.into()))
    }

    pub fn batch_position(self, batch: RawBatch) -> Result<String> {
        value((self.0.ops.batch_position())(self.0.ctx, batch)).map(Into::into)
    }

    pub fn batch_slice(self, batch: RawBatch, first: usize, count: usize) -> Result<RawBatch> {
        value((self.0.ops.batch_slice())(self.0.ctx, batch, first as u64, count as u64))
    }

    pub fn batch_concat(self, batches: &[RawBatch]) -> Result<RawBatch> {
        value((self.0.ops.batch_concat())(self.0.ctx, batches.into()))
    }

    pub fn batch_free(self, batch: RawBatch) {
        (self.0.ops.batch_free())(self.0.ctx, batch);
    }

    pub fn evaluate(
        self,
        what: Capability,
        params: &[RawTensor],
        batch: RawBatch,
        tensors: &[RawTensor],
        args: &str,
    ) -> Result<Answer> {
        let ops = self.0.ops.evaluate();
        self.answer(ops(self.0.ctx, what, params.into(), batch, tensors.into(), args.into()))
    }

    pub fn linearize(self, anchor: &[RawTensor], batch: RawBatch, args: &str) -> Result<RawLinearization> {
        value((self.0.ops.linearize())(self.0.ctx, anchor.into(), batch, args.into()))
    }

    pub fn product(self, at: RawLinearization, what: Capability, tensors: &[RawTensor], args: &str) -> Result<Answer> {
        self.answer((self.0.ops.product())(self.0.ctx, at, what, tensors.into(), args.into()))
    }

    pub fn linearization_free(self, linearization: RawLinearization) {
        (self.0.ops.linearization_free())(self.0.ctx, linearization);
    }

    pub fn ema_update(self, params: &[RawTensor]) -> Result<()> {
        value((self.0.ops.ema_update())(self.0.ctx, params.into()))
    }

    pub fn supports(self, what: Capability) -> bool {
        (self.0.ops.supports())(self.0.ctx, what) != 0
    }

    pub fn log(self, level: LogLevel, target: &str, message: &str) {
        (self.0.ops.log())(self.0.ctx, level, target.into(), message.into());
    }

    pub fn metric(self, name: &str, number: f64) -> Result<()> {
        value((self.0.ops.metric())(self.0.ctx, name.into(), number))
    }

    fn answer(self, raw: RT<RawProduct>) -> Result<Answer> {
        let raw = value(raw)?;
        let tensors = raw.tensors.iter().map(|tensor| Tensor::owned(self, *tensor)).collect();
        Ok(Answer { values: raw.values.into(), tensors })
    }
}

fn value<T>(result: RT<T>) -> Result<T> {
    result.into_result().map_err(Error::from)
}
