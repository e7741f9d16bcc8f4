//! The unsafe corner: elements of dense CPU tensors in place, and code for the widest vectors of this processor.
//!
//! Everything else in [`super`] is safe code on top of the types here. A [`Part`] can only be read, a [`Target`] read
//! and written; both are views by cells, so within a thread a target may be the same memory as a part.

use super::vector::TILE;
use gauntlet_plugin_abi::ErrorCode;
use gauntlet_plugin_api::backend::FusedList;
use gauntlet_plugin_api::{Error, Result};
use rayon::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Elements of a tensor that a thread takes at once.
const SPAN: usize = 32_768;

/// An element type that own loops handle.
pub(super) trait Element: Copy + Send + Sync + 'static {
    /// Its name in libtorch.
    const KIND: Kind;
}

impl Element for f32 {
    const KIND: Kind = Kind::Float;
}

impl Element for f64 {
    const KIND: Kind = Kind::Double;
}

/// Start and number of a tensor's elements, where they are dense, row-major, on the CPU and of type `T`.
fn dense<T: Element>(tensor: &Tensor) -> Option<(*mut T, usize)> {
    let here = tensor.device() == Device::Cpu && tensor.f_kind().ok()? == T::KIND && tensor.is_contiguous();
    match here.then(|| (tensor.data_ptr().cast::<T>(), tensor.numel()))? {
        (_, 0) => Some((std::ptr::dangling_mut(), 0)),
        (start, len) if start.is_aligned() && !start.is_null() => Some((start, len)),
        _ => None,
    }
}

/// The elements of a tensor, where they are dense, row-major, on the CPU and of type `T`.
pub(super) fn elements<T: Element>(tensor: &Tensor) -> Option<&[T]> {
    let (start, len) = dense::<T>(tensor)?;
    // SAFETY: libtorch keeps `len` initialised elements at `start` as long as the tensor lives, which the borrow makes
    // sure of. Nobody writes meanwhile: the session that owns the tensors is locked for the time of a call, and no two
    // of its tensors share storage.
    Some(unsafe { std::slice::from_raw_parts(start, len) })
}

/// Whether a list is written, and start and number of each of its tensors' elements.
type Located<T> = (bool, Vec<(*mut T, usize)>);

/// A whole number of vectors of every kind.
pub(super) type Tile<T> = [Cell<T>; TILE];

/// Elements to read.
#[derive(Clone, Copy)]
pub(super) struct Part<'a, T>(&'a [Cell<T>]);

/// Elements to read and write.
#[derive(Clone, Copy)]
pub(super) struct Target<'a, T>(&'a [Cell<T>]);

/// Elements of one list.
#[derive(Clone, Copy)]
pub(super) enum View<'a, T> {
    Read(Part<'a, T>),
    Write(Target<'a, T>),
}

impl<'a, T: Copy> View<'a, T> {
    /// The elements, to read.
    pub fn part(self) -> Part<'a, T> {
        match self {
            Self::Read(part) => part,
            Self::Write(target) => target.part(),
        }
    }
}

impl<'a, T: Copy> Part<'a, T> {
    /// Some of the elements.
    pub fn range(self, range: Range<usize>) -> Self {
        Self(&self.0[range])
    }

    /// Number of elements.
    pub fn len(self) -> usize {
        self.0.len()
    }

    /// The elements, without the last ones that fill no tile; not to be written to.
    #[inline(always)]
    pub fn tiles(self) -> &'a [Tile<T>] {
        self.0.as_chunks().0
    }

    /// Asks the processor to bring the elements into its cache.
    #[inline(always)]
    pub fn prefetch(self) {
        #[cfg(target_arch = "x86_64")]
        for line in self.0.chunks(64 / size_of::<T>()) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            // SAFETY: a prefetch is a hint that is allowed at any address; SSE is part of x86-64.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
        }
    }
}

impl<'a, T: Copy> Target<'a, T> {
    /// Elements that this thread owns.
    pub fn new(elements: &'a [Cell<T>]) -> Self {
        Self(elements)
    }

    /// Some of the elements.
    pub fn range(self, range: Range<usize>) -> Self {
        Self(&self.0[range])
    }

    /// The same elements, to read.
    pub fn part(self) -> Part<'a, T> {
        Part(self.0)
    }

    /// The elements, without the last ones that fill no tile.
    #[inline(always)]
    pub fn tiles(self) -> &'a [Tile<T>] {
        self.0.as_chunks().0
    }
}

/// Lists of dense tensors of equal shapes, in place.
pub(super) struct Lists<'a, T> {
    /// Whether the list is written, and where its tensors start.
    lists: Vec<(bool, Vec<*mut T>)>,
    /// Elements of each tensor of a list.
    lens: Vec<usize>,
    tensors: PhantomData<&'a mut T>,
}

