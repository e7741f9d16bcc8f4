//! Fused programs in one pass over memory: chunks that fit the first-level cache, on all cores.

use super::memory::{Element, Shared};
use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{FusedList, Operand, Program, Statement};
use gauntlet_plugin_api::{Error, Result};
use rayon::prelude::*;
use tch::Tensor;

/// Elements that every statement handles before the next one runs.
const CHUNK: usize = 512;
/// Elements of a tensor that a thread takes at once.
const SPAN: usize = 64 * CHUNK;

/// Numbers that programs compute with.
pub(super) trait Real: Element {
    /// Rounded from f64, as libtorch rounds a scalar operand.
    fn from_f64(number: f64) -> Self;
    /// The function of an operation with one operand.
    fn unary(op: FusedOp) -> Option<fn(Self) -> Self>;
}

macro_rules! real {
    ($($T:ident)*) => {
        $(
            impl Real for $T {
                fn from_f64(number: f64) -> Self {
                    number as $T
                }

                fn unary(op: FusedOp) -> Option<fn(Self) -> Self> {
                    Some(match op {
                        FusedOp::NEG => |a| -a,
                        FusedOp::ABS => $T::abs,
                        FusedOp::SIGN => |a| if a > 0.0 { 1.0 } else if a < 0.0 { -1.0 } else { a * 0.0 },
                        FusedOp::EXP => $T::exp,
                        FusedOp::LOG => $T::ln,
                        _ => return None,
                    })
                }
            }

            impl Run<$T> for Statement {
                fn run(&self, out: &mut [$T], a: &[$T], b: &[$T], c: &[$T]) -> Result<()> {
                    let number = |holds: bool| if holds { 1.0 } else { 0.0 };
                    match self.op {
                        FusedOp::ADD => two(out, a, b, |a, b| a + b),
                        FusedOp::SUB => two(out, a, b, |a, b| a - b),
                        FusedOp::MUL => two(out, a, b, |a, b| a * b),
                        FusedOp::DIV => two(out, a, b, |a, b| a / b),
                        FusedOp::MAX => two(out, a, b, |a, b| if a > b || a.is_nan() { a } else { b }),
                        FusedOp::MIN => two(out, a, b, |a, b| if a < b || a.is_nan() { a } else { b }),
                        FusedOp::POW => two(out, a, b, $T::powf),
                        FusedOp::LT => two(out, a, b, |a, b| number(a < b)),
                        FusedOp::LE => two(out, a, b, |a, b| number(a <= b)),
                        FusedOp::EQ => two(out, a, b, |a, b| number(a == b)),
                        FusedOp::SQRT => one(out, a, $T::sqrt),
                        FusedOp::RECIPROCAL => one(out, a, |a| 1.0 / a),
                        FusedOp::SELECT => {
                            for (out, ((a, b), c)) in out.iter_mut().zip(a.iter().zip(b).zip(c)) {
                                *out = if *a != 0.0 { *b } else { *c };
                            }
                        }
                        op => match <$T as Real>::unary(op) {
                            Some(function) => one(out, a, function),
                            None => return Err(Error::unsupported(format!("fused operation {}", op.name()))),
                        },
                    }
                    Ok(())
                }
            }
        )*
    };
}

real! { f32 f64 }

/// Runs one statement over a chunk.
pub(super) trait Run<T> {
    fn run(&self, out: &mut [T], a: &[T], b: &[T], c: &[T]) -> Result<()>;
}

fn one<T: Copy>(out: &mut [T], a: &[T], function: impl Fn(T) -> T) {
    out.iter_mut().zip(a).for_each(|(out, a)| *out = function(*a));
}

fn two<T: Copy>(out: &mut [T], a: &[T], b: &[T], function: impl Fn(T, T) -> T) {
    out.iter_mut().zip(a.iter().zip(b)).for_each(|(out, (a, b))| *out = function(*a, *b));
}

