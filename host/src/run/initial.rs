//! A new run that begins with the parameters of a checkpoint.

use super::fit;
use super::prepare::Prepared;
use crate::error::{Exit, Fault, Result};
use crate::events::Event;
use crate::sinks::checkpoint::{Checkpoint, Manifest};
use gauntlet_plugin_abi::Purpose;
use std::path::Path;

/// Puts the parameters that a checkpoint is judged at, its average where it has one, into a run at its start, and makes
/// the optimizer at them. Where data, order, seed and sequence length are those of the checkpoint's run, the new one goes
/// on at its place in the data.
///
/// # Errors
///
/// [`Exit::Missing`] where there is no such folder, [`Exit::Checkpoint`] where it is damaged or of another model.
pub fn begin_from(path: &Path, prepared: &mut Prepared) -> Result<Event, Vec<Fault>> {
    let one = |fault: Fault| vec![in_key(fault)];
    let checkpoint = Checkpoint::open(path).map_err(one)?;
    checkpoint.verify().map_err(one)?;
    let differences = fit::differences(&checkpoint, prepared).map_err(one)?;
    if !differences.is_empty() {
        return Err(fit::other_model(vec![], differences).into_iter().map(in_key).collect());
    }
    fit::begin_with(&checkpoint, prepared).map_err(one)?;
    // What the plugin says is its own: it is no fault of the checkpoint.
    prepared.trainer.renew_optimizer().map_err(|fault| vec![fault])?;
    let same_data = places(&checkpoint.manifest) == places(&prepared.manifest);
    let streams = if same_data { checkpoint.streams() } else { Default::default() };
    let tokens = |purpose| streams.drawn(purpose) * prepared.manifest.seq_len as u64;
    let (tokens, line_search_tokens) = (tokens(Purpose::STEP), tokens(Purpose::LINE_SEARCH));
    prepared.session.lock().backend.streams = streams;
    let Manifest { step, checksum, .. } = checkpoint.manifest;
    Ok(Event::Initialized { step, checkpoint: path.display().to_string(), checksum, tokens, line_search_tokens })
}

/// What a place in the data depends on.
fn places(manifest: &Manifest) -> impl PartialEq {
    let order = manifest.identity.pointer("/data/order").cloned();
    (manifest.data.clone(), order, manifest.seed, manifest.seq_len)
}

fn in_key(fault: Fault) -> Fault {
    let exit = if fault.exit == Exit::Missing { Exit::Missing } else { Exit::Checkpoint };
    Fault::new(exit, format!("`run.init_from`: {fault}"))
}
