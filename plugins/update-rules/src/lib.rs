//! Update rules as functions over parameter lists. Plugins are configuration, state and one of these.

pub mod adamw;
pub mod by_role;
pub mod check;
pub mod clip;
pub mod inner;
pub mod matrices;
pub mod muon;
pub mod newton_schulz;
pub mod sgd;

#[cfg(test)]
mod probe;
