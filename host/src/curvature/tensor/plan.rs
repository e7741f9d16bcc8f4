//! A fused program made ready to run over memory: fewer passes, and results written where they belong.
//!
//! Two arithmetic operations become one step where the first result is read once, by the second. A result that is
//! stored goes into its list at once where nobody reads the list's old elements afterwards, else into a register. A
//! step may read and write the same memory: it loads before it stores, element by element.

use gauntlet_plugin_abi::FusedOp;
use gauntlet_plugin_api::backend::{Operand, Program, Statement};
use gauntlet_plugin_api::{Error, Result};

/// `value <- operation(value, operand)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    /// `operand - value`.
    ReverseSub,
    Mul,
    Div,
    /// `operand / value`.
    ReverseDiv,
    /// Of the value; the operand is not read.
    Sqrt,
}

/// What a step computes from `a`, `b` and `c`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Action {
    /// One operation on `a` and `b`, then perhaps one on the result and `c`.
    Chain(Arithmetic, Option<Arithmetic>),
    /// `b + c (a - b)`.
    Lerp,
    /// `sqrt(a) / b + c`.
    Root,
    /// `a`.
    Copy,
    /// The number `b`; `a` is not read.
    Fill,
    Max,
    Min,
    Pow,
    Less,
    LessEqual,
    Equal,
    /// `b` where `a` is not 0, else `c`.
    Select,
    Abs,
    Sign,
    Exp,
    Log,
}

/// A chunk of memory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Place {
    List(usize),
    Register(usize),
}

/// A second or third operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Source {
    Place(Place),
    Const(f64),
}

/// `target <- action(a, b, c)`. Operands that the action does not name are not read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Step {
    pub action: Action,
    pub a: Place,
    pub b: Source,
    pub c: Source,
    pub target: Place,
}

/// Steps to run in order over each chunk.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub steps: Vec<Step>,
    pub registers: usize,
}

impl Plan {
    /// The plan of a program.
    ///
    /// # Errors
    ///
    /// An operation that is not known (by name), a register that is read before it is written.
    pub fn new(program: &Program) -> Result<Self> {
        let mut graph = Graph::new(program)?;
        graph.fuse();
        Ok(Placement::new(&graph).run())
    }
}

/// An operand by its value, whatever register holds it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Arg {
    List(usize),
    Const(f64),
    Node(usize),
}

#[derive(Debug)]
struct Node {
    action: Action,
    args: Vec<Arg>,
    /// How many arguments and stores read it.
    uses: usize,
}

/// A program by values; a node stands after those it reads.
#[derive(Debug, Default)]
struct Graph {
    nodes: Vec<Node>,
    /// List and node.
    stores: Vec<(usize, usize)>,
}

impl Graph {
    fn new(program: &Program) -> Result<Self> {
        let mut graph = Self::default();
        let mut registers: Vec<Option<usize>> = vec![];
        for statement in &program.statements {
            let args = statement.operands.iter().map(|operand| arg(operand, &registers)).collect::<Result<Vec<_>>>()?;
            let node = graph.statement(statement, &args)?;
            if registers.len() <= statement.register {
                registers.resize(statement.register + 1, None);
            }
            registers[statement.register] = Some(node);
        }
        for (list, operand) in &program.stores {
            let node = match arg(operand, &registers)? {
                Arg::Node(node) => node,
                Arg::List(list) => graph.push(Action::Copy, &[Arg::List(list)]),
                number => graph.fill(number),
            };
            graph.nodes[node].uses += 1;
            graph.stores.push((*list, node));
        }
        Ok(graph)
    }

    fn push(&mut self, action: Action, args: &[Arg]) -> usize {
        for node in args.iter().filter_map(node) {
            self.nodes[node].uses += 1;
        }
        self.nodes.push(Node { action, args: args.to_vec(), uses: 0 });
        self.nodes.len() - 1
    }

    /// A chunk full of one number.
    fn fill(&mut self, number: Arg) -> usize {
        self.push(Action::Fill, &[Arg::List(0), number])
    }

