//! What an optimizer plugin depends on. It never links libtorch.
pub mod spec;
