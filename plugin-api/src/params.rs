//! An ordered list of named tensors: the model's parameters, a gradient, a direction, an optimizer's moments.

use crate::error::{Error, Result, raise};
use crate::fused::fused;
use crate::host::Link;
use crate::spec::{ParamSpec, Role};
use crate::structure::Blocks;
use crate::tensor::Tensor;
use gauntlet_plugin_abi::{DType, ListReduction, RawTensor};
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

/// Tensors in the order of the model's parameters, each with its specification.
///
/// Arithmetic runs as one fused pass over memory on all cores; reductions accumulate in f64. Its clone is a deep copy.
#[derive(Debug)]
pub struct Params {
    link: Link,
    dtype: DType,
    specs: Vec<Arc<ParamSpec>>,
    tensors: Vec<Tensor>,
}

impl Params {
    pub(crate) fn new(link: Link, dtype: DType, specs: Vec<Arc<ParamSpec>>, tensors: Vec<Tensor>) -> Result<Self> {
        match specs.len() == tensors.len() {
            true => Ok(Self { link, dtype, specs, tensors }),
            false => Err(Error::shape("params", format!("{} tensors for {} parameters", tensors.len(), specs.len()))),
        }
    }

    pub(crate) fn link(&self) -> Link {
        self.link
    }

    pub(crate) fn raw(&self) -> Vec<RawTensor> {
        self.tensors.iter().map(Tensor::raw).collect()
    }

    /// The same parameters with other tensors.
    pub(crate) fn like(&self, tensors: Vec<Tensor>) -> Result<Self> {
        Self::new(self.link, self.dtype, self.specs.clone(), tensors)
    }

    /// Number of parameters (tensors).
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.specs.iter().map(|spec| spec.numel()).sum()
    }

    /// Bytes of all elements.
    pub fn bytes(&self) -> u64 {
        let size = match self.dtype {
            DType::F64 | DType::I64 => 8,
            DType::BF16 | DType::F16 => 2,
            _ => 4,
        };
        self.numel() as u64 * size
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Specifications, in order.
    pub fn specs(&self) -> &[Arc<ParamSpec>] {
        &self.specs
    }

    /// Specification and tensor of each parameter, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&ParamSpec, &Tensor)> {
        self.specs.iter().map(Arc::as_ref).zip(&self.tensors)
    }

    /// As [`Params::iter`], to write to.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = (&ParamSpec, &mut Tensor)> {
        self.specs.iter().map(Arc::as_ref).zip(&mut self.tensors)
    }

    /// The tensor of a name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(spec, _)| spec.name == name).map(|(_, tensor)| tensor)
    }

    /// The tensor of a name, to write to.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Tensor> {
        self.iter_mut().find(|(spec, _)| spec.name == name).map(|(_, tensor)| tensor)
    }

    /// Zeros of the same shapes.
    pub fn zeros_like(&self) -> Result<Self> {
        self.try_map(Tensor::zeros_like)
    }

    /// A deep copy.
    pub fn try_clone(&self) -> Result<Self> {
        self.try_map(Tensor::try_clone)
    }

    /// One new tensor for each.
    pub fn try_map(&self, f: impl FnMut(&Tensor) -> Result<Tensor>) -> Result<Self> {
        self.like(self.tensors.iter().map(f).collect::<Result<_>>()?)
    }

    /// A view of some parameters that takes every operation.
    pub fn select(&self, choose: impl Fn(&ParamSpec) -> bool) -> Selection<'_> {
        Selection { params: self.chosen(choose), source: PhantomData }
    }

    /// A view of some parameters, to write to.
    pub fn select_mut(&mut self, choose: impl Fn(&ParamSpec) -> bool) -> SelectionMut<'_> {
        SelectionMut { params: self.chosen(choose), source: PhantomData }
    }

    /// A view of the parameters of one role.
    pub fn role(&self, role: Role) -> Selection<'_> {
        self.select(|spec| spec.role == role)
    }

    fn chosen(&self, choose: impl Fn(&ParamSpec) -> bool) -> Self {
        let chosen = || self.specs.iter().zip(&self.tensors).filter(|(spec, _)| choose(spec));
        Self {
            link: self.link,
            dtype: self.dtype,
            specs: chosen().map(|(spec, _)| spec.clone()).collect(),
            tensors: chosen().map(|(_, tensor)| Tensor::borrowed(self.link, tensor.raw())).collect(),
        }
    }
}

/// Arithmetic in place.
impl Params {
    /// `a <- number a`.
    pub fn scale_(&mut self, number: f64) -> Result<&mut Self> {
        fused([self], [], |[a], []| [number * a])?;
        Ok(self)
    }

    /// `a <- a + alpha x`.
    pub fn axpy_(&mut self, alpha: f64, x: &Self) -> Result<&mut Self> {
        fused([self], [x], |[a], [x]| [a + alpha * x])?;
        Ok(self)
    }

    /// `a <- a + weight (end - a)`.
    pub fn lerp_(&mut self, end: &Self, weight: f64) -> Result<&mut Self> {
        fused([self], [end], |[a], [end]| [a + weight * (end - a)])?;
        Ok(self)
    }

    /// `a <- a * x`, elementwise.
    pub fn mul_(&mut self, x: &Self) -> Result<&mut Self> {
        fused([self], [x], |[a], [x]| [a * x])?;
        Ok(self)
    }

    /// `a <- a / x`, elementwise.
    pub fn div_(&mut self, x: &Self) -> Result<&mut Self> {
        fused([self], [x], |[a], [x]| [a / x])?;
        Ok(self)
    }

