//! Matrix products and factorisations, batched over leading dimensions.

use super::Tensor;
use crate::error::Result;
use gauntlet_plugin_abi::TensorOp;

impl Tensor {
    /// Matrix product `[.., m, k] x [.., k, n] -> [.., m, n]`; leading dimensions broadcast.
    pub fn matmul(&self, other: &Self) -> Result<Self> {
        self.link.op_one(TensorOp::MATMUL, &[self.raw, other.raw], &[], &[])
    }

    /// A vector as diagonal matrix, or the diagonal of a matrix.
    pub fn diag(&self) -> Result<Self> {
        self.unary(TensorOp::DIAG)
    }

    /// Sum of the diagonal of a matrix `[n, n]`.
    pub fn trace(&self) -> Result<f64> {
        self.unary(TensorOp::TRACE)?.item()
    }

    /// Elements on and below a diagonal (0 the main one), zeros elsewhere.
    pub fn tril(&self, diagonal: i64) -> Result<Self> {
        self.with_ints(TensorOp::TRIL, &[diagonal])
    }

    /// Elements on and above a diagonal (0 the main one), zeros elsewhere.
    pub fn triu(&self, diagonal: i64) -> Result<Self> {
        self.with_ints(TensorOp::TRIU, &[diagonal])
    }

    /// Inverse of `[.., n, n]`.
    ///
    /// # Errors
    ///
    /// A singular matrix.
    pub fn inverse(&self) -> Result<Self> {
        self.unary(TensorOp::INVERSE)
    }

    /// Reduced QR of `[.., m, n]`: Q `[.., m, min]`, R `[.., min, n]`. The signs are the host's.
    pub fn qr(&self) -> Result<[Self; 2]> {
        self.link.op_many(TensorOp::QR, &[self.raw], &[])
    }

    /// Eigenvalues `[.., n]` (ascending) and eigenvectors `[.., n, n]` (columns) of a symmetric matrix; the lower
    /// triangle is read.
    ///
    /// # Errors
    ///
    /// No convergence, or a value that is not finite.
    pub fn eigh(&self) -> Result<[Self; 2]> {
        self.link.op_many(TensorOp::EIGH, &[self.raw], &[])
    }

    /// Reduced SVD of `[.., m, n]`: U `[.., m, min]`, descending singular values `[.., min]`, V^T `[.., min, n]`.
    ///
    /// # Errors
    ///
    /// No convergence, or a value that is not finite.
    pub fn svd(&self) -> Result<[Self; 3]> {
        self.link.op_many(TensorOp::SVD, &[self.raw], &[])
    }

    /// Lower factor `l` with `l l^T` = this symmetric positive definite matrix.
    ///
    /// # Errors
    ///
    /// Not positive definite.
    pub fn cholesky(&self) -> Result<Self> {
        self.unary(TensorOp::CHOLESKY)
    }

    /// `x` with `l l^T x = b`; this tensor is the lower factor `l`, `b` is `[.., n, k]`.
    pub fn cholesky_solve(&self, b: &Self) -> Result<Self> {
        self.link.op_one(TensorOp::CHOLESKY_SOLVE, &[b.raw, self.raw], &[], &[])
    }

    /// `x` with `a x = b`; this tensor is the triangular `a` `[.., n, n]`, `b` is `[.., n, k]`.
    pub fn solve_triangular(&self, b: &Self, upper: bool, unit_diagonal: bool) -> Result<Self> {
        let ints = [i64::from(upper), i64::from(unit_diagonal)];
        self.link.op_one(TensorOp::SOLVE_TRIANGULAR, &[self.raw, b.raw], &[], &ints)
    }
}
