//! Puts an optimizer behind the boundary. `export_optimizer!` is all that an author uses of it.

use crate::context::{Setup, StepContext, StepReport, run_params};
use crate::error::{Error, Result};
use crate::guard::{guard, guard_raw};
use crate::host::Link;
use crate::metadata::{Metadata, Question, RULES, Rules};
use crate::optimizer::Optimizer;
use crate::state::{StateReader, StateWriter};
use gauntlet_plugin_abi::expansion::{
    ErasedPrefix, PrefixRef, PrefixRefTrait, RootModuleError, TD_Opaque, WithMetadata,
};
use gauntlet_plugin_abi::*;

/// Exports an optimizer from a `cdylib`: its root module, and the note that the host reads before it loads the file.
#[macro_export]
macro_rules! export_optimizer {
    ($Optimizer:ty) => {
        #[cfg(not(panic = "unwind"))]
        compile_error!("optimizer plugins must be built with panic = \"unwind\"");

        const _: () = {
            use $crate::export::{self, abi};

            #[used]
            #[unsafe(link_section = ".note.gauntlet")]
            static NOTE: abi::note::Note = abi::note::Note::new(cfg!(panic = "unwind"), export::RUSTC);

            extern "C" fn module() -> export::RootModuleResult {
                export::root_module::<$Optimizer>(metadata)
            }

            extern "C" fn metadata() -> abi::RT<abi::RString> {
                export::metadata::<$Optimizer>(env!("CARGO_PKG_VERSION"))
            }

            // SAFETY: the name is the one under which abi_stable looks for the header, and `module` gives a module
            // of the type that the header names.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static HEADER: abi::expansion::LibHeader = unsafe {
                abi::expansion::LibHeader::from_constructor::<abi::PluginModRef>(
                    module,
                    abi::expansion::CheckTypeLayout::Yes,
                )
            };
        };
    };
}

pub use gauntlet_plugin_abi as abi;

/// The compiler that built this crate, and with it the plugin.
pub const RUSTC: &str = env!("GAUNTLET_RUSTC");

/// What abi_stable calls to get the root module.
pub type RootModuleResult = RResult<PrefixRef<ErasedPrefix>, RootModuleError>;

type MetadataFn = extern "C" fn() -> RT<RString>;

/// The root module of an optimizer.
pub fn root_module<O: Optimizer>(metadata: MetadataFn) -> RootModuleResult {
    let module = WithMetadata::new(PluginMod { metadata, create: create::<O>, state_bytes: state_bytes::<O> });
    // Once for each library, and libraries are never unloaded.
    let module: &'static WithMetadata<PluginMod> = Box::leak(Box::new(module));
    let module = PluginModRef(module.static_as_prefix()).to_prefix_ref();
    // SAFETY: the loader casts back to the type that the library's header names, `PluginModRef`.
    RResult::ROk(unsafe { module.cast::<ErasedPrefix>() })
}

/// An optimizer's description of itself.
pub fn metadata<O: Optimizer>(version: &str) -> RT<RString> {
    guard_raw(|| {
        let text = serde_json::to_string(&Metadata::of::<O>(version));
        text.map(Into::into).map_err(|error| Error::new(ErrorCode::HOST, "metadata", error.to_string()))
    })
}

/// An optimizer behind the boundary.
pub extern "C" fn create<O: Optimizer>(host: Host, config: RStr<'_>) -> RT<RawOptimizerBox> {
    guard_raw(|| {
        let link = Link(host);
        let optimizer = O::new(parse::<O>(config.as_str())?, &Setup::new(link)?)?;
        let guarded = Guarded { link, optimizer: Some(optimizer), poisoned: false };
        Ok(RawOptimizerBox::from_value(guarded, TD_Opaque))
    })
}

pub(crate) extern "C" fn state_bytes<O: Optimizer>(host: Host, config: RStr<'_>) -> RT<u64> {
    guard_raw(|| Ok(O::state_bytes(&parse::<O>(config.as_str())?, Setup::new(Link(host))?.params())))
}

