//! Handles and checks in front of a backend: stale handles, aliasing, anchors, parameter lists, arguments.

use super::store::Store;
use super::{Backend, Evaluation, InitialParams, Product, ProductKind, Program};
use crate::batch::Position;
use crate::curvature::{Labels, Per, Sharing};
use crate::error::{Error, Result};
use crate::spec::ParamSpec;
use crate::structure::{Blocks, Structure};
use gauntlet_plugin_abi::*;
use serde::Deserialize;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A backend with its handles. It lives until the process ends, so that a late drop in a plugin finds it.
pub struct Session<B: Backend>(Mutex<State<B>>);

fn specs_json(specs: &[Arc<ParamSpec>]) -> Result<String> {
    let specs: Vec<&ParamSpec> = specs.iter().map(Arc::as_ref).collect();
    serde_json::to_string(&specs).map_err(|error| Error::argument("specs", error.to_string()))
}

/// Bytes of one element.
pub(super) fn element_size(dtype: DType) -> Result<usize> {
    match dtype {
        DType::F32 => Ok(4),
        DType::F64 | DType::I64 => Ok(8),
        DType::BF16 | DType::F16 => Ok(2),
        other => Err(Error::unsupported(format!("element type {}", other.name()))),
    }
}

/// Exclusive use of a session.
pub type SessionGuard<'a, B> = MutexGuard<'a, State<B>>;

/// What a session holds.
pub struct State<B: Backend> {
    /// What computes.
    pub backend: B,
    tensors: Store<Slot<B::Tensor>>,
    batches: Store<Position>,
    linearizations: Store<Anchored<B::Linearization>>,
    params: Vec<RawTensor>,
    params_written: bool,
    specs: Vec<Arc<ParamSpec>>,
    specs_json: String,
}

struct Slot<T> {
    /// `None` only while an operation that writes to it runs.
    tensor: Option<T>,
    of_plugin: bool,
    anchors: usize,
}

struct Anchored<L> {
    linearization: L,
    anchor: Vec<RawTensor>,
}

/// A list in a fused program: written ones are owned for the time of the call.
#[derive(Debug)]
pub enum FusedList<'a, T> {
    /// The program writes it (and may read it).
    Write(Vec<T>),
    /// The program reads it.
    Read(Vec<&'a T>),
}

impl<B: Backend> std::fmt::Debug for Session<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Session")
    }
}

