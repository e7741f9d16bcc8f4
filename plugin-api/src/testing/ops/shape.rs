//! Operations that move elements, and arrays made from nothing.

use super::super::array::{Array, count};
use super::Call;
use super::elementwise::flag;
use crate::error::{Error, Result};
use gauntlet_plugin_abi::{DType, ErrorCode, TensorOp};
use ndarray::{ArrayD, ArrayViewD, Axis, IxDyn, concatenate, stack};
use std::cmp::Ordering;

pub(super) fn apply(call: &Call) -> Option<Result<Vec<Array>>> {
    let result = match call.op {
        TensorOp::SORT => return Some(sort(call).map(|(values, indices)| vec![values, indices])),
        TensorOp::ARGSORT => sort(call).map(|(_, indices)| indices),
        TensorOp::TRANSPOSE => transpose(call),
        TensorOp::RESHAPE => reshape(call),
        TensorOp::BROADCAST_TO => broadcast_to(call),
        TensorOp::SLICE => slice(call),
        TensorOp::CAT | TensorOp::STACK => join(call),
        TensorOp::INDEX_SELECT => index_select(call),
        TensorOp::GATHER => gather(call),
        TensorOp::CAST => cast(call),
        TensorOp::FULL => full(call),
        TensorOp::EYE => eye(call),
        _ => return None,
    };
    Some(result.map(|array| vec![array]))
}

fn transpose(call: &Call) -> Result<Array> {
    let a = call.one()?;
    let rank = a.shape().len();
    let (first, second) = (call.dim(call.int(0)?, rank)?, call.dim(call.int(1)?, rank)?);
    let mut swapped = a.values().view();
    swapped.swap_axes(first, second);
    like(call, a, swapped)
}

/// A copy in row-major order.
fn like(call: &Call, a: &Array, view: ArrayViewD<f64>) -> Result<Array> {
    Array::from_vec(&call.name, view.shape(), view.iter().copied().collect(), a.dtype())
}

fn reshape(call: &Call) -> Result<Array> {
    let a = call.one()?;
    let total = a.values().len();
    let known = call.ints.iter().filter(|size| **size != -1).map(|size| call.size(*size));
    let known = count(&call.name, &known.collect::<Result<Vec<_>>>()?)?;
    let open = call.ints.iter().filter(|size| **size == -1).count();
    let fits = match open {
        0 => known == total,
        1 => known > 0 && total.is_multiple_of(known),
        _ => false,
    };
    if !fits {
        return Err(call.shape(format!("shape {:?} does not become {:?}", a.shape(), call.ints)));
    }
    let shape: Vec<usize> = call.ints.iter().map(|size| usize::try_from(*size).unwrap_or(total / known)).collect();
    Array::from_vec(&call.name, &shape, a.to_vec(), a.dtype())
}

fn broadcast_to(call: &Call) -> Result<Array> {
    let a = call.one()?;
    let shape = call.ints.iter().map(|size| call.size(*size)).collect::<Result<Vec<_>>>()?;
    count(&call.name, &shape)?;
    let view = a.values().broadcast(IxDyn(&shape));
    like(call, a, view.ok_or_else(|| call.shape(format!("shape {:?} does not become {shape:?}", a.shape())))?)
}

fn slice(call: &Call) -> Result<Array> {
    let a = call.one()?;
    let dim = call.dim(call.int(0)?, a.shape().len())?;
    let (start, end) = (call.size(call.int(1)?)?, call.size(call.int(2)?)?);
    if start > end || end > a.shape()[dim] {
        return Err(call.shape(format!("found entries {start} .. {end}, expected within {}", a.shape()[dim])));
    }
    like(call, a, a.values().slice_axis(Axis(dim), (start..end).into()))
}

fn join(call: &Call) -> Result<Array> {
    let first = *call.inputs.first().ok_or_else(|| call.argument("found no input".into()))?;
    call.same_dtype(call.inputs)?;
    let views: Vec<ArrayViewD<f64>> = call.inputs.iter().map(|input| input.values().view()).collect();
    let rank = first.shape().len() + usize::from(call.op == TensorOp::STACK);
    let axis = Axis(call.dim(call.int(0)?, rank)?);
    let joined = match call.op {
        TensorOp::STACK => stack(axis, &views),
        _ => concatenate(axis, &views),
    };
    let shapes: Vec<&[usize]> = call.inputs.iter().map(|input| input.shape()).collect();
    let joined = joined.map_err(|_| call.shape(format!("shapes {shapes:?} do not join along {}", axis.0)))?;
    Array::new(&call.name, joined, first.dtype())
}

