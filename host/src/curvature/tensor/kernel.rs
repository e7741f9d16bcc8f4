//! One step of a fused program over one chunk.

use super::memory::{Element, Part, Target, Tile};
use super::plan::{Action, Arithmetic};
use super::vector::{Lanes, TILE, Vector};

/// A floating-point element.
pub(super) trait Real: Element + Lanes {
    fn from_f64(number: f64) -> Self;
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

/// An operand, vector by vector.
trait Operand<V>: Copy {
    /// The operand over so many tiles, where it has them.
    fn over(self, tiles: usize) -> Option<Self>;
    /// A vector of a tile.
    fn vector(self, tile: usize, start: usize) -> V;
}

impl<T: Copy, V: Vector<T>> Operand<V> for &[Tile<T>] {
    #[inline(always)]
    fn over(self, tiles: usize) -> Option<Self> {
        self.get(..tiles)
    }
    #[inline(always)]
    fn vector(self, tile: usize, start: usize) -> V {
        V::load(&self[tile][start..])
    }
}

/// The same numbers for every vector.
#[derive(Clone, Copy)]
struct Same<V>(V);

impl<V: Copy> Operand<V> for Same<V> {
    #[inline(always)]
    fn over(self, _: usize) -> Option<Self> {
        Some(self)
    }
    #[inline(always)]
    fn vector(self, _: usize, _: usize) -> V {
        self.0
    }
}

/// `target <- f(a, b, c)`. Vectors are loaded before theirs is stored, so the target may be an operand.
#[inline(always)]
fn map<T: Real, V: Vector<T>>(
    target: Target<'_, T>,
    (a, b, c): (impl Operand<V>, impl Operand<V>, impl Operand<V>),
    f: impl Fn(V, V, V) -> V,
) {
    let target = target.tiles();
    let (Some(a), Some(b), Some(c)) = (a.over(target.len()), b.over(target.len()), c.over(target.len())) else {
        return;
    };
    for (tile, to) in target.iter().enumerate() {
        let mut start = 0;
        while start < TILE {
            f(a.vector(tile, start), b.vector(tile, start), c.vector(tile, start)).store(&to[start..]);
            start += V::LANES;
        }
    }
}

/// One step: `target <- action(a, b, c)`. The chunk is a whole number of vectors long.
#[derive(Clone, Copy)]
pub(super) struct Run<'a, T> {
    pub action: Action,
    pub a: Part<'a, T>,
    pub b: Value<'a, T>,
    pub c: Value<'a, T>,
    pub target: Target<'a, T>,
}