impl<B: Backend> Session<B> {
    /// A session that lives until the process ends.
    ///
    /// # Errors
    ///
    /// Specifications that do not fit the tensors.
    pub fn start(backend: B, params: InitialParams<B::Tensor>) -> Result<&'static Self> {
        let mut state = State {
            backend,
            tensors: Store::new("tensor"),
            batches: Store::new("batch"),
            linearizations: Store::new("linearization"),
            params: vec![],
            params_written: false,
            specs_json: specs_json(&params.specs)?,
            specs: params.specs,
        };
        for tensor in params.tensors {
            let handle = state.insert(tensor, false);
            state.params.push(handle);
        }
        let params = state.params.clone();
        state.check_list("params", &params)?;
        Ok(Box::leak(Box::new(Self(Mutex::new(state)))))
    }

    /// Exclusive use, for the host between calls of a plugin.
    pub fn lock(&self) -> SessionGuard<'_, B> {
        // A poisoned lock only says that a call panicked; the guard around it has reported that.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B: Backend> State<B> {
    /// Specifications of the run's parameters.
    pub fn specs(&self) -> &[Arc<ParamSpec>] {
        &self.specs
    }

    pub(super) fn specs_json(&self) -> &str {
        &self.specs_json
    }

    /// Handles of the run's parameters.
    pub fn params(&self) -> &[RawTensor] {
        &self.params
    }

    /// The backend and the run's parameters, together.
    pub fn backend_and_params(&mut self) -> (&mut B, Vec<&B::Tensor>) {
        let params = self.params.iter().filter_map(|raw| self.tensors.get(raw.0).ok()?.tensor.as_ref()).collect();
        (&mut self.backend, params)
    }

    /// Puts other values into the run's parameters; `replace` gets each in order.
    pub fn replace_params(&mut self, mut replace: impl FnMut(usize, &mut B::Tensor)) {
        for (index, raw) in self.params.iter().enumerate() {
            if let Some(tensor) = self.tensors.get_mut(raw.0).ok().and_then(|slot| slot.tensor.as_mut()) {
                replace(index, tensor);
            }
        }
    }

    /// The tensor behind a handle.
    pub fn tensor(&self, raw: RawTensor) -> Result<&B::Tensor> {
        let slot = self.tensors.get(raw.0)?;
        slot.tensor.as_ref().ok_or_else(|| Error::new(ErrorCode::BAD_HANDLE, "tensor", "lost by a failed operation"))
    }

    fn tensors(&self, raw: &[RawTensor]) -> Result<Vec<&B::Tensor>> {
        raw.iter().map(|raw| self.tensor(*raw)).collect()
    }

    /// A new handle; `of_plugin` ones are the plugin's to free, and counted.
    pub fn insert(&mut self, tensor: B::Tensor, of_plugin: bool) -> RawTensor {
        RawTensor(self.tensors.insert(Slot { tensor: Some(tensor), of_plugin, anchors: 0 }))
    }

    /// Whether a plugin wrote to the run's parameters since this was last asked.
    pub fn take_params_written(&mut self) -> bool {
        std::mem::take(&mut self.params_written)
    }

    /// Tensors that plugins hold.
    pub fn live_tensors(&self) -> u64 {
        self.tensors.values().filter(|slot| slot.of_plugin).count() as u64
    }

    /// Batches and linearizations that plugins hold.
    pub fn live_handles(&self) -> u64 {
        (self.batches.values().count() + self.linearizations.values().count()) as u64
    }

    pub(super) fn free(&mut self, raw: RawTensor) {
        if self.tensors.get(raw.0).is_ok_and(|slot| slot.of_plugin) {
            self.tensors.remove(raw.0);
        }
    }

    /// Ends every linearization, as the end of a call of `step` does.
    pub fn end_call(&mut self) {
        self.linearizations.handles().into_iter().for_each(|handle| self.end_linearization(handle));
    }

    fn end_linearization(&mut self, handle: u64) {
        let Some(ended) = self.linearizations.remove(handle) else { return };
        for raw in ended.anchor {
            if let Ok(slot) = self.tensors.get_mut(raw.0) {
                slot.anchors = slot.anchors.saturating_sub(1);
            }
        }
    }

    /// Checks a list of one tensor a parameter.
    pub(super) fn check_list(&self, what: &str, list: &[RawTensor]) -> Result<()> {
        if list.len() != self.specs.len() {
            return Err(Error::shape(what, format!("{} tensors for {} parameters", list.len(), self.specs.len())));
        }
        let dtype = match self.params.first() {
            Some(first) => self.backend.info(self.tensor(*first)?).1,
            None => return Ok(()),
        };
        for (spec, raw) in self.specs.iter().zip(list) {
            let (shape, found) = self.backend.info(self.tensor(*raw)?);
            if shape != spec.shape {
                let message = format!("`{}` has shape {shape:?}, expected {:?}", spec.name, spec.shape);
                return Err(Error::shape(what, message));
            }
            if found != dtype {
                let message = format!("`{}` is {}, expected {}", spec.name, found.name(), dtype.name());
                return Err(Error::new(ErrorCode::DTYPE, what, message));
            }
        }
        Ok(())
    }
}

/// Tensors.
impl<B: Backend> State<B> {
    pub(super) fn info(&self, raw: RawTensor) -> Result<(Vec<usize>, DType)> {
        Ok(self.backend.info(self.tensor(raw)?))
    }

    pub(super) fn tensor_from_bytes(&mut self, dtype: DType, shape: &[usize], bytes: &[u8]) -> Result<RawTensor> {
        let size = element_size(dtype)?;
        let expected = shape.iter().try_fold(size, |product, size| product.checked_mul(*size));
        if expected != Some(bytes.len()) {
            let message = format!("{} bytes for shape {shape:?} of {}", bytes.len(), dtype.name());
            return Err(Error::shape("tensor_from_bytes", message));
        }
        let tensor = self.backend.tensor_from_bytes(dtype, shape, bytes)?;
        Ok(self.insert(tensor, true))
    }

    pub(super) fn op(
        &mut self,
        op: TensorOp,
        inputs: &[RawTensor],
        scalars: &[f64],
        ints: &[i64],
    ) -> Result<Vec<RawTensor>> {
        let outputs = self.backend.op(op, &self.tensors(inputs)?, scalars, ints)?;
        Ok(outputs.into_iter().map(|tensor| self.insert(tensor, true)).collect())
    }

