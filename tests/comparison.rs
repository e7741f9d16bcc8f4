//! A small comparison that tests run.

use crate::built::plugin;
use crate::corpus::shards;
use crate::program::{Outcome, gauntlet};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// A folder with a base configuration and a comparison of `sgd` and `adam`, tuned by two values each.
pub struct Comparison(TempDir);

const BASE: &str = "[model]\nwidth = 16\nnum_layers = 1\nnum_heads = 2\nmlp_width = 32\n\
    [data]\ntrain = 'SHARDS'\nvalidation = 'SHARDS'\nseq_len = 16\nbatch_size = 4\n\
    [eval]\nbatches = 2\nbatch_size = 16\n[plugins]\nprobe = false\n";

const COMPARISON: &str = "base = ['base.toml']\ndir = 'out'\nseeds = [1, 2]\ntarget_loss = 5.1\nother_targets = [5.3]\n\
    max_gradient_equivalents = 24\nfine_batches = 3\nthreads = 1\nworkers = 2\n\
    [warm_up]\ntrain.max_steps = 2\noptimizer = { plugin = 'ADAM', config = { lr = 0.001 } }\n\
    [tuning]\nseed = 0\nbudget = 18\nextensions = 1\n\
    [[contender]]\nname = 'sgd'\nbaseline = true\nset.optimizer.plugin = 'SGD'\n\
    tune.'optimizer.config.lr' = [0.001, 0.3]\n\
    [[contender]]\nname = 'adam'\nset.optimizer.plugin = 'ADAM'\ntune.'optimizer.config.lr' = [0.003, 0.01]\n";

impl Comparison {
    /// As it stands above.
    pub fn new() -> Self {
        Self::with("")
    }

    /// With more contenders.
    pub fn with(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let named = |text: &str| {
            let text = text.replace("SHARDS", &shards().display().to_string());
            let text = text.replace("ADAM", &plugin("adam").display().to_string());
            text.replace("SGD", &plugin("sgd").display().to_string())
        };
        fs::write(folder.path().join("base.toml"), named(BASE)).unwrap();
        fs::write(folder.path().join("c.toml"), named(&format!("{COMPARISON}{more}"))).unwrap();
        Self(folder)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// `comparison.json`.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path().join("out/comparison.json")).unwrap()).unwrap()
    }

    /// Runs `compare` with more arguments.
    pub fn compare(&self, more: &[&str]) -> Outcome {
        gauntlet(self.path(), &[&["compare", "c.toml"], more].concat())
    }

    /// Names and bytes of the results.
    pub fn results(&self) -> BTreeMap<String, Vec<u8>> {
        let entries = fs::read_dir(self.path().join("out/results")).unwrap().flatten();
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect()
    }
}
