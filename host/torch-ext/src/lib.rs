//! The few calls of libtorch that tch does not bind, behind safe functions.
//!
//! All C++ of the host and the `unsafe` that reaches it live in this crate: `src/shim.cpp` catches every exception
//! and hands it back as text, `src/kernels.cpp` has loops over rows, `src/ffi.rs` declares both, and the other modules are
//! ordinary Rust.

mod ffi;
mod forward;
pub mod kernels;
mod threads;

pub use forward::ForwardLevel;
pub use threads::parallel_map;

use tch::Tensor;

/// An error of libtorch, in its own words without the C++ backtrace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShimError(String);

impl ShimError {
    fn new(text: String) -> Self {
        Self(text.split("\nException raised from").next().unwrap_or_default().trim().to_owned())
    }
}

impl std::fmt::Display for ShimError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ShimError {}

impl From<tch::TchError> for ShimError {
    fn from(error: tch::TchError) -> Self {
        match error {
            tch::TchError::Torch(text) => Self::new(text),
            other => Self::new(other.to_string()),
        }
    }
}

/// The version of libtorch that this program was built against, for example `2.13.0`.
pub fn libtorch_version() -> &'static str {
    ffi::libtorch_version()
}

/// Makes operations without a deterministic implementation an error instead of a source of small differences.
///
/// Process-wide; on the CPU every operation of the model is deterministic anyway.
///
/// # Errors
/// When libtorch refuses.
pub fn set_deterministic_algorithms(enabled: bool) -> Result<(), ShimError> {
    ffi::set_deterministic_algorithms(enabled)
}

/// Whether [`set_deterministic_algorithms`] is on.
pub fn deterministic_algorithms() -> bool {
    ffi::deterministic_algorithms()
}

/// `x W^T` for `x [N, in]` and `W [out, in]`, plus `sum [N, out]` if there is one, by oneDNN, which takes fewer cycles on
/// many processors than the library behind libtorch's `mm`. Builds no autograd graph.
///
/// # Errors
/// Tensors other than `Float` on the CPU, shapes that do not fit.
pub fn linear(x: &Tensor, weight: &Tensor, sum: Option<&Tensor>) -> Result<Tensor, ShimError> {
    ffi::linear(x, weight, sum)
}

/// Lets the allocator keep up to `total` bytes of freed memory, of pieces of at most `largest`, for the next tensors,
/// instead of giving it back to the system and asking for it again, page by page, many times in a step.
pub fn keep_freed_memory(largest: i32, total: i32) {
    ffi::keep_freed_memory(largest, total);
}

/// A `DLManagedTensor*` over the tensor's own storage, which lives until the consumer calls its deleter.
///
/// # Errors
/// When libtorch cannot export the tensor.
pub fn dlpack(tensor: &tch::Tensor) -> Result<*mut std::ffi::c_void, ShimError> {
    ffi::dlpack(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_that_tch_is_written_for() {
        assert!(libtorch_version().starts_with("2.13."), "{}", libtorch_version());
    }

    #[test]
    fn linear_layers_are_those_of_libtorch() {
        let matrix = |rows: i64, seed: f64| {
            let count = tch::Tensor::arange(rows * 48, (tch::Kind::Float, tch::Device::Cpu));
            ((count + seed) * 1.7).sin().view([rows, 48])
        };
        let (x, weight) = (matrix(33, 1.0), matrix(65, 2.0));
        let expected = x.mm(&weight.tr());
        let sum = expected.ones_like();
        assert!(linear(&x, &weight, None).unwrap().allclose(&expected, 1e-5, 1e-5, false));
        assert!(linear(&x, &weight, Some(&sum)).unwrap().allclose(&(&expected + 1.0), 1e-5, 1e-5, false));
        let back = linear(&expected, &weight.tr(), None).unwrap();
        assert!(back.allclose(&expected.mm(&weight), 1e-5, 1e-4, false));
        assert!(linear(&x, &weight.tr(), None).is_err());
    }

    #[test]
    fn determinism_can_be_switched_on_and_off() {
        set_deterministic_algorithms(true).unwrap();
        assert!(deterministic_algorithms());
        set_deterministic_algorithms(false).unwrap();
        assert!(!deterministic_algorithms());
    }

    #[test]
    fn an_exception_of_libtorch_becomes_an_error() {
        let error = ffi::exit_forward_level(7).unwrap_err();
        assert!(!error.to_string().is_empty() && !error.to_string().contains("Exception raised"), "{error}");
    }

    /// The head of `DLManagedTensor` as DLPack 0.8 and later lay it out.
    #[repr(C)]
    struct Managed {
        data: *const f32,
        device: [i32; 2],
        ndim: i32,
        dtype: (u8, u8, u16),
        shape: *const i64,
        strides: *const i64,
        byte_offset: u64,
        context: *mut std::ffi::c_void,
        deleter: Option<extern "C" fn(*mut Managed)>,
    }

    #[test]
    fn an_exported_tensor_shares_its_storage_and_outlives_it() {
        let tensor = tch::Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0, 6.0]).view([2, 3]);
        let data = tensor.data_ptr().cast_const().cast();
        let managed = dlpack(&tensor).unwrap().cast::<Managed>();
        drop(tensor);
        // SAFETY: the export lives until its deleter is called at the end.
        unsafe {
            let Managed { device, ndim, dtype, byte_offset, .. } = *managed;
            assert_eq!((device, ndim, dtype, byte_offset), ([1, 0], 2, (2, 32, 1), 0));
            assert_eq!((*managed).data, data);
            assert_eq!(std::slice::from_raw_parts((*managed).shape, 2), [2, 3]);
            assert_eq!(std::slice::from_raw_parts((*managed).data, 6), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            (*managed).deleter.unwrap()(managed);
        }
    }
}
