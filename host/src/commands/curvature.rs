//! `gauntlet curvature`: products and the spectrum at a checkpoint, to look at and to check with other tools.

mod inputs;
mod product;
mod spectrum;

use crate::error::Result;
use clap::{Subcommand, ValueEnum};
use gauntlet_plugin_api::Structure;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// A product of the model linearized at a checkpoint with a vector.
    Product(product::Args),
    /// Largest eigenvalues and trace of the Gauss-Newton matrix or the Hessian.
    Spectrum(spectrum::Args),
}

pub fn run(command: Command) -> Result<()> {
    match command {
        Command::Product(args) => product::run(&args),
        Command::Spectrum(args) => spectrum::run(&args),
    }
}

/// Which parameters form a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StructureChoice {
    /// All of them.
    Full,
    /// The embedding, each transformer block, the head.
    Layerwise,
}

impl StructureChoice {
    fn structure(self) -> Structure {
        match self {
            Self::Full => Structure::Full,
            Self::Layerwise => Structure::Layerwise,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Layerwise => "layerwise",
        }
    }
}
