//! ● How many workers there should be, when that follows the load (`cheaper`).
//!
//! Each turn an algorithm sees what the workers do and gives an advice; what comes of it is decided here: never
//! fewer than `cheaper`, never more than `processes`, none more with too much memory in use. A worker is added
//! in the lowest slot that is free. The oldest of those that have nothing to do is sent home, by hand-over:
//! its connections go to others. One that works is never chosen: it would stay beside its successor for as
//! long as its request takes, and these could become many.

mod busyness;
mod spare;
mod spare2;

use std::time::Instant;

use log::Level;

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::config::scaling::{Algorithm, Scaling};

use super::policy::Policy;
use super::sample::{Sample, WorkerSample};
use super::state::{Master, Phase};
use super::workers::{SlotId, Stage, Worker, WorkerId};

/// What an algorithm goes by.
#[derive(Debug, Clone, Copy)]
struct Turn<'a> {
    now: Instant,
    /// Workers there should be.
    active: u32,
    /// Workers there could be beyond them.
    room: u32,
    /// Those of them that could take no other request.
    full: u32,
    /// Those that have nothing to do.
    idle: u32,
    /// Clients in the longest listen queue.
    waiting: u32,
    /// Requests that a worker runs at a time.
    slots: u32,
    /// Those that were ready.
    workers: &'a [WorkerSample],
}

/// Which way to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Stay,
    /// Add so many.
    More(u32),
    /// Send one home.
    Fewer,
}

/// What an algorithm says, and why; the reason is read behind its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Advice {
    change: Change,
    reason: String,
    /// What to tell the log in any case.
    remark: Option<String>,
}

impl Advice {
    fn stay() -> Self {
        Advice { change: Change::Stay, reason: String::new(), remark: None }
    }

    fn new(change: Change, reason: String) -> Self {
        Advice { change, reason, remark: None }
    }
}

/// What an algorithm remembers from turn to turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Memory {
    Spare(spare::Spare),
    Spare2(spare2::Spare2),
    Busyness(busyness::Busyness),
    /// Backlog and manual remember nothing.
    #[default]
    Nothing,
}

impl Memory {
    /// That of the algorithm, begun anew when it was another one's.
    fn of(&mut self, algorithm: Algorithm) -> &mut Self {
        match (algorithm, &*self) {
            (Algorithm::Spare, Memory::Spare(_))
            | (Algorithm::Spare2, Memory::Spare2(_))
            | (Algorithm::Busyness, Memory::Busyness(_))
            | (Algorithm::Backlog | Algorithm::Manual, Memory::Nothing) => {}
            (Algorithm::Spare, _) => *self = Memory::Spare(Default::default()),
            (Algorithm::Spare2, _) => *self = Memory::Spare2(Default::default()),
            (Algorithm::Busyness, _) => *self = Memory::Busyness(Default::default()),
            (Algorithm::Backlog | Algorithm::Manual, _) => *self = Memory::Nothing,
        }
        self
    }

    fn advise(&mut self, scaling: &Scaling, turn: &Turn<'_>) -> Advice {
        match self.of(scaling.algorithm) {
            Memory::Spare(spare) => spare.advise(scaling, turn),
            Memory::Spare2(spare2) => spare2.advise(scaling, turn),
            Memory::Busyness(busyness) => busyness.advise(scaling, turn),
            Memory::Nothing if scaling.algorithm == Algorithm::Backlog => backlog(scaling, turn),
            Memory::Nothing => Advice::stay(),
        }
    }
}

/// Workers wanted under the next configuration, of so many: a number that was lowered, by hand or by the load,
/// stays within the new limits; `all` stay all, and none stay none.
pub(super) fn carried_over(desired: u32, all: bool, next: &Policy) -> u32 {
    match desired {
        0 => 0,
        _ if next.scaling.follows_load() => desired.max(next.scaling.fewest).min(next.processes),
        _ if all => next.processes,
        _ => desired.min(next.processes),
    }
}

