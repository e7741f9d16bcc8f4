//! `gauntlet train`.

use super::config::Layers;
use super::{Faults, dry_run};
use crate::error::Exit;
use crate::plugin::child;
use crate::run::{self, Allowed, Resume};
use crate::sinks::say;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    layers: Layers,
    /// Go on from a checkpoint: its folder, or `auto` for the latest in `run.dir`, which may be none.
    #[arg(long, value_name = "auto|DIR")]
    resume: Option<run::From>,
    /// A key or section that may differ from the checkpoint's run.
    #[arg(long, value_name = "KEY", requires = "resume")]
    allow_change: Vec<String>,
    /// Go on with another version or file of the same plugin.
    #[arg(long, requires = "resume")]
    allow_plugin_change: bool,
    /// Take only parameters, average and place in the data; the optimizer, which may be another, begins anew.
    #[arg(long, requires = "resume")]
    reset_optimizer: bool,
    /// Take a checkpoint that holds values which are not finite.
    #[arg(long, requires = "resume")]
    allow_nonfinite: bool,
    /// Exit code of a run that was stopped by a signal and saved a checkpoint, for schedulers that want another.
    #[arg(long, value_name = "CODE", default_value = "75", value_parser = ["0", "75", "143"])]
    graceful_exit_code: String,
    /// End at once when the process that started this one ends.
    #[arg(long, hide = true)]
    with_parent: bool,
    /// Check everything up to step 1, and print which parameter follows which rule, and the memory; train nothing.
    #[arg(long, conflicts_with = "resume")]
    dry_run: bool,
    /// Print what the run would be and take: parameters, operations, tokens, memory by part, and the time of a step, by
    /// small steps that are made here (seconds, minutes for a large model). Data and first checkpoint need not be there.
    /// Train nothing.
    #[arg(long, conflicts_with_all = ["resume", "dry_run"])]
    plan: bool,
}

impl Args {
    fn resume(&self) -> Resume {
        let allowed = Allowed {
            keys: self.allow_change.clone(),
            plugin_change: self.allow_plugin_change,
            reset_optimizer: self.reset_optimizer,
        };
        Resume { from: self.resume.clone().unwrap_or_default(), allowed, nonfinite: self.allow_nonfinite }
    }

    fn graceful_exit_code(&self) -> u8 {
        self.graceful_exit_code.parse().unwrap_or(Exit::Stopped as u8)
    }
}

/// Trains, and says in one last line how it ended. The exit code is the ending's.
pub fn run(args: &Args) -> Result<u8, Faults> {
    if args.with_parent {
        child::end_with_parent();
    }
    let loaded = args.layers.load_all()?;
    if args.dry_run {
        return dry_run::run(&loaded).map(|()| 0);
    }
    if args.plan {
        return dry_run::plan(&loaded).map(|()| 0);
    }
    let ending = run::train(&loaded, &args.resume(), args.graceful_exit_code())?;
    if let Some(fault) = &ending.fault {
        say(&format!("error: {fault}"));
    }
    say(&ending.line());
    Ok(ending.code)
}
