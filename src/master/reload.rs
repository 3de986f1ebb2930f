//! Reload: prepare, surge, drain, re-exec. Nothing is replaced before its successor is proven.
//!
//! A rollback (see `rollback`) is the same but for the first and the last step.

use std::time::Instant;

use log::Level;
use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::config::reload::ReloadMode;
use crate::control::Command;

use super::answer::{Kind, Outcome};
use super::arrival::Arrival;
use super::budget::BudgetWatch;
use super::event::Action;
use super::policy::Policy;
use super::rollback::GAVE_WAY_TO_ROLLBACK;
use super::state::{Master, Phase};
use super::throttle::Throttle;
use super::workers::Generation;

/// How far a reload has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadStage {
    /// The new zygote loads the application.
    Preparing,
    /// The new workers start.
    Surging,
    /// Refused: the old workers that have left are being brought back.
    Restoring,
}

/// A reload that has not replaced anything yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reload {
    /// Number of this reload, for log and status.
    pub id: u64,
    /// Where the generation comes from.
    pub kind: Kind,
    /// The generation being prepared.
    pub generation: Generation,
    /// How far it has come.
    pub stage: ReloadStage,
    /// True when requests of the old workers are cut.
    pub brutal: bool,
    /// What the new configuration asks for, once it is known.
    pub policy: Option<Policy>,
    /// Workers of the new generation that have to serve.
    pub wanted: u32,
    /// True when its workers start only after the old ones have left.
    pub drains: bool,
    /// Why it is being refused.
    pub refusal: Option<String>,
}

impl Reload {
    /// How the old workers leave.
    pub(super) fn drain_mode(&self) -> DrainMode {
        if self.brutal { DrainMode::Now } else { DrainMode::Handover }
    }
}

/// A reload whose new generation serves; what the image after the re-exec reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completed {
    /// Number of the reload.
    pub id: u64,
    /// The generation that serves now.
    pub generation: Generation,
}

impl Master {
    /// Starts a reload, replaces one that is still preparing, or waits for one that is past that.
    pub(super) fn request_reload(&mut self, now: Instant, command: Command) {
        if self.phase != Phase::Running {
            return self.defer(command);
        }
        match self.reload.clone() {
            Some(Reload { stage: ReloadStage::Surging | ReloadStage::Restoring, .. }) => self.defer(command),
            Some(Reload { id, generation, stage: ReloadStage::Preparing, .. }) => {
                self.log(Level::Info, format!("reload {id} gives way to a newer one"));
                self.reload = None;
                self.journal.settle(id, Outcome::GaveWay);
                self.dismiss_zygote(generation);
                self.begin_reload(now, command);
            }
            None => self.begin_reload(now, command),
        }
    }

    /// The number of the next reload or rollback.
    pub(super) fn number_reload(&mut self) -> u64 {
        let id = self.next_reload;
        self.next_reload += 1;
        id
    }

    pub(super) fn begin_reload(&mut self, now: Instant, command: Command) {
        let id = self.number_reload();
        let generation = self.newest + 1;
        let brutal = command == Command::BrutalReload;
        self.journal.begin(id, Kind::Reload, generation, self.ticket);
        self.reload = Some(Reload {
            id,
            kind: Kind::Reload,
            generation,
            stage: ReloadStage::Preparing,
            brutal,
            policy: None,
            wanted: self.desired,
            drains: false,
            refusal: None,
        });
        self.log(
            Level::Info,
            format!(
                "reload {id} begins: preparing generation {generation} while generation {} serves",
                self.generation
            ),
        );
        self.spawn_zygote(now, generation);
    }

    /// The new code is proven to load: start its workers beside the old ones, or tell those to leave.
    pub(super) fn surge(&mut self, now: Instant, policy: Policy) {
        let wanted = self.wanted_under(&policy);
        let Some(reload) = &mut self.reload else { return };
        reload.wanted = wanted;
        // Who has asked for it once, in the old release or in the new one, must not see both at work.
        reload.drains = [self.policy.reload_mode, policy.reload_mode].contains(&ReloadMode::Drain);
        reload.policy = Some(policy);
        reload.stage = ReloadStage::Surging;
        let (kind, id, generation) = (reload.kind, reload.id, reload.generation);
        if reload.drains {
            let line = format!(
                "{kind} {id}: generation {generation} is loaded; its workers start when the old ones have left \
                 (reload-mode = drain)"
            );
            let reload = reload.clone();
            self.log(Level::Info, line);
            return self.commit_reload(now, reload);
        }
        self.log(
            Level::Info,
            format!("{kind} {id}: generation {generation} is loaded, starting its workers"),
        );
    }

    /// The new generation takes over: the old workers drain and the image is replaced. A rollback keeps it.
    ///
    /// The drain goes on across the re-exec: the master keeps its pid, so it stays the parent of the
    /// old workers, and a response that takes minutes does not hold up the reload.
    pub(super) fn commit_reload(&mut self, now: Instant, reload: Reload) {
        let kind = if reload.brutal { "brutally" } else { "gracefully" };
        self.log(Level::Info, format!("...{kind} killing workers..."));
        self.drain_those(now, reload.drain_mode(), Cause::Reload, |_, it| it.generation != reload.generation);
        self.retire_zygotes(&reload);
        if let Some(before) = self.arrival.take() {
            match reload.kind {
                Kind::Reload => self.journal.settle(before.id, Outcome::GaveWay),
                Kind::Rollback => self.journal.refuse(before.id, GAVE_WAY_TO_ROLLBACK),
            }
        }
        if reload.drains {
            self.arrival = Some(Arrival { kind: reload.kind, id: reload.id, remark: None });
        }
        self.generation = reload.generation;
        self.restored = reload.kind == Kind::Rollback;
        self.want(reload.wanted);
        if let Some(policy) = reload.policy {
            self.policy = policy;
        }
        self.forget_deaths();
        self.roll = None;
        self.call_off_promotion();
        // Wishes of those that leave now are void; the rest is about the new code.
        self.recycling_throttle = Throttle::default();
        self.budget = BudgetWatch::default();
        self.evict_oldest_generations(now);
        if self.restored {
            return self.complete_rollback(now);
        }
        if !reload.drains {
            self.journal.settle(reload.id, Outcome::Serves);
        }
        self.phase = Phase::ReExecuting;
        self.push(Action::ReExec);
    }

    /// What a reload has started goes again; a snapshot goes back to sleep. Its workers that serve already
    /// stay until their slots have others.
    pub(super) fn take_back(&mut self, now: Instant, reload: &Reload) {
        let generation = reload.generation;
        match (reload.kind, &reload.policy) {
            (Kind::Rollback, Some(policy)) => self.put_to_sleep(generation, policy.clone()),
            _ => self.dismiss_zygote(generation),
        }
        self.drain_those(now, DrainMode::Handover, Cause::Refused, |_, it| {
            it.generation == generation && it.is_starting()
        });
    }

    /// `execve` came back: the new workers serve all the same, under the old image of the master.
    pub(super) fn reexec_failed(&mut self, reason: String) {
        self.phase = Phase::Running;
        self.watch_listeners_anew();
        if let Some(reload) = self.reload.take() {
            let remark = format!(
                "the master could not be replaced: {reason}; the old master supervises generation {}",
                reload.generation
            );
            self.log(Level::Error, format!("reload {}: {remark}", reload.id));
            match &mut self.arrival {
                Some(arrival) => arrival.remark = Some(remark),
                None => self.journal.settle(reload.id, Outcome::Complete { remark: Some(remark) }),
            }
        }
    }
}
