//! ● A bound to how many older generations finish their requests at a time.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::cause::Cause;
use crate::channel::DrainMode;

use super::event::Action;
use super::state::Master;
use super::workers::{Generation, WorkerId};

impl Master {
    /// Cuts what the oldest generations still do when more of them drain than
    /// `max-draining-generations` allows. How long each may take is bounded by the mercy.
    pub(super) fn evict_oldest_generations(&mut self, now: Instant) {
        let most = self.policy.max_draining_generations as usize;
        let leaving = self.workers.values().filter(|it| it.is_leaving() && it.generation != self.generation);
        let draining: BTreeSet<Generation> = leaving.map(|it| it.generation).collect();
        if most == 0 || draining.len() <= most {
            return;
        }
        let count = draining.len();
        for generation in draining.into_iter().take(count - most) {
            let of_it = self.workers.iter().filter(|(_, it)| it.generation == generation);
            for worker in of_it.map(|(id, _)| *id).collect::<Vec<WorkerId>>() {
                let Some(entry) = self.workers.get(&worker) else { continue };
                if let Some(pid) = entry.pid {
                    let (slot, cell) = (entry.slot, entry.cell);
                    self.push(Action::ReportEviction { slot, cell, pid, generation, most });
                }
                self.drain(now, worker, DrainMode::Now, Cause::Reload);
            }
        }
    }
}
