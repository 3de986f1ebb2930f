//! ● The end: patience that gets shorter each time it is asked for.

use std::time::{Duration, Instant};

use log::Level;

use crate::cause::Cause;
use crate::channel::{DrainMode, headline};
use crate::sys::process::{Pid, Signal};

use super::event::Action;
use super::state::{Master, Phase};
use super::workers::{Stage, WorkerId};

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
                    "graceful shutdown triggered...killing workers... (requests in flight get {} s{})",
                    self.policy.mercy.as_secs(),
                    match self.policy.drain_delay {
                        Duration::ZERO => String::new(),
                        delay => format!(", after {delay:?} of serving on, drain-delay"),
                    }
                ),
            },
        );
        self.phase = Phase::Stopping { code, forced: force };
        self.reload = None;
        self.arrival = None;
        self.wishes.clear();
        self.journal.stop();
        self.roll = None;
        self.call_off_promotion();
        self.watch_listeners(false);
        for generation in self.zygotes.keys().copied().collect::<Vec<_>>() {
            self.dismiss_zygote(generation);
        }
        if !again {
            self.push(Action::ReleaseListeners);
        }
        if force {
            self.drain_those(now, DrainMode::Now, Cause::Stop, |_, _| true);
        }
    }

    /// What there is left to do of a stop.
    pub(super) fn go_on_stopping(&mut self, now: Instant, code: u8) {
        if !self.zygotes.is_empty() || !self.former_zygotes.is_empty() {
            // A zygote has the listeners, too. Only when it is gone, the last worker that closes them has
            // really emptied their queues.
            return;
        }
        for (worker, entry) in self.workers.clone() {
            if !matches!(entry.stage, Stage::Leaving { mode: DrainMode::Stop | DrainMode::Now, .. }) {
                self.take_leave(now, worker);
            }
        }
        if self.workers.is_empty() {
            self.phase = Phase::Finished;
            self.push(Action::Exit(code));
        }
    }

    /// Tells a worker to leave for good, after the drain delay if it serves.
    fn take_leave(&mut self, now: Instant, worker: WorkerId) {
        let (delay, patience) = (self.policy.drain_delay, self.policy.mercy);
        match self.workers.get_mut(&worker) {
            Some(entry) if entry.is_ready() && !delay.is_zero() => {
                entry.stage =
                    Stage::Leaving { since: now, kill_at: now + delay + patience, mode: DrainMode::Stop };
                self.push(Action::Farewell { worker, delay, patience });
            }
            _ => self.drain(now, worker, DrainMode::Stop, Cause::Stop),
        }
    }
}
