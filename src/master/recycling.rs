//! ● Limits that the master watches: the age of a worker, and memory with which one is killed.

use std::collections::BTreeMap;
use std::time::Instant;

use log::Level;

use crate::cause::Cause;
use crate::sys::memory::Memory;

use super::killing::{Subject, Why};
use super::state::{Master, Phase};
use super::wishes::Wish;
use super::workers::{Stage, WorkerId};

impl Master {
    /// When the next worker has served long enough.
    pub(super) fn lifetime_due(&self) -> Option<Instant> {
        self.lifetimes().map(|(_, _, due)| due).min()
    }

    /// Workers that have served long enough are to be replaced.
    pub(super) fn end_lifetimes(&mut self, now: Instant) {
        let old: Vec<_> = self.lifetimes().filter(|(_, _, due)| now >= *due).collect();
        for (worker, since, _) in old {
            let seconds = now.saturating_duration_since(since).as_secs();
            let slot = self.workers[&worker].slot;
            // As uWSGI words it.
            let line = format!("worker {slot} lifetime reached, it was running for {seconds} second(s)");
            self.log(Level::Info, line);
            self.wishes.push_back(Wish { worker, cause: Cause::Lifetime });
        }
    }

    /// Workers that may serve on for a while: since when, and until when.
    fn lifetimes(&self) -> impl Iterator<Item = (WorkerId, Instant, Instant)> {
        // A reload replaces them anyway, unless it is refused.
        let counts = self.phase == Phase::Running && self.reload.is_none();
        let limits = counts.then_some(&self.policy.recycling).filter(|it| it.max_lifetime.is_some());
        limits.into_iter().flat_map(|limits| {
            self.workers.iter().filter_map(|(id, worker)| {
                let Stage::Ready { since } = worker.stage else { return None };
                let due = since + limits.lifetime_of(worker.slot, *id)?;
                let serves = worker.generation == self.generation && !self.is_wished(*id);
                serves.then_some((*id, since, due))
            })
        })
    }

    /// `evil-reload-on-rss`, `evil-reload-on-as`: who has too much is killed as soon as the log knows what it was
    /// doing.
    pub(super) fn punish(&mut self, now: Instant, memory: &BTreeMap<WorkerId, Memory>) {
        let (resident, address_space) =
            (self.policy.recycling.evil_resident, self.policy.recycling.evil_address_space);
        for (id, memory) in memory {
            // Dying takes a while.
            if self.is_condemned(*id) {
                continue;
            }
            let (what, bytes) = if address_space.is_some_and(|most| memory.address_space >= most) {
                ("ADDRESS SPACE", memory.address_space)
            } else if resident.is_some_and(|most| memory.resident >= most) {
                ("RSS", memory.resident)
            } else {
                continue;
            };
            self.condemn(now, Subject::Worker(*id), Why::Excess { what, bytes });
        }
    }
}
