//! The quickstart's data and settings.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::session;

/// Prepares the quickstart's shards in `folder`; gives their folder.
pub fn prepare(folder: &Path) -> Result<PathBuf> {
    let plays = std::env::var_os("BENCH_PLAYS").context("BENCH_PLAYS is not set")?;
    let shards = folder.join("shards");
    let mut command = Command::new(session::program()?);
    command.args(["data", "prepare"]).arg(plays).arg("--out").arg(&shards).args(["--validation-fraction", "0.1"]);
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().context("cannot run `gauntlet data`")?;
    ensure!(status.success(), "`gauntlet data prepare` ended with {status}");
    Ok(shards)
}
