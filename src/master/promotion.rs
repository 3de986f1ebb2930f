//! ● Promotion: a worker that has served for a while becomes the zygote (`refork-after`).
//!
//! What it has loaded and cached by then, all later workers share. First another worker takes over its
//! slot, as in a chain reload; it finishes its requests, becomes a zygote, and says so; only then does the
//! zygote before go, and the workers forked from it are replaced one by one. Whatever fails on the way,
//! the generation goes on with the zygote it has.

use std::time::Instant;

use log::Level;

use crate::cause::Cause;
use crate::channel::{DrainMode, headline};
use crate::sys::process::Signal;

use super::event::Action;
use super::state::{Master, Phase};
use super::throttle::Throttle;
use super::wishes::Wish;
use super::workers::{SlotId, Stage, Worker, WorkerId, Zygote, ZygoteStage};

/// Attempts after which a generation goes on with the zygote it has: what keeps one worker from being
/// forked, such as threads, mostly keeps all.
const ATTEMPTS: u8 = 3;

/// How far a zygote's generation has come to have one that is warm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Warmth {
    /// It has loaded the application and served nothing; so many attempts have failed to replace it.
    Cold(u8),
    /// It was a worker.
    Warm,
}

/// A promotion under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promotion {
    heir: WorkerId,
    slot: SlotId,
    step: Step,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The heir serves until its slot has another worker.
    Succession,
    /// It has been told, and finishes its requests.
    Told,
    /// It can fork; what the zygote before was asked for comes first.
    Ready,
    /// It is the zygote. The workers of the one before are to be replaced, once nothing else is under way.
    Enthroned,
}

impl Master {
    /// A worker has served enough to be worth sharing, unless something keeps it from being forked.
    pub(super) fn worker_warm(&mut self, id: WorkerId, obstacle: Option<String>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let slot = worker.slot;
        match obstacle {
            None => worker.warm = true,
            Some(_) if worker.generation != self.generation || !self.wants_heir() => {}
            Some(obstacle) => self.no_heir(slot, headline(&obstacle)),
        }
    }

    /// The heir has become a zygote.
    pub(super) fn heir_ready(&mut self, id: WorkerId) {
        if let Some(promotion) = &mut self.promotion
            && promotion.heir == id
            && promotion.step == Step::Told
        {
            promotion.step = Step::Ready;
        }
    }

    /// The heir cannot become a zygote; it leaves like any other worker that was told to.
    pub(super) fn heir_unfit(&mut self, id: WorkerId, reason: &str) {
        if let Some(Promotion { slot, .. }) = self.promotion.filter(|it| it.heir == id) {
            self.call_off_promotion();
            self.no_heir(slot, headline(reason));
        }
    }

    /// True while nothing has replaced the zygote that loaded the application, and something may.
    fn wants_heir(&self) -> bool {
        let hopeful = |it: &Zygote| {
            it.stage == ZygoteStage::Ready && matches!(it.warmth, Warmth::Cold(failed) if failed < ATTEMPTS)
        };
        self.zygotes.get(&self.generation).is_some_and(hopeful)
    }

    fn is_calm(&self) -> bool {
        let replaces_nobody = self.reload.is_none() && self.arrival.is_none() && self.roll.is_none();
        self.phase == Phase::Running && replaces_nobody
    }

    /// Takes the next step, whatever has happened.
    pub(super) fn advance_promotion(&mut self, now: Instant) {
        let Some(Promotion { heir, slot, step }) = self.promotion else { return self.begin_promotion() };
        let worker = self.workers.get(&heir);
        let leaves_in_peace =
            |it: &Worker| matches!(it.stage, Stage::Leaving { mode: DrainMode::Handover, .. });
        match step {
            Step::Succession if worker.is_some_and(Worker::is_ready) && self.is_being_replaced(heir) => {}
            Step::Told if worker.is_some_and(leaves_in_peace) => {}
            Step::Ready if worker.is_some_and(leaves_in_peace) => self.enthrone(heir),
            Step::Enthroned => self.begin_warm_roll(now),
            Step::Succession => {
                self.call_off_promotion();
                self.no_heir(slot, "it has to leave, or no other worker could take over from it");
            }
            Step::Told | Step::Ready => {
                self.call_off_promotion();
                self.no_heir(slot, "it has ended, or has to leave at once");
            }
        }
    }

