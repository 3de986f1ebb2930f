//! When workers run `hook-accepting` and its like: once their generation serves, by the master's word.
//!
//! Not when a worker is ready: a reload that is given up after its first worker was ready has served
//! nobody, and hooks that tell others of the new release must not have run.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::channel::ToWorker;

use super::Runner;
use super::state::Phase;
use super::workers::{Generation, SlotId, WorkerId};

/// Who has been told, for as long as a generation serves; travels to the next image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepting {
    generation: Generation,
    slots: BTreeSet<SlotId>,
    workers: BTreeSet<WorkerId>,
}

impl Accepting {
    /// True when this generation has not served before.
    fn is_new(&self, generation: Generation) -> bool {
        self.generation != generation
    }

    /// Those among the ready workers that are to be told now, each with whether it is the first of its
    /// number. While paused nobody is: those that become ready then never will be.
    fn due(
        &mut self,
        generation: Generation,
        ready: impl Iterator<Item = (WorkerId, SlotId)>,
        paused: bool,
    ) -> Vec<(WorkerId, bool)> {
        if self.is_new(generation) {
            *self = Accepting { generation, ..Accepting::default() };
        }
        let mut due: Vec<_> = ready
            .filter(|(worker, _)| self.workers.insert(*worker))
            .map(|(worker, slot)| (worker, self.slots.insert(slot)))
            .collect();
        if paused {
            due.clear();
        }
        due
    }
}

impl Runner {
    /// After every event: workers may have become ready, or their generation serve.
    pub(super) fn settle_hooks(&mut self) {
        let hooked = self.holdings.config.hooks.iter().any(|hook| hook.point.is_accepting());
        if !hooked || !matches!(self.machine.phase(), Phase::Starting | Phase::Running) {
            return;
        }
        let (generation, paused) = (self.machine.generation(), self.machine.is_paused());
        if self.accepting.is_new(generation) && !paused && self.holdings.fifos.slot != 0 {
            // As after a start: the hooks choose the slot. Letters that were written are still obeyed.
            self.read_fifo();
            self.holdings.switch_fifo(0);
            self.watch_fifo();
        }
        let ready = self
            .machine
            .workers()
            .filter(|(_, it)| it.generation == generation && it.is_ready())
            .map(|(worker, it)| (worker, it.slot));
        for (worker, first) in self.accepting.due(generation, ready, paused) {
            self.tell(worker, &ToWorker::Accepting { first });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_worker_is_told_once_and_the_first_of_a_number_is_known() {
        let mut accepting = Accepting::default();
        let mut due = |generation, ready: &[(WorkerId, SlotId)], paused| {
            let text = serde_json::to_string(&accepting).unwrap();
            accepting = serde_json::from_str(&text).unwrap();
            accepting.due(generation, ready.iter().copied(), paused)
        };
        assert_eq!(due(1, &[(1, 1)], false), [(1, true)]);
        assert_eq!(due(1, &[(1, 1), (2, 2)], false), [(2, true)]);
        assert_eq!(due(1, &[(2, 2), (3, 1)], false), [(3, false)], "in the place of worker 1");
        assert_eq!(due(2, &[(4, 1), (5, 2)], false), [(4, true), (5, true)], "after a reload");
        assert_eq!(due(3, &[(6, 1)], true), []);
        assert_eq!(
            due(3, &[(6, 1), (7, 2)], false),
            [(7, true)],
            "what became ready in a pause stays silent"
        );
    }
}