    /// The node of a statement. Its first argument is never a number.
    fn statement(&mut self, statement: &Statement, args: &[Arg]) -> Result<usize> {
        let op = statement.op;
        match (action(op)?, args) {
            (Action::Select, [Arg::Const(condition), b, c]) => {
                let chosen = if *condition != 0.0 { *b } else { *c };
                Ok(if is_number(chosen) { self.fill(chosen) } else { self.push(Action::Copy, &[chosen]) })
            }
            (Action::Select, [_, _, _]) => Ok(self.push(Action::Select, args)),
            (action, [a]) if is_unary(op) => {
                let a = self.in_memory(*a);
                Ok(match op {
                    // Exact, as is 1 / a.
                    FusedOp::NEG => self.push(action, &[a, Arg::Const(-1.0)]),
                    FusedOp::RECIPROCAL => self.push(action, &[a, Arg::Const(1.0)]),
                    _ => self.push(action, &[a]),
                })
            }
            (action, [a, b]) if !is_unary(op) && action != Action::Select => match reversed(action) {
                Some(reversed) if is_number(*a) && !is_number(*b) => Ok(self.push(reversed, &[*b, *a])),
                _ => {
                    let a = self.in_memory(*a);
                    Ok(self.push(action, &[a, *b]))
                }
            },
            _ => Err(Error::argument("fused", format!("{} operands for {}", args.len(), op.name()))),
        }
    }

    fn in_memory(&mut self, arg: Arg) -> Arg {
        match arg {
            Arg::Const(_) => Arg::Node(self.fill(arg)),
            other => other,
        }
    }

    /// Joins arithmetic nodes.
    fn fuse(&mut self) {
        for at in 0..self.nodes.len() {
            let args = self.nodes[at].args.clone();
            let joined = args.iter().enumerate().find_map(|(position, arg)| {
                let inner = node(arg).filter(|inner| self.nodes[*inner].uses == 1)?;
                Some((inner, self.joined(at, position, inner)?))
            });
            if let (Some((inner, (action, args))), true) = (joined, self.nodes[at].uses > 0) {
                self.nodes[inner].uses = 0;
                (self.nodes[at].action, self.nodes[at].args) = (action, args);
            }
        }
    }

    /// One node that does what `inner` and then node `at` do, where `inner` is the argument of `at` at `position`.
    fn joined(&self, at: usize, position: usize, inner: usize) -> Option<(Action, Vec<Arg>)> {
        let Action::Chain(operation, None) = self.nodes[at].action else { return None };
        let operation = if position == 0 { operation } else { reverse(operation) };
        let other = self.nodes[at].args.get(1 - position).copied().unwrap_or(Arg::Const(0.0));
        let mut args = self.nodes[inner].args.clone();
        args.resize(args.len().max(2), Arg::Const(0.0));
        match (self.nodes[inner].action, operation) {
            (Action::Chain(first, None), second) => {
                args.push(other);
                Some((Action::Chain(first, Some(second)), args))
            }
            (Action::Chain(Arithmetic::Sub, Some(Arithmetic::Mul)), Arithmetic::Add) if args[1] == other => {
                Some((Action::Lerp, args))
            }
            (Action::Chain(Arithmetic::Sqrt, Some(Arithmetic::Div)), Arithmetic::Add) => {
                Some((Action::Root, vec![args[0], args[2], other]))
            }
            _ => None,
        }
    }
}

fn arg(operand: &Operand, registers: &[Option<usize>]) -> Result<Arg> {
    Ok(match operand {
        Operand::List(list) => Arg::List(*list),
        Operand::Const(number) => Arg::Const(*number),
        Operand::Register(register) => {
            let node = registers.get(*register).copied().flatten();
            Arg::Node(node.ok_or_else(|| Error::argument("fused", format!("register {register} is not written")))?)
        }
    })
}

fn node(arg: &Arg) -> Option<usize> {
    match arg {
        Arg::Node(node) => Some(*node),
        _ => None,
    }
}

fn is_unary(op: FusedOp) -> bool {
    matches!(
        op,
        FusedOp::NEG | FusedOp::ABS | FusedOp::SQRT | FusedOp::SIGN | FusedOp::EXP | FusedOp::LOG | FusedOp::RECIPROCAL
    )
}

fn is_number(arg: Arg) -> bool {
    matches!(arg, Arg::Const(_))
}

fn action(op: FusedOp) -> Result<Action> {
    let chain = |operation| Ok(Action::Chain(operation, None));
    match op {
        FusedOp::ADD => chain(Arithmetic::Add),
        FusedOp::SUB => chain(Arithmetic::Sub),
        FusedOp::MUL | FusedOp::NEG => chain(Arithmetic::Mul),
        FusedOp::DIV => chain(Arithmetic::Div),
        FusedOp::RECIPROCAL => chain(Arithmetic::ReverseDiv),
        FusedOp::SQRT => chain(Arithmetic::Sqrt),
        FusedOp::MAX => Ok(Action::Max),
        FusedOp::MIN => Ok(Action::Min),
        FusedOp::POW => Ok(Action::Pow),
        FusedOp::LT => Ok(Action::Less),
        FusedOp::LE => Ok(Action::LessEqual),
        FusedOp::EQ => Ok(Action::Equal),
        FusedOp::SELECT => Ok(Action::Select),
        FusedOp::ABS => Ok(Action::Abs),
        FusedOp::SIGN => Ok(Action::Sign),
        FusedOp::EXP => Ok(Action::Exp),
        FusedOp::LOG => Ok(Action::Log),
        other => Err(Error::unsupported(format!("fused operation {}", other.name()))),
    }
}

