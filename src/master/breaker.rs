//! ● When workers keep dying: who lives serves on, and the others are tried with pauses, in the end one at a time.
//!
//! Each slot has a throttle: its first short life is answered at once, the next ones after a pause that grows.
//! When several slots keep dying the reason is one that they share: broken code, a database that is gone, no
//! memory. Then the breaker opens: of these slots one is tried at a time, each in its turn, with a pause
//! that grows for all of them together. One that has served for as long as tells a loop from an accident is
//! the proof that it works again: the breaker closes, and all are started. An order to reload closes it at once.

use std::time::{Duration, Instant};

use log::Level;

use crate::cause::Cause;
use crate::error::EXIT_ERROR;

use super::state::{Master, Phase};
use super::supervision::HOPELESS;
use super::throttle::{Pauses, SHORT_LIFE, Throttle};
use super::workers::{SlotId, Stage, Worker, WorkerId};

/// Deaths in a row after which a slot is said to keep dying.
const LOOP: u32 = HOPELESS;
/// Slots that keep dying, at which they have a reason in common.
const COMMON: usize = 2;
/// Failed forks in a row after which a first start is given up: some six seconds. They are no fault of the
/// application, and a shortage of processes or memory may pass.
const HOPELESS_FORKS: u32 = 8;

/// An open breaker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Breaker {
    /// The pause before the next trial.
    pub throttle: Throttle,
    /// The slot that was tried last; those after it come first.
    last: SlotId,
}

impl Master {
    /// A worker is gone that nobody has told to leave: when may its slot be tried again?
    pub(super) fn slow_down(&mut self, now: Instant, id: WorkerId, worker: &Worker, lived: Option<Duration>) {
        self.forgive(now);
        let (slot, cause) = (worker.slot, worker.cause.unwrap_or_default());
        let pid = worker.pid.map_or(0, |pid| pid.as_raw().cast_unsigned());
        let pauses = self.pauses(id ^ u64::from(pid) << 32);
        let throttle = self.throttles.entry(slot).or_default();
        let pause = match cause {
            Cause::ForkFailed => throttle.record_failure(now, pauses),
            _ => throttle.record_death(now, lived, pauses),
        };
        let times = throttle.short_lives();
        if pause.is_zero() {
            return;
        }
        let how = if cause == Cause::ForkFailed { "failed" } else { "died" };
        let line = format!("worker respawning too fast !!! worker {slot} {how} {times} times in a row");
        let next = match &mut self.breaker {
            Some(breaker) if times >= LOOP => {
                let pause = breaker.throttle.record_failure(now, pauses).as_millis();
                match self.next_trial() {
                    Some(next) => format!("worker {next} is tried next, in {pause} ms"),
                    None => format!("next try in {pause} ms"),
                }
            }
            _ => format!("next try in {} ms", pause.as_millis()),
        };
        self.log(Level::Warn, format!("{line}, {next}"));
        self.check_common_reason(now, pauses);
    }

    /// Whether a first start is given up because a worker has never become ready; its exit code then.
    pub(super) fn hopeless_start(&self, slot: SlotId, cause: Cause) -> Option<u8> {
        let times = self.short_lives(slot);
        match cause {
            Cause::ForkFailed => (times >= HOPELESS_FORKS).then_some(EXIT_ERROR),
            _ => (times >= HOPELESS).then(|| self.policy.no_app_code()),
        }
    }

    /// Deaths in a row of the workers of a slot.
    pub(super) fn short_lives(&self, slot: SlotId) -> u32 {
        self.throttles.get(&slot).map_or(0, Throttle::short_lives)
    }

    pub(super) fn pauses(&self, chance: u64) -> Pauses {
        Pauses { longest: self.policy.respawn_pause, chance }
    }

    fn keeps_dying(&self, slot: SlotId) -> bool {
        self.is_wanted(slot) && self.short_lives(slot) >= LOOP
    }

    fn check_common_reason(&mut self, now: Instant, pauses: Pauses) {
        let dying = self.wanted_slots().filter(|slot| self.keeps_dying(*slot)).count();
        // A first start ends anyway when it is hopeless.
        if self.breaker.is_some() || dying < COMMON || self.phase == Phase::Starting {
            return;
        }
        let mut breaker = Breaker::default();
        breaker.throttle.record_failure(now, pauses);
        self.breaker = Some(breaker);
        let living = self.workers.values().filter(|it| it.is_ready()).count();
        let line = format!(
            "{dying} of {} workers keep dying: from now on they are tried one at a time, until one of them serves \
             or a reload is asked for; {living} workers serve on",
            self.desired
        );
        self.log(Level::Error, line);
    }

