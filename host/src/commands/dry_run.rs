//! `gauntlet train --dry-run`: who optimises what, and what it takes, before a step is made.

use super::Faults;
use crate::config::Loaded;
use crate::error::printable;
use crate::run::Plan;

pub fn run(loaded: &Loaded) -> Result<(), Faults> {
    let plan = Plan::new(loaded)?;
    let config = &loaded.config;
    let started = &plan.started;
    println!("model       {}: {} parameters", started.model, started.num_params);
    println!("plugin      {} (sha256 {})", started.plugin, started.plugin_sha256);
    println!("device      {}, threads {}", started.device, started.threads);
    let sequences = format!("{} sequences of {} tokens", config.data.batch_size, config.data.seq_len);
    println!("step        {} tokens: {sequences}, {} at once", started.tokens_per_step, started.micro_batch_size);
    let epochs = |steps: u64| steps as f64 * started.tokens_per_step as f64 / started.epoch_tokens as f64;
    let length = started
        .max_steps
        .map_or("no number of steps".into(), |steps| format!("{steps} steps, {:.2} epochs", epochs(steps)));
    println!("length      {length}");
    println!("data        {} tokens an epoch, fingerprint {}", started.epoch_tokens, started.data);
    println!("validation  {}", if config.data.validation.as_slice().is_empty() { "none" } else { "found" });
    print_params(&plan);
    print_memory(&plan);
    Ok(())
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
    println!("\nnothing was trained or written");
}

/// Bytes with a binary unit.
fn size(bytes: u64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}
