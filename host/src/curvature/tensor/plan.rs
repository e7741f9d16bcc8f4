//! A fused program as the fast path runs it. A chunk's results go through the first-level cache, whose writes are what
//! bounds the pass; so an operation and the only one that reads its result become one step where both are arithmetic.

use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{Operand, Program, Statement, allocate_registers};

/// A program in steps.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Lists to write at the end, and what; those that a step writes itself are not among them.
    pub stores: Vec<(usize, Operand)>,
    /// How many registers there are.
    pub registers: usize,
}

/// `to <- work`.
#[derive(Debug, PartialEq)]
pub(super) struct Step {
    pub to: Place,
    pub work: Work,
}

#[derive(Debug, PartialEq)]
pub(super) enum Work {
    /// One operation.
    One(FusedOp, Vec<Operand>),
    /// Two operations, the second on the result of the first.
    Two(First, Second),
}

/// Where elements are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    List(usize),
    Register(usize),
}

/// The first operation of two.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum First {
    Product(Place, Place),
    Multiple(f64, Place),
    Difference(Place, Place),
    Root(Place),
}

/// The second operation of two, on x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Second {
    /// x + a.
    Plus(Place),
    /// x + number.
    PlusNumber(f64),
    /// x - a.
    Minus(Place),
    /// a - x.
    From(Place),
    /// x a.
    Times(Place),
    /// x number.
    TimesNumber(f64),
    /// x / a.
    Over(Place),
}

impl Plan {
    pub fn new(program: &Program) -> Self {
        let mut works = paired(program);
        let mut index = vec![0; works.len()];
        let kept = works.iter().enumerate().filter(|(_, work)| work.is_some()).map(|(register, _)| register);
        kept.enumerate().for_each(|(step, register)| index[register] = step);
        let mut stores = program.stores.clone();
        let mut works: Vec<Work> = works.drain(..).flatten().collect();
        rename(&mut works, &mut stores, &index);
        let lists = written_at_once(&mut works, &mut stores);
        let reads: Vec<Vec<usize>> =
            works.iter_mut().map(|work| work.places().into_iter().filter_map(register).collect()).collect();
        let stored: Vec<usize> =
            stores.iter().filter_map(|(_, operand)| Place::of(*operand)).filter_map(register).collect();
        let (place, registers) = allocate_registers(&reads, &stored);
        rename(&mut works, &mut stores, &place);
        let to = lists.into_iter().zip(place).map(|(list, register)| list.unwrap_or(Place::Register(register)));
        Self { steps: to.zip(works).map(|(to, work)| Step { to, work }).collect(), stores, registers }
    }

    /// The lists that it writes.
    pub fn written(&self) -> impl Iterator<Item = usize> {
        let by_steps = self.steps.iter().filter_map(|step| match step.to {
            Place::List(list) => Some(list),
            Place::Register(_) => None,
        });
        by_steps.chain(self.stores.iter().map(|(list, _)| *list))
    }
}

/// The list that a step can write as it computes: nothing after it reads what was there. Whoever reads its result reads
/// it from there.
fn written_at_once(works: &mut [Work], stores: &mut Vec<(usize, Operand)>) -> Vec<Option<Place>> {
    let mut lists = vec![None; works.len()];
    for (list, operand) in stores.clone() {
        let Operand::Register(step) = operand else { continue };
        let old = Place::List(list);
        let read_later = works[step + 1..].iter().any(|work| work.places().contains(&old))
            || stores.iter().any(|(_, operand)| Place::of(*operand) == Some(old));
        if lists[step].is_some() || read_later {
            continue;
        }
        lists[step] = Some(old);
        stores.retain(|(to, _)| *to != list);
        let moved = |place| if place == Place::Register(step) { old } else { place };
        works.iter_mut().for_each(|work| work.replace(moved));
        stores.iter_mut().for_each(|(_, operand)| *operand = replaced(*operand, moved));
    }
    lists
}

