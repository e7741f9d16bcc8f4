//! Opens the root module of a loaded library after comparing its layout with ours.
//!
//! The *older* side is the interface of the comparison, so that an older plugin loads in a newer host and the reverse.

use crate::plugin::PluginModRef;
use abi_stable::StableAbi;
use abi_stable::abi_stability::abi_checking::{AbiInstability, AbiInstabilityErrors, check_layout_compatibility};
use abi_stable::library::{AbiHeaderRef, ROOT_MODULE_LOADER_NAME_WITH_NUL};
use abi_stable::sabi_types::VersionNumber;
use abi_stable::type_layout::TLFieldOrFunction;

pub use abi_stable::library::AbiHeaderRef as Header;

/// The symbol under which a plugin exports its header, NUL included.
pub const SYMBOL: &str = ROOT_MODULE_LOADER_NAME_WITH_NUL;

/// Why a library is not a plugin for this host.
#[derive(Clone, Debug)]
pub struct Mismatch {
    /// One line.
    pub summary: String,
    /// The whole comparison, long.
    pub detail: String,
}

/// The root module behind a header.
///
/// # Safety
///
/// `header` is the value of the symbol [`SYMBOL`] of a library that stays loaded until the process ends.
///
/// # Errors
///
/// Another abi_stable, another major version, or types that are laid out differently.
pub unsafe fn root_module(header: AbiHeaderRef) -> Result<PluginModRef, Mismatch> {
    let header = header.upgrade().map_err(|error| Mismatch {
        summary: "its abi_stable header is another version's".into(),
        detail: error.to_string(),
    })?;
    let theirs = header
        .layout()
        .ok_or_else(|| Mismatch { summary: "it carries no type layout".into(), detail: String::new() })?;
    let ours = <PluginModRef as StableAbi>::LAYOUT;
    let plugin = VersionNumber::new(header.version_strings()).ok();
    let plugin_is_older = plugin.is_none_or(|version| version.minor < crate::VERSION_NUMBERS.1);
    let (interface, implementation) = if plugin_is_older { (theirs, ours) } else { (ours, theirs) };
    check_layout_compatibility(interface, implementation)
        .map_err(|errors| Mismatch { summary: summary(&errors), detail: errors.to_string() })?;
    // SAFETY: the layouts have just been compared, in the direction that the version order asks for.
    unsafe { header.init_root_module_with_unchecked_layout::<PluginModRef>() }
        .map_err(|error| Mismatch { summary: "its root module cannot be made".into(), detail: error.to_string() })
}

/// The deepest difference, as the path of fields that leads to it.
fn summary(errors: &AbiInstabilityErrors) -> String {
    let Some(deepest) = errors.errors.iter().max_by_key(|error| error.stack_trace.len()) else {
        return "its types are laid out differently".into();
    };
    let path: Vec<&str> = deepest.stack_trace.iter().map(|step| field_name(&step.expected)).collect();
    let difference = match deepest.errs.first() {
        Some(AbiInstability::Size(size)) => format!("size {} instead of {}", size.found, size.expected),
        Some(AbiInstability::FieldCountMismatch(count)) => {
            format!("{} fields instead of {}", count.found, count.expected)
        }
        Some(AbiInstability::Name(name)) => format!("type {} instead of {}", name.found, name.expected),
        Some(other) => format!("{other:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_string(),
        None => "unknown".into(),
    };
    format!("its types are laid out differently at `{}`: {difference}", path.join("/"))
}

fn field_name(step: &TLFieldOrFunction) -> &'static str {
    match step {
        TLFieldOrFunction::Field(field) => field.name(),
        TLFieldOrFunction::Function(function) => function.name.as_str(),
    }
}
