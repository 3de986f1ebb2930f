//! `start_response` and the `write` it returns (PEP 3333), which are one object: called with a single
//! argument it is `write`. That saves an object for each request.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use appserver_plugin_abi::{Bytes, Exchange, Taken};
use pyo3_ffi::{self as ffi, PyObject, PyType_Slot, PyType_Spec};

use crate::failure::{self, Kind, raise, refuse};
use crate::object::{self, Owned};
use crate::{head, host, pieces, wsgi};

static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// An object that no application has kept, for the next request.
static SPARE: AtomicPtr<PyObject> = AtomicPtr::new(ptr::null_mut());

/// The memory of the object.
#[repr(C)]
struct Layout {
    head: PyObject,
    /// Null when the request is not being worked on: a stale `start_response` does nothing.
    exchange: Exchange,
    started: bool,
    /// A piece of the body is out, and the head with it.
    sent: bool,
}

/// `start_response` for one request. Goes back to be used again when this is dropped.
pub(crate) struct StartResponse(Owned);

/// Makes the type. `None` with an exception set.
pub(crate) fn prepare() -> Option<()> {
    let mut slots = [
        PyType_Slot { slot: ffi::Py_tp_call, pfunc: called as *mut c_void },
        PyType_Slot { slot: ffi::Py_tp_dealloc, pfunc: dealloc as *mut c_void },
        PyType_Slot { slot: 0, pfunc: ptr::null_mut() },
    ];
    let mut spec = PyType_Spec {
        name: c"appserver.start_response".as_ptr(),
        basicsize: size_of::<Layout>() as i32,
        itemsize: 0,
        flags: ffi::Py_TPFLAGS_DEFAULT as u32,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the specification is read during the call; its name is static.
    let class = unsafe { Owned::new(ffi::PyType_FromSpec(&raw mut spec))? };
    TYPE.store(class.into_ptr().cast(), Ordering::Relaxed);
    head::prepare();
    Some(())
}

impl StartResponse {
    /// For a new request. `None` with an exception set.
    pub(crate) fn take() -> Option<Self> {
        let spare = SPARE.swap(ptr::null_mut(), Ordering::Relaxed);
        let object = match spare.is_null() {
            false => spare,
            // SAFETY: a type made from a specification without items of variable size.
            true => unsafe { ffi::PyType_GenericAlloc(TYPE.load(Ordering::Relaxed), 0) },
        };
        // SAFETY: new, or given up to the swap.
        let this = StartResponse(unsafe { Owned::new(object)? });
        let layout = this.layout();
        layout.exchange = ptr::null_mut();
        layout.started = false;
        layout.sent = false;
        Some(this)
    }

    /// The object to call the application with.
    pub(crate) fn object(&self) -> &Owned {
        &self.0
    }

    #[expect(clippy::mut_from_ref, reason = "shared with Python, and guarded by the GIL")]
    fn layout(&self) -> &mut Layout {
        // SAFETY: an object of our type; no other reference into it is held across calls.
        unsafe { &mut *self.0.as_ptr().cast() }
    }

    /// Connects it with the server's side of the request for one step; null disconnects.
    pub(crate) fn connect(&self, exchange: Exchange) {
        self.layout().exchange = exchange;
    }

    /// The application has called it.
    pub(crate) fn started(&self) -> bool {
        self.layout().started
    }

    /// From now on the head cannot be changed.
    pub(crate) fn set_sent(&self) {
        self.layout().sent = true;
    }
}

impl Drop for StartResponse {
    fn drop(&mut self) {
        self.connect(ptr::null_mut());
        // SAFETY: a live object.
        unsafe {
            if ffi::Py_REFCNT(self.0.as_ptr()) == 1 {
                ffi::Py_INCREF(self.0.as_ptr());
                drop(Owned::new(SPARE.swap(self.0.as_ptr(), Ordering::Relaxed)));
            }
        }
    }
}

unsafe extern "C" fn dealloc(object: *mut PyObject) {
    // SAFETY: the last reference is gone; heap types count their objects (PEP 442 aside).
    unsafe {
        let class = ffi::Py_TYPE(object);
        ffi::PyObject_Free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn called(
    object: *mut PyObject,
    arguments: *mut PyObject,
    keywords: *mut PyObject,
) -> *mut PyObject {
    // SAFETY: Python calls this with an object of our type, a tuple, and null or a dictionary.
    let result = unsafe {
        let layout: *mut Layout = object.cast();
        match ffi::PyTuple_Size(arguments) {
            1 if keywords.is_null() => write(layout, ffi::PyTuple_GetItem(arguments, 0)),
            count => start(layout, arguments, count, keywords),
        }
    };
    match result {
        Some(Returned::Write) => {
            // SAFETY: the object is alive.
            unsafe { ffi::Py_INCREF(object) };
            object
        }
        // SAFETY: None is always there.
        Some(Returned::Nothing) => unsafe {
            ffi::Py_INCREF(ffi::Py_None());
            ffi::Py_None()
        },
        None => ptr::null_mut(),
    }
}

enum Returned {
    Write,
    Nothing,
}

/// `start_response(status, headers, exc_info=None)`
///
/// # Safety
/// The arguments are those of `called`.
unsafe fn start(
    layout: *mut Layout,
    arguments: *mut PyObject,
    count: isize,
    keywords: *mut PyObject,
) -> Option<Returned> {
    if !(2..=3).contains(&count) {
        return refuse(Kind::Type, "start_response takes a status, a list of headers, and exc_info");
    }
    // SAFETY: the tuple has that many items and keeps them alive; the dictionary too.
    let (status, headers, exc_info) = unsafe {
        let exc_info = match (count, keywords.is_null()) {
            (3, _) => ffi::PyTuple_GetItem(arguments, 2),
            (_, false) => ffi::PyDict_GetItemString(keywords, c"exc_info".as_ptr()),
            _ => ptr::null_mut(),
        };
        (ffi::PyTuple_GetItem(arguments, 0), ffi::PyTuple_GetItem(arguments, 1), exc_info)
    };
    // SAFETY: an object of our type, which no Rust reference points into now.
    let (exchange, started, sent) = unsafe { ((*layout).exchange, (*layout).started, (*layout).sent) };
    // SAFETY: None is always there.
    let has_exc_info = !exc_info.is_null() && exc_info != unsafe { ffi::Py_None() };
    if exchange.is_null() {
        return refuse(Kind::Runtime, "start_response of a request that is over");
    }
    if has_exc_info && sent {
        // SAFETY: checked there.
        unsafe { raise_again(exc_info) };
        return None;
    }
    if started && !has_exc_info {
        return refuse(
            Kind::Assertion,
            "start_response was called before; exc_info is needed to do it again",
        );
    }
    // SAFETY: objects that the arguments keep alive.
    unsafe { head::announce(exchange, status, headers)? };
    let nodelay = wsgi::options().nodelay;
    // SAFETY: as above.
    unsafe {
        (*layout).started = true;
        (*layout).sent = nodelay;
    }
    if has_exc_info {
        // The client sees what the application makes of the error; this is for the operator.
        // SAFETY: as above.
        unsafe { raise_again(exc_info) };
        failure::log("start_response was given the error");
    }
    if nodelay {
        (host().flush)(exchange);
    }
    Some(Returned::Write)
}

/// Sets the exception of an `exc_info` triple anew.
///
/// # Safety
/// A live object.
unsafe fn raise_again(exc_info: *mut PyObject) {
    // SAFETY: items of a tuple of three, each with a reference for the interpreter to take.
    unsafe {
        if ffi::PyTuple_Check(exc_info) == 0 || ffi::PyTuple_Size(exc_info) != 3 {
            return raise(Kind::Type, "exc_info is a tuple of three");
        }
        let item = |index| {
            let item = ffi::PyTuple_GetItem(exc_info, index);
            ffi::Py_INCREF(item);
            item
        };
        ffi::PyErr_Restore(item(0), item(1), item(2));
    }
}

/// `write(data)`
///
/// # Safety
/// An object of our type and a live argument.
unsafe fn write(layout: *mut Layout, data: *mut PyObject) -> Option<Returned> {
    // SAFETY: no Rust reference points into the object now.
    let (exchange, started) = unsafe { ((*layout).exchange, (*layout).started) };
    if exchange.is_null() {
        return refuse(Kind::Runtime, "write() of a request that is over");
    }
    if !started {
        return refuse(Kind::Type, "start_response takes a status, a list of headers, and exc_info");
    }
    // SAFETY: a live object, of which this becomes a reference of its own.
    let data = pieces::octets(unsafe { Owned::borrowed(data)? }, "what write() is given")?;
    // SAFETY: a live bytes object.
    let content = unsafe { object::content(data.as_ptr()) };
    if content.is_empty() {
        return Some(Returned::Nothing);
    }
    // SAFETY: as above.
    unsafe { (*layout).sent = true };
    let mut taken = (host().piece)(exchange, Bytes::of(content), ptr::null_mut());
    if taken == Taken::Yes {
        taken = (host().flush)(exchange);
    }
    match taken {
        Taken::Yes => Some(Returned::Nothing),
        Taken::Gone => refuse(Kind::Os, "write error: the client is gone"),
        Taken::Refused => refuse(Kind::Assertion, "write() is given more than the Content-Length says"),
    }
}
