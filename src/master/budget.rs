//! ● `memory-budget`: when all together have too much memory, the largest worker is replaced, one at a time,
//! and not for ever.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use log::Level;

use crate::cause::Cause;

use super::standing::mebibytes;
use super::state::{Master, Phase};
use super::workers::{SlotId, Stage, WorkerId};

/// A worker that is as large as its predecessor before that has not grown by a leak: it needs that much. Also
/// how long nobody is replaced then, at first.
const FRESH: Duration = Duration::from_secs(600);
/// How long nobody is replaced at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 3600);
/// As large is this many in a hundred of what the predecessor had.
const AS_LARGE: u64 = 90;

/// What was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes that the instance has.
    pub used: u64,
    /// Bytes that it may have.
    pub limit: u64,
    /// Bytes that each worker has of its own.
    pub workers: BTreeMap<WorkerId, u64>,
}

/// What was done about it so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct BudgetWatch {
    /// What the last worker of a slot had that was replaced, and when it was.
    before: BTreeMap<SlotId, (u64, Instant)>,
    /// Times in a row that it did not help.
    in_vain: u32,
    /// Nobody is replaced before.
    quiet_until: Option<Instant>,
}

impl Master {
    /// Has the largest worker replaced if there is an excess and that may help.
    pub(super) fn keep_budget(&mut self, now: Instant, measured: &Measured) {
        let is_quiet = self.budget.quiet_until.is_some_and(|until| now < until);
        if measured.used <= measured.limit && !is_quiet {
            self.budget.in_vain = 0;
        }
        let busy = self.phase != Phase::Running || self.reload.is_some() || self.roll.is_some();
        if measured.used <= measured.limit || is_quiet || busy || self.is_making_room() {
            return;
        }
        let least = self.policy.recycling.min_lifetime;
        let candidates = measured.workers.iter().filter_map(|(id, bytes)| {
            let worker = self.workers.get(id).filter(|it| it.generation == self.generation)?;
            let Stage::Ready { since } = worker.stage else { return None };
            let age = now.saturating_duration_since(since);
            (age >= least && !self.is_wished(*id)).then_some((*bytes, *id, worker.slot, since))
        });
        let Some((bytes, id, slot, since)) = candidates.max() else { return };
        if let Some((before, at)) = self.budget.before.get(&slot).copied()
            && since >= at
            && now.saturating_duration_since(since) < FRESH
            && bytes.saturating_mul(100) >= before.saturating_mul(AS_LARGE)
        {
            return self.rest_from_budget(now, measured, slot, bytes, before);
        }
        self.budget.before.insert(slot, (bytes, now));
        let reason = format!(
            "{} of its own, the most of all; together they have {} (memory-budget = {})",
            mebibytes(bytes),
            mebibytes(measured.used),
            mebibytes(measured.limit)
        );
        self.replace_on_request(id, Cause::MemoryBudget, &reason);
    }

    /// A worker is on its way out to make room.
    fn is_making_room(&self) -> bool {
        let leaves = |cause| cause == Some(Cause::MemoryBudget);
        self.wishes.iter().any(|wish| leaves(Some(wish.cause)))
            || self.workers.values().any(|it| it.is_leaving() && leaves(it.cause))
    }

    /// Fresh workers are as large as the old ones were.
    fn rest_from_budget(&mut self, now: Instant, measured: &Measured, slot: SlotId, bytes: u64, before: u64) {
        let pause = FRESH.saturating_mul(1 << self.budget.in_vain.min(16)).min(LONGEST_PAUSE);
        self.budget.in_vain = self.budget.in_vain.saturating_add(1);
        self.budget.quiet_until = Some(now + pause);
        let line = format!(
            "memory-budget: {} of {} are in use, and to replace workers does not help: worker {slot} has {} \
             again, its predecessor had {}; the next attempt is in {} minutes. Run fewer processes, or give \
             them more",
            mebibytes(measured.used),
            mebibytes(measured.limit),
            mebibytes(bytes),
            mebibytes(before),
            pause.as_secs() / 60
        );
        self.log(Level::Warn, line);
    }
}
