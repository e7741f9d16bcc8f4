//! What a plugin offers: a root module and one trait.

#![allow(non_local_definitions, reason = "made by the sabi_trait macro")]
#![allow(unused_braces, reason = "made by the sabi_trait macro; its suggested fix does not compile")]
#![allow(clippy::all, missing_docs, reason = "made by the sabi_trait macro")]

use crate::codes::*;
use crate::host::*;
use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_trait;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RBox, RStr, RString, RVec, Tuple2};

/// What `step` is given. Frozen; grows through `extra` (JSON) and calls.
#[repr(C)]
#[derive(StableAbi, Clone, Copy)]
pub struct RawStep<'a> {
    /// The host.
    pub host: Host,
    /// Finished steps before this one.
    pub step: u64,
    /// JSON, may be empty.
    pub extra: RStr<'a>,
}

/// What `step` gives back.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawReport {
    /// How the call ended.
    pub outcome: Outcome,
    /// Training loss in nats a token.
    pub loss: f64,
    /// Why the step was rejected, or empty.
    pub reason: RString,
    /// Declared metrics of this step.
    pub metrics: RVec<Tuple2<RString, f64>>,
    /// JSON, may be empty.
    pub extra: RString,
}

/// One named entry of an optimizer's state.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawEntry {
    /// The entry's name.
    pub name: RString,
    /// What it holds.
    pub kind: StateKind,
    /// Parameter names, one a tensor, for `PARAMS`.
    pub names: RVec<RString>,
    /// Tensors. Out of `save` they stay the optimizer's; into `load` they become the optimizer's.
    pub tensors: RVec<RawTensor>,
    /// Everything else.
    pub bytes: RVec<u8>,
}

/// An optimizer's state.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct RawState {
    /// Version of the layout of the entries, for migration.
    pub schema_version: u32,
    /// The entries.
    pub entries: RVec<RawEntry>,
}

/// An optimizer behind the boundary.
#[sabi_trait]
pub trait RawOptimizer: Send {
    /// One step, or one part of a long step.
    fn step<'a>(&mut self, step: RawStep<'a>) -> RT<RawReport>;
    /// Everything that the next call of `step` depends on.
    fn save(&self) -> RT<RawState>;
    /// Restore what `save` gave.
    fn load(&mut self, state: RawState) -> RT<()>;
    /// Parameters to evaluate at; an empty list where they are the run's own. The handles stay the optimizer's.
    #[sabi(last_prefix_field)]
    fn evaluation_params(&self) -> RT<RVec<RawTensor>>;
}

/// An owned optimizer.
pub type RawOptimizerBox = RawOptimizer_TO<'static, RBox<()>>;

/// The root module that every plugin exports.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = PluginModRef, prefix_fields = PluginModPrefix)))]
#[sabi(missing_field(panic))]
pub struct PluginMod {
    /// JSON: name, version, needs, configuration schema, metrics.
    pub metadata: extern "C" fn() -> RT<RString>,
    /// An optimizer from its configuration (JSON).
    pub create: for<'a> extern "C" fn(Host, RStr<'a>) -> RT<RawOptimizerBox>,
    /// Bytes of state that an optimizer with this configuration will hold.
    #[sabi(last_prefix_field)]
    pub state_bytes: for<'a> extern "C" fn(Host, RStr<'a>) -> RT<u64>,
}

impl RootModule for PluginModRef {
    abi_stable::declare_root_module_statics! {PluginModRef}
    const BASE_NAME: &'static str = "gauntlet_optimizer";
    const NAME: &'static str = "gauntlet_optimizer";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}
