//! `gauntlet watch`.

use crate::error::{Fault, Result};
use crate::watch;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Width of a frame of plain text where `COLUMNS` is no number.
const WIDTH: u16 = 100;
/// Widths that `COLUMNS` may ask for.
const WIDTHS: std::ops::RangeInclusive<u16> = 40..=400;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of a run that goes on or has ended.
    #[arg(value_name = "RUN_DIR")]
    run: PathBuf,
    /// Print one frame as plain text and end; its width is COLUMNS (40 to 400), or else 100.
    #[arg(long)]
    once: bool,
}

/// Shows a run; the exit code is that of the user's quitting, or of a signal.
pub fn run(args: &Args) -> Result<u8> {
    if !args.once {
        return watch::watch(&args.run);
    }
    let frame = watch::once(&args.run, width())?;
    match std::io::stdout().write_all(frame.as_bytes()) {
        // A reader that has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(0),
        Err(error) => Err(Fault::writing(Path::new("/dev/stdout"), &error)),
        Ok(()) => Ok(0),
    }
}

fn width() -> u16 {
    let columns = std::env::var("COLUMNS").ok().and_then(|columns| columns.trim().parse::<u16>().ok());
    columns.map_or(WIDTH, |columns| columns.clamp(*WIDTHS.start(), *WIDTHS.end()))
}
