//! The plain backend: a [`Problem`] behind the same table that the host offers.

use super::array::Array;
use super::data::Cursors;
use super::dense::{Dense, ranges};
use super::loss::Fault;
use super::ops;
use super::problem::{Model, Problem, Recorded};
use super::products::{self, Answer, Linearization};
use crate::backend::{Backend, Evaluation, FusedList, InitialParams, Product, ProductKind, Program};
use crate::batch::Position;
use crate::error::{Error, Result};
use crate::structure::{Blocks, Structure};
use gauntlet_plugin_abi::*;
use std::cell::Cell;
use std::sync::Arc;

/// Calls of the host that one call of `step` may make; an optimizer that makes more is taken for one that hangs.
pub(super) const MAX_CALLS: u64 = 200_000;
/// Share of the old average that an update of the EMA keeps.
const EMA_DECAY: f64 = 0.9;

/// Plain Rust behind the host's table, for tests without libtorch.
pub struct PlainBackend {
    problem: Problem,
    pub(super) fault: Option<Fault>,
    pub(super) cursors: Cursors,
    pub(super) step: u64,
    pub(super) should_return: bool,
    pub(super) schedule: Box<dyn Fn(f64) -> f64 + Send>,
    pub(super) ema: Option<Vec<Array>>,
    pub(super) metrics: Vec<(String, f64)>,
    pub(super) log: Vec<String>,
    /// The call of the host that fails, counted as in [`Self::total`].
    pub(super) fails_at: Option<u64>,
    calls: Cell<u64>,
    total: Cell<u64>,
}

impl PlainBackend {
    pub(super) fn new(problem: Problem) -> Self {
        Self {
            problem,
            fault: None,
            cursors: Cursors::default(),
            step: 0,
            should_return: false,
            schedule: Box::new(|_| 1.0),
            ema: None,
            metrics: vec![],
            log: vec![],
            fails_at: None,
            calls: Cell::new(0),
            total: Cell::new(0),
        }
    }

    /// The parameters that a run of a problem starts with.
    pub(super) fn initial(problem: &Problem) -> Result<InitialParams<Array>> {
        let specs = problem.specs();
        let values = specs.iter().zip(problem.initial());
        let tensors = values
            .map(|(spec, values)| Array::from_vec(&spec.name, &spec.shape, values, problem.dtype))
            .collect::<Result<_>>()?;
        Ok(InitialParams { specs: specs.into_iter().map(Arc::new).collect(), tensors })
    }

    pub(super) fn problem(&self) -> &Problem {
        &self.problem
    }

    /// Begins to count calls anew.
    pub(super) fn begin_call(&self) {
        self.calls.set(0);
    }

    /// Calls since the start.
    pub(super) fn total(&self) -> u64 {
        self.total.get()
    }

    /// Whether the last call of `step` made more calls of the host than it may.
    pub(super) fn hung(&self) -> bool {
        self.calls.get() > MAX_CALLS
    }

    /// Every call of the host passes here, so that a loop without end ends.
    fn count(&self) -> Result<()> {
        self.calls.set(self.calls.get() + 1);
        self.total.set(self.total.get() + 1);
        if self.fails_at == Some(self.total.get()) {
            return Err(Error::new(ErrorCode::NUMERICAL, "testing", "this call fails on purpose"));
        }
        match self.hung() {
            false => Ok(()),
            true => Err(Error::new(ErrorCode::HOST, "step", format!("made more than {MAX_CALLS} calls of the host"))),
        }
    }

    fn dense(&self, params: &[&Array], batch: &Position, fault: Option<Fault>) -> Result<Dense> {
        Dense::new(&self.problem, flatten(params), batch, fault, self.step)
    }

