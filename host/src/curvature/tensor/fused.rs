//! Fused elementwise programs over lists of tensors.

use super::kernel::{Real, Run, Value};
use super::memory::{Lists, Part, Target, View, spans};
use super::plan::{Place, Plan, Source, Step};
use super::vector::{Kernel, Vector, run_widest};
use gauntlet_plugin_api::Result;
use gauntlet_plugin_api::backend::FusedList;
use std::cell::Cell;
use std::ops::Range;
use tch::Tensor;

/// Bytes of one operand that are in the first cache at a time.
const CHUNK_BYTES: usize = 2048;

/// Runs a program in place where the tensors are dense, on the CPU and of type `T`; says whether they are.
pub fn in_place<T: Real>(plan: &Plan, lists: &mut [FusedList<'_, Tensor>]) -> Result<bool> {
    let Some(lists) = Lists::<T>::new(lists)? else { return Ok(false) };
    let chunk = CHUNK_BYTES / size_of::<T>();
    let registers = || vec![Cell::new(T::from_f64(0.0)); chunk * plan.registers];
    lists.for_each_span(registers, |registers, lists| run_widest(Span { plan, lists, registers, chunk }));
    Ok(true)
}

/// The elements of one span of every list, and registers of one chunk.
#[derive(Clone, Copy)]
struct Span<'a, T> {
    plan: &'a Plan,
    lists: &'a [View<'a, T>],
    registers: &'a [Cell<T>],
    chunk: usize,
}

impl<T: Real> Kernel<T> for Span<'_, T> {
    #[inline(always)]
    fn run<V: Vector<T>>(self) {
        let len = self.lists.first().map_or(0, |list| list.part().len());
        let share = self.chunk.div_ceil(self.plan.steps.len().max(1));
        for range in spans(len, self.chunk) {
            let mut ahead = range.end;
            for step in &self.plan.steps {
                let next = len.min(ahead + share);
                self.prefetch(ahead..next);
                ahead = next;
                if let Some(step) = self.resolve(step, &range) {
                    step.run::<V>();
                }
            }
        }
    }
}

impl<'a, T: Real> Span<'a, T> {
    /// Asks for a share of the next chunk, so that memory is busy while this one is computed.
    #[inline(always)]
    fn prefetch(self, range: Range<usize>) {
        self.lists.iter().for_each(|list| list.part().range(range.clone()).prefetch());
    }

    /// A step on some of the elements.
    #[inline(always)]
    fn resolve(self, step: &Step, range: &Range<usize>) -> Option<Run<'a, T>> {
        let (b, c) = (self.value(step.b, range), self.value(step.c, range));
        Some(Run { action: step.action, a: self.part(step.a, range), b, c, target: self.target(step.target, range)? })
    }

    fn part(self, place: Place, range: &Range<usize>) -> Part<'a, T> {
        match place {
            Place::List(list) => self.lists[list].part().range(range.clone()),
            Place::Register(register) => self.register(register, range).part(),
        }
    }

    fn value(self, source: Source, range: &Range<usize>) -> Value<'a, T> {
        match source {
            Source::Place(place) => Value::Part(self.part(place, range)),
            Source::Const(number) => Value::Number(T::from_f64(number)),
        }
    }

    fn target(self, place: Place, range: &Range<usize>) -> Option<Target<'a, T>> {
        match place {
            Place::List(list) => match self.lists[list] {
                View::Write(target) => Some(target.range(range.clone())),
                View::Read(_) => None,
            },
            Place::Register(register) => Some(self.register(register, range)),
        }
    }

    fn register(self, register: usize, range: &Range<usize>) -> Target<'a, T> {
        let start = register * self.chunk;
        Target::new(&self.registers[start..start + range.len()])
    }
}
