//! The host's end of `cargo xtask bench`: one side of a subject, driven round by round over standard input and output.
//!
//! `bench SUBJECT SIDE FOLDER THREADS` gets warm, says so in a line of JSON, and answers each line of its input with the
//! quantities of one round. The first side of a subject writes the inputs of the others to FOLDER.

mod curvature;
mod drive;
mod gradient;
mod inline;
mod inputs;
mod listeners;
mod loading;
mod memory;
mod optimizer;
mod preparing;
mod quickstart;
mod reporting;
mod resident;
mod saving;
mod scraping;
mod session;
mod start;
mod step;

use std::process::ExitCode;

use anyhow::{Result, bail};
use drive::{Arguments, Subject};
use gauntlet::model::ModelConfig;
use optimizer::OptimizerStep;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::read()?;
    gauntlet::run::set_up_libtorch(arguments.threads);
    drive::serve(subject(&arguments)?)
}

fn subject(arguments: &Arguments) -> Result<Box<dyn Subject>> {
    let peak = |config, sequences, seq_len| curvature::Peak::new(arguments, config, sequences, seq_len);
    Ok(match arguments.subject.as_str() {
        "gradient" => Box::new(gradient::Gradient::new(arguments)?),
        "adam" => Box::new(OptimizerStep::adam(arguments)?),
        "muon" => Box::new(OptimizerStep::muon(arguments)?),
        "soap" => Box::new(OptimizerStep::soap(arguments)?),
        "step" => Box::new(step::Step::new(arguments)?),
        "memory" => Box::new(memory::Memory::new(arguments)?),
        "start" => Box::new(start::Start::new(arguments)?),
        "listeners" => Box::new(listeners::Listening::new(arguments)?),
        "scraping" => Box::new(scraping::Scraping::new(arguments)?),
        "preparing" => Box::new(preparing::Preparing::new(arguments)?),
        "loading" => Box::new(loading::Loading::new(arguments)?),
        "reporting" => Box::new(reporting::Reporting::new(arguments)?),
        "saving" => Box::new(saving::Saving::new(arguments)?),
        "products" => Box::new(curvature::Products::new(arguments)?),
        "layerwise" => Box::new(curvature::Layerwise::new(arguments)?),
        "peak" => Box::new(peak(inputs::small(), 8, 128)?),
        "peak-1024" => Box::new(peak(inputs::small(), 2, 1024)?),
        "peak-50k" => Box::new(peak(ModelConfig { vocab_size: 50_000, ..inputs::small() }, 8, 128)?),
        other => bail!("no such subject: found `{other}`"),
    })
}