/// The work of each statement; `None` where it became part of the one that reads it.
fn paired(program: &Program) -> Vec<Option<Work>> {
    let mut uses = vec![0; program.registers];
    let stored = program.stores.iter().map(|(_, operand)| operand);
    for operand in program.statements.iter().flat_map(|statement| &statement.operands).chain(stored) {
        if let Operand::Register(register) = operand {
            uses[*register] += 1;
        }
    }
    let mut works: Vec<Option<Work>> = vec![];
    for statement in &program.statements {
        let pair = (0..statement.operands.len()).find_map(|position| match statement.operands[position] {
            Operand::Register(read) if uses[read] == 1 && matches!(works[read], Some(Work::One(..))) => {
                Some((read, First::of(&program.statements[read])?, Second::of(statement, position)?))
            }
            _ => None,
        });
        let work = match pair {
            Some((read, first, second)) => {
                works[read] = None;
                Work::Two(first, second)
            }
            None => Work::One(statement.op, statement.operands.clone()),
        };
        works.push(Some(work));
    }
    works
}

/// Gives every register that is read its number in `place`.
fn rename(works: &mut [Work], stores: &mut [(usize, Operand)], place: &[usize]) {
    let renamed = |at| match at {
        Place::Register(register) => Place::Register(place[register]),
        list => list,
    };
    works.iter_mut().for_each(|work| work.replace(renamed));
    stores.iter_mut().for_each(|(_, operand)| *operand = replaced(*operand, renamed));
}

fn register(place: Place) -> Option<usize> {
    match place {
        Place::Register(register) => Some(register),
        Place::List(_) => None,
    }
}

fn replaced(operand: Operand, with: impl Fn(Place) -> Place) -> Operand {
    match Place::of(operand).map(with) {
        Some(Place::List(list)) => Operand::List(list),
        Some(Place::Register(register)) => Operand::Register(register),
        None => operand,
    }
}

impl Work {
    /// What it reads.
    fn places(&self) -> Vec<Place> {
        match self {
            Self::One(_, operands) => operands.iter().copied().filter_map(Place::of).collect(),
            Self::Two(first, second) => {
                let (mut first, mut second) = (*first, *second);
                first.places().into_iter().chain(second.place()).map(|place| *place).collect()
            }
        }
    }

    /// Makes it read from other places.
    fn replace(&mut self, with: impl Fn(Place) -> Place) {
        match self {
            Self::One(_, operands) => operands.iter_mut().for_each(|operand| *operand = replaced(*operand, &with)),
            Self::Two(first, second) => {
                first.places().into_iter().chain(second.place()).for_each(|place| *place = with(*place));
            }
        }
    }
}

impl Place {
    fn of(operand: Operand) -> Option<Self> {
        match operand {
            Operand::List(list) => Some(Self::List(list)),
            Operand::Register(register) => Some(Self::Register(register)),
            Operand::Const(_) => None,
        }
    }
}

impl First {
    fn of(statement: &Statement) -> Option<Self> {
        Some(match (statement.op, statement.operands.as_slice()) {
            (FusedOp::MUL, [Operand::Const(number), a] | [a, Operand::Const(number)]) => {
                Self::Multiple(*number, Place::of(*a)?)
            }
            (FusedOp::MUL, [a, b]) => Self::Product(Place::of(*a)?, Place::of(*b)?),
            (FusedOp::SUB, [a, b]) => Self::Difference(Place::of(*a)?, Place::of(*b)?),
            (FusedOp::SQRT, [a]) => Self::Root(Place::of(*a)?),
            _ => return None,
        })
    }

    fn places(&mut self) -> Vec<&mut Place> {
        match self {
            Self::Product(a, b) | Self::Difference(a, b) => vec![a, b],
            Self::Multiple(_, a) | Self::Root(a) => vec![a],
        }
    }
}

impl Second {
    /// The operation of a statement on its operand at `position`.
    fn of(statement: &Statement, position: usize) -> Option<Self> {
        let [a, b] = statement.operands.as_slice() else { return None };
        let other = if position == 0 { *b } else { *a };
        Some(match (statement.op, other) {
            (FusedOp::ADD, Operand::Const(number)) => Self::PlusNumber(number),
            (FusedOp::MUL, Operand::Const(number)) => Self::TimesNumber(number),
            (FusedOp::ADD, a) => Self::Plus(Place::of(a)?),
            (FusedOp::MUL, a) => Self::Times(Place::of(a)?),
            (FusedOp::SUB, a) if position == 0 => Self::Minus(Place::of(a)?),
            (FusedOp::SUB, a) => Self::From(Place::of(a)?),
            (FusedOp::DIV, a) if position == 0 => Self::Over(Place::of(a)?),
            _ => return None,
        })
    }

