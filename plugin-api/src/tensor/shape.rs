//! Reductions with dimensions, and operations that move elements.

use super::Tensor;
use crate::error::Result;
use gauntlet_plugin_abi::TensorOp;

macro_rules! reduction {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        impl Tensor {
            $(
                $(#[$doc])*
                ///
                /// Over `dims`, over all of them when the list is empty; reduced dimensions stay with size 1 when
                /// `keep_dim`.
                pub fn $name(&self, dims: &[usize], keep_dim: bool) -> Result<Self> {
                    let ints: Vec<i64> =
                        std::iter::once(i64::from(keep_dim)).chain(dims.iter().map(|dim| *dim as i64)).collect();
                    self.with_ints(TensorOp::$op, &ints)
                }
            )*
        }
    };
}

reduction! {
    /// Sum.
    sum = SUM;
    /// Mean.
    mean = MEAN;
    /// Largest element.
    max = MAX;
    /// Smallest element.
    min = MIN;
    /// Euclidean norm.
    norm_dims = NORM;
}

impl Tensor {
    /// Two dimensions swapped.
    pub fn transpose(&self, a: usize, b: usize) -> Result<Self> {
        self.with_ints(TensorOp::TRANSPOSE, &[a as i64, b as i64])
    }

    /// The last two dimensions swapped.
    pub fn t(&self) -> Result<Self> {
        let rank = self.shape()?.len();
        self.transpose(rank.saturating_sub(2), rank.saturating_sub(1))
    }

    /// The same elements in another shape.
    pub fn reshape(&self, shape: &[usize]) -> Result<Self> {
        self.with_ints(TensorOp::RESHAPE, &shape.iter().map(|size| *size as i64).collect::<Vec<_>>())
    }

    /// Repeated along dimensions of size 1 to a larger shape.
    pub fn broadcast_to(&self, shape: &[usize]) -> Result<Self> {
        self.with_ints(TensorOp::BROADCAST_TO, &shape.iter().map(|size| *size as i64).collect::<Vec<_>>())
    }

    /// Entries `start .. end` along `dim`.
    pub fn slice(&self, dim: usize, start: usize, end: usize) -> Result<Self> {
        self.with_ints(TensorOp::SLICE, &[dim as i64, start as i64, end as i64])
    }

    /// Tensors joined along `dim`; this one is the first.
    pub fn cat(&self, others: &[&Self], dim: usize) -> Result<Self> {
        self.joined(TensorOp::CAT, others, dim)
    }

    /// Tensors of one shape along a new dimension; this one is the first.
    pub fn stack(&self, others: &[&Self], dim: usize) -> Result<Self> {
        self.joined(TensorOp::STACK, others, dim)
    }

    /// Entries `indices` (a vector of whole numbers) along `dim`.
    pub fn index_select(&self, dim: usize, indices: &Self) -> Result<Self> {
        self.link.op_one(TensorOp::INDEX_SELECT, &[self.raw, indices.raw], &[], &[dim as i64])
    }

    /// `out[i][j] = a[indices[i][j]][j]` for `dim` 0, and likewise for others.
    pub fn gather(&self, dim: usize, indices: &Self) -> Result<Self> {
        self.link.op_one(TensorOp::GATHER, &[self.raw, indices.raw], &[], &[dim as i64])
    }

    /// Sorted values and their indices along `dim`; equal elements keep their order.
    pub fn sort(&self, dim: usize, descending: bool) -> Result<[Self; 2]> {
        self.link.op_many(TensorOp::SORT, &[self.raw], &[dim as i64, i64::from(descending)])
    }

    /// The indices of [`Tensor::sort`].
    pub fn argsort(&self, dim: usize, descending: bool) -> Result<Self> {
        self.with_ints(TensorOp::ARGSORT, &[dim as i64, i64::from(descending)])
    }

    fn joined(&self, op: TensorOp, others: &[&Self], dim: usize) -> Result<Self> {
        let all: Vec<_> = std::iter::once(self).chain(others.iter().copied()).map(|tensor| tensor.raw).collect();
        self.link.op_one(op, &all, &[], &[dim as i64])
    }
}
