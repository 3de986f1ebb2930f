//! Looks at the memory of the processes, for limits that a worker cannot be trusted with or does not know of.
//!
//! Only where one is configured: otherwise the master does not wake for it. It reads nothing that could keep it
//! waiting: the kernel tells of each page of a process (`smaps_rollup`) only when that is not about to change
//! its address space, and a worker may be stuck there. So the workers tell that of themselves.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::config::recycling::Budget;
use crate::sys::cgroup;
use crate::sys::memory::{self, Memory};
use crate::sys::process::{self, Pid};

use super::Runner;
use super::budget::Measured;
use super::event::Event;
use super::workers::{Worker, WorkerId};

/// What is known of memory, and when to look again.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    next_look: Instant,
    /// Bytes that no other process has, as the workers have told.
    told: BTreeMap<WorkerId, u64>,
}

impl MemoryWatch {
    pub(super) fn new(now: Instant) -> Self {
        MemoryWatch { next_look: now, told: BTreeMap::new() }
    }

    /// A worker tells what it has of its own.
    pub(super) fn hear(&mut self, worker: WorkerId, unique: u64) {
        self.told.insert(worker, unique);
    }
}

impl Runner {
    /// When memory is looked at next.
    pub(super) fn memory_deadline(&self) -> Option<Instant> {
        self.machine.policy().recycling.needs_master().then_some(self.memory.next_look)
    }

    /// Looks at memory, if it is time to.
    pub(super) fn look_at_memory(&mut self, now: Instant) {
        if self.memory_deadline().is_none_or(|at| now < at) {
            return;
        }
        let limits = &self.machine.policy().recycling;
        let budget = limits.budget;
        self.memory.next_look = now + limits.look_every;
        if limits.evil_address_space.or(limits.evil_resident).is_some() {
            let figures = self.machine.workers().filter_map(|(id, it)| Some((id, Memory::of(it.pid?)?)));
            let event = Event::WorkersMeasured { memory: figures.collect() };
            self.queue.push_back(event);
        }
        if let Some(measured) = budget.and_then(|budget| self.measure(budget)) {
            self.queue.push_back(Event::InstanceMeasured(measured));
        }
    }

    /// What the instance has; `None` where that cannot be known.
    fn measure(&mut self, budget: Budget) -> Option<Measured> {
        let workers: BTreeMap<WorkerId, u64> =
            self.machine.workers().map(|(id, it)| (id, self.unique_of(id, it))).collect();
        self.memory.told.retain(|id, _| workers.contains_key(id));
        let group = match budget {
            Budget::Percent(_) => cgroup::memory(),
            Budget::Bytes(_) => None,
        };
        // What counts in the end is what the kernel counts. Otherwise each page counts once: what workers share
        // is their zygote's.
        let used = group.map(|group| group.used).unwrap_or_else(|| {
            let zygotes = self.machine.zygotes().filter_map(|(_, it)| it.pid);
            let own: u64 = zygotes.chain([process::this()]).filter_map(process::own_memory).sum();
            own + workers.values().sum::<u64>()
        });
        let limit = match (budget, group) {
            (Budget::Bytes(bytes), _) => bytes,
            (Budget::Percent(percent), Some(group)) => part(percent, group.limit),
            (Budget::Percent(percent), None) => part(percent, memory::of_machine()?),
        };
        Some(Measured { used, limit, workers })
    }

    /// What a worker has of its own. Until it tells, what it has beyond its zygote stands for that.
    fn unique_of(&self, id: WorkerId, worker: &Worker) -> u64 {
        let own = |pid: Option<Pid>| pid.and_then(process::own_memory).unwrap_or(0);
        self.memory.told.get(&id).copied().unwrap_or_else(|| {
            let zygote = self.machine.zygotes().find(|(generation, _)| *generation == worker.generation);
            own(worker.pid).saturating_sub(own(zygote.and_then(|(_, zygote)| zygote.pid)))
        })
    }
}

fn part(percent: u64, whole: u64) -> u64 {
    (u128::from(whole) * u128::from(percent) / 100) as u64
}
