//! Tensors of a plugin on libtorch: operations, reductions and fused updates, as functions over `tch::Tensor`.
//!
//! Each runs without gradient tracking. Arguments that do not fit are errors, never panics.

mod elsewhere;
mod fused;
mod memory;
mod ops;
mod plan;
mod reduce;
mod values;
mod vector;

pub use ops::{op, op_in_place};
pub use reduce::reduce;
pub use values::{from_bytes, info, to_bytes};

use gauntlet_plugin_abi::ErrorCode;
use gauntlet_plugin_api::backend::{FusedList, Program};
use gauntlet_plugin_api::{Error, Result};
use tch::{TchError, Tensor};

/// Runs a fused program over lists of tensors: in one pass over memory where all of them are dense floats on the CPU,
/// else operation by operation.
///
/// # Errors
///
/// An operation that is unknown, by name.
pub fn fused(program: &Program, lists: &mut [FusedList<'_, Tensor>]) -> Result<()> {
    tch::no_grad(|| {
        let width = vector::Width::widest();
        if fused::in_place::<f32>(width, program, lists)? || fused::in_place::<f64>(width, program, lists)? {
            return Ok(());
        }
        elsewhere::run(program, lists)
    })
}

/// A `DLManagedTensor*` over a tensor's storage.
///
/// # Errors
///
/// A tensor that libtorch cannot export.
pub fn dlpack(tensor: &Tensor) -> Result<*mut ()> {
    let managed = gauntlet_torch_ext::dlpack(tensor);
    managed.map(|managed| managed.cast()).map_err(|error| Error::argument("dlpack", error.to_string()))
}

/// libtorch's error as the plugin's: its first line.
fn error(at: &str, error: &TchError) -> Error {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default().trim_start_matches("Internal torch error: ");
    let code = if is_about_shape(line) { ErrorCode::SHAPE } else { ErrorCode::ARGUMENT };
    Error { detail: text.clone(), ..Error::new(code, at, line) }
}

/// libtorch does not classify its errors; these words are in those about shapes.
fn is_about_shape(line: &str) -> bool {
    ["size of tensor", "shape", "shapes", "sizes", "dimension", "must match", "expected size"]
        .iter()
        .any(|word| line.contains(word))
}
