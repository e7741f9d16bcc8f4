//! Fused programs in one pass over memory: chunks that fit the first-level cache, on all cores.
//!
//! The pass is bound by memory, so the work on a chunk overlaps the reading of the next one.

use super::memory::{Element, elements, elements_mut};
use super::plan::{First, Place, Plan, Second, Work};
use super::vector::{Vectorized, Width, line, prefetch};
use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{FusedList, Operand, Program};
use gauntlet_plugin_api::{Error, Result};
use gauntlet_torch_ext::parallel_map;
use std::ops::{Add, Div, Mul, Range, Sub};
use tch::Tensor;

/// Elements that every step handles before the next one runs: of AdamW's lists, the chunk, the next one and the registers
/// are 18 KB in f32.
const CHUNK: usize = 384;
/// Elements of a tensor that a thread takes at once.
const SPAN: usize = 64 * CHUNK;

/// Runs a program where all tensors are dense, on the CPU and of type `T`; says whether they are.
///
/// # Errors
///
/// An operation that is unknown, by name.
pub(super) fn in_place<T: Real>(width: Width, program: &Program, lists: &mut [FusedList<'_, Tensor>]) -> Result<bool> {
    let Some(lists) = lists.iter_mut().map(spans_of_list::<T>).collect::<Option<Vec<_>>>() else { return Ok(false) };
    let plan = Plan::new(program);
    let outcomes = parallel_map(transposed(lists), |lists| width.run(Pass { plan: &plan, lists }));
    outcomes.into_iter().collect::<Result<()>>().map(|()| true)
}

/// Elements of one list that a thread takes at once.
enum Span<'a, T> {
    Read(&'a [T]),
    Write(&'a mut [T]),
}

impl<T> Span<'_, T> {
    #[inline(always)]
    fn elements(&self) -> &[T] {
        match self {
            Self::Read(elements) => elements,
            Self::Write(elements) => elements,
        }
    }
}

/// The spans of a list, one tensor after another; `None` where one is not dense and of type `T`.
fn spans_of_list<'a, T: Element>(list: &'a mut FusedList<'_, Tensor>) -> Option<Vec<Span<'a, T>>> {
    let mut spans = vec![];
    match list {
        FusedList::Read(tensors) => {
            for tensor in tensors {
                spans.extend(elements(tensor)?.chunks(SPAN).map(Span::Read));
            }
        }
        FusedList::Write(tensors) => {
            for tensor in tensors {
                spans.extend(elements_mut(tensor)?.chunks_mut(SPAN).map(Span::Write));
            }
        }
    }
    Some(spans)
}

/// The first of every list, the second of every list, ...
fn transposed<T>(lists: Vec<Vec<T>>) -> Vec<Vec<T>> {
    let count = lists.iter().map(Vec::len).min().unwrap_or(0);
    let mut lists: Vec<_> = lists.into_iter().map(Vec::into_iter).collect();
    (0..count).map(|_| lists.iter_mut().filter_map(Iterator::next).collect()).collect()
}

/// A program over one span of every list.
struct Pass<'a, T> {
    plan: &'a Plan,
    lists: Vec<Span<'a, T>>,
}

impl<T: Real> Vectorized for Pass<'_, T> {
    type Output = Result<()>;

    #[inline(always)]
    fn run(mut self) -> Result<()> {
        let len = self.lists.first().map_or(0, |list| list.elements().len());
        let mut registers = vec![Register([T::default(); CHUNK]); self.plan.registers];
        for first in (0..len).step_by(CHUNK) {
            let chunk = first..len.min(first + CHUNK);
            self.compute(&chunk, &mut registers)?;
            self.store(&chunk, &registers);
        }
        Ok(())
    }
}

