//! Reductions with dimensions, and operations that move or make elements.

use super::Args;
use crate::curvature::tensor::values::kind;
use gauntlet_plugin_abi::{DType, TensorOp};
use gauntlet_plugin_api::{Error, Result};
use tch::{Kind, Tensor};

/// The result, or `None` where the operation is of another family.
pub(super) fn run(args: &Args<'_>) -> Option<Result<Vec<Tensor>>> {
    let one = |result: Result<Tensor>| Some(result.map(|tensor| vec![tensor]));
    match args.op {
        op if (TensorOp::SUM..=TensorOp::NORM).contains(&op) => one(reduce(args)),
        TensorOp::CAT | TensorOp::STACK => one(join(args)),
        TensorOp::INDEX_SELECT | TensorOp::GATHER => one(pick(args)),
        TensorOp::SORT => Some(sort(args).map(|(values, indices)| vec![values, indices])),
        TensorOp::ARGSORT => one(sort(args).map(|(_, indices)| indices)),
        TensorOp::FULL | TensorOp::EYE => one(make(args)),
        TensorOp::TRANSPOSE | TensorOp::RESHAPE | TensorOp::SLICE | TensorOp::BROADCAST_TO | TensorOp::CAST => {
            one(view(args))
        }
        _ => None,
    }
}

/// `ints = [keep_dim, dims...]`.
fn reduce(args: &Args<'_>) -> Result<Tensor> {
    let a = args.input(0)?;
    let keep = args.int(0)? != 0;
    let mut dims = (1..args.ints.len()).map(|index| args.dim(index, a.dim())).collect::<Result<Vec<i64>>>()?;
    if dims.is_empty() {
        dims = (0..a.dim() as i64).collect();
    }
    let result = match args.op {
        TensorOp::SUM => a.f_sum_dim_intlist(dims.as_slice(), keep, None::<Kind>),
        TensorOp::MEAN => a.f_mean_dim(dims.as_slice(), keep, None::<Kind>),
        TensorOp::MAX => a.f_amax(dims.as_slice(), keep),
        TensorOp::MIN => a.f_amin(dims.as_slice(), keep),
        _ => a.f_norm_scalaropt_dim(2.0, dims.as_slice(), keep),
    };
    result.map_err(|error| args.failed(&error))
}

fn join(args: &Args<'_>) -> Result<Tensor> {
    let first = args.input(0)?;
    let rank = first.dim() + usize::from(args.op == TensorOp::STACK);
    let dim = args.dim(0, rank)?;
    let result =
        if args.op == TensorOp::CAT { Tensor::f_cat(args.inputs, dim) } else { Tensor::f_stack(args.inputs, dim) };
    result.map_err(|error| args.failed(&error))
}

fn pick(args: &Args<'_>) -> Result<Tensor> {
    let (a, indices) = (args.input(0)?, args.input(1)?.to_kind(Kind::Int64));
    let dim = args.dim(0, a.dim())?;
    let size = a.size()[dim as usize];
    let within = indices.numel() == 0 || (indices.min().int64_value(&[]) >= 0 && indices.max().int64_value(&[]) < size);
    if !within {
        return Err(Error::argument(args.op.name(), format!("an index outside 0..{size}")));
    }
    let result = match args.op {
        TensorOp::INDEX_SELECT => a.f_index_select(dim, &indices),
        _ => a.f_gather(dim, &indices, false),
    };
    result.map_err(|error| args.failed(&error))
}

fn sort(args: &Args<'_>) -> Result<(Tensor, Tensor)> {
    let a = args.input(0)?;
    let dim = args.dim(0, a.dim())?;
    a.f_sort_stable(true, dim, args.int(1)? != 0).map_err(|error| args.failed(&error))
}

/// `ints = [dtype, shape...]` or `[dtype, n]`.
fn make(args: &Args<'_>) -> Result<Tensor> {
    let options = (kind(DType(args.int(0)? as u32))?, args.device);
    let shape = args.ints.get(1..).unwrap_or_default();
    if shape.iter().any(|size| *size < 0) {
        return Err(Error::shape(args.op.name(), format!("a negative size in {shape:?}")));
    }
    let result = match args.op {
        TensorOp::FULL => Tensor::f_full(shape, args.scalar(0)?, options),
        _ => Tensor::f_eye(args.int(1)?, options),
    };
    result.map_err(|error| args.failed(&error))
}

fn view(args: &Args<'_>) -> Result<Tensor> {
    let a = args.input(0)?;
    let result = match args.op {
        TensorOp::TRANSPOSE => a.f_transpose(args.dim(0, a.dim())?, args.dim(1, a.dim())?),
        TensorOp::RESHAPE => a.f_reshape(args.ints),
        TensorOp::BROADCAST_TO => a.f_broadcast_to(args.ints),
        TensorOp::CAST => a.f_to_kind(kind(DType(args.int(0)? as u32))?),
        _ => {
            let (dim, start, end) = (args.dim(0, a.dim())?, args.int(1)?, args.int(2)?);
            let size = a.size()[dim as usize];
            if start < 0 || end < start || end > size {
                return Err(Error::argument("slice", format!("{start}..{end} of dimension {dim} with size {size}")));
            }
            a.f_slice(dim, start, end, 1)
        }
    };
    result.map_err(|error| args.failed(&error))
}
