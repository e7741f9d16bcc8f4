//! `gauntlet compare` and `gauntlet sweep`.

use super::{Faults, print};
use crate::compare::{self, Options};
use crate::error::{Exit, Fault, printable};
use crate::sinks::say;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A comparison file (docs/compare.md); with `--verify` the folder of a capsule.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Run only these contenders, and the trials of those that they are like; the others are reported as far as they are
    /// there.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Make only runs with these seeds, of those that count.
    #[arg(long, value_name = "SEED")]
    seed: Vec<u64>,
    /// Make only runs at these batch sizes, of those that count.
    #[arg(long, value_name = "SEQUENCES")]
    batch_size: Vec<u64>,
    /// Run nothing: report what is there.
    #[arg(long)]
    report: bool,
    /// Make the runs of a capsule again and compare.
    #[arg(long, conflicts_with_all = ["only", "seed", "batch_size", "report"])]
    verify: bool,
    /// Where `--verify` makes its runs; `verify` beside the capsule when absent.
    #[arg(long, value_name = "DIR", requires = "verify")]
    work: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct SweepArgs {
    /// A comparison file (docs/compare.md).
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The contender whose settings are chosen; the only one when absent.
    #[arg(long, value_name = "NAME")]
    contender: Option<String>,
}

/// Compares; the exit code is 75 where the same command goes on.
pub fn run(args: &Args) -> Result<u8, Faults> {
    let stop = stop()?;
    if args.verify {
        let beside = args.file.parent().unwrap_or(Path::new("")).join("verify");
        let work = args.work.clone().unwrap_or(beside);
        let verified = compare::verify(&args.file, &work, stop)?;
        print(&verified.iter().map(|line| format!("{line}\n")).collect::<String>())?;
        return Ok(if verified.is_some() { 0 } else { unfinished() });
    }
    let Args { only, seed, batch_size, report, .. } = args.clone();
    let options = Options { only, seeds: seed, batch_sizes: batch_size, report_only: report, tune_only: false };
    let compared = compare::compare(&args.file, &options, stop)?;
    let end = match &compared.page {
        Some(page) => format!("wrote {}", printable(&page.display().to_string())),
        None => "wrote nothing: another process makes runs of this comparison".to_owned(),
    };
    print(&format!("{}\n{end}\n", compared.text()))?;
    Ok(if compared.unfinished { unfinished() } else { 0 })
}

/// Chooses the settings of one contender.
pub fn sweep(args: &SweepArgs) -> Result<u8, Faults> {
    let comparison = compare::Comparison::read(&args.file)?;
    let name = match (&args.contender, comparison.contender.as_slice()) {
        (Some(name), _) => name.clone(),
        (None, [only]) => only.name.clone(),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|contender| contender.name.as_str()).collect();
            let fault = Fault::new(Exit::Usage, "which contender?").found(names.join(", "));
            return Err(vec![fault.hint("name one with `--contender NAME`")]);
        }
    };
    let compared = compare::sweep(&args.file, &name, stop()?)?;
    print(&compared.tuning(&name))?;
    Ok(if compared.unfinished { unfinished() } else { 0 })
}

fn unfinished() -> u8 {
    say("not all runs were made; the same command goes on");
    Exit::Stopped as u8
}

/// Set by the first signal that asks for a stop; runs are stopped with a checkpoint. A second one ends the process at once,
/// and the runs with it.
fn stop() -> Result<Arc<AtomicBool>, Faults> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        flag::register_conditional_shutdown(signal, 128 + signal, stop.clone())
            .and_then(|_| flag::register(signal, stop.clone()))
            .map_err(|error| vec![Fault::new(Exit::Internal, format!("cannot listen for signals: {error}"))])?;
    }
    Ok(stop)
}