    fn recorded_gradient(&self, recorded: &Recorded, batch: &Position) -> Result<Product<Array>> {
        let t = batch.parts.first().map_or(0, |part| part.first);
        let gradient = usize::try_from(t).ok().and_then(|t| recorded.gradients.get(t));
        let gradient = gradient
            .ok_or_else(|| Error::new(ErrorCode::DATA, "gradient", format!("none is recorded for batch {t}")))?;
        let faulty = |x: &f64| match self.fault {
            None => *x,
            Some(Fault::NanGradients) => f64::NAN,
            Some(Fault::ZeroGradients) => 0.0,
        };
        let flat: Vec<f64> = gradient.iter().flatten().map(faulty).collect();
        Ok(Product { values: vec![0.0], tensors: self.split(&flat)? })
    }

    /// One array a parameter from a flat vector.
    fn split(&self, flat: &[f64]) -> Result<Vec<Array>> {
        let specs = self.problem.specs();
        let places = ranges(specs.iter().map(|spec| spec.numel()));
        let part = |(spec, place): (&crate::ParamSpec, std::ops::Range<usize>)| {
            Array::from_vec(&spec.name, &spec.shape, flat[place].to_vec(), self.problem.dtype)
        };
        specs.iter().zip(places).map(part).collect()
    }

    fn product_of(&self, answer: Answer) -> Result<Product<Array>> {
        let matrix = |m: ndarray::Array2<f64>| Array::new("product", m.into_dyn(), self.problem.dtype);
        let mut tensors = answer.matrices.into_iter().map(matrix).collect::<Result<Vec<_>>>()?;
        if let Some(params) = answer.params {
            tensors.extend(self.split(&params)?);
        }
        Ok(Product { values: answer.values, tensors })
    }

    fn refuse_recorded(&self, what: &str) -> Result<()> {
        match self.problem.model {
            Model::Recorded(_) => Err(Error::unsupported(what)),
            _ => Ok(()),
        }
    }
}

impl Backend for PlainBackend {
    type Tensor = Array;
    type Linearization = Linearization;

    fn info(&self, tensor: &Array) -> (Vec<usize>, DType) {
        (tensor.shape().to_vec(), tensor.dtype())
    }

