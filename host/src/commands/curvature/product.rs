//! `gauntlet curvature product`.

use super::StructureChoice;
use super::inputs::{self, Anchor};
use crate::curvature::Linearization;
use crate::error::{Exit, Fault, Result};
use crate::tensor_file;
use clap::ValueEnum;
use gauntlet_plugin_api::{Blocks, Labels};
use std::collections::BTreeMap;
use std::path::PathBuf;
use tch::{Kind as Dtype, Tensor};

/// The product with a vector v.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// J^T H J v, the Gauss-Newton product.
    Ggn,
    /// The product with the Hessian of the mean loss.
    Hessian,
    /// The product with the Fisher matrix of the labels.
    Fisher,
    /// Gradient of the quadratic model of the loss at delta = v.
    Quadratic,
    /// Gradient of the loss of the linearized model at delta = v.
    ProxLinear,
    /// Gradient of the mean loss; takes no vector.
    Gradient,
}

/// Whose labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LabelsChoice {
    /// The data's.
    Data,
    /// Drawn from the model.
    Sampled,
}

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    inputs: inputs::Args,
    /// What to compute.
    #[arg(long, value_enum)]
    kind: Kind,
    /// Which parameters form a block.
    #[arg(long, value_enum, default_value = "full")]
    structure: StructureChoice,
    /// Whose labels the Fisher product and the gradient use.
    #[arg(long, value_enum, default_value = "data")]
    labels: LabelsChoice,
    /// Seed of sampled labels.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// File with the vector: one tensor a parameter, under the checkpoint's names.
    #[arg(long, value_name = "FILE", required_if_eq_any = [
        ("kind", "ggn"), ("kind", "hessian"), ("kind", "fisher"), ("kind", "quadratic"), ("kind", "prox-linear"),
    ])]
    vector: Option<PathBuf>,
    /// File to write the product to, under the same names; value and loss are in its metadata.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// A product with the numbers that go with it.
struct Computed {
    product: Vec<Tensor>,
    numbers: BTreeMap<String, String>,
}

pub fn run(args: &Args) -> Result<()> {
    check(args)?;
    let anchor = Anchor::open(&args.inputs)?;
    let tokens = anchor.tokens(&args.inputs.tokens)?;
    let vector = args.vector.as_ref().map(|path| anchor.vector(path)).transpose()?.unwrap_or_default();
    let blocks = Blocks::resolve(&args.structure.structure(), &anchor.specs)
        .map_err(|error| Fault::new(Exit::Internal, error.to_string()))?;
    let mut at = anchor.linearize(&tokens, &blocks);
    let Computed { product, mut numbers } = compute(&mut at, args, &vector);
    for (key, value) in [("kind", name(args.kind)), ("structure", args.structure.name().into())] {
        numbers.insert(key.into(), value);
    }
    let named: Vec<(String, Tensor)> = anchor.specs.iter().map(|spec| spec.name.clone()).zip(product).collect();
    tensor_file::write(&args.out, &named, &numbers)?;
    println!(
        "{} at step {}: value {}, loss {}, written to `{}`",
        name(args.kind),
        anchor.step,
        numbers["value"],
        numbers["loss"],
        args.out.display()
    );
    Ok(())
}

/// Combinations that mean nothing.
fn check(args: &Args) -> Result<()> {
    let usage = |what: &str| Err(Fault::new(Exit::Usage, what));
    if args.labels == LabelsChoice::Sampled && !matches!(args.kind, Kind::Fisher | Kind::Gradient) {
        let what = "`--labels sampled` belongs to `--kind fisher` and `--kind gradient`";
        return usage(what).map_err(|fault| fault.found(format!("`--kind {}`", name(args.kind))));
    }
    match (args.kind, &args.vector) {
        (Kind::Gradient, Some(_)) => usage("`--kind gradient` takes no `--vector`"),
        _ => Ok(()),
    }
}

fn compute(at: &mut Linearization, args: &Args, v: &[Tensor]) -> Computed {
    let v: Vec<&Tensor> = v.iter().collect();
    let labels = match args.labels {
        LabelsChoice::Data => Labels::Data,
        LabelsChoice::Sampled => Labels::Sampled(args.seed),
    };
    match args.kind {
        Kind::Ggn => form(at.loss(), &v, at.ggn_vector_product(&v)),
        Kind::Hessian => form(at.loss(), &v, at.hessian_vector_product(&v)),
        Kind::Fisher => form(at.loss(), &v, at.fisher_vector_product(&v, labels)),
        Kind::Gradient => {
            let (loss, gradient) = at.gradient(labels);
            computed(gradient, &[("loss", loss), ("value", loss)], &[])
        }
        Kind::Quadratic => {
            let product = at.quadratic(&v);
            let [loss, linear, curvature, blocks @ ..] = product.values.as_slice() else {
                unreachable!("three numbers")
            };
            let value = loss + linear + curvature;
            let numbers = [("loss", *loss), ("linear", *linear), ("curvature", *curvature), ("value", value)];
            computed(product.tensors, &numbers, blocks)
        }
        Kind::ProxLinear => {
            let product = at.prox_linear(&v);
            let [loss, value, blocks @ ..] = product.values.as_slice() else { unreachable!("two numbers") };
            computed(product.tensors, &[("loss", *loss), ("value", *value)], blocks)
        }
    }
}

/// A product B v, with <v, B v> as its value.
fn form(loss: f64, v: &[&Tensor], product: Vec<Tensor>) -> Computed {
    let dots = v.iter().zip(&product).map(|(v, product)| (*v * product).sum(Dtype::Double).double_value(&[]));
    let value = dots.sum();
    computed(product, &[("loss", loss), ("value", value)], &[])
}

fn computed(product: Vec<Tensor>, numbers: &[(&str, f64)], block_values: &[f64]) -> Computed {
    let mut numbers: BTreeMap<String, String> =
        numbers.iter().map(|(key, value)| ((*key).to_owned(), value.to_string())).collect();
    if !block_values.is_empty() {
        numbers.insert("block_values".into(), serde_json::json!(block_values).to_string());
    }
    Computed { product, numbers }
}

fn name(kind: Kind) -> String {
    kind.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
