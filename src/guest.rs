//! Processes of the server in the executable of an interpreter.
//!
//! Some interpreters have their code in their executable alone; of others it is faster there than in their library.
//! A process that is to load applications becomes that executable: it executes it in its own place, with the server as
//! a library in it ([`preload`]) whose `main` ([`run_as_guest`](crate::run_as_guest)) runs instead of the interpreter's.

use std::error::Error;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::{env, ptr};

use log::warn;

use crate::app::python::{self, Code, Found};
use crate::app::{self, AppFactory};
use crate::boot::{StartContext, c_string, environment_entry};
use crate::config::Config;
use crate::sys::{cap, fd, preload, process, signal};

/// The interpreter whose executable this process is to be when it loads the applications of `config`; `None` when it
/// can load them as it is.
///
/// # Errors
/// When there is no such interpreter.
pub fn invitation(config: &Config, factory: AppFactory) -> Result<Option<&'static Found>, Box<dyn Error>> {
    // The library has these applications, and no others.
    let builtin: AppFactory = app::build;
    if !config.python.has_app() || !ptr::fn_addr_eq(factory, builtin) {
        return Ok(None);
    }
    // Where that cannot be told, the rights are kept.
    let may_move = cap::lost_by_execution().is_ok_and(|lost| !lost);
    let found = python::find_once(config, may_move)?;
    let is_whole = matches!(found.interpreter.code, Code::Executable { .. });
    Ok((is_whole && found.guest.is_some()).then_some(found))
}

/// Becomes the executable of the interpreter, which finds `envelope` and the descriptors that are `passed_on`, and no
/// others.
///
/// Returns when that is not possible and this process can load the applications as it is.
///
/// # Errors
/// When neither is possible.
pub fn execute(
    found: &Found,
    start: &StartContext,
    envelope: &OwnedFd,
    passed_on: &[BorrowedFd<'_>],
) -> Result<(), Box<dyn Error>> {
    let guest = found.guest.as_deref().ok_or("the server is not there as a library")?;
    let executable = &found.interpreter.executable;
    let variable = (OsString::from(preload::VARIABLE), preload::with(guest));
    let others = env::vars_os().filter(|(name, _)| name != preload::VARIABLE);
    let environment: Vec<CString> = others.chain([variable]).map(|it| environment_entry(&it)).collect();
    let envelope = envelope.as_fd();
    let pass = |on: bool| passed_on.iter().chain([&envelope]).try_for_each(|it| fd::set_cloexec(*it, !on));
    // Until the next image has its handlers, any signal would end this process.
    signal::block_all();
    let executed =
        pass(true).map(|()| process::exec(&c_string(executable.as_os_str()), &start.argv_c(), &environment));
    let error = executed.unwrap_or_else(|error| error);
    // What the application starts must not have them. Neither can fail on what is open and valid.
    let _ = pass(false);
    let _ = signal::unblock_all();
    let text = format!("{}: cannot be executed: {error}", executable.display());
    match found.interpreter.code.library() {
        Some(library) => {
            warn!("{text}; its library {} is used, which may be slower", library.display());
            Ok(())
        }
        None => Err(text.into()),
    }
}
