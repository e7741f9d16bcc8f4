//! Reductions over dimensions, and over each array of a list.

use super::super::array::Array;
use super::Call;
use super::elementwise::{maximum, minimum};
use crate::error::{Error, Result};
use gauntlet_plugin_abi::{ListReduction, TensorOp};
use ndarray::{ArrayD, Axis};

pub(super) fn apply(call: &Call) -> Option<Result<Vec<Array>>> {
    let result = match call.op {
        TensorOp::SUM => reduce(call, Some(0.0), |a, b| a + b, |x| x, |sum, _| sum),
        TensorOp::MEAN => reduce(call, Some(0.0), |a, b| a + b, |x| x, |sum, count| sum / count),
        TensorOp::NORM => reduce(call, Some(0.0), |a, b| a + b, |x| x * x, |sum, _| sum.sqrt()),
        TensorOp::MAX => reduce(call, None, maximum, |x| x, |x, _| x),
        TensorOp::MIN => reduce(call, None, minimum, |x| x, |x, _| x),
        _ => return None,
    };
    Some(result.map(|array| vec![array]))
}

/// `finish(fold(start, map(x)...), count)` over the dimensions that the call names. Without a start the fold begins
/// with the first element, and a dimension of size 0 is an error.
fn reduce(
    call: &Call,
    start: Option<f64>,
    fold: fn(f64, f64) -> f64,
    map: fn(f64) -> f64,
    finish: fn(f64, f64) -> f64,
) -> Result<Array> {
    let a = call.one()?;
    let (keep_dim, dims) = dimensions(call, a.shape().len())?;
    let count: usize = dims.iter().map(|dim| a.shape()[*dim]).product();
    if count == 0 && start.is_none() {
        return Err(call.shape(format!("no element to choose from in shape {:?}", a.shape())));
    }
    let mut values: ArrayD<f64> = a.values().mapv(map);
    for dim in dims.iter().rev() {
        let axis = Axis(*dim);
        values = match start {
            Some(start) => values.fold_axis(axis, start, |a, b| fold(*a, *b)),
            None => values.map_axis(axis, |lane| lane.iter().copied().reduce(fold).unwrap_or(f64::NAN)),
        };
        if keep_dim {
            values = values.insert_axis(axis);
        }
    }
    Array::new(&call.name, values.mapv(|x| finish(x, count as f64)), a.dtype())
}

/// `[keep_dim, dims...]`: the dimensions in ascending order, all of them when none is named.
fn dimensions(call: &Call, rank: usize) -> Result<(bool, Vec<usize>)> {
    let keep_dim = call.int(0)? != 0;
    let mut dims = call.ints[1..].iter().map(|dim| call.dim(*dim, rank)).collect::<Result<Vec<_>>>()?;
    dims.sort_unstable();
    if dims.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(call.argument(format!("a dimension is named twice in {dims:?}")));
    }
    Ok((keep_dim, if dims.is_empty() { (0..rank).collect() } else { dims }))
}

/// One number for each array of a list, accumulated in f64.
pub(in super::super) fn reduce_lists(kind: ListReduction, a: &[&Array], b: &[&Array]) -> Result<Vec<f64>> {
    let each = |f: fn(f64, f64) -> f64| a.iter().map(|a| a.values().iter().fold(0.0, |sum, x| f(sum, *x))).collect();
    Ok(match kind {
        ListReduction::DOT => {
            let dot =
                |(a, b): (&&Array, &&Array)| a.values().iter().zip(b.values()).fold(0.0, |sum, (x, y)| sum + x * y);
            a.iter().zip(b).map(dot).collect()
        }
        ListReduction::SQUARED_NORM => each(|sum, x| sum + x * x),
        ListReduction::SUM => each(|sum, x| sum + x),
        ListReduction::MAX_ABS => each(|largest, x| maximum(largest, x.abs())),
        ListReduction::NON_FINITE => each(|count, x| count + super::elementwise::flag(!x.is_finite())),
        other => return Err(Error::unsupported(other.name())),
    })
}
