//! `gauntlet plugins replay`: a plugin on recorded gradients, compared with the parameters of a reference.

use super::Faults;
use super::plugins::SearchArgs;
use crate::error::{Exit, Fault, printable};
use crate::plugin::replay::{Replay, relative_error, tensors};
use gauntlet_plugin_abi::DType;
use gauntlet_plugin_api::testing::Trace;
use std::path::{Path, PathBuf};

/// Up to so many errors are all listed without being asked for.
const FEW: usize = 24;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, or path of the file.
    #[arg(long, value_name = "NAME")]
    plugin: String,
    /// The recorded run, a safetensors file.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Largest relative error that is allowed; exit code 3 above it.
    #[arg(long, value_name = "X", value_parser = tolerance)]
    rtol: Option<f64>,
    /// List the error of every tensor, not only the largest of each step.
    #[arg(long)]
    tensors: bool,
    #[command(flatten)]
    search: SearchArgs,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| *number >= 0.0 && number.is_finite());
    number.ok_or_else(|| "expected a number >= 0".into())
}

/// An error with its place.
#[derive(Clone, Copy)]
struct Distance<'a> {
    step: usize,
    tensor: &'a str,
    error: f64,
}

impl Distance<'_> {
    /// NaN is worse than any number.
    fn is_worse_than(&self, other: &Self) -> bool {
        self.error > other.error || (self.error.is_nan() && !other.error.is_nan())
    }
}

pub fn run(args: &Args) -> Result<(), Faults> {
    let one = |fault: Fault| vec![fault];
    let trace = read(&args.trace).map_err(one)?;
    let plugin = args.search.load(&args.plugin).map_err(one)?;
    let mut replay = Replay::of_trace(&plugin, &args.trace, &trace)?;
    println!("plugin     {} {}", plugin.metadata.name, plugin.metadata.version);
    print_header(args, &trace);
    let all = args.tensors || trace.specs.len() * trace.after.len() <= FEW;
    println!("\n{:>6}  {:>10}  tensor", "step", "error");
    let mut most: Option<Distance> = None;
    for (index, values) in trace.after.iter().enumerate() {
        let reference = tensors(&trace, values);
        let params = replay.step().map_err(one)?;
        let errors = params.iter().zip(&reference).map(|(found, reference)| relative_error(found, reference));
        let of_step: Vec<Distance> = (trace.specs.iter().zip(errors))
            .map(|(spec, error)| Distance { step: index + 1, tensor: &spec.name, error })
            .collect();
        let largest = of_step.iter().copied().reduce(|a, b| if b.is_worse_than(&a) { b } else { a });
        of_step.iter().filter(|_| all).for_each(print);
        largest.iter().filter(|_| !all).for_each(print);
        most = most.into_iter().chain(largest).reduce(|a, b| if b.is_worse_than(&a) { b } else { a });
    }
    most.map_or(Ok(()), |most| conclude(args, &most)).map_err(one)
}

/// Exit code 66 where the file cannot be read, 65 where it is no trace.
fn read(path: &Path) -> Result<Trace, Fault> {
    let bytes = std::fs::read(path).map_err(|error| Fault::reading(path, &error))?;
    Trace::parse(&bytes).map_err(|error| Fault::new(Exit::Data, format!("`{}`: {}", path.display(), error.message)))
}

fn print_header(args: &Args, trace: &Trace) {
    let dtype = if trace.dtype == DType::F64 { "float64" } else { "float32" };
    let (steps, tensors) = (trace.after.len(), trace.specs.len());
    println!("trace      {}: steps {steps}, tensors {tensors}, {dtype}", args.trace.display());
    println!("recorded   {}", printable(&trace.optimizer));
    println!("reference  {}", printable(&trace.reference));
    println!("config     {}", trace.config);
}

fn print(distance: &Distance) {
    println!("{:>6}  {:>10.3e}  {}", distance.step, distance.error, printable(distance.tensor));
}

/// The last line, and whether the tolerance holds.
fn conclude(args: &Args, most: &Distance) -> Result<(), Fault> {
    let holds = args.rtol.map(|rtol| most.error <= rtol);
    let verdict = match (holds, args.rtol) {
        (Some(true), Some(rtol)) => format!(", at most {rtol:e} as asked"),
        (Some(false), Some(rtol)) => format!(", more than {rtol:e}"),
        _ => String::new(),
    };
    let place = format!("at step {} in `{}`", most.step, printable(most.tensor));
    println!("\nlargest error {:.3e} {place}{verdict}", most.error);
    match (holds, args.rtol) {
        (Some(false), Some(rtol)) => {
            let what =
                format!("`{}`: plugin `{}` differs from the reference {place}", args.trace.display(), args.plugin);
            let fault = Fault::new(Exit::NotHeld, what).found(format!("relative error {:.3e}", most.error));
            Err(fault.expected(format!("at most {rtol:e}")))
        }
        _ => Ok(()),
    }
}
