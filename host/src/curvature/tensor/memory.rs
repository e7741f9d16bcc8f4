//! The unsafe corner: elements of dense CPU tensors in place.

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

/// The elements of a tensor, to be written, where they are dense, row-major, on the CPU and of type `T`.
pub(super) fn elements_mut<T: Element>(tensor: &mut Tensor) -> Option<&mut [T]> {
    let (start, len) = dense::<T>(tensor)?;
    // SAFETY: as in `elements`; for the same reasons nobody else reads meanwhile.
    Some(unsafe { std::slice::from_raw_parts_mut(start, len) })
}
