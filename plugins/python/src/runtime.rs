//! The interpreter: its start, its lock, and its way through a fork.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

use appserver_plugin_abi::{Bytes, Report, Side};
use pyo3_ffi as ffi;

use crate::object::Reporter;
use crate::{app, failure, pools};

/// `PyStatus` of initconfig(3): the same in all versions, though not part of the stable ABI.
#[repr(C)]
struct Status {
    kind: c_int,
    function: *const c_char,
    message: *const c_char,
    exit_code: c_int,
}

/// Room for a `PyConfig`. Its layout differs from version to version and is not looked at; it has had
/// less than 500 bytes in all of them.
const CONFIG_BYTES: usize = 8192;

#[repr(C, align(16))]
struct Config([u8; CONFIG_BYTES]);

// SAFETY: declared as in initconfig.h and osmodule.h, the same in every version from 3.8 on, but for `PyConfig`,
// which is only ever passed by address.
unsafe extern "C" {
    fn PyConfig_InitPythonConfig(config: *mut Config);
    fn PyConfig_SetBytesArgv(config: *mut Config, count: isize, arguments: *const *const c_char) -> Status;
    fn Py_InitializeFromConfig(config: *const Config) -> Status;
    fn PyConfig_Clear(config: *mut Config);
    fn PyStatus_Exception(status: Status) -> c_int;
    fn PyOS_BeforeFork();
    fn PyOS_AfterFork_Parent();
    fn PyOS_AfterFork_Child();
}

/// The allocator is as it should be before a fork.
static FILLED: AtomicBool = AtomicBool::new(false);

/// This process has allocated much since its last fork, and is about to be forked again.
pub(crate) fn refill_pools() {
    FILLED.store(false, Ordering::Relaxed);
}

/// The thread state of the main thread while it does not hold the GIL.
static MAIN: AtomicPtr<ffi::PyThreadState> = AtomicPtr::new(std::ptr::null_mut());

thread_local! {
    /// The thread state of an application thread while it does not hold the GIL.
    static OWN: Cell<*mut ffi::PyThreadState> = const { Cell::new(std::ptr::null_mut()) };
}

pub(crate) extern "C" fn init(settings: Bytes, report: Report, context: *mut c_void) -> bool {
    let reporter = Reporter { report, context };
    // SAFETY: the server keeps the settings alive for the call.
    let settings = unsafe { settings.slice() };
    let settings = String::from_utf8_lossy(settings).into_owned();
    let Some((command_line, settings)) = settings.split_once('\0') else {
        reporter.say("the settings have no command line");
        return false;
    };
    if let Err(message) = start_interpreter(command_line) {
        reporter.say(&message);
        return false;
    }
    let prepared = app::prepare(settings);
    if !prepared {
        reporter.say(&failure::take_summary());
    }
    release();
    prepared
}

/// Starts it as its executable would start: `command_line` is its path, then its options, one a line.
fn start_interpreter(command_line: &str) -> Result<(), String> {
    let arguments = command_line
        .lines()
        .map(|argument| CString::new(argument).map_err(|_| "a NUL in the path of python".to_owned()))
        .collect::<Result<Vec<_>, _>>()?;
    let pointers: Vec<*const c_char> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    let mut config = Config([0; CONFIG_BYTES]);
    // SAFETY: the room is larger than any `PyConfig`; this fills it.
    unsafe { PyConfig_InitPythonConfig(&raw mut config) };
    // SAFETY: the configuration was filled just now; the pointers are to C strings that live on.
    let status =
        unsafe { PyConfig_SetBytesArgv(&raw mut config, pointers.len().cast_signed(), pointers.as_ptr()) };
    let result = check(status).and_then(|()| {
        // SAFETY: a filled configuration.
        check(unsafe { Py_InitializeFromConfig(&raw const config) })
    });
    // SAFETY: it was filled, and is not used any more.
    unsafe { PyConfig_Clear(&raw mut config) };
    result
}

fn check(status: Status) -> Result<(), String> {
    let message = status.message;
    // SAFETY: a status as the interpreter made it.
    if unsafe { PyStatus_Exception(status) } == 0 {
        return Ok(());
    }
    let message = match message.is_null() {
        true => "for no reason it names".into(),
        // SAFETY: messages of the interpreter are static C strings.
        false => unsafe { CStr::from_ptr(message) }.to_string_lossy(),
    };
    Err(format!("the interpreter does not start: {message}"))
}

/// Takes the GIL, in the main thread or one that said [`thread_started`].
pub(crate) extern "C" fn acquire() {
    let own = OWN.get();
    let state = if own.is_null() { MAIN.load(Ordering::Relaxed) } else { own };
    // SAFETY: the state that this thread left behind when it let go of the GIL.
    unsafe { ffi::PyEval_RestoreThread(state) };
}

/// Lets go of the GIL.
pub(crate) extern "C" fn release() {
    // SAFETY: this thread holds the GIL, as the border demands.
    let state = unsafe { ffi::PyEval_SaveThread() };
    if OWN.get().is_null() {
        MAIN.store(state, Ordering::Relaxed);
    }
}

/// Gives the thread a state that lasts as long as it does. Without one, each call would make and
/// destroy its own, at the price of a whole request.
pub(crate) extern "C" fn thread_started(core: u32) {
    // SAFETY: the interpreter runs; the thread has no state yet. The matching release is never made.
    unsafe {
        ffi::PyGILState_Ensure();
        OWN.set(ffi::PyThreadState_Get());
    }
    app::name_thread(core);
    release();
}

/// Takes the state of the thread away again.
pub(crate) extern "C" fn thread_stopped() {
    acquire();
    OWN.set(std::ptr::null_mut());
    // SAFETY: matches the call in `thread_started`, which found the thread without a state; clears the state
    // and lets go of the GIL.
    unsafe { ffi::PyGILState_Release(ffi::PyGILState_STATE::PyGILState_UNLOCKED) };
}

pub(crate) extern "C" fn before_fork() {
    // Not after loading: with lazy-apps that is done by the workers, and nothing is shared.
    if !FILLED.swap(true, Ordering::Relaxed) {
        pools::fill();
    }
    // SAFETY: the GIL is held: no Python thread can hold a lock of the interpreter's own.
    unsafe { PyOS_BeforeFork() }
}

pub(crate) extern "C" fn after_fork(side: Side) {
    match side {
        // SAFETY: follows `PyOS_BeforeFork` on the same thread, in the parent.
        Side::Parent => unsafe { PyOS_AfterFork_Parent() },
        // SAFETY: follows `PyOS_BeforeFork` on the same thread, in the child.
        Side::Child => unsafe { PyOS_AfterFork_Child() },
    }
}
