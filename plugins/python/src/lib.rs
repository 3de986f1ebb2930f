//! Python applications in appserver.
//!
//! A shared library that the server loads after the interpreter's own (`libpython3.x.so`), so that
//! one build serves every Python from 3.9 on and the server links none. `abi` is the border.
//!
//! `runtime` starts the interpreter and takes it through forks, `app` finds and keeps the
//! applications, `environ` is what they are called with, `start_response` what they call with a
//! `head`, `wsgi` the call itself, `pieces` the iteration of what it returns, `module` what
//! the `uwsgi` module can ask of the server. What need not be fast is Python, in `py/`.
//!
//! The C API is called by hand: with cached keys and values that costs a third of a safe wrapper
//! under the stable ABI. Every function that touches an object needs the GIL; the border says who
//! holds it when.

use std::ffi::c_void;
use std::sync::OnceLock;

use appserver_plugin_abi::{self as abi, Host, Plugin};

mod app;
mod cache;
mod environ;
mod failure;
mod head;
mod module;
mod object;
mod pieces;
mod pools;
mod runtime;
mod start_response;
mod wsgi;

static HOST: OnceLock<&'static Host> = OnceLock::new();

/// The server's functions.
fn host() -> &'static Host {
    HOST.get().expect("invariant: set by the entry, before anything else is called")
}

static PLUGIN: Plugin = Plugin {
    version: abi::VERSION,
    init: runtime::init,
    load: app::load,
    before_fork: runtime::before_fork,
    after_fork: runtime::after_fork,
    worker_started: app::worker_started,
    thread_started: runtime::thread_started,
    acquire: runtime::acquire,
    release: runtime::release,
    call: wsgi::call,
    next: pieces::next,
    close: pieces::close,
    release_bytes,
    signal: app::signal,
    stop: app::stop,
    thread_stopped: runtime::thread_stopped,
    may_fork: app::may_fork,
    settle: app::settle,
};

/// What the server looks up: takes its functions, returns the plugin's.
///
/// # Safety
/// `host` must be null or point to the server's table, which lives as long as the process.
// SAFETY: no other symbol of this name exists; the server asks for exactly this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn appserver_plugin(host: *const Host) -> *const Plugin {
    // SAFETY: as the caller promises.
    let Some(host) = (unsafe { host.as_ref() }) else { return std::ptr::null() };
    if host.version != abi::VERSION {
        return std::ptr::null();
    }
    HOST.get_or_init(|| host);
    &raw const PLUGIN
}

/// Lets go of an object whose bytes the server has sent.
extern "C" fn release_bytes(owner: *mut c_void) {
    // SAFETY: the object that `wsgi` gave away with a reference of its own; the GIL is held.
    unsafe { pyo3_ffi::Py_DecRef(owner.cast()) }
}
