//! The binary interface between host and optimizer plugins: types that cross the boundary, and nothing else.
//!
//! This is the only crate that names `abi_stable`. Plugin authors depend on `gauntlet-plugin-api` and never see it.
//!
//! # Rules of version 1
//!
//! * The version of this crate is the version of the interface. A *minor* version may append fields after the
//!   `last_prefix_field` of [`HostOps`] and [`PluginMod`], append methods with a default body to [`RawOptimizer`], and
//!   add numbers to the open sets of [`codes`]. Everything else is a *major* version.
//! * [`Host`], [`RawStep`], [`RawReport`], [`RawState`] and the other plain structs are frozen; they grow through
//!   their `extra` text (JSON) only.
//! * Tensors, batches and linearizations are handles, owned by the host.
//! * No function unwinds: both sides catch panics inside every entry point.

pub mod codes;
pub mod compat;
mod host;
pub mod note;
mod plugin;

pub use codes::*;
pub use host::*;
pub use plugin::*;

pub use abi_stable::std_types::{ROption, RResult, RSlice, RStr, RString, RVec, Tuple2};

/// What `export_optimizer!` expands to needs these; not for authors.
#[doc(hidden)]
pub mod expansion {
    pub use abi_stable::library::{CheckTypeLayout, LibHeader, RootModuleError};
    pub use abi_stable::marker_type::ErasedPrefix;
    pub use abi_stable::prefix_type::{PrefixRef, PrefixRefTrait, WithMetadata};
    pub use abi_stable::sabi_trait::TD_Opaque;
    pub use abi_stable::{rtry, staticref};
}

/// Version of the interface as text.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Version of the interface as (major, minor, patch).
pub const VERSION_NUMBERS: (u32, u32, u32) = (
    number(env!("CARGO_PKG_VERSION_MAJOR")),
    number(env!("CARGO_PKG_VERSION_MINOR")),
    number(env!("CARGO_PKG_VERSION_PATCH")),
);

const fn number(text: &str) -> u32 {
    let (bytes, mut value, mut i) = (text.as_bytes(), 0, 0);
    while i < bytes.len() {
        value = value * 10 + (bytes[i] - b'0') as u32;
        i += 1;
    }
    value
}
