//! The unsafe corner: elements of dense CPU tensors in place.

use std::cell::Cell;
use tch::{Device, Kind, Tensor};

/// An element type that own loops handle.
pub(super) trait Element: Copy + Default + Send + Sync + 'static {
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

/// Elements that loops load and store at once: a cache line of f32.
pub(super) const BLOCK: usize = 16;

/// Elements that may be written where they are read, as an operation in place does.
pub(super) type Block<T> = [Cell<T>; BLOCK];

/// The values of a block.
#[inline(always)]
pub(super) fn load<T: Element>(block: &Block<T>) -> [T; BLOCK] {
    let mut values = [T::default(); BLOCK];
    for (value, from) in values.iter_mut().zip(block) {
        *value = from.get();
    }
    values
}

/// Writes a block.
#[inline(always)]
pub(super) fn put<T: Element>(block: &Block<T>, values: [T; BLOCK]) {
    for (to, value) in block.iter().zip(values) {
        to.set(value);
    }
}

/// Elements that one thread takes at once: whole blocks, and the rest.
pub(super) struct Span<'a, T> {
    pub blocks: &'a [Block<T>],
    pub rest: &'a [Cell<T>],
}

// SAFETY: a span of a tensor that is written goes to one thread, and no other span has its elements; of a tensor that is
// only read, nobody writes.
unsafe impl<T: Send> Send for Span<'_, T> {}

/// The elements of a tensor in spans of `len`, where they are dense, row-major, on the CPU and of type `T`.
///
/// # Safety
///
/// Spans of a tensor that is borrowed shared are only read.
pub(super) unsafe fn spans<T: Element>(tensor: &Tensor, len: usize) -> Option<impl Iterator<Item = Span<'_, T>>> {
    let (start, count) = dense::<T>(tensor)?;
    // SAFETY: as in `elements`; cells forbid nothing to the compiler that the caller does not promise.
    let cells = unsafe { std::slice::from_raw_parts(start.cast::<Cell<T>>(), count) };
    Some(cells.chunks(len).map(|span| {
        let (blocks, rest) = span.as_chunks();
        Span { blocks, rest }
    }))
}