/// The indices of a call, each below `size`.
fn indices(call: &Call, array: &Array, size: usize) -> Result<Vec<usize>> {
    if array.dtype() != DType::I64 {
        let message = format!("found indices of {}, expected i64", array.dtype().name());
        return Err(Error::new(ErrorCode::DTYPE, &call.name, message));
    }
    let index = |x: &f64| {
        let index = Some(*x as usize).filter(|index| *x >= 0.0 && *index < size);
        index.ok_or_else(|| call.argument(format!("found index {x}, expected one of {size}")))
    };
    array.values().iter().map(index).collect()
}

fn index_select(call: &Call) -> Result<Array> {
    let [a, chosen] = call.exactly()?;
    let dim = call.dim(call.int(0)?, a.shape().len())?;
    if chosen.shape().len() != 1 {
        return Err(call.shape(format!("found indices of shape {:?}, expected a vector", chosen.shape())));
    }
    let chosen = indices(call, chosen, a.shape()[dim])?;
    Array::new(&call.name, a.values().select(Axis(dim), &chosen), a.dtype())
}

fn gather(call: &Call) -> Result<Array> {
    let [a, chosen] = call.exactly()?;
    let dim = call.dim(call.int(0)?, a.shape().len())?;
    let fits = a.shape().len() == chosen.shape().len()
        && (a.shape().iter().zip(chosen.shape()).enumerate()).all(|(i, (size, wanted))| i == dim || wanted <= size);
    if !fits {
        return Err(call.shape(format!("indices of shape {:?} do not fit shape {:?}", chosen.shape(), a.shape())));
    }
    let numbers = indices(call, chosen, a.shape()[dim])?;
    let mut at = numbers.into_iter();
    let gathered = ArrayD::from_shape_fn(IxDyn(chosen.shape()), |index| {
        let mut source = index;
        source[dim] = at.next().unwrap_or_default();
        a.values()[source]
    });
    Array::new(&call.name, gathered, a.dtype())
}

/// Ascending; NaN is the largest.
fn order(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn sort(call: &Call) -> Result<(Array, Array)> {
    let a = call.one()?;
    let (dim, descending) = (call.dim(call.int(0)?, a.shape().len())?, call.int(1)? != 0);
    let (mut sorted, mut places) = (a.values().clone(), ArrayD::zeros(a.values().raw_dim()));
    let lanes = a.values().lanes(Axis(dim)).into_iter();
    for ((lane, mut values), mut indices) in lanes.zip(sorted.lanes_mut(Axis(dim))).zip(places.lanes_mut(Axis(dim))) {
        let mut by_value: Vec<usize> = (0..lane.len()).collect();
        by_value.sort_by(|i, j| if descending { order(lane[*j], lane[*i]) } else { order(lane[*i], lane[*j]) });
        for (place, from) in by_value.into_iter().enumerate() {
            values[place] = lane[from];
            indices[place] = from as f64;
        }
    }
    Ok((Array::new(&call.name, sorted, a.dtype())?, Array::new(&call.name, places, DType::I64)?))
}

fn cast(call: &Call) -> Result<Array> {
    let a = call.one()?;
    let dtype = dtype(call.int(0)?);
    let truncate = dtype == DType::I64;
    Array::new(&call.name, a.values().mapv(|x| if truncate { x.trunc() } else { x }), dtype)
}

fn full(call: &Call) -> Result<Array> {
    let shape = call.ints.iter().skip(1).map(|size| call.size(*size)).collect::<Result<Vec<_>>>()?;
    let numbers = vec![call.scalar(0)?; count(&call.name, &shape)?];
    Array::from_vec(&call.name, &shape, numbers, dtype(call.int(0)?))
}

fn eye(call: &Call) -> Result<Array> {
    let n = call.size(call.int(1)?)?;
    count(&call.name, &[n, n])?;
    let identity = ArrayD::from_shape_fn(IxDyn(&[n, n]), |index| flag(index[0] == index[1]));
    Array::new(&call.name, identity, dtype(call.int(0)?))
}

/// An element type by its number; an unknown one is refused by name where the array is made.
fn dtype(number: i64) -> DType {
    DType(u32::try_from(number).unwrap_or(u32::MAX))
}
