//! `--pause PIDFILE` and `--resume PIDFILE`.
//!
//! `SIGTSTP` turns the pause over, so it cannot mean one of the two: of two who send it for the same
//! reason the second undoes what the first has done. The order is therefore written to the memory that
//! the master shares ([`Answers`]), numbered, and `SIGWINCH`, which means nothing to a master, only wakes
//! it. Orders given at the same time count by their numbers; one given while the master replaces its image
//! is read by the next.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::sys::process::{self, Signal};

use super::answers::Answers;
use super::client::Outcome;
use super::pidfile;

/// How long the master may take to read an order: it does nothing that takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pauses a server or lets it go on; that it does so already is no error.
pub fn order(pidfile: &Path, paused: bool) -> Outcome {
    let verb = if paused { "pause" } else { "resume" };
    let failed = |why: String| Outcome { text: format!("cannot {verb}: {why}"), code: EXIT_ERROR };
    let owner = match pidfile::owner(pidfile) {
        Ok(owner) => owner,
        Err(error) => return failed(error.to_string()),
    };
    let pid = owner.pid;
    let answers = match Answers::of(pid) {
        Ok(Some(answers)) => answers,
        Ok(None) => {
            return failed(format!(
                "appserver {pid} takes no orders: it is still starting, or of an older release; write p to its FIFO"
            ));
        }
        Err(error) => {
            return failed(format!(
                "the memory of appserver {pid} cannot be reached: {error}; be root, or its user if it has no \
                 capabilities, or write p to its FIFO"
            ));
        }
    };
    let number = answers.order_pause(paused);
    if let Err(error) = process::pidfd_signal(owner.pidfd.as_fd(), Signal::SIGWINCH) {
        return failed(format!("appserver {pid}: {error}"));
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = answers.changes();
        if answers.pause_obeyed() >= number {
            let does = if paused { "is paused" } else { "accepts connections" };
            return Outcome { text: format!("appserver {pid} {does}"), code: EXIT_OK };
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return failed(format!(
                "appserver {pid} does not answer; if it is of an older release, write p to its FIFO"
            ));
        }
        answers.await_change(seen, left);
    }
}