impl<T: Real> Pass<'_, T> {
    /// Runs the steps on a chunk, while the next one comes into the cache.
    #[inline(always)]
    fn compute(&self, chunk: &Range<usize>, registers: &mut [Register<T>]) -> Result<()> {
        let share = CHUNK.div_ceil(self.plan.steps.len().max(1)).next_multiple_of(line::<T>());
        for (index, step) in self.plan.steps.iter().enumerate() {
            let next = chunk.end + share * index;
            self.lists.iter().for_each(|list| prefetch(within(list.elements(), next..next + share)));
            // A result never shares a register with an operand.
            let (before, rest) = registers.split_at_mut(step.register);
            let Some((out, after)) = rest.split_first_mut() else { continue };
            let others = Others { before, after };
            let at = |place: Place| self.elements(place, chunk, others);
            let out = &mut out.0[..chunk.len()];
            match &step.work {
                Work::Two(first, second) => two(out, first, second, at),
                Work::One(op, operands) => {
                    let operand = |index: usize| match operands.get(index) {
                        Some(Operand::List(list)) => Value::Elements(at(Place::List(*list))),
                        Some(Operand::Register(register)) => Value::Elements(at(Place::Register(*register))),
                        Some(Operand::Const(number)) => Value::Number(T::from_f64(*number)),
                        None => Value::Number(T::default()),
                    };
                    T::one(*op, out, [operand(0), operand(1), operand(2)])?;
                }
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn elements<'v>(&'v self, place: Place, chunk: &Range<usize>, others: Others<'v, T>) -> &'v [T] {
        match place {
            Place::List(list) => &self.lists[list].elements()[chunk.clone()],
            Place::Register(register) => &others.at(register).0[..chunk.len()],
        }
    }

    /// Writes the results of a chunk. All is read before any is written, so lists that are copied wait in a buffer.
    #[inline(always)]
    fn store(&mut self, chunk: &Range<usize>, registers: &[Register<T>]) {
        let copied: Vec<(usize, Vec<T>)> = (self.plan.stores.iter())
            .filter_map(|(to, operand)| match operand {
                Operand::List(from) => Some((*to, self.lists[*from].elements()[chunk.clone()].to_vec())),
                _ => None,
            })
            .collect();
        for (to, operand) in &self.plan.stores {
            let Span::Write(elements) = &mut self.lists[*to] else { continue };
            match operand {
                Operand::Register(register) => {
                    elements[chunk.clone()].copy_from_slice(&registers[*register].0[..chunk.len()])
                }
                Operand::Const(number) => elements[chunk.clone()].fill(T::from_f64(*number)),
                Operand::List(_) => {}
            }
        }
        for (to, values) in copied {
            if let Span::Write(elements) = &mut self.lists[to] {
                elements[chunk.clone()].copy_from_slice(&values);
            }
        }
    }
}

/// The result of a step over a chunk, aligned to the widest vector.
#[derive(Clone)]
#[repr(align(64))]
struct Register<T>([T; CHUNK]);

/// All registers but the one that is written.
#[derive(Clone, Copy)]
struct Others<'a, T> {
    before: &'a [Register<T>],
    after: &'a [Register<T>],
}

impl<'a, T> Others<'a, T> {
    #[inline(always)]
    fn at(self, register: usize) -> &'a Register<T> {
        self.before.get(register).unwrap_or_else(|| &self.after[register - self.before.len() - 1])
    }
}

/// The part of a range that exists.
#[inline(always)]
fn within<T>(elements: &[T], range: Range<usize>) -> &[T] {
    let end = range.end.min(elements.len());
    &elements[range.start.min(end)..end]
}

/// An operand over a chunk.
#[derive(Clone, Copy)]
pub(super) enum Value<'a, T> {
    Elements(&'a [T]),
    Number(T),
}

impl<T: Copy> Value<'_, T> {
    #[inline(always)]
    fn at(&self, index: usize) -> T {
        match self {
            Self::Elements(elements) => elements[index],
            Self::Number(number) => *number,
        }
    }
}

