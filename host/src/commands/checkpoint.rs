//! `gauntlet checkpoint`.

use super::Faults;
use crate::error::{Exit, Fault};
use crate::sinks::checkpoint::{Checkpoint, MANIFEST, list};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The checkpoints of a run, oldest first; the last whole one is where `--resume auto` goes on.
    List {
        /// Folder of the run.
        run: PathBuf,
    },
    /// Compare every file with its size and hash.
    Verify {
        /// Folder of a run, or of one checkpoint.
        path: PathBuf,
    },
}

pub fn run(command: Command) -> Result<(), Faults> {
    match command {
        Command::List { run } => print_list(&run).map_err(|fault| vec![fault]),
        Command::Verify { path } => verify(&path),
    }
}

fn print_list(run: &Path) -> Result<(), Fault> {
    std::fs::metadata(run).map_err(|error| Fault::reading(run, &error))?;
    let found = list(&run.join("checkpoints"))?;
    if found.is_empty() {
        return Err(Fault::new(Exit::Checkpoint, format!("`{}` holds no checkpoint", run.display())));
    }
    for found in found {
        match found.checkpoint {
            Ok(checkpoint) => {
                let manifest = &checkpoint.manifest;
                let bytes: u64 = manifest.files.values().map(|file| file.bytes).sum();
                let loss =
                    manifest.validation_loss.map(|loss| format!("  validation loss {loss:.4}")).unwrap_or_default();
                let size = bytes as f64 / 1e6;
                println!(
                    "step {:>8}  {size:>9.1} MB  {}{loss}  {}",
                    manifest.step,
                    manifest.optimizer.name,
                    found.path.display()
                );
            }
            Err(fault) => println!("step {:>8}  not whole: {fault}", found.at.0),
        }
    }
    Ok(())
}

fn verify(path: &Path) -> Result<(), Faults> {
    std::fs::metadata(path).map_err(|error| vec![Fault::reading(path, &error)])?;
    let checkpoints = match path.join(MANIFEST).exists() || !path.join("checkpoints").exists() {
        true => vec![(path.to_owned(), Checkpoint::open(path))],
        false => {
            let found = list(&path.join("checkpoints")).map_err(|fault| vec![fault])?;
            found.into_iter().map(|found| (found.path, found.checkpoint)).collect()
        }
    };
    let mut faults = vec![];
    for (path, checkpoint) in checkpoints {
        match checkpoint.and_then(|checkpoint| checkpoint.verify()) {
            Ok(()) => println!("ok  {}", path.display()),
            Err(fault) => faults.push(fault),
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}
