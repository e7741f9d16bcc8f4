//! `gauntlet data`.

use super::Faults;
use crate::data::{Prepare, prepare, verify};
use std::path::PathBuf;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make token shards from UTF-8 text files.
    Prepare(PrepareArgs),
    /// Check shards against their sidecars.
    Verify {
        /// Shard files, or folders of them.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
pub struct PrepareArgs {
    /// Text files, or folders that are searched for `*.txt` and `*.md`.
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// The folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Expected share of the validation split, by whole files.
    #[arg(long, default_value_t = Prepare::VALIDATION_FRACTION)]
    validation_fraction: f64,
    /// A file name or relative path that goes to the validation split; `*` stands for any characters.
    #[arg(long, value_name = "PATTERN")]
    validation_file: Vec<String>,
    /// Most tokens in a shard.
    #[arg(long, default_value_t = Prepare::SHARD_TOKENS)]
    shard_tokens: u64,
}

pub fn run(command: Command) -> Result<(), Faults> {
    match command {
        Command::Prepare(args) => run_prepare(args).map_err(|fault| vec![fault]),
        Command::Verify { paths } => run_verify(&paths),
    }
}

fn run_prepare(args: PrepareArgs) -> crate::error::Result<()> {
    let out = args.out.clone();
    let prepared = prepare(&Prepare {
        inputs: args.inputs,
        output: args.out,
        validation_fraction: args.validation_fraction,
        validation_files: args.validation_file,
        shard_tokens: args.shard_tokens,
    })?;
    for (name, split) in [("train", prepared.train), ("validation", prepared.validation)] {
        println!("{name:<10} {:>12} tokens in {} files, {} shards", split.tokens, split.documents, split.shards);
    }
    if prepared.duplicates + prepared.empty > 0 {
        println!("left out: {} exact duplicates, {} empty files", prepared.duplicates, prepared.empty);
    }
    println!("wrote {}", out.display());
    Ok(())
}

fn run_verify(paths: &[PathBuf]) -> Result<(), Faults> {
    let verification = verify(paths).map_err(|fault| vec![fault])?;
    for shard in &verification.shards {
        println!("ok  {}", shard.path.display());
    }
    match verification.problems.is_empty() {
        true => Ok(()),
        false => Err(verification.problems),
    }
}
