//! The unsafe corner: elements of dense CPU tensors in place.

use std::marker::PhantomData;
use tch::{Device, Kind, Tensor};

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

/// The elements of a tensor that threads share, each reading and writing ranges of its own.
#[derive(Clone, Copy)]
pub(super) struct Shared<'a, T> {
    start: *mut T,
    len: usize,
    tensor: PhantomData<&'a Tensor>,
}

// SAFETY: a thread touches only the range it was given (see `read` and `write`), and elements are plain numbers.
unsafe impl<T: Send> Send for Shared<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Shared<'_, T> {}

impl<'a, T: Element> Shared<'a, T> {
    /// The elements, where they are dense, row-major, on the CPU and of type `T`.
    pub fn new(tensor: &'a Tensor) -> Option<Self> {
        dense(tensor).map(|(start, len)| Self { start, len, tensor: PhantomData })
    }

    /// Number of elements.
    pub fn len(self) -> usize {
        self.len
    }

    /// Copies elements `first ..` into `to`.
    pub fn read(self, first: usize, to: &mut [T]) {
        assert!(first + to.len() <= self.len);
        // SAFETY: the range lies within the tensor; no other thread writes to it, since ranges are given out once; and
        // `to` is memory of the caller's own.
        unsafe { std::ptr::copy_nonoverlapping(self.start.add(first), to.as_mut_ptr(), to.len()) }
    }

    /// Copies `from` over elements `first ..`.
    pub fn write(self, first: usize, from: &[T]) {
        assert!(first + from.len() <= self.len);
        // SAFETY: as in `read`; the session gives a tensor that is written to one list only.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), self.start.add(first), from.len()) }
    }
}
