//! Commands that the master starts and does not wait for.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use log::{error, info};

use crate::boot::StartContext;
use crate::sys::process::{self, Exit, Fork, Pid};
use crate::sys::{fd, signal};

/// Commands that run at a time; a command that hangs must not fill the process table.
const LIMIT: usize = 64;

/// The commands that run, by pid.
#[derive(Debug, Default)]
pub struct Commands(BTreeMap<i32, String>);

impl Commands {
    /// Takes up those that the previous image has started.
    pub fn restore(running: BTreeMap<i32, String>) -> Self {
        Commands(running)
    }

    /// Those that run, for the next image.
    pub fn running(&self) -> &BTreeMap<i32, String> {
        &self.0
    }

    /// Starts a command in `directory`; what keeps it from that goes to the log.
    pub fn start(&mut self, command: &str, start: &StartContext, directory: &Path) {
        if self.0.len() >= LIMIT {
            return error!("command \"{command}\" is not run: {LIMIT} commands run already");
        }
        match spawn(command, start, directory) {
            Ok(pid) => {
                self.0.insert(pid.as_raw(), command.to_owned());
            }
            Err(error) => error!("command \"{command}\" could not be started: {error}"),
        }
    }

    /// A child has ended; true if it was one of these.
    pub fn ended(&mut self, pid: Pid, exit: Exit) -> bool {
        let Some(command) = self.0.remove(&pid.as_raw()) else { return false };
        match exit {
            Exit::Code(0) => info!("command \"{command}\" (pid: {pid}) is done"),
            exit => error!("command \"{command}\" (pid: {pid}) ended with {exit}"),
        }
        true
    }
}

/// `/bin/sh -c` in a session of its own, with nothing of ours but the log as its output.
fn spawn(command: &str, start: &StartContext, directory: &Path) -> io::Result<Pid> {
    let command = CString::new(command).map_err(|_| io::Error::other("it contains a NUL byte"))?;
    let argv = [c"sh".to_owned(), c"-c".to_owned(), command];
    let env = start.env_c();
    let null = File::open("/dev/null")?;
    match process::fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            let error = match prepare(&null, directory) {
                Ok(()) => process::exec(c"/bin/sh", &argv, &env),
                Err(error) => error,
            };
            error!("command not run: {error}");
            process::exit_now(127)
        }
    }
}

fn prepare(null: &File, directory: &Path) -> io::Result<()> {
    fd::mark_all_cloexec()?;
    fd::replace(null.as_fd(), 0)?;
    process::new_session()?;
    signal::reset_all()?;
    signal::unblock_all()?;
    std::env::set_current_dir(directory)
}
