//! Loads a checked image, compares its types with ours, and asks it what it is. Libraries are never unloaded.

use super::image::Image;
use crate::error::{Exit, Fault, Result};
use gauntlet_plugin_abi::{PluginModRef, VERSION_NUMBERS, compat};
use gauntlet_plugin_api::metadata::Metadata;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::error::Error as _;
use std::path::Path;

/// A loaded plugin.
#[derive(Clone)]
pub struct Plugin {
    /// The bytes that were checked and loaded.
    pub image: Image,
    /// What the plugin says about itself.
    pub metadata: Metadata,
    module: PluginModRef,
}

impl Plugin {
    /// Loads the plugin at an absolute path; `pin` is the SHA-256 that it must have.
    ///
    /// # Errors
    ///
    /// [`Exit::Missing`], [`Exit::Refused`] (owner, mode, path, hash) or [`Exit::Plugin`] (not a plugin, another
    /// interface); no code of the plugin has run then, except that its constructors may have where the types differ.
    pub fn load(path: &Path, pin: Option<&str>) -> Result<Self> {
        Self::of_image(Image::read(path, pin, VERSION_NUMBERS)?)
    }

    /// Loads bytes that were read and checked.
    ///
    /// # Errors
    ///
    /// As [`Plugin::load`].
    pub fn of_image(image: Image) -> Result<Self> {
        let module = root_module(&image)?;
        let metadata = metadata(&image, module)?;
        check_minor(&image, &metadata)?;
        Ok(Self { image, metadata, module })
    }

    /// The plugin's entry points.
    pub fn module(&self) -> PluginModRef {
        self.module
    }
}

/// Opens the library and its root module; what is opened is what was checked.
fn root_module(image: &Image) -> Result<PluginModRef> {
    // SAFETY: the file has passed the ELF checks and carries the note; its constructors are trusted native code.
    let library = unsafe { Library::open(Some(image.dlopen_path()), RTLD_NOW | RTLD_LOCAL) }.map_err(|error| {
        let cause = error.source().map_or_else(|| error.to_string(), ToString::to_string);
        let cause = cause.replace(&format!("{}: ", image.dlopen_path().display()), "");
        fault(image, "cannot be loaded").found(cause).hint("install the library that it needs, or build it again")
    })?;
    // SAFETY: the symbol of this name is abi_stable's header, a pointer-like handle to a static of the library.
    let header = unsafe { library.get::<compat::Header>(compat::SYMBOL.as_bytes()) };
    let header = header.map_err(|_| {
        let fault = fault(image, "not an optimizer plugin").found("no root module").expected("`export_optimizer!`");
        fault.hint("call `export_optimizer!` in a crate with `crate-type = [\"cdylib\"]`")
    })?;
    image.verify_mapping(header.clone().into_raw() as usize)?;
    let header = *header;
    // Never unloaded: code and statics of the library may be in use until the process ends.
    std::mem::forget(library);
    // SAFETY: the header comes from that symbol, and the library stays.
    unsafe { compat::root_module(header) }.map_err(|mismatch| {
        fault(image, &mismatch.summary)
            .hint("build it again with this host's gauntlet-plugin-api; `--verbose` shows the whole comparison")
            .detail(mismatch.detail)
    })
}

fn metadata(image: &Image, module: PluginModRef) -> Result<Metadata> {
    let text = (module.metadata())().into_result();
    let text = text.map_err(|error| fault(image, "cannot describe itself").found(&error.message))?;
    serde_json::from_str(&text).map_err(|error| fault(image, "cannot describe itself").found(error))
}

fn check_minor(image: &Image, metadata: &Metadata) -> Result<()> {
    let (major, minor, patch) = VERSION_NUMBERS;
    if metadata.min_host_minor <= minor {
        return Ok(());
    }
    Err(fault(image, "needs a newer host")
        .found(format!("host ABI {major}.{minor}.{patch}"))
        .expected(format!("at least {major}.{}", metadata.min_host_minor))
        .hint("update gauntlet, or use an older version of the plugin"))
}

fn fault(image: &Image, what: &str) -> Fault {
    Fault::new(Exit::Plugin, format!("plugin `{}`: {what}", image.path.display()))
}
