//! Fused elementwise programs, one element at a time.

use super::super::array::{Array, rounding};
use super::elementwise::{flag, maximum, minimum, sign};
use crate::backend::{FusedList, Operand, Program, Statement};
use crate::error::{Error, Result};
use gauntlet_plugin_abi::{DType, ErrorCode, FusedOp};

/// Runs a program over lists of equal length, shapes and element types.
pub(in super::super) fn run(program: &Program, lists: &mut [FusedList<'_, Array>]) -> Result<()> {
    if let Some(statement) = program.statements.iter().find(|statement| function(statement.op).is_none()) {
        return Err(Error::unsupported(format!("fused operation {}", statement.op.name())));
    }
    let length = lists.first().map_or(0, |list| entries(list).len());
    for position in 0..length {
        run_at(program, lists, position)?;
    }
    Ok(())
}

fn run_at(program: &Program, lists: &mut [FusedList<'_, Array>], position: usize) -> Result<()> {
    let arrays: Vec<&Array> = lists.iter().map(|list| entries(list)[position]).collect();
    let Some(first) = arrays.first() else { return Ok(()) };
    if first.dtype() == DType::I64 {
        return Err(Error::new(ErrorCode::DTYPE, "fused", "found i64, expected f32 or f64"));
    }
    let round = rounding(first.dtype());
    let columns: Vec<Vec<f64>> = arrays.iter().map(|array| array.to_vec()).collect();
    let mut written: Vec<Vec<f64>> = program.stores.iter().map(|_| Vec::with_capacity(columns[0].len())).collect();
    let mut registers = vec![0.0; program.registers];
    for element in 0..columns[0].len() {
        for statement in &program.statements {
            let value = evaluate(statement, &columns, &registers, element, round);
            registers[statement.register] = round(value);
        }
        for ((_, operand), out) in program.stores.iter().zip(&mut written) {
            out.push(read(operand, &columns, &registers, element, round));
        }
    }
    for ((list, _), values) in program.stores.iter().zip(written) {
        if let Some(FusedList::Write(tensors)) = lists.get_mut(*list) {
            tensors[position].set(values);
        }
    }
    Ok(())
}

fn entries<'a>(list: &'a FusedList<'_, Array>) -> Vec<&'a Array> {
    match list {
        FusedList::Write(arrays) => arrays.iter().collect(),
        FusedList::Read(arrays) => arrays.clone(),
    }
}

fn read(operand: &Operand, columns: &[Vec<f64>], registers: &[f64], element: usize, round: fn(f64) -> f64) -> f64 {
    match operand {
        Operand::List(list) => columns[*list][element],
        Operand::Const(number) => round(*number),
        Operand::Register(register) => registers[*register],
    }
}

fn evaluate(
    statement: &Statement,
    columns: &[Vec<f64>],
    registers: &[f64],
    element: usize,
    round: fn(f64) -> f64,
) -> f64 {
    let mut operands = [0.0; 3];
    for (value, operand) in operands.iter_mut().zip(&statement.operands) {
        *value = read(operand, columns, registers, element, round);
    }
    function(statement.op).map_or(f64::NAN, |f| f(operands))
}

/// An operation as a function of up to three operands.
fn function(op: FusedOp) -> Option<fn([f64; 3]) -> f64> {
    Some(match op {
        FusedOp::ADD => |[a, b, _]| a + b,
        FusedOp::SUB => |[a, b, _]| a - b,
        FusedOp::MUL => |[a, b, _]| a * b,
        FusedOp::DIV => |[a, b, _]| a / b,
        FusedOp::MAX => |[a, b, _]| maximum(a, b),
        FusedOp::MIN => |[a, b, _]| minimum(a, b),
        FusedOp::POW => |[a, b, _]| a.powf(b),
        FusedOp::LT => |[a, b, _]| flag(a < b),
        FusedOp::LE => |[a, b, _]| flag(a <= b),
        FusedOp::EQ => |[a, b, _]| flag(a == b),
        FusedOp::SELECT => |[a, b, c]| if a != 0.0 { b } else { c },
        FusedOp::NEG => |[a, ..]| -a,
        FusedOp::ABS => |[a, ..]| a.abs(),
        FusedOp::SQRT => |[a, ..]| a.sqrt(),
        FusedOp::SIGN => |[a, ..]| sign(a),
        FusedOp::EXP => |[a, ..]| a.exp(),
        FusedOp::LOG => |[a, ..]| a.ln(),
        FusedOp::RECIPROCAL => |[a, ..]| 1.0 / a,
        _ => return None,
    })
}
