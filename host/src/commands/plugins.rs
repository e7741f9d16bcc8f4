//! `gauntlet plugins`.

use super::{Faults, check, new, pin, probe, replay};
use crate::config::describe;
use crate::error::{Exit, Fault, Result};
use crate::plugin::{Plugin, SearchPath, file};
use gauntlet_plugin_api::metadata::{Metadata, MetricInfo};
use serde_json::Value;
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// The plugins in the search path.
    List(SearchArgs),
    /// Everything that a plugin says about itself.
    Inspect {
        /// Name, or absolute path of the file.
        plugin: String,
        #[command(flatten)]
        search: SearchArgs,
    },
    /// Run the conformance suite on a plugin, in a process of its own.
    Check(check::Args),
    /// Step a plugin over recorded gradients and compare with the recorded parameters.
    Replay(replay::Args),
    /// Write the hash of a configuration's plugin into it, so that no other file is loaded.
    Pin(pin::Args),
    /// Try a plugin before a run loads it.
    #[command(hide = true)]
    Probe(probe::Args),
    /// Write the crate of a new plugin.
    New(new::Args),
}

#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// A further folder to search, by absolute path.
    #[arg(long, value_name = "DIR")]
    search_path: Vec<PathBuf>,
}

impl SearchArgs {
    /// The file of a plugin that was typed: a path, also a relative one, or a name.
    pub fn find(&self, plugin: &str) -> Result<PathBuf> {
        let path = Path::new(plugin);
        match plugin.contains('/') || path.is_file() {
            true => path.canonicalize().map_err(|error| Fault::reading(path, &error)),
            false => file::find(plugin, &SearchPath::of_this_program(&self.search_path)?),
        }
    }

    /// Loads it.
    pub fn load(&self, plugin: &str) -> Result<Plugin> {
        Plugin::load(&self.find(plugin)?, None)
    }
}

/// Runs a command; gives the exit code.
pub fn run(command: Command) -> Result<u8, Faults> {
    let one = |fault| vec![fault];
    match command {
        Command::List(search) => list(&search).map_err(one)?,
        Command::Inspect { plugin, search } => inspect(&plugin, &search).map_err(one)?,
        Command::Check(args) => return check::run(&args),
        Command::Replay(args) => replay::run(&args)?,
        Command::Pin(args) => pin::run(&args)?,
        Command::Probe(args) => probe::run(&args).map_err(one)?,
        Command::New(args) => new::run(&args).map_err(one)?,
    }
    Ok(0)
}

/// One line a plugin; a file that is refused says why. Libraries that are no plugins at all are passed over.
fn list(args: &SearchArgs) -> Result<()> {
    let search = SearchPath::of_this_program(&args.search_path)?;
    let mut found = false;
    for (name, path) in search.libraries() {
        match Plugin::load(&path, None) {
            Ok(plugin) => {
                let Metadata { name, version, abi, .. } = &plugin.metadata;
                println!("{name:<16} {version:<10} ABI {abi:<8} {}", path.display());
            }
            Err(fault) if fault.exit == Exit::Plugin && fault.to_string().contains("not an optimizer plugin") => {
                continue;
            }
            Err(fault) => println!("{name:<16} refused: {fault}"),
        }
        found = true;
    }
    let folders: Vec<String> = search.folders().iter().map(|folder| format!("`{}`", folder.display())).collect();
    match found {
        true => Ok(()),
        false => Err(Fault::new(Exit::Missing, "no plugin found")
            .found(format!("none in {}", folders.join(", ")))
            .hint("build the plugins with `cargo build --release`, or name a folder with `--search-path`")),
    }
}

fn inspect(name: &str, args: &SearchArgs) -> Result<()> {
    let path = file::find(name, &SearchPath::of_this_program(&args.search_path)?)?;
    let plugin = Plugin::load(&path, None)?;
    let Metadata { name, version, abi, needs, schema, metrics, .. } = &plugin.metadata;
    let needs: Vec<&str> = needs.iter().map(|need| need.name.as_str()).collect();
    println!("name     {name}");
    println!("version  {version}");
    println!("ABI      {abi}");
    println!("needs    {}", if needs.is_empty() { "nothing".into() } else { needs.join(", ") });
    println!("file     {}", plugin.image.path.display());
    println!("sha256   {}", plugin.image.sha256);
    println!("built    {}", plugin.image.note.rustc);
    print_keys(schema);
    print_metrics(metrics);
    Ok(())
}

fn print_keys(schema: &Value) {
    let keys = describe::keys(schema);
    println!("\n[optimizer.config]{}", if keys.is_empty() { "  (no keys)" } else { "" });
    let width = keys.iter().map(|key| key.key.len()).max().unwrap_or(0);
    for key in &keys {
        let default = key.default.as_ref().map_or("required".into(), |default| format!("default {default}"));
        println!("  {:<width$}  {} ({default})", key.key, key.expected);
        if !key.doc.is_empty() {
            println!("  {:<width$}    {}", "", key.doc);
        }
    }
}

fn print_metrics(metrics: &[MetricInfo]) {
    println!("\nmetrics{}", if metrics.is_empty() { "  (none of its own)" } else { "" });
    for metric in metrics {
        let unit = if metric.unit.is_empty() { String::new() } else { format!(" [{}]", metric.unit) };
        println!("  {}{unit}  {}", metric.name, metric.help);
    }
}
