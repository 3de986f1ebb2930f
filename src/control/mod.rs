//! What an operator can ask of the master, and the roads by which it arrives.

use serde::{Deserialize, Serialize};

use crate::sys::process::Signal;

pub mod answers;
pub mod changes;
pub mod client;
pub mod fd_trigger;
pub mod fifo;
pub mod fifo_watch;
pub mod monitor;
pub mod narrator;
pub mod pausing;
pub mod pidfile;
pub mod touch;
pub mod waiting;

/// A request to the master, whichever road it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// New code and configuration, nothing lost.
    Reload,
    /// The same, but requests of the old workers are cut.
    BrutalReload,
    /// The generation before, from memory, nothing lost.
    Rollback,
    /// Replace all workers from the loaded generation, each one started before its predecessor leaves.
    ReloadWorkers,
    /// The same, cutting requests.
    BrutalReloadWorkers,
    /// Replace the workers one after the other.
    ChainReload,
    /// Finish requests, then leave.
    Stop,
    /// Leave now.
    StopNow,
    /// Stop accepting, or accept again.
    TogglePause,
    /// Stop accepting, if it does.
    Pause,
    /// Accept again, if it does not.
    Resume,
    /// Counters to the log.
    Statistics,
    /// What each worker is doing, to the log.
    WorkerStatus,
    /// Open the log file anew.
    ReopenLog,
    /// Rename the log file and start a new one.
    RotateLog,
    /// Write the pidfiles again.
    RewritePidfiles,
    /// Start a second master on the same listeners.
    Refork,
    /// One worker more, up to `processes`.
    MoreWorkers,
    /// One worker less, down to one.
    FewerWorkers,
    /// Send all workers home until the next connection.
    GoCheap,
    /// Read commands from this FIFO slot.
    FifoSlot(u8),
}

/// Signals the master listens to; all of them from the first moment, so that none is lost.
pub const MASTER_SIGNALS: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGTSTP,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGALRM,
    Signal::SIGPIPE,
    Signal::SIGCHLD,
];

/// Which of TERM and QUIT stop the server; the other one reloads brutally. INT always stops it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopSignals {
    /// QUIT, as in uWSGI.
    Quit,
    /// TERM: `die-on-term`.
    Term,
    /// Both. For process 1 of a container: whoever runs containers stops them with TERM and kills them when
    /// nothing comes of it, and images that were made for uWSGI ask for QUIT (STOPSIGNAL).
    Both,
}

impl StopSignals {
    /// What `die-on-term` says of a process that is number 1 or not.
    pub fn of(die_on_term: Option<bool>, is_init: bool) -> Self {
        match die_on_term {
            Some(true) => StopSignals::Term,
            None if is_init => StopSignals::Both,
            Some(false) | None => StopSignals::Quit,
        }
    }

    /// Whether TERM is among them.
    pub fn include_term(self) -> bool {
        self != StopSignals::Quit
    }
}

/// What a signal to the master means; `None` for those that only must not kill it.
pub fn signal_command(signal: Signal, stops: StopSignals) -> Option<Command> {
    match signal {
        Signal::SIGHUP => Some(Command::Reload),
        Signal::SIGINT => Some(Command::Stop),
        Signal::SIGTERM if stops.include_term() => Some(Command::Stop),
        Signal::SIGQUIT if stops == StopSignals::Term => Some(Command::BrutalReload),
        Signal::SIGTERM => Some(Command::BrutalReload),
        Signal::SIGQUIT => Some(Command::Stop),
        Signal::SIGUSR1 => Some(Command::Statistics),
        Signal::SIGUSR2 => Some(Command::WorkerStatus),
        Signal::SIGTSTP => Some(Command::TogglePause),
        Signal::SIGURG => Some(Command::Rollback),
        _ => None,
    }
}

/// What a byte written to the master FIFO means.
///
/// # Errors
/// A byte that is no command. Line ends are `Ok(None)`: `echo r > fifo` writes one.
pub fn fifo_command(byte: u8) -> Result<Option<Command>, UnknownByte> {
    Ok(Some(match byte {
        b'r' => Command::Reload,
        b'R' => Command::BrutalReload,
        b'u' => Command::Rollback,
        b'w' => Command::ReloadWorkers,
        b'W' => Command::BrutalReloadWorkers,
        b'c' => Command::ChainReload,
        b'q' => Command::Stop,
        b'Q' => Command::StopNow,
        b'p' => Command::TogglePause,
        b's' => Command::Statistics,
        b'l' => Command::ReopenLog,
        b'L' => Command::RotateLog,
        b'P' => Command::RewritePidfiles,
        b'f' => Command::Refork,
        b'+' => Command::MoreWorkers,
        b'-' => Command::FewerWorkers,
        b'C' => Command::GoCheap,
        b'0'..=b'9' => Command::FifoSlot(byte - b'0'),
        b'\n' | b'\r' | b' ' => return Ok(None),
        other => return Err(UnknownByte { byte: other }),
    }))
}

/// A byte that is no FIFO command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown master FIFO command {:?} (byte {byte})", char::from(*byte))]
pub struct UnknownByte {
    /// The byte.
    pub byte: u8,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn die_on_term_swaps_term_and_quit() {
        let meanings = |die_on_term, is_init| {
            let stops = StopSignals::of(die_on_term, is_init);
            [Signal::SIGTERM, Signal::SIGQUIT].map(|it| signal_command(it, stops))
        };
        let (stop, brutal) = (Some(Command::Stop), Some(Command::BrutalReload));
        for is_init in [false, true] {
            assert_eq!(meanings(Some(false), is_init), [brutal, stop]);
            assert_eq!(meanings(Some(true), is_init), [stop, brutal]);
        }
        assert_eq!(meanings(None, false), [brutal, stop]);
        assert_eq!(meanings(None, true), [stop, stop]);
    }

    #[test]
    fn line_ends_are_no_commands_and_no_errors() {
        assert_eq!(fifo_command(b'\n'), Ok(None));
        assert_eq!(fifo_command(b'7'), Ok(Some(Command::FifoSlot(7))));
        assert_eq!(fifo_command(b'x'), Err(UnknownByte { byte: b'x' }));
    }
}
