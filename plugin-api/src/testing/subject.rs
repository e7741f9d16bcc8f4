//! An optimizer behind the boundary: compiled in, or of a loaded library.

use crate::backend::CreateFn;
use crate::export;
use crate::metadata::Metadata;
use crate::optimizer::Optimizer;
use gauntlet_plugin_abi::{Host, PluginModRef, RStr, RT};
use serde_json::Value;

/// The entry points of an optimizer, and what it says about itself.
#[derive(Clone)]
pub struct Subject {
    /// What it says about itself.
    pub metadata: Metadata,
    pub(super) create: CreateFn,
    pub(super) state_bytes: for<'a> extern "C" fn(Host, RStr<'a>) -> RT<u64>,
    written: Option<Written>,
}

/// Reads a configuration and writes it again.
type Written = fn(&Value) -> Result<Value, String>;

impl Subject {
    /// An optimizer of this program.
    pub fn of<O: Optimizer>() -> Self {
        Self {
            metadata: Metadata::of::<O>("0.0.0"),
            create: export::create::<O>,
            state_bytes: export::state_bytes::<O>,
            written: Some(written::<O>),
        }
    }

    /// The optimizer of a library that stays loaded until the process ends.
    pub fn of_module(module: PluginModRef, metadata: Metadata) -> Self {
        Self { metadata, create: module.create(), state_bytes: module.state_bytes(), written: None }
    }

    /// A configuration as the optimizer writes what it has read; `None` where only the library could.
    pub(super) fn written(&self, config: &Value) -> Option<Result<Value, String>> {
        self.written.map(|written| written(config))
    }
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Subject({})", self.metadata.name)
    }
}

fn written<O: Optimizer>(config: &Value) -> Result<Value, String> {
    let parsed: O::Config = serde_json::from_value(config.clone()).map_err(|error| error.to_string())?;
    serde_json::to_value(parsed).map_err(|error| error.to_string())
}
