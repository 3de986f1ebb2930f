//! One request: the call of the application, and what it returns (PEP 3333).

use std::cell::Cell;
use std::ptr;

use appserver_plugin_abi::{Bytes, Exchange, Request, Response, Step, Taken};
use pyo3_ffi::{self as ffi, PyObject};

use crate::app::{self, Helper};
use crate::failure::{self, Kind, raise};
use crate::object::{self, Owned};
use crate::start_response::StartResponse;
use crate::{environ, host};

/// Pieces of at least this many bytes are not copied but lent until they are sent.
const LENT: usize = 16 * 1024;

thread_local! {
    /// The request this thread works on.
    static EXCHANGE: Cell<Exchange> = const { Cell::new(ptr::null_mut()) };
    /// Its `environ`, alive while the application is called; null otherwise.
    static ENVIRON: Cell<*mut PyObject> = const { Cell::new(ptr::null_mut()) };
}

/// The server's side of the request that this thread works on; null if there is none.
pub(crate) fn exchange() -> Exchange {
    EXCHANGE.get()
}

/// The `environ` of the request that this thread's application is called for.
pub(crate) fn environ() -> Option<Owned> {
    // SAFETY: alive while it is there; the GIL is held.
    unsafe { Owned::borrowed(ENVIRON.get()) }
}

/// A response that comes piece by piece.
struct Pieces {
    /// What the application returned; its `close` is called at the end.
    result: Owned,
    iterator: Owned,
    start_response: StartResponse,
}

/// The outcome of a step that did not fail; a failure is a Python exception.
enum Outcome {
    Done,
    More(Pieces),
}

pub(crate) extern "C" fn call(request: *const Request, exchange: Exchange, response: *mut Response) -> Step {
    EXCHANGE.set(exchange);
    // SAFETY: the server's request, alive for the call.
    let request = unsafe { &*request };
    let step = match answer(request, exchange) {
        Some(Outcome::Done) => Step::Done,
        Some(Outcome::More(pieces)) => {
            pieces.start_response.connect(ptr::null_mut());
            // SAFETY: a place for one pointer.
            unsafe { *response = Box::into_raw(Box::new(pieces)).cast() };
            Step::More
        }
        None => {
            failure::log(&place(request));
            Step::Failed
        }
    };
    EXCHANGE.set(ptr::null_mut());
    if step != Step::More {
        app::after_request();
    }
    step
}

/// For the log: which request it was.
fn place(request: &Request) -> String {
    // SAFETY: alive for the call.
    let (method, target) = unsafe { (request.method.slice(), request.target.slice()) };
    format!("{} {}", String::from_utf8_lossy(method), String::from_utf8_lossy(target))
}

/// `None` with an exception set.
fn answer(request: &Request, exchange: Exchange) -> Option<Outcome> {
    let (environ, mounted) = environ::build(request)?;
    let Some(mounted) = mounted else {
        not_found(exchange);
        return Some(Outcome::Done);
    };
    let start_response = StartResponse::take()?;
    start_response.connect(exchange);
    ENVIRON.set(environ.as_ptr());
    let result = object::call(&mounted.callable, &[&environ, start_response.object()]);
    ENVIRON.set(ptr::null_mut());
    let result = result?;
    let class = kind(&result);
    match class {
        Returned::Bytes => give(exchange, &start_response, result).and_then(|_| finish(&start_response)),
        Returned::List => {
            // An application may have kept the list: its length is asked for each time.
            let mut index = 0;
            // SAFETY: a live list; items get a reference of their own.
            while index < unsafe { ffi::PyList_Size(result.as_ptr()) } {
                // SAFETY: as above.
                let item = unsafe { Owned::borrowed(ffi::PyList_GetItem(result.as_ptr(), index))? };
                give(exchange, &start_response, item)?;
                index += 1;
            }
            finish(&start_response)
        }
        Returned::File => {
            let sent = send_file(exchange, &start_response, &result);
            match sent {
                Some(true) => close_after(&result, finish(&start_response)),
                Some(false) => iterate(result, start_response, exchange),
                None => close_after(&result, None),
            }
        }
        Returned::Other => iterate(result, start_response, exchange),
    }
}

enum Returned {
    Bytes,
    List,
    File,
    Other,
}

fn kind(result: &Owned) -> Returned {
    // SAFETY: live objects.
    unsafe {
        let class = ffi::Py_TYPE(result.as_ptr());
        if class == &raw mut ffi::PyList_Type {
            Returned::List
        } else if class == &raw mut ffi::PyBytes_Type {
            Returned::Bytes
        } else if class.cast() == app::helper(Helper::FileWrapper).as_ptr() {
            Returned::File
        } else {
            Returned::Other
        }
    }
}

fn not_found(exchange: Exchange) {
    let body = b"not found\n";
    let field = appserver_plugin_abi::Field {
        name: Bytes::of(b"content-type"),
        value: Bytes::of(b"text/plain; charset=utf-8"),
    };
    (host().head)(exchange, 404, Bytes::EMPTY, &raw const field, 1);
    (host().piece)(exchange, Bytes::of(body), ptr::null_mut());
}

