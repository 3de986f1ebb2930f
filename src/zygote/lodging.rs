//! The zygote as a guest in the executable of an interpreter.
//!
//! Some interpreters have their code in their executable alone; of others it is faster there than in their library.
//! So the zygote, which is nobody yet, becomes that executable: it executes it in its own place, with the
//! server as a library in it ([`preload`]) whose `main` runs instead of the interpreter's. Its pid, descriptors, user,
//! limits and environment stay as they are; what has been done for its generation is not done again.
//!
//! That happens with the rights that applications are loaded with, so that nothing is executed with more.

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::{env, io, ptr};

use log::warn;
use serde::{Deserialize, Serialize};

use super::proof::{Unfit, no_application};
use crate::app::python::{self, Code, Found};
use crate::app::{self, AppFactory};
use crate::boot::{BootRole, Envelope, StartContext, c_string, environment_entry};
use crate::config::{Config, ConfigErrors, Entry};
use crate::master::spawn::ZygoteBoot;
use crate::net::set::ListenerSet;
use crate::net::{Listener, ListenerState};
use crate::sys::{cap, fd, preload, process, signal};

/// What a zygote tells the image that takes its place.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Lodging {
    /// What the master has told it, with the numbers that descriptors have now.
    pub(super) boot: ZygoteBoot,
    /// The configuration. Its files may be out of reach by now.
    entries: Vec<Entry>,
    /// The listeners, each with whether it is new, when they are bound before the application is loaded.
    bound: Option<Vec<(ListenerState, bool)>>,
    /// The interpreter whose executable it is.
    found: Found,
}

impl Lodging {
    /// The configuration that the image before this one has read; makes the interpreter known to whoever loads
    /// applications here.
    pub(super) fn config(&mut self) -> Result<Config, ConfigErrors> {
        python::use_found(self.found.clone());
        Config::build(std::mem::take(&mut self.entries))
    }

    /// The listeners that are bound already.
    pub(super) fn take_bound(&mut self) -> Option<Vec<(ListenerState, bool)>> {
        self.bound.take()
    }
}

/// What a zygote holds that is not its own.
pub(super) struct Belongings<'a> {
    pub(super) control: BorrowedFd<'a>,
    pub(super) scoreboard: BorrowedFd<'a>,
    pub(super) handover: (BorrowedFd<'a>, BorrowedFd<'a>),
    pub(super) sheet: BorrowedFd<'a>,
    pub(super) locks: Option<BorrowedFd<'a>>,
    /// Listeners of the master that are not matched with the configuration yet.
    pub(super) inherited: &'a [Listener],
    /// All listeners, when they are bound before the application is loaded.
    pub(super) bound: Option<&'a ListenerSet>,
}

impl<'a> Belongings<'a> {
    /// Every descriptor.
    fn all(&self) -> Vec<BorrowedFd<'a>> {
        let mut all = vec![self.control, self.scoreboard, self.handover.0, self.handover.1, self.sheet];
        all.extend(self.locks);
        all.extend(self.inherited.iter().map(|listener| listener.fd.as_fd()));
        all.extend(self.bound.iter().flat_map(|bound| bound.iter()).map(|listener| listener.fd.as_fd()));
        all
    }

    fn lodging(&self, boot: &ZygoteBoot, config: &Config, found: &Found) -> Lodging {
        let boot = ZygoteBoot {
            control: self.control.as_raw_fd(),
            scoreboard: self.scoreboard.as_raw_fd(),
            handover: (self.handover.0.as_raw_fd(), self.handover.1.as_raw_fd()),
            sheet: Some(self.sheet.as_raw_fd()),
            locks: self.locks.map(|locks| locks.as_raw_fd()),
            ..boot.clone()
        };
        let bound = self.bound.map(ListenerSet::state);
        Lodging { boot, entries: config.entries.clone(), bound, found: found.clone() }
    }
}

/// Becomes the executable of the interpreter that the configuration names, where that is the place to load
/// applications; returns when this process is to load them as it is.
pub(super) fn move_in(
    start: &StartContext,
    boot: &ZygoteBoot,
    config: &Config,
    factory: AppFactory,
    belongings: &Belongings<'_>,
) -> Result<(), Unfit> {
    // The library has these applications, and no others.
    let builtin: AppFactory = app::build;
    if !config.python.has_app() || !ptr::fn_addr_eq(factory, builtin) {
        return Ok(());
    }
    // Where that cannot be told, the rights are kept.
    let may_move = cap::lost_by_execution().is_ok_and(|lost| !lost);
    let found = python::find_once(config, may_move).map_err(|error| no_application(config, error))?;
    let (Code::Executable { library }, Some(guest)) = (&found.interpreter.code, &found.guest) else {
        return Ok(());
    };
    let error = execute(start, &found.interpreter.executable, guest, belongings, || {
        belongings.lodging(boot, config, found)
    });
    let text = format!("{}: cannot be executed: {error}", found.interpreter.executable.display());
    match library {
        Some(library) => {
            warn!("{text}; its library {} is used, which may be slower", library.display());
            Ok(())
        }
        None => Err(no_application(config, text)),
    }
}

/// Returns only why it cannot be.
fn execute(
    start: &StartContext,
    executable: &Path,
    guest: &Path,
    belongings: &Belongings<'_>,
    lodging: impl FnOnce() -> Lodging,
) -> io::Error {
    let variable = (OsString::from(preload::VARIABLE), preload::with(guest));
    let others = env::vars_os().filter(|(name, _)| name != preload::VARIABLE);
    let environment: Vec<CString> = others.chain([variable]).map(|it| environment_entry(&it)).collect();
    let inherited = belongings.inherited.iter().map(Listener::state).collect();
    let envelope = match Envelope::write(BootRole::Guest, inherited, &lodging()) {
        Ok(envelope) => envelope,
        Err(error) => return error,
    };
    let mut passed_on = belongings.all();
    passed_on.push(envelope.as_fd());
    let pass = |on: bool| passed_on.iter().try_for_each(|it| fd::set_cloexec(*it, !on));
    // Until the next image has its handlers, any signal would end this process.
    signal::block_all();
    let executed =
        pass(true).map(|()| process::exec(&c_string(executable.as_os_str()), &start.argv_c(), &environment));
    let error = executed.unwrap_or_else(|error| error);
    // What the application starts must not have them. None of these can fail on what is open and valid.
    let _ = pass(false);
    let _ = signal::unblock_all();
    error
}
