//! Update rules as functions over parameter lists. Plugins are configuration, state and one of these.

pub mod adamw;
pub mod check;
