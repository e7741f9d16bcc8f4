//! A fused program in the form that backends run: statements over registers, each written before it is read.

use crate::error::{Error, Result};
use gauntlet_plugin_abi::{FusedOp, RawInstruction};

/// Where a statement reads from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operand {
    /// The element of a list, as it was before the program.
    List(usize),
    /// A number.
    Const(f64),
    /// The result of an earlier statement.
    Register(usize),
}

/// `register <- op(operands)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Statement {
    /// An arithmetic operation.
    pub op: FusedOp,
    /// One to three operands.
    pub operands: Vec<Operand>,
    /// The result.
    pub register: usize,
}

/// A checked program, in which each statement has a register of its own until [`Program::with_registers_reused`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Program {
    /// In order.
    pub statements: Vec<Statement>,
    /// Lists to write at the end, each once, and what.
    pub stores: Vec<(usize, Operand)>,
    /// How many registers there are.
    pub registers: usize,
}

/// Programs longer than this are refused.
const MAX_INSTRUCTIONS: usize = 4096;

impl Program {
    /// Checks postfix code over `lists` lists.
    ///
    /// # Errors
    ///
    /// An unknown operation (by name), a stack that underflows or is not empty at the end, a list or temporary that
    /// does not exist, a list stored twice.
    pub fn parse(code: &[RawInstruction], lists: usize) -> Result<Self> {
        if code.len() > MAX_INSTRUCTIONS {
            return Err(Error::argument("fused", format!("{} instructions, at most {MAX_INSTRUCTIONS}", code.len())));
        }
        let mut parser = Parser { lists, stack: vec![], temporaries: vec![], program: Self::default() };
        code.iter().try_for_each(|instruction| parser.step(instruction))?;
        parser.program.registers = parser.program.statements.len();
        match parser.stack.is_empty() {
            true => Ok(parser.program),
            false => Err(Error::argument("fused", format!("{} values left on the stack", parser.stack.len()))),
        }
    }

    /// The same program with registers that are not read any more given to later statements.
    pub fn with_registers_reused(&self) -> Self {
        let mut program = self.clone();
        let reads: Vec<_> = program.statements.iter().map(|statement| registers(&statement.operands)).collect();
        let stored: Vec<Operand> = program.stores.iter().map(|(_, operand)| *operand).collect();
        let (place, count) = allocate_registers(&reads, &registers(&stored));
        for statement in &mut program.statements {
            statement.operands.iter_mut().for_each(|operand| rename(operand, &place));
            statement.register = place[statement.register];
        }
        program.stores.iter_mut().for_each(|(_, operand)| rename(operand, &place));
        program.registers = count;
        program
    }
}

/// Gives each result a register, and says how many there are: result i is of step i, which reads the earlier results
/// `reads[i]`; those in `kept` are read at the end. A result never shares a register with one that its step reads.
pub fn allocate_registers(reads: &[Vec<usize>], kept: &[usize]) -> (Vec<usize>, usize) {
    let mut last_read = vec![0; reads.len()];
    reads.iter().enumerate().for_each(|(step, read)| read.iter().for_each(|result| last_read[*result] = step));
    kept.iter().for_each(|result| last_read[*result] = usize::MAX);
    let (mut place, mut free, mut count) = (vec![0; reads.len()], vec![], 0);
    for (step, read) in reads.iter().enumerate() {
        place[step] = free.pop().unwrap_or_else(|| {
            count += 1;
            count - 1
        });
        let mut ended: Vec<usize> = read.iter().copied().filter(|result| last_read[*result] == step).collect();
        ended.sort_unstable();
        ended.dedup();
        free.extend(ended.into_iter().map(|result| place[result]));
    }
    (place, count)
}

fn registers(operands: &[Operand]) -> Vec<usize> {
    let register = |operand: &Operand| match operand {
        Operand::Register(register) => Some(*register),
        _ => None,
    };
    operands.iter().filter_map(register).collect()
}

fn rename(operand: &mut Operand, place: &[usize]) {
    if let Operand::Register(register) = operand {
        *register = place[*register];
    }
}

struct Parser {
    lists: usize,
    stack: Vec<Operand>,
    temporaries: Vec<Option<Operand>>,
    program: Program,
}

impl Parser {
    fn step(&mut self, instruction: &RawInstruction) -> Result<()> {
        let index = instruction.index as usize;
        match instruction.op {
            FusedOp::LOAD => self.list(index).map(|list| self.stack.push(Operand::List(list))),
            FusedOp::CONST => {
                self.stack.push(Operand::Const(instruction.value));
                Ok(())
            }
            FusedOp::GET => {
                let value = self.temporaries.get(index).copied().flatten();
                self.stack
                    .push(value.ok_or_else(|| Error::argument("fused", format!("temporary {index} is not set")))?);
                Ok(())
            }
            FusedOp::SET => self.set(index),
            FusedOp::STORE => self.store(index),
            op => self.arithmetic(op),
        }
    }

