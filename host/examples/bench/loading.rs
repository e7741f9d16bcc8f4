//! Drawing batches: the sequences of a step of the quickstart from a weighted mix of shuffled shards, beside that step.

use anyhow::Result;
use gauntlet::config::ShardPath;
use gauntlet::data::{Dataset, Order, Split, Stream};
use gauntlet::plugin::PluginOptimizer;
use serde_json::json;

use crate::drive::{Arguments, Round, Subject, seconds};
use crate::inputs::write_shard;
use crate::listeners::quickstart;

/// Steps of a round.
const STEPS: u32 = 40;
/// Batches of a round.
const BATCHES: u32 = 2000;
/// Sequences of a batch.
const SEQUENCES: usize = 4;
/// Tokens of each of four shards.
const TOKENS: u64 = 4_000_000;

pub struct Loading {
    optimizer: PluginOptimizer,
    step: u64,
    data: Dataset,
    batch: u64,
}

impl Loading {
    pub fn new(arguments: &Arguments) -> Result<Self> {
        let (optimizer, _) = quickstart(arguments)?;
        let part = |name: &str, weight: f64| -> Result<ShardPath> {
            let folder = arguments.folder.join(name);
            std::fs::create_dir(&folder)?;
            for shard in ["train-0.bin", "train-1.bin"] {
                write_shard(&folder.join(shard), 256, TOKENS)?;
            }
            Ok(serde_json::from_value(json!({ "path": folder, "weight": weight }))?)
        };
        let parts = [part("often", 2.0)?, part("seldom", 1.0)?];
        let data = Dataset::open(&parts, Split::Train, 128, 256, Order::Shuffled { seed: 1 })?;
        Ok(Self { optimizer, step: 0, data, batch: 0 })
    }

    fn step(&mut self) -> Result<()> {
        self.optimizer.step(self.step)?;
        self.step += 1;
        Ok(())
    }

    fn draw(&mut self) -> Result<Vec<i64>> {
        let batch = self.data.read(Stream::Main, self.batch * SEQUENCES as u64, SEQUENCES)?;
        self.batch += 1;
        Ok(batch)
    }
}

impl Subject for Loading {
    fn check(&mut self) -> Result<Vec<f64>> {
        self.step()?;
        self.draw()?;
        Ok(vec![])
    }

    fn round(&mut self) -> Result<Round> {
        let step = seconds(STEPS, || self.step())?;
        Ok(vec![("step", step), ("draw", seconds(BATCHES, || self.draw())?)])
    }
}
