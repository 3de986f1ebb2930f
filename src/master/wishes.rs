//! ● Workers that are to be replaced: each when its time has come, and not too many at once.
//!
//! Who asks serves on until its successor accepts. A wish is kept until its worker leaves, for whatever reason:
//! during a reload, which makes it void unless it is refused, and while successors cannot be started.

use std::time::{Duration, Instant};

use log::Level;
use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::channel::headline;

use super::state::{Master, Phase};
use super::workers::{Stage, Worker, WorkerId};

/// Pauses between attempts grow at least to this, also where a crash loop may go on without any: nobody waits
/// for these replacements.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// A worker that is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// Which.
    pub(super) worker: WorkerId,
    /// Why.
    pub(super) cause: Cause,
}

impl Master {
    /// A worker is to be replaced: by `SIGHUP` to it, or for a limit it has reached.
    pub(super) fn replace_on_request(&mut self, id: WorkerId, cause: Cause, reason: &str) {
        let Some(worker) = self.workers.get(&id).filter(|it| it.is_ready()) else { return };
        let slot = worker.slot;
        let known = self.wishes.iter_mut().find(|wish| wish.worker == id);
        if let Some(wish) = known {
            // Who asks for it does not have to wait until it is its turn.
            if !cause.is_recycling() {
                wish.cause = cause;
            }
        } else if !self.stopping() {
            self.log(Level::Info, format!("worker {slot} asks to be replaced: {reason}"));
            self.wishes.push_back(Wish { worker: id, cause });
        }
    }

    /// Whether the worker is to be replaced already.
    pub(super) fn is_wished(&self, id: WorkerId) -> bool {
        self.wishes.iter().any(|wish| wish.worker == id)
    }

    /// Starts successors for those whose time has come, as long as there is room.
    pub(super) fn grant_wishes(&mut self, now: Instant) {
        self.end_lifetimes(now);
        let workers = &self.workers;
        self.wishes.retain(|wish| workers.get(&wish.worker).is_some_and(Worker::is_ready));
        while let Some(Wish { worker: id, cause }) = self.next_wish(now) {
            self.wish_for_successor(id, cause);
            let (slot, generation) = (self.workers[&id].slot, self.workers[&id].generation);
            self.spawn_worker(now, slot, generation, Some(id));
        }
    }

    /// Notes why a worker is about to be replaced.
    pub(super) fn wish_for_successor(&mut self, id: WorkerId, cause: Cause) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.wish = Some(cause);
        }
    }

    fn next_wish(&self, now: Instant) -> Option<Wish> {
        self.grantable().find(|wish| self.due(**wish).is_none_or(|due| now >= due)).copied()
    }

    /// When the next wish can be granted, if nothing but time keeps it from that.
    pub(super) fn wishes_due(&self) -> Option<Instant> {
        self.grantable().filter_map(|wish| self.due(*wish)).min()
    }

    /// Wishes for which there is room.
    fn grantable(&self) -> impl Iterator<Item = &Wish> {
        let open =
            self.phase == Phase::Running && self.reload.is_none() && self.can_fork() && self.has_room();
        // What an operator has asked for does not take turns with limits.
        let most = self.policy.recycling.at_a_time.of(self.desired);
        let has_turn = open && self.roll.is_none() && self.recycled().count() < most;
        self.wishes.iter().filter(move |wish| {
            let serves = self
                .workers
                .get(&wish.worker)
                .is_some_and(|it| it.is_ready() && it.generation == self.generation);
            let is_replaced = || self.workers.values().any(|it| it.replaces == Some(wish.worker));
            open && (has_turn || !wish.cause.is_recycling()) && serves && !is_replaced()
        })
    }

    /// Workers that are being replaced for a limit: the successors that start, and the old ones that leave.
    fn recycled(&self) -> impl Iterator<Item = &Worker> {
        let recycles = |cause: Option<Cause>| cause.is_some_and(Cause::is_recycling);
        self.workers.values().filter(move |it| {
            let old = it.replaces.and_then(|id| self.workers.get(&id));
            old.is_some_and(|old| recycles(old.wish)) || (it.is_leaving() && recycles(it.cause))
        })
    }

    /// When the time of a wish has come; `None` is at once.
    fn due(&self, wish: Wish) -> Option<Instant> {
        let Stage::Ready { since } = self.workers.get(&wish.worker)?.stage else { return None };
        let old_enough = since + self.policy.recycling.min_lifetime;
        let due = self.recycling_throttle.not_before.map_or(old_enough, |at| at.max(old_enough));
        wish.cause.is_recycling().then_some(due)
    }

    /// A successor died young: the old worker serves on. An operator has to ask again; for a limit another
    /// attempt is made, later each time.
    pub(super) fn replacement_failed(&mut self, now: Instant, old: WorkerId, reason: &str) {
        let wish = self.workers.get(&old).and_then(|it| it.wish);
        if !wish.is_some_and(Cause::is_recycling) {
            self.wishes.retain(|it| it.worker != old || it.cause.is_recycling());
            return self.abort_roll(reason);
        }
        self.setbacks.unreplaced += 1;
        let mut pauses = self.pauses(self.next_worker);
        pauses.longest = pauses.longest.max(LEAST_PAUSE);
        let pause = self.recycling_throttle.record_death(now, None, pauses).as_millis();
        let line = format!(
            "replacement failed: {}; the old worker serves on, next try in {pause} ms",
            headline(reason)
        );
        self.log(Level::Error, line);
    }
}
