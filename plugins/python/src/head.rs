//! Status and headers of a response, checked while the application can still hear of it.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use appserver_plugin_abi::{Bytes, Exchange, Field, Taken};
use pyo3_ffi::{self as ffi, PyObject};

use crate::failure::{Kind, refuse};
use crate::host;
use crate::object::{self, Owned};

/// Room for the fields of a response, while no call uses it.
static FIELDS: AtomicPtr<Vec<Field>> = AtomicPtr::new(ptr::null_mut());

/// Makes the room.
pub(crate) fn prepare() {
    FIELDS.store(Box::into_raw(Box::default()), Ordering::Relaxed);
}

/// Tells the server the head of the response. `None` with an exception set.
///
/// # Safety
/// Live objects; the exchange is that of the step at hand.
pub(crate) unsafe fn announce(
    exchange: Exchange,
    status: *mut PyObject,
    headers: *mut PyObject,
) -> Option<()> {
    // SAFETY: live objects, here and below; items of lists and tuples are borrowed from them.
    unsafe {
        if ffi::PyUnicode_Check(status) == 0 {
            return refuse(Kind::Type, "the status is not a str");
        }
        if ffi::PyList_Check(headers) == 0 {
            return refuse(Kind::Type, "the headers are not a list");
        }
    }
    let mut kept = Vec::new();
    // SAFETY: the status is alive.
    let line = unsafe { octets(status, &mut kept)? };
    let Some((number, reason)) = status_of(line) else {
        let shown = String::from_utf8_lossy(line);
        return refuse(
            Kind::Value,
            &format!("the status {shown:?} is not a number from 200 to 999, a blank and a reason"),
        );
    };
    let mut room = Room::take();
    let fields = &mut room.0;
    // SAFETY: live objects.
    for index in 0..unsafe { ffi::PyList_Size(headers) } {
        // SAFETY: within the list and the tuple; both keep their items alive.
        let (name, value) = unsafe {
            let item = ffi::PyList_GetItem(headers, index);
            if ffi::PyTuple_Check(item) == 0 || ffi::PyTuple_Size(item) != 2 {
                return refuse(Kind::Type, "a header is not a tuple of name and value");
            }
            let (name, value) = (ffi::PyTuple_GetItem(item, 0), ffi::PyTuple_GetItem(item, 1));
            if ffi::PyUnicode_Check(name) == 0 || ffi::PyUnicode_Check(value) == 0 {
                return refuse(Kind::Type, "name and value of a header are not both str");
            }
            (octets(name, &mut kept)?, octets(value, &mut kept)?)
        };
        fields.push(Field { name: Bytes::of(name), value: Bytes::of(value) });
    }
    let taken = (host().head)(exchange, number, Bytes::of(reason), fields.as_ptr(), fields.len());
    match taken {
        Taken::Yes | Taken::Gone => Some(()),
        Taken::Refused => refuse(Kind::Value, &what_is_wrong(line, fields)),
    }
}

/// The room for fields, taken away from others: an error may collect garbage, which may let another thread
/// run.
struct Room(Vec<Field>);

impl Room {
    fn take() -> Self {
        // SAFETY: made by `prepare`; the GIL is held, and nothing else has a reference into it.
        Room(std::mem::take(unsafe { &mut *FIELDS.load(Ordering::Relaxed) }))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.clear();
        // SAFETY: as above. What another thread has left there is freed.
        unsafe { *FIELDS.load(Ordering::Relaxed) = std::mem::take(&mut self.0) }
    }
}

/// Number and reason of a status line as PEP 3333 wants it, or of its number alone.
fn status_of(line: &[u8]) -> Option<(u16, &[u8])> {
    let (code, reason) = line.split_at_checked(3)?;
    let digit = |index: usize| code[index].is_ascii_digit().then(|| u16::from(code[index] - b'0'));
    let number = digit(0)? * 100 + digit(1)? * 10 + digit(2)?;
    // Interim answers are the server's.
    let is_final = number >= 200;
    (is_final && matches!(reason.first(), None | Some(b' '))).then(|| (number, reason.trim_ascii()))
}

/// Why the server refuses a head.
fn what_is_wrong(line: &[u8], fields: &[Field]) -> String {
    // RFC 9110 §5.5; bytes above ASCII are allowed in values.
    let is_control = |byte: &u8| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f;
    if line.iter().any(is_control) {
        return format!("the status {:?} has control characters", String::from_utf8_lossy(line));
    }
    // RFC 9110 §5.6.2
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let mut lengths = Vec::new();
    for field in fields {
        // SAFETY: the texts are alive as long as the list of headers.
        let (name, value) = unsafe { (field.name.slice(), field.value.slice()) };
        let shown = format!("{:?}: {:?}", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
        if name.is_empty() || !name.iter().all(is_token) {
            return format!("the name of the header {shown} is not valid in HTTP");
        }
        if value.iter().any(is_control) {
            return format!("the value of the header {shown} has control characters");
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            lengths.push(shown);
        }
    }
    match lengths.is_empty() {
        true => format!("these {} headers are too many", fields.len()),
        false => format!("this is no length, or not the only one: {}", lengths.join(", ")),
    }
}

/// The text as one byte per character. `kept` holds what had to be made for it.
///
/// # Safety
/// A live `str`, which lives as long as the result, and so does `kept`.
unsafe fn octets<'a>(text: *mut PyObject, kept: &mut Vec<Owned>) -> Option<&'a [u8]> {
    // SAFETY: as the caller promises.
    if let Some(utf8) = unsafe { object::utf8(text) }
        && utf8.is_ascii()
    {
        return Some(utf8);
    }
    // SAFETY: a live `str`; the result is new, and kept.
    unsafe {
        ffi::PyErr_Clear();
        let encoded = Owned::new(ffi::PyUnicode_AsLatin1String(text))?;
        let octets = object::content(encoded.as_ptr());
        kept.push(encoded);
        Some(octets)
    }
}
