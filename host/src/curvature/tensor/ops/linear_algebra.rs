//! Matrix products and factorisations, batched over leading dimensions.

use super::Args;
use gauntlet_plugin_abi::{ErrorCode, TensorOp};
use gauntlet_plugin_api::{Error, Result};
use tch::{TchError, Tensor};

/// The result, or `None` where the operation is of another family.
pub(super) fn run(args: &Args<'_>) -> Option<Result<Vec<Tensor>>> {
    let one = |result: Result<Tensor>| Some(result.map(|tensor| vec![tensor]));
    match args.op {
        TensorOp::MATMUL => one(matmul(args)),
        TensorOp::DIAG | TensorOp::TRACE | TensorOp::TRIL | TensorOp::TRIU => one(part(args)),
        TensorOp::INVERSE | TensorOp::CHOLESKY => one(square(args).and_then(|a| factor(args, &a))),
        TensorOp::CHOLESKY_SOLVE | TensorOp::SOLVE_TRIANGULAR => one(solve(args)),
        TensorOp::QR => Some(matrix(args).and_then(|a| qr(args, &a))),
        TensorOp::EIGH => Some(square(args).and_then(|a| eigh(args, &a))),
        TensorOp::SVD => Some(matrix(args).and_then(|a| svd(args, &a))),
        _ => None,
    }
}

fn matmul(args: &Args<'_>) -> Result<Tensor> {
    args.input(0)?.f_matmul(args.input(1)?).map_err(|error| args.failed(&error))
}

/// The first input, a matrix or a batch of them.
fn matrix(args: &Args<'_>) -> Result<Tensor> {
    let a = args.input(0)?;
    match a.dim() >= 2 {
        true => Ok(a.shallow_clone()),
        false => Err(Error::shape(args.op.name(), format!("shape {:?}, expected a matrix", a.size()))),
    }
}

/// The first input, a square matrix or a batch of them.
fn square(args: &Args<'_>) -> Result<Tensor> {
    let a = matrix(args)?;
    match a.size().as_slice() {
        [.., rows, columns] if rows == columns => Ok(a),
        shape => Err(Error::shape(args.op.name(), format!("shape {shape:?}, expected a square matrix"))),
    }
}

fn part(args: &Args<'_>) -> Result<Tensor> {
    let a = args.input(0)?;
    let result = match (args.op, a.dim()) {
        (TensorOp::DIAG, 1) => a.f_diag_embed(0, -2, -1),
        (TensorOp::DIAG, rank) if rank >= 2 => a.f_diagonal(0, -2, -1),
        (TensorOp::TRACE, 2) => square(args)?.f_trace(),
        (TensorOp::TRIL, rank) if rank >= 2 => a.f_tril(args.int(0)?),
        (TensorOp::TRIU, rank) if rank >= 2 => a.f_triu(args.int(0)?),
        _ => return Err(Error::shape(args.op.name(), format!("shape {:?}, expected a matrix", a.size()))),
    };
    result.map_err(|error| args.failed(&error))
}

fn factor(args: &Args<'_>, a: &Tensor) -> Result<Tensor> {
    let result = if args.op == TensorOp::INVERSE { Tensor::f_linalg_inv(a) } else { a.f_linalg_cholesky(false) };
    finite(args, vec![result.map_err(|error| numerical(args, &error))?]).map(|mut outputs| outputs.remove(0))
}

fn solve(args: &Args<'_>) -> Result<Tensor> {
    let (a, b) = (args.input(0)?, args.input(1)?);
    if a.dim() < 2 || b.dim() < 2 {
        let message = format!("shapes {:?} and {:?}, expected matrices", a.size(), b.size());
        return Err(Error::shape(args.op.name(), message));
    }
    let result = match args.op {
        TensorOp::CHOLESKY_SOLVE => a.f_cholesky_solve(b, false),
        _ => a.f_linalg_solve_triangular(b, args.int(0)? != 0, true, args.int(1)? != 0),
    };
    result.map_err(|error| args.failed(&error))
}

fn qr(args: &Args<'_>, a: &Tensor) -> Result<Vec<Tensor>> {
    let (q, r) = Tensor::f_linalg_qr(a, "reduced").map_err(|error| numerical(args, &error))?;
    finite(args, vec![q, r])
}

fn eigh(args: &Args<'_>, a: &Tensor) -> Result<Vec<Tensor>> {
    let (values, vectors) = a.f_linalg_eigh("L").map_err(|error| numerical(args, &error))?;
    finite(args, vec![values, vectors])
}

fn svd(args: &Args<'_>, a: &Tensor) -> Result<Vec<Tensor>> {
    // `linalg_svd` would have to name a driver, which libtorch takes on a GPU only.
    let (u, s, v) = a.f_svd(true, true).map_err(|error| numerical(args, &error))?;
    finite(args, vec![u, s, v.transpose(-2, -1)])
}

/// A factorisation's failure: singular, not positive definite, no convergence.
fn numerical(args: &Args<'_>, error: &TchError) -> Error {
    Error { code: ErrorCode::NUMERICAL, ..args.failed(error) }
}

/// Factors of a matrix with values that are not finite are refused, not passed on.
fn finite(args: &Args<'_>, outputs: Vec<Tensor>) -> Result<Vec<Tensor>> {
    let finite = |tensor: &Tensor| bool::try_from(tensor.isfinite().all()).unwrap_or(false);
    match outputs.iter().all(finite) {
        true => Ok(outputs),
        false => Err(Error::new(ErrorCode::NUMERICAL, args.op.name(), "the result is not finite")),
    }
}
