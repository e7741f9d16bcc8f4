//! What a checkpoint of paper-45m with Muon's state costs: the copy for which the run stands still, and writing, committing
//! and verifying it, beside a plain copy of as many bytes and `dd` to the same disk.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Result, ensure};
use gauntlet::curvature::TorchSession;
use gauntlet::model::{ModelConfig, param_specs};
use gauntlet::plugin::PluginOptimizer;
use gauntlet::sinks::checkpoint::{self, Checkpoint, Manifest, Snapshot};
use serde_json::json;

use crate::drive::{Arguments, Round, Subject};
use crate::inputs::{self, Inputs};
use crate::session;

pub struct Saving {
    session: &'static TorchSession,
    optimizer: PluginOptimizer,
    model: ModelConfig,
    folder: PathBuf,
}

impl Saving {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let inputs = Inputs::new(inputs::paper_45m()?, 8, 128, arguments)?;
        let (model, specs) = (inputs.model.config().clone(), param_specs(inputs.model.config()));
        let problem = Box::new(inputs.problem());
        let session = session::start(problem, specs, inputs.params, inputs.sequences)?;
        let optimizer = session::optimizer("muon", session, &json!({}))?;
        Ok(Self { session, optimizer, model, folder: arguments.folder.join("checkpoints") })
    }

    fn snapshot(&self) -> Result<Snapshot> {
        let mut session = self.session.lock();
        let names: Vec<String> = session.specs().iter().map(|spec| spec.name.clone()).collect();
        let (_, params) = session.backend_and_params();
        let copies = names.iter().zip(params).map(|(name, tensor)| checkpoint::copied(name, tensor));
        let params = copies.collect::<Result<_, _>>()?;
        drop(session);
        Ok(Snapshot { manifest: self.manifest()?, lists: vec![("params", params)], optimizer: self.optimizer.save()? })
    }

    fn manifest(&self) -> Result<Manifest> {
        let optimizer = json!({ "name": "muon", "version": "0.1.0", "sha256": "", "state_version": 0 });
        let machine = json!({ "device": "cpu", "processor": "", "threads": 2 });
        Ok(serde_json::from_value(json!({
            "format": 0, "gauntlet": "0.1.0", "libtorch": "", "step": 1, "part": 0, "sequences": {},
            "sequences_before": {}, "flops": 0.0, "skipped": [], "ema_updated": false, "seq_len": 128,
            "micro_batch_size": 8, "seed": 0, "model": self.model, "optimizer": optimizer, "data": "",
            "tokenizer": null, "evaluate_at": "params", "validation_loss": null, "identity": null, "machine": machine,
            "changes": [], "files": {}, "checksum": "",
        }))?)
    }

    /// Seconds that `dd` takes to write and sync as many bytes beside the checkpoint.
    fn dd(&self, bytes: u64) -> Result<f64> {
        let output = format!("of={}", self.folder.join("dd").display());
        let (started, count) = (Instant::now(), format!("count={}", bytes.div_ceil(1 << 20)));
        let arguments = ["if=/dev/zero", output.as_str(), "bs=1M", count.as_str(), "conv=fsync"];
        let status = Command::new("dd").args(arguments).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "dd: {status}");
        Ok(started.elapsed().as_secs_f64())
    }
}

/// The time of a call, and what it gave.
fn timed<T>(run: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let started = Instant::now();
    let value = run()?;
    Ok((started.elapsed().as_secs_f64(), value))
}

impl Subject for Saving {
    fn check(&mut self) -> Result<Vec<f64>> {
        Ok(vec![self.snapshot()?.bytes() as f64])
    }

    fn round(&mut self) -> Result<Round> {
        if self.folder.exists() {
            std::fs::remove_dir_all(&self.folder)?;
        }
        std::fs::create_dir_all(&self.folder)?;
        let (hold, snapshot) = timed(|| self.snapshot())?;
        let tensors = snapshot.lists.iter().flat_map(|(_, tensors)| tensors);
        let state = snapshot.optimizer.entries.iter().flat_map(|entry| &entry.tensors);
        let bytes: Vec<&Vec<u8>> = tensors.chain(state).map(|tensor| &tensor.bytes).collect();
        let (copy, copies) = timed(|| Ok(bytes.iter().map(|bytes| bytes.to_vec()).collect::<Vec<_>>()))?;
        drop(copies);
        let (write, (path, written)) = timed(|| Ok(checkpoint::save(&self.folder, &snapshot)?))?;
        let (verify, ()) = timed(|| Ok(Checkpoint::open(&path)?.verify()?))?;
        drop(snapshot);
        Ok(vec![("hold", hold), ("copy", copy), ("save", write + verify), ("dd", self.dd(written)?)])
    }
}
