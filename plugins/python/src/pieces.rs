//! A response that comes piece by piece: its iteration, its end, its `close` (PEP 3333).

use std::ptr;

use appserver_plugin_abi::{Bytes, Exchange, Response, Step, Taken};
use pyo3_ffi::{self as ffi, PyObject};

use crate::failure::{self, Kind, refuse};
use crate::object::{self, Owned};
use crate::start_response::StartResponse;
use crate::{app, host, wsgi};

/// Pieces of at least this many bytes are not copied but lent until they are sent.
const LENT: usize = 16 * 1024;

/// A response that comes piece by piece.
pub(crate) struct Pieces {
    /// What the application returned; its `close` is called at the end.
    result: Owned,
    /// `None` when the server sends the body.
    iterator: Option<Owned>,
    pub(crate) start_response: StartResponse,
    /// Says in the log which request it was.
    environ: Owned,
}

/// The outcome of a step that did not fail; a failure is a Python exception.
pub(crate) enum Outcome {
    Done,
    More(Pieces),
    /// `close` is yet to be called.
    Ended(Pieces),
}

impl Pieces {
    pub(crate) fn new(
        result: Owned,
        iterator: Option<Owned>,
        start_response: StartResponse,
        environ: &Owned,
    ) -> Self {
        Pieces { result, iterator, start_response, environ: environ.another() }
    }
}

/// Gives a piece of the body to the server; `None` with an exception set.
pub(crate) fn give(exchange: Exchange, start_response: &StartResponse, item: Owned) -> Option<Taken> {
    let item = octets(item, "a piece of the response")?;
    // SAFETY: a bytes object, alive until given away.
    let content = unsafe { object::content(item.as_ptr()) };
    if content.is_empty() {
        return Some(Taken::Yes);
    }
    if !start_response.started() {
        return refuse(Kind::Assertion, "the application returned a body without calling start_response");
    }
    start_response.set_sent();
    let bytes = Bytes::of(content);
    let owner = if content.len() >= LENT { item.into_ptr().cast() } else { ptr::null_mut() };
    Some((host().piece)(exchange, bytes, owner))
}

/// The bytes object that `item` is or, with `wsgi-accept-buffer`, has the content of; `None` with an
/// exception set.
pub(crate) fn octets(item: Owned, what: &str) -> Option<Owned> {
    // SAFETY: a live object.
    if unsafe { ffi::PyBytes_Check(item.as_ptr()) } != 0 {
        return Some(item);
    }
    if wsgi::options().accept_buffer {
        // SAFETY: live objects; the results are new. Without a buffer, the first raises a TypeError.
        unsafe {
            let view = Owned::new(ffi::PyMemoryView_FromObject(item.as_ptr()))?;
            return Owned::new(ffi::PyBytes_FromObject(view.as_ptr()));
        }
    }
    refuse(Kind::Type, &format!("{what} must be bytes, not {}", item.class_name()))
}

/// The body is complete.
pub(crate) fn finish(start_response: &StartResponse) -> Option<Outcome> {
    check_started(start_response).map(|()| Outcome::Done)
}

fn check_started(start_response: &StartResponse) -> Option<()> {
    if start_response.started() {
        return Some(());
    }
    refuse(Kind::Assertion, "the application did not call start_response")
}

/// Iterates to the first piece, which is given to the server. `None` with an exception set, and `close`
/// called.
pub(crate) fn iterate(
    result: Owned,
    start_response: StartResponse,
    environ: &Owned,
    exchange: Exchange,
) -> Option<Outcome> {
    // SAFETY: a live object; the result is new.
    let iterator = unsafe { Owned::new(ffi::PyObject_GetIter(result.as_ptr())) };
    if iterator.is_none() {
        return close_after(&result, None);
    }
    let pieces = Pieces::new(result, iterator, start_response, environ);
    if wsgi::options().nodelay && pieces.start_response.started() {
        return Some(Outcome::More(pieces));
    }
    // The head may change until there is a piece that is not empty.
    loop {
        match advance(&pieces, exchange)? {
            Progress::Empty => {}
            Progress::Piece => return Some(Outcome::More(pieces)),
            Progress::End => return Some(Outcome::Ended(pieces)),
            Progress::Closed => return Some(Outcome::Done),
        }
    }
}