/// More than `cheaper-overload` clients wait: more workers. Fewer wait: one less, each turn.
fn backlog(scaling: &Scaling, turn: &Turn<'_>) -> Advice {
    let waiting = turn.waiting;
    if waiting > scaling.overload {
        Advice::new(Change::More(scaling.step), format!("{waiting} clients wait in the listen queue"))
    } else if waiting < scaling.overload {
        Advice::new(Change::Fewer, format!("only {waiting} clients wait in the listen queue"))
    } else {
        Advice::stay()
    }
}

/// What the memory in use makes of an advice. The log is told once that a worker is not added; `told` says
/// whether it was.
fn within_memory(scaling: &Scaling, rss: u64, advice: Advice, told: &mut bool) -> Advice {
    let is_scarce = scaling.rss_soft > 0 && rss >= scaling.rss_soft;
    *told &= is_scarce;
    if scaling.rss_hard > 0 && rss >= scaling.rss_hard {
        let reason = format!("the workers take {rss} bytes (cheaper-rss-limit-hard)");
        return Advice { change: Change::Fewer, reason, ..advice };
    }
    if !is_scarce || !matches!(advice.change, Change::More(_)) {
        return advice;
    }
    let remark = format!(
        "cheaper: no worker is added although {}: the workers take {rss} bytes (cheaper-rss-limit-soft)",
        advice.reason
    );
    let is_news = !std::mem::replace(told, true);
    Advice { change: Change::Stay, remark: if is_news { Some(remark) } else { advice.remark }, ..advice }
}

impl Master {
    /// The slots in which there should be workers, in ascending order: as many as are wanted, without those
    /// that were given up below them.
    pub(super) fn wanted_slots(&self) -> impl Iterator<Item = SlotId> {
        (1..=self.highest_slot()).filter(|slot| !self.cheaped.contains(slot))
    }

    /// True when there should be a worker in this slot.
    pub(super) fn is_wanted(&self, slot: SlotId) -> bool {
        slot <= self.highest_slot() && !self.cheaped.contains(&slot)
    }

    fn highest_slot(&self) -> SlotId {
        self.desired + self.cheaped.len() as SlotId
    }

    /// So many workers, in the lowest slots.
    pub(super) fn want(&mut self, workers: u32) {
        self.desired = workers;
        self.cheaped.clear();
    }

    /// One worker more, in the lowest slot that is free.
    pub(super) fn want_one_more(&mut self) {
        self.desired += 1;
        self.cheaped.pop_first();
    }

    /// One worker less: that of this slot, or else of the highest one.
    pub(super) fn want_one_less(&mut self, slot: Option<SlotId>) {
        if self.desired == 0 {
            return;
        }
        let given_up = slot.filter(|slot| self.is_wanted(*slot)).or_else(|| self.wanted_slots().last());
        self.cheaped.extend(given_up);
        self.desired -= 1;
        // What lies above the highest that is left need not be remembered.
        while self.cheaped.last().is_some_and(|last| *last == self.highest_slot()) {
            self.cheaped.pop_last();
        }
    }

    /// How many workers there should be under another configuration.
    pub(super) fn wanted_under(&self, next: &Policy) -> u32 {
        let all = self.desired == self.policy.processes || self.policy.scaling.follows_load();
        carried_over(self.desired, all, next)
    }

    /// True when it matters how much memory the workers take.
    pub(super) fn bounds_memory(&self) -> bool {
        let Scaling { rss_soft, rss_hard, .. } = self.policy.scaling;
        self.policy.scaling.follows_load() && (rss_soft > 0 || rss_hard > 0)
    }

    /// Fewest workers that `-` leaves.
    pub(super) fn fewest(&self) -> u32 {
        self.policy.scaling.fewest.max(1).min(self.policy.processes)
    }

    /// True while there may be workers too many.
    pub(super) fn may_shrink(&self) -> bool {
        let Scaling { algorithm, rss_hard, .. } = &self.policy.scaling;
        let decides = *algorithm != Algorithm::Manual || *rss_hard > 0;
        self.policy.scaling.follows_load() && decides && self.desired > self.fewest() && self.may_scale()
    }

