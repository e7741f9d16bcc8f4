//! Every tensor operation in plain Rust, by subject.

mod elementwise;
mod fused;
mod linear_algebra;
mod reduction;
mod shape;
#[cfg(test)]
mod tests;

pub(super) use fused::run as run_fused;
pub(super) use reduction::reduce_lists;

use super::array::Array;
use crate::error::{Error, Result};
use gauntlet_plugin_abi::{ErrorCode, TensorOp};

/// An operation that gives new arrays.
pub(super) fn apply(op: TensorOp, inputs: &[&Array], scalars: &[f64], ints: &[i64]) -> Result<Vec<Array>> {
    let call = Call { op, name: op.name(), inputs, scalars, ints };
    let known = (elementwise::apply(&call))
        .or_else(|| reduction::apply(&call))
        .or_else(|| shape::apply(&call))
        .or_else(|| linear_algebra::apply(&call));
    known.unwrap_or_else(|| Err(Error::unsupported(call.name)))
}

/// An operation with the target as first input and as output.
pub(super) fn apply_in_place(
    op: TensorOp,
    target: &mut Array,
    inputs: &[&Array],
    scalars: &[f64],
    ints: &[i64],
) -> Result<()> {
    let name = op.name();
    let result = match op {
        TensorOp::COPY => Call { op, name: name.clone(), inputs, scalars, ints }.one()?.clone(),
        TensorOp::FILL => {
            let number = Call { op, name: name.clone(), inputs, scalars, ints }.scalar(0)?;
            Array::from_vec(&name, target.shape(), vec![number; target.values().len()], target.dtype())?
        }
        op if elementwise::in_place(op) => {
            let inputs: Vec<&Array> = std::iter::once(&*target).chain(inputs.iter().copied()).collect();
            let mut results = apply(op, &inputs, scalars, ints)?;
            results.pop().ok_or_else(|| Error::new(ErrorCode::HOST, &name, "gave no result"))?
        }
        _ => return Err(Error::unsupported(format!("{name} in place"))),
    };
    if result.shape() != target.shape() {
        return Err(Error::shape(name, format!("found shape {:?}, expected {:?}", result.shape(), target.shape())));
    }
    target.set(result.values().iter().copied());
    Ok(())
}

/// One call with its arguments.
struct Call<'a> {
    op: TensorOp,
    name: String,
    inputs: &'a [&'a Array],
    scalars: &'a [f64],
    ints: &'a [i64],
}

impl<'a> Call<'a> {
    fn one(&self) -> Result<&'a Array> {
        self.exactly::<1>().map(|[a]| a)
    }

    fn exactly<const N: usize>(&self) -> Result<[&'a Array; N]> {
        <[&Array; N]>::try_from(self.inputs)
            .map_err(|_| self.argument(format!("found {} inputs, expected {N}", self.inputs.len())))
    }

    fn scalar(&self, index: usize) -> Result<f64> {
        self.scalars.get(index).copied().ok_or_else(|| self.argument(format!("number {index} is missing")))
    }

    fn int(&self, index: usize) -> Result<i64> {
        self.ints.get(index).copied().ok_or_else(|| self.argument(format!("whole number {index} is missing")))
    }

    /// A size or position that the call gives as a whole number.
    fn size(&self, number: i64) -> Result<usize> {
        usize::try_from(number).map_err(|_| self.shape(format!("found size {number}, expected at least 0")))
    }

    fn dim(&self, number: i64, rank: usize) -> Result<usize> {
        let dim = usize::try_from(number).ok().filter(|dim| *dim < rank);
        dim.ok_or_else(|| self.shape(format!("found dimension {number}, expected one of {rank}")))
    }

    /// All inputs in one element type.
    fn same_dtype(&self, inputs: &[&Array]) -> Result<()> {
        match inputs.windows(2).find(|pair| pair[0].dtype() != pair[1].dtype()) {
            None => Ok(()),
            Some(pair) => {
                let message = format!("{} and {} differ", pair[0].dtype().name(), pair[1].dtype().name());
                Err(Error::new(ErrorCode::DTYPE, &self.name, message))
            }
        }
    }

    fn argument(&self, message: String) -> Error {
        Error::argument(&self.name, message)
    }

    fn shape(&self, message: String) -> Error {
        Error::shape(&self.name, message)
    }

    fn numerical(&self, message: &str) -> Error {
        Error::new(ErrorCode::NUMERICAL, &self.name, message)
    }
}

/// The shape to which two shapes broadcast, as in NumPy.
fn broadcast_shape(name: &str, a: &[usize], b: &[usize]) -> Result<Vec<usize>> {
    let rank = a.len().max(b.len());
    let size = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    let sizes = (0..rank).map(|i| match (size(a, i), size(b, i)) {
        (a, b) if a == b => Some(a),
        (1, other) | (other, 1) => Some(other),
        _ => None,
    });
    let whole: Option<Vec<usize>> = sizes.collect();
    whole.ok_or_else(|| Error::shape(name, format!("shapes {a:?} and {b:?} do not broadcast")))
}
