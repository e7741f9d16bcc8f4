//! `gauntlet train`.

use super::{Faults, dry_run};
use crate::config;
use crate::run::{self, Ending, Resume};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A configuration file (TOML); later ones win over earlier ones.
    #[arg(long, value_name = "FILE", required = true)]
    config: Vec<PathBuf>,
    /// One key, for example `optimizer.config.lr=0.01`; wins over files and environment.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Go on from a checkpoint: its folder, or `auto` for the latest in `run.dir`, which may be none.
    #[arg(long, value_name = "auto|DIR")]
    resume: Option<run::From>,
    /// A key or section that may differ from the checkpoint's run.
    #[arg(long, value_name = "KEY", requires = "resume")]
    allow_change: Vec<String>,
    /// Check everything up to step 1, and print which parameter follows which rule, and the memory; train nothing.
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
}

/// Trains, and says in one last line how it ended. The exit code is the ending's.
pub fn run(args: &Args) -> Result<u8, Faults> {
    let loaded = config::load(&args.config, &args.set, config::environment())?;
    if args.dry_run {
        return dry_run::run(&loaded).map(|()| 0);
    }
    let resume = Resume { from: args.resume.clone().unwrap_or_default(), allow_change: args.allow_change.clone() };
    let ending = run::train(&loaded, &resume)?;
    if let Some(fault) = &ending.fault {
        eprintln!("error: {fault}");
    }
    let Ending { code, reason, checkpoint, step, .. } = ending;
    let checkpoint = checkpoint.map_or("none".into(), |path| path.display().to_string());
    eprintln!("exit code={code} reason={reason} last_checkpoint={} step={step}", crate::error::printable(&checkpoint));
    Ok(code)
}
