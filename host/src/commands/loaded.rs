//! A checkpoint opened for use: its model and the parameters to evaluate and generate with.

use crate::config::{Device as DeviceChoice, Dtype};
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

/// The folder of the run that a checkpoint lies in.
pub fn run_dir(checkpoint: &Path) -> Option<&Path> {
    checkpoint.parent()?.parent()
}