    pub(super) fn op_in_place(
        &mut self,
        op: TensorOp,
        target: RawTensor,
        inputs: &[RawTensor],
        scalars: &[f64],
        ints: &[i64],
    ) -> Result<()> {
        if inputs.contains(&target) {
            return Err(Error::new(ErrorCode::ALIAS, op.name(), "the target is also an input"));
        }
        self.tensors(inputs)?;
        let mut tensor = self.take(target, &op.name())?;
        let outcome =
            (self.tensors(inputs)).and_then(|inputs| self.backend.op_in_place(op, &mut tensor, &inputs, scalars, ints));
        self.put_back(target, tensor);
        outcome
    }

    /// Takes a tensor out of its slot to write to it.
    fn take(&mut self, raw: RawTensor, what: &str) -> Result<B::Tensor> {
        let slot = self.tensors.get_mut(raw.0)?;
        self.params_written |= !slot.of_plugin;
        if slot.anchors > 0 {
            return Err(Error::new(ErrorCode::ANCHORED, what, "a linearization is anchored on the target"));
        }
        slot.tensor.take().ok_or_else(|| Error::new(ErrorCode::BAD_HANDLE, what, "lost by a failed operation"))
    }

    fn put_back(&mut self, raw: RawTensor, tensor: B::Tensor) {
        if let Ok(slot) = self.tensors.get_mut(raw.0) {
            slot.tensor = Some(tensor);
        }
    }

    pub(super) fn random(
        &mut self,
        kind: RandomKind,
        dtype: DType,
        shape: &[usize],
        key: &RandomKey,
    ) -> Result<RawTensor> {
        let count = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
        let count = count.ok_or_else(|| Error::shape("random", format!("shape {shape:?} is too large")))?;
        let numbers = crate::random::fill(kind, key, count)
            .ok_or_else(|| Error::unsupported(format!("random kind {}", kind.name())))?;
        let bytes: Vec<u8> = match dtype {
            DType::F32 => numbers.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect(),
            DType::F64 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            other => return Err(Error::unsupported(format!("random numbers of type {}", other.name()))),
        };
        self.tensor_from_bytes(dtype, shape, &bytes)
    }

    pub(super) fn reduce(&self, kind: ListReduction, a: &[RawTensor], b: &[RawTensor]) -> Result<Vec<f64>> {
        if b.len() != if kind == ListReduction::DOT { a.len() } else { 0 } {
            return Err(Error::shape(kind.name(), format!("lists of {} and {} tensors", a.len(), b.len())));
        }
        let (a, b) = (self.tensors(a)?, self.tensors(b)?);
        for (a, b) in a.iter().zip(&b) {
            self.same(&kind.name(), a, b)?;
        }
        self.backend.reduce(kind, &a, &b)
    }

    fn same(&self, what: &str, a: &B::Tensor, b: &B::Tensor) -> Result<()> {
        let ((shape, dtype), (other_shape, other_dtype)) = (self.backend.info(a), self.backend.info(b));
        if shape != other_shape {
            return Err(Error::shape(what, format!("shapes {shape:?} and {other_shape:?} differ")));
        }
        if dtype != other_dtype {
            let message = format!("{} and {} differ", dtype.name(), other_dtype.name());
            return Err(Error::new(ErrorCode::DTYPE, what, message));
        }
        Ok(())
    }

    pub(super) fn fused(&mut self, code: &[RawInstruction], handles: &[RawTensor], lists: usize) -> Result<()> {
        let program = Program::parse(code, lists)?;
        if lists == 0 || !handles.len().is_multiple_of(lists) {
            return Err(Error::shape("fused", format!("{} tensors in {lists} lists", handles.len())));
        }
        let length = handles.len() / lists;
        let list = |index: usize| &handles[index * length..(index + 1) * length];
        let written: Vec<usize> = program.stores.iter().map(|(list, _)| *list).collect();
        for (first, other) in (1..lists).flat_map(|other| list(0).iter().zip(list(other))) {
            self.same("fused", self.tensor(*first)?, self.tensor(*other)?)?;
        }
        check_aliases(&written, lists, list)?;
        for raw in written.iter().flat_map(|index| list(*index)) {
            if self.tensors.get(raw.0)?.anchors > 0 {
                return Err(Error::new(ErrorCode::ANCHORED, "fused", "a linearization is anchored on an output"));
            }
        }
        self.run_fused(&program, &written, lists, list)
    }

