//! Whether a checkpoint fits the run that it is to be restored into, tensor by tensor, and restoring its tensors.

use super::identity::Allowed;
use super::prepare::Prepared;
use crate::error::{Exit, Fault, Result};
use crate::sinks::checkpoint::{Change, Checkpoint, Manifest};
use gauntlet_plugin_abi::Purpose;
use tch::Tensor;

/// Differences between two models that are listed; the others are counted.
const MAX_LISTED: usize = 10;

/// Every parameter that the checkpoint and the model do not have in common, by name, shape and type, in the model's
/// order.
pub fn differences(checkpoint: &Checkpoint, prepared: &Prepared) -> Result<Vec<Fault>> {
    let mut infos = checkpoint.tensor_infos("params")?;
    let session = prepared.session.lock();
    let what = |name: &str| format!("`{}`: `{name}`", checkpoint.path.display());
    let mut faults = vec![];
    for spec in session.specs() {
        let fault = |text: &str| Fault::new(Exit::Checkpoint, format!("{} {text}", what(&spec.name)));
        match infos.remove(&spec.name) {
            None => faults.push(fault("is missing").expected(format!("a tensor {:?}", spec.shape))),
            Some(info) if info.shape != spec.shape => {
                let fault = fault("has another shape").found(format!("{:?}", info.shape));
                faults.push(fault.expected(format!("{:?}", spec.shape)));
            }
            Some(_) => {}
        }
    }
    let extra = |(name, info): (String, crate::sinks::checkpoint::TensorInfo)| {
        let what = format!("{} is no parameter of the model", what(&name));
        Fault::new(Exit::Checkpoint, what).found(format!("a tensor {:?}", info.shape))
    };
    faults.extend(infos.into_iter().map(extra));
    Ok(faults)
}

/// A checkpoint of another model: the keys that differ, which no flag can allow, and the tensors, the first of them.
pub fn other_model(keys: Vec<Fault>, tensors: Vec<Fault>) -> Vec<Fault> {
    let count = tensors.len();
    let mut faults = keys;
    faults.extend(tensors.into_iter().take(MAX_LISTED));
    if count > MAX_LISTED {
        let what = format!("{} more parameters differ", count - MAX_LISTED);
        faults.push(Fault::new(Exit::Checkpoint, what).hint("set `[model]` as it was"));
    }
    faults
}

/// What a change that is allowed asks for beside.
///
/// # Errors
///
/// [`Exit::Checkpoint`]: other data or a new optimizer in the middle of a step; an optimizer's state of another element
/// type.
pub fn check_changes(changes: &[Change], checkpoint: &Checkpoint, allowed: &Allowed) -> Result<()> {
    let data = changes.iter().find(|change| change.key.starts_with("data."));
    if let Some(change) = data.filter(|_| checkpoint.manifest.part > 0) {
        let what = format!("`{}` cannot change in the middle of a step", change.key);
        let fault = Fault::new(Exit::Checkpoint, what).found(format!("`{}`", checkpoint.path.display()));
        return Err(fault.expected("a checkpoint between two steps").hint("resume from an earlier one"));
    }
    if allowed.reset_optimizer && checkpoint.manifest.part > 0 {
        let what = "the optimizer's state cannot begin anew in the middle of a step";
        let fault = Fault::new(Exit::Checkpoint, what).found(format!("`{}`", checkpoint.path.display()));
        return Err(fault.expected("a checkpoint between two steps").hint("resume from an earlier one"));
    }
    let dtype = changes.iter().any(|change| change.key == "run.dtype");
    if dtype && !allowed.reset_optimizer {
        let what = "`run.dtype` cannot change under the optimizer's state, which is of the old type";
        return Err(Fault::new(Exit::Checkpoint, what).hint("add `--reset-optimizer`"));
    }
    Ok(())
}

/// A state that the plugin does not take.
pub fn unfit_state(fault: Fault, checkpoint: &Checkpoint) -> Fault {
    if fault.exit != Exit::Plugin {
        return fault;
    }
    let what = format!("`{}`: the optimizer's state does not fit: {fault}", checkpoint.path.display());
    Fault::new(Exit::Checkpoint, what).hint("begin it anew with `--reset-optimizer`")
}