impl<T: Real> Run<'_, T> {
    /// Runs the step.
    #[inline(always)]
    pub fn run<V: Vector<T>>(self) {
        let number = |x: f64| V::splat(T::from_f64(x));
        let (zero, one, minus_one) = (number(0.0), number(1.0), number(-1.0));
        match self.action {
            Action::Chain(first, second) => self.chain::<V>(first, second),
            Action::Lerp => self.ternary(
                #[inline(always)]
                |a: V, b, c| a.sub(b).mul(c).add(b),
            ),
            Action::Root => self.ternary(
                #[inline(always)]
                |a: V, b, c| a.sqrt().div(b).add(c),
            ),
            Action::Copy => self.unary(
                #[inline(always)]
                |a: V| a,
            ),
            Action::Fill => self.binary(
                #[inline(always)]
                |_: V, b| b,
            ),
            Action::Max => self.binary(
                #[inline(always)]
                |a: V, b| a.if_equal(a, b.if_less(a, a, b), a),
            ),
            Action::Min => self.binary(
                #[inline(always)]
                |a: V, b| a.if_equal(a, a.if_less(b, a, b), a),
            ),
            Action::Pow => self.binary(
                #[inline(always)]
                |a: V, b| a.map(b, T::pow),
            ),
            Action::Less => self.binary(
                #[inline(always)]
                |a: V, b| a.if_less(b, one, zero),
            ),
            Action::LessEqual => self.binary(
                #[inline(always)]
                |a: V, b| a.if_less_equal(b, one, zero),
            ),
            Action::Equal => self.binary(
                #[inline(always)]
                |a: V, b| a.if_equal(b, one, zero),
            ),
            Action::Select => self.ternary(
                #[inline(always)]
                |a: V, b, c| a.if_equal(zero, c, b),
            ),
            // Adding 0 makes -0 positive.
            Action::Abs => self.unary(
                #[inline(always)]
                |a: V| a.if_less(zero, a.mul(minus_one), a).add(zero),
            ),
            Action::Sign => self.unary(
                #[inline(always)]
                |a: V| zero.if_less(a, one, a.if_less(zero, minus_one, zero)),
            ),
            Action::Exp => self.unary(
                #[inline(always)]
                |a: V| {
                    a.map(
                        a,
                        #[inline(always)]
                        |a, _| a.exp(),
                    )
                },
            ),
            Action::Log => self.unary(
                #[inline(always)]
                |a: V| {
                    a.map(
                        a,
                        #[inline(always)]
                        |a, _| a.log(),
                    )
                },
            ),
        }
    }

    #[inline(always)]
    fn unary<V: Vector<T>>(self, f: impl Fn(V) -> V) {
        let a = self.a.tiles();
        map(
            self.target,
            (a, a, a),
            #[inline(always)]
            |a, _, _| f(a),
        );
    }

    #[inline(always)]
    fn binary<V: Vector<T>>(self, f: impl Fn(V, V) -> V) {
        let a = self.a.tiles();
        match self.b {
            Value::Part(b) => map(
                self.target,
                (a, b.tiles(), b.tiles()),
                #[inline(always)]
                |a, b, _| f(a, b),
            ),
            Value::Number(b) => {
                let b = Same(V::splat(b));
                map(
                    self.target,
                    (a, b, b),
                    #[inline(always)]
                    |a, b, _| f(a, b),
                );
            }
        }
    }

    #[inline(always)]
    fn ternary<V: Vector<T>>(self, f: impl Fn(V, V, V) -> V) {
        let same = |number| Same(V::splat(number));
        let a = self.a.tiles();
        match (self.b, self.c) {
            (Value::Part(b), Value::Part(c)) => map(self.target, (a, b.tiles(), c.tiles()), f),
            (Value::Part(b), Value::Number(c)) => map(self.target, (a, b.tiles(), same(c)), f),
            (Value::Number(b), Value::Part(c)) => map(self.target, (a, same(b), c.tiles()), f),
            (Value::Number(b), Value::Number(c)) => map(self.target, (a, same(b), same(c)), f),
        }
    }

    #[inline(always)]
    fn chain<V: Vector<T>>(self, first: Arithmetic, second: Option<Arithmetic>) {
        match first {
            Arithmetic::Add => self.chain_second(
                second,
                #[inline(always)]
                |a: V, b| a.add(b),
            ),
            Arithmetic::Sub => self.chain_second(
                second,
                #[inline(always)]
                |a: V, b| a.sub(b),
            ),
            Arithmetic::ReverseSub => self.chain_second(
                second,
                #[inline(always)]
                |a: V, b| b.sub(a),
            ),
            Arithmetic::Mul => self.chain_second(
                second,
                #[inline(always)]
                |a: V, b| a.mul(b),
            ),
            Arithmetic::Div => self.chain_second(
                second,
                #[inline(always)]
                |a: V, b| a.div(b),
            ),
            Arithmetic::ReverseDiv => self.chain_second(
                second,
                #[inline(always)]
                |a: V, b| b.div(a),
            ),
            Arithmetic::Sqrt => self.chain_second(
                second,
                #[inline(always)]
                |a: V, _| a.sqrt(),
            ),
        }
    }

    #[inline(always)]
    fn chain_second<V: Vector<T>>(self, second: Option<Arithmetic>, first: impl Fn(V, V) -> V) {
        match second {
            None => self.binary(first),
            Some(Arithmetic::Add) => self.ternary(
                #[inline(always)]
                |a, b, c| first(a, b).add(c),
            ),
            Some(Arithmetic::Sub) => self.ternary(
                #[inline(always)]
                |a, b, c| first(a, b).sub(c),
            ),
            Some(Arithmetic::ReverseSub) => self.ternary(
                #[inline(always)]
                |a, b, c: V| c.sub(first(a, b)),
            ),
            Some(Arithmetic::Mul) => self.ternary(
                #[inline(always)]
                |a, b, c| first(a, b).mul(c),
            ),
            Some(Arithmetic::Div) => self.ternary(
                #[inline(always)]
                |a, b, c| first(a, b).div(c),
            ),
            Some(Arithmetic::ReverseDiv) => self.ternary(
                #[inline(always)]
                |a, b, c: V| c.div(first(a, b)),
            ),
            Some(Arithmetic::Sqrt) => self.binary(
                #[inline(always)]
                |a, b| first(a, b).sqrt(),
            ),
        }
    }
}