    fn run_fused<'h>(
        &mut self,
        program: &Program,
        written: &[usize],
        lists: usize,
        list: impl Fn(usize) -> &'h [RawTensor],
    ) -> Result<()> {
        let mut taken = Vec::new();
        for index in written {
            taken.push(list(*index).iter().map(|raw| self.take(*raw, "fused")).collect::<Result<Vec<_>>>()?);
        }
        let mut taken = taken.into_iter();
        let mut operands = Vec::new();
        for index in 0..lists {
            operands.push(match written.contains(&index) {
                true => None,
                false => Some(FusedList::Read(self.tensors(list(index))?)),
            });
        }
        for index in written {
            operands[*index] = taken.next().map(FusedList::Write);
        }
        let mut operands: Vec<_> = operands.into_iter().flatten().collect();
        let outcome = self.backend.fused(program, &mut operands);
        let back: Vec<(RawTensor, B::Tensor)> = (operands.into_iter().enumerate())
            .filter_map(|(index, operand)| match operand {
                FusedList::Write(tensors) => Some(list(index).iter().copied().zip(tensors)),
                FusedList::Read(_) => None,
            })
            .flatten()
            .collect();
        back.into_iter().for_each(|(raw, tensor)| self.put_back(raw, tensor));
        outcome
    }
}

/// No tensor that is written appears a second time.
fn check_aliases<'h>(written: &[usize], lists: usize, list: impl Fn(usize) -> &'h [RawTensor]) -> Result<()> {
    let mut outputs = HashSet::new();
    let twice = written.iter().flat_map(|index| list(*index)).any(|raw| !outputs.insert(*raw));
    let read = (0..lists).filter(|index| !written.contains(index)).flat_map(list).any(|raw| outputs.contains(raw));
    match twice || read {
        true => Err(Error::new(ErrorCode::ALIAS, "fused", "a tensor that is written appears twice")),
        false => Ok(()),
    }
}

/// Batches.
impl<B: Backend> State<B> {
    pub(super) fn batch_next(&mut self, purpose: Purpose, count: u64) -> Result<RawBatch> {
        let known = Purpose::ALL.iter().any(|(code, _)| *code == purpose);
        if !known {
            return Err(Error::unsupported(format!("batches for {}", purpose.name())));
        }
        let position = self.backend.draw(purpose, count)?;
        Ok(RawBatch(self.batches.insert(position)))
    }

    pub(super) fn batch_at(&mut self, position: &str) -> Result<RawBatch> {
        let position = Position::from_json(position)?;
        position.check()?;
        Ok(RawBatch(self.batches.insert(position)))
    }

    pub(super) fn batch_position(&self, raw: RawBatch) -> Result<String> {
        self.batches.get(raw.0)?.to_json()
    }

    pub(super) fn batch_slice(&mut self, raw: RawBatch, first: u64, count: u64) -> Result<RawBatch> {
        let position = self.batches.get(raw.0)?.slice(first, count)?;
        Ok(RawBatch(self.batches.insert(position)))
    }

    pub(super) fn batch_concat(&mut self, raw: &[RawBatch]) -> Result<RawBatch> {
        let positions = raw.iter().map(|raw| self.batches.get(raw.0)).collect::<Result<Vec<_>>>()?;
        let position = Position::concat(positions)?;
        Ok(RawBatch(self.batches.insert(position)))
    }

    pub(super) fn batch_free(&mut self, raw: RawBatch) {
        self.batches.remove(raw.0);
    }
}

/// Arguments of evaluations and products, as JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Args {
    labels: Labels,
    per: Per,
    sharing: Sharing,
    names: Vec<String>,
    weights: Vec<f64>,
    structure: Structure,
}

impl Args {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "" => Ok(Self::default()),
            text => serde_json::from_str(text).map_err(|error| Error::argument("arguments", error.to_string())),
        }
    }
}

/// Evaluations and products.
impl<B: Backend> State<B> {
    pub(super) fn evaluate(
        &mut self,
        what: Capability,
        params: &[RawTensor],
        batch: RawBatch,
        vector: &[RawTensor],
        args: &str,
    ) -> Result<Product<RawTensor>> {
        let args = Args::parse(args)?;
        let kind = match what {
            Capability::LOSS => Evaluation::Loss,
            Capability::LOSSES => Evaluation::Losses,
            Capability::GRADIENT => Evaluation::Gradient(args.labels),
            Capability::SQUARED_GRADIENT => Evaluation::SquaredGradient(args.per, args.labels),
            Capability::FISHER_VECTOR_PRODUCT => Evaluation::FisherVectorProduct(args.labels),
            other => return Err(Error::unsupported(other.name())),
        };
        self.check_list(&what.name(), params)?;
        if matches!(kind, Evaluation::FisherVectorProduct(_)) {
            self.check_list(&what.name(), vector)?;
        }
        let position = self.batches.get(batch.0)?.clone();
        let product = {
            let params = lookup(&self.tensors, params)?;
            let vector = lookup(&self.tensors, vector)?;
            self.backend.evaluate(&kind, &params, &position, &vector)?
        };
        Ok(self.give(product))
    }

