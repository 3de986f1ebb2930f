//! Python exceptions on their way to the log.

use std::ffi::CString;

use pyo3_ffi as ffi;

use crate::app;
use crate::object::{self, Owned};

/// Writes the exception that is set, with its traceback, to the log, and clears it. `place` says what
/// was being done.
pub(crate) fn log(place: &str) {
    if let Some(exception) = take() {
        log_of(place, &exception);
    }
}

/// The same for an exception that was taken.
pub(crate) fn log_of(place: &str, exception: &Owned) {
    let logged = object::text(place)
        .and_then(|place| object::call(app::helper(app::Helper::LogException), &[&place, exception]));
    if logged.is_none() {
        // The log itself fails: what is left is the interpreter's last resort.
        // SAFETY: an exception is set; the object is alive.
        unsafe { ffi::PyErr_WriteUnraisable(exception.as_ptr()) }
    }
}

/// The same for one that has ended a request, of which the server wants to know.
pub(crate) fn log_of_request(place: &str, exception: &Owned) {
    log_of(place, exception);
    if object::call(app::helper(app::Helper::NoteException), &[exception]).is_none() {
        log("the server is told of an exception");
    }
}

/// One line about the exception that is set, which is cleared. Its traceback goes to the log.
pub(crate) fn take_summary() -> String {
    const UNKNOWN: &str = "an exception that cannot be shown";
    let Some(exception) = take() else { return UNKNOWN.to_owned() };
    let summary = object::call(app::helper(app::Helper::Summary), &[&exception]);
    let Some(summary) = summary else {
        // SAFETY: the GIL is held.
        unsafe { ffi::PyErr_Clear() };
        return UNKNOWN.to_owned();
    };
    // SAFETY: the helper returns a `str`, which lives until the end of the function.
    let text = unsafe { object::utf8(summary.as_ptr()) };
    text.map_or_else(|| UNKNOWN.to_owned(), |text| String::from_utf8_lossy(text).into_owned())
}

/// The exception that is set, with its traceback attached, cleared.
pub(crate) fn take() -> Option<Owned> {
    let (mut kind, mut value, mut traceback) =
        (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
    // The successor of these functions, PyErr_GetRaisedException, came with 3.12.
    // SAFETY: three places for three references, each null or ours afterwards.
    unsafe {
        ffi::PyErr_Fetch(&raw mut kind, &raw mut value, &raw mut traceback);
        ffi::PyErr_NormalizeException(&raw mut kind, &raw mut value, &raw mut traceback);
        if !traceback.is_null() && !value.is_null() {
            ffi::PyException_SetTraceback(value, traceback);
        }
        drop((Owned::new(kind), Owned::new(traceback)));
        Owned::new(value)
    }
}

/// The exceptions that the plugin raises itself.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    Assertion,
    Os,
    Runtime,
    Type,
    Value,
}

/// Sets a Python exception.
pub(crate) fn raise(kind: Kind, message: &str) {
    let message = CString::new(message.replace('\0', "\\0")).unwrap_or_default();
    // SAFETY: the exception classes are statics of the interpreter, set when it starts; a C string.
    unsafe {
        let class = match kind {
            Kind::Assertion => ffi::PyExc_AssertionError,
            Kind::Os => ffi::PyExc_OSError,
            Kind::Runtime => ffi::PyExc_RuntimeError,
            Kind::Type => ffi::PyExc_TypeError,
            Kind::Value => ffi::PyExc_ValueError,
        };
        ffi::PyErr_SetString(class, message.as_ptr());
    }
}

/// Sets a Python exception where a value is expected.
pub(crate) fn refuse<T>(kind: Kind, message: &str) -> Option<T> {
    raise(kind, message);
    None
}
