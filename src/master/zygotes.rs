//! ● What becomes of zygotes: spawned, loaded, failed, lost, dismissed.

use std::time::Instant;

use log::Level;

use crate::channel::headline;
use crate::error::EXIT_ERROR;
use crate::sys::process::{Exit, Pid, Signal};

use super::event::Action;
use super::killing::Subject;
use super::policy::Policy;
use super::promotion::Warmth;
use super::reload::Reload;
use super::state::{Master, Phase};
use super::throttle::Throttle;
use super::workers::{Generation, Worker, WorkerId, Zygote, ZygoteStage};

impl Master {
    pub(super) fn spawn_zygote(&mut self, now: Instant, generation: Generation) {
        let stage = ZygoteStage::Loading { deadline: now + self.policy.boot_timeout };
        self.newest = self.newest.max(generation);
        self.zygotes.insert(generation, Zygote { pid: None, stage, warmth: Warmth::Cold(0) });
        self.push(Action::SpawnZygote { generation });
    }

    pub(super) fn zygote_spawned(&mut self, generation: Generation, pid: Pid) {
        match self.zygotes.get_mut(&generation) {
            Some(zygote) => zygote.pid = Some(pid),
            // Dismissed in the same breath as it was asked for.
            None => self.push(Action::DismissZygote { generation, pid: Some(pid) }),
        }
    }

    pub(super) fn zygote_loaded(&mut self, now: Instant, generation: Generation, policy: Policy) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        if !matches!(zygote.stage, ZygoteStage::Loading { .. }) {
            // Dismissed, or too late: it has been killed meanwhile.
            return;
        }
        zygote.stage = ZygoteStage::Ready;
        if generation == self.generation {
            self.zygote_throttle = Throttle::default();
            if self.desired == 0 && self.phase == Phase::Starting {
                // Cheap, or a server that only lends sockets: there are no workers whose word would end the
                // start.
                self.serve(now);
            }
        }
        if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            self.surge(now, policy);
        }
    }

    /// The zygote has said why; its exit follows and is acted upon.
    pub(super) fn zygote_load_failed(&mut self, generation: Generation, reason: String, code: u8) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        zygote.stage = ZygoteStage::Failed { reason, code };
        if let Some(pid) = zygote.pid {
            self.push(Action::Kill { pid, signal: Signal::SIGKILL });
        }
    }

    pub(super) fn zygote_exited(&mut self, now: Instant, generation: Generation, exit: Exit) {
        let Some(zygote) = self.zygotes.remove(&generation) else { return };
        self.forget_sentence(Subject::Zygote(generation));
        self.push(Action::DismissZygote { generation, pid: None });
        self.forget_unforked(generation);
        match zygote.stage {
            ZygoteStage::Failed { reason, code } => self.zygote_failed(now, generation, reason, code),
            ZygoteStage::Loading { .. } => {
                let reason = format!("the zygote ended with {exit} before the application was loaded");
                self.zygote_failed(now, generation, reason, self.policy.no_app_code());
            }
            ZygoteStage::Ready | ZygoteStage::Asleep { .. } if self.stopping() => {}
            ZygoteStage::Asleep { .. } => {
                let line =
                    format!("snapshot of generation {generation} is lost: the zygote ended with {exit}");
                self.log(Level::Warn, line);
            }
            ZygoteStage::Ready => {
                self.zygote_failed(now, generation, format!("the zygote ended with {exit}"), EXIT_ERROR);
            }
        }
    }

    /// Workers that a zygote was asked for and will never fork: the slots are free for the next one.
    fn forget_unforked(&mut self, generation: Generation) {
        let unforked = |worker: &Worker| worker.generation == generation && worker.pid.is_none();
        let lost: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| unforked(worker)).map(|(id, _)| *id).collect();
        for id in lost {
            let Some(worker) = self.workers.remove(&id) else { continue };
            self.push(Action::Retire { worker: id, cell: worker.cell });
            if worker.replaces.is_some() {
                self.abort_roll("the zygote ended before it had forked the next worker");
            }
        }
    }

    pub(super) fn zygote_failed(&mut self, now: Instant, generation: Generation, reason: String, code: u8) {
        let prepared = |reload: &Reload| {
            reload.generation == generation && self.generation != generation && reload.refusal.is_none()
        };
        if self.reload.as_ref().is_some_and(prepared) {
            self.refuse_reload(now, reason);
        } else if generation == self.generation && self.phase == Phase::Starting {
            self.give_up_start(now, reason, code);
        } else if generation == self.generation && self.restored && !self.stopping() {
            self.zygote_throttle.record_death(now, None, self.pauses(self.next_worker));
            self.log(Level::Error, self.outlived(headline(&reason)));
        } else if generation == self.generation && !self.stopping() {
            // The workers serve on; without a zygote a dead one could not be replaced.
            let delay = self.zygote_throttle.record_death(now, None, self.pauses(self.next_worker));
            self.arrival_fails(self.zygote_throttle.short_lives(), &reason);
            self.log(
                Level::Error,
                format!("zygote of generation {generation} lost: {}; its workers serve on, a new one is started in {} ms", headline(&reason), delay.as_millis()),
            );
            self.give_up_restoring(now);
        }
    }

    /// Kills a zygote; it stays in the table until it is reaped.
    pub(super) fn dismiss_zygote(&mut self, generation: Generation) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        let pid = zygote.pid;
        if pid.is_none() {
            self.zygotes.remove(&generation);
        } else {
            zygote.stage = ZygoteStage::Failed { reason: "dismissed".to_owned(), code: EXIT_ERROR };
        }
        self.push(Action::DismissZygote { generation, pid });
    }
}
