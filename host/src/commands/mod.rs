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
use std::io::{ErrorKind, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Mutex, OnceLock, PoisonError};

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
    match outcome.unwrap_or_else(|_| after_panic()) {
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

/// Writes to standard output; a reader that has seen enough is no error, and changes no exit code.
fn print(text: &str) -> Result<(), Faults> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(vec![Fault::writing(Path::new("/dev/stdout"), &error)])
        }
        _ => Ok(()),
    }
}

/// The last panic's message.
static PANIC: Mutex<Option<String>> = Mutex::new(None);
/// The exit code of what a closed pipe ends, as shells know it: 128 and SIGPIPE.
const PIPE_CLOSED: u8 = 141;

/// Keeps what a panic said for the one line that a user sees.
fn install_panic_hook() {
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("a value that is not text");
        let place = info.location().map(|at| format!(" at {}:{}", at.file(), at.line())).unwrap_or_default();
        let said = format!("{}{place}", text.lines().next().unwrap_or_default());
        *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(said);
    }));
}

/// What a panic means. The one of `println!` is no bug: whoever read the output has seen enough, or it cannot be written.
fn after_panic() -> Result<u8, Faults> {
    let what = PANIC.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_else(|| "no message".into());
    match what.strip_prefix("failed printing to stdout: ") {
        Some(why) if why.starts_with("Broken pipe") => Ok(PIPE_CLOSED),
        Some(why) => {
            let why = why.split(" (os error").next().unwrap_or(why).to_lowercase();
            Err(vec![Fault::new(Exit::Write, format!("cannot write to standard output: {why}"))])
        }
        None => {
            let fault = Fault::new(Exit::Internal, format!("a bug in gauntlet: {what}"));
            Err(vec![fault.hint("please report it with the command you ran")])
        }
    }
}
