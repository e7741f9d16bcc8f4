//! One step of a fused program over one chunk: loops that the compiler turns into vector code.
//!
//! Each operation rounds on its own (no fused multiply-add), so vector and scalar code give the same bits.

use super::memory::{Element, LANES, Part, Target};
use super::plan::{Action, Arithmetic};
use std::array::from_fn;
use std::ops::{Add, Div, Mul, Sub};

/// A floating-point element.
pub(super) trait Real:
    Element + PartialOrd + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn from_f64(number: f64) -> Self;
    fn sqrt(self) -> Self;
    fn abs(self) -> Self;
    fn exp(self) -> Self;
    fn log(self) -> Self;
    fn pow(self, exponent: Self) -> Self;
}

macro_rules! real {
    ($($T:ident)*) => {
        $(impl Real for $T {
            #[inline(always)]
            fn from_f64(number: f64) -> Self {
                number as $T
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                $T::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                $T::abs(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $T::exp(self)
            }
            #[inline(always)]
            fn log(self) -> Self {
                $T::ln(self)
            }
            #[inline(always)]
            fn pow(self, exponent: Self) -> Self {
                $T::powf(self, exponent)
            }
        })*
    };
}

real! { f32 f64 }

/// A second or third operand of a step.
#[derive(Clone, Copy)]
pub(super) enum Value<'a, T> {
    Part(Part<'a, T>),
    Number(T),
}

/// Tiles of an operand, then its last elements.
trait Operand<T>: Copy {
    fn tiles(self) -> impl Iterator<Item = [T; LANES]>;
    fn rest(self) -> impl Iterator<Item = T>;
}

impl<T: Copy> Operand<T> for Part<'_, T> {
    #[inline(always)]
    fn tiles(self) -> impl Iterator<Item = [T; LANES]> {
        self.tiles()
    }
    #[inline(always)]
    fn rest(self) -> impl Iterator<Item = T> {
        self.rest()
    }
}

/// The same number everywhere.
#[derive(Clone, Copy)]
struct Number<T>(T);

impl<T: Copy> Operand<T> for Number<T> {
    #[inline(always)]
    fn tiles(self) -> impl Iterator<Item = [T; LANES]> {
        std::iter::repeat([self.0; LANES])
    }
    #[inline(always)]
    fn rest(self) -> impl Iterator<Item = T> {
        std::iter::repeat(self.0)
    }
}

/// `target <- f(a, b, c)`: a tile is loaded whole before it is stored, so the target may be an operand.
#[inline(always)]
fn map3<T: Real>(
    target: Target<'_, T>,
    (a, b, c): (impl Operand<T>, impl Operand<T>, impl Operand<T>),
    f: impl Fn(T, T, T) -> T,
) {
    let (tiles, rest) = target.cells();
    for (((to, a), b), c) in tiles.iter().zip(a.tiles()).zip(b.tiles()).zip(c.tiles()) {
        let result: [T; LANES] = from_fn(|lane| f(a[lane], b[lane], c[lane]));
        (0..LANES).for_each(|lane| to[lane].set(result[lane]));
    }
    for (((to, a), b), c) in rest.iter().zip(a.rest()).zip(b.rest()).zip(c.rest()) {
        to.set(f(a, b, c));
    }
}

#[inline(always)]
fn map2<T: Real>(target: Target<'_, T>, (a, b): (impl Operand<T>, impl Operand<T>), f: impl Fn(T, T) -> T) {
    map3(target, (a, b, b), |a, b, _| f(a, b));
}

#[inline(always)]
fn map1<T: Real>(target: Target<'_, T>, a: impl Operand<T>, f: impl Fn(T) -> T) {
    map3(target, (a, a, a), |a, _, _| f(a));
}

/// Runs a step.
#[inline(always)]
pub(super) fn run<T: Real>(action: Action, a: Part<'_, T>, b: Value<'_, T>, c: Value<'_, T>, target: Target<'_, T>) {
    let one = |condition: bool| T::from_f64(f64::from(u8::from(condition)));
    match action {
        Action::Chain(first, second) => chain(first, second, (a, b, c), target),
        Action::Copy => map1(target, a, |a| a),
        Action::Fill => with_second(target, (a, b), |_, b| b),
        Action::Max => with_second(target, (a, b), |a, b| if a > b || is_nan(a) { a } else { b }),
        Action::Min => with_second(target, (a, b), |a, b| if a < b || is_nan(a) { a } else { b }),
        Action::Pow => with_second(target, (a, b), T::pow),
        Action::Less => with_second(target, (a, b), |a, b| one(a < b)),
        Action::LessEqual => with_second(target, (a, b), |a, b| one(a <= b)),
        Action::Equal => with_second(target, (a, b), |a, b| one(a == b)),
        Action::Select => select(target, (a, b, c)),
        Action::Abs => map1(target, a, T::abs),
        Action::Sign => map1(target, a, |a| one(a > T::from_f64(0.0)) - one(a < T::from_f64(0.0))),
        Action::Exp => map1(target, a, T::exp),
        Action::Log => map1(target, a, T::log),
    }
}

