//! `gauntlet curvature spectrum`.

mod drawing;

use super::inputs::{self, Anchor};
use crate::curvature::{Eigenvalue, Estimate, Linearization, largest, trace};
use crate::durable;
use crate::error::{Exit, Fault, Result};
use clap::ValueEnum;
use gauntlet_plugin_api::{Blocks, Structure};
use std::path::PathBuf;
use tch::{Kind as Dtype, Tensor};

/// Whose spectrum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The Gauss-Newton matrix J^T H J.
    Ggn,
    /// The Hessian of the mean loss.
    Hessian,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inputs: inputs::Args,
    /// Whose spectrum.
    #[arg(long, value_enum, default_value = "ggn")]
    kind: Kind,
    /// One block of the matrix: `embedding`, `head`, or the number of a transformer block from 0. The whole when absent.
    #[arg(long, value_name = "NAME")]
    layer: Option<String>,
    /// Eigenvalues to show, those of the largest magnitude.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    eigenvalues: u32,
    /// Lanczos steps, one product each; three for each eigenvalue when absent.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    iterations: Option<u32>,
    /// Probes of the trace, one product each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    probes: u32,
    /// Seed of the starting vector and the probes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write the numbers to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the eigenvalues into this file.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// What was found.
struct Spectrum {
    eigenvalues: Vec<Eigenvalue>,
    trace: Estimate,
    loss: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let anchor = Anchor::open(&args.inputs)?;
    let tokens = anchor.tokens(&args.inputs.tokens)?;
    let params = chosen(&anchor, args.layer.as_deref())?;
    let at = anchor.linearize(&tokens, &Blocks::whole(anchor.params.len()));
    let spectrum = compute(args, &anchor, at, &params);
    let title = title(args, anchor.step);
    print!("{}", table(&title, &spectrum));
    if let Some(path) = &args.json {
        durable::replace(path, json(args, anchor.step, &spectrum).as_bytes())?;
    }
    if let Some(path) = &args.svg {
        let drawn = drawing::svg(&title, &spectrum.eigenvalues);
        let svg = drawn.map_err(|error| Fault::new(Exit::Internal, format!("a plot cannot be drawn: {error}")))?;
        durable::replace(path, svg.as_bytes())?;
    }
    Ok(())
}

/// For each parameter whether it belongs to the block.
fn chosen(anchor: &Anchor, layer: Option<&str>) -> Result<Vec<bool>> {
    let Some(layer) = layer else { return Ok(vec![true; anchor.specs.len()]) };
    let config = anchor.model.config();
    let blocks = Blocks::resolve(&Structure::Layerwise, &anchor.specs);
    let blocks = blocks.map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    let block = match layer {
        "embedding" => Some(0),
        "head" if !config.tied_head => Some(blocks.count() - 1),
        number => number.parse::<usize>().ok().filter(|number| *number < config.num_layers).map(|number| number + 1),
    };
    let block = block.ok_or_else(|| {
        let head = if config.tied_head { "" } else { ", `head`" };
        let expected = format!("`embedding`{head}, or 0 to {}", config.num_layers - 1);
        Fault::new(Exit::Usage, "`--layer`").found(format!("`{layer}`")).expected(expected)
    })?;
    Ok(blocks.of_param().iter().map(|of| *of == block).collect())
}

fn compute(args: &Args, anchor: &Anchor, mut at: Linearization, chosen: &[bool]) -> Spectrum {
    let loss = at.loss();
    let sizes: Vec<i64> = anchor.params.iter().map(|param| param.numel() as i64).collect();
    let part = |(size, chosen): (&i64, &bool)| {
        Tensor::full([*size], f64::from(u8::from(*chosen)), (Dtype::Double, anchor.model.device()))
    };
    let mask = Tensor::cat(&sizes.iter().zip(chosen).map(part).collect::<Vec<_>>(), 0);
    let device = anchor.model.device();
    let mut product = |v: &Tensor| {
        let parts = v.to_device(device).split_with_sizes(sizes.as_slice(), 0);
        let shaped = parts.iter().zip(&anchor.params).map(|(part, param)| part.view_as(param).to_kind(param.kind()));
        let shaped: Vec<Tensor> = shaped.collect();
        let v: Vec<&Tensor> = shaped.iter().collect();
        let product = match args.kind {
            Kind::Ggn => at.ggn_vector_product(&v),
            Kind::Hessian => at.hessian_vector_product(&v),
        };
        let flat: Vec<Tensor> = product.iter().map(|part| part.to_kind(Dtype::Double).contiguous().view(-1)).collect();
        (Tensor::cat(&flat, 0) * &mask).to_device(tch::Device::Cpu)
    };
    let cpu_mask = mask.to_device(tch::Device::Cpu);
    let project = |v: &Tensor| v * &cpu_mask;
    let size = sizes.iter().sum::<i64>() as usize;
    let iterations = args.iterations.unwrap_or(3 * args.eigenvalues).max(args.eigenvalues) as usize;
    let dimensions =
        sizes.iter().zip(chosen).map(|(size, chosen)| if *chosen { *size } else { 0 }).sum::<i64>() as usize;
    let counts = (args.eigenvalues as usize, iterations.min(dimensions));
    let eigenvalues = largest(&mut product, &project, size, counts, args.seed);
    let trace = trace(&mut product, &project, size, args.probes as usize, args.seed);
    Spectrum { eigenvalues, trace, loss }
}

fn title(args: &Args, step: u64) -> String {
    let matrix = match args.kind {
        Kind::Ggn => "Gauss-Newton matrix",
        Kind::Hessian => "Hessian",
    };
    let block = match args.layer.as_deref() {
        None => "whole model".to_owned(),
        Some(name) if name.parse::<usize>().is_ok() => format!("block {name}"),
        Some(name) => name.to_owned(),
    };
    format!("{matrix}, {block}, step {step}")
}

fn table(title: &str, spectrum: &Spectrum) -> String {
    let mut text = format!("{title}\nloss {:.6} nats a token\n\n", spectrum.loss);
    text += &format!("{:>4}  {:>14}  {:>12}\n", "", "eigenvalue", "residual");
    for (index, Eigenvalue { value, residual }) in spectrum.eigenvalues.iter().enumerate() {
        text += &format!("{:>4}  {value:>14.6e}  {residual:>12.1e}\n", index + 1);
    }
    let Estimate { mean, standard_error } = spectrum.trace;
    text += &match standard_error.is_finite() {
        true => format!("\ntrace {mean:.6e} with standard error {standard_error:.1e}\n"),
        false => format!("\ntrace {mean:.6e} by one probe\n"),
    };
    text
}

fn json(args: &Args, step: u64, spectrum: &Spectrum) -> String {
    let eigenvalues = spectrum
        .eigenvalues
        .iter()
        .map(|found| serde_json::json!({ "value": found.value, "residual": found.residual }));
    let value = serde_json::json!({
        "kind": if args.kind == Kind::Ggn { "ggn" } else { "hessian" },
        "layer": args.layer,
        "step": step,
        "seed": args.seed,
        "loss": spectrum.loss,
        "eigenvalues": eigenvalues.collect::<Vec<_>>(),
        "trace": { "mean": spectrum.trace.mean, "standard_error": spectrum.trace.standard_error },
    });
    format!("{value:#}\n")
}
