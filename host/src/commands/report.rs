//! `gauntlet report`.

use crate::error::{Result, printable};
use crate::report;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folders of runs; several are compared on one page.
    #[arg(required = true, value_name = "RUN_DIR")]
    runs: Vec<PathBuf>,
    /// The page to write; `report.html` in the first folder when absent.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub fn run(args: Args) -> Result<()> {
    let beside = args.runs.first().map(|run| run.join("report.html")).unwrap_or_default();
    let out = args.out.unwrap_or(beside);
    report::write(&args.runs, &out)?;
    println!("wrote {}", printable(&out.display().to_string()));
    Ok(())
}
