//! The wall between Rust and C: no panic crosses it, every failure is reported once.
//!
//! A panic inside [`catch`] becomes an [`Error`] of [`Kind::Panic`] which says where it happened. It is not printed:
//! the panic hook of the process is wrapped, once, by one that stays silent on a thread that is inside the wall and
//! hands every other panic to the hook that was there before.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use super::error::{tiller_error, tiller_status};
use crate::error::{Error, Kind, Result};

/// `tiller_error **err`: may be NULL, may point to uninitialised memory, is written on failure only.
pub(super) type ErrorOut<'a> = Option<&'a mut MaybeUninit<Option<Box<tiller_error>>>>;

/// `T **out`: may not be NULL, may point to uninitialised memory, is written on success only. A plain
/// `&mut Option<Box<T>>` would drop what C left there.
pub(super) type Out<'a, T> = Option<&'a mut MaybeUninit<Option<Box<T>>>>;

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `body`; writes the failure, if any, to `err` and returns its status.
pub(super) fn guard(err: ErrorOut<'_>, body: impl FnOnce() -> Result<()>) -> tiller_status {
    match catch(body) {
        Ok(()) => tiller_status::TILLER_OK,
        Err(error) => {
            let error = tiller_error::from(error);
            let status = error.status;
            if let Some(slot) = err {
                slot.write(Some(Box::new(error)));
            }
            status
        }
    }
}

/// As [`guard`], for a call that makes a handle.
pub(super) fn make<T>(out: Out<'_, T>, err: ErrorOut<'_>, body: impl FnOnce() -> Result<T>) -> tiller_status {
    guard(err, || {
        let out = super::arguments::some(out, "out")?;
        out.write(Some(Box::new(body()?)));
        Ok(())
    })
}

/// Runs `body`, turning a panic into an error.
pub(super) fn catch<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    static SILENCE: Once = Once::new();
    SILENCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if DEPTH.get() == 0 {
                return before(info);
            }
            let place = info.location().map_or_else(String::new, |at| format!(" at {}:{}", at.file(), at.line()));
            PLACE.with_borrow_mut(|slot| *slot = place);
        }));
    });
    DEPTH.set(DEPTH.get() + 1);
    // Nothing that `body` leaves half done is looked at again: the header says that after TILLER_E_PANIC the handles
    // may only be freed.
    let outcome = catch_unwind(AssertUnwindSafe(body));
    DEPTH.set(DEPTH.get() - 1);
    outcome.unwrap_or_else(|payload| Err(Error::new(Kind::Panic, describe(&*payload))))
}

fn describe(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    format!("internal error{}: {}", PLACE.take(), text.unwrap_or("panic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_place() {
        let error = catch(|| -> Result<()> { panic!("planted {}", 7) }).unwrap_err();
        assert_eq!(error.kind(), Kind::Panic);
        assert!(error.message().starts_with("internal error at src/capi/guard.rs:"), "{error}");
        assert!(error.message().ends_with(": planted 7"), "{error}");
        assert_eq!(DEPTH.get(), 0);
    }

    #[test]
    fn out_is_written_on_success_only_and_never_dropped() {
        let mut out = MaybeUninit::<Option<Box<u32>>>::uninit();
        let mut err = MaybeUninit::uninit();
        assert_eq!(
            make(Some(&mut out), Some(&mut err), || Err(Error::argument("no"))),
            tiller_status::TILLER_E_ARGUMENT
        );
        // SAFETY: the call above failed, so it wrote the error.
        let error = unsafe { err.assume_init() }.expect("an error");
        assert_eq!(error.status, tiller_status::TILLER_E_ARGUMENT);
        assert_eq!(make(Some(&mut out), None, || Ok(5)), tiller_status::TILLER_OK);
        // SAFETY: the call above succeeded, so it wrote the handle.
        assert_eq!(unsafe { out.assume_init() }.as_deref(), Some(&5));
        assert_eq!(make(None::<&mut MaybeUninit<Option<Box<u32>>>>, None, || Ok(5)), tiller_status::TILLER_E_ARGUMENT);
    }
}
