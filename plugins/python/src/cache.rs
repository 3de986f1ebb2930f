//! `_appserver.cache`: the caches that all workers share, bytes in and out.

use std::ffi::c_void;

use appserver_plugin_abi::{Bytes, CacheCall, CacheWhat};
use pyo3_ffi::{self as ffi, PyObject};

use crate::failure::{Kind, raise};
use crate::host;
use crate::object::{self, Owned};

const WHAT: [CacheWhat; 10] = [
    CacheWhat::Get,
    CacheWhat::Set,
    CacheWhat::Update,
    CacheWhat::Delete,
    CacheWhat::Exists,
    CacheWhat::Clear,
    CacheWhat::Keys,
    CacheWhat::Add,
    CacheWhat::Multiply,
    CacheWhat::Divide,
];

/// `cache(what, cache, key, value, number, expires)`: the number of the answer, and a list of what was
/// given.
///
/// # Safety
/// Called by Python with a tuple of arguments.
pub(crate) unsafe extern "C" fn call(_module: *mut PyObject, arguments: *mut PyObject) -> *mut PyObject {
    answer(arguments).map_or(std::ptr::null_mut(), Owned::into_ptr)
}

extern "C" fn keep(context: *mut c_void, bytes: Bytes) {
    // SAFETY: the context is the vector in `answer`; the bytes are alive for the call.
    unsafe { (*context.cast::<Vec<Vec<u8>>>()).push(bytes.slice().to_vec()) }
}

/// `None` with an exception set.
fn answer(arguments: *mut PyObject) -> Option<Owned> {
    let what = usize::try_from(number(arguments, 0)?).ok().and_then(|index| WHAT.get(index));
    let Some(what) = what else {
        raise(Kind::Value, "the server's caches cannot do that");
        return None;
    };
    let Ok(expires) = u64::try_from(number(arguments, 5)?) else {
        raise(Kind::Value, "a value cannot expire in the past");
        return None;
    };
    let call = CacheCall {
        what: *what,
        cache: bytes(arguments, 1)?,
        key: bytes(arguments, 2)?,
        value: bytes(arguments, 3)?,
        number: number(arguments, 4)?,
        expires,
    };
    let mut given: Vec<Vec<u8>> = Vec::new();
    // SAFETY: this thread holds the GIL, lets others have it, and takes it back; the arguments are
    // bytes, which nobody changes, and the tuple keeps them alive.
    let answer = unsafe {
        let state = ffi::PyEval_SaveThread();
        let answer = (host().cache)(&raw const call, keep, (&raw mut given).cast());
        ffi::PyEval_RestoreThread(state);
        answer
    };
    // SAFETY: new references; PyList_Append and PyTuple_SetItem take or steal them as documented.
    unsafe {
        let list = Owned::new(ffi::PyList_New(0))?;
        for item in &given {
            let item = object::bytes(item)?;
            if ffi::PyList_Append(list.as_ptr(), item.as_ptr()) != 0 {
                return None;
            }
        }
        let pair = Owned::new(ffi::PyTuple_New(2))?;
        ffi::PyTuple_SetItem(pair.as_ptr(), 0, ffi::PyLong_FromLong(answer as std::ffi::c_long));
        ffi::PyTuple_SetItem(pair.as_ptr(), 1, list.into_ptr());
        Some(pair)
    }
}

fn number(arguments: *mut PyObject, index: isize) -> Option<i64> {
    // SAFETY: an argument tuple, which keeps its items alive; the GIL is held.
    unsafe {
        let item = ffi::PyTuple_GetItem(arguments, index);
        if item.is_null() {
            return None;
        }
        let number = ffi::PyLong_AsLongLong(item);
        if number == -1 && !ffi::PyErr_Occurred().is_null() { None } else { Some(number) }
    }
}

fn bytes(arguments: *mut PyObject, index: isize) -> Option<Bytes> {
    // SAFETY: as above.
    unsafe {
        let item = ffi::PyTuple_GetItem(arguments, index);
        if item.is_null() {
            return None;
        }
        if ffi::PyBytes_Check(item) == 0 {
            raise(Kind::Type, "bytes are expected");
            return None;
        }
        Some(Bytes::of(object::content(item)))
    }
}
