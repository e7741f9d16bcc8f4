//! The command line: what was typed, one file a command, and how errors end.

mod check;
mod checkpoint;
mod compare;
mod config;
mod curvature;
mod data;
mod dry_run;
mod eval;
mod fork;
mod generate;
mod loaded;
mod new;
mod pin;
mod plugins;
mod probe;
mod replay;
mod report;
mod train;
mod watch;

use crate::error::{Exit, Fault};
use crate::sinks::say;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::process::ExitCode;
use std::sync::OnceLock;

/// Errors of a command: at least one.
type Faults = Vec<Fault>;

/// Train transformer language models with optimizers that are plugins.
#[derive(Debug, Parser)]
#[command(name = "gauntlet", arg_required_else_help = true)]
struct Cli {
    /// Show the long diagnostics of an error.
    #[arg(long, global = true)]
    verbose: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model.
    Train(train::Args),
    /// Validation loss of a checkpoint.
    Eval(eval::Args),
    /// Text from a checkpoint.
    Generate(generate::Args),
    /// Make and check token shards.
    #[command(subcommand)]
    Data(data::Command),
    /// List and check the checkpoints of a run.
    #[command(subcommand)]
    Checkpoint(checkpoint::Command),
    /// Show and check a configuration.
    #[command(subcommand)]
    Config(config::Command),
    /// Products and the spectrum at a checkpoint.
    #[command(subcommand)]
    Curvature(curvature::Command),
    /// Compare optimizers: make the runs of a comparison file that are not there yet, and say what came out.
    Compare(compare::Args),
    /// Choose the settings of one contender of a comparison file.
    Sweep(compare::SweepArgs),
    /// Branch off a run at a checkpoint with another optimizer or other settings, on the same data.
    Fork(fork::Args),
    /// Write an HTML page with the curves of one or several runs.
    Report(report::Args),
    /// Show a run on the terminal, as it goes or as it ended.
    Watch(watch::Args),
    /// Look at optimizer plugins, or begin a new one.
    #[command(subcommand)]
    Plugins(plugins::Command),
}

/// Runs the program; everything that goes wrong is one line on standard error and an exit code.
pub fn main() -> ExitCode {
    let (cli, version) = (Cli::command(), version());
    let parsed = cli.version(version).get_matches();
    let cli = Cli::from_arg_matches(&parsed).unwrap_or_else(|error| error.exit());
    install_panic_hook();
    let outcome = std::panic::catch_unwind(|| run(cli.command));
    match outcome.unwrap_or_else(|_| Err(vec![bug()])) {
        Ok(code) => ExitCode::from(code),
        Err(faults) => {
            faults.iter().for_each(|fault| print_fault(fault, cli.verbose));
            ExitCode::from(faults.first().map_or(Exit::Internal, |fault| fault.exit) as u8)
        }
    }
}

/// Runs a command; gives the exit code.
fn run(command: Command) -> Result<u8, Faults> {
    let one = |fault| vec![fault];
    match command {
        Command::Train(args) => return train::run(&args),
        Command::Eval(args) => eval::run(&args).map_err(one)?,
        Command::Generate(args) => generate::run(&args).map_err(one)?,
        Command::Data(command) => data::run(command)?,
        Command::Checkpoint(command) => checkpoint::run(command)?,
        Command::Config(command) => config::run(command)?,
        Command::Curvature(command) => curvature::run(command).map_err(one)?,
        Command::Compare(args) => return compare::run(&args),
        Command::Sweep(args) => return compare::sweep(&args),
        Command::Fork(args) => return fork::run(&args),
        Command::Report(args) => report::run(args).map_err(one)?,
        Command::Watch(args) => return watch::run(&args).map_err(one),
        Command::Plugins(command) => return plugins::run(command),
    }
    Ok(0)
}

fn print_fault(fault: &Fault, verbose: bool) {
    say(&format!("error: {fault}"));
    if let (true, Some(detail)) = (verbose, fault.verbose()) {
        say(detail);
    }
}

/// Program, commit, plugin interface and libtorch.
fn version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        format!(
            "{} (commit {}, plugin ABI {}, libtorch {})",
            env!("CARGO_PKG_VERSION"),
            env!("GAUNTLET_COMMIT"),
            gauntlet_plugin_abi::VERSION,
            gauntlet_torch_ext::libtorch_version()
        )
    })
}

static PANIC: OnceLock<String> = OnceLock::new();

/// Keeps what a panic said for the one line that a user sees.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a value that is not text");
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        let _ = PANIC.set(format!("{}{place}", text.lines().next().unwrap_or_default()));
    }));
}

fn bug() -> Fault {
    let what = PANIC.get().map_or("no message", String::as_str);
    Fault::new(Exit::Internal, format!("a bug in gauntlet: {what}")).hint("please report it with the command you ran")
}
