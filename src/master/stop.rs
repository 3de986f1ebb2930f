//! ● The end: patience that gets shorter each time it is asked for.

use std::time::Instant;

use log::Level;

use crate::channel::{DrainMode, headline};
use crate::sys::process::{Pid, Signal};

use super::event::Action;
use super::state::{Master, Phase};

impl Master {
    pub(super) fn stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Finished)
    }

    /// The first generation cannot serve: there is nothing to go on with.
    pub(super) fn give_up_start(&mut self, now: Instant, reason: String, code: u8) {
        self.log(Level::Error, format!("cannot start: {}", headline(&reason)));
        self.failure = Some(reason);
        self.stop(now, code, true);
    }

    /// Begins to leave; asked again, it waits for less each time.
    pub(super) fn stop(&mut self, now: Instant, code: u8, now_please: bool) {
        let (again, forced, code) = match self.phase {
            Phase::Finished => return,
            Phase::Stopping { forced, code } => (true, forced, code),
            _ => (false, false, code),
        };
        if again && forced {
            self.log(Level::Warn, "asked to stop once more: killing what is left".to_owned());
            let pids: Vec<Pid> = self.workers.values().filter_map(|worker| worker.pid).collect();
            for pid in pids {
                self.push(Action::Kill { pid, signal: Signal::SIGKILL });
            }
            return;
        }
        let force = again || now_please;
        self.log(
            Level::Info,
            match (again, force) {
                (true, _) => "asked to stop again: requests in flight are cut".to_owned(),
                (false, true) => "stopping now...killing workers...".to_owned(),
                (false, false) => format!(
                    "graceful shutdown triggered...killing workers... (requests in flight get {} s)",
                    self.policy.mercy.as_secs()
                ),
            },
        );
        self.phase = Phase::Stopping { code, forced: force };
        self.reload = None;
        self.journal.stop();
        self.roll = None;
        self.watch_listeners(false);
        for generation in self.zygotes.keys().copied().collect::<Vec<_>>() {
            self.dismiss_zygote(generation);
        }
        let mode = if force { DrainMode::Now } else { DrainMode::Stop };
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.drain(now, worker, mode);
        }
    }

    pub(super) fn finish_if_alone(&mut self, code: u8) {
        if self.workers.is_empty() && self.zygotes.is_empty() {
            self.phase = Phase::Finished;
            self.push(Action::Exit(code));
        }
    }
}