/// Gives a piece of the body to the server; `None` with an exception set.
fn give(exchange: Exchange, start_response: &StartResponse, item: Owned) -> Option<Taken> {
    // SAFETY: a live object.
    if unsafe { ffi::PyBytes_Check(item.as_ptr()) } == 0 {
        raise(Kind::Type, "a piece of the response is not bytes");
        return None;
    }
    // SAFETY: a bytes object, alive until given away.
    let content = unsafe { object::content(item.as_ptr()) };
    if content.is_empty() {
        return Some(Taken::Yes);
    }
    if !start_response.started() {
        raise(Kind::Assertion, "the application returned a body without calling start_response");
        return None;
    }
    start_response.set_sent();
    let bytes = Bytes::of(content);
    let owner = if content.len() >= LENT { item.into_ptr().cast() } else { ptr::null_mut() };
    Some((host().piece)(exchange, bytes, owner))
}

/// The body is complete.
fn finish(start_response: &StartResponse) -> Option<Outcome> {
    if start_response.started() {
        return Some(Outcome::Done);
    }
    raise(Kind::Assertion, "the application did not call start_response");
    None
}

/// `None` with an exception set, `Some(false)` if the file has to be iterated.
fn send_file(exchange: Exchange, start_response: &StartResponse, result: &Owned) -> Option<bool> {
    let range = object::call(app::helper(Helper::FileRange), &[result])?;
    // SAFETY: None, or a tuple of three numbers; items are borrowed from it.
    let (fd, offset, length) = unsafe {
        if range.as_ptr() == ffi::Py_None() || !start_response.started() {
            return Some(false);
        }
        let number = |index| ffi::PyLong_AsLongLong(ffi::PyTuple_GetItem(range.as_ptr(), index));
        (number(0) as i32, number(1).cast_unsigned(), number(2).cast_unsigned())
    };
    start_response.set_sent();
    (host().file)(exchange, fd, offset, length);
    Some(true)
}

fn iterate(result: Owned, start_response: StartResponse, exchange: Exchange) -> Option<Outcome> {
    // SAFETY: a live object; the result is new.
    match unsafe { Owned::new(ffi::PyObject_GetIter(result.as_ptr())) } {
        Some(iterator) => {
            let pieces = Pieces { result, iterator, start_response };
            match advance(&pieces, exchange)? {
                Progress::More => Some(Outcome::More(pieces)),
                Progress::End => Some(Outcome::Done),
            }
        }
        None => close_after(&result, None),
    }
}

/// Whether there may be more pieces.
#[derive(Clone, Copy)]
enum Progress {
    More,
    /// `close` has been called.
    End,
}

/// Goes on to the next piece that is not empty; `None` with an exception set.
fn advance(pieces: &Pieces, exchange: Exchange) -> Option<Progress> {
    loop {
        // SAFETY: a live iterator; the result is new.
        let item = unsafe { Owned::new(ffi::PyIter_Next(pieces.iterator.as_ptr())) };
        let Some(item) = item else {
            // SAFETY: the GIL is held.
            let failed = unsafe { !ffi::PyErr_Occurred().is_null() };
            let end = if failed { None } else { finish(&pieces.start_response).map(|_| Progress::End) };
            return close_after(&pieces.result, end);
        };
        // SAFETY: a live object.
        let empty =
            unsafe { ffi::PyBytes_Check(item.as_ptr()) != 0 && ffi::PyBytes_Size(item.as_ptr()) == 0 };
        if empty {
            continue;
        }
        match give(exchange, &pieces.start_response, item) {
            Some(Taken::Yes) => return Some(Progress::More),
            Some(Taken::Gone | Taken::Refused) => return close_after(&pieces.result, Some(Progress::End)),
            None => return close_after(&pieces.result, None),
        }
    }
}

pub(crate) extern "C" fn next(response: Response, exchange: Exchange) -> Step {
    let pieces: *mut Pieces = response.cast();
    EXCHANGE.set(exchange);
    // SAFETY: what `call` made; the server uses it for one step at a time.
    let progress = unsafe {
        (*pieces).start_response.connect(exchange);
        let progress = advance(&*pieces, exchange);
        (*pieces).start_response.connect(ptr::null_mut());
        progress
    };
    let step = match progress {
        Some(Progress::More) => Step::More,
        Some(Progress::End) => Step::Done,
        None => {
            failure::log("while the response was sent");
            Step::Failed
        }
    };
    EXCHANGE.set(ptr::null_mut());
    if step != Step::More {
        // SAFETY: as above; the server forgets it with any step but `More`.
        drop(unsafe { Box::from_raw(pieces) });
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
fn close_after<T>(result: &Owned, outcome: Option<T>) -> Option<T> {
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
    unsafe { ffi::PyErr_SetObject(ffi::Py_TYPE(exception.as_ptr()).cast::<PyObject>(), exception.as_ptr()) }
}
