//! `_appserver`: what the Python side of the plugin can ask of the server.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use appserver_plugin_abi::{Bytes, Level, LockCall};
use pyo3_ffi::{self as ffi, PyMethodDef, PyMethodDefPointer, PyObject};

use crate::failure::{Kind, raise};
use crate::object::{self, Owned};
use crate::{app, cache, host, wsgi};

/// The Python modules that are part of the plugin.
const SOURCES: [(&str, &str); 12] = [
    ("uwsgi", include_str!("py/uwsgi.py")),
    ("uwsgidecorators", include_str!("py/uwsgidecorators.py")),
    ("_appserver_ask", include_str!("py/ask.py")),
    ("_appserver_autoreload", include_str!("py/autoreload.py")),
    ("_appserver_cache", include_str!("py/cache.py")),
    ("_appserver_loading", include_str!("py/loading.py")),
    ("_appserver_locks", include_str!("py/locks.py")),
    ("_appserver_missing", include_str!("py/missing.py")),
    ("_appserver_report", include_str!("py/report.py")),
    ("_appserver_request", include_str!("py/request.py")),
    ("_appserver_rpc", include_str!("py/rpc.py")),
    ("_appserver_signals", include_str!("py/signals.py")),
];

/// The method table; Python keeps pointers into it.
static METHODS: AtomicPtr<[PyMethodDef; 10]> = AtomicPtr::new(std::ptr::null_mut());

/// The dictionary of the module `uwsgi`.
static UWSGI: AtomicPtr<Owned> = AtomicPtr::new(std::ptr::null_mut());

/// The number of this worker; 0 in the zygote.
static WORKER: AtomicU32 = AtomicU32::new(0);

pub(crate) fn set_worker(number: u32) {
    WORKER.store(number, Ordering::Relaxed);
}

/// Remembers the module `uwsgi`. None with an exception set if it cannot be imported.
pub(crate) fn find_uwsgi() -> Option<()> {
    // SAFETY: a C string; the result is new.
    let module = unsafe { Owned::new(ffi::PyImport_ImportModule(c"uwsgi".as_ptr()))? };
    let dictionary = object::attribute(&module, c"__dict__")?;
    UWSGI.store(Box::into_raw(Box::new(dictionary)), Ordering::Relaxed);
    Some(())
}

/// The dictionary of the module `uwsgi`.
pub(crate) fn uwsgi() -> &'static Owned {
    // SAFETY: set once, from a leaked box.
    unsafe { UWSGI.load(Ordering::Relaxed).as_ref() }.expect("invariant: found first")
}

type Function = unsafe extern "C" fn(*mut PyObject, *mut PyObject) -> *mut PyObject;

fn method(name: &'static CStr, function: Function, flags: i32) -> PyMethodDef {
    PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: PyMethodDefPointer { PyCFunction: function },
        ml_flags: flags,
        ml_doc: std::ptr::null(),
    }
}

/// Makes the module importable.
pub(crate) fn install() -> Option<()> {
    let methods = Box::into_raw(Box::new([
        method(c"source", source, ffi::METH_O),
        method(c"log", log, ffi::METH_VARARGS),
        method(c"ask", ask, ffi::METH_VARARGS),
        method(c"cache", cache::call, ffi::METH_VARARGS),
        method(c"lock", lock, ffi::METH_VARARGS),
        method(c"environ", environ, ffi::METH_NOARGS),
        method(c"want_after_request", want_after_request, ffi::METH_O),
        method(c"want_start", want_start, ffi::METH_NOARGS),
        method(c"worker_id", worker_id, ffi::METH_NOARGS),
        PyMethodDef::zeroed(),
    ]));
    METHODS.store(methods, Ordering::Relaxed);
    // SAFETY: the table is leaked and ends with a zeroed entry; the dictionary is borrowed.
    unsafe {
        let module = Owned::new(ffi::PyModule_New(c"_appserver".as_ptr()))?;
        if ffi::PyModule_AddFunctions(module.as_ptr(), methods.cast()) != 0 {
            return None;
        }
        let modules = ffi::PyImport_GetModuleDict();
        (ffi::PyDict_SetItemString(modules, c"_appserver".as_ptr(), module.as_ptr()) == 0).then_some(())
    }
}

fn none() -> *mut PyObject {
    // SAFETY: None is always there.
    unsafe {
        ffi::Py_INCREF(ffi::Py_None());
        ffi::Py_None()
    }
}

