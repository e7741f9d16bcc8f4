//! Declarations of `shim.cpp` and the one place that turns its messages into errors.

use std::ffi::{CStr, c_char};

use crate::ShimError;

unsafe extern "C" {
    fn gauntlet_shim_free(message: *mut c_char);
    fn gauntlet_libtorch_version() -> *const c_char;
    fn gauntlet_forward_level_enter(level: *mut u64) -> *mut c_char;
    fn gauntlet_forward_level_exit(level: u64) -> *mut c_char;
    fn gauntlet_set_deterministic_algorithms(enabled: bool) -> *mut c_char;
    fn gauntlet_deterministic_algorithms() -> bool;
}

/// Takes over a message of the shim: null is success.
///
/// # Safety
/// `message` is null or a C string from `strdup` that nobody else frees or uses.
unsafe fn check(message: *mut c_char) -> Result<(), ShimError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, hence a C string that lives until it is freed on the next line.
    let text = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    // SAFETY: the shim made it with `strdup`, and this function owns it.
    unsafe { gauntlet_shim_free(message) };
    Err(ShimError::new(text))
}

pub(crate) fn libtorch_version() -> &'static str {
    // SAFETY: the shim returns a string literal, which lives as long as the process.
    unsafe { CStr::from_ptr(gauntlet_libtorch_version()) }.to_str().unwrap_or("unknown")
}

pub(crate) fn enter_forward_level() -> Result<u64, ShimError> {
    let mut level = 0;
    // SAFETY: `level` outlives the call, and the message goes to `check` alone.
    unsafe { check(gauntlet_forward_level_enter(&mut level)) }?;
    Ok(level)
}

pub(crate) fn exit_forward_level(level: u64) -> Result<(), ShimError> {
    // SAFETY: any number is a valid argument (an unknown level is an exception, hence a message).
    unsafe { check(gauntlet_forward_level_exit(level)) }
}

pub(crate) fn set_deterministic_algorithms(enabled: bool) -> Result<(), ShimError> {
    // SAFETY: sets a flag of libtorch's global context, which guards it by itself.
    unsafe { check(gauntlet_set_deterministic_algorithms(enabled)) }
}

pub(crate) fn deterministic_algorithms() -> bool {
    // SAFETY: reads a flag of libtorch's global context.
    unsafe { gauntlet_deterministic_algorithms() }
}