    /// Chooses an heir, and asks for its successor.
    fn begin_promotion(&mut self) {
        if !self.is_calm() || !self.wants_heir() {
            return;
        }
        let fits = |it: &Worker| it.warm && it.is_ready() && it.generation == self.generation;
        let free = |id: &WorkerId| !self.is_being_replaced(*id);
        let found = self.workers.iter().find(|(id, it)| fits(it) && free(id));
        let Some((heir, slot)) = found.map(|(id, it)| (*id, it.slot)) else { return };
        self.log(
            Level::Info,
            format!(
                "worker {slot} is warm (refork-after): it becomes the zygote of generation {} once another worker \
                 has taken over from it",
                self.generation
            ),
        );
        self.promotion = Some(Promotion { heir, slot, step: Step::Succession });
        self.wishes.push_back(Wish { worker: heir, cause: Cause::Promoted });
    }

    /// True when another worker starts in its place, or waits for room to do so.
    fn is_being_replaced(&self, worker: WorkerId) -> bool {
        self.is_wished(worker) || self.workers.values().any(|it| it.replaces == Some(worker))
    }

    /// The heir's successor accepts: true if this worker is the heir, which is told then.
    pub(super) fn promotes(&mut self, now: Instant, worker: WorkerId) -> bool {
        let Some(promotion) = self.promotion.as_mut().filter(|it| it.heir == worker) else { return false };
        let Some(heir) = self.workers.get_mut(&worker).filter(|it| it.is_ready()) else { return false };
        promotion.step = Step::Told;
        let patience = self.policy.mercy;
        // After its requests it puts its memory in order, which may take as long as a start.
        let kill_at = now + patience + self.policy.boot_timeout;
        heir.stage = Stage::Leaving { since: now, kill_at, mode: DrainMode::Handover };
        heir.cause.get_or_insert(Cause::Promoted);
        self.push(Action::Promote { worker, patience });
        true
    }

    /// The heir takes the place of the zygote before, whose workers are all forked.
    fn enthrone(&mut self, heir: WorkerId) {
        let generation = self.generation;
        let unforked = |it: &Worker| it.generation == generation && it.pid.is_none();
        // One that is being loaded in place of one that was lost has no pid for a moment.
        let nameless = self.zygotes.get(&generation).is_some_and(|it| it.pid.is_none());
        if nameless || self.workers.values().any(unforked) {
            return;
        }
        let Some(worker) = self.workers.remove(&heir) else { return };
        let Some(pid) = worker.pid else { return };
        self.push(Action::Enthrone { generation, worker: heir });
        self.push(Action::Retire { worker: heir, cell: worker.cell });
        self.causes.count(Cause::Promoted);
        let zygote = Zygote { pid: Some(pid), stage: ZygoteStage::Ready, warmth: Warmth::Warm };
        let former = self.zygotes.insert(generation, zygote).and_then(|it| it.pid);
        self.zygote_throttle = Throttle::default();
        if let Some(pid) = former {
            self.former_zygotes.push(pid);
            self.push(Action::Kill { pid, signal: Signal::SIGKILL });
        }
        let slot = worker.slot;
        self.log(
            Level::Info,
            format!("the worker that was number {slot} (pid: {pid}) is the zygote of generation {generation} from now on"),
        );
        self.promotion = Some(Promotion { heir, slot, step: Step::Enthroned });
    }

    /// Replaces the workers that do not share the memory of the new zygote.
    fn begin_warm_roll(&mut self, now: Instant) {
        let is_warm = |it: &Zygote| it.stage == ZygoteStage::Ready && it.warmth == Warmth::Warm;
        if !self.zygotes.get(&self.generation).is_some_and(is_warm) {
            // It is gone again.
            self.promotion = None;
        } else if self.is_calm() {
            self.promotion = None;
            self.start_warm_roll();
            self.advance_roll(now);
        }
    }

    /// Nothing comes of the promotion under way; a worker that was told to become the zygote just leaves.
    pub(super) fn call_off_promotion(&mut self) {
        let Some(promotion) = self.promotion.take() else { return };
        match promotion.step {
            Step::Succession => self.wishes.retain(|it| it.worker != promotion.heir),
            Step::Told | Step::Ready => self.push(Action::CallOffPromotion),
            Step::Enthroned => {}
        }
    }

    /// An attempt has failed.
    fn no_heir(&mut self, slot: SlotId, reason: &str) {
        let generation = self.generation;
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        let Warmth::Cold(failed) = &mut zygote.warmth else { return };
        *failed += 1;
        let rest = match *failed < ATTEMPTS {
            true => "another worker may",
            false => "the generation goes on with the zygote it has",
        };
        let line = format!(
            "worker {slot} does not become the zygote of generation {generation}: {reason}; {rest} (refork-after)"
        );
        self.log(Level::Warn, line);
    }
}
