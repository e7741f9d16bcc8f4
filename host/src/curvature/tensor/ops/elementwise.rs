//! Elementwise arithmetic, comparison and selection.

use super::Args;
use gauntlet_plugin_abi::{ErrorCode, TensorOp};
use gauntlet_plugin_api::{Error, Result};
use tch::{Kind, Tensor};

/// The result, or `None` where the operation is of another family.
pub(super) fn run(args: &Args<'_>) -> Option<Result<Vec<Tensor>>> {
    let one = |result: Result<Tensor>| Some(result.map(|tensor| vec![tensor]));
    match args.op {
        op if (TensorOp::ADD..=TensorOp::MINIMUM).contains(&op) => one(binary(args)),
        op if (TensorOp::EQ..=TensorOp::GE).contains(&op) => one(compare(args)),
        op if (TensorOp::COPY..=TensorOp::SQUARE).contains(&op) => one(unary(args)),
        TensorOp::WHERE => one(select(args)),
        TensorOp::CLAMP | TensorOp::LERP | TensorOp::ADDCMUL | TensorOp::ADDCDIV | TensorOp::AXPY => {
            one(with_scalar(args))
        }
        TensorOp::IS_FINITE => one(args.input(0).map(|a| a.isfinite().to_kind(a.kind()))),
        _ => None,
    }
}

/// The second operand: a tensor, or the number as one.
fn second(args: &Args<'_>) -> Result<Tensor> {
    let a = args.input(0)?;
    match args.inputs.get(1) {
        None => Ok(Tensor::full([0_i64; 0], args.scalar(0)?, (a.kind(), a.device()))),
        Some(b) if b.kind() == a.kind() => Ok(b.shallow_clone()),
        Some(b) => {
            let message = format!("element types {:?} and {:?} differ", a.kind(), b.kind());
            Err(Error::new(ErrorCode::DTYPE, args.op.name(), message))
        }
    }
}

fn binary(args: &Args<'_>) -> Result<Tensor> {
    let (a, b) = (args.input(0)?, second(args)?);
    let result = match args.op {
        TensorOp::ADD => a.f_add(&b),
        TensorOp::SUB => a.f_sub(&b),
        TensorOp::MUL => a.f_mul(&b),
        TensorOp::DIV => a.f_div(&b),
        TensorOp::POW => a.f_pow(&b),
        TensorOp::MAXIMUM => a.f_maximum(&b),
        _ => a.f_minimum(&b),
    };
    result.map_err(|error| args.failed(&error))
}

fn compare(args: &Args<'_>) -> Result<Tensor> {
    let (a, b) = (args.input(0)?, second(args)?);
    let result = match args.op {
        TensorOp::EQ => a.f_eq_tensor(&b),
        TensorOp::NE => a.f_ne_tensor(&b),
        TensorOp::LT => a.f_lt_tensor(&b),
        TensorOp::LE => a.f_le_tensor(&b),
        TensorOp::GT => a.f_gt_tensor(&b),
        _ => a.f_ge_tensor(&b),
    };
    result.map(|mask| mask.to_kind(a.kind())).map_err(|error| args.failed(&error))
}

fn select(args: &Args<'_>) -> Result<Tensor> {
    let (condition, a, b) = (args.input(0)?, args.input(1)?, args.input(2)?);
    let mask = condition.f_ne(0.0).map_err(|error| args.failed(&error))?;
    a.f_where_self(&mask, b).map_err(|error| args.failed(&error))
}

fn unary(args: &Args<'_>) -> Result<Tensor> {
    let a = args.input(0)?;
    let result = match args.op {
        TensorOp::COPY => Ok(a.copy()),
        TensorOp::NEG => a.f_neg(),
        TensorOp::ABS => a.f_abs(),
        TensorOp::SQRT => a.f_sqrt(),
        TensorOp::RSQRT => a.f_rsqrt(),
        TensorOp::EXP => a.f_exp(),
        TensorOp::LOG => a.f_log(),
        TensorOp::SIGN => a.f_sign(),
        TensorOp::RECIPROCAL => a.f_reciprocal(),
        _ => a.f_square(),
    };
    result.map_err(|error| args.failed(&error))
}

fn with_scalar(args: &Args<'_>) -> Result<Tensor> {
    let a = args.input(0)?;
    let scale = |tensor: Tensor| tensor.f_mul_scalar(args.scalar(0)?).map_err(|error| args.failed(&error));
    let failed = |error| args.failed(&error);
    match args.op {
        TensorOp::CLAMP => a.f_clamp(args.scalar(0)?, args.scalar(1)?).map_err(failed),
        TensorOp::LERP => a.f_lerp(args.input(1)?, args.scalar(0)?).map_err(failed),
        TensorOp::ADDCMUL => {
            let product = args.input(1)?.f_mul(args.input(2)?).map_err(failed)?;
            a.f_add(&scale(product)?).map_err(failed)
        }
        TensorOp::ADDCDIV => {
            let quotient = args.input(1)?.f_div(args.input(2)?).map_err(failed)?;
            a.f_add(&scale(quotient)?).map_err(failed)
        }
        _ => {
            let x = args.input(1)?;
            let wide = if x.kind() == Kind::Int64 { x.to_kind(a.kind()) } else { x.shallow_clone() };
            a.f_add(&scale(wide)?).map_err(failed)
        }
    }
}
