//! Shared libraries that are loaded at run time, for good.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

/// Who sees the symbols of a library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Every library loaded later: extension modules of an interpreter are linked against nothing.
    Global,
    /// Only who asks for them.
    Local,
}

/// A loaded library. It is never unloaded: threads, exit handlers and tables point into it.
#[derive(Debug, Clone, Copy)]
pub struct Library(NonNull<c_void>);

impl Library {
    /// Loads the library at `path` with everything it depends on (dlopen(3), `RTLD_NOW`). Its
    /// initialisers run, so it must be one that this process is meant to have.
    ///
    /// # Errors
    /// What the dynamic loader says.
    pub fn open(path: &Path, visibility: Visibility) -> io::Result<Self> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        let scope = match visibility {
            Visibility::Global => libc::RTLD_GLOBAL,
            Visibility::Local => libc::RTLD_LOCAL,
        };
        // SAFETY: a C string; what the initialisers do is up to the library, as documented.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | scope) };
        NonNull::new(handle).map(Library).ok_or_else(last_error)
    }

    /// The address of a symbol.
    ///
    /// # Errors
    /// When the library has none of this name.
    pub fn symbol(self, name: &CStr) -> io::Result<NonNull<c_void>> {
        // SAFETY: a handle that is never closed, and a C string.
        NonNull::new(unsafe { libc::dlsym(self.0.as_ptr(), name.as_ptr()) }).ok_or_else(last_error)
    }
}

fn last_error() -> io::Error {
    // SAFETY: takes nothing; the text is valid until the next call on this thread.
    let text = unsafe { libc::dlerror() };
    match text.is_null() {
        true => io::Error::other("no reason given"),
        // SAFETY: a C string, as just checked.
        false => io::Error::other(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error =
            Library::open(Path::new("/nowhere/libnothing.so"), Visibility::Local).expect_err("missing");
        assert!(error.to_string().contains("/nowhere/libnothing.so"), "{error}");
    }

    #[test]
    fn symbols_are_found_by_name() {
        let library = Library::open(Path::new("libc.so.6"), Visibility::Local).expect("the C library");
        assert!(library.symbol(c"getpid").is_ok());
        assert!(library.symbol(c"no_such_function_anywhere").is_err());
    }
}
