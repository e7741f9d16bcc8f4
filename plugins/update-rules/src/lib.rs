//! Update rules as functions over parameter lists. Plugins are configuration, state and one of these.

pub mod adamw;
pub mod blocks;
pub mod by_role;
pub mod check;
pub mod clip;
pub mod diagnostics;
pub mod eigenbasis;
pub mod inner;
pub mod inverse_root;
pub mod matrices;
pub mod muon;
pub mod newton_schulz;
pub mod sgd;
pub mod shampoo;
pub mod soap;

#[cfg(test)]
mod probe;
