//! `cargo xtask quickstart`: from a fresh checkout to a trained model and a sample of its text.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};

use crate::cache;
use crate::cargo;
use crate::corpus::SHAKESPEARE;
use crate::libtorch::Edition;
use crate::process;
use crate::setup;

/// Options of the quickstart.
#[derive(clap::Args)]
pub struct Options {
    /// Use libtorch with CUDA, a download of several GB
    #[arg(long)]
    cuda: bool,
    /// Train N steps instead of the configured number
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Put `data/` and `runs/` into DIR instead of the checkout
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Arguments that are passed on to `gauntlet train`
    #[arg(last = true, value_name = "ARGS")]
    train_args: Vec<OsString>,
}

const SHARDS: &str = "data/quickstart";
const RUNS: &str = "runs/quickstart";

/// The host's command lines, whose relative paths are below the folder that they run in.
mod arguments {
    use super::{OsString, Path, SHARDS};

    fn words<const N: usize>(words: [&str; N]) -> Vec<OsString> {
        words.map(OsString::from).into()
    }

    /// `plays` is the folder of texts.
    pub fn prepare(plays: &Path) -> Vec<OsString> {
        [words(["data", "prepare"]), vec![plays.into()], words(["--out", SHARDS, "--validation-fraction", "0.1"])]
            .concat()
    }

    pub fn verify() -> Vec<OsString> {
        words(["data", "verify", SHARDS])
    }

    /// `run` is the run's folder, `steps` a number that replaces the configured one.
    pub fn train(config: &Path, run: &str, steps: Option<u64>, more: &[OsString]) -> Vec<OsString> {
        let run = words(["--set", &format!("run.dir={run}")]);
        // A short run has no room for the configured warm-up.
        let short = |steps| words(["--set", &format!("train.max_steps={steps}"), "--set", "schedule.warmup_steps=0"]);
        let steps = steps.map_or_else(Vec::new, short);
        [words(["train", "--config"]), vec![config.into()], run, steps, more.to_vec()].concat()
    }

    pub fn generate(checkpoint: &Path) -> Vec<OsString> {
        [words(["generate", "--checkpoint"]), vec![checkpoint.into()], words(["--prompt", "ROMEO:", "--tokens", "400"])]
            .concat()
    }
}

/// Runs every stage; one that is done already is not done again.
pub fn run(options: &Options) -> Result<()> {
    let edition = if options.cuda { Edition::Cuda } else { setup::present_edition() };
    let cache = setup::ensure(edition, &[&SHAKESPEARE])?;
    let binary = cargo::build_workspace("gauntlet")?;
    let folder = match &options.out {
        Some(out) => std::path::absolute(out).context("cannot find the current folder")?,
        None => cargo::workspace_root().to_owned(),
    };
    cache::create_folder(&folder)?;
    let host = Host { binary, folder };
    host.prepare(&SHAKESPEARE.path(&cache).join("plays"))?;
    let run = host.train(options)?;
    host.sample(&run)
}

/// The built host and the folder that it works in.
struct Host {
    binary: PathBuf,
    folder: PathBuf,
}

impl Host {
    /// `gauntlet ARGS`.
    fn command(&self, args: Vec<OsString>) -> Command {
        let mut command = Command::new(&self.binary);
        command.args(args).current_dir(&self.folder);
        command
    }

    /// Makes the shards, unless they are there and sound.
    fn prepare(&self, plays: &Path) -> Result<()> {
        let shards = self.folder.join(SHARDS);
        if shards.exists() {
            let mut verify = self.command(arguments::verify());
            verify.stdout(Stdio::null()).stderr(Stdio::null());
            if verify.status().context("cannot run `gauntlet data verify`")?.success() {
                eprintln!("the shards in `{}` are there already", shards.display());
                return Ok(());
            }
            cache::remove_folder(&shards)?;
        }
        process::run(&mut self.command(arguments::prepare(plays)), "gauntlet data prepare")
    }

    /// Trains in a run folder of its own, and returns it.
    fn train(&self, options: &Options) -> Result<PathBuf> {
        let run = first_free(RUNS, |name| self.folder.join(name).exists());
        eprintln!("training in `{}`; Ctrl-C stops it", self.folder.join(&run).display());
        // Ctrl-C reaches the whole foreground group: the host decides how it stops, and this program reports how.
        let interrupted = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted).context("cannot catch Ctrl-C")?;
        let config = cargo::workspace_root().join("configs/quickstart.toml");
        let args = arguments::train(&config, &run, options.steps, &options.train_args);
        process::run(&mut self.command(args), "gauntlet train")?;
        Ok(self.folder.join(run))
    }

    /// Prints text from the run's last checkpoint.
    fn sample(&self, run: &Path) -> Result<()> {
        let checkpoints = run.join("checkpoints");
        let entries = fs::read_dir(&checkpoints).with_context(|| format!("cannot read `{}`", checkpoints.display()))?;
        let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
        let last =
            last_step(names).with_context(|| format!("`{}`: found no checkpoint `step-N`", checkpoints.display()))?;
        process::run(&mut self.command(arguments::generate(&checkpoints.join(last))), "gauntlet generate")
    }
}

/// `PREFIX-1`, `PREFIX-2`, …: the first that does not exist.
fn first_free(prefix: &str, exists: impl Fn(&str) -> bool) -> String {
    (1u64..).map(|number| format!("{prefix}-{number}")).find(|name| !exists(name)).unwrap_or_default()
}

/// The checkpoint folder `step-N` with the greatest N.
fn last_step(names: impl Iterator<Item = OsString>) -> Option<OsString> {
    let step = |name: &OsStr| name.to_str()?.strip_prefix("step-")?.parse::<u64>().ok();
    names.filter_map(|name| Some((step(&name)?, name))).max().map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_run_folder_is_the_first_that_is_free() {
        let taken = ["runs/quickstart-1", "runs/quickstart-2", "runs/quickstart-4"];
        assert_eq!(first_free(RUNS, |name| taken.contains(&name)), "runs/quickstart-3");
        assert_eq!(first_free(RUNS, |_| false), "runs/quickstart-1");
    }

    #[test]
    fn the_last_checkpoint_is_last_by_number() {
        let names = ["step-900", "step-1500", ".step-2000.partial", "step-x", "latest"];
        assert_eq!(last_step(names.map(OsString::from).into_iter()), Some("step-1500".into()));
        assert_eq!(last_step(["latest".into()].into_iter()), None);
    }

    #[test]
    fn training_arguments_come_last() {
        let more = ["--set".into(), "train.max_steps=7".into()];
        let args = arguments::train(Path::new("/w/configs/quickstart.toml"), "runs/quickstart-2", Some(20), &more);
        let expected = "train --config /w/configs/quickstart.toml --set run.dir=runs/quickstart-2 \
                        --set train.max_steps=20 --set schedule.warmup_steps=0 --set train.max_steps=7";
        assert_eq!(args.join(OsStr::new(" ")), OsStr::new(expected));
    }
}
