//! Fused programs in one pass over memory: chunks that fit the first-level cache, on all cores.
//!
//! The pass is bound by memory, so the work on a chunk overlaps the reading of the next one.

use super::memory::{BLOCK, Block, Element, Span, load, put, spans};
use super::plan::{First, Place, Plan, Second, Work};
use super::vector::{Vectorized, Width, prefetch};
use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{FusedList, Operand, Program};
use gauntlet_plugin_api::{Error, Result};
use gauntlet_torch_ext::parallel_map;
use std::array::from_fn;
use std::cell::Cell;
use std::ops::{Add, Div, Mul, Range, Sub};
use tch::Tensor;

/// Blocks that every step handles before the next one runs: of AdamW's lists, the chunk, the next one and the registers
/// fit the first-level cache.
const CHUNK: usize = 24;
/// Elements of a tensor that a thread takes at once.
const SPAN: usize = 64 * CHUNK * BLOCK;

/// Runs a program where all tensors are dense, on the CPU and of type `T`; says whether they are.
///
/// # Errors
///
/// An operation that is unknown, by name; a list to be written that is only borrowed to be read.
pub(super) fn in_place<T: Real>(width: Width, program: &Program, lists: &mut [FusedList<'_, Tensor>]) -> Result<bool> {
    if program.stores.iter().any(|(to, _)| !matches!(lists.get(*to), Some(FusedList::Write(_)))) {
        return Err(Error::argument("fused", "a list that is only read is written"));
    }
    let spans = lists.iter_mut().map(spans_of_list::<T>).collect::<Option<Vec<_>>>();
    let Some(spans) = spans else { return Ok(false) };
    let plan = Plan::new(program);
    let outcomes = parallel_map(transposed(spans), |lists| width.run(Pass { plan: &plan, lists }));
    outcomes.into_iter().collect::<Result<()>>().map(|()| true)
}

/// The spans of a list, one tensor after another; `None` where one is not dense and of type `T`.
fn spans_of_list<'a, T: Element>(list: &'a mut FusedList<'_, Tensor>) -> Option<Vec<Span<'a, T>>> {
    let tensors: Vec<&'a Tensor> = match list {
        FusedList::Read(tensors) => tensors.clone(),
        FusedList::Write(tensors) => tensors.iter().collect(),
    };
    // SAFETY: a plan writes to the lists of `program.stores` only, which `in_place` has checked.
    let spans = tensors.into_iter().map(|tensor| unsafe { spans(tensor, SPAN) }).collect::<Option<Vec<_>>>()?;
    Some(spans.into_iter().flatten().collect())
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
    fn run(self) -> Result<()> {
        let Self { plan, lists } = self;
        let blocks: Vec<_> = lists.iter().map(|list| list.blocks).collect();
        let registers: Vec<_> = (0..plan.registers).map(|_| Register::default()).collect();
        let len = blocks.first().map_or(0, |blocks| blocks.len());
        for first in (0..len).step_by(CHUNK) {
            Chunk { plan, lists: &blocks, registers: &registers, range: first..len.min(first + CHUNK) }.run()?;
        }
        // What does not fill a block is computed in one.
        let rests: Vec<[Block<T>; 1]> = lists.iter().map(|list| [padded(list.rest)]).collect();
        let blocks: Vec<_> = rests.iter().map(<[Block<T>; 1]>::as_slice).collect();
        Chunk { plan, lists: &blocks, registers: &registers, range: 0..1 }.run()?;
        for list in plan.written() {
            lists[list].rest.iter().zip(&rests[list][0]).for_each(|(to, value)| to.set(value.get()));
        }
        Ok(())
    }
}

/// A block of these elements, with zeros after them.
fn padded<T: Element>(elements: &[Cell<T>]) -> Block<T> {
    from_fn(|i| Cell::new(elements.get(i).map_or(T::default(), Cell::get)))
}

/// A program over a few blocks of every list.
struct Chunk<'a, T> {
    plan: &'a Plan,
    lists: &'a [&'a [Block<T>]],
    registers: &'a [Register<T>],
    range: Range<usize>,
}

