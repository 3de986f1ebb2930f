//! One request: the call of the application, and what it returns (PEP 3333).

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;

use appserver_plugin_abi::{Bytes, Exchange, Field, Request, Response, Step, Taken};
use pyo3_ffi::{self as ffi, PyObject};

use crate::app::{self, Helper, Mounted};
use crate::failure::{self, Kind, raise};
use crate::object::{self, Owned};
use crate::start_response::StartResponse;
use crate::{environ, host};

/// Pieces of at least this many bytes are not copied but lent until they are sent.
const LENT: usize = 16 * 1024;

thread_local! {
    /// The request this thread works on.
    static EXCHANGE: Cell<Exchange> = const { Cell::new(ptr::null_mut()) };
}

/// What the operator wants of responses.
pub(crate) struct Options {
    /// `wsgi-accept-buffer`
    accept_buffer: bool,
    /// `wsgi-strict`
    strict: bool,
    /// `start_response-nodelay`
    pub(crate) nodelay: bool,
    /// `catch-exceptions`
    catch_exceptions: bool,
    /// The type of generators, of which the end needs no `close`.
    generator: usize,
}

static OPTIONS: OnceLock<Options> = OnceLock::new();

/// Reads the settings. `None` with an exception set.
pub(crate) fn prepare(settings: &Owned) -> Option<()> {
    // SAFETY: a C string; the result is new.
    let types = unsafe { Owned::new(ffi::PyImport_ImportModule(c"types".as_ptr()))? };
    let generator = object::attribute(&types, c"GeneratorType")?.as_ptr() as usize;
    let is_on = |name| object::is_true_item(settings, name);
    OPTIONS.get_or_init(|| Options {
        accept_buffer: is_on(c"accept_buffer"),
        strict: is_on(c"strict"),
        nodelay: is_on(c"start_response_nodelay"),
        catch_exceptions: is_on(c"catch_exceptions"),
        generator,
    });
    Some(())
}

pub(crate) fn options() -> &'static Options {
    OPTIONS.get().expect("invariant: prepared first")
}

/// The server's side of the request that this thread works on; null if there is none.
pub(crate) fn exchange() -> Exchange {
    EXCHANGE.get()
}

/// A response that comes piece by piece.
struct Pieces {
    /// What the application returned; its `close` is called at the end.
    result: Owned,
    /// `None` when the server sends the body.
    iterator: Option<Owned>,
    start_response: StartResponse,
    /// Says in the log which request it was.
    environ: Owned,
}

/// The outcome of a step that did not fail; a failure is a Python exception.
enum Outcome {
    Done,
    More(Pieces),
    /// `close` is yet to be called.
    Ended(Pieces),
}

pub(crate) extern "C" fn call(request: *const Request, exchange: Exchange, response: *mut Response) -> Step {
    EXCHANGE.set(exchange);
    // SAFETY: the server's request, alive for the call.
    let request = unsafe { &*request };
    let (step, pieces) = match environ::build(request) {
        Some((environ, Some(mounted))) => match answer(&environ, mounted, exchange) {
            Some(Outcome::Done) => (Step::Done, None),
            Some(Outcome::More(pieces)) => (Step::More, Some(pieces)),
            Some(Outcome::Ended(pieces)) => (Step::Ended, Some(pieces)),
            None => (failed(&environ, exchange), None),
        },
        Some((_, None)) => {
            not_found(exchange);
            (Step::Done, None)
        }
        None => {
            failure::log("environ");
            (Step::Failed, None)
        }
    };
    if let Some(pieces) = pieces {
        pieces.start_response.connect(ptr::null_mut());
        // SAFETY: a place for one pointer.
        unsafe { *response = Box::into_raw(Box::new(pieces)).cast() };
    }
    EXCHANGE.set(ptr::null_mut());
    step
}

/// `None` with an exception set.
fn answer(environ: &Owned, mounted: &Mounted, exchange: Exchange) -> Option<Outcome> {
    let start_response = StartResponse::take()?;
    start_response.connect(exchange);
    let result = object::call(&mounted.callable, &[environ, start_response.object()])?;
    match kind(&result) {
        Returned::Bytes => {
            give(exchange, &start_response, result)?;
            finish(&start_response)
        }
        Returned::List => {
            // An application may have kept the list: its length is asked for each time.
            let mut index = 0;
            // SAFETY: a live list; items get a reference of their own.
            while index < unsafe { ffi::PyList_Size(result.as_ptr()) } {
                // SAFETY: as above.
                let item = unsafe { Owned::borrowed(ffi::PyList_GetItem(result.as_ptr(), index))? };
                if give(exchange, &start_response, item)? != Taken::Yes {
                    break;
                }
                index += 1;
            }
            finish(&start_response)
        }
        Returned::File => match send_file(exchange, &start_response, &result) {
            Some(true) => Some(Outcome::Ended(pieces(result, None, start_response, environ))),
            Some(false) => iterate(result, start_response, environ, exchange),
            None => close_after(&result, None),
        },
        Returned::Other => iterate(result, start_response, environ, exchange),
    }
}