/// The text of argument `index`, which must be a `str`; `None` with an exception set.
fn text_argument<'a>(arguments: *mut PyObject, index: isize) -> Option<&'a [u8]> {
    // SAFETY: called with an argument tuple, which keeps its items alive for the call.
    unsafe {
        let item = ffi::PyTuple_GetItem(arguments, index);
        if item.is_null() {
            return None;
        }
        if ffi::PyUnicode_Check(item) == 0 {
            raise(Kind::Type, "a str is expected");
            return None;
        }
        object::utf8(item)
    }
}

/// `source(name)`: the source of a module of the plugin, or None.
unsafe extern "C" fn source(_module: *mut PyObject, name: *mut PyObject) -> *mut PyObject {
    // SAFETY: an argument that is alive for the call.
    let name = unsafe { if ffi::PyUnicode_Check(name) == 0 { None } else { object::utf8(name) } };
    let found = SOURCES.iter().find(|(known, _)| name == Some(known.as_bytes()));
    match found {
        Some((_, source)) => object::text(source).map_or(std::ptr::null_mut(), Owned::into_ptr),
        None => {
            // SAFETY: the GIL is held.
            unsafe { ffi::PyErr_Clear() };
            none()
        }
    }
}

/// `log(level, text)`
unsafe extern "C" fn log(_module: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    let (Some(level), Some(text)) = (text_argument(arguments, 0), text_argument(arguments, 1)) else {
        return std::ptr::null_mut();
    };
    let level = match level {
        b"error" => Level::Error,
        b"warning" => Level::Warning,
        _ => Level::Info,
    };
    (host().log)(level, Bytes::of(text));
    none()
}

/// `ask(name, argument)`: a question to the server and its answer, both as JSON.
unsafe extern "C" fn ask(_module: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    extern "C" fn keep(context: *mut c_void, text: Bytes) {
        // SAFETY: the context is the vector below; the text is alive for the call.
        unsafe { (*context.cast::<Vec<u8>>()).extend_from_slice(text.slice()) }
    }
    let (Some(name), Some(argument)) = (text_argument(arguments, 0), text_argument(arguments, 1)) else {
        return std::ptr::null_mut();
    };
    let mut answer: Vec<u8> = Vec::new();
    (host().ask)(wsgi::exchange(), Bytes::of(name), Bytes::of(argument), keep, (&raw mut answer).cast());
    object::text(&String::from_utf8_lossy(&answer)).map_or(std::ptr::null_mut(), Owned::into_ptr)
}

/// `lock(what, index)`: a lock that all workers share; the answer is the number of its variant.
unsafe extern "C" fn lock(_module: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    // SAFETY: called with an argument tuple, which keeps its items alive for the call.
    let number = |index| unsafe {
        let item = ffi::PyTuple_GetItem(arguments, index);
        if item.is_null() { -1 } else { ffi::PyLong_AsLong(item) }
    };
    let (what, index) = (number(0), number(1));
    // SAFETY: the GIL is held.
    if unsafe { !ffi::PyErr_Occurred().is_null() } {
        return std::ptr::null_mut();
    }
    let what = match what {
        0 => LockCall::Take,
        1 => LockCall::GiveBack,
        _ => LockCall::Look,
    };
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    // SAFETY: this thread holds the GIL, lets others have it while it waits, and takes it back.
    unsafe {
        let state = ffi::PyEval_SaveThread();
        let answer = (host().lock)(what, index);
        ffi::PyEval_RestoreThread(state);
        ffi::PyLong_FromLong(answer as std::ffi::c_long)
    }
}

/// `environ()`: that of the request this thread works on, or None.
unsafe extern "C" fn environ(_module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    wsgi::environ().map_or_else(none, Owned::into_ptr)
}

/// `want_after_request(bool)`: whether the application has a hook for the end of requests.
unsafe extern "C" fn want_after_request(_module: *mut PyObject, wanted: *mut PyObject) -> *mut PyObject {
    // SAFETY: an argument that is alive for the call.
    app::want_after_request(unsafe { ffi::PyObject_IsTrue(wanted) } == 1);
    none()
}

/// `want_start()`: `worker_started` is to be called, whatever hooks there are.
unsafe extern "C" fn want_start(_module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    app::want_start();
    none()
}

/// `worker_id()`: the number of this worker; 0 while the application is loaded.
unsafe extern "C" fn worker_id(_module: *mut PyObject, _: *mut PyObject) -> *mut PyObject {
    // SAFETY: the GIL is held; the result is new.
    unsafe { ffi::PyLong_FromUnsignedLong(WORKER.load(Ordering::Relaxed).into()) }
}