/// Numbers that programs compute with.
pub(super) trait Real:
    Element + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// Rounded from f64, as libtorch rounds a scalar operand.
    fn from_f64(number: f64) -> Self;

    /// Square root.
    fn root(self) -> Self;

    /// Runs one operation over a chunk.
    fn one(op: FusedOp, out: &mut [Self], operands: [Value<'_, Self>; 3]) -> Result<()>;
}

macro_rules! real {
    ($($T:ident)*) => {
        $(
            impl Real for $T {
                fn from_f64(number: f64) -> Self {
                    number as $T
                }

                #[inline(always)]
                fn root(self) -> Self {
                    self.sqrt()
                }

                #[inline(always)]
                fn one(op: FusedOp, out: &mut [$T], [a, b, c]: [Value<'_, $T>; 3]) -> Result<()> {
                    let number = |holds: bool| if holds { 1.0 } else { 0.0 };
                    match op {
                        FusedOp::ADD => binary(out, a, b, |a, b| a + b),
                        FusedOp::SUB => binary(out, a, b, |a, b| a - b),
                        FusedOp::MUL => binary(out, a, b, |a, b| a * b),
                        FusedOp::DIV => binary(out, a, b, |a, b| a / b),
                        FusedOp::MAX => binary(out, a, b, |a, b| if a > b || a.is_nan() { a } else { b }),
                        FusedOp::MIN => binary(out, a, b, |a, b| if a < b || a.is_nan() { a } else { b }),
                        FusedOp::POW => binary(out, a, b, $T::powf),
                        FusedOp::LT => binary(out, a, b, |a, b| number(a < b)),
                        FusedOp::LE => binary(out, a, b, |a, b| number(a <= b)),
                        FusedOp::EQ => binary(out, a, b, |a, b| number(a == b)),
                        FusedOp::NEG => unary(out, a, |a| -a),
                        FusedOp::ABS => unary(out, a, $T::abs),
                        FusedOp::SQRT => unary(out, a, $T::sqrt),
                        FusedOp::SIGN => unary(out, a, |a| if a > 0.0 { 1.0 } else if a < 0.0 { -1.0 } else { a * 0.0 }),
                        FusedOp::EXP => unary(out, a, $T::exp),
                        FusedOp::LOG => unary(out, a, $T::ln),
                        FusedOp::RECIPROCAL => unary(out, a, |a| 1.0 / a),
                        FusedOp::SELECT => {
                            for (index, out) in out.iter_mut().enumerate() {
                                *out = if a.at(index) != 0.0 { b.at(index) } else { c.at(index) };
                            }
                        }
                        op => return Err(Error::unsupported(format!("fused operation {}", op.name()))),
                    }
                    Ok(())
                }
            }
        )*
    };
}

real! { f32 f64 }

#[inline(always)]
fn unary<T: Copy>(out: &mut [T], a: Value<'_, T>, function: impl Fn(T) -> T) {
    match a {
        Value::Elements(a) => write(out, a.iter().map(|a| function(*a))),
        Value::Number(a) => out.fill(function(a)),
    }
}

#[inline(always)]
fn binary<T: Copy>(out: &mut [T], a: Value<'_, T>, b: Value<'_, T>, function: impl Fn(T, T) -> T) {
    match (a, b) {
        (Value::Elements(a), Value::Elements(b)) => write(out, a.iter().zip(b).map(|(a, b)| function(*a, *b))),
        (Value::Elements(a), Value::Number(b)) => write(out, a.iter().map(|a| function(*a, b))),
        (Value::Number(a), Value::Elements(b)) => write(out, b.iter().map(|b| function(a, *b))),
        (Value::Number(a), Value::Number(b)) => out.fill(function(a, b)),
    }
}

/// Runs two operations over a chunk, with the first one's result in the CPU's registers.
#[inline(always)]
fn two<'v, T: Real>(out: &mut [T], first: &First, second: &Second, at: impl Fn(Place) -> &'v [T]) {
    match first {
        First::Product(a, b) => then(out, at(*a).iter().zip(at(*b)).map(|(a, b)| *a * *b), second, at),
        First::Difference(a, b) => then(out, at(*a).iter().zip(at(*b)).map(|(a, b)| *a - *b), second, at),
        First::Multiple(number, a) => {
            let number = T::from_f64(*number);
            then(out, at(*a).iter().map(|a| number * *a), second, at);
        }
        First::Root(a) => then(out, at(*a).iter().map(|a| a.root()), second, at),
    }
}

#[inline(always)]
fn then<'v, T: Real>(out: &mut [T], x: impl Iterator<Item = T>, second: &Second, at: impl Fn(Place) -> &'v [T]) {
    match second {
        Second::PlusNumber(number) => {
            let number = T::from_f64(*number);
            write(out, x.map(|x| x + number));
        }
        Second::TimesNumber(number) => {
            let number = T::from_f64(*number);
            write(out, x.map(|x| x * number));
        }
        Second::Plus(a) => write(out, x.zip(at(*a)).map(|(x, a)| x + *a)),
        Second::Minus(a) => write(out, x.zip(at(*a)).map(|(x, a)| x - *a)),
        Second::From(a) => write(out, x.zip(at(*a)).map(|(x, a)| *a - x)),
        Second::Times(a) => write(out, x.zip(at(*a)).map(|(x, a)| x * *a)),
        Second::Over(a) => write(out, x.zip(at(*a)).map(|(x, a)| x / *a)),
    }
}

#[inline(always)]
fn write<T>(out: &mut [T], values: impl Iterator<Item = T>) {
    out.iter_mut().zip(values).for_each(|(out, value)| *out = value);
}
