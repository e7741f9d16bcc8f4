//! `gauntlet plugins check`: the conformance suite on a plugin file, in a process of its own with a time limit.

use super::Faults;
use super::plugins::SearchArgs;
use crate::config::{Origins, check, layers};
use crate::error::{Exit, Fault, Result};
use crate::plugin::Plugin;
use gauntlet_plugin_abi::Capability;
use gauntlet_plugin_api::testing::{Figures, Subject, Verdict, check_subject, measure};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

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
            let outcome = check_here(args, mark);
            note(mark, ENDED);
            outcome
        }
        None => check_in_child(args).map_err(|fault| vec![fault]),
    }
}

/// Runs the same command as a child that does the checks, and says how it died if it did.
fn check_in_child(args: &Args) -> Result<u8> {
    let mark = tempfile::NamedTempFile::new().map_err(|error| Fault::writing(&std::env::temp_dir(), &error))?;
    let program = std::env::current_exe().map_err(|error| Fault::reading(Path::new("/proc/self/exe"), &error))?;
    let mut command = Command::new(&program);
    let child = command.args(std::env::args_os().skip(1)).arg("--mark").arg(mark.path()).spawn();
    let mut child = child.map_err(|error| Fault::reading(&program, &error))?;
    let status =
        wait(&mut child, Duration::from_secs(args.timeout)).map_err(|error| Fault::reading(&program, &error))?;
    let doing = fs::read_to_string(mark.path()).unwrap_or_default();
    let what = |what: String| Fault::new(Exit::Plugin, format!("plugin `{}`: {what}", args.plugin));
    match status {
        None => Err(what(format!("{doing} did not end within {} s", args.timeout)).hint("allow more with `--timeout`")),
        Some(status) if doing == ENDED && status.code().is_some() => Ok(status.code().unwrap_or_default() as u8),
        Some(status) => Err(what(format!("it ended the process in {doing}")).found(ending(status))),
    }
}

/// The child's status, or `None` where it had to be killed.
fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    while began.elapsed() < limit {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill()?;
    child.wait().map(|_| None)
}

fn ending(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(6), _) => "signal 6 (abort)".into(),
        (Some(11), _) => "signal 11 (invalid memory access)".into(),
        (Some(signal), _) => format!("signal {signal}"),
        (None, code) => format!("exit code {}", code.unwrap_or_default()),
    }
}

fn note(mark: &Path, what: &str) {
    // Without the note the parent can only say less.
    let _ = fs::write(mark, what);
}

/// The checks; gives exit code 3 where one does not hold.
fn check_here(args: &Args, mark: &Path) -> Result<u8, Faults> {
    let one = |fault: Fault| vec![fault];
    note(mark, "loading");
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
        None => note(mark, &format!("the check `{name}`")),
        Some(Verdict::Passed) => println!("passed   {name}"),
        Some(Verdict::Failed(message)) => println!("FAILED   {name}: {message}"),
        Some(Verdict::Skipped(need)) => println!("skipped  {name}: it needs `{need}`"),
    });
    note(mark, "the measurement");
    if let Ok(figures) = measure(&subject, &config) {
        print_figures(&figures);
    }
    note(mark, "its end");
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
    let chosen = fill_required(&plugin.metadata.schema, &mut config);
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

/// Gives required keys that are numbers a small value, so that a plugin can be checked without any; their names.
fn fill_required(schema: &Value, config: &mut Value) -> String {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let (Some(table), mut chosen) = (config.as_object_mut(), vec![]) else { return String::new() };
    for key in required {
        let value = match schema["properties"][key]["type"].as_str() {
            Some("number") => json!(0.01),
            Some("integer") => json!(1),
            _ => continue,
        };
        if !table.contains_key(key) {
            table.insert(key.to_owned(), value);
            chosen.push(format!("`{key}`"));
        }
    }
    chosen.join(", ")
}
