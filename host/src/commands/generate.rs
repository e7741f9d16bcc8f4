//! `gauntlet generate`.

use super::loaded::{self, LoadedModel};
use crate::data::tokenizer::{Choice, Encoder};
use crate::error::{Exit, Fault, Result};
use crate::model::{self, Sampling};
use std::path::{Path, PathBuf};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    checkpoint: loaded::Args,
    /// Text to continue.
    #[arg(long)]
    prompt: String,
    /// The `tokenizer.json` of the training data; the copy beside the run's shards when absent.
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
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
    let tokenizer = tokenizer(args, loaded.manifest.tokenizer.as_deref())?;
    let (described, vocab) = (tokenizer.described(), loaded.model.config().vocab_size);
    if described.vocab_size > vocab {
        return Err(Fault::new(Exit::Data, "the tokenizer's vocabulary is larger than the model's")
            .found(format!("{} ids of tokenizer `{}`", described.vocab_size, described.name))
            .expected(format!("at most {vocab}")));
    }
    let prompt = tokenizer.encode(&args.prompt)?;
    // A document begins with the separator, so an empty prompt is the beginning of one.
    let prompt = if prompt.is_empty() { vec![described.separator as u32] } else { prompt };
    let sampling = Sampling { temperature: args.temperature, top_k: args.top_k, seed: args.seed };
    let (model, params, context) = (&loaded.model, &loaded.params, loaded.manifest.seq_len);
    let tokens = model::generate(model, params, &prompt, args.tokens, context, &sampling)?;
    let ids: Vec<i64> = tokens.into_iter().map(i64::from).collect();
    println!("{}{}", args.prompt, tokenizer.decode(&ids));
    Ok(())
}

/// The tokenizer that the checkpoint's data were made with: the file that is named, or the copy beside the run's shards.
fn tokenizer(args: &Args, name: Option<&str>) -> Result<Encoder> {
    let Some(name) = name else {
        let fault = Fault::new(Exit::Data, "text can only be made with the tokenizer of the training data");
        return Err(fault
            .found("shards without sidecars, which name none")
            .hint("train on shards of `gauntlet data prepare`"));
    };
    if let Some(path) = &args.tokenizer {
        let encoder = Encoder::open(&Choice::File(path.clone()))?;
        let found = &encoder.described().name;
        return match found == name {
            true => Ok(encoder),
            false => Err(Fault::new(Exit::Data, format!("`{}`: not the tokenizer of the checkpoint", path.display()))
                .found(format!("`{found}`"))
                .expected(format!("`{name}`"))),
        };
    }
    let data = loaded::run_config(&args.checkpoint.checkpoint)?.map(|config| config.data);
    let paths = data.iter().flat_map(|data| data.train.as_slice().iter().chain(data.validation.as_slice()));
    let folder = |path: &Path| if path.is_dir() { path.to_owned() } else { path.parent().unwrap_or(path).to_owned() };
    Encoder::named(name, &paths.map(|path| folder(path.path())).collect::<Vec<_>>())
}
