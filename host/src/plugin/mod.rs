//! Optimizer plugins: found, checked, loaded, and made into optimizers.

pub mod child;
pub mod elf;
pub mod file;
pub mod image;
mod load;
mod optimizer;
pub mod probe;
pub mod replay;

pub use file::SearchPath;
pub use load::Plugin;
pub use optimizer::{PluginOptimizer, state_bytes};
