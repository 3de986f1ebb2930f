//! ● From what is there to what is wanted: which workers are missing, which are too many.

use std::time::Instant;

use crate::cause::Cause;
use crate::channel::DrainMode;

use super::state::{Master, Phase};
use super::workers::{SlotId, ZygoteStage};

impl Master {
    /// Compares what is wanted with what is there, and asks for the difference; after every event.
    ///
    /// What one step leads to may be the cause of another, such as a command that has waited for the end of
    /// what is complete now: until there is nothing left to ask for.
    pub(super) fn repair(&mut self, now: Instant) {
        loop {
            let asked_for = self.actions.len();
            self.repair_once(now);
            if self.actions.len() == asked_for {
                return;
            }
        }
    }

    fn repair_once(&mut self, now: Instant) {
        match self.phase {
            Phase::Starting | Phase::Running => {}
            Phase::Stopping { code, .. } => return self.go_on_stopping(now, code),
            Phase::ReExecuting | Phase::Finished => return,
        }
        self.send_strangers_home(now);
        self.check_refusal(now);
        self.check_arrival();
        self.check_breaker(now);
        self.advance_promotion(now);
        // First what is missing, from code that is known to work, then the new.
        self.fill_slots(now);
        self.check_surge(now);
        if self.phase == Phase::ReExecuting {
            return;
        }
        self.drain_surplus(now);
        self.grant_wishes(now);
        self.advance_roll(now);
    }

    /// Starts the workers that are missing, if there is a zygote to fork them.
    fn fill_slots(&mut self, now: Instant) {
        if !self.zygotes.contains_key(&self.generation) {
            return self.replace_zygote(now);
        }
        if !self.can_fork() {
            return;
        }
        for slot in self.startable(now) {
            // Those before it may have taken the room.
            if self.is_vacant(slot) {
                self.note_trial(slot);
                self.spawn_worker(now, slot, self.generation, None);
            }
        }
    }

    /// The zygote of the serving generation is gone.
    fn replace_zygote(&mut self, now: Instant) {
        if !self.zygote_throttle.allows(now) || self.outlives_zygote() {
            return;
        }
        match self.restored {
            true => self.succeed_restored(now),
            false => self.spawn_zygote(now, self.generation),
        }
    }

    /// True when the zygote of the serving generation can be asked for workers.
    pub(super) fn can_fork(&self) -> bool {
        self.zygotes.get(&self.generation).is_some_and(|it| it.stage == ZygoteStage::Ready)
    }

    /// Slots for which the serving generation has to start a worker.
    pub(super) fn vacancies(&self) -> impl Iterator<Item = SlotId> {
        self.wanted_slots().filter(|slot| self.is_vacant(*slot))
    }

    fn is_vacant(&self, slot: SlotId) -> bool {
        if self.candidate(slot).is_some() || self.waits_for_old_workers() {
            return false;
        }
        match self.successor(slot) {
            Some(successor) if successor.is_ready() => false,
            // With a worker on the way that has taken the room, or one to stand in, there is time.
            Some(_) => self.has_room(),
            None => !self.has_stand_in(slot) || self.has_room(),
        }
    }

    fn drain_surplus(&mut self, now: Instant) {
        self.drain_those(now, DrainMode::Handover, Cause::Surplus, |master, it| {
            !master.is_wanted(it.slot) && it.generation == master.generation && !it.is_leaving()
        });
    }
}
