//! Matrix products and factorisations, batched over leading dimensions.

use super::super::array::Array;
use super::{Call, broadcast_shape};
use crate::error::Result;
use faer::{Mat, MatRef, Side};
use gauntlet_plugin_abi::{DType, TensorOp};
use ndarray::{Array3, ArrayView2, IxDyn};

pub(super) fn apply(call: &Call) -> Option<Result<Vec<Array>>> {
    let result = match call.op {
        TensorOp::QR => return Some(qr(call)),
        TensorOp::EIGH => return Some(eigh(call)),
        TensorOp::SVD => return Some(svd(call)),
        TensorOp::MATMUL => matmul(call),
        TensorOp::DIAG => diag(call),
        TensorOp::TRACE => trace(call),
        TensorOp::TRIL => triangle(call, |row, column, diagonal| column <= row + diagonal),
        TensorOp::TRIU => triangle(call, |row, column, diagonal| column >= row + diagonal),
        TensorOp::INVERSE => inverse(call),
        TensorOp::CHOLESKY => cholesky(call),
        TensorOp::CHOLESKY_SOLVE => cholesky_solve(call),
        TensorOp::SOLVE_TRIANGULAR => solve_triangular(call),
        _ => return None,
    };
    Some(result.map(|array| vec![array]))
}

/// Matrices with the dimensions before them.
struct Stack {
    leading: Vec<usize>,
    dtype: DType,
    matrices: Vec<Mat<f64>>,
    rows: usize,
    cols: usize,
}

impl Stack {
    /// The matrices of an array, repeated to `leading`.
    fn broadcast(call: &Call, a: &Array, leading: &[usize]) -> Result<Self> {
        let [.., rows, cols] = *a.shape() else {
            return Err(call.shape(format!("found shape {:?}, expected a matrix", a.shape())));
        };
        let shape: Vec<usize> = leading.iter().copied().chain([rows, cols]).collect();
        let view = a.values().broadcast(IxDyn(&shape));
        let view = view.ok_or_else(|| call.shape(format!("shape {:?} does not become {shape:?}", a.shape())))?;
        let flat = Array3::from_shape_vec((leading.iter().product(), rows, cols), view.iter().copied().collect());
        let flat = flat.map_err(|error| call.shape(error.to_string()))?;
        let matrices = flat.outer_iter().map(to_mat).collect();
        Ok(Self { leading: leading.to_vec(), dtype: a.dtype(), matrices, rows, cols })
    }

    fn of(call: &Call, a: &Array) -> Result<Self> {
        Self::broadcast(call, a, &a.shape()[..a.shape().len().saturating_sub(2)])
    }

    /// Two stacks with the leading dimensions to which theirs broadcast.
    fn pair(call: &Call) -> Result<[Self; 2]> {
        let [a, b] = call.exactly()?;
        call.same_dtype(&[a, b])?;
        let leading = |a: &Array| a.shape()[..a.shape().len().saturating_sub(2)].to_vec();
        let leading = broadcast_shape(&call.name, &leading(a), &leading(b))?;
        Ok([Self::broadcast(call, a, &leading)?, Self::broadcast(call, b, &leading)?])
    }

    fn finite(self, call: &Call) -> Result<Self> {
        let finite = |m: &Mat<f64>| (0..m.ncols()).all(|j| (0..m.nrows()).all(|i| m[(i, j)].is_finite()));
        match self.matrices.iter().all(finite) {
            true => Ok(self),
            false => Err(call.numerical("a value is not finite")),
        }
    }

    fn square(self, call: &Call) -> Result<Self> {
        match self.rows == self.cols {
            true => Ok(self),
            false => Err(call.shape(format!("found a matrix {} x {}, expected a square", self.rows, self.cols))),
        }
    }

    /// One array of an equal part for each matrix.
    fn collect(&self, call: &Call, shape: &[usize], each: impl IntoIterator<Item = Vec<f64>>) -> Result<Array> {
        let shape: Vec<usize> = self.leading.iter().chain(shape).copied().collect();
        Array::from_vec(&call.name, &shape, each.into_iter().flatten().collect(), self.dtype)
    }
}

