//! `gauntlet train --dry-run`: who optimises what, and what it takes, before a step is made; and `--plan`, which
//! estimates a step as well.

use super::Faults;
use crate::config::Loaded;
use crate::error::printable;
use crate::run::{Estimate, Plan};

pub fn run(loaded: &Loaded) -> Result<(), Faults> {
    print(loaded, &Plan::new(loaded)?, None, &[]);
    Ok(())
}

/// As [`run`], with an estimate of a step; what the configuration names and is not there is said.
pub fn plan(loaded: &Loaded) -> Result<(), Faults> {
    let (plan, estimate, absent) = Plan::estimated(loaded)?;
    print(loaded, &plan, Some(&estimate), &absent);
    Ok(())
}

fn print(loaded: &Loaded, plan: &Plan, estimate: Option<&Estimate>, absent: &[&str]) {
    print_run(loaded, plan, absent);
    print_params(plan);
    print_memory(plan);
    if let Some(estimate) = estimate {
        print_estimate(plan, estimate);
    }
    println!("\nnothing was trained or written");
}

fn print_run(loaded: &Loaded, plan: &Plan, absent: &[&str]) {
    let config = &loaded.config;
    let started = &plan.started;
    let is_there = |key: &str| !absent.contains(&key);
    println!("model       {}: {} parameters", started.model, started.num_params);
    println!("plugin      {} (sha256 {})", started.plugin, started.plugin_sha256);
    println!("device      {}, threads {}", started.device, started.threads);
    let sequences = format!("{} sequences of {} tokens", config.data.batch_size, config.data.seq_len);
    println!("step        {} tokens: {sequences}, {} at once", started.tokens_per_step, started.micro_batch_size);
    let epochs = |steps: u64| steps as f64 * started.tokens_per_step as f64 / started.epoch_tokens as f64;
    let length = started.max_steps.map_or("no number of steps".into(), |steps| match is_there("data.train") {
        true => format!("{steps} steps, {:.2} epochs", epochs(steps)),
        false => format!("{steps} steps, {} tokens", number(steps as f64 * started.tokens_per_step as f64)),
    });
    println!("length      {length}");
    match is_there("data.train") {
        true => println!("data        {} tokens an epoch, fingerprint {}", started.epoch_tokens, started.data),
        false => println!("data        not there"),
    }
    println!(
        "validation  {}",
        match config.data.validation.as_slice().is_empty() {
            true => "none",
            false if is_there("data.validation") => "found",
            false => "not there",
        }
    );
    if let Some(from) = &config.run.init_from {
        let found = if is_there("run.init_from") { "found" } else { "not there" };
        println!("begins at   {}: {found}", printable(&from.display().to_string()));
    }
}

fn print_params(plan: &Plan) {
    let shape = |shape: &[usize]| shape.iter().map(ToString::to_string).collect::<Vec<_>>().join("x");
    let role = |role| serde_json::to_value(role).ok().and_then(|role| role.as_str().map(str::to_owned));
    let rows = plan.params.iter().map(|param| {
        let role = role(param.spec.role).unwrap_or_default();
        let [bytes, state] = [param.bytes, param.state_bytes].map(size);
        [param.spec.name.clone(), shape(&param.spec.shape), role, printable(&param.rule), bytes, state]
    });
    let head = ["parameter", "shape", "role", "rule", "memory", "state"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..6).map(width).collect();
    println!();
    for row in &rows {
        let text = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
            0..4 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        println!("{}", text.collect::<Vec<_>>().join("  "));
    }
    if plan.shared_state_bytes > 0 {
        println!("state of no single parameter: {}", size(plan.shared_state_bytes));
    }
}

fn print_memory(plan: &Plan) {
    println!("\nmemory");
    for (what, bytes) in &plan.memory {
        println!("  {what:<28}  {:>10}", size(*bytes));
    }
    println!("  {:<28}  {:>10}", "sum", size(plan.memory.iter().map(|(_, bytes)| bytes).sum()));
}

fn print_estimate(plan: &Plan, estimate: &Estimate) {
    let Estimate {
        gradient_equivalents,
        flops,
        tokens,
        line_search_tokens,
        rate,
        rate_sequences,
        call_seconds,
        own_seconds,
    } = *estimate;
    let in_all = |of_a_step: f64, text: fn(f64) -> String| {
        plan.started.max_steps.map_or(String::new(), |steps| format!("; in all {}", text(steps as f64 * of_a_step)))
    };
    println!("\na step, estimated from small ones");
    let all = in_all(flops, number);
    println!("  operations   {} ({gradient_equivalents:.2} gradients of the batch){all}", number(flops));
    let all = in_all(tokens + line_search_tokens, number);
    let (steps, search) = (number(tokens), number(line_search_tokens));
    println!("  tokens       {steps} of the steps' stream, {search} of the line search's{all}");
    let on = match rate_sequences {
        1 => "one sequence".to_owned(),
        many => format!("{many} sequences"),
    };
    println!("  rate         {} operations a second, measured on a gradient of {on}", number(rate));
    let own = own_seconds.map_or("those of the plugin's own not measured".into(), |own| {
        format!("{} of the plugin's own without what it does only now and then", duration(own))
    });
    let all = in_all(estimate.seconds(), duration);
    println!("  time         {}: {} of calls, {own}{all}", duration(estimate.seconds()), duration(call_seconds));
}

/// Three digits, and a power of ten where it takes one.
fn number(value: f64) -> String {
    if value < 1e4 { format!("{value:.0}") } else { format!("{value:.2e}") }
}

/// A time in its largest unit.
fn duration(seconds: f64) -> String {
    let units = [(86_400.0, "days"), (3600.0, "hours"), (60.0, "minutes"), (1.0, "s")];
    match units.iter().find(|(unit, _)| seconds >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", seconds / unit),
        None => format!("{:.0} ms", seconds * 1000.0),
    }
}

/// Bytes with a binary unit.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}
