//! Looks at the memory of the processes, for limits that a worker cannot be trusted with or does not know of.
//!
//! Only where one is configured: otherwise the master does not wake for it.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::config::recycling::Budget;
use crate::sys::cgroup;
use crate::sys::memory::{self, Memory, Shares};
use crate::sys::process::{self, Pid};

use super::Runner;
use super::budget::Measured;
use super::event::Event;

/// A look that took a while is followed by a rest of so many times that.
const REST: u32 = 50;

impl Runner {
    /// When memory is looked at next.
    pub(super) fn memory_deadline(&self) -> Option<Instant> {
        self.machine.policy().recycling.needs_master().then_some(self.memory_look)
    }

    /// Looks at memory, if it is time to.
    pub(super) fn look_at_memory(&mut self, now: Instant) {
        if self.memory_deadline().is_none_or(|at| now < at) {
            return;
        }
        let limits = &self.machine.policy().recycling;
        let (every, budget) = (limits.look_every, limits.budget);
        if limits.evil_address_space.or(limits.evil_resident).is_some() {
            let figures = self.machine.workers().filter_map(|(id, it)| Some((id, Memory::of(it.pid?)?)));
            let event = Event::WorkersMeasured { memory: figures.collect() };
            self.queue.push_back(event);
        }
        if let Some(measured) = budget.and_then(|budget| self.measure(budget)) {
            self.queue.push_back(Event::InstanceMeasured(measured));
        }
        self.memory_look = now + every.max(now.elapsed() * REST);
    }

    /// What the instance has; `None` where that cannot be known.
    fn measure(&self, budget: Budget) -> Option<Measured> {
        let workers: BTreeMap<_, Pid> =
            self.machine.workers().filter_map(|(id, it)| Some((id, it.pid?))).collect();
        let (used, limit) = match (budget, cgroup::memory()) {
            // What counts in the end is what the kernel counts.
            (Budget::Percent(percent), Some(group)) => (Some(group.used), part(percent, group.limit)),
            (Budget::Percent(percent), None) => (None, part(percent, memory::of_machine()?)),
            (Budget::Bytes(bytes), _) => (None, bytes),
        };
        let used = used.unwrap_or_else(|| {
            let zygotes = self.machine.zygotes().filter_map(|(_, it)| it.pid);
            let all: Vec<Pid> = zygotes.chain(workers.values().copied()).chain([process::this()]).collect();
            // Shared pages count many times here: if that fits, all fits, and nobody has to look at each page.
            let most = all.iter().filter_map(|pid| Memory::of(*pid)).map(|it| it.resident).sum();
            if most <= limit { most } else { all.iter().map(|pid| shares(*pid).proportional).sum() }
        });
        let workers = if used <= limit {
            BTreeMap::new()
        } else {
            workers.into_iter().map(|(id, pid)| (id, shares(pid).unique)).collect()
        };
        Some(Measured { used, limit, workers })
    }
}

fn part(percent: u64, whole: u64) -> u64 {
    (u128::from(whole) * u128::from(percent) / 100) as u64
}

/// What a process has. Where it may not be asked, what it has without files stands for it.
fn shares(pid: Pid) -> Shares {
    Shares::of(pid).unwrap_or_else(|_| {
        let own = process::own_memory(pid).unwrap_or(0);
        Shares { unique: own, proportional: own }
    })
}
