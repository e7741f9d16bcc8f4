//! `gauntlet plugins probe`: the child's part of trying a plugin before a run loads it. Hidden: nobody types it.

use crate::error::Result;
use crate::plugin::probe;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Absolute path of the file.
    file: PathBuf,
    /// The hash that it must have.
    #[arg(long)]
    sha256: String,
    /// Where to note what was found.
    #[arg(long)]
    mark: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    probe::here(&args.file, &args.sha256, &args.mark)
}
