//! Fused elementwise updates: a formula over lists of tensors that the host runs in one pass over memory.

use crate::error::{Error, Result};
use crate::host::Link;
use crate::params::Params;
use crate::tensor::Tensor;
use gauntlet_plugin_abi::{FusedOp, RawInstruction, RawTensor};
use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// A list of tensors that a fused update reads or writes: [`Params`], a selection of them, or one [`Tensor`].
pub trait TensorList: sealed::List {}

mod sealed {
    use super::*;

    pub trait List {
        fn handles(&self) -> Vec<RawTensor>;
        fn connection(&self) -> Link;
    }

    impl List for Params {
        fn handles(&self) -> Vec<RawTensor> {
            self.raw()
        }
        fn connection(&self) -> Link {
            self.link()
        }
    }

    impl List for Tensor {
        fn handles(&self) -> Vec<RawTensor> {
            vec![self.raw()]
        }
        fn connection(&self) -> Link {
            self.link()
        }
    }
}

impl TensorList for Params {}
impl TensorList for Tensor {}

/// Runs a formula elementwise over lists of equal length and shapes, and writes its results into `outputs`.
///
/// The formula sees one element of each list: first the old values of the outputs, then the inputs; it gives the new
/// values of the outputs. Every old value is read before any is written.
///
/// ```text
/// // m <- b m + g, w <- w - lr m
/// fused([w, m], [&g], |[w, m], [g]| {
///     let m = b * m + g;
///     [w - lr * m, m]
/// })?;
/// ```
///
/// # Errors
///
/// Lists of different length, shapes or element types; a list that is output twice or output and input.
pub fn fused<const M: usize, const N: usize>(
    outputs: [&mut dyn TensorList; M],
    inputs: [&dyn TensorList; N],
    formula: impl for<'a> FnOnce([Expr<'a>; M], [Expr<'a>; N]) -> [Expr<'a>; M],
) -> Result<()> {
    let Some(link) = outputs.first().map(|list| list.connection()) else { return Ok(()) };
    let lists: Vec<Vec<RawTensor>> =
        outputs.iter().map(|list| list.handles()).chain(inputs.iter().map(|list| list.handles())).collect();
    if let Some(other) = lists.iter().find(|list| list.len() != lists[0].len()) {
        return Err(Error::shape("fused", format!("lists of {} and {} tensors", lists[0].len(), other.len())));
    }
    if lists[0].is_empty() {
        return Ok(());
    }
    let arena = Arena::default();
    let old = std::array::from_fn(|i| arena.push(Node::Load(i as u32)));
    let read = std::array::from_fn(|i| arena.push(Node::Load((M + i) as u32)));
    let roots = formula(old, read).map(|expr| expr.node);
    link.list_fused(&compile(&arena.nodes.into_inner(), &roots), &lists.concat(), lists.len())
}

/// One element in a fused formula. Arithmetic with other expressions and with f64 builds the formula.
#[derive(Clone, Copy)]
pub struct Expr<'a> {
    arena: &'a Arena,
    node: usize,
}

/// The formula under construction.
#[derive(Default)]
pub struct Arena {
    nodes: RefCell<Vec<Node>>,
}

#[derive(Clone, Copy)]
enum Node {
    Load(u32),
    Const(f64),
    Unary(FusedOp, usize),
    Binary(FusedOp, usize, usize),
    Select(usize, usize, usize),
}

impl Arena {
    fn push(&self, node: Node) -> Expr<'_> {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(node);
        Expr { arena: self, node: nodes.len() - 1 }
    }
}

macro_rules! expr_unary {
    ($($(#[$doc:meta])* $name:ident = $op:ident;)*) => {
        impl Expr<'_> {
            $($(#[$doc])* pub fn $name(self) -> Self {
                self.arena.push(Node::Unary(FusedOp::$op, self.node))
            })*
        }
    };
}

expr_unary! {
    /// Square root.
    sqrt = SQRT;
    /// `|x|`.
    abs = ABS;
    /// -1, 0 or 1.
    sign = SIGN;
    /// Exponential.
    exp = EXP;
    /// Natural logarithm.
    log = LOG;
    /// `1 / x`.
    reciprocal = RECIPROCAL;
}

impl<'a> Expr<'a> {
    /// The larger of both; NaN if either is NaN.
    pub fn max(self, other: impl Operand<'a>) -> Self {
        self.binary(FusedOp::MAX, other)
    }

    /// The smaller of both; NaN if either is NaN.
    pub fn min(self, other: impl Operand<'a>) -> Self {
        self.binary(FusedOp::MIN, other)
    }

    /// `x ^ y`.
    pub fn pow(self, exponent: impl Operand<'a>) -> Self {
        self.binary(FusedOp::POW, exponent)
    }

    /// 1 where smaller, else 0.
    pub fn less(self, other: impl Operand<'a>) -> Self {
        self.binary(FusedOp::LT, other)
    }

    /// 1 where smaller or equal, else 0.
    pub fn less_equal(self, other: impl Operand<'a>) -> Self {
        self.binary(FusedOp::LE, other)
    }

    /// 1 where equal, else 0.
    pub fn equal(self, other: impl Operand<'a>) -> Self {
        self.binary(FusedOp::EQ, other)
    }

    /// `a` where this is not 0, else `b`.
    pub fn select(self, a: impl Operand<'a>, b: impl Operand<'a>) -> Self {
        let (a, b) = (a.into_expr(self.arena), b.into_expr(self.arena));
        self.arena.push(Node::Select(self.node, a.node, b.node))
    }

    fn binary(self, op: FusedOp, other: impl Operand<'a>) -> Self {
        let other = other.into_expr(self.arena);
        self.arena.push(Node::Binary(op, self.node, other.node))
    }
}

/// A number or an expression.
pub trait Operand<'a> {
    #[doc(hidden)]
    fn into_expr(self, arena: &'a Arena) -> Expr<'a>;
}

impl<'a> Operand<'a> for Expr<'a> {
    fn into_expr(self, _: &'a Arena) -> Expr<'a> {
        self
    }
}

impl<'a> Operand<'a> for f64 {
    fn into_expr(self, arena: &'a Arena) -> Expr<'a> {
        arena.push(Node::Const(self))
    }
}

macro_rules! expr_operator {
    ($($Trait:ident :: $method:ident = $op:ident;)*) => {
        $(
            impl<'a, T: Operand<'a>> $Trait<T> for Expr<'a> {
                type Output = Expr<'a>;
                fn $method(self, other: T) -> Expr<'a> {
                    self.binary(FusedOp::$op, other)
                }
            }

            impl<'a> $Trait<Expr<'a>> for f64 {
                type Output = Expr<'a>;
                fn $method(self, other: Expr<'a>) -> Expr<'a> {
                    self.into_expr(other.arena).binary(FusedOp::$op, other)
                }
            }
        )*
    };
}

expr_operator! {
    Add::add = ADD;
    Sub::sub = SUB;
    Mul::mul = MUL;
    Div::div = DIV;
}

impl Neg for Expr<'_> {
    type Output = Self;
    fn neg(self) -> Self {
        self.arena.push(Node::Unary(FusedOp::NEG, self.node))
    }
}

