//! The operations of a plugin on tensors. Every result owns its storage.

mod elementwise;
mod linear_algebra;
mod shape;
#[cfg(test)]
mod tests;

use super::values::info;
use gauntlet_plugin_abi::{ErrorCode, TensorOp};
use gauntlet_plugin_api::{Error, Result};
use tch::{Device, Tensor};

/// What an operation is given.
struct Args<'a> {
    op: TensorOp,
    device: Device,
    inputs: &'a [&'a Tensor],
    scalars: &'a [f64],
    ints: &'a [i64],
}

impl Args<'_> {
    /// Input `index`.
    fn input(&self, index: usize) -> Result<&Tensor> {
        let missing =
            || Error::argument(self.op.name(), format!("{} inputs, expected more than {index}", self.inputs.len()));
        self.inputs.get(index).copied().ok_or_else(missing)
    }

    /// Scalar `index`.
    fn scalar(&self, index: usize) -> Result<f64> {
        let missing =
            || Error::argument(self.op.name(), format!("{} numbers, expected more than {index}", self.scalars.len()));
        self.scalars.get(index).copied().ok_or_else(missing)
    }

    /// Integer `index`.
    fn int(&self, index: usize) -> Result<i64> {
        let missing =
            || Error::argument(self.op.name(), format!("{} integers, expected more than {index}", self.ints.len()));
        self.ints.get(index).copied().ok_or_else(missing)
    }

    /// Integer `index` as a dimension of an input of rank `rank`.
    fn dim(&self, index: usize, rank: usize) -> Result<i64> {
        let dim = self.int(index)?;
        match usize::try_from(dim).is_ok_and(|dim| dim < rank) {
            true => Ok(dim),
            false => {
                Err(Error::argument(self.op.name(), format!("dimension {dim} of a tensor with {rank} dimensions")))
            }
        }
    }

    /// libtorch's error as the plugin's.
    fn failed(&self, error: &tch::TchError) -> Error {
        super::error(&self.op.name(), error)
    }
}

/// Runs an operation that gives new tensors ([`TensorOp`]).
///
/// # Errors
///
/// An operation that is unknown, by name; arguments, shapes or element types that do not fit; a factorisation that
/// fails ([`ErrorCode::NUMERICAL`]).
pub fn op(device: Device, op: TensorOp, inputs: &[&Tensor], scalars: &[f64], ints: &[i64]) -> Result<Vec<Tensor>> {
    let args = Args { op, device, inputs, scalars, ints };
    let outputs = tch::no_grad(|| {
        let elementwise = || elementwise::run(&args);
        let shape = || shape::run(&args);
        elementwise().or_else(shape).or_else(|| linear_algebra::run(&args))
    });
    let outputs = outputs.unwrap_or_else(|| Err(Error::unsupported(format!("tensor operation {}", op.name()))))?;
    Ok(tch::no_grad(|| outputs.iter().map(|output| owned(&args, output)).collect()))
}

/// The result in row-major order and in storage of its own, also where libtorch gave a view of an input. Transposed
/// matrices stay as they lie: products, for which they are made, read them so, and to reorder them takes several times as
/// long as to copy them.
fn owned(args: &Args<'_>, output: &Tensor) -> Tensor {
    if is_matrix_transpose(args, output) {
        let mut own = output.empty_like();
        own.copy_(output);
        return own;
    }
    let dense = output.contiguous();
    let is_view = VIEWS.contains(&args.op) && dense.data_ptr() == output.data_ptr();
    if is_view { dense.copy() } else { dense }
}

/// Whether rows and columns of matrices are swapped.
fn is_matrix_transpose(args: &Args<'_>, output: &Tensor) -> bool {
    let last = output.dim() as i64 - 1;
    args.op == TensorOp::TRANSPOSE && last > 0 && (args.ints == [last - 1, last] || args.ints == [last, last - 1])
}

/// Operations whose result may share storage with their input.
const VIEWS: [TensorOp; 6] =
    [TensorOp::TRANSPOSE, TensorOp::RESHAPE, TensorOp::SLICE, TensorOp::BROADCAST_TO, TensorOp::CAST, TensorOp::DIAG];

/// Runs an operation with the target as first input and as output.
///
/// # Errors
///
/// As [`op`]; a result of another shape than the target's.
pub fn op_in_place(op: TensorOp, target: &mut Tensor, inputs: &[&Tensor], scalars: &[f64], ints: &[i64]) -> Result<()> {
    let args = Args { op, device: target.device(), inputs, scalars, ints };
    match op {
        TensorOp::FILL => {
            let _ = tch::no_grad(|| target.f_fill_(args.scalar(0)?).map_err(|error| args.failed(&error)))?;
            return Ok(());
        }
        TensorOp::COPY => {
            fits(op, target, args.input(0)?)?;
            tch::no_grad(|| target.copy_(inputs[0]));
            return Ok(());
        }
        _ if !in_place(op) => return Err(Error::unsupported(format!("tensor operation {} in place", op.name()))),
        _ => {}
    }
    let all: Vec<&Tensor> = std::iter::once(&*target).chain(inputs.iter().copied()).collect();
    let result = self::op(args.device, op, &all, scalars, ints)?.pop();
    let result = result.ok_or_else(|| Error::new(ErrorCode::HOST, op.name(), "gave no tensor"))?;
    fits(op, target, &result)?;
    tch::no_grad(|| target.copy_(&result));
    Ok(())
}

/// Operations that the interface documents as "in place".
fn in_place(op: TensorOp) -> bool {
    let arithmetic = TensorOp::ADD..=TensorOp::MINIMUM;
    arithmetic.contains(&op) || (TensorOp::COPY..=TensorOp::FILL).contains(&op)
}

fn fits(op: TensorOp, target: &Tensor, result: &Tensor) -> Result<()> {
    match target.size() == result.size() {
        true => Ok(()),
        false => {
            let message = format!("a result of shape {:?} for a target of shape {:?}", info(result).0, info(target).0);
            Err(Error::shape(op.name(), message))
        }
    }
}
