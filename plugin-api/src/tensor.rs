//! A tensor of the host. It is freed when dropped; its clone is a deep copy, so no two tensors share storage.

mod elementwise;
mod linear_algebra;
mod shape;

use crate::error::{Error, Result, raise};
use crate::host::Link;
use gauntlet_plugin_abi::{DType, ErrorCode, ListReduction, RawTensor, TensorOp};

/// A tensor of f32, f64 or (for indices) i64, on the host's device.
///
/// Operations come in three forms: `a.add(&b)?` gives a new tensor, `a.add_(&b)?` writes into `a`, and the operators
/// `&a + &b`, `&a * 2.0` give a new tensor and end the step with the same error where the others return it.
#[derive(Debug)]
pub struct Tensor {
    link: Link,
    raw: RawTensor,
    owned: bool,
}

impl Tensor {
    pub(crate) fn owned(link: Link, raw: RawTensor) -> Self {
        Self { link, raw, owned: true }
    }

    /// A handle that stays somebody else's.
    pub(crate) fn borrowed(link: Link, raw: RawTensor) -> Self {
        Self { link, raw, owned: false }
    }

    pub(crate) fn raw(&self) -> RawTensor {
        self.raw
    }

    pub(crate) fn link(&self) -> Link {
        self.link
    }

    /// Sizes of the dimensions.
    pub fn shape(&self) -> Result<Vec<usize>> {
        Ok(self.link.tensor_info(self.raw)?.0)
    }

    /// Element type.
    pub fn dtype(&self) -> Result<DType> {
        Ok(self.link.tensor_info(self.raw)?.1)
    }

    /// A deep copy.
    pub fn try_clone(&self) -> Result<Self> {
        self.unary(TensorOp::COPY)
    }

    /// A tensor like this one from numbers in row-major order, rounded to its element type.
    ///
    /// # Errors
    ///
    /// The count differs from the product of the shape.
    pub fn with_values(&self, shape: &[usize], values: &[f64]) -> Result<Self> {
        check_count(shape, values.len())?;
        let dtype = self.dtype()?;
        let bytes: Vec<u8> = match dtype {
            DType::F64 => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F32 => values.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            DType::I64 => values.iter().flat_map(|x| (*x as i64).to_le_bytes()).collect(),
            other => {
                return Err(Error::new(ErrorCode::DTYPE, "with_values", format!("{} is not handled", other.name())));
            }
        };
        self.link.tensor_from_bytes(dtype, shape, &bytes)
    }

    /// A tensor of whole numbers (for `index_select` and `gather`) on the same host.
    pub fn with_indices(&self, shape: &[usize], indices: &[i64]) -> Result<Self> {
        check_count(shape, indices.len())?;
        let bytes: Vec<u8> = indices.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.link.tensor_from_bytes(DType::I64, shape, &bytes)
    }

    /// A tensor of the same element type filled with one number.
    pub fn full(&self, shape: &[usize], number: f64) -> Result<Self> {
        let mut ints = vec![i64::from(self.dtype()?.0)];
        ints.extend(shape.iter().map(|size| *size as i64));
        self.link.op_one(TensorOp::FULL, &[], &[number], &ints)
    }

    /// Zeros of the same shape and element type.
    pub fn zeros_like(&self) -> Result<Self> {
        self.full(&self.shape()?, 0.0)
    }

    /// The `n` by `n` identity of the same element type.
    pub fn eye(&self, n: usize) -> Result<Self> {
        self.link.op_one(TensorOp::EYE, &[], &[], &[i64::from(self.dtype()?.0), n as i64])
    }

    /// The elements in row-major order as f64 (exact for f32 and f64).
    pub fn to_vec(&self) -> Result<Vec<f64>> {
        let bytes = self.link.tensor_to_bytes(self.raw)?;
        match self.dtype()? {
            DType::F64 => Ok(chunks(&bytes).map(f64::from_le_bytes).collect()),
            DType::F32 => Ok(chunks(&bytes).map(|x| f64::from(f32::from_le_bytes(x))).collect()),
            DType::I64 => Ok(chunks(&bytes).map(|x| i64::from_le_bytes(x) as f64).collect()),
            other => Err(Error::new(ErrorCode::DTYPE, "to_vec", format!("{} is not handled", other.name()))),
        }
    }

    /// The one element of a tensor with one element.
    pub fn item(&self) -> Result<f64> {
        match self.to_vec()?.as_slice() {
            [one] => Ok(*one),
            many => Err(Error::shape("item", format!("{} elements instead of one", many.len()))),
        }
    }

    /// Inner product, accumulated in f64.
    pub fn dot(&self, other: &Self) -> Result<f64> {
        self.reduce(ListReduction::DOT, &[other.raw])
    }

    /// Euclidean norm, accumulated in f64.
    pub fn norm(&self) -> Result<f64> {
        self.reduce(ListReduction::SQUARED_NORM, &[]).map(f64::sqrt)
    }

    /// Largest absolute value; NaN if any element is.
    pub fn max_abs(&self) -> Result<f64> {
        self.reduce(ListReduction::MAX_ABS, &[])
    }

    /// Whether every element is finite.
    pub fn all_finite(&self) -> Result<bool> {
        Ok(self.reduce(ListReduction::NON_FINITE, &[])? == 0.0)
    }

    /// The tensor in another element type.
    pub fn cast(&self, dtype: DType) -> Result<Self> {
        self.link.op_one(TensorOp::CAST, &[self.raw], &[], &[i64::from(dtype.0)])
    }

    /// A `DLManagedTensor*` over the tensor's storage, for an own kernel. The consumer calls its deleter. The kernel may
    /// write to a tensor of the plugin's own on which no linearization is anchored, and only reads the run's parameters.
    ///
    /// # Errors
    ///
    /// The host does not offer it ([`crate::Capability::DLPACK`]).
    pub fn dlpack(&self) -> Result<*mut ()> {
        self.link.dlpack(self.raw)
    }

    fn reduce(&self, kind: ListReduction, other: &[RawTensor]) -> Result<f64> {
        let values = self.link.list_reduce(kind, &[self.raw], other)?;
        values.first().copied().ok_or_else(|| Error::new(ErrorCode::HOST, kind.name(), "the host gave no number"))
    }

    fn unary(&self, op: TensorOp) -> Result<Self> {
        self.link.op_one(op, &[self.raw], &[], &[])
    }

    fn with_ints(&self, op: TensorOp, ints: &[i64]) -> Result<Self> {
        self.link.op_one(op, &[self.raw], &[], ints)
    }
}

impl Clone for Tensor {
    fn clone(&self) -> Self {
        self.try_clone().unwrap_or_else(|error| raise(error))
    }
}

impl Drop for Tensor {
    fn drop(&mut self) {
        if self.owned {
            self.link.tensor_free(self.raw);
        }
    }
}

fn chunks<const N: usize>(bytes: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    bytes.as_chunks::<N>().0.iter().copied()
}

fn check_count(shape: &[usize], count: usize) -> Result<()> {
    match shape.iter().product::<usize>() == count {
        true => Ok(()),
        false => Err(Error::shape("values", format!("{count} numbers for shape {shape:?}"))),
    }
}
