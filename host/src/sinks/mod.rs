//! What listens to a run's events or keeps its state: the record, the terminal, checkpoints.

pub mod checkpoint;
mod progress;
mod record;

pub use progress::Progress;
pub use record::Record;
