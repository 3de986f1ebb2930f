//! Starting a zygote: fork, pass the descriptors it needs, execute the binary anew.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::boot::{BootRole, Envelope, c_string};
use crate::channel::{self, Channel, FromZygote, ToZygote, ZygoteChannel};
use crate::config::source::KEPT_TEXT;
use crate::privileges::limits::Started;
use crate::scoreboard::sheet::SheetFile;
use crate::sys::process::{Fork, Pid, Signal};
use crate::sys::{self, fd, process, signal};

use super::holdings::Holdings;
use super::workers::Generation;

/// What a zygote is told by the master that executes it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ZygoteBoot {
    /// Its generation.
    pub generation: Generation,
    /// Descriptor of its control channel.
    pub control: i32,
    /// Descriptor of the scoreboard.
    pub scoreboard: i32,
    /// Descriptors of the hand-over queue: to take from, to give to.
    pub handover: (i32, i32),
    /// Descriptor of its sheet, where its stacks are written to; none from older releases.
    #[serde(default)]
    pub sheet: Option<i32>,
    /// Descriptor of the application's locks; none from older releases.
    #[serde(default)]
    pub locks: Option<i32>,
    /// When the service was started, for the configuration's `%t`; 0 from older releases.
    #[serde(default)]
    pub started: u64,
    /// Real user and group that started the service, for `%u` and `%g`; absent in older releases.
    #[serde(default)]
    pub started_by: Option<(u32, u32)>,
    /// Limits that the service was started with; absent in older releases.
    #[serde(default)]
    pub limits: Option<Started>,
}

/// Starts the zygote of `generation`.
///
/// # Errors
/// When there is no memory, process or descriptor left. A binary that cannot be executed is reported
/// by the child over its channel, like every other reason why a generation cannot serve.
pub fn zygote(holdings: &Holdings, generation: Generation) -> io::Result<(Pid, ZygoteChannel, SheetFile)> {
    let (ours, theirs): (ZygoteChannel, OwnedFd) = channel::pair()?;
    let sheet = SheetFile::create()?;
    let boot = ZygoteBoot {
        generation,
        control: theirs.as_raw_fd(),
        scoreboard: holdings.scoreboard.fd().as_raw_fd(),
        handover: (holdings.handover.0.as_raw_fd(), holdings.handover.1.as_raw_fd()),
        sheet: Some(sheet.as_raw_fd()),
        locks: Some(holdings.locks.fd().as_raw_fd()),
        started: holdings.started_at,
        started_by: Some(holdings.started_by),
        limits: Some(holdings.limits),
    };
    // Its configuration may claim what that of the generation before has left.
    let listeners = || holdings.listeners.iter().chain(&holdings.spares);
    let states = listeners().map(|listener| listener.state()).collect();
    let envelope = Envelope::write(BootRole::Zygote, states, &boot)?;
    let binary = holdings.binary();
    let program = c_string(binary.as_os_str());
    let argv = holdings.start.argv_c();
    let env = holdings.start.child_env_c();
    let master = process::this();
    match process::fork()? {
        Fork::Parent(pid) => Ok((pid, ours, sheet)),
        Fork::Child => {
            let mut keep: Vec<BorrowedFd<'_>> =
                vec![envelope.as_fd(), theirs.as_fd(), holdings.scoreboard.fd(), sheet.as_fd()];
            keep.extend([holdings.handover.0.as_fd(), holdings.handover.1.as_fd(), holdings.locks.fd()]);
            keep.extend(listeners().map(|listener| listener.fd.as_fd()));
            let error = match prepare_child(&keep, master, &holdings.start.cwd) {
                Ok(()) => process::exec(&program, &argv, &env),
                Err(error) => error,
            };
            report_exec_failure(theirs, &binary, &error);
            process::exit_now(1)
        }
    }
}

/// Leaves the child with the descriptors it may have, default signals, and no way to outlive the master.
fn prepare_child(keep: &[BorrowedFd<'_>], master: Pid, cwd: &Path) -> io::Result<()> {
    fd::mark_all_cloexec()?;
    fd::keep_memfds(KEPT_TEXT)?;
    for descriptor in keep {
        fd::set_cloexec(*descriptor, false)?;
    }
    process::set_parent_death_signal(Some(Signal::SIGKILL))?;
    if process::parent() != master {
        return Err(io::Error::other("the master is gone"));
    }
    signal::reset_all()?;
    signal::unblock_all()?;
    std::env::set_current_dir(cwd)
}

fn report_exec_failure(control: OwnedFd, binary: &Path, error: &io::Error) {
    let hint = match error.kind() {
        // execve(2) says the same of a missing interpreter or loader; in a chroot that is the likely mistake.
        io::ErrorKind::NotFound if binary.exists() => {
            "; the file is there, so its loader (or the interpreter in its first line) is not: see ldd"
        }
        _ => "",
    };
    let reason =
        format!("cannot execute {}: {error}{hint}", String::from_utf8_lossy(binary.as_os_str().as_bytes()));
    let channel: Channel<FromZygote, ToZygote> = Channel::new(control);
    // Nobody is left to tell if this fails; the master then sees the exit alone.
    let _ = channel.send(&FromZygote::LoadFailed { reason, code: 1 }, &[]);
}

/// Starts a second master on the same listeners (FIFO `f`).
///
/// # Errors
/// When there is no memory, process or descriptor left.
pub fn second_master(holdings: &Holdings) -> io::Result<Pid> {
    let states = holdings.listeners.iter().map(|listener| listener.state()).collect();
    let envelope = Envelope::write(BootRole::Refork, states, &serde_json::Value::Null)?;
    let program = c_string(holdings.binary().as_os_str());
    let (argv, env) = (holdings.start.argv_c(), holdings.start.child_env_c());
    match process::fork()? {
        Fork::Parent(pid) => Ok(pid),
        Fork::Child => {
            let mut keep: Vec<BorrowedFd<'_>> = vec![envelope.as_fd()];
            keep.extend(holdings.listeners.iter().map(|listener| listener.fd.as_fd()));
            let error = match prepare_second(&keep, &holdings.start.cwd) {
                Ok(()) => process::exec(&program, &argv, &env),
                Err(error) => error,
            };
            log::error!("second master not started: {error}");
            process::exit_now(1)
        }
    }
}

fn prepare_second(keep: &[BorrowedFd<'_>], cwd: &Path) -> io::Result<()> {
    fd::mark_all_cloexec()?;
    fd::keep_memfds(KEPT_TEXT)?;
    for descriptor in keep {
        fd::set_cloexec(*descriptor, false)?;
    }
    process::new_session()?;
    sys::signal::reset_all()?;
    sys::signal::unblock_all()?;
    std::env::set_current_dir(cwd)
}