fn to_mat(view: ArrayView2<f64>) -> Mat<f64> {
    Mat::from_fn(view.nrows(), view.ncols(), |i, j| view[[i, j]])
}

/// Elements in row-major order.
fn elements(m: MatRef<f64>) -> Vec<f64> {
    (0..m.nrows()).flat_map(|i| (0..m.ncols()).map(move |j| m[(i, j)])).collect()
}

fn matmul(call: &Call) -> Result<Array> {
    let [a, b] = Stack::pair(call)?;
    if a.cols != b.rows {
        let (m, k, l, n) = (a.rows, a.cols, b.rows, b.cols);
        return Err(call.shape(format!("found {m} x {k} times {l} x {n}, expected {k} rows on the right")));
    }
    let products = a.matrices.iter().zip(&b.matrices).map(|(a, b)| elements((a * b).as_ref()));
    a.collect(call, &[a.rows, b.cols], products)
}

fn diag(call: &Call) -> Result<Array> {
    let a = call.one()?;
    if let [n] = *a.shape() {
        let entry = |i: usize| a.values()[[i / n]] * f64::from(u8::from(i / n == i % n));
        return Array::from_vec(&call.name, &[n, n], (0..n * n).map(entry).collect(), a.dtype());
    }
    let stack = Stack::of(call, a)?;
    let size = stack.rows.min(stack.cols);
    stack.collect(call, &[size], stack.matrices.iter().map(|m| (0..size).map(|i| m[(i, i)]).collect()))
}

fn trace(call: &Call) -> Result<Array> {
    let stack = Stack::of(call, call.one()?)?.square(call)?;
    stack.collect(call, &[], stack.matrices.iter().map(|m| vec![(0..stack.rows).map(|i| m[(i, i)]).sum()]))
}

fn triangle(call: &Call, keep: fn(i64, i64, i64) -> bool) -> Result<Array> {
    let (stack, diagonal) = (Stack::of(call, call.one()?)?, call.int(0)?);
    let kept = |m: &Mat<f64>| {
        let kept = |i: usize, j: usize| if keep(i as i64, j as i64, diagonal) { m[(i, j)] } else { 0.0 };
        elements(Mat::from_fn(stack.rows, stack.cols, kept).as_ref())
    };
    stack.collect(call, &[stack.rows, stack.cols], stack.matrices.iter().map(kept))
}

fn inverse(call: &Call) -> Result<Array> {
    let stack = Stack::of(call, call.one()?)?.square(call)?.finite(call)?;
    let n = stack.rows;
    let mut inverses = vec![];
    for matrix in &stack.matrices {
        let factors = matrix.partial_piv_lu();
        let pivot = |i: usize| factors.U()[(i, i)];
        if (0..n).any(|i| pivot(i) == 0.0) {
            return Err(call.numerical("the matrix is singular"));
        }
        inverses.push(elements(faer::linalg::solvers::DenseSolveCore::inverse(&factors).as_ref()));
    }
    stack.collect(call, &[n, n], inverses)
}

fn qr(call: &Call) -> Result<Vec<Array>> {
    let stack = Stack::of(call, call.one()?)?.finite(call)?;
    let size = stack.rows.min(stack.cols);
    let factors: Vec<_> = stack.matrices.iter().map(|m| m.qr()).collect();
    let q = factors.iter().map(|f| elements(f.compute_thin_Q().as_ref()));
    let r = factors.iter().map(|f| {
        let r = f.thin_R();
        elements(Mat::from_fn(size, stack.cols, |i, j| if i <= j { r[(i, j)] } else { 0.0 }).as_ref())
    });
    Ok(vec![stack.collect(call, &[stack.rows, size], q)?, stack.collect(call, &[size, stack.cols], r)?])
}

