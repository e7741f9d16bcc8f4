//! `gauntlet generate`.

use super::loaded::{self, LoadedModel};
use crate::data::bytes;
use crate::error::{Exit, Fault, Result};
use crate::model::{self, Sampling};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    checkpoint: loaded::Args,
    /// Text to continue.
    #[arg(long)]
    prompt: String,
    /// Tokens to add.
    #[arg(long, default_value_t = 400)]
    tokens: usize,
    /// Divides the scores; 0 takes the most likely token each time.
    #[arg(long, default_value_t = 0.8)]
    temperature: f64,
    /// Choose among this many most likely tokens only.
    #[arg(long)]
    top_k: Option<usize>,
    /// Decides the choices.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

pub fn run(args: &Args) -> Result<()> {
    let loaded = LoadedModel::open(&args.checkpoint)?;
    if loaded.manifest.tokenizer.as_deref() != Some(bytes::NAME) {
        let found = loaded.manifest.tokenizer.as_deref().unwrap_or("an unknown tokenizer");
        return Err(Fault::new(Exit::Data, "text can only be made from a model of bytes")
            .found(found)
            .expected(bytes::NAME));
    }
    let prompt: Vec<u32> = bytes::encode(&args.prompt).into_iter().map(u32::from).collect();
    // A document begins with the separator, so an empty prompt is the beginning of one.
    let prompt = if prompt.is_empty() { vec![u32::from(bytes::SEPARATOR)] } else { prompt };
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, seed: args.seed };
    let (model, params, context) = (&loaded.model, &loaded.params, loaded.manifest.seq_len);
    let tokens = model::generate(model, params, &prompt, args.tokens, context, &sampling)?;
    let ids: Vec<i64> = tokens.into_iter().map(i64::from).collect();
    println!("{}{}", args.prompt, bytes::decode(&ids));
    Ok(())
}
