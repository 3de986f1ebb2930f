//! `harakiri`: how long a request may take, and what becomes of a worker where one takes longer.

use std::time::Duration;

use crate::sys::process::Signal;

use super::value::{self, ValueError};

/// The options that begin with `harakiri`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Harakiri {
    /// `harakiri`: how long a request may take; `None` is as long as it likes.
    pub limit: Option<Duration>,
    /// `harakiri-verbose`: the evidence has every thread's place in the kernel.
    pub verbose: bool,
    /// `harakiri-graceful-timeout`: from the signal that asks to the one that kills; `None` is no asking.
    pub graceful: Option<Duration>,
    /// `harakiri-graceful-signal`: what asks.
    pub signal: Signal,
    /// `harakiri-queue-threshold`: no worker is killed while fewer clients wait; `None` is whatever waits.
    pub queue_threshold: Option<u32>,
    /// `harakiri-no-arh`: the clock stops before `after_req_hook`.
    pub no_after_request: bool,
}

impl Default for Harakiri {
    fn default() -> Self {
        Harakiri {
            limit: None,
            verbose: false,
            graceful: None,
            signal: Signal::SIGTERM,
            queue_threshold: None,
            no_after_request: false,
        }
    }
}

/// Reads the number of a signal that asks.
///
/// # Errors
/// When it is none, or one that no process can heed.
pub(super) fn asking_signal(text: &str) -> Result<Signal, ValueError> {
    const HIGHEST: u64 = 31;
    let number = value::int(text, 1, HIGHEST)?;
    let signal = i32::try_from(number).ok().and_then(|number| Signal::try_from(number).ok());
    signal.filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)).ok_or_else(|| {
        ValueError::refused("is a signal that no process can heed; use one that can be caught, such as 15")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_asked_must_be_able_to_hear() {
        assert_eq!(asking_signal("15"), Ok(Signal::SIGTERM));
        assert_eq!(asking_signal("10"), Ok(Signal::SIGUSR1));
        for wrong in ["9", "19", "0", "32", "TERM", ""] {
            assert!(asking_signal(wrong).is_err(), "{wrong}");
        }
    }
}
