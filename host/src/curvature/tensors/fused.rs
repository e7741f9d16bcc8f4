//! Fused elementwise programs over lists of tensors.

use super::kernel::{self, Real, Value};
use super::memory::{Kernel, Lists, Part, Target, View, run_widest, spans};
use super::plan::{Place, Plan, Source, Step};
use gauntlet_plugin_api::Result;
use gauntlet_plugin_api::backend::{FusedList, Program};
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

impl<T: Real> Kernel for Span<'_, T> {
    #[inline(always)]
    fn run(self) {
        let len = self.lists.first().map_or(0, |list| list.part().len());
        for range in spans(len, self.chunk) {
            let next = range.end..len.min(range.end + self.chunk);
            for (index, step) in self.plan.steps.iter().enumerate() {
                self.prefetch(index, &next);
                self.step(step, &range);
            }
        }
    }
}

impl<'a, T: Real> Span<'a, T> {
    /// Asks for one share of the next chunk, so that memory is busy while this one is computed.
    #[inline(always)]
    fn prefetch(self, index: usize, next: &Range<usize>) {
        let steps = self.plan.steps.len();
        let share = next.start + next.len() * index / steps..next.start + next.len() * (index + 1) / steps;
        self.lists.iter().for_each(|list| list.part().range(share.clone()).prefetch());
    }

    #[inline(always)]
    fn step(self, step: &Step, range: &Range<usize>) {
        let (b, c) = (self.value(step.b, range), self.value(step.c, range));
        if let Some(target) = self.target(step.target, range) {
            kernel::run(step.action, self.part(step.a, range), b, c, target);
        }
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