    fn list(&self, index: usize) -> Result<usize> {
        match index < self.lists {
            true => Ok(index),
            false => Err(Error::argument("fused", format!("list {index} of {}", self.lists))),
        }
    }

    fn pop(&mut self) -> Result<Operand> {
        self.stack.pop().ok_or_else(|| Error::argument("fused", "the stack is empty"))
    }

    fn set(&mut self, index: usize) -> Result<()> {
        if index >= MAX_INSTRUCTIONS {
            return Err(Error::argument("fused", format!("temporary {index} of {MAX_INSTRUCTIONS}")));
        }
        let value = self.pop()?;
        if self.temporaries.len() <= index {
            self.temporaries.resize(index + 1, None);
        }
        self.temporaries[index] = Some(value);
        Ok(())
    }

    fn store(&mut self, index: usize) -> Result<()> {
        let (list, value) = (self.list(index)?, self.pop()?);
        if self.program.stores.iter().any(|(stored, _)| *stored == list) {
            return Err(Error::argument("fused", format!("list {list} is stored twice")));
        }
        self.program.stores.push((list, value));
        Ok(())
    }

    fn arithmetic(&mut self, op: FusedOp) -> Result<()> {
        let arity = arity(op).ok_or_else(|| Error::unsupported(format!("fused operation {}", op.name())))?;
        let mut operands = (0..arity).map(|_| self.pop()).collect::<Result<Vec<_>>>()?;
        operands.reverse();
        let register = self.program.statements.len();
        self.program.statements.push(Statement { op, operands, register });
        self.stack.push(Operand::Register(register));
        Ok(())
    }
}

fn arity(op: FusedOp) -> Option<usize> {
    match op {
        FusedOp::ADD | FusedOp::SUB | FusedOp::MUL | FusedOp::DIV | FusedOp::MAX | FusedOp::MIN | FusedOp::POW => {
            Some(2)
        }
        FusedOp::LT | FusedOp::LE | FusedOp::EQ => Some(2),
        FusedOp::SELECT => Some(3),
        FusedOp::NEG | FusedOp::ABS | FusedOp::SQRT | FusedOp::SIGN | FusedOp::EXP | FusedOp::LOG => Some(1),
        FusedOp::RECIPROCAL => Some(1),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &[(FusedOp, u32, f64)]) -> Vec<RawInstruction> {
        text.iter().map(|(op, index, value)| RawInstruction { op: *op, index: *index, value: *value }).collect()
    }

    #[test]
    fn registers_are_reused_but_never_by_a_reader() {
        // ((a + 1) + 1) + 1, stored over a
        let mut text = vec![(FusedOp::LOAD, 0, 0.0)];
        (0..3).for_each(|_| text.extend([(FusedOp::CONST, 0, 1.0), (FusedOp::ADD, 0, 0.0)]));
        text.push((FusedOp::STORE, 0, 0.0));
        let program = Program::parse(&code(&text), 1).unwrap();
        assert_eq!(program.registers, 3);
        let program = program.with_registers_reused();
        assert_eq!(program.registers, 2);
        for statement in &program.statements {
            assert!(!statement.operands.contains(&Operand::Register(statement.register)));
        }
    }

    #[test]
    fn bad_code_is_refused_by_name() {
        let message = |text: &[(FusedOp, u32, f64)]| Program::parse(&code(text), 1).unwrap_err().to_string();
        assert_eq!(message(&[(FusedOp::ADD, 0, 0.0)]), "fused: the stack is empty");
        assert_eq!(message(&[(FusedOp::LOAD, 7, 0.0)]), "fused: list 7 of 1");
        assert_eq!(message(&[(FusedOp::LOAD, 0, 0.0)]), "fused: 1 values left on the stack");
        assert_eq!(message(&[(FusedOp(999), 0, 0.0)]), "fused operation FusedOp 999: not supported by this host");
        assert_eq!(message(&[(FusedOp::GET, 3, 0.0)]), "fused: temporary 3 is not set");
        let twice = [FusedOp::LOAD, FusedOp::STORE, FusedOp::LOAD, FusedOp::STORE].map(|op| (op, 0, 0.0));
        assert_eq!(message(&twice), "fused: list 0 is stored twice");
    }
}
