//! `gauntlet train`.

use super::Faults;
use crate::{config, run};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A configuration file (TOML); later ones win over earlier ones.
    #[arg(long, value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
    /// One key, for example `optimizer.config.lr=0.01`; wins over files and environment.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: &Args) -> Result<(), Faults> {
    let loaded = config::load(&args.config, &args.set, config::environment())?;
    run::train(&loaded).map(drop)
}
