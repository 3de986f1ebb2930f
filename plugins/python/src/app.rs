//! The applications: loaded once, kept for the life of the process.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use appserver_plugin_abi::Report;
use pyo3_ffi as ffi;

use crate::object::{self, Owned, Reporter};
use crate::{environ, failure, module, runtime, start_response, wsgi};

const BOOTSTRAP: &CStr = c"_appserver_bootstrap";

/// Functions of `py/bootstrap.py`.
#[derive(Clone, Copy)]
pub(crate) enum Helper {
    Prepare,
    Load,
    WorkerStarted,
    Stop,
    LogException,
    NoteException,
    Summary,
    EnvironTemplate,
    FileWrapper,
    FileRange,
    ExceptionPage,
    Imports,
    NameThread,
    Signal,
    AfterRequest,
    MayFork,
    Settle,
}

const HELPERS: [(Helper, &CStr); 17] = [
    (Helper::Prepare, c"prepare"),
    (Helper::Load, c"load"),
    (Helper::WorkerStarted, c"worker_started"),
    (Helper::Stop, c"stop"),
    (Helper::LogException, c"log_exception"),
    (Helper::NoteException, c"note_exception"),
    (Helper::Summary, c"summary"),
    (Helper::EnvironTemplate, c"environ_template"),
    (Helper::FileWrapper, c"FileWrapper"),
    (Helper::FileRange, c"file_range"),
    (Helper::ExceptionPage, c"exception_page"),
    (Helper::Imports, c"imports"),
    (Helper::NameThread, c"name_thread"),
    (Helper::Signal, c"handle_signal"),
    (Helper::AfterRequest, c"after_request"),
    (Helper::MayFork, c"may_fork"),
    (Helper::Settle, c"settle"),
];

static TABLE: AtomicPtr<Vec<Owned>> = AtomicPtr::new(std::ptr::null_mut());
static APPS: AtomicPtr<Vec<Mounted>> = AtomicPtr::new(std::ptr::null_mut());

/// An application and where it is mounted.
pub(crate) struct Mounted {
    /// The path prefix, as the client sends it once decoded; empty for the default application.
    pub(crate) prefix: Vec<u8>,
    pub(crate) callable: Owned,
}

/// A function of the bootstrap module.
pub(crate) fn helper(which: Helper) -> &'static Owned {
    // SAFETY: set once, from a leaked box, by `prepare`, before anything that can fail in Python.
    let table = unsafe { TABLE.load(Ordering::Relaxed).as_ref() };
    &table.expect("invariant: prepared first")[which as usize]
}

/// The loaded applications; the one to fall back on first, if there is one.
pub(crate) fn mounted() -> &'static [Mounted] {
    // SAFETY: set from a leaked box that is never freed.
    unsafe { APPS.load(Ordering::Relaxed).as_ref() }.map_or(&[], Vec::as_slice)
}

/// Makes the server's modules and everything a request needs. False with an exception set.
pub(crate) fn prepare(settings: &str) -> bool {
    let prepare = || {
        module::install()?;
        let bootstrap = module_of_source(BOOTSTRAP, include_str!("py/bootstrap.py"))?;
        let functions: Option<Vec<Owned>> =
            HELPERS.iter().map(|(_, name)| object::attribute(&bootstrap, name)).collect();
        TABLE.store(Box::into_raw(Box::new(functions?)), Ordering::Relaxed);
        object::call(helper(Helper::Prepare), &[&object::text(settings)?])?;
        module::find_uwsgi()?;
        start_response::prepare()?;
        let settings = object::attribute(&bootstrap, c"settings")?;
        wsgi::prepare(&settings)?;
        environ::prepare(&settings)
    };
    prepare().is_some()
}

fn module_of_source(name: &CStr, source: &str) -> Option<Owned> {
    let source = CString::new(source).expect("invariant: our own text, without NULs");
    // SAFETY: C strings; the results are new references.
    unsafe {
        let code = Owned::new(ffi::Py_CompileString(
            source.as_ptr(),
            c"<appserver>/bootstrap.py".as_ptr(),
            ffi::Py_file_input,
        ))?;
        Owned::new(ffi::PyImport_ExecCodeModule(name.as_ptr(), code.as_ptr()))
    }
}

pub(crate) extern "C" fn load(report: Report, context: *mut c_void) -> bool {
    runtime::acquire();
    let load = || {
        object::call(helper(Helper::Imports), &[])?;
        // What the imports did to it with putenv(3), os.environ does not know.
        let list = object::call(helper(Helper::Load), &[&environment()?])?;
        table_of(&list)
    };
    match load() {
        Some(apps) if apps.is_empty() => {
            Reporter { report, context }.say("no Python application is named");
            false
        }
        Some(apps) => {
            APPS.store(Box::into_raw(Box::new(apps)), Ordering::Relaxed);
            true
        }
        None => {
            Reporter { report, context }.say(&failure::take_summary());
            false
        }
    }
}

