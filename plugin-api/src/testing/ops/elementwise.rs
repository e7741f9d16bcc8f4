//! Elementwise arithmetic, comparison and selection.

use super::super::array::{Array, rounding};
use super::{Call, broadcast_shape};
use crate::error::{Error, Result};
use gauntlet_plugin_abi::TensorOp;
use ndarray::{ArrayViewD, IxDyn, Zip};

pub(super) fn apply(call: &Call) -> Option<Result<Vec<Array>>> {
    let result = match call.op {
        op if binary(op).is_some() => binary(op).map(|f| apply_binary(call, f)),
        op if unary(op).is_some() => unary(op).map(|f| apply_unary(call, f)),
        TensorOp::CLAMP => Some(clamp(call)),
        TensorOp::WHERE => Some(select(call)),
        TensorOp::LERP => Some(scaled(call, |a, b, w| a + w * (b - a))),
        TensorOp::AXPY => Some(scaled(call, |a, b, alpha| a + alpha * b)),
        TensorOp::ADDCMUL => Some(scaled_pair(call, |a, b, c, alpha| a + alpha * b * c)),
        TensorOp::ADDCDIV => Some(scaled_pair(call, |a, b, c, alpha| a + alpha * b / c)),
        _ => None,
    };
    result.map(|result| result.map(|array| vec![array]))
}

/// Whether an operation can have a target.
pub(super) fn in_place(op: TensorOp) -> bool {
    let comparison =
        matches!(op, TensorOp::EQ | TensorOp::NE | TensorOp::LT | TensorOp::LE | TensorOp::GT | TensorOp::GE);
    let with_numbers =
        matches!(op, TensorOp::CLAMP | TensorOp::LERP | TensorOp::AXPY | TensorOp::ADDCMUL | TensorOp::ADDCDIV);
    with_numbers || (binary(op).is_some() && !comparison) || (unary(op).is_some() && op != TensorOp::IS_FINITE)
}

fn unary(op: TensorOp) -> Option<fn(f64) -> f64> {
    Some(match op {
        TensorOp::COPY => |x| x,
        TensorOp::NEG => |x| -x,
        TensorOp::ABS => f64::abs,
        TensorOp::SQRT => f64::sqrt,
        TensorOp::RSQRT => |x| 1.0 / x.sqrt(),
        TensorOp::EXP => f64::exp,
        TensorOp::LOG => f64::ln,
        TensorOp::SIGN => sign,
        TensorOp::RECIPROCAL => |x| 1.0 / x,
        TensorOp::SQUARE => |x| x * x,
        TensorOp::IS_FINITE => |x| flag(x.is_finite()),
        _ => return None,
    })
}

fn binary(op: TensorOp) -> Option<fn(f64, f64) -> f64> {
    Some(match op {
        TensorOp::ADD => |a, b| a + b,
        TensorOp::SUB => |a, b| a - b,
        TensorOp::MUL => |a, b| a * b,
        TensorOp::DIV => |a, b| a / b,
        TensorOp::POW => f64::powf,
        TensorOp::MAXIMUM => maximum,
        TensorOp::MINIMUM => minimum,
        TensorOp::EQ => |a, b| flag(a == b),
        TensorOp::NE => |a, b| flag(a != b),
        TensorOp::LT => |a, b| flag(a < b),
        TensorOp::LE => |a, b| flag(a <= b),
        TensorOp::GT => |a, b| flag(a > b),
        TensorOp::GE => |a, b| flag(a >= b),
        _ => return None,
    })
}

/// -1, 0 or 1; NaN stays.
pub(super) fn sign(x: f64) -> f64 {
    match x {
        x if x > 0.0 => 1.0,
        x if x < 0.0 => -1.0,
        x => x,
    }
}

/// The larger; NaN if either is NaN.
pub(super) fn maximum(a: f64, b: f64) -> f64 {
    if a.is_nan() || a > b { a } else { b }
}

/// The smaller; NaN if either is NaN.
pub(super) fn minimum(a: f64, b: f64) -> f64 {
    if a.is_nan() || a < b { a } else { b }
}

/// 1 or 0.
pub(super) fn flag(condition: bool) -> f64 {
    f64::from(u8::from(condition))
}

fn apply_unary(call: &Call, f: fn(f64) -> f64) -> Result<Array> {
    let a = call.one()?;
    Array::new(&call.name, a.values().mapv(f), a.dtype())
}

fn apply_binary(call: &Call, f: fn(f64, f64) -> f64) -> Result<Array> {
    match (call.inputs, call.scalars) {
        ([a, b], []) => {
            call.same_dtype(call.inputs)?;
            let [x, y] = broadcast(call, [a, b])?;
            Array::new(&call.name, Zip::from(x).and(y).map_collect(|x, y| f(*x, *y)), a.dtype())
        }
        ([a], [number]) => {
            let number = rounding(a.dtype())(*number);
            Array::new(&call.name, a.values().mapv(|x| f(x, number)), a.dtype())
        }
        (inputs, numbers) => {
            let found = format!("found {} inputs and {} numbers", inputs.len(), numbers.len());
            Err(call.argument(format!("{found}, expected two inputs, or one and a number")))
        }
    }
}

fn clamp(call: &Call) -> Result<Array> {
    let (a, low, high) = (call.one()?, call.scalar(0)?, call.scalar(1)?);
    let (low, high) = (rounding(a.dtype())(low), rounding(a.dtype())(high));
    Array::new(&call.name, a.values().mapv(|x| minimum(maximum(x, low), high)), a.dtype())
}

fn select(call: &Call) -> Result<Array> {
    let [condition, a, b] = call.exactly()?;
    call.same_dtype(&[a, b])?;
    let [c, x, y] = broadcast(call, [condition, a, b])?;
    let chosen = Zip::from(c).and(x).and(y).map_collect(|c, x, y| if *c != 0.0 { *x } else { *y });
    Array::new(&call.name, chosen, a.dtype())
}

fn scaled(call: &Call, f: fn(f64, f64, f64) -> f64) -> Result<Array> {
    let [a, b] = call.exactly()?;
    call.same_dtype(&[a, b])?;
    let number = rounding(a.dtype())(call.scalar(0)?);
    let [x, y] = broadcast(call, [a, b])?;
    Array::new(&call.name, Zip::from(x).and(y).map_collect(|x, y| f(*x, *y, number)), a.dtype())
}

fn scaled_pair(call: &Call, f: fn(f64, f64, f64, f64) -> f64) -> Result<Array> {
    let [a, b, c] = call.exactly()?;
    call.same_dtype(&[a, b, c])?;
    let number = rounding(a.dtype())(call.scalar(0)?);
    let [x, y, z] = broadcast(call, [a, b, c])?;
    let result = Zip::from(x).and(y).and(z).map_collect(|x, y, z| f(*x, *y, *z, number));
    Array::new(&call.name, result, a.dtype())
}

/// All inputs in the shape to which they broadcast.
fn broadcast<'a, const N: usize>(call: &Call, inputs: [&'a Array; N]) -> Result<[ArrayViewD<'a, f64>; N]> {
    let mut shape = vec![];
    for input in inputs {
        shape = broadcast_shape(&call.name, &shape, input.shape())?;
    }
    let views = inputs.iter().map(|input| input.values().broadcast(IxDyn(&shape))).collect::<Option<Vec<_>>>();
    let views = views.and_then(|views| <[_; N]>::try_from(views).ok());
    views.ok_or_else(|| Error::shape(&call.name, format!("an input does not broadcast to {shape:?}")))
}
