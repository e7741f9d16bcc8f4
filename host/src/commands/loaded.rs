//! A checkpoint opened for use: its model and the parameters to evaluate and generate with.

use crate::config::{self, Config, Device as DeviceChoice, Dtype};
use crate::error::Result;
use crate::model::{Transformer, param_specs};
use crate::run;
use crate::sinks::checkpoint::{Checkpoint, Manifest};
use std::path::{Path, PathBuf};
use tch::Tensor;

/// Which checkpoint, and where it is computed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a checkpoint: `RUN/checkpoints/step-N`.
    #[arg(long, value_name = "DIR")]
    pub checkpoint: PathBuf,
    /// `auto`, `cpu` or `cuda:N`.
    #[arg(long, default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads; 0 for all cores.
    #[arg(long, default_value_t = 0)]
    pub threads: usize,
}

/// A model with its parameters.
pub struct LoadedModel {
    pub manifest: Manifest,
    pub model: Transformer,
    pub params: Vec<Tensor>,
}

impl LoadedModel {
    pub fn open(args: &Args) -> Result<Self> {
        run::set_up_libtorch(args.threads);
        let checkpoint = Checkpoint::open(&args.checkpoint)?;
        let model =
            Transformer::new(checkpoint.manifest.model.clone(), run::device(args.device)?, run::kind(Dtype::F32))?;
        let names: Vec<String> = param_specs(model.config()).into_iter().map(|spec| spec.name).collect();
        let params = checkpoint.evaluation_params(&names, model.device(), model.kind())?;
        Ok(Self { manifest: checkpoint.manifest, model, params })
    }
}

/// The configuration of the run that a checkpoint lies in, where it is there.
///
/// # Errors
///
/// A configuration that cannot be read.
pub fn run_config(checkpoint: &Path) -> Result<Option<Config>> {
    let file = run_dir(checkpoint).map(|dir| dir.join("config.resolved.toml"));
    let Some(file) = file.filter(|file| file.exists()) else { return Ok(None) };
    match config::load(&[file], &[], []) {
        Ok(loaded) => Ok(Some(loaded.config)),
        Err(faults) => faults.into_iter().next().map_or(Ok(None), Err),
    }
}

/// The folder of the run that a checkpoint lies in.
fn run_dir(checkpoint: &Path) -> Option<&Path> {
    checkpoint.parent()?.parent()
}
