//! An optimizer's state outside the boundary: plain bytes, ready for a file.

use gauntlet_plugin_abi::{DType, StateKind};

/// A tensor as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedTensor {
    /// The parameter's name; empty for a single tensor.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Elements, little-endian, row-major.
    pub bytes: Vec<u8>,
}

/// One entry of a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SavedEntry {
    /// The entry's name.
    pub name: String,
    /// What it holds.
    pub kind: StateKind,
    /// Its tensors.
    pub tensors: Vec<SavedTensor>,
    /// Everything else.
    pub bytes: Vec<u8>,
}

/// A whole state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedState {
    /// Version of the layout of the entries.
    pub schema_version: u32,
    /// The entries, in the order they were saved.
    pub entries: Vec<SavedEntry>,
}