    fn tensor_from_bytes(&self, dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Array> {
        self.count()?;
        Array::from_bytes(dtype, shape, bytes)
    }

    fn tensor_to_bytes(&self, tensor: &Array) -> Result<Vec<u8>> {
        self.count()?;
        Ok(tensor.to_bytes())
    }

    fn op(&self, op: TensorOp, inputs: &[&Array], scalars: &[f64], ints: &[i64]) -> Result<Vec<Array>> {
        self.count()?;
        ops::apply(op, inputs, scalars, ints)
    }

    fn op_in_place(
        &self,
        op: TensorOp,
        target: &mut Array,
        inputs: &[&Array],
        scalars: &[f64],
        ints: &[i64],
    ) -> Result<()> {
        self.count()?;
        ops::apply_in_place(op, target, inputs, scalars, ints)
    }

    fn reduce(&self, kind: ListReduction, a: &[&Array], b: &[&Array]) -> Result<Vec<f64>> {
        self.count()?;
        ops::reduce_lists(kind, a, b)
    }

    fn fused(&self, program: &Program, lists: &mut [FusedList<'_, Array>]) -> Result<()> {
        self.count()?;
        ops::run_fused(program, lists)
    }

    fn integer(&self, query: IntegerQuery) -> Result<Option<u64>> {
        Ok(match query {
            IntegerQuery::BATCH_SIZE => Some(self.problem.batch_size),
            IntegerQuery::SEQ_LEN => Some(self.problem.seq_len),
            IntegerQuery::VOCAB_SIZE => Some(self.problem.outputs() as u64),
            IntegerQuery::TOTAL_STEPS => self.problem.total_steps,
            IntegerQuery::DTYPE => Some(u64::from(self.problem.dtype.0)),
            IntegerQuery::WORLD_SIZE => Some(1),
            IntegerQuery::RANK => Some(0),
            IntegerQuery::SEED => Some(self.problem.seed),
            IntegerQuery::SHOULD_RETURN => Some(u64::from(self.should_return)),
            IntegerQuery::STEP => Some(self.step),
            other => return Err(Error::unsupported(other.name())),
        })
    }

    fn real(&self, query: RealQuery, x: f64) -> Result<f64> {
        match query {
            RealQuery::SCHEDULE => Ok((self.schedule)(x)),
            other => Err(Error::unsupported(other.name())),
        }
    }

    fn text(&self, query: TextQuery) -> Result<String> {
        match query {
            TextQuery::DEVICE => Ok("cpu".into()),
            other => Err(Error::unsupported(other.name())),
        }
    }

    fn supports(&self, what: Capability) -> bool {
        match (&self.problem.model, what) {
            (_, Capability::GRADIENT | Capability::EMA_UPDATE) => true,
            (Model::Recorded(_), _) => false,
            (_, what) => what >= Capability::LOSS && what <= Capability::SEQUENCE_DIRECTIONAL,
        }
    }

    fn draw(&mut self, purpose: Purpose, count: u64) -> Result<Position> {
        self.count()?;
        let count = if count == 0 { self.problem.batch_size } else { count };
        self.cursors.draw(purpose, count, self.problem.seq_len)
    }

    fn evaluate(
        &mut self,
        what: &Evaluation,
        params: &[&Array],
        batch: &Position,
        vector: &[&Array],
    ) -> Result<Product<Array>> {
        self.count()?;
        if let (Model::Recorded(recorded), Evaluation::Gradient(_)) = (&self.problem.model, what) {
            return self.recorded_gradient(recorded, batch);
        }
        self.refuse_recorded("everything but the gradient")?;
        let dense = self.dense(params, batch, self.fault)?;
        self.product_of(products::evaluate(&dense, what, &flatten(vector)))
    }

    fn linearize(
        &mut self,
        anchor: &[&Array],
        batch: &Position,
        _: &Structure,
        blocks: &Blocks,
    ) -> Result<Linearization> {
        self.count()?;
        self.refuse_recorded("linearize")?;
        let dense = self.dense(anchor, batch, self.fault)?;
        let each = anchor.iter().zip(blocks.of_param());
        let block_of = each.flat_map(|(array, block)| vec![*block; array.values().len()]).collect();
        Ok(Linearization::new(dense, block_of, blocks.count(), self.problem.layers()))
    }

    fn product(&mut self, at: &mut Linearization, what: &ProductKind, inputs: &[&Array]) -> Result<Product<Array>> {
        self.count()?;
        if let (ProductKind::Vjp, [cotangent]) = (what, inputs) {
            let (found, expected) = (cotangent.shape(), at.output_shape());
            if found != expected {
                return Err(Error::shape("vjp", format!("found shape {found:?}, expected {expected:?}")));
            }
        }
        self.product_of(at.product(what, &flatten(inputs))?)
    }

    fn ema_update(&mut self, params: &[&Array]) -> Result<()> {
        self.count()?;
        let average = self.ema.get_or_insert_with(|| params.iter().map(|array| (*array).clone()).collect());
        for (average, new) in average.iter_mut().zip(params) {
            let mixed = average.values() * EMA_DECAY + new.values() * (1.0 - EMA_DECAY);
            average.set(mixed);
        }
        Ok(())
    }

    fn log(&mut self, level: LogLevel, target: &str, message: &str) {
        self.log.push(format!("{} {target}: {message}", level.name()));
    }

    fn metric(&mut self, name: &str, value: f64) -> Result<()> {
        self.count()?;
        self.metrics.push((name.into(), value));
        Ok(())
    }
}

impl std::fmt::Debug for PlainBackend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PlainBackend({:?})", self.problem.model)
    }
}

/// The elements of all arrays, one after the other.
pub(super) fn flatten(arrays: &[&Array]) -> Vec<f64> {
    arrays.iter().flat_map(|array| array.values().iter().copied()).collect()
}