    /// `a <- x`.
    pub fn copy_(&mut self, x: &Self) -> Result<&mut Self> {
        fused([self], [x], |[_], [x]| [x])?;
        Ok(self)
    }

    /// Every element to one number.
    pub fn fill_(&mut self, number: f64) -> Result<&mut Self> {
        self.tensors.iter_mut().try_for_each(|tensor| tensor.fill_(number).map(drop))?;
        Ok(self)
    }

    /// `a <- numbers[block] a` for the block of each parameter.
    pub fn scale_by_block_(&mut self, blocks: &Blocks, numbers: &[f64]) -> Result<&mut Self> {
        let numbers = self.by_block(blocks, numbers)?;
        self.tensors.iter_mut().zip(numbers).try_for_each(|(tensor, number)| tensor.scale_(number).map(drop))?;
        Ok(self)
    }

    /// `a <- a + alphas[block] x` for the block of each parameter.
    pub fn axpy_by_block_(&mut self, blocks: &Blocks, alphas: &[f64], x: &Self) -> Result<&mut Self> {
        let alphas = self.by_block(blocks, alphas)?;
        let mut pairs = self.tensors.iter_mut().zip(&x.tensors).zip(alphas);
        pairs.try_for_each(|((tensor, x), alpha)| tensor.axpy_(alpha, x).map(drop))?;
        Ok(self)
    }

    fn by_block(&self, blocks: &Blocks, numbers: &[f64]) -> Result<Vec<f64>> {
        if blocks.of_param().len() != self.len() || numbers.len() != blocks.count() {
            let found = format!("{} blocks of {} parameters", blocks.count(), blocks.of_param().len());
            let message = format!("{found} for {} numbers and {} parameters", numbers.len(), self.len());
            return Err(Error::shape("by_block", message));
        }
        Ok(blocks.of_param().iter().map(|block| numbers[*block]).collect())
    }
}

/// Reductions, accumulated in f64.
impl Params {
    /// Inner product.
    pub fn dot(&self, other: &Self) -> Result<f64> {
        Ok(total(&self.reduce(ListReduction::DOT, Some(other))?))
    }

    /// Euclidean norm.
    pub fn norm(&self) -> Result<f64> {
        Ok(total(&self.reduce(ListReduction::SQUARED_NORM, None)?).sqrt())
    }

    /// Euclidean norm of each parameter.
    pub fn norms(&self) -> Result<Vec<f64>> {
        Ok(self.reduce(ListReduction::SQUARED_NORM, None)?.into_iter().map(f64::sqrt).collect())
    }

    /// Largest absolute value; NaN if any element is.
    pub fn max_abs(&self) -> Result<f64> {
        let each = self.reduce(ListReduction::MAX_ABS, None)?;
        Ok(each.into_iter().fold(0.0, |a, b| if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }))
    }

    /// Whether every element is finite.
    pub fn all_finite(&self) -> Result<bool> {
        Ok(self.reduce(ListReduction::NON_FINITE, None)?.iter().all(|count| *count == 0.0))
    }

    /// Inner product within each block.
    pub fn dot_by_block(&self, blocks: &Blocks, other: &Self) -> Result<Vec<f64>> {
        Self::sum_by_block(blocks, &self.reduce(ListReduction::DOT, Some(other))?)
    }

    /// Euclidean norm of each block.
    pub fn norm_by_block(&self, blocks: &Blocks) -> Result<Vec<f64>> {
        let squares = Self::sum_by_block(blocks, &self.reduce(ListReduction::SQUARED_NORM, None)?)?;
        Ok(squares.into_iter().map(f64::sqrt).collect())
    }

    fn sum_by_block(blocks: &Blocks, values: &[f64]) -> Result<Vec<f64>> {
        if blocks.of_param().len() != values.len() {
            let message = format!("blocks of {} parameters for {} parameters", blocks.of_param().len(), values.len());
            return Err(Error::shape("by_block", message));
        }
        let mut sums = vec![0.0; blocks.count()];
        blocks.of_param().iter().zip(values).for_each(|(block, value)| sums[*block] += value);
        Ok(sums)
    }

    fn reduce(&self, kind: ListReduction, other: Option<&Self>) -> Result<Vec<f64>> {
        if let Some(other) = other.filter(|other| other.len() != self.len()) {
            return Err(Error::shape(kind.name(), format!("lists of {} and {} tensors", self.len(), other.len())));
        }
        if self.is_empty() {
            return Ok(vec![]);
        }
        self.link.list_reduce(kind, &self.raw(), &other.map(Self::raw).unwrap_or_default())
    }
}

/// The sum; 0 and not -0 where there is nothing, since a norm is a divisor.
fn total(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |sum, value| sum + value)
}

impl Clone for Params {
    fn clone(&self) -> Self {
        self.try_clone().unwrap_or_else(|error| raise(error))
    }
}

/// Some of the parameters, borrowed.
#[derive(Debug)]
pub struct Selection<'a> {
    params: Params,
    source: PhantomData<&'a Params>,
}

impl Deref for Selection<'_> {
    type Target = Params;
    fn deref(&self) -> &Params {
        &self.params
    }
}

/// Some of the parameters, borrowed to write to.
#[derive(Debug)]
pub struct SelectionMut<'a> {
    params: Params,
    source: PhantomData<&'a mut Params>,
}

impl Deref for SelectionMut<'_> {
    type Target = Params;
    fn deref(&self) -> &Params {
        &self.params
    }
}

impl DerefMut for SelectionMut<'_> {
    fn deref_mut(&mut self) -> &mut Params {
        &mut self.params
    }
}
