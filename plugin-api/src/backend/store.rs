//! Handles: a slot number and a generation, so that a stale handle is noticed.

use crate::error::{Error, Result};
use gauntlet_plugin_abi::ErrorCode;

/// Values by handle.
#[derive(Debug)]
pub(super) struct Store<T> {
    kind: &'static str,
    slots: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Store<T> {
    pub fn new(kind: &'static str) -> Self {
        Self { kind, slots: vec![], free: vec![] }
    }

    pub fn insert(&mut self, value: T) -> u64 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push((1, None));
            self.slots.len() as u32 - 1
        });
        let entry = &mut self.slots[slot as usize];
        entry.1 = Some(value);
        u64::from(slot) | u64::from(entry.0) << 32
    }

    pub fn get(&self, handle: u64) -> Result<&T> {
        let (slot, generation) = (handle as u32, (handle >> 32) as u32);
        let entry = self.slots.get(slot as usize).filter(|entry| entry.0 == generation);
        entry.and_then(|entry| entry.1.as_ref()).ok_or_else(|| self.stale(handle))
    }

    pub fn get_mut(&mut self, handle: u64) -> Result<&mut T> {
        let error = self.stale(handle);
        let (slot, generation) = (handle as u32, (handle >> 32) as u32);
        let entry = self.slots.get_mut(slot as usize).filter(|entry| entry.0 == generation);
        entry.and_then(|entry| entry.1.as_mut()).ok_or(error)
    }

    /// Takes the value out for good; the handle is stale from now on.
    pub fn remove(&mut self, handle: u64) -> Option<T> {
        let (slot, generation) = (handle as u32, (handle >> 32) as u32);
        let entry = self.slots.get_mut(slot as usize).filter(|entry| entry.0 == generation)?;
        let value = entry.1.take()?;
        entry.0 = entry.0.wrapping_add(1).max(1);
        self.free.push(slot);
        Some(value)
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(_, value)| value.as_ref())
    }

    pub fn handles(&self) -> Vec<u64> {
        let live = self.slots.iter().enumerate().filter(|(_, entry)| entry.1.is_some());
        live.map(|(slot, entry)| slot as u64 | u64::from(entry.0) << 32).collect()
    }

    fn stale(&self, handle: u64) -> Error {
        Error::new(ErrorCode::BAD_HANDLE, self.kind, format!("handle {handle:#x} is not live"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_handle_is_noticed_when_its_slot_is_used_again() {
        let mut store = Store::new("tensor");
        let first = store.insert('a');
        assert_eq!(store.remove(first), Some('a'));
        let second = store.insert('b');
        assert_eq!(first as u32, second as u32, "the slot is used again");
        assert_eq!(store.get(second), Ok(&'b'));
        assert_eq!(store.get(first).unwrap_err().code, ErrorCode::BAD_HANDLE);
        assert_eq!(store.get(0).unwrap_err().code, ErrorCode::BAD_HANDLE);
        assert_eq!(store.remove(first), None);
    }
}