#[allow(clippy::eq_op, reason = "the definition of NaN, for a type that is not known to have `is_nan`")]
#[inline(always)]
fn is_nan<T: Real>(a: T) -> bool {
    a != a
}

#[inline(always)]
fn with_second<'a, T: Real>(target: Target<'_, T>, (a, b): (Part<'a, T>, Value<'a, T>), f: impl Fn(T, T) -> T) {
    match b {
        Value::Part(b) => map2(target, (a, b), f),
        Value::Number(b) => map2(target, (a, Number(b)), f),
    }
}

#[inline(always)]
fn select<'a, T: Real>(target: Target<'_, T>, (a, b, c): (Part<'a, T>, Value<'a, T>, Value<'a, T>)) {
    let f = |a: T, b, c| if a != T::from_f64(0.0) { b } else { c };
    match (b, c) {
        (Value::Part(b), Value::Part(c)) => map3(target, (a, b, c), f),
        (Value::Part(b), Value::Number(c)) => map3(target, (a, b, Number(c)), f),
        (Value::Number(b), Value::Part(c)) => map3(target, (a, Number(b), c), f),
        (Value::Number(b), Value::Number(c)) => map3(target, (a, Number(b), Number(c)), f),
    }
}

type Operands<'a, T> = (Part<'a, T>, Value<'a, T>, Value<'a, T>);

#[inline(always)]
fn chain<T: Real>(first: Arithmetic, second: Option<Arithmetic>, (a, b, c): Operands<'_, T>, target: Target<'_, T>) {
    match b {
        Value::Part(b) => chain_first(first, second, (a, b, c), target),
        Value::Number(b) => chain_first(first, second, (a, Number(b), c), target),
    }
}

#[inline(always)]
fn chain_first<T: Real>(
    first: Arithmetic,
    second: Option<Arithmetic>,
    operands: (Part<'_, T>, impl Operand<T>, Value<'_, T>),
    target: Target<'_, T>,
) {
    match first {
        Arithmetic::Add => chain_second(second, operands, target, |a, b| a + b),
        Arithmetic::Sub => chain_second(second, operands, target, |a, b| a - b),
        Arithmetic::ReverseSub => chain_second(second, operands, target, |a, b| b - a),
        Arithmetic::Mul => chain_second(second, operands, target, |a, b| a * b),
        Arithmetic::Div => chain_second(second, operands, target, |a, b| a / b),
        Arithmetic::ReverseDiv => chain_second(second, operands, target, |a, b| b / a),
        Arithmetic::Sqrt => chain_second(second, operands, target, |a, _| a.sqrt()),
    }
}

#[inline(always)]
fn chain_second<T: Real>(
    second: Option<Arithmetic>,
    (a, b, c): (Part<'_, T>, impl Operand<T>, Value<'_, T>),
    target: Target<'_, T>,
    first: impl Fn(T, T) -> T,
) {
    match (second, c) {
        (None, _) => map2(target, (a, b), first),
        (Some(second), Value::Part(c)) => chain_pair(second, (a, b, c), target, first),
        (Some(second), Value::Number(c)) => chain_pair(second, (a, b, Number(c)), target, first),
    }
}

#[inline(always)]
fn chain_pair<T: Real>(
    second: Arithmetic,
    operands: (Part<'_, T>, impl Operand<T>, impl Operand<T>),
    target: Target<'_, T>,
    first: impl Fn(T, T) -> T,
) {
    match second {
        Arithmetic::Add => map3(target, operands, |a, b, c| first(a, b) + c),
        Arithmetic::Sub => map3(target, operands, |a, b, c| first(a, b) - c),
        Arithmetic::ReverseSub => map3(target, operands, |a, b, c| c - first(a, b)),
        Arithmetic::Mul => map3(target, operands, |a, b, c| first(a, b) * c),
        Arithmetic::Div => map3(target, operands, |a, b, c| first(a, b) / c),
        Arithmetic::ReverseDiv => map3(target, operands, |a, b, c| c / first(a, b)),
        Arithmetic::Sqrt => map3(target, operands, |a, b, _| first(a, b).sqrt()),
    }
}