/// Runs a program where all tensors are dense, on the CPU and of type `T`; says whether they are.
///
/// # Errors
///
/// An operation that is unknown, by name.
pub(super) fn in_place<T: Real>(program: &Program, lists: &[FusedList<'_, Tensor>]) -> Result<bool>
where
    Statement: Run<T>,
{
    let shared = |list| super::elsewhere::each(list).into_iter().map(Shared::<T>::new).collect::<Option<Vec<_>>>();
    let Some(lists) = lists.iter().map(shared).collect::<Option<Vec<_>>>() else { return Ok(false) };
    let length = lists.first().map_or(0, Vec::len);
    let spans = |position: usize| {
        let len = lists[0][position].len();
        (0..len).step_by(SPAN).map(move |first| (position, first, SPAN.min(len - first)))
    };
    let spans: Vec<_> = (0..length).flat_map(spans).collect();
    let run = |(position, first, len): (usize, usize, usize)| {
        let tensors: Vec<Shared<'_, T>> = lists.iter().map(|list| list[position]).collect();
        let mut buffers = Buffers::new(program, &tensors);
        (first..first + len)
            .step_by(CHUNK)
            .try_for_each(|at| buffers.chunk(program, &tensors, at, CHUNK.min(first + len - at)))
    };
    match spans.len() {
        0 | 1 => spans.into_iter().try_for_each(run)?,
        _ => spans.into_par_iter().try_for_each(run)?,
    }
    Ok(true)
}

/// A chunk of every list, register and number of a program.
struct Buffers<T> {
    lists: Vec<Vec<T>>,
    /// Whether the program reads the list.
    is_read: Vec<bool>,
    registers: Vec<Vec<T>>,
    /// One a constant operand, in the order of the statements and stores.
    constants: Vec<(f64, Vec<T>)>,
}

impl<T: Real> Buffers<T>
where
    Statement: Run<T>,
{
    fn new(program: &Program, lists: &[Shared<'_, T>]) -> Self {
        let chunk = |number: f64| vec![T::from_f64(number); CHUNK];
        let operands = program.statements.iter().flat_map(|statement| &statement.operands);
        let operands: Vec<Operand> =
            operands.copied().chain(program.stores.iter().map(|(_, operand)| *operand)).collect();
        let mut constants: Vec<(f64, Vec<T>)> = vec![];
        for operand in &operands {
            if let Operand::Const(number) = operand
                && !constants.iter().any(|(known, _)| known.to_bits() == number.to_bits())
            {
                constants.push((*number, chunk(*number)));
            }
        }
        Self {
            lists: lists.iter().map(|_| chunk(0.0)).collect(),
            is_read: (0..lists.len()).map(|list| operands.contains(&Operand::List(list))).collect(),
            registers: (0..program.registers).map(|_| chunk(0.0)).collect(),
            constants,
        }
    }

    /// Reads, computes and writes elements `at .. at + len`. All is read before any is written.
    fn chunk(&mut self, program: &Program, lists: &[Shared<'_, T>], at: usize, len: usize) -> Result<()> {
        for ((list, buffer), _) in lists.iter().zip(&mut self.lists).zip(&self.is_read).filter(|(_, read)| **read) {
            list.read(at, &mut buffer[..len]);
        }
        for statement in &program.statements {
            // Taken out, so that the operands can be borrowed; a result never shares a register with an operand.
            let mut out = std::mem::take(&mut self.registers[statement.register]);
            let operand =
                |index: usize| statement.operands.get(index).map_or(&[][..], |operand| self.value(operand, len));
            let outcome = statement.run(&mut out[..len], operand(0), operand(1), operand(2));
            self.registers[statement.register] = out;
            outcome?;
        }
        program.stores.iter().for_each(|(list, operand)| lists[*list].write(at, self.value(operand, len)));
        Ok(())
    }

    fn value(&self, operand: &Operand, len: usize) -> &[T] {
        match operand {
            Operand::List(list) => &self.lists[*list][..len],
            Operand::Register(register) => &self.registers[*register][..len],
            Operand::Const(number) => {
                let known = self.constants.iter().find(|(known, _)| known.to_bits() == number.to_bits());
                known.map_or(&[], |(_, chunk)| &chunk[..len])
            }
        }
    }
}