fn eigh(call: &Call) -> Result<Vec<Array>> {
    let stack = Stack::of(call, call.one()?)?.square(call)?.finite(call)?;
    let n = stack.rows;
    let (mut values, mut vectors) = (vec![], vec![]);
    for matrix in &stack.matrices {
        let eigen = matrix.self_adjoint_eigen(Side::Lower).map_err(|_| call.numerical("it did not converge"))?;
        values.push((0..n).map(|i| eigen.S()[i]).collect());
        vectors.push(elements(eigen.U()));
    }
    Ok(vec![stack.collect(call, &[n], values)?, stack.collect(call, &[n, n], vectors)?])
}

fn svd(call: &Call) -> Result<Vec<Array>> {
    let stack = Stack::of(call, call.one()?)?.finite(call)?;
    let size = stack.rows.min(stack.cols);
    let (mut left, mut values, mut right) = (vec![], vec![], vec![]);
    for matrix in &stack.matrices {
        let svd = matrix.thin_svd().map_err(|_| call.numerical("it did not converge"))?;
        left.push(elements(svd.U()));
        values.push((0..size).map(|i| svd.S()[i]).collect());
        right.push(elements(svd.V().transpose()));
    }
    let left = stack.collect(call, &[stack.rows, size], left)?;
    Ok(vec![left, stack.collect(call, &[size], values)?, stack.collect(call, &[size, stack.cols], right)?])
}

fn cholesky(call: &Call) -> Result<Array> {
    let stack = Stack::of(call, call.one()?)?.square(call)?.finite(call)?;
    let n = stack.rows;
    let mut factors = vec![];
    for matrix in &stack.matrices {
        let llt = matrix.llt(Side::Lower).map_err(|_| call.numerical("the matrix is not positive definite"))?;
        let lower = |i: usize, j: usize| if j <= i { llt.L()[(i, j)] } else { 0.0 };
        factors.push(elements(Mat::from_fn(n, n, lower).as_ref()));
    }
    stack.collect(call, &[n, n], factors)
}

fn cholesky_solve(call: &Call) -> Result<Array> {
    let [mut b, l] = Stack::pair(call)?;
    let l = l.square(call)?;
    check_system(call, &l, &b, false)?;
    for (l, b) in l.matrices.iter().zip(&mut b.matrices) {
        l.solve_lower_triangular_in_place(&mut *b);
        l.transpose().solve_upper_triangular_in_place(b);
    }
    b.collect(call, &[b.rows, b.cols], b.matrices.iter().map(|b| elements(b.as_ref())))
}

fn solve_triangular(call: &Call) -> Result<Array> {
    let (upper, unit_diagonal) = (call.int(0)? != 0, call.int(1)? != 0);
    let [a, mut b] = Stack::pair(call)?;
    let a = a.square(call)?;
    check_system(call, &a, &b, unit_diagonal)?;
    for (a, b) in a.matrices.iter().zip(&mut b.matrices) {
        match (upper, unit_diagonal) {
            (false, false) => a.solve_lower_triangular_in_place(b),
            (false, true) => a.solve_unit_lower_triangular_in_place(b),
            (true, false) => a.solve_upper_triangular_in_place(b),
            (true, true) => a.solve_unit_upper_triangular_in_place(b),
        }
    }
    b.collect(call, &[b.rows, b.cols], b.matrices.iter().map(|b| elements(b.as_ref())))
}

/// Sizes that fit, and a diagonal without zeros.
fn check_system(call: &Call, a: &Stack, b: &Stack, unit_diagonal: bool) -> Result<()> {
    if a.rows != b.rows {
        return Err(call.shape(format!("found {} rows on the right, expected {}", b.rows, a.rows)));
    }
    let singular = |m: &Mat<f64>| (0..a.rows).any(|i| m[(i, i)] == 0.0);
    match !unit_diagonal && a.matrices.iter().any(singular) {
        true => Err(call.numerical("the matrix is singular")),
        false => Ok(()),
    }
}
