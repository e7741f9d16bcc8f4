//! Own loops on the threads that libtorch computes with.
//!
//! libtorch's threads wait for their next work by spinning. A second pool beside them would compete for the same cores.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ffi;

/// Applies a function to every item, on as many threads as libtorch uses; gives the results in the order of the items.
///
/// # Panics
/// When the function does, with the same payload.
pub fn parallel_map<T: Send, R: Send>(items: Vec<T>, function: impl Fn(T) -> R + Sync) -> Vec<R> {
    if items.len() <= 1 {
        return items.into_iter().map(function).collect();
    }
    let results: Mutex<Vec<Option<R>>> = Mutex::new(items.iter().map(|_| None).collect());
    let queue = Mutex::new(items.into_iter().enumerate());
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    let work = || {
        loop {
            let Some((index, item)) = lock(&queue).next() else { break };
            match catch_unwind(AssertUnwindSafe(|| function(item))) {
                Ok(result) => lock(&results)[index] = Some(result),
                Err(payload) => {
                    lock(&queue).by_ref().for_each(drop);
                    lock(&panic).get_or_insert(payload);
                }
            }
        }
    };
    // What threads that libtorch could not start leave over is done on this one.
    let _ = ffi::on_every_thread(&work);
    work();
    if let Some(payload) = lock(&panic).take() {
        resume_unwind(payload);
    }
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

/// No lock is held while the function runs, so none is poisoned.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::thread;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        for count in [0, 1, 2, 1000] {
            let items: Vec<Box<usize>> = (0..count).map(Box::new).collect();
            assert_eq!(parallel_map(items, |item| *item * 2), (0..count).map(|item| item * 2).collect::<Vec<_>>());
        }
    }

    #[test]
    fn each_of_libtorchs_threads_is_called_once() {
        let threads = tch::get_num_threads() as usize;
        let calls = Mutex::new(vec![]);
        ffi::on_every_thread(&|| lock(&calls).push(thread::current().id())).unwrap();
        let calls = calls.into_inner().unwrap();
        assert_eq!((calls.len(), calls.into_iter().collect::<HashSet<_>>().len()), (threads, threads));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_ends_the_work() {
        let outcome = catch_unwind(|| parallel_map((0..100).collect(), |item| assert_ne!(item, 3, "three")));
        let payload = outcome.unwrap_err();
        assert!(payload.downcast_ref::<String>().is_some_and(|text| text.contains("three")));
        assert_eq!(parallel_map(vec![1, 2], |item| item), [1, 2]);
    }
}