    fn place(&mut self) -> Option<&mut Place> {
        match self {
            Self::Plus(a) | Self::Minus(a) | Self::From(a) | Self::Times(a) | Self::Over(a) => Some(a),
            Self::PlusNumber(_) | Self::TimesNumber(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operand::{Const, List, Register};

    fn program(statements: &[(FusedOp, &[Operand])], stores: &[(usize, Operand)]) -> Program {
        let statement = |(register, (op, operands)): (usize, &(FusedOp, &[Operand]))| Statement {
            op: *op,
            operands: operands.to_vec(),
            register,
        };
        let statements: Vec<_> = statements.iter().enumerate().map(statement).collect();
        Program { registers: statements.len(), statements, stores: stores.to_vec() }
    }

    #[test]
    fn an_operation_joins_the_only_one_that_reads_it() {
        // m <- b m + g, w <- w - lr m
        let plan = Plan::new(&program(
            &[
                (FusedOp::MUL, &[Const(0.9), List(1)]),
                (FusedOp::ADD, &[Register(0), List(2)]),
                (FusedOp::MUL, &[Const(0.1), Register(1)]),
                (FusedOp::SUB, &[List(0), Register(2)]),
            ],
            &[(0, Register(3)), (1, Register(1))],
        ));
        let first = Work::Two(First::Multiple(0.9, Place::List(1)), Second::Plus(Place::List(2)));
        let second = Work::Two(First::Multiple(0.1, Place::List(1)), Second::From(Place::List(0)));
        let steps = vec![Step { to: Place::List(1), work: first }, Step { to: Place::List(0), work: second }];
        assert_eq!((plan.steps, plan.stores), (steps, vec![]));
    }

    #[test]
    fn a_list_that_is_read_later_is_written_at_the_end() {
        // a <- a + b, b <- b a with the a of before
        let plan = Plan::new(&program(
            &[(FusedOp::ADD, &[List(0), List(1)]), (FusedOp::MUL, &[List(1), List(0)])],
            &[(0, Register(0)), (1, Register(1))],
        ));
        assert_eq!(plan.steps.iter().map(|step| step.to).collect::<Vec<_>>(), [Place::Register(0), Place::List(1)]);
        assert_eq!(plan.stores, [(0, Register(0))]);
        // a <- a + b, b <- a with the a of before
        let plan = Plan::new(&program(&[(FusedOp::ADD, &[List(0), List(1)])], &[(0, Register(0)), (1, List(0))]));
        assert_eq!(plan.stores, [(0, Register(0)), (1, List(0))]);
    }

    #[test]
    fn a_result_for_two_lists_is_copied_from_the_first() {
        let plan = Plan::new(&program(&[(FusedOp::NEG, &[List(2)])], &[(0, Register(0)), (1, Register(0))]));
        assert_eq!(plan.steps, [Step { to: Place::List(0), work: Work::One(FusedOp::NEG, vec![List(2)]) }]);
        assert_eq!(plan.stores, [(1, List(0))]);
    }

    #[test]
    fn a_result_that_is_read_twice_or_stored_stays() {
        let square: &[(FusedOp, &[Operand])] =
            &[(FusedOp::SUB, &[List(0), List(1)]), (FusedOp::MUL, &[Register(0), Register(0)])];
        assert_eq!(Plan::new(&program(square, &[(0, Register(1))])).steps.len(), 2);
        let stored: &[(FusedOp, &[Operand])] =
            &[(FusedOp::SUB, &[List(0), List(1)]), (FusedOp::MUL, &[Register(0), List(0)])];
        assert_eq!(Plan::new(&program(stored, &[(0, Register(0)), (1, Register(1))])).steps.len(), 2);
    }

    #[test]
    fn at_most_two_operations_join() {
        let chain: &[(FusedOp, &[Operand])] = &[
            (FusedOp::MUL, &[List(0), List(1)]),
            (FusedOp::MUL, &[Register(0), List(1)]),
            (FusedOp::MUL, &[Register(1), List(1)]),
        ];
        let plan = Plan::new(&program(chain, &[(0, Register(2))]));
        assert!(matches!(plan.steps[..], [Step { work: Work::Two(..), .. }, Step { work: Work::One(..), .. }]));
    }
}
