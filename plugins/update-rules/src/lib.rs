//! Update rules as functions over parameter lists. Plugins are configuration, state and one of these.

pub mod adamw;
pub mod blocks;
pub mod by_role;
pub mod by_shape;
pub mod cg;
pub mod check;
pub mod clip;
pub mod eigenbasis;
pub mod gauss_newton;
pub mod inner;
pub mod inner_schedule;
pub mod inverse_root;
pub mod levenberg_marquardt;
pub mod line_search;
pub mod matrices;
pub mod muon;
pub mod newton_cg;
pub mod newton_schulz;
pub mod sgd;
pub mod shampoo;
pub mod soap;
pub mod update_norms;

#[cfg(test)]
mod probe;
