//! Catches panics inside every entry point, on both sides of the boundary: none may cross it.

use crate::error::{Error, Result};
use gauntlet_plugin_abi::{ErrorCode, RT, RawError};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo};
use std::sync::Once;

thread_local! {
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `body`; a panic becomes an error with its message and source line.
pub(crate) fn guard<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    install_hook();
    DEPTH.with(|depth| depth.set(depth.get() + 1));
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(body));
    DEPTH.with(|depth| depth.set(depth.get() - 1));
    outcome.unwrap_or_else(|payload| Err(from_payload(payload)))
}

/// As [`guard`], for the other side of the boundary.
pub(crate) fn guard_raw<T>(body: impl FnOnce() -> Result<T>) -> RT<T> {
    guard(body).map_err(RawError::from).into()
}

/// An error raised on purpose keeps its identity; anything else is a panic.
fn from_payload(payload: Box<dyn std::any::Any + Send>) -> Error {
    let payload = match payload.downcast::<Error>() {
        Ok(error) => return *error,
        Err(payload) => payload,
    };
    let text = (payload.downcast_ref::<&str>().map(|text| text.to_string()))
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a value that is not text".into());
    // A payload whose destructor panics would otherwise escape here.
    let _ = std::panic::catch_unwind(AssertUnwindSafe(|| drop(payload)));
    Error::new(ErrorCode::PANIC, PLACE.with(|place| place.take()), format!("panicked: {}", first_line(&text)))
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Each shared library has its own standard library, hence its own hook. Inside a guard it notes the place silently;
/// outside it hands over to the hook before it (a test harness's, for example).
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
            if DEPTH.with(Cell::get) == 0 {
                return previous(info);
            }
            let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
            PLACE.with(|cell| cell.replace(place));
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_of_every_kind_become_errors() {
        let error = guard::<()>(|| panic!("index {} of 3", 7)).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::PANIC, "panicked: index 7 of 3"));
        assert!(error.at.contains("guard.rs:"), "{error:?}");
        let error = guard::<()>(|| std::panic::panic_any(5_i32)).unwrap_err();
        assert_eq!(error.message, "panicked: a value that is not text");
    }

    #[test]
    fn a_raised_error_keeps_its_identity() {
        let error = guard::<()>(|| crate::error::raise(Error::shape("add", "shapes [2] and [3] differ"))).unwrap_err();
        assert_eq!(error, Error::shape("add", "shapes [2] and [3] differ"));
    }

    #[test]
    fn a_payload_whose_drop_panics_does_not_escape() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        assert_eq!(guard::<()>(|| std::panic::panic_any(Bomb)).unwrap_err().code, ErrorCode::PANIC);
    }
}
