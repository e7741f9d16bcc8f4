//! A fused program as the fast path runs it. A chunk's results go through the first-level cache, whose writes are what
//! bounds the pass; so an operation and the only one that reads its result become one step where both are arithmetic.

use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{Operand, Program, Statement, allocate_registers};

/// A program in steps.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// In order.
    pub steps: Vec<Step>,
    /// Lists to write at the end, and what.
    pub stores: Vec<(usize, Operand)>,
    /// How many registers there are.
    pub registers: usize,
}

/// `register <- work`.
#[derive(Debug, PartialEq)]
pub(super) struct Step {
    pub register: usize,
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
#[derive(Debug, PartialEq)]
pub(super) enum First {
    Product(Place, Place),
    Multiple(f64, Place),
    Difference(Place, Place),
    Root(Place),
}

/// The second operation of two, on x.
#[derive(Debug, PartialEq)]
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
        let reads: Vec<Vec<usize>> =
            works.iter_mut().map(|work| work.registers().map(|read| *read).collect()).collect();
        let stored: Vec<usize> =
            stores.iter_mut().filter_map(|(_, operand)| register(operand)).map(|read| *read).collect();
        let (place, registers) = allocate_registers(&reads, &stored);
        rename(&mut works, &mut stores, &place);
        let steps = place.into_iter().zip(works).map(|(register, work)| Step { register, work });
        Self { steps: steps.collect(), stores, registers }
    }
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

fn rename(works: &mut [Work], stores: &mut [(usize, Operand)], place: &[usize]) {
    let in_works = works.iter_mut().flat_map(|work| work.registers().collect::<Vec<_>>());
    let in_stores = stores.iter_mut().filter_map(|(_, operand)| register(operand));
    in_works.chain(in_stores).for_each(|register| *register = place[*register]);
}

fn register(operand: &mut Operand) -> Option<&mut usize> {
    match operand {
        Operand::Register(register) => Some(register),
        _ => None,
    }
}

impl Work {
    /// The registers that it reads.
    fn registers(&mut self) -> Box<dyn Iterator<Item = &mut usize> + '_> {
        match self {
            Self::One(_, operands) => Box::new(operands.iter_mut().filter_map(register)),
            Self::Two(first, second) => {
                Box::new(first.places().into_iter().chain(second.place()).filter_map(|place| match place {
                    Place::Register(register) => Some(register),
                    Place::List(_) => None,
                }))
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
        let second = Work::Two(First::Multiple(0.1, Place::Register(0)), Second::From(Place::List(0)));
        let steps = vec![Step { register: 0, work: first }, Step { register: 1, work: second }];
        let stores = vec![(0, Register(1)), (1, Register(0))];
        assert_eq!(plan, Plan { steps, stores, registers: 2 });
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
