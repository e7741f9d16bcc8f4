//! `gauntlet plugins new`: a crate of two files that builds outside the source tree.

use crate::durable::{PartialFolder, refuse_existing, write_new};
use crate::error::{Exit, Fault, Result};
use std::path::{Path, PathBuf};

/// The source tree that built this program.
const SOURCE_TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the plugin, in kebab case.
    name: String,
    /// The folder to make; `./NAME` when absent.
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Folder of the crate `gauntlet-plugin-api`; that of the source tree which built this program when absent.
    #[arg(long, value_name = "DIR")]
    api: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    check_name(&args.name)?;
    let api = api_folder(args.api.as_deref())?;
    let folder = args.path.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    refuse_existing(&folder)?;
    let parent = folder.parent().filter(|parent| *parent != Path::new(""));
    if let Some(parent) = parent {
        std::fs::create_dir_all(parent).map_err(|error| Fault::writing(parent, &error))?;
    }
    let partial = PartialFolder::begin(&folder)?;
    let source = partial.path().join("src");
    std::fs::create_dir(&source).map_err(|error| Fault::writing(&source, &error))?;
    write_new(&partial.path().join("Cargo.toml"), manifest(&args.name, &api).as_bytes())?;
    write_new(&source.join("lib.rs"), library(&args.name).as_bytes())?;
    partial.commit()?;
    println!("wrote {}", folder.display());
    println!("build and test it there with `cargo test` and `cargo build --release`, then train with");
    println!(
        "  --set optimizer.plugin=DIR/target/release/{}  (DIR = its absolute path)",
        crate::plugin::file::library_name(&args.name)
    );
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let kebab = name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    match kebab && name.len() <= 64 {
        true => Ok(()),
        false => Err(Fault::new(Exit::Usage, "name of the plugin")
            .found(format!("`{name}`"))
            .expected("lower-case letters, digits and `-`, beginning with a letter, at most 64")),
    }
}

/// The absolute path of `gauntlet-plugin-api`.
fn api_folder(given: Option<&Path>) -> Result<PathBuf> {
    let folder = given.map_or_else(|| Path::new(SOURCE_TREE).join("plugin-api"), Path::to_path_buf);
    let manifest = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest).unwrap_or_default();
    match text.contains("name = \"gauntlet-plugin-api\"") {
        true => folder.canonicalize().map_err(|error| Fault::reading(&folder, &error)),
        false => Err(Fault::new(Exit::Missing, format!("`{}` is not the crate gauntlet-plugin-api", folder.display()))
            .found(if manifest.exists() { "another crate" } else { "no `Cargo.toml`" })
            .hint("name its folder with `--api DIR`")),
    }
}

/// The text as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn manifest(name: &str, api: &Path) -> String {
    let api = quoted(&api.to_string_lossy());
    format!(
        r#"[package]
name = "{name}"
version = "0.1.0"
edition = "2024"
publish = false

[lib]
crate-type = ["cdylib", "rlib"]

[dependencies]
gauntlet-plugin-api = {{ path = {api} }}
serde = {{ version = "1", features = ["derive"] }}

[dev-dependencies]
gauntlet-plugin-api = {{ path = {api}, features = ["testing"] }}

# Its own workspace, wherever the folder lies.
[workspace]
"#
    )
}

fn library(name: &str) -> String {
    TEMPLATE.replace("plugin-name", name).replace("PluginType", &type_name(name))
}

/// The plugin's name in camel case; `Rule` follows where the template already uses that word.
fn type_name(name: &str) -> String {
    let capitalised =
        |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect();
    let camel = name.split('-').map(capitalised).collect::<Vec<String>>().concat();
    let taken = TEMPLATE.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| word == camel);
    if taken { camel + "Rule" } else { camel }
}

const TEMPLATE: &str = include_str!("new_plugin.rs.txt");
