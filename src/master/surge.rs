//! ● Starting new workers beside the old ones: all at once, or in steps (`max-surge`), and back again.
//!
//! In steps each new worker that is ready lets the old one of its slot leave. Should a later one fail,
//! the slots that were given up are filled again from the old zygote, and each new worker stays until
//! its slot has an old one again: capacity is kept on the way there and on the way back.

use std::time::Instant;

use log::Level;

use crate::cause::Cause;
use crate::channel::{DrainMode, headline};

use super::reload::{Reload, ReloadStage};
use super::state::Master;
use super::workers::{Generation, SlotId, Worker, WorkerId};

impl Master {
    /// True when one more worker may live while workers are replaced. The stricter of the two
    /// configurations counts: that which serves, and that which is about to.
    pub(super) fn has_room(&self) -> bool {
        let reload = self.reload.as_ref();
        let wanted = self.desired.max(reload.map_or(0, |it| it.wanted));
        let next = reload.and_then(|it| it.policy.as_ref()).and_then(|it| it.max_surge);
        let extra = self.policy.max_surge.into_iter().chain(next).map(|it| it.of(wanted)).min();
        let Some(extra) = extra else { return true };
        // A slot whose next worker is only put off keeps its place.
        let missing = self.wanted_slots().filter(|slot| {
            self.candidate(*slot).is_none() && self.successor(*slot).is_none() && !self.has_stand_in(*slot)
        });
        self.workers.len() + missing.count() < wanted as usize + extra
    }

    /// True when workers are replaced in steps.
    fn in_steps(&self, reload: &Reload) -> bool {
        let next = reload.policy.as_ref().and_then(|it| it.max_surge);
        self.policy.max_surge.or(next).is_some()
    }

    /// True while this generation's workers start beside the old ones.
    pub(super) fn is_surging(&self, generation: Generation) -> bool {
        let surging = |it: &Reload| it.generation == generation && it.stage == ReloadStage::Surging;
        self.reload.as_ref().is_some_and(surging)
    }

    /// True while a reload has begun to replace workers, or takes that back.
    pub(super) fn replacing(&self) -> bool {
        self.reload.as_ref().is_some_and(|it| it.stage != ReloadStage::Preparing)
    }

    /// The worker of the surging generation that is to take over this slot, or has.
    pub(super) fn successor(&self, slot: SlotId) -> Option<&Worker> {
        let surging = self.reload.as_ref().filter(|it| it.stage == ReloadStage::Surging)?;
        self.holder(surging.generation, slot).map(|id| &self.workers[&id])
    }

    /// True for a worker of a generation that was refused, which serves until its slot has another one.
    fn is_stranger(&self, worker: &Worker) -> bool {
        worker.is_ready() && worker.generation != self.generation && !self.is_surging(worker.generation)
    }

    /// True when a worker of a generation that was refused serves in this slot.
    pub(super) fn has_stand_in(&self, slot: SlotId) -> bool {
        self.workers.values().any(|it| it.slot == slot && self.is_stranger(it))
    }

    /// Starts what is missing of the new generation, lets go what it has replaced, and completes the
    /// reload when all of it accepts.
    pub(super) fn check_surge(&mut self, now: Instant) {
        let Some(reload) = self.reload.clone().filter(|it| it.stage == ReloadStage::Surging) else { return };
        for slot in 1..=reload.wanted {
            if !self.has_room() {
                break;
            }
            if self.holder(reload.generation, slot).is_none() {
                self.spawn_worker(now, slot, reload.generation, None);
            }
        }
        let is_ready = |it: &&Worker| it.generation == reload.generation && it.is_ready();
        let ready: Vec<SlotId> = self.workers.values().filter(is_ready).map(|it| it.slot).collect();
        if ready.len() >= reload.wanted as usize {
            return self.commit_reload(now, reload);
        }
        if self.in_steps(&reload) {
            let replaced: Vec<WorkerId> = ready.iter().filter_map(|slot| self.candidate(*slot)).collect();
            for worker in replaced {
                self.drain(now, worker, reload.drain_mode(), Cause::Reload);
            }
        }
    }

    /// The new generation does not work: it goes, the old one stays as it was, or is brought back.
    pub(super) fn refuse_reload(&mut self, now: Instant, reason: String) {
        let Some(reload) = &mut self.reload else { return };
        reload.stage = ReloadStage::Restoring;
        reload.refusal = Some(reason);
        let reload = reload.clone();
        self.take_back(now, &reload);
        self.send_strangers_home(now);
        if let Some(reason) = self.unfinished_refusal() {
            let line = format!(
                "{} {} fails: {}; bringing back the workers of generation {} that have left",
                reload.kind,
                reload.id,
                headline(&reason),
                self.generation
            );
            self.log(Level::Error, line);
        }
    }

    /// Workers of a generation that was refused stay until their slots have workers again.
    pub(super) fn send_strangers_home(&mut self, now: Instant) {
        self.drain_those(now, DrainMode::Handover, Cause::Refused, |master, it| {
            let old = master.candidate(it.slot).map(|id| &master.workers[&id]);
            let replaced = !master.is_wanted(it.slot)
                || old.into_iter().chain(master.successor(it.slot)).any(Worker::is_ready);
            master.is_stranger(it) && replaced
        });
    }

    /// Why a reload is being taken back, while workers of it still serve.
    fn unfinished_refusal(&self) -> Option<String> {
        let reload = self.reload.as_ref()?;
        let reason = reload.refusal.clone()?;
        let serves = |it: &Worker| it.generation == reload.generation && it.is_ready();
        self.workers.values().any(serves).then_some(reason)
    }

    /// Everything is as it was: the reload is refused.
    pub(super) fn check_refusal(&mut self, now: Instant) {
        if self.reload.as_ref().is_some_and(|it| it.refusal.is_some()) && self.unfinished_refusal().is_none()
        {
            self.conclude_refusal(now, "");
        }
    }

    /// Of the old generation nothing can be started any more either: the reload is refused as it
    /// is, and the next one may begin.
    pub(super) fn give_up_restoring(&mut self, now: Instant) {
        if self.unfinished_refusal().is_some() {
            let generation = self.reload.as_ref().map_or(0, |it| it.generation);
            let remark = format!(" beside workers of generation {generation}, which cannot be replaced yet");
            self.conclude_refusal(now, &remark);
        }
    }

    fn conclude_refusal(&mut self, now: Instant, remark: &str) {
        let Some(reload) = self.reload.take() else { return };
        let reason = reload.refusal.unwrap_or_default();
        let (kind, id, generation) = (reload.kind, reload.id, self.generation);
        self.setbacks.refused += 1;
        let line =
            format!("{kind} {id} refused: {}; generation {generation} serves on{remark}", headline(&reason));
        self.log(Level::Error, line);
        self.journal.refuse(id, &reason);
        self.resume_deferred(now);
    }
}
