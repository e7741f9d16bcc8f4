//! Optimizer plugins: found, checked, loaded, and made into optimizers.

mod changed;
pub mod child;
pub mod elf;
pub mod file;
pub mod image;
mod load;
mod optimizer;
pub mod probe;
pub mod replay;

pub use changed::PluginFile;
pub use file::SearchPath;
pub use load::Plugin;
pub use optimizer::{PluginOptimizer, state_bytes};