/// What one turn of the iteration has brought.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Piece,
    Empty,
    /// The end; `close` has not been called.
    End,
    /// The end; nothing is left to be called.
    Closed,
}

/// Goes on to the next piece; `None` with an exception set, and `close` called.
fn advance(pieces: &Pieces, exchange: Exchange) -> Option<Progress> {
    let Some(iterator) = &pieces.iterator else { return Some(Progress::End) };
    // SAFETY: a live iterator; the result is new.
    let item = unsafe { Owned::new(ffi::PyIter_Next(iterator.as_ptr())) };
    let Some(item) = item else {
        // SAFETY: the GIL is held.
        let failed = unsafe { !ffi::PyErr_Occurred().is_null() };
        if failed || check_started(&pieces.start_response).is_none() {
            return close_after(&pieces.result, None);
        }
        // A generator at its end has nothing to close.
        let is_closed = pieces.result.class() as usize == wsgi::options().generator;
        return Some(if is_closed { Progress::Closed } else { Progress::End });
    };
    // SAFETY: a live object.
    if unsafe { ffi::PyBytes_Check(item.as_ptr()) != 0 && ffi::PyBytes_Size(item.as_ptr()) == 0 } {
        return Some(Progress::Empty);
    }
    match give(exchange, &pieces.start_response, item) {
        Some(Taken::Yes) => Some(Progress::Piece),
        Some(Taken::Gone | Taken::Refused) => close_after(&pieces.result, Some(Progress::Closed)),
        None => close_after(&pieces.result, None),
    }
}

pub(crate) extern "C" fn next(response: Response, exchange: Exchange) -> Step {
    let pieces: *mut Pieces = response.cast();
    wsgi::set_exchange(exchange);
    // SAFETY: what `call` made; the server uses it for one step at a time.
    let progress = unsafe {
        (*pieces).start_response.connect(exchange);
        let progress = advance(&*pieces, exchange);
        (*pieces).start_response.connect(ptr::null_mut());
        progress
    };
    let step = match progress {
        Some(Progress::Piece | Progress::Empty) => Step::More,
        Some(Progress::End) => Step::Ended,
        Some(Progress::Closed) => Step::Done,
        None => {
            if let Some(exception) = failure::take() {
                // SAFETY: as above.
                let place = wsgi::place(unsafe { &(*pieces).environ });
                failure::log_of_request(&format!("{place} (in the middle of the response)"), &exception);
            }
            Step::Failed
        }
    };
    if matches!(step, Step::Done | Step::Failed) {
        // SAFETY: as above; the server forgets it with these steps.
        drop(unsafe { Box::from_raw(pieces) });
    }
    wsgi::set_exchange(ptr::null_mut());
    if matches!(step, Step::Done | Step::Failed) {
        app::after_request();
    }
    step
}

pub(crate) extern "C" fn close(response: Response) {
    // SAFETY: what `call` gave to the server, which gives it back once.
    let pieces = unsafe { Box::from_raw(response.cast::<Pieces>()) };
    close_after(&pieces.result, Some(()));
    app::after_request();
}

/// Calls `close` of what the application returned, if it has one. An exception that is set stays set;
/// one that `close` raises is logged.
pub(crate) fn close_after<T>(result: &Owned, outcome: Option<T>) -> Option<T> {
    let pending = match outcome {
        Some(_) => None,
        None => failure::take(),
    };
    match object::attribute(result, c"close") {
        Some(close) => {
            if object::call(&close, &[]).is_none() {
                failure::log("close() of the response");
            }
        }
        // SAFETY: the GIL is held.
        None => unsafe { ffi::PyErr_Clear() },
    }
    if let Some(exception) = pending {
        set(&exception);
    }
    outcome
}

/// Sets an exception that was taken.
fn set(exception: &Owned) {
    // SAFETY: a live exception; the traceback is attached to it.
    unsafe { ffi::PyErr_SetObject(exception.class().cast::<PyObject>(), exception.as_ptr()) }
}