impl<T: Real> Chunk<'_, T> {
    /// Runs the steps, while the next chunk comes into the cache.
    #[inline(always)]
    fn run(&self) -> Result<()> {
        let share = CHUNK.div_ceil(self.plan.steps.len().max(1));
        for (index, step) in self.plan.steps.iter().enumerate() {
            let next = self.range.end + share * index;
            self.lists.iter().for_each(|blocks| prefetch(within(blocks, next..next + share)));
            let out = self.at(step.to);
            match &step.work {
                Work::Two(first, second) => two(out, first, second, |place| self.at(place)),
                Work::One(op, operands) => {
                    let operand = |index: usize| match operands.get(index) {
                        Some(Operand::List(list)) => Value::Blocks(self.at(Place::List(*list))),
                        Some(Operand::Register(register)) => Value::Blocks(self.at(Place::Register(*register))),
                        Some(Operand::Const(number)) => Value::Number(T::from_f64(*number)),
                        None => Value::Number(T::default()),
                    };
                    T::one(*op, out, [operand(0), operand(1), operand(2)])?;
                }
            }
        }
        if !self.plan.stores.is_empty() {
            self.store();
        }
        Ok(())
    }

    #[inline(always)]
    fn at(&self, place: Place) -> &[Block<T>] {
        match place {
            Place::List(list) => &self.lists[list][self.range.clone()],
            Place::Register(register) => &self.registers[register].0[..self.range.len()],
        }
    }

    /// Writes what no step has written. All is read before any is written: lists may change places.
    fn store(&self) {
        let read = |operand: Operand| -> Vec<[T; BLOCK]> {
            match operand {
                Operand::List(list) => self.at(Place::List(list)).iter().map(load).collect(),
                Operand::Register(register) => self.at(Place::Register(register)).iter().map(load).collect(),
                Operand::Const(number) => vec![[T::from_f64(number); BLOCK]; self.range.len()],
            }
        };
        let values: Vec<_> = self.plan.stores.iter().map(|(to, operand)| (*to, read(*operand))).collect();
        for (to, values) in values {
            self.at(Place::List(to)).iter().zip(values).for_each(|(to, values)| put(to, values));
        }
    }
}

/// The result of a step over a chunk, aligned to the widest vector.
#[repr(align(64))]
struct Register<T>([Block<T>; CHUNK]);