/// The configuration, with the path of the key that is wrong.
fn parse<O: Optimizer>(config: &str) -> Result<O::Config> {
    let mut json = serde_json::Deserializer::from_str(config);
    serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let key = if path == "." { String::new() } else { path };
        let message = error.into_inner().to_string();
        Error::config(key, message.split(" at line ").next().unwrap_or_default())
    })
}

/// Runs an optimizer's methods inside a guard. After a panic it answers nothing but `load`.
struct Guarded<O> {
    link: Link,
    optimizer: Option<O>,
    poisoned: bool,
}

impl<O: Optimizer> Guarded<O> {
    fn live(&self) -> Result<&O> {
        match &self.optimizer {
            Some(optimizer) if !self.poisoned => Ok(optimizer),
            _ => Err(Error::new(ErrorCode::PANIC, O::NAME, "was left unusable by an earlier panic")),
        }
    }

    fn guarded<T>(&mut self, body: impl FnOnce(&mut O) -> Result<T>) -> RT<T> {
        guard_raw(|| {
            self.live()?;
            let Some(optimizer) = &mut self.optimizer else { return Err(Error::plugin("is gone")) };
            let outcome = guard(|| body(optimizer));
            self.poisoned = outcome.as_ref().is_err_and(|error| error.code == ErrorCode::PANIC);
            outcome
        })
    }
}

impl<O: Optimizer> RawOptimizer for Guarded<O> {
    fn step(&mut self, step: RawStep<'_>) -> RT<RawReport> {
        self.guarded(|optimizer| {
            if !step.extra.is_empty() {
                return answer(optimizer, Link(step.host), &step.extra);
            }
            let mut context = StepContext::new(Link(step.host), step.step)?;
            optimizer.step(&mut context).map(raw_report)
        })
    }

    fn save(&self) -> RT<RawState> {
        guard_raw(|| {
            let mut writer = StateWriter::default();
            self.live()?.save(&mut writer)?;
            Ok(writer.into_raw(O::STATE_VERSION))
        })
    }

    fn load(&mut self, state: RawState) -> RT<()> {
        let link = self.link;
        self.poisoned = false;
        self.guarded(|optimizer| optimizer.load(&StateReader::new(link, state, run_params(link)?)))
    }

    fn evaluation_params(&self) -> RT<RVec<RawTensor>> {
        guard_raw(|| Ok(self.live()?.evaluation_params().map(|params| params.raw().into()).unwrap_or_default()))
    }
}

impl<O> Drop for Guarded<O> {
    fn drop(&mut self) {
        // The error has nowhere to go, but the panic must not cross the boundary.
        let optimizer = self.optimizer.take();
        let _ = guard(|| {
            drop(optimizer);
            Ok(())
        });
    }
}

/// The answer to a question of the host, in place of a step.
fn answer<O: Optimizer>(optimizer: &O, link: Link, question: &str) -> Result<RawReport> {
    let not_json = |error: serde_json::Error| Error::argument("extra", error.to_string());
    let Question { ask } = serde_json::from_str(question).map_err(not_json)?;
    if ask != RULES {
        return Err(Error::unsupported(format!("the question `{ask}`")));
    }
    let rules = run_params(link)?.specs().iter().map(|spec| optimizer.rule_of(spec)).collect();
    let extra = serde_json::to_string(&Rules { rules }).map_err(not_json)?;
    Ok(RawReport { extra: extra.into(), ..raw_report(StepReport::rejected("a question, no step")) })
}

fn raw_report(report: StepReport) -> RawReport {
    RawReport {
        outcome: report.outcome,
        loss: report.loss,
        reason: report.reason.into(),
        metrics: report.metrics.into_iter().map(|(name, value)| Tuple2(name.into(), value)).collect(),
        extra: RString::new(),
    }
}