/// Postfix code: each result goes into a temporary, then all are stored. A shared subexpression is computed once.
fn compile(nodes: &[Node], roots: &[usize]) -> Vec<RawInstruction> {
    let mut compiler =
        Compiler { nodes, uses: vec![0; nodes.len()], temporary: vec![None; nodes.len()], count: 0, code: vec![] };
    roots.iter().for_each(|root| compiler.count_uses(*root));
    let results: Vec<u32> = roots.iter().map(|root| compiler.result(*root)).collect();
    for (list, temporary) in results.into_iter().enumerate() {
        compiler.emit(FusedOp::GET, temporary, 0.0);
        compiler.emit(FusedOp::STORE, list as u32, 0.0);
    }
    compiler.code
}

struct Compiler<'a> {
    nodes: &'a [Node],
    uses: Vec<u32>,
    temporary: Vec<Option<u32>>,
    count: u32,
    code: Vec<RawInstruction>,
}

impl Compiler<'_> {
    fn operands(&self, node: usize) -> Vec<usize> {
        match self.nodes[node] {
            Node::Load(_) | Node::Const(_) => vec![],
            Node::Unary(_, a) => vec![a],
            Node::Binary(_, a, b) => vec![a, b],
            Node::Select(a, b, c) => vec![a, b, c],
        }
    }

    fn count_uses(&mut self, node: usize) {
        self.uses[node] += 1;
        if self.uses[node] == 1 {
            self.operands(node).into_iter().for_each(|operand| self.count_uses(operand));
        }
    }

    fn emit(&mut self, op: FusedOp, index: u32, value: f64) {
        self.code.push(RawInstruction { op, index, value });
    }

    /// Leaves the node's value on the stack.
    fn push(&mut self, node: usize) {
        if let Some(temporary) = self.temporary[node] {
            return self.emit(FusedOp::GET, temporary, 0.0);
        }
        self.operands(node).into_iter().for_each(|operand| self.push(operand));
        match self.nodes[node] {
            Node::Load(list) => self.emit(FusedOp::LOAD, list, 0.0),
            Node::Const(value) => self.emit(FusedOp::CONST, 0, value),
            Node::Unary(op, _) | Node::Binary(op, ..) => self.emit(op, 0, 0.0),
            Node::Select(..) => self.emit(FusedOp::SELECT, 0, 0.0),
        }
        if self.uses[node] > 1 && !matches!(self.nodes[node], Node::Load(_) | Node::Const(_)) {
            let temporary = self.keep(node);
            self.emit(FusedOp::GET, temporary, 0.0);
        }
    }

    /// Moves the top of the stack into a new temporary.
    fn keep(&mut self, node: usize) -> u32 {
        let temporary = self.count;
        self.count += 1;
        self.temporary[node] = Some(temporary);
        self.emit(FusedOp::SET, temporary, 0.0);
        temporary
    }

    fn result(&mut self, root: usize) -> u32 {
        match self.temporary[root] {
            Some(temporary) => temporary,
            None => {
                self.push(root);
                self.keep(root)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_subexpression_is_computed_once_and_stores_come_last() {
        let arena = Arena::default();
        let (w, m, g) = (arena.push(Node::Load(0)), arena.push(Node::Load(1)), arena.push(Node::Load(2)));
        let m = 0.5 * m + g;
        let w = w - 0.1 * m;
        let roots = [w.node, m.node];
        let code = compile(&arena.nodes.borrow(), &roots);
        let ops: Vec<String> = code.iter().map(|i| i.op.name()).collect();
        assert_eq!(ops.iter().filter(|op| *op == "add").count(), 1);
        assert_eq!(ops[ops.len() - 4..], ["get", "store", "get", "store"]);
        assert_eq!(ops.iter().position(|op| op == "store").unwrap(), ops.len() - 3);
    }
}
