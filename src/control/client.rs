//! `--reload`, `--rollback`, `--stop` and `--status`: talking to a running server by its pidfile.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cause::{Causes, Setbacks};
use crate::error::{EXIT_ERROR, EXIT_OK, EXIT_STATUS_RUNNING, EXIT_STATUS_STOPPED, EXIT_STATUS_UNKNOWN};
use crate::master::report;
use crate::net::backlog;
use crate::scoreboard::{Scoreboard, WorkerState};
use crate::sys::process::{self, Pid, Signal};

use super::answers::Answers;
use super::narrator;
use super::pidfile::{self, OwnerError};

/// What came of a command: text for the user and the exit code.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// One or more lines.
    pub text: String,
    /// Exit code.
    pub code: u8,
}

/// Sends the signal of `--reload`, `--rollback` or `--stop`, after making sure that the pid is this server.
pub fn signal(pidfile: &Path, signal: Signal, verb: &str) -> Outcome {
    let owner = match pidfile::owner(pidfile) {
        Ok(owner) => owner,
        Err(error) => return Outcome { text: format!("cannot {verb}: {error}"), code: EXIT_ERROR },
    };
    // By descriptor, not by number: between the check and the signal the pid may become another's.
    match process::pidfd_signal(owner.pidfd.as_fd(), signal) {
        Ok(()) => Outcome { text: format!("asked appserver {} to {verb}", owner.pid), code: EXIT_OK },
        Err(error) => {
            Outcome { text: format!("cannot {verb}: appserver {}: {error}", owner.pid), code: EXIT_ERROR }
        }
    }
}

/// `--status`: what the server of this pidfile does. Exit codes as service managers use them.
pub fn status(pidfile: &Path) -> Outcome {
    match pidfile::owner(pidfile) {
        Ok(owner) => Outcome { text: describe(owner.pid), code: EXIT_STATUS_RUNNING },
        Err(error) => {
            let stopped = matches!(error, OwnerError::Missing { .. } | OwnerError::NotRunning { .. });
            match stopped {
                true => Outcome { text: format!("not running: {error}"), code: EXIT_STATUS_STOPPED },
                false => Outcome { text: format!("unknown: {error}"), code: EXIT_STATUS_UNKNOWN },
            }
        }
    }
}

fn describe(pid: Pid) -> String {
    let Some(board) = Scoreboard::of(pid) else {
        return format!("appserver {pid} is running (its scoreboard is readable by its own user only)");
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let (generation, reloads, started_at) = board.instance();
    let uptime = (now / 1_000_000).saturating_sub(started_at);
    let mut text = format!(
        "appserver {pid} is running: generation {generation}, {reloads} reloads, up {uptime} s, {} requests",
        board.total_requests()
    );
    let mut slots = Vec::new();
    if let Ok(Some(answers)) = Answers::of(pid)
        && let Some(answer) = answers.read()
    {
        if let Some(last) = answer.reloads.last() {
            text.push('\n');
            text.push_str(&narrator::describe(last, &answer));
        }
        for standing in &answer.generations {
            text.push('\n');
            text.push_str(&report::generation_line(standing, now));
        }
        for (socket, queue) in answer.listeners.iter().zip(backlog::of_others(&answer.listeners)) {
            text.push('\n');
            text.push_str(&backlog::line(&socket.address, queue));
        }
        if answer.causes != Causes::default() {
            text.push_str(&format!("\nworkers ended: {}", answer.causes));
        }
        if answer.setbacks != Setbacks::default() {
            text.push_str(&format!("\n{}", answer.setbacks));
        }
        slots = answer.slots;
    }
    for cell in board.used_cells().filter(|cell| board.cell(*cell).state() != WorkerState::Free) {
        text.push('\n');
        text.push_str(&report::worker_line(&board, cell, now, &slots));
    }
    for line in slots.iter().filter_map(|slot| slot.trouble(now / 1000)) {
        text.push('\n');
        text.push_str(&line);
    }
    text
}
