//! `gauntlet eval`.

use super::loaded::{self, LoadedModel};
use crate::data::{Dataset, Order, Split};
use crate::error::{Exit, Fault, Result};
use crate::plugin::child;
use crate::trainer::Evaluator;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    checkpoint: loaded::Args,
    /// Folder or files of validation shards; those of the run when absent.
    #[arg(long, value_name = "PATH")]
    data: Vec<PathBuf>,
    /// Sequences in a batch.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Batches; all of the validation data when absent.
    #[arg(long)]
    batches: Option<usize>,
    /// Print one line of JSON: `loss`, `tokens`, `step`, `at`.
    #[arg(long)]
    json: bool,
    /// End at once when the process that started this one ends.
    #[arg(long, hide = true)]
    with_parent: bool,
}

pub fn run(args: &Args) -> Result<()> {
    if args.with_parent {
        child::end_with_parent();
    }
    let loaded = LoadedModel::open(&args.checkpoint)?;
    let paths = if args.data.is_empty() { data_of_run(args)? } else { args.data.clone() };
    let vocab = loaded.model.config().vocab_size;
    let data = Dataset::open(&paths, Split::Validation, loaded.manifest.seq_len, vocab, Order::Sequential)?;
    let batch_size = args.batch_size.max(1);
    let batches = args.batches.unwrap_or((data.windows() as usize).div_ceil(batch_size));
    let evaluator = Evaluator::new(Arc::new(loaded.model), Arc::new(data), batches, batch_size);
    let loss = evaluator.loss(&loaded.params)?;
    let (tokens, step, at) = (evaluator.tokens(), loaded.manifest.step, &loaded.manifest.evaluate_at);
    if args.json {
        println!("{}", serde_json::json!({ "loss": loss, "tokens": tokens, "step": step, "at": at }));
        return Ok(());
    }
    println!("validation loss {loss:.6} nats a token over {tokens} tokens (step {step}, {at})");
    Ok(())
}

/// The validation data of the run's own configuration.
fn data_of_run(args: &Args) -> Result<Vec<PathBuf>> {
    let unknown = || {
        Fault::new(Exit::Usage, "no validation data are known for this checkpoint").hint("name them with `--data PATH`")
    };
    let config = loaded::run_config(&args.checkpoint.checkpoint)?.ok_or_else(unknown)?;
    match config.data.validation.as_slice() {
        [] => Err(unknown()),
        paths => Ok(paths.iter().map(|path| path.path().to_owned()).collect()),
    }
}
