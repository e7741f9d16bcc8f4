//! The backend on libtorch: tensors, batches, losses and gradients for a plugin.

use super::ema::Ema;
use super::linearization::Linearization;
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
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
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
    /// Counts calls as signs of life.
    pub pulse: Arc<AtomicU64>,
    /// When a long step should return at the latest, so that the host can save.
    pub return_by: Option<Instant>,
    /// Whether a call waits for the device before it begins and before it ends, so that its time is its own.
    pub synchronizes: bool,
    /// Finished steps: part of the keys of sampled labels.
    pub step: u64,
    /// Largest `[tokens, vocabulary]` tensor that a plugin may ask for, in bytes.
    pub max_output_bytes: u64,
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
            pulse: Arc::default(),
            return_by: None,
            synchronizes: false,
            step: 0,
            max_output_bytes: u64::MAX,
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

    fn linearized(
        &mut self,
        anchor: &[&Tensor],
        batch: &Position,
        blocks: &Blocks,
        what: Capability,
    ) -> Result<Linearization> {
        let at = self.problem.linearize(anchor, batch, blocks, self.step);
        let at = at.ok_or_else(|| Error::unsupported(what.name()))?;
        self.answer(at)
    }

    /// The time at which a call begins.
    fn begin(&self) -> Instant {
        self.wait_for_device();
        Instant::now()
    }

    fn wait_for_device(&self) {
        if let (true, Device::Cuda(index)) = (self.synchronizes, self.facts.device) {
            tch::Cuda::synchronize(index as i64);
        }
    }

    fn count(&mut self, what: Capability, tokens: u64, flops: f64, started: Instant) {
        self.wait_for_device();
        let count = self.calls.entry(what).or_default();
        count.calls += 1;
        self.pulse.fetch_add(1, Ordering::Relaxed);
        count.tokens += tokens;
        count.flops += flops;
        count.time += started.elapsed();
    }
}

impl Backend for TorchBackend {
    type Tensor = Tensor;
    type Linearization = Linearization;

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

    fn dlpack(&self, tensor: &Tensor) -> Result<*mut ()> {
        tensor::dlpack(tensor)
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
            IntegerQuery::STEP => Some(self.step),
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
            Capability::LOSS | Capability::LOSSES | Capability::GRADIENT | Capability::DLPACK => true,
            Capability::SQUARED_GRADIENT
            | Capability::FISHER_VECTOR_PRODUCT
            | Capability::LINEARIZE
            | Capability::ANCHOR_LOSS
            | Capability::ANCHOR_GRADIENT
            | Capability::JVP
            | Capability::VJP
            | Capability::GGN_VECTOR_PRODUCT
            | Capability::HESSIAN_VECTOR_PRODUCT
            | Capability::QUADRATIC
            | Capability::PROX_LINEAR
            | Capability::KRONECKER_FACTORS
            | Capability::GRADIENT_WEIGHTED
            | Capability::SEQUENCE_DIRECTIONAL => self.problem.has_curvature(),
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
        vector: &[&Tensor],
    ) -> Result<Product<Tensor>> {
        let started = self.begin();
        let forward = self.problem.forward_flops(batch.sequences);
        let numbers = |values| Product { values, tensors: vec![] };
        let (capability, flops, product) = match what {
            Evaluation::Loss => {
                let loss = self.problem.loss(params, batch);
                (Capability::LOSS, forward, numbers(vec![self.answer(loss)?]))
            }
            Evaluation::Losses => {
                let losses = self.problem.losses(params, batch);
                (Capability::LOSSES, forward, numbers(self.answer(losses)?))
            }
            Evaluation::Gradient(Labels::Data) => {
                let gradient = self.problem.loss_and_gradient(params, batch);
                let (loss, tensors) = self.answer(gradient)?;
                (Capability::GRADIENT, 3.0 * forward, Product { values: vec![loss], tensors })
            }
            other => {
                let blocks = Blocks::whole(params.len());
                let mut at = self.linearized(params, batch, &blocks, evaluation(other))?;
                let product = evaluate_at(&mut at, other, vector);
                (evaluation(other), at.take_flops(), product)
            }
        };
        self.count(capability, batch.tokens, flops, started);
        Ok(product)
    }

    fn linearize(
        &mut self,
        anchor: &[&Tensor],
        batch: &Position,
        _structure: &Structure,
        blocks: &Blocks,
    ) -> Result<Linearization> {
        self.linearized(anchor, batch, blocks, Capability::LINEARIZE)
    }

