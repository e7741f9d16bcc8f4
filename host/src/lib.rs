//! The host of Gauntlet.
pub mod error;
