//! The host's end of `cargo xtask bench`: one side of a subject, driven round by round over standard input and output.
//!
//! `bench SUBJECT SIDE FOLDER THREADS` gets warm, says so in a line of JSON, and answers each line of its input with the
//! quantities of one round. The first side of a subject writes the inputs of the others to FOLDER.

//mod adam;
mod drive;
mod gradient;
mod inputs;
//mod listeners;
//mod memory;
//mod session;
//mod start;
//mod step;

use std::process::ExitCode;

use anyhow::{Result, bail};
use drive::{Arguments, Subject};

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
    Ok(match arguments.subject.as_str() {
        //        "adam" => Box::new(adam::Adam::new(arguments)?),
        "gradient" => Box::new(gradient::Gradient::new(arguments)?),
        //        "listeners" => Box::new(listeners::Listening::new(arguments)?),
        //        "memory" => Box::new(memory::Memory::new(arguments)?),
        //        "start" => Box::new(start::Start::new(arguments)?),
        //        "step" => Box::new(step::Step::new(arguments)?),
        other => bail!("no such subject: found `{other}`"),
    })
}
