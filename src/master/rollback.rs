//! ● Rollback: the generation before is still in memory, asleep; its zygote forks workers at once.
//!
//! It is a reload without its first step, for nothing has to be loaded, and without its last one: the
//! image of the master stays (docs/reload.md says why). In between it is the same transaction: the
//! generation that serves leaves once every worker of the other one accepts, and not before.
//!
//! Each rollback goes one generation further back. The one that is left is dropped: it was left because
//! it is no good, and what is on disk is only a reload away.

use std::time::Instant;

use log::Level;

use super::answer::{Kind, Outcome};
use super::event::Action;
use super::reload::{Reload, ReloadStage};
use super::state::{Master, Phase};
use super::throttle::Throttle;
use super::workers::{Generation, ZygoteStage};
use crate::control::Command;

/// What those are told who wait for a reload that a rollback has replaced.
pub(super) const GAVE_WAY_TO_ROLLBACK: &str = "it gave way to a rollback";

impl Master {
    /// `SIGURG`, FIFO `u`, `--rollback`.
    ///
    /// A reload that has not replaced anything yet gives way, whatever it is doing: who asks for this is
    /// in trouble, and means the generation that clients meet now.
    pub(super) fn request_rollback(&mut self, now: Instant) {
        let is_under_way = self.reload.as_ref().is_some_and(|it| it.kind == Kind::Rollback);
        if is_under_way || self.phase == Phase::ReExecuting {
            return self.defer(Command::Rollback);
        }
        let Some(generation) = self.newest_snapshot() else { return self.refuse_rollback() };
        if let Some(reload) = self.reload.take() {
            self.log(Level::Warn, format!("reload {} gives way to a rollback", reload.id));
            // Not to a newer reload: whoever waits for this one waits in vain.
            self.journal.refuse(reload.id, reload.refusal.as_deref().unwrap_or(GAVE_WAY_TO_ROLLBACK));
            self.take_back(now, &reload);
        }
        self.begin_rollback(now, generation);
    }

    fn refuse_rollback(&mut self) {
        let id = self.number_reload();
        let why = match self.policy.snapshots {
            0 => "no generation is kept in memory; set snapshots = 1 or more before the next reload",
            _ => "no snapshot is left: none was made yet, or all were used or dropped",
        };
        self.journal.begin(id, Kind::Rollback, self.generation, self.ticket);
        self.journal.refuse(id, why);
        let line = format!("rollback {id} refused: {why}; generation {} serves on", self.generation);
        self.log(Level::Error, line);
    }

    fn begin_rollback(&mut self, now: Instant, generation: Generation) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        let ZygoteStage::Asleep { policy } = std::mem::replace(&mut zygote.stage, ZygoteStage::Ready) else {
            return;
        };
        let id = self.number_reload();
        self.journal.begin(id, Kind::Rollback, generation, self.ticket);
        // Its workers are new ones, not replacements of those it had.
        self.forks.retain(|(of, _), _| *of != generation);
        self.reload = Some(Reload {
            id,
            kind: Kind::Rollback,
            generation,
            stage: ReloadStage::Preparing,
            brutal: false,
            policy: None,
            wanted: self.desired,
            drains: false,
            refusal: None,
        });
        let line = format!(
            "rollback {id} begins: waking generation {generation} while generation {} serves",
            self.generation
        );
        self.log(Level::Info, line);
        self.push(Action::Awaken { generation });
        self.surge(now, policy);
    }

    /// The generation before is in charge again, under its own number.
    pub(super) fn complete_rollback(&mut self, now: Instant) {
        let Some(Reload { id, generation, drains, .. }) = self.reload.take() else { return };
        self.zygote_throttle = Throttle::default();
        self.push(Action::TakeUp { generation });
        if !drains {
            self.journal.settle(id, Outcome::Complete { remark: None });
            self.log(Level::Info, self.completion(Kind::Rollback, id));
        }
        self.resume_deferred(now);
    }

    /// The generation that serves was brought back, its zygote is lost, and that has to be lived with: a
    /// zygote loaded from disk would be other code under its number.
    pub(super) fn outlives_zygote(&self) -> bool {
        let serves = self.workers.values().any(|it| it.generation == self.generation && !it.is_leaving());
        let is_lost = self.restored && !self.zygotes.contains_key(&self.generation);
        is_lost && (serves || self.reload.is_some() || self.desired == 0)
    }

    /// What the log says about that.
    pub(super) fn outlived(&self, reason: &str) -> String {
        format!(
            "zygote of generation {0} lost: {reason}; generation {0} was brought back from memory and what is on \
             disk is other code: its workers serve on, but one that dies cannot be replaced; reload with good code, \
             or roll back further",
            self.generation
        )
    }

    /// The zygote of a generation that was brought back is lost, and so are all of its workers. Whatever
    /// can serve is better than nothing: an older snapshot, or else what is on disk.
    pub(super) fn succeed_restored(&mut self, now: Instant) {
        // Sooner or later the one or the other works; not in a tight loop.
        self.zygote_throttle.record_death(now, None, self.pauses(self.newest));
        let lost = format!("nothing is left of generation {}", self.generation);
        match self.newest_snapshot().filter(|_| !self.journal.has_just_refused(Kind::Rollback)) {
            Some(generation) => {
                self.log(Level::Error, format!("{lost}: going further back"));
                self.begin_rollback(now, generation);
            }
            None => {
                self.log(Level::Error, format!("{lost}: loading what is on disk"));
                self.begin_reload(now, Command::Reload);
            }
        }
    }
}
