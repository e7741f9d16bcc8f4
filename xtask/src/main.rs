//! `cargo xtask`: the set-up of libtorch, the quickstart, the bench and the whole check, none of which needs libtorch to start.
//!
//! Everything that is downloaded comes through the user's own pip, pinned by sha256 ([`pins`]), and becomes a folder of
//! the per-user cache that is there whole or not at all ([`bundle`]).

mod bench;
mod bundle;
mod cache;
mod cargo;
mod corpus;
mod fuzz;
mod libtorch;
mod pins;
mod platform;
mod process;
mod quickstart;
mod setup;
mod size;
mod soak;
mod suite;
mod unpack;
mod wheel;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// Set-up, quickstart, bench and checks of this workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make libtorch available to every build of this checkout
    Setup(Device),
    /// Set up, build, prepare the quickstart corpus, train on it and print a sample
    Quickstart(quickstart::Options),
    /// Measure the host beside PyTorch and write target/bench/latest.json
    Bench(bench::Options),
    /// Put together a corpus of texts with a note of where they come from
    Corpus(corpus::Options),
    /// Feed everything that reads bytes from outside with bytes of chance, each for a minute
    Fuzz(fuzz::Options),
    /// Set up, then run every check: format, clippy, the whole test suite
    Test,
    /// Every round of the tests of kills, full disks and power losses; writes docs/soak.md
    Soak,
}

#[derive(Args)]
struct Device {
    /// Use libtorch with CUDA, a download of several GB
    #[arg(long)]
    cuda: bool,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(process::exit_code(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Setup(device) => {
            setup::run(if device.cuda { libtorch::Edition::Cuda } else { libtorch::Edition::Cpu })
        }
        Command::Quickstart(options) => quickstart::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Corpus(options) => corpus::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Test => suite::run(),
        Command::Soak => soak::run(),
    }
}
