//! One request: the call of the application, and what it returns (PEP 3333).

use std::cell::Cell;
use std::ptr;
use std::sync::OnceLock;

use appserver_plugin_abi::{Bytes, Exchange, Field, Request, Response, Step, Taken};
use pyo3_ffi as ffi;

use crate::app::{self, Helper, Mounted};
use crate::failure;
use crate::object::{self, Owned};
use crate::pieces::{Outcome, Pieces, close_after, finish, give, iterate};
use crate::start_response::StartResponse;
use crate::{environ, host};

thread_local! {
    /// The request this thread works on.
    static EXCHANGE: Cell<Exchange> = const { Cell::new(ptr::null_mut()) };
    /// Its `environ`, alive while the application is called; null otherwise.
    static ENVIRON: Cell<*mut ffi::PyObject> = const { Cell::new(ptr::null_mut()) };
}

/// What the operator wants of responses.
pub(crate) struct Options {
    /// `wsgi-accept-buffer`
    pub(crate) accept_buffer: bool,
    /// `wsgi-strict`
    strict: bool,
    /// `start_response-nodelay`
    pub(crate) nodelay: bool,
    /// `catch-exceptions`
    catch_exceptions: bool,
    /// The type of generators, of which the end needs no `close`.
    pub(crate) generator: usize,
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

/// The `environ` of the request that this thread's application is called for.
pub(crate) fn environ() -> Option<Owned> {
    // SAFETY: alive while it is there; the GIL is held.
    unsafe { Owned::borrowed(ENVIRON.get()) }
}

/// Says which one that is.
pub(crate) fn set_exchange(exchange: Exchange) {
    EXCHANGE.set(exchange);
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
    if matches!(step, Step::Done | Step::Failed) {
        app::after_request();
    }
    step
}

/// `None` with an exception set.
fn answer(environ: &Owned, mounted: &Mounted, exchange: Exchange) -> Option<Outcome> {
    let start_response = StartResponse::take()?;
    start_response.connect(exchange);
    ENVIRON.set(environ.as_ptr());
    let result = object::call(&mounted.callable, &[environ, start_response.object()]);
    ENVIRON.set(ptr::null_mut());
    let result = result?;
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
            Some(true) => Some(Outcome::Ended(Pieces::new(result, None, start_response, environ))),
            Some(false) => iterate(result, start_response, environ, exchange),
            None => close_after(&result, None),
        },
        Returned::Other => iterate(result, start_response, environ, exchange),
    }
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
    failure::log_of_request(&place(environ), &exception);
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
pub(crate) fn place(environ: &Owned) -> String {
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