/// The operation with its sides exchanged.
fn reverse(operation: Arithmetic) -> Arithmetic {
    match operation {
        Arithmetic::Sub => Arithmetic::ReverseSub,
        Arithmetic::ReverseSub => Arithmetic::Sub,
        Arithmetic::Div => Arithmetic::ReverseDiv,
        Arithmetic::ReverseDiv => Arithmetic::Div,
        same @ (Arithmetic::Add | Arithmetic::Mul | Arithmetic::Sqrt) => same,
    }
}

fn reversed(action: Action) -> Option<Action> {
    match action {
        Action::Chain(operation, None) => Some(Action::Chain(reverse(operation), None)),
        same @ (Action::Max | Action::Min | Action::Equal) => Some(same),
        _ => None,
    }
}

/// Finds a place for the value of each node that is used.
struct Placement<'a> {
    graph: &'a Graph,
    /// For each node, the last one that reads it; `usize::MAX` where the end does.
    last_read: Vec<usize>,
    places: Vec<Place>,
    free: Vec<usize>,
    registers: usize,
}

impl<'a> Placement<'a> {
    fn new(graph: &'a Graph) -> Self {
        let mut last_read = vec![0; graph.nodes.len()];
        for (at, reader) in graph.nodes.iter().enumerate().filter(|(_, reader)| reader.uses > 0) {
            reader.args.iter().filter_map(node).for_each(|read| last_read[read] = at);
        }
        graph.stores.iter().for_each(|(_, node)| last_read[*node] = usize::MAX);
        Self { graph, last_read, places: vec![Place::Register(0); graph.nodes.len()], free: vec![], registers: 0 }
    }

    fn run(mut self) -> Plan {
        let mut steps = vec![];
        for (at, node) in self.graph.nodes.iter().enumerate().filter(|(_, node)| node.uses > 0) {
            let sources: Vec<Source> = node.args.iter().map(|arg| self.source(*arg)).collect();
            self.release(at, &node.args);
            self.places[at] = self.choose(at);
            let operand = |index: usize| sources.get(index).copied().unwrap_or(Source::Const(0.0));
            let a = match operand(0) {
                Source::Place(place) => place,
                Source::Const(_) => self.places[at],
            };
            let target = self.places[at];
            steps.push(Step { action: node.action, a, b: operand(1), c: operand(2), target });
        }
        for (list, node) in &self.graph.stores {
            let (a, target, nothing) = (self.places[*node], Place::List(*list), Source::Const(0.0));
            if a != target {
                steps.push(Step { action: Action::Copy, a, b: nothing, c: nothing, target });
            }
        }
        Plan { steps, registers: self.registers }
    }

    fn source(&self, arg: Arg) -> Source {
        match arg {
            Arg::List(list) => Source::Place(Place::List(list)),
            Arg::Const(number) => Source::Const(number),
            Arg::Node(node) => Source::Place(self.places[node]),
        }
    }

    /// Frees the registers that node `at` reads last; it may write to them itself.
    fn release(&mut self, at: usize, args: &[Arg]) {
        for read in args.iter().filter_map(node).filter(|read| self.last_read[*read] == at) {
            if let Place::Register(register) = self.places[read]
                && !self.free.contains(&register)
            {
                self.free.push(register);
            }
        }
    }

    fn choose(&mut self, at: usize) -> Place {
        let direct = self.graph.stores.iter().find(|(list, node)| *node == at && !self.is_read_after(*list, at));
        if let Some((list, _)) = direct {
            return Place::List(*list);
        }
        Place::Register(self.free.pop().unwrap_or_else(|| {
            self.registers += 1;
            self.registers - 1
        }))
    }

    fn is_read_after(&self, list: usize, at: usize) -> bool {
        let later = self.graph.nodes.iter().skip(at + 1).filter(|node| node.uses > 0);
        later.into_iter().any(|node| node.args.contains(&Arg::List(list)))
    }
}
