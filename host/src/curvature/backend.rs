//! The backend on libtorch: tensors, batches, losses and gradients for a plugin.

use super::ema::Ema;
use super::problem::Problem;
use super::tensor;
use crate::error::{Fault, Result as HostResult};
use gauntlet_plugin_abi::{
    Capability, DType, ErrorCode, IntegerQuery, ListReduction, LogLevel, Purpose, RealQuery, TensorOp, TextQuery,
};
use gauntlet_plugin_api::backend::{Backend, Evaluation, FusedList, Product, ProductKind, Program};
use gauntlet_plugin_api::{Blocks, Error, Labels, Part, Position, Result, Structure};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// What does not change during a run.
#[derive(Clone, Debug)]
pub struct RunFacts {
    /// Sequences of one step.
    pub batch_size: u64,
    /// Steps of the run, where it has a number.
    pub total_steps: Option<u64>,
    /// Seed of all randomness.
    pub seed: u64,
    /// Where parameters live.
    pub device: Device,
    /// `Float` or `Double`.
    pub kind: Kind,
}

/// How far each stream of data has been drawn, in sequences. Plain data, part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streams(BTreeMap<u32, u64>);

impl Streams {
    /// Sequences drawn for a purpose.
    pub fn drawn(&self, purpose: Purpose) -> u64 {
        self.0.get(&purpose.0).copied().unwrap_or(0)
    }

    /// Sets the sequences drawn for a purpose.
    pub fn set(&mut self, purpose: Purpose, sequences: u64) {
        self.0.insert(purpose.0, sequences);
    }
}

/// Calls of one kind: how many, over how many tokens, with how many floating-point operations, for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CallCount {
    /// Calls.
    pub calls: u64,
    /// Predicted tokens, each time they were used.
    pub tokens: u64,
    /// Floating-point operations.
    pub flops: f64,
    /// Wall time.
    pub time: Duration,
}

type Schedule = Box<dyn Fn(f64) -> f64 + Send>;

/// Answers a plugin's questions with libtorch.
pub struct TorchBackend {
    facts: RunFacts,
    problem: Box<dyn Problem>,
    schedule: Schedule,
    /// Set when a stop is asked for: long steps return soon.
    pub stop: Arc<AtomicBool>,
    /// When a long step should return at the latest, so that the host can save.
    pub return_by: Option<Instant>,
    /// Floating-point operations of earlier processes of the run.
    pub earlier_flops: f64,
    /// Position in the data.
    pub streams: Streams,
    /// The average of the parameters, if the run keeps one.
    pub ema: Option<Ema>,
    /// Calls by kind since the start.
    pub calls: BTreeMap<Capability, CallCount>,
    /// Metrics that the plugin set since the host last took them.
    pub metrics: Vec<(String, f64)>,
    /// Log lines of the plugin since the host last took them.
    pub logs: Vec<(LogLevel, String)>,
    /// The host's own error behind the last failed call, with its exit code.
    pub fault: Option<Fault>,
}

impl TorchBackend {
    /// A backend for a problem; `schedule` is the multiplier in [0, 1] at a fractional step.
    pub fn new(facts: RunFacts, problem: Box<dyn Problem>, schedule: Schedule) -> Self {
        Self {
            facts,
            problem,
            schedule,
            stop: Arc::default(),
            return_by: None,
            earlier_flops: 0.0,
            streams: Streams::default(),
            ema: None,
            calls: BTreeMap::new(),
            metrics: vec![],
            logs: vec![],
            fault: None,
        }
    }

    /// What does not change during the run.
    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    /// Floating-point operations of the run so far.
    pub fn flops(&self) -> f64 {
        self.earlier_flops + self.calls.values().map(|count| count.flops).sum::<f64>()
    }

    /// The problem that is optimized.
    pub fn problem(&self) -> &dyn Problem {
        self.problem.as_ref()
    }

    fn should_return(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.return_by.is_some_and(|by| Instant::now() >= by)
    }

    /// Turns the host's error into one for the plugin and remembers it with its exit code.
    fn answer<T>(&mut self, result: HostResult<T>) -> Result<T> {
        result.map_err(|fault| {
            let error = Error::new(ErrorCode::DATA, "", fault.to_string());
            self.fault = Some(fault);
            error
        })
    }

    fn count(&mut self, what: Capability, batch: &Position, passes: f64, started: Instant) {
        let flops = passes * self.problem.forward_flops(batch.sequences);
        let count = self.calls.entry(what).or_default();
        count.calls += 1;
        count.tokens += batch.tokens;
        count.flops += flops;
        count.time += started.elapsed();
    }
}

impl Backend for TorchBackend {
    type Tensor = Tensor;
    /// Linearizations are not offered, so none exists.
    type Linearization = std::convert::Infallible;

    fn info(&self, tensor: &Tensor) -> (Vec<usize>, DType) {
        tensor::info(tensor)
    }