    /// True while nothing else changes the number of workers, or keeps them from working.
    fn may_scale(&self) -> bool {
        let changing = self.replacing() || self.arrival.is_some();
        self.phase == Phase::Running && self.desired > 0 && !self.paused && !changing
    }

    /// A turn: adds workers, or sends one home.
    pub(super) fn take_turn(&mut self, now: Instant, sample: &Sample) {
        let scaling = self.policy.scaling.clone();
        if !scaling.follows_load() || !self.may_scale() {
            return;
        }
        let staying = |it: &&WorkerSample| {
            let worker = self.workers.get(&it.worker);
            worker.is_some_and(|worker| worker.is_ready() && worker.generation == self.generation)
        };
        let workers: Vec<WorkerSample> = sample.workers.iter().filter(staying).copied().collect();
        let count = |check: &dyn Fn(&WorkerSample) -> bool| workers.iter().filter(|it| check(it)).count();
        let slots = self.policy.threads;
        let turn = Turn {
            now,
            active: self.desired,
            room: self.policy.processes.saturating_sub(self.desired),
            full: count(&|it| it.in_flight >= u64::from(slots)) as u32,
            idle: count(&|it| it.in_flight == 0) as u32,
            waiting: sample.waiting(),
            slots,
            workers: &workers,
        };
        let advice = match scaling.fewest.checked_sub(self.desired) {
            Some(missing @ 1..) => Advice::new(Change::More(missing), "they are fewer than cheaper".into()),
            _ => self.memory.advise(&scaling, &turn),
        };
        let advice = within_memory(&scaling, sample.rss, advice, &mut self.told_scarce);
        if let Some(remark) = advice.remark {
            self.log(Level::Info, remark);
        }
        match advice.change {
            Change::Stay => {}
            Change::More(count) => self.grow(count, &advice.reason),
            Change::Fewer => self.shrink(now, &workers, &advice.reason),
        }
    }

    fn grow(&mut self, count: u32, reason: &str) {
        let before = self.desired;
        for _ in 0..count {
            if self.desired >= self.policy.processes || !self.has_room_to_grow(self.desired - before) {
                break;
            }
            self.want_one_more();
        }
        if self.desired > before {
            self.tell_wanted(reason, "");
        }
    }

    /// With `max-surge`, workers that have been sent home and are still there count.
    fn has_room_to_grow(&self, added: u32) -> bool {
        let Some(surge) = self.policy.max_surge else { return true };
        let living = self.workers.values().filter(|it| !it.quiet).count() + added as usize;
        living < self.policy.processes as usize + surge.of(self.policy.processes)
    }

    fn shrink(&mut self, now: Instant, workers: &[WorkerSample], reason: &str) {
        if self.desired <= self.fewest() {
            return;
        }
        let idle = workers.iter().filter(|it| it.in_flight == 0).map(|it| it.worker);
        let Some((worker, slot)) = self.oldest(idle) else { return };
        self.want_one_less(Some(slot));
        self.tell_wanted(reason, &format!(", worker {slot} cheaped"));
        self.drain(now, worker, DrainMode::Handover, Cause::Cheaper);
    }

    /// The one of these that has served for longest, unless it is about to be replaced.
    fn oldest(&self, workers: impl Iterator<Item = WorkerId>) -> Option<(WorkerId, SlotId)> {
        let since = |worker: &Worker| match worker.stage {
            Stage::Ready { since } => Some(since),
            Stage::Starting { .. } | Stage::Leaving { .. } => None,
        };
        workers
            .filter(|id| self.workers.values().all(|it| it.replaces != Some(*id)))
            .filter_map(|id| self.workers.get(&id).and_then(|it| Some((since(it)?, id, it.slot))))
            .filter(|(.., slot)| self.is_wanted(*slot))
            .min()
            .map(|(_, id, slot)| (id, slot))
    }

    fn tell_wanted(&mut self, reason: &str, and: &str) {
        let (algorithm, wanted) = (self.policy.scaling.algorithm, self.desired);
        let line = format!(
            "cheaper ({algorithm}): {reason}: {wanted} of {} workers wanted{and}",
            self.policy.processes
        );
        self.log(Level::Info, line);
    }
}

#[cfg(test)]
mod tests;
