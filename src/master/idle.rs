//! ● No request for long (`idle`): the workers are sent home, or the server stops (`die-on-idle`).

use std::time::Instant;

use log::Level;

use crate::cause::Cause;
use crate::error::EXIT_OK;

use super::state::Master;

impl Master {
    /// When a server that has been quiet since then has been so for too long; `None` where nothing follows.
    pub(super) fn idle_deadline(&self, since: Instant) -> Option<Instant> {
        let scaling = &self.policy.scaling;
        let asked_for = !scaling.idle.is_zero() && !self.paused;
        let sends_home = self.desired > 0 || scaling.die_on_idle;
        (asked_for && sends_home).then(|| since + scaling.idle)
    }

    /// Acts when that time has come; not in the middle of a reload, which is for somebody.
    pub(super) fn rest_when_idle(&mut self, now: Instant, since: Instant) {
        let is_due = self.idle_deadline(since).is_some_and(|at| now >= at);
        if !is_due || self.reload.is_some() || self.arrival.is_some() {
            return;
        }
        let seconds = self.policy.scaling.idle.as_secs();
        let inactive = format!("workers have been inactive for more than {seconds} seconds");
        if self.policy.scaling.die_on_idle {
            self.log(Level::Info, format!("{inactive}: stopping (die-on-idle)"));
            self.stop(now, EXIT_OK, false);
        } else {
            self.log(Level::Info, inactive);
            self.go_cheap(now, Cause::Idle);
        }
    }
}