    fn tensor_from_bytes(&self, dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<Tensor> {
        tensor::from_bytes(self.facts.device, dtype, shape, bytes)
    }

    fn tensor_to_bytes(&self, tensor: &Tensor) -> Result<Vec<u8>> {
        tensor::to_bytes(tensor)
    }

    fn op(&self, op: TensorOp, inputs: &[&Tensor], scalars: &[f64], ints: &[i64]) -> Result<Vec<Tensor>> {
        tensor::op(self.facts.device, op, inputs, scalars, ints)
    }

    fn op_in_place(
        &self,
        op: TensorOp,
        target: &mut Tensor,
        inputs: &[&Tensor],
        scalars: &[f64],
        ints: &[i64],
    ) -> Result<()> {
        tensor::op_in_place(op, target, inputs, scalars, ints)
    }

    fn reduce(&self, kind: ListReduction, a: &[&Tensor], b: &[&Tensor]) -> Result<Vec<f64>> {
        tensor::reduce(kind, a, b)
    }

    fn fused(&self, program: &Program, lists: &mut [FusedList<'_, Tensor>]) -> Result<()> {
        tensor::fused(program, lists)
    }

    fn integer(&self, query: IntegerQuery) -> Result<Option<u64>> {
        Ok(match query {
            IntegerQuery::BATCH_SIZE => Some(self.facts.batch_size),
            IntegerQuery::SEQ_LEN => Some(self.problem.seq_len() as u64),
            IntegerQuery::VOCAB_SIZE => Some(self.problem.vocab_size() as u64),
            IntegerQuery::TOTAL_STEPS => self.facts.total_steps,
            IntegerQuery::DTYPE => {
                Some(u64::from(if self.facts.kind == Kind::Double { DType::F64.0 } else { DType::F32.0 }))
            }
            IntegerQuery::WORLD_SIZE => Some(1),
            IntegerQuery::RANK => Some(0),
            IntegerQuery::SEED => Some(self.facts.seed),
            IntegerQuery::SHOULD_RETURN => Some(u64::from(self.should_return())),
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
        match (query, self.facts.device) {
            (TextQuery::DEVICE, Device::Cuda(index)) => Ok(format!("cuda:{index}")),
            (TextQuery::DEVICE, _) => Ok("cpu".into()),
            (other, _) => Err(Error::unsupported(other.name())),
        }
    }

    fn supports(&self, what: Capability) -> bool {
        match what {
            Capability::LOSS | Capability::LOSSES | Capability::GRADIENT => true,
            Capability::EMA_UPDATE => self.ema.is_some(),
            _ => false,
        }
    }

    fn draw(&mut self, purpose: Purpose, count: u64) -> Result<Position> {
        let count = if count == 0 { self.facts.batch_size } else { count };
        let first = self.streams.drawn(purpose);
        self.streams.set(purpose, first + count);
        let tokens = count * self.problem.seq_len() as u64;
        Ok(Position { parts: vec![Part { purpose: purpose.0, first, count }], sequences: count, tokens })
    }

    fn evaluate(
        &mut self,
        what: &Evaluation,
        params: &[&Tensor],
        batch: &Position,
        _vector: &[&Tensor],
    ) -> Result<Product<Tensor>> {
        let started = Instant::now();
        let (capability, passes, product) = match what {
            Evaluation::Loss => {
                let loss = self.problem.loss(params, batch);
                (Capability::LOSS, 1.0, Product { values: vec![self.answer(loss)?], tensors: vec![] })
            }
            Evaluation::Losses => {
                let losses = self.problem.losses(params, batch);
                (Capability::LOSSES, 1.0, Product { values: self.answer(losses)?, tensors: vec![] })
            }
            Evaluation::Gradient(Labels::Data) => {
                let gradient = self.problem.loss_and_gradient(params, batch);
                let (loss, tensors) = self.answer(gradient)?;
                (Capability::GRADIENT, 3.0, Product { values: vec![loss], tensors })
            }
            Evaluation::Gradient(_) => return Err(Error::unsupported("gradient at sampled labels")),
            Evaluation::SquaredGradient(..) => return Err(Error::unsupported(Capability::SQUARED_GRADIENT.name())),
            Evaluation::FisherVectorProduct(_) => {
                return Err(Error::unsupported(Capability::FISHER_VECTOR_PRODUCT.name()));
            }
        };
        self.count(capability, batch, passes, started);
        Ok(product)
    }

    fn linearize(
        &mut self,
        _anchor: &[&Tensor],
        _batch: &Position,
        _structure: &Structure,
        _blocks: &Blocks,
    ) -> Result<Self::Linearization> {
        Err(Error::unsupported(Capability::LINEARIZE.name()))
    }

    fn product(
        &mut self,
        at: &mut Self::Linearization,
        _what: &ProductKind,
        _inputs: &[&Tensor],
    ) -> Result<Product<Tensor>> {
        match *at {}
    }

    fn ema_update(&mut self, params: &[&Tensor]) -> Result<()> {
        let ema = self.ema.as_mut().ok_or_else(|| Error::argument("ema_update", "the run keeps no average"))?;
        ema.update(params);
        Ok(())
    }

    fn log(&mut self, level: LogLevel, _target: &str, message: &str) {
        self.logs.push((level, message.to_owned()));
    }

    fn metric(&mut self, name: &str, value: f64) -> Result<()> {
        self.metrics.push((name.to_owned(), value));
        Ok(())
    }
}
