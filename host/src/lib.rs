//! The host of Gauntlet: it runs the model, answers an optimizer's questions about curvature, and keeps the run.
//!
//! Data flows one way: config, data, model, curvature, plugin, trainer, events, sinks, report, watch, compare. A module uses
//! only modules to its left; `error`, `durable`, `tensor_file` and `events` may be used by all; `run` alone knows all of them,
//! and `commands` is the command line in front of it. `fuzzed` names what reads bytes from outside.

pub mod commands;
pub mod compare;
pub mod config;
pub mod curvature;
pub mod data;
pub mod durable;
pub mod error;
pub mod events;
pub mod fuzzed;
pub mod model;
pub mod plugin;
pub mod report;
pub mod run;
pub mod sinks;
pub mod tensor_file;
pub mod trainer;
pub mod watch;
