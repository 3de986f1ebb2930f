//! The server as a library, for the executable of an interpreter.
//!
//! A zygote that is to run code which an executable holds becomes that executable, with this library before all others
//! (`LD_PRELOAD`, ld.so(8)). The C runtime of a program calls `__libc_start_main` with the program's `main`
//! (Linux Standard Base, "libc - Base Interfaces"); here it gets ours instead, which runs the zygote. Nothing of the
//! interpreter has run by then, and it is started as it is from a shared library: by the plugin.
//!
//! In a process that no zygote has executed the program's own `main` runs, as if the library were not there. So it does
//! when the server asks an interpreter who it is.

use std::ffi::{c_char, c_int, c_void};
use std::sync::OnceLock;

type Texts = *mut *mut c_char;
type Main = extern "C" fn(c_int, Texts, Texts) -> c_int;
type Hook = *mut c_void;
/// That of [`__libc_start_main`].
type Start = unsafe extern "C" fn(Main, c_int, Texts, Hook, Hook, Hook, *mut c_void) -> c_int;

/// The program's own.
static MAIN: OnceLock<Main> = OnceLock::new();

/// Starts the program with our `main`.
///
/// # Safety
/// Only the C runtime calls it, once, with what it has prepared.
// SAFETY: it stands before the C library's function of this name, which it calls with the same arguments.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn __libc_start_main(
    main: Main,
    argc: c_int,
    argv: Texts,
    init: Hook,
    fini: Hook,
    rtld_fini: Hook,
    stack_end: *mut c_void,
) -> c_int {
    MAIN.get_or_init(|| main);
    // SAFETY: a C string.
    let next = unsafe { libc::dlsym(libc::RTLD_NEXT, c"__libc_start_main".as_ptr()) };
    assert!(!next.is_null(), "a dynamic program has a C library");
    // SAFETY: the function has had this type since the first C library of this name.
    let next = unsafe { std::mem::transmute::<*mut c_void, Start>(next) };
    // SAFETY: what the C runtime has passed, but for the `main`.
    unsafe { next(ours, argc, argv, init, fini, rtld_fini, stack_end) }
}

extern "C" fn ours(argc: c_int, argv: Texts, envp: Texts) -> c_int {
    if let Some(code) = appserver::run_as_guest(appserver::app::build) {
        return c_int::from(code);
    }
    let main = MAIN.get().expect("invariant: set before this is called");
    main(argc, argv, envp)
}