    pub(super) fn linearize(&mut self, anchor: &[RawTensor], batch: RawBatch, args: &str) -> Result<RawLinearization> {
        self.check_list("linearize", anchor)?;
        let structure = Args::parse(args)?.structure;
        let blocks = Blocks::resolve(&structure, &self.specs)?;
        let position = self.batches.get(batch.0)?.clone();
        let linearization = {
            let anchor = lookup(&self.tensors, anchor)?;
            self.backend.linearize(&anchor, &position, &structure, &blocks)?
        };
        for raw in anchor {
            self.tensors.get_mut(raw.0)?.anchors += 1;
        }
        let anchored = Anchored { linearization, anchor: anchor.to_vec() };
        Ok(RawLinearization(self.linearizations.insert(anchored)))
    }

    pub(super) fn product(
        &mut self,
        at: RawLinearization,
        what: Capability,
        inputs: &[RawTensor],
        args: &str,
    ) -> Result<Product<RawTensor>> {
        let args = Args::parse(args)?;
        let kind = product_kind(what, args)?;
        let takes_params = matches!(
            kind,
            ProductKind::Jvp
                | ProductKind::GgnVectorProduct
                | ProductKind::Quadratic
                | ProductKind::ProxLinear
                | ProductKind::HessianVectorProduct
                | ProductKind::SequenceDirectional
        );
        let expected = if kind == ProductKind::Vjp { 1 } else { 0 };
        match takes_params {
            true => self.check_list(&what.name(), inputs)?,
            false if inputs.len() != expected => {
                return Err(Error::shape(what.name(), format!("{} tensors, expected {expected}", inputs.len())));
            }
            false => {}
        }
        let product = {
            let inputs = lookup(&self.tensors, inputs)?;
            let anchored = self.linearizations.get_mut(at.0)?;
            self.backend.product(&mut anchored.linearization, &kind, &inputs)?
        };
        Ok(self.give(product))
    }

    pub(super) fn linearization_free(&mut self, raw: RawLinearization) {
        self.end_linearization(raw.0);
    }

    pub(super) fn ema_update(&mut self, params: &[RawTensor]) -> Result<()> {
        self.check_list("ema_update", params)?;
        let params = lookup(&self.tensors, params)?;
        self.backend.ema_update(&params)
    }

    fn give(&mut self, product: Product<B::Tensor>) -> Product<RawTensor> {
        let tensors = product.tensors.into_iter().map(|tensor| self.insert(tensor, true)).collect();
        Product { values: product.values, tensors }
    }
}

fn product_kind(what: Capability, args: Args) -> Result<ProductKind> {
    Ok(match what {
        Capability::ANCHOR_LOSS => ProductKind::Loss,
        Capability::ANCHOR_GRADIENT => ProductKind::Gradient,
        Capability::JVP => ProductKind::Jvp,
        Capability::VJP => ProductKind::Vjp,
        Capability::GGN_VECTOR_PRODUCT => ProductKind::GgnVectorProduct,
        Capability::QUADRATIC => ProductKind::Quadratic,
        Capability::PROX_LINEAR => ProductKind::ProxLinear,
        Capability::HESSIAN_VECTOR_PRODUCT => ProductKind::HessianVectorProduct,
        Capability::KRONECKER_FACTORS => {
            ProductKind::KroneckerFactors { names: args.names, labels: args.labels, sharing: args.sharing }
        }
        Capability::GRADIENT_WEIGHTED => ProductKind::GradientWeighted(args.weights),
        Capability::SEQUENCE_DIRECTIONAL => ProductKind::SequenceDirectional,
        other => return Err(Error::unsupported(other.name())),
    })
}

fn lookup<'a, T>(store: &'a Store<Slot<T>>, raw: &[RawTensor]) -> Result<Vec<&'a T>> {
    let lost = || Error::new(ErrorCode::BAD_HANDLE, "tensor", "lost by a failed operation");
    raw.iter().map(|raw| store.get(raw.0)?.tensor.as_ref().ok_or_else(lost)).collect()
}
