//! `gauntlet plugins pin`: writes the hash of a configuration's plugin into the configuration.

use super::Faults;
use super::plugins::SearchArgs;
use crate::durable;
use crate::error::{Exit, Fault, Result};
use crate::plugin::image::Image;
use gauntlet_plugin_abi::VERSION_NUMBERS;
use std::path::{Path, PathBuf};
use toml_edit::{DocumentMut, Item, value};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file that names the plugin; `optimizer.sha256` is set in it.
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    #[command(flatten)]
    search: SearchArgs,
}

pub fn run(args: &Args) -> Result<(), Faults> {
    pin(&args.config, &args.search).map_err(|fault| vec![fault])
}

fn pin(config: &Path, search: &SearchArgs) -> Result<()> {
    let text = std::fs::read_to_string(config).map_err(|error| Fault::reading(config, &error))?;
    let shown = config.display();
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
        Fault::new(Exit::Usage, format!("{shown}: not TOML: {}", error.message().trim().replace('\n', ", ")))
    })?;
    let optimizer = document.get_mut("optimizer").and_then(Item::as_table_like_mut);
    let named = optimizer.and_then(|table| Some((table.get("plugin")?.as_str()?.to_owned(), table)));
    let Some((plugin, table)) = named else {
        return Err(Fault::new(Exit::Usage, format!("{shown}: no `optimizer.plugin`")).expected("a plugin to pin"));
    };
    let image = Image::read(&search.find(&plugin)?, None, VERSION_NUMBERS)?;
    table.insert("sha256", value(&image.sha256));
    durable::replace(config, document.to_string().as_bytes())?;
    println!("{shown}: `optimizer.sha256` is that of `{}`: {}", image.path.display(), image.sha256);
    Ok(())
}