/// Copies the checkpoint's tensors and its place in the data into the run.
pub fn restore_tensors(checkpoint: &Checkpoint, prepared: &Prepared, nonfinite: bool) -> Result<()> {
    let mut session = prepared.session.lock();
    let names: Vec<String> = session.specs().iter().map(|spec| spec.name.clone()).collect();
    let device = session.backend.facts().device;
    let params = checkpoint.tensors("params", &names, device)?;
    let has_ema = session.backend.ema.is_some() && checkpoint.has("ema");
    let ema = if has_ema { Some(checkpoint.tensors("ema", &names, device)?) } else { None };
    for (tensor, spec) in params.iter().chain(ema.iter().flatten()).zip(session.specs().iter().cycle()) {
        check_tensor(checkpoint, tensor, spec, nonfinite)?;
    }
    tch::no_grad(|| session.replace_params(|index, param| param.copy_(&params[index])));
    let seq_len = prepared.manifest.seq_len;
    let backend = &mut session.backend;
    backend.streams = checkpoint.streams();
    if seq_len != checkpoint.manifest.seq_len {
        // The place in the data is that many tokens from the start, rounded up to whole sequences.
        for (purpose, _) in Purpose::ALL {
            let tokens = backend.streams.drawn(*purpose) * checkpoint.manifest.seq_len as u64;
            backend.streams.set(*purpose, tokens.div_ceil(seq_len as u64));
        }
    }
    backend.earlier_flops = checkpoint.manifest.flops;
    let average = ema.as_ref().unwrap_or(&params);
    if let Some(ema) = backend.ema.as_mut() {
        ema.resume(average, checkpoint.manifest.ema_updated);
    }
    Ok(())
}

/// Copies the parameters that a checkpoint is judged at into a run at its start.
pub fn begin_with(checkpoint: &Checkpoint, prepared: &Prepared) -> Result<()> {
    let mut session = prepared.session.lock();
    let names: Vec<String> = session.specs().iter().map(|spec| spec.name.clone()).collect();
    let params = checkpoint.tensors(&checkpoint.manifest.evaluate_at, &names, session.backend.facts().device)?;
    for (tensor, spec) in params.iter().zip(session.specs()) {
        check_tensor(checkpoint, tensor, spec, false)?;
    }
    tch::no_grad(|| session.replace_params(|index, param| param.copy_(&params[index])));
    if let Some(ema) = session.backend.ema.as_mut() {
        ema.resume(&params, false);
    }
    Ok(())
}

/// A tensor of the checkpoint has the model's shape and only finite values.
fn check_tensor(
    checkpoint: &Checkpoint,
    tensor: &Tensor,
    spec: &gauntlet_plugin_api::ParamSpec,
    nonfinite: bool,
) -> Result<()> {
    let shape: Vec<usize> = tensor.size().iter().map(|size| *size as usize).collect();
    let what = format!("`{}`: `{}`", checkpoint.path.display(), spec.name);
    if shape != spec.shape {
        let fault = Fault::new(Exit::Checkpoint, format!("{what} has another shape"));
        return Err(fault.found(format!("{shape:?}")).expected(format!("{:?}", spec.shape)));
    }
    match nonfinite || is_finite(tensor) {
        true => Ok(()),
        false => Err(Fault::new(Exit::Checkpoint, format!("{what} holds values that are not finite"))
            .hint("resume from an earlier checkpoint, or take it as it is with `--allow-nonfinite`")),
    }
}

/// Whether every element is a finite number.
pub fn is_finite(tensor: &Tensor) -> bool {
    bool::try_from(tensor.isfinite().all()).unwrap_or(false)
}

/// What the bits of a run depend on and is not as it was.
pub fn inexact(saved: &Manifest, now: &Manifest) -> Vec<String> {
    let (a, b) = (&saved.machine, &now.machine);
    let facts = [
        ("gauntlet", saved.gauntlet.clone(), now.gauntlet.clone()),
        ("libtorch", saved.libtorch.clone(), now.libtorch.clone()),
        ("device", a.device.clone(), b.device.clone()),
        ("processor", a.processor.clone(), b.processor.clone()),
        ("threads", a.threads.to_string(), b.threads.to_string()),
    ];
    let differ = facts.into_iter().filter(|(_, saved, now)| saved != now);
    differ.map(|(what, saved, now)| format!("{what} {now} instead of {saved}")).collect()
}
