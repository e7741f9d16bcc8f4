//! Plugins on sessions of their own.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use gauntlet::config::Origins;
use gauntlet::curvature::{Problem, RunFacts, TorchBackend, TorchSession};
use gauntlet::plugin::{Plugin, PluginOptimizer};
use gauntlet_plugin_api::ParamSpec;
use gauntlet_plugin_api::backend::{InitialParams, Session};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

/// The built program `gauntlet`, beside which the plugins lie.
pub fn program() -> Result<PathBuf> {
    let path = std::env::var_os("BENCH_GAUNTLET").context("BENCH_GAUNTLET is not set")?;
    Ok(path.into())
}

/// The path of a plugin.
pub fn plugin_path(name: &str) -> Result<PathBuf> {
    Ok(program()?.with_file_name(format!("lib{}.so", name.replace('-', "_"))))
}

/// A session with these parameters.
pub fn start(
    problem: Box<dyn Problem>,
    specs: Vec<ParamSpec>,
    params: Vec<Tensor>,
    batch_size: u64,
) -> Result<&'static TorchSession> {
    let facts = RunFacts { batch_size, total_steps: None, seed: 1, device: Device::Cpu, kind: Kind::Float };
    let backend = TorchBackend::new(facts, problem, Box::new(|_| 1.0));
    let specs = specs.into_iter().map(Arc::new).collect();
    Ok(Session::start(backend, InitialParams { specs, tensors: params })?)
}

/// An optimizer of a plugin on a session.
pub fn optimizer(name: &str, session: &'static TorchSession, config: &Value) -> Result<PluginOptimizer> {
    let plugin = Plugin::load(&plugin_path(name)?, None)?;
    PluginOptimizer::new(&plugin, session, config, &Origins::default())
        .map_err(|faults| anyhow::anyhow!(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")))
}