    /// Forgets the deaths of slots whose workers have served for long enough by now.
    fn forgive(&mut self, now: Instant) {
        let proven: Vec<SlotId> = self
            .throttles
            .keys()
            .copied()
            .filter(|slot| self.proven_at(*slot).is_some_and(|at| now >= at))
            .collect();
        let kept_dying = proven.iter().copied().find(|slot| self.keeps_dying(*slot));
        for slot in proven {
            self.throttles.remove(&slot);
        }
        if let Some(slot) = kept_dying.filter(|_| self.breaker.is_some()) {
            self.log(Level::Info, format!("worker {slot} stays alive: the others are started again"));
            self.relent();
        }
    }

    /// When the worker of a slot has served for longer than one in a loop would; `None` if it does not serve.
    fn proven_at(&self, slot: SlotId) -> Option<Instant> {
        let worker = &self.workers[&self.candidate(slot)?];
        match worker.stage {
            // One that has just been killed has proven nothing.
            Stage::Ready { since } => worker.cause.is_none().then(|| since + SHORT_LIFE),
            Stage::Starting { .. } | Stage::Leaving { .. } => None,
        }
    }

    /// Closes the breaker once there is nobody left for whom it is open, or who has proven that it need not be.
    pub(super) fn check_breaker(&mut self, now: Instant) {
        if self.breaker.is_none() {
            return;
        }
        self.forgive(now);
        if self.wanted_slots().all(|slot| !self.keeps_dying(slot)) {
            self.breaker = None;
        }
    }

    /// All slots may be tried once more, at once: somebody says that it works now, or one of them shows it.
    fn relent(&mut self) {
        self.breaker = None;
        self.zygote_throttle.relent();
        self.throttles.values_mut().for_each(Throttle::relent);
    }

    /// Somebody has asked for workers to be started anew.
    pub(super) fn try_again(&mut self) {
        if self.phase != Phase::Running {
            return;
        }
        if self.breaker.is_some() {
            self.log(Level::Info, "workers that kept dying are tried again, all at once".to_owned());
        }
        self.relent();
    }

    /// Another generation serves: what became of workers before says nothing about its own.
    pub(super) fn forget_deaths(&mut self) {
        self.breaker = None;
        self.throttles.clear();
    }

    /// The slot of which a worker is on trial.
    fn trial(&self) -> Option<SlotId> {
        self.breaker?;
        self.wanted_slots().find(|slot| self.keeps_dying(*slot) && self.candidate(*slot).is_some())
    }

    /// The slot that is tried next, if it is not too early.
    fn next_trial(&self) -> Option<SlotId> {
        let last = self.breaker?.last;
        let waiting = || self.vacancies().filter(|slot| self.keeps_dying(*slot));
        waiting().find(|slot| *slot > last).or_else(|| waiting().next())
    }

    /// Vacant slots that may be filled now.
    pub(super) fn startable(&self, now: Instant) -> Vec<SlotId> {
        let on_trial = match &self.breaker {
            Some(breaker) if breaker.throttle.allows(now) && self.trial().is_none() => self.next_trial(),
            _ => None,
        };
        let may = |slot: &SlotId| match self.breaker {
            Some(_) if self.keeps_dying(*slot) => on_trial == Some(*slot),
            _ => self.throttles.get(slot).is_none_or(|throttle| throttle.allows(now)),
        };
        self.vacancies().filter(may).collect()
    }

    /// Notes whose turn it was.
    pub(super) fn note_trial(&mut self, slot: SlotId) {
        if self.keeps_dying(slot)
            && let Some(breaker) = &mut self.breaker
        {
            breaker.last = slot;
        }
    }

    /// When a vacant slot may be tried next; `None` while others come first.
    pub(super) fn next_start(&self, slot: SlotId) -> Option<Instant> {
        match &self.breaker {
            Some(breaker) if self.keeps_dying(slot) => {
                let is_next = self.trial().is_none() && self.next_trial() == Some(slot);
                breaker.throttle.not_before.filter(|_| is_next)
            }
            _ => self.throttles.get(&slot).and_then(|it| it.not_before),
        }
    }

    /// When the next worker may be started, or one on trial has proven itself.
    pub(super) fn respawn_deadline(&self) -> Option<Instant> {
        // Nobody can be respawned before there is a zygote, whose own word or deadline comes first.
        if !self.can_fork() {
            return None;
        }
        let starts = self.vacancies().filter_map(|slot| self.next_start(slot));
        let trials = self.wanted_slots().filter(|slot| self.breaker.is_some() && self.keeps_dying(*slot));
        starts.chain(trials.filter_map(|slot| self.proven_at(slot))).min()
    }

    /// `die-on-no-workers`: nobody serves, and nobody can be started to.
    pub(super) fn check_no_workers(&mut self, now: Instant, slot: SlotId) {
        let asked = self.policy.die_on_no_workers && self.phase == Phase::Running && self.reload.is_none();
        if !asked || self.short_lives(slot) < HOPELESS || self.workers.values().any(Worker::is_ready) {
            return;
        }
        self.log(
            Level::Error,
            "no worker is left, and those that are started keep dying (die-on-no-workers)".to_owned(),
        );
        self.stop(now, EXIT_ERROR, true);
    }
}
