//! What listens to a run's events or keeps its state: the record, the terminal, metrics, checkpoints.

pub mod checkpoint;
pub mod metrics;
mod progress;
mod record;

pub use metrics::Metrics;
pub use progress::{Progress, say};
pub use record::Record;