// SAFETY: the pointers are used by `Lists::for_each_span` alone, which gives each written element to one thread, and
// nothing else reads it then: `Lists::new` has checked that written memory does not overlap.
unsafe impl<T: Element> Sync for Lists<'_, T> {}

impl<'a, T: Element> Lists<'a, T> {
    /// The lists in place; `None` where a tensor is not dense, on the CPU and of type `T`.
    ///
    /// # Errors
    ///
    /// Lists of different lengths or sizes; memory that is written and appears a second time.
    pub fn new(lists: &'a mut [FusedList<'_, Tensor>]) -> Result<Option<Self>> {
        let found: Option<Vec<Located<T>>> = (lists.iter())
            .map(|list| match list {
                FusedList::Write(tensors) => Some((true, tensors.iter().map(dense).collect::<Option<_>>()?)),
                FusedList::Read(tensors) => Some((false, tensors.iter().map(|t| dense(t)).collect::<Option<_>>()?)),
            })
            .collect();
        let Some(found) = found else { return Ok(None) };
        let sizes = |list: &(bool, Vec<(*mut T, usize)>)| list.1.iter().map(|tensor| tensor.1).collect::<Vec<_>>();
        let lens = found.first().map(sizes).unwrap_or_default();
        if found.iter().any(|list| sizes(list) != lens) {
            return Err(Error::shape("fused", "lists of different sizes"));
        }
        check_overlap(&found)?;
        let starts = |tensors: Vec<(*mut T, usize)>| tensors.into_iter().map(|tensor| tensor.0).collect();
        let lists = found.into_iter().map(|(written, tensors)| (written, starts(tensors))).collect();
        Ok(Some(Self { lists, lens, tensors: PhantomData }))
    }

    /// Calls `work` once for each span of each tensor with its elements in every list, on all cores of rayon's pool;
    /// few elements on this thread. `state` makes what a thread reuses.
    pub fn for_each_span<S>(
        &self,
        state: impl Fn() -> S + Send + Sync,
        work: impl Fn(&mut S, &[View<'_, T>]) + Send + Sync,
    ) {
        let spans: Vec<(usize, Range<usize>)> = (self.lens.iter().enumerate())
            .flat_map(|(tensor, len)| spans(*len, SPAN).map(move |range| (tensor, range)))
            .collect();
        let run = |state: &mut S, (tensor, range): (usize, Range<usize>)| {
            // SAFETY: the spans are disjoint, and each is visited once.
            let views: Vec<View<'_, T>> = unsafe { self.views(tensor, range) };
            work(state, &views);
        };
        match self.lens.iter().sum::<usize>() <= SPAN {
            true => {
                let mut state = state();
                spans.into_iter().for_each(|span| run(&mut state, span));
            }
            false => spans.into_par_iter().for_each_init(state, run),
        }
    }

    /// Some elements of one tensor of every list.
    ///
    /// # Safety
    ///
    /// `range` is within the tensor, and while the views live no other thread has views of its elements.
    unsafe fn views(&self, tensor: usize, range: Range<usize>) -> Vec<View<'_, T>> {
        let view = |(written, starts): &(bool, Vec<*mut T>)| {
            // SAFETY: the tensors live as long as `self` borrows them and have `range.end` elements; `Cell<T>` has the
            // layout of `T`. Elements that are only read may be seen by several threads, and a `Part` never writes.
            let cells = unsafe {
                std::slice::from_raw_parts(starts[tensor].add(range.start).cast_const().cast::<Cell<T>>(), range.len())
            };
            if *written { View::Write(Target(cells)) } else { View::Read(Part(cells)) }
        };
        self.lists.iter().map(view).collect()
    }
}

/// The ranges of `size` elements, the last perhaps shorter, that make up `len`.
pub(super) fn spans(len: usize, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
    (0..len.div_ceil(size)).map(move |index| index * size..len.min((index + 1) * size))
}

/// No memory that is written appears a second time.
fn check_overlap<T>(lists: &[(bool, Vec<(*mut T, usize)>)]) -> Result<()> {
    let tensors = lists.iter().flat_map(|(written, tensors)| tensors.iter().map(move |tensor| (*written, tensor)));
    let mut ranges: Vec<(usize, usize, bool)> = (tensors.filter(|(_, (_, len))| *len > 0))
        .map(|(written, (start, len))| (start.addr(), start.addr() + len * size_of::<T>(), written))
        .collect();
    ranges.sort_unstable();
    let (mut end, mut written_end) = (0, 0);
    for (start, stop, written) in ranges {
        if start < written_end || written && start < end {
            return Err(Error::new(ErrorCode::ALIAS, "fused", "tensors share memory that is written"));
        }
        end = end.max(stop);
        written_end = if written { written_end.max(stop) } else { written_end };
    }
    Ok(())
}
