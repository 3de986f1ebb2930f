//! Python objects with an owner, and the few conversions that are needed everywhere.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

use appserver_plugin_abi::{Bytes, Report};
use pyo3_ffi::{self as ffi, Py_ssize_t, PyObject};

// SAFETY: declared as in unicodeobject.h, the same in every version.
unsafe extern "C" {
    // In every libpython from 3.3 on, but part of the limited API only since 3.10.
    fn PyUnicode_AsUTF8AndSize(text: *mut PyObject, size: *mut Py_ssize_t) -> *const c_char;
}

/// A reference that is given up when this is dropped. The GIL must be held then.
pub(crate) struct Owned(NonNull<PyObject>);

impl Owned {
    /// Takes over a new reference; `None` for null, which means that a Python exception is set.
    ///
    /// # Safety
    /// `object` is null or a reference that nobody else will give up.
    pub(crate) unsafe fn new(object: *mut PyObject) -> Option<Self> {
        NonNull::new(object).map(Owned)
    }

    /// Makes a reference of its own to an object that somebody else holds.
    ///
    /// # Safety
    /// `object` is null or alive, and the GIL is held.
    pub(crate) unsafe fn borrowed(object: *mut PyObject) -> Option<Self> {
        // SAFETY: as the caller promises; null is allowed.
        unsafe { ffi::Py_XINCREF(object) };
        NonNull::new(object).map(Owned)
    }

    /// A second reference to it. The GIL must be held.
    pub(crate) fn another(&self) -> Self {
        // SAFETY: a live object.
        unsafe { ffi::Py_INCREF(self.0.as_ptr()) };
        Owned(self.0)
    }

    /// Its type.
    pub(crate) fn class(&self) -> *mut ffi::PyTypeObject {
        // SAFETY: a live object, which keeps its type alive.
        unsafe { ffi::Py_TYPE(self.0.as_ptr()) }
    }

    /// The name of its type, to be shown.
    pub(crate) fn class_name(&self) -> String {
        // SAFETY: a live type, and a `str` that is alive until the return.
        unsafe {
            let class = self.class().cast::<PyObject>();
            let name = Owned::new(ffi::PyObject_GetAttrString(class, c"__name__".as_ptr()));
            let text = name.as_ref().and_then(|name| utf8(name.as_ptr()));
            text.map_or_else(|| "an object".to_owned(), |text| String::from_utf8_lossy(text).into_owned())
        }
    }

    /// The object, still owned by this.
    pub(crate) fn as_ptr(&self) -> *mut PyObject {
        self.0.as_ptr()
    }

    /// The object; the caller owns the reference from here on.
    pub(crate) fn into_ptr(self) -> *mut PyObject {
        std::mem::ManuallyDrop::new(self).0.as_ptr()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: the reference is ours; the GIL is held wherever objects are handled.
        unsafe { ffi::Py_DECREF(self.0.as_ptr()) }
    }
}

/// A `str` of one character per byte, as PEP 3333 wants its texts.
pub(crate) fn latin1(bytes: &[u8]) -> Option<Owned> {
    // SAFETY: pointer and length are those of a slice; the result is new.
    unsafe {
        Owned::new(ffi::PyUnicode_DecodeLatin1(
            bytes.as_ptr().cast(),
            bytes.len().cast_signed(),
            std::ptr::null(),
        ))
    }
}

/// A `str` of UTF-8 text.
pub(crate) fn text(text: &str) -> Option<Owned> {
    // SAFETY: pointer and length are those of a slice; the result is new.
    unsafe { Owned::new(ffi::PyUnicode_FromStringAndSize(text.as_ptr().cast(), text.len().cast_signed())) }
}

/// A `bytes` object.
pub(crate) fn bytes(bytes: &[u8]) -> Option<Owned> {
    // SAFETY: pointer and length are those of a slice; the result is new.
    unsafe { Owned::new(ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), bytes.len().cast_signed())) }
}

/// A text that is used as a key again and again.
pub(crate) fn interned(name: &CStr) -> Option<Owned> {
    // SAFETY: a C string; the result is new.
    unsafe { Owned::new(ffi::PyUnicode_InternFromString(name.as_ptr())) }
}

/// The UTF-8 form of a `str`, which Python keeps as long as the object; `None` with an exception set
/// if it has none.
///
/// # Safety
/// `object` is a `str` that outlives the result, and the GIL is held.
pub(crate) unsafe fn utf8<'a>(object: *mut PyObject) -> Option<&'a [u8]> {
    let mut length = 0;
    // SAFETY: a `str`, as the caller promises; `length` is valid for the call.
    let pointer = unsafe { PyUnicode_AsUTF8AndSize(object, &raw mut length) };
    if pointer.is_null() {
        return None;
    }
    // SAFETY: Python says so, and the object lives on.
    Some(unsafe { std::slice::from_raw_parts(pointer.cast(), length.cast_unsigned()) })
}

/// The content of a `bytes` object.
///
/// # Safety
/// `object` is a `bytes` object that outlives the result.
pub(crate) unsafe fn content<'a>(object: *mut PyObject) -> &'a [u8] {
    // SAFETY: a `bytes` object, as the caller promises.
    unsafe {
        let length = ffi::PyBytes_Size(object);
        std::slice::from_raw_parts(ffi::PyBytes_AsString(object).cast(), length.cast_unsigned())
    }
}

/// An attribute; `None` with an exception set if there is none.
pub(crate) fn attribute(object: &Owned, name: &CStr) -> Option<Owned> {
    // SAFETY: a live object and a C string; the result is new.
    unsafe { Owned::new(ffi::PyObject_GetAttrString(object.as_ptr(), name.as_ptr())) }
}

/// Calls `function` with up to three arguments; `None` with an exception set if it raises.
pub(crate) fn call(function: &Owned, arguments: &[&Owned]) -> Option<Owned> {
    let argument = |index: usize| arguments.get(index).map_or(std::ptr::null_mut(), |it| it.as_ptr());
    debug_assert!(arguments.len() <= 3);
    // SAFETY: live objects, ended by a null.
    unsafe {
        Owned::new(ffi::PyObject_CallFunctionObjArgs(
            function.as_ptr(),
            argument(0),
            argument(1),
            argument(2),
            std::ptr::null_mut::<PyObject>(),
        ))
    }
}

/// True if `dictionary` has an item `name` with the value True.
pub(crate) fn is_true_item(dictionary: &Owned, name: &CStr) -> bool {
    // SAFETY: a live dictionary and a C string; the item is borrowed and only compared.
    unsafe { ffi::PyDict_GetItemString(dictionary.as_ptr(), name.as_ptr()) == ffi::Py_True() }
}

/// True if `dictionary` has an item `name`.
pub(crate) fn has_item(dictionary: &Owned, name: &CStr) -> bool {
    // SAFETY: a live dictionary and a C string; the item is borrowed and not used.
    unsafe { !ffi::PyDict_GetItemString(dictionary.as_ptr(), name.as_ptr()).is_null() }
}

/// Where a message for the operator goes.
#[derive(Clone, Copy)]
pub(crate) struct Reporter {
    pub(crate) report: Report,
    pub(crate) context: *mut std::ffi::c_void,
}

impl Reporter {
    pub(crate) fn say(self, message: &str) {
        (self.report)(self.context, Bytes::of(message.as_bytes()));
    }
}
