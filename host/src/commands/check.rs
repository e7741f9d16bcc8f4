//! `gauntlet plugins check`: the conformance suite on a plugin file, in a process of its own with a time limit.

use super::Faults;
use super::plugins::SearchArgs;
use crate::config::{Origins, check, layers};
use crate::error::{Exit, Fault, Result};
use crate::plugin::Plugin;
use crate::plugin::child::{self, Output};
use crate::plugin::probe::{Chosen, fill_required};
use gauntlet_plugin_abi::Capability;
use gauntlet_plugin_api::testing::{Figures, Subject, Verdict, check_subject, measure};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What the mark holds when the checks have ended.
const ENDED: &str = "ended";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path of the file, or name.
    #[arg(value_name = "FILE")]
    plugin: String,
    /// A key of the plugin's configuration, `lr=0.1`, or a TOML file: its `[optimizer.config]`, or else all of it.
    #[arg(long, value_name = "KEY=VALUE|FILE")]
    config: Vec<String>,
    /// Seconds after which the checks are stopped.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
    /// Where the checking process notes what it does; makes this process that one.
    #[arg(long, hide = true)]
    mark: Option<PathBuf>,
    #[command(flatten)]
    search: SearchArgs,
}

pub fn run(args: &Args) -> Result<u8, Faults> {
    match &args.mark {
        Some(mark) => {
            child::begin();
            let outcome = check_here(args, mark);
            child::note(mark, ENDED);
            outcome
        }
        None => check_in_child(args).map_err(|fault| vec![fault]),
    }
}

/// Runs the same command as a child that does the checks, and says how it died if it did.
fn check_in_child(args: &Args) -> Result<u8> {
    let limit = Duration::from_secs(args.timeout);
    let child::Outcome { status, note } = child::run(std::env::args_os().skip(1), limit, Output::Shown)?;
    let what = |what: String| Fault::new(Exit::Plugin, format!("plugin `{}`: {what}", args.plugin));
    match status {
        None => Err(what(format!("{note} did not end within {} s", args.timeout)).hint("allow more with `--timeout`")),
        Some(status) if note == ENDED && status.code().is_some() => Ok(status.code().unwrap_or_default() as u8),
        Some(status) => Err(what(format!("it ended the process in {note}")).found(child::ending(status))),
    }
}

/// The checks; gives exit code 3 where one does not hold.
fn check_here(args: &Args, mark: &Path) -> Result<u8, Faults> {
    let one = |fault: Fault| vec![fault];
    child::note(mark, "loading");
    let plugin = args.search.load(&args.plugin).map_err(one)?;
    let (config, chosen) = configuration(&plugin, &args.config)?;
    println!("plugin   {} {}, ABI {}", plugin.metadata.name, plugin.metadata.version, plugin.metadata.abi);
    println!("file     {}", plugin.image.path.display());
    println!(
        "config   {config}{}",
        if chosen.is_empty() { String::new() } else { format!(" (chosen here: {chosen})") }
    );
    let missing = print_needs(&plugin);
    println!();
    let subject = Subject::of_module(plugin.module(), plugin.metadata.clone());
    let report = check_subject(&subject, &config, |name, verdict| match verdict {
        None => child::note(mark, &format!("the check `{name}`")),
        Some(Verdict::Passed) => println!("passed   {name}"),
        Some(Verdict::Failed(message)) => println!("FAILED   {name}: {message}"),
        Some(Verdict::Skipped(need)) => println!("skipped  {name}: it needs `{need}`"),
    });
    child::note(mark, "the measurement");
    match measure(&subject, &config) {
        Ok(figures) => print_figures(&figures),
        Err(error) => println!("\nnot measured: {error}"),
    }
    child::note(mark, "its end");
    let (failed, all) = (report.failed().count() + usize::from(missing), report.checks.len() + 1);
    println!(
        "\n{} of {all} checks hold",
        report.checks.iter().filter(|(_, verdict)| *verdict == Verdict::Passed).count() + usize::from(!missing)
    );
    match failed {
        0 => Ok(0),
        _ => {
            let what = format!("plugin `{}` fails {failed} of {all} checks", plugin.metadata.name);
            Err(one(Fault::new(Exit::NotHeld, what)))
        }
    }
}

/// What the plugin needs, and whether a run offers it; gives whether something is missing.
fn print_needs(plugin: &Plugin) -> bool {
    let offered = |code: u32| {
        let code = Capability(code);
        code >= Capability::LOSS && code <= Capability::SEQUENCE_DIRECTIONAL || code == Capability::EMA_UPDATE
    };
    let (has, lacks): (Vec<_>, Vec<_>) = plugin.metadata.needs.iter().partition(|need| offered(need.code));
    let names = |needs: Vec<&gauntlet_plugin_api::metadata::Need>| {
        needs.iter().map(|need| need.name.clone()).collect::<Vec<_>>().join(", ")
    };
    let missing = !lacks.is_empty();
    println!("needs    {}", if has.is_empty() { "nothing that is offered".into() } else { names(has) });
    match missing {
        true => println!("\nFAILED   capabilities: this host does not offer {}", names(lacks)),
        false => println!("\npassed   capabilities"),
    }
    missing
}

fn print_figures(figures: &Figures) {
    let Figures { param_bytes, declared_state_bytes, saved_state_bytes, parts, calls, step_time, threads } = figures;
    println!("\nmeasured on a model of {param_bytes} bytes in float64:");
    println!("  state      {declared_state_bytes} bytes declared, {saved_state_bytes} saved between steps");
    let time = step_time.as_secs_f64() * 1e3;
    println!("  a step     {time:.3} ms (median), {calls} calls of the host, {parts} of the plugin");
    if let Some((before, most)) = threads {
        println!("  threads    {before} before it was made, at most {most} after a step");
    }
}

/// The plugin's configuration, checked against its schema, and the required keys that were given a value here.
fn configuration(plugin: &Plugin, given: &[String]) -> Result<(Value, String), Faults> {
    let (sets, files): (Vec<String>, Vec<String>) = given.iter().cloned().partition(|text| text.contains('='));
    let files: Vec<PathBuf> = files.into_iter().map(PathBuf::from).collect();
    let merged = layers::merge(&files, &[], [])?;
    let file = merged.value.pointer("/optimizer/config").cloned().unwrap_or(merged.value);
    let typed = layers::merge(&[], &sets, [])?;
    let mut config = if file.is_object() { file } else { json!({}) };
    join(&mut config, typed.value);
    let Chosen { chosen, .. } = fill_required(&plugin.metadata.schema, &mut config);
    let problems = check::validate(&plugin.metadata.schema, &config, "optimizer.config");
    match problems.is_empty() && merged.faults.is_empty() && typed.faults.is_empty() {
        true => Ok((config, chosen)),
        false => {
            let origins = Origins::default();
            let problems = problems.iter().map(|problem| problem.fault(&origins));
            Err(merged.faults.into_iter().chain(typed.faults).chain(problems).collect())
        }
    }
}

/// Puts the values of a table over those of another.
fn join(to: &mut Value, from: Value) {
    match (to, from) {
        (Value::Object(to), Value::Object(from)) => {
            for (key, value) in from {
                join(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, from) => *to = from,
    }
}