/// The environment of the process as it is now: a dictionary of bytes.
fn environment() -> Option<Owned> {
    // SAFETY: the result is new.
    let dictionary = unsafe { Owned::new(ffi::PyDict_New())? };
    for (name, value) in std::env::vars_os() {
        let (name, value) = (object::bytes(name.as_bytes())?, object::bytes(value.as_bytes())?);
        // SAFETY: live objects.
        let set = unsafe { ffi::PyDict_SetItem(dictionary.as_ptr(), name.as_ptr(), value.as_ptr()) };
        if set != 0 {
            return None;
        }
    }
    Some(dictionary)
}

fn table_of(list: &Owned) -> Option<Vec<Mounted>> {
    // SAFETY: the helper returns a list of pairs of a `str` and an object; items are borrowed from it.
    unsafe {
        (0..ffi::PyList_Size(list.as_ptr()))
            .map(|index| {
                let pair = ffi::PyList_GetItem(list.as_ptr(), index);
                let prefix = object::utf8(ffi::PyTuple_GetItem(pair, 0))?.to_vec();
                let callable = Owned::borrowed(ffi::PyTuple_GetItem(pair, 1))?;
                Some(Mounted { prefix, callable })
            })
            .collect()
    }
}

/// Runs Python only where there is something to do: whatever it touches becomes memory of this
/// worker's own, tens of pages for a function of three lines.
pub(crate) extern "C" fn worker_started(worker: u32, report: Report, context: *mut c_void) -> bool {
    module::set_worker(worker);
    let uwsgi = module::uwsgi();
    if !WANTS_START.load(Ordering::Relaxed) && !object::has_item(uwsgi, c"post_fork_hook") {
        want_after_request(object::has_item(uwsgi, c"after_req_hook"));
        return true;
    }
    let started = object::call(helper(Helper::WorkerStarted), &[]).is_some();
    if !started {
        Reporter { report, context }.say(&failure::take_summary());
    }
    started
}

/// Something in Python waits for the start of each worker.
static WANTS_START: AtomicBool = AtomicBool::new(false);

pub(crate) fn want_start() {
    WANTS_START.store(true, Ordering::Relaxed);
}

/// Calls the application's function for a signal.
pub(crate) extern "C" fn signal(number: u8) {
    // SAFETY: the GIL is held; the result is new.
    let argument = unsafe { Owned::new(ffi::PyLong_FromLong(number.into())) };
    if argument.and_then(|argument| object::call(helper(Helper::Signal), &[&argument])).is_none() {
        failure::log(&format!("the function for signal {number}"));
    }
}

/// The application has a hook for the end of requests.
static WANTS_AFTER_REQUEST: AtomicBool = AtomicBool::new(false);

pub(crate) fn want_after_request(wanted: bool) {
    WANTS_AFTER_REQUEST.store(wanted, Ordering::Relaxed);
}

/// A request has come to its end.
pub(crate) fn after_request() {
    if WANTS_AFTER_REQUEST.load(Ordering::Relaxed)
        && object::call(helper(Helper::AfterRequest), &[]).is_none()
    {
        failure::log("uwsgi.after_req_hook");
    }
}

/// Gives an application thread its name.
pub(crate) fn name_thread(core: u32) {
    // SAFETY: the GIL is held; the result is new.
    let core = unsafe { Owned::new(ffi::PyLong_FromLong(core.into())) };
    if core.and_then(|core| object::call(helper(Helper::NameThread), &[&core])).is_none() {
        failure::log("the name of a thread");
    }
}

pub(crate) extern "C" fn stop() {
    if object::call(helper(Helper::Stop), &[]).is_none() {
        failure::log("at the exit of the worker");
    }
}

pub(crate) extern "C" fn may_fork(server_threads: u32, report: Report, context: *mut c_void) -> bool {
    // SAFETY: the GIL is held; the result is new.
    let argument = unsafe { Owned::new(ffi::PyLong_FromUnsignedLong(server_threads.into())) };
    let may = argument.and_then(|argument| object::call(helper(Helper::MayFork), &[&argument])).is_some();
    if !may {
        Reporter { report, context }.say(&failure::take_summary());
    }
    may
}

pub(crate) extern "C" fn settle(report: Report, context: *mut c_void) -> bool {
    if object::call(helper(Helper::Settle), &[]).is_none() {
        Reporter { report, context }.say(&failure::take_summary());
        return false;
    }
    module::set_worker(0);
    runtime::refill_pools();
    true
}