impl<T: Element> Default for Register<T> {
    fn default() -> Self {
        Self(from_fn(|_| padded(&[])))
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
    Blocks(&'a [Block<T>]),
    Number(T),
}

impl<T: Element> Value<'_, T> {
    #[inline(always)]
    fn at(&self, index: usize) -> [T; BLOCK] {
        match self {
            Self::Blocks(blocks) => load(&blocks[index]),
            Self::Number(number) => [*number; BLOCK],
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
    fn one(op: FusedOp, out: &[Block<Self>], operands: [Value<'_, Self>; 3]) -> Result<()>;
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
                fn one(op: FusedOp, out: &[Block<$T>], [a, b, c]: [Value<'_, $T>; 3]) -> Result<()> {
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
                            for (index, out) in out.iter().enumerate() {
                                let [a, b, c] = [a.at(index), b.at(index), c.at(index)];
                                put(out, from_fn(|i| if a[i] != 0.0 { b[i] } else { c[i] }));
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
fn unary<T: Real>(out: &[Block<T>], a: Value<'_, T>, f: impl Fn(T) -> T) {
    match a {
        Value::Blocks(a) => write(out, Each(a, f)),
        Value::Number(a) => write(out, Same(f(a))),
    }
}

#[inline(always)]
fn binary<T: Real>(out: &[Block<T>], a: Value<'_, T>, b: Value<'_, T>, f: impl Fn(T, T) -> T) {
    match (a, b) {
        (Value::Blocks(a), Value::Blocks(b)) => write(out, Both(a, b, f)),
        (Value::Blocks(a), Value::Number(b)) => write(out, Each(a, |a| f(a, b))),
        (Value::Number(a), Value::Blocks(b)) => write(out, Each(b, |b| f(a, b))),
        (Value::Number(a), Value::Number(b)) => write(out, Same(f(a, b))),
    }
}

/// Runs two operations over a chunk, with the first one's result in the CPU's registers.
#[inline(always)]
fn two<'v, T: Real>(out: &[Block<T>], first: &First, second: &Second, at: impl Fn(Place) -> &'v [Block<T>]) {
    match first {
        First::Product(a, b) => then(out, Both(at(*a), at(*b), |a, b| a * b), second, at),
        First::Difference(a, b) => then(out, Both(at(*a), at(*b), |a, b| a - b), second, at),
        First::Multiple(number, a) => {
            let number = T::from_f64(*number);
            then(out, Each(at(*a), |a| number * a), second, at);
        }
        First::Root(a) => then(out, Each(at(*a), T::root), second, at),
    }
}

#[inline(always)]
fn then<'v, T: Real>(out: &[Block<T>], x: impl Values<T>, second: &Second, at: impl Fn(Place) -> &'v [Block<T>]) {
    match second {
        Second::PlusNumber(number) => {
            let number = T::from_f64(*number);
            write(out, Then(x, |x| x + number));
        }
        Second::TimesNumber(number) => {
            let number = T::from_f64(*number);
            write(out, Then(x, |x| x * number));
        }
        Second::Plus(a) => write(out, With(x, at(*a), |x, a| x + a)),
        Second::Minus(a) => write(out, With(x, at(*a), |x, a| x - a)),
        Second::From(a) => write(out, With(x, at(*a), |x, a| a - x)),
        Second::Times(a) => write(out, With(x, at(*a), |x, a| x * a)),
        Second::Over(a) => write(out, With(x, at(*a), |x, a| x / a)),
    }
}

/// Each block is read before it is written, so `values` may read from `out`.
#[inline(always)]
fn write<T: Real>(out: &[Block<T>], values: impl Values<T>) {
    for (index, out) in out.iter().enumerate() {
        put(out, values.block(index));
    }
}

/// Blocks computed on demand. Methods, and no closures over blocks: `#[inline(always)]` is what brings them into the
/// code for wide vectors.
trait Values<T> {
    fn block(&self, index: usize) -> [T; BLOCK];
}

/// The same number everywhere.
struct Same<T>(T);
/// f(a).
struct Each<'a, T, F>(&'a [Block<T>], F);
/// f(a, b).
struct Both<'a, T, F>(&'a [Block<T>], &'a [Block<T>], F);
/// f(x).
struct Then<X, F>(X, F);
/// f(x, a).
struct With<'a, X, T, F>(X, &'a [Block<T>], F);

impl<T: Real> Values<T> for Same<T> {
    #[inline(always)]
    fn block(&self, _: usize) -> [T; BLOCK] {
        [self.0; BLOCK]
    }
}

impl<T: Real, F: Fn(T) -> T> Values<T> for Each<'_, T, F> {
    #[inline(always)]
    fn block(&self, index: usize) -> [T; BLOCK] {
        map(load(&self.0[index]), &self.1)
    }
}

impl<T: Real, F: Fn(T, T) -> T> Values<T> for Both<'_, T, F> {
    #[inline(always)]
    fn block(&self, index: usize) -> [T; BLOCK] {
        map_both(load(&self.0[index]), load(&self.1[index]), &self.2)
    }
}

impl<T: Real, X: Values<T>, F: Fn(T) -> T> Values<T> for Then<X, F> {
    #[inline(always)]
    fn block(&self, index: usize) -> [T; BLOCK] {
        map(self.0.block(index), &self.1)
    }
}

impl<T: Real, X: Values<T>, F: Fn(T, T) -> T> Values<T> for With<'_, X, T, F> {
    #[inline(always)]
    fn block(&self, index: usize) -> [T; BLOCK] {
        map_both(self.0.block(index), load(&self.1[index]), &self.2)
    }
}

#[inline(always)]
fn map<T: Copy>(mut x: [T; BLOCK], f: &impl Fn(T) -> T) -> [T; BLOCK] {
    for x in &mut x {
        *x = f(*x);
    }
    x
}

#[inline(always)]
fn map_both<T: Copy>(mut x: [T; BLOCK], y: [T; BLOCK], f: &impl Fn(T, T) -> T) -> [T; BLOCK] {
    for (x, y) in x.iter_mut().zip(y) {
        *x = f(*x, y);
    }
    x
}