fn pieces(result: Owned, iterator: Option<Owned>, start_response: StartResponse, environ: &Owned) -> Pieces {
    Pieces { result, iterator, start_response, environ: environ.another() }
}

enum Returned {
    Bytes,
    List,
    File,
    Other,
}

fn kind(result: &Owned) -> Returned {
    let class = result.class();
    if class == (&raw mut ffi::PyList_Type) {
        Returned::List
    } else if class == (&raw mut ffi::PyBytes_Type) && !options().strict {
        Returned::Bytes
    } else if class.cast() == app::helper(Helper::FileWrapper).as_ptr() {
        Returned::File
    } else {
        Returned::Other
    }
}

fn not_found(exchange: Exchange) {
    plain(exchange, 404, b"not found\n");
}

/// An answer of the plugin's own; false when the application's is out already.
fn plain(exchange: Exchange, status: u16, body: &[u8]) -> bool {
    let field = Field { name: Bytes::of(b"content-type"), value: Bytes::of(b"text/plain; charset=utf-8") };
    let taken = (host().head)(exchange, status, Bytes::EMPTY, &raw const field, 1);
    taken == Taken::Yes && (host().piece)(exchange, Bytes::of(body), ptr::null_mut()) == Taken::Yes
}

/// The application raised an exception, which is set, in its first step.
fn failed(environ: &Owned, exchange: Exchange) -> Step {
    let Some(exception) = failure::take() else { return Step::Failed };
    failure::log_of(&place(environ), &exception);
    if !options().catch_exceptions {
        return Step::Failed;
    }
    let page = object::call(app::helper(Helper::ExceptionPage), &[&exception, environ]);
    let Some(page) = page else {
        failure::log("the page about it");
        return Step::Failed;
    };
    // SAFETY: the helper returns bytes.
    let sent = plain(exchange, 500, unsafe { object::content(page.as_ptr()) });
    if sent { Step::Done } else { Step::Failed }
}

/// For the log: which request it was. The application may have changed what `environ` says. No exception
/// may be set.
fn place(environ: &Owned) -> String {
    let item = |name: &std::ffi::CStr| {
        // SAFETY: a live dictionary and a C string; the item is borrowed and alive until the return.
        let text = unsafe {
            let item = ffi::PyDict_GetItemString(environ.as_ptr(), name.as_ptr());
            if item.is_null() || ffi::PyUnicode_Check(item) == 0 { None } else { object::utf8(item) }
        };
        text.map_or_else(|| "?".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
    };
    let place = format!("{} {}", item(c"REQUEST_METHOD"), item(c"REQUEST_URI"));
    // SAFETY: the GIL is held; a text that cannot be shown is no reason to fail.
    unsafe { ffi::PyErr_Clear() };
    place
}

/// Gives a piece of the body to the server; `None` with an exception set.
fn give(exchange: Exchange, start_response: &StartResponse, item: Owned) -> Option<Taken> {
    let item = octets(item, "a piece of the response")?;
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

/// The bytes object that `item` is or, with `wsgi-accept-buffer`, has the content of; `None` with an
/// exception set.
pub(crate) fn octets(item: Owned, what: &str) -> Option<Owned> {
    // SAFETY: a live object.
    if unsafe { ffi::PyBytes_Check(item.as_ptr()) } != 0 {
        return Some(item);
    }
    if options().accept_buffer {
        // SAFETY: live objects; the results are new. Without a buffer, the first raises a TypeError.
        unsafe {
            let view = Owned::new(ffi::PyMemoryView_FromObject(item.as_ptr()))?;
            return Owned::new(ffi::PyBytes_FromObject(view.as_ptr()));
        }
    }
    raise(Kind::Type, &format!("{what} must be bytes, not {}", item.class_name()));
    None
}

/// The body is complete.
fn finish(start_response: &StartResponse) -> Option<Outcome> {
    check_started(start_response).map(|()| Outcome::Done)
}

fn check_started(start_response: &StartResponse) -> Option<()> {
    if start_response.started() {
        return Some(());
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
    let is_taken = (host().file)(exchange, fd, offset, length) == Taken::Yes;
    if is_taken {
        start_response.set_sent();
    }
    Some(is_taken)
}

fn iterate(
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
    let pieces = pieces(result, iterator, start_response, environ);
    if options().nodelay && pieces.start_response.started() {
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
        let is_closed = pieces.result.class() as usize == options().generator;
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
    EXCHANGE.set(exchange);
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
                let place = place(unsafe { &(*pieces).environ });
                failure::log_of(&format!("{place} (in the middle of the response)"), &exception);
            }
            Step::Failed
        }
    };
    if matches!(step, Step::Done | Step::Failed) {
        // SAFETY: as above; the server forgets it with these steps.
        drop(unsafe { Box::from_raw(pieces) });
    }
    EXCHANGE.set(ptr::null_mut());
    step
}

pub(crate) extern "C" fn close(response: Response) {
    // SAFETY: what `call` gave to the server, which gives it back once.
    let pieces = unsafe { Box::from_raw(response.cast::<Pieces>()) };
    close_after(&pieces.result, Some(()));
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
    unsafe { ffi::PyErr_SetObject(exception.class().cast::<PyObject>(), exception.as_ptr()) }
}