    fn product(&mut self, at: &mut Linearization, what: &ProductKind, inputs: &[&Tensor]) -> Result<Product<Tensor>> {
        let started = self.begin();
        let [rows, vocab_size] = at.output_shape();
        if *what == ProductKind::Jvp {
            let bytes = (rows * vocab_size * self.facts.kind.elt_size_in_bytes()) as u64;
            if bytes > self.max_output_bytes {
                let found =
                    format!("[{rows}, {vocab_size}] is {bytes} bytes, expected at most {}", self.max_output_bytes);
                return Err(Error::argument("jvp", format!("{found}; hint: `curvature.max_output_bytes`")));
            }
        }
        let product = product_at(at, what, inputs)?;
        self.count(capability(what), rows as u64, at.take_flops(), started);
        Ok(product)
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

/// What is counted for an evaluation.
fn evaluation(what: &Evaluation) -> Capability {
    match what {
        Evaluation::Loss => Capability::LOSS,
        Evaluation::Losses => Capability::LOSSES,
        Evaluation::Gradient(_) => Capability::GRADIENT,
        Evaluation::SquaredGradient(..) => Capability::SQUARED_GRADIENT,
        Evaluation::FisherVectorProduct(_) => Capability::FISHER_VECTOR_PRODUCT,
    }
}

/// Evaluations that a linearization at the parameters gives.
fn evaluate_at(at: &mut Linearization, what: &Evaluation, vector: &[&Tensor]) -> Product<Tensor> {
    match what {
        Evaluation::Loss => Product { values: vec![at.loss()], tensors: vec![] },
        Evaluation::Losses => Product { values: at.losses(), tensors: vec![] },
        Evaluation::Gradient(labels) => {
            let (loss, tensors) = at.gradient(*labels);
            Product { values: vec![loss], tensors }
        }
        Evaluation::SquaredGradient(per, labels) => {
            Product { values: vec![], tensors: at.squared_gradient(*per, *labels) }
        }
        Evaluation::FisherVectorProduct(labels) => {
            Product { values: vec![], tensors: at.fisher_vector_product(vector, *labels) }
        }
    }
}

/// What is counted for a product.
fn capability(what: &ProductKind) -> Capability {
    match what {
        ProductKind::Loss => Capability::ANCHOR_LOSS,
        ProductKind::Gradient => Capability::ANCHOR_GRADIENT,
        ProductKind::Jvp => Capability::JVP,
        ProductKind::Vjp => Capability::VJP,
        ProductKind::GgnVectorProduct => Capability::GGN_VECTOR_PRODUCT,
        ProductKind::Quadratic => Capability::QUADRATIC,
        ProductKind::ProxLinear => Capability::PROX_LINEAR,
        ProductKind::HessianVectorProduct => Capability::HESSIAN_VECTOR_PRODUCT,
        ProductKind::KroneckerFactors { .. } => Capability::KRONECKER_FACTORS,
        ProductKind::GradientWeighted(_) => Capability::GRADIENT_WEIGHTED,
        ProductKind::SequenceDirectional => Capability::SEQUENCE_DIRECTIONAL,
    }
}

fn product_at(at: &mut Linearization, what: &ProductKind, inputs: &[&Tensor]) -> Result<Product<Tensor>> {
    let numbers = |values| Product { values, tensors: vec![] };
    let tensors = |tensors| Product { values: vec![], tensors };
    Ok(match what {
        ProductKind::Loss => numbers(vec![at.loss()]),
        ProductKind::Gradient => tensors(at.gradient(Labels::Data).1),
        ProductKind::Jvp => tensors(vec![at.jvp(inputs)]),
        ProductKind::Vjp => tensors(at.vjp(inputs[0])?),
        ProductKind::GgnVectorProduct => tensors(at.ggn_vector_product(inputs)),
        ProductKind::Quadratic => at.quadratic(inputs),
        ProductKind::ProxLinear => at.prox_linear(inputs),
        ProductKind::HessianVectorProduct => tensors(at.hessian_vector_product(inputs)),
        ProductKind::KroneckerFactors { names, labels, sharing } => {
            tensors(at.kronecker_factors(names, *labels, *sharing)?)
        }
        ProductKind::GradientWeighted(weights) => tensors(at.gradient_weighted(weights)?),
        ProductKind::SequenceDirectional => numbers(at.sequence_directional(inputs)),
    })
}
