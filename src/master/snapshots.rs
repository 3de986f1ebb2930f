//! ● Snapshots: zygotes of generations that have served, kept asleep so that they can be brought back.
//!
//! They wait for a message that does not come and cost nothing but memory, which only they know how to
//! fill again. All are older than the generation that serves: a reload puts its predecessor on the pile,
//! a rollback takes the topmost one.

use std::collections::BTreeMap;

use log::Level;

use super::answer::Kind;
use super::policy::Policy;
use super::reload::Reload;
use super::standing::mebibytes;
use super::state::Master;
use super::workers::{Generation, ZygoteStage};

impl Master {
    /// The generation that a rollback would bring back.
    pub(super) fn newest_snapshot(&self) -> Option<Generation> {
        self.snapshots().last()
    }

    /// All snapshots, the oldest first.
    pub(super) fn snapshots(&self) -> impl DoubleEndedIterator<Item = Generation> {
        self.zygotes.iter().filter(|(_, zygote)| zygote.is_asleep()).map(|(generation, _)| *generation)
    }

    /// The generation of `reload` takes over: its predecessor's zygote goes to sleep, or goes. The new
    /// configuration says how many may sleep.
    pub(super) fn retire_zygotes(&mut self, reload: &Reload) {
        let most = reload.policy.as_ref().map_or(0, |policy| policy.snapshots);
        let keep = reload.kind == Kind::Reload && most > 0 && self.policy.preloaded;
        for generation in
            self.zygotes.keys().copied().filter(|it| *it != reload.generation).collect::<Vec<_>>()
        {
            let zygote = &self.zygotes[&generation];
            if zygote.is_asleep() {
                continue;
            }
            if keep && generation == self.generation && zygote.stage == ZygoteStage::Ready {
                self.put_to_sleep(generation, self.policy.clone());
            } else {
                self.dismiss_zygote(generation);
            }
        }
        if reload.kind == Kind::Reload {
            let surplus = self.snapshots().count().saturating_sub(most);
            for generation in self.snapshots().take(surplus).collect::<Vec<_>>() {
                self.drop_snapshot(generation, &format!("there are newer ones (snapshots = {most})"));
            }
        }
    }

    /// Makes a snapshot of a zygote that can fork workers.
    pub(super) fn put_to_sleep(&mut self, generation: Generation, policy: Policy) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        if zygote.stage == ZygoteStage::Ready {
            zygote.stage = ZygoteStage::Asleep { policy };
            self.log(Level::Info, format!("generation {generation} stays in memory as a snapshot"));
        }
    }

    pub(super) fn drop_snapshot(&mut self, generation: Generation, reason: &str) {
        if self.zygotes.get(&generation).is_some_and(|zygote| zygote.is_asleep()) {
            self.log(Level::Info, format!("snapshot of generation {generation} is dropped: {reason}"));
            self.dismiss_zygote(generation);
        }
    }

    /// `snapshot-memory`: the oldest go until the rest fits.
    pub(super) fn bound_snapshots(&mut self, bytes: &BTreeMap<Generation, u64>) {
        let size = |generation: &Generation| bytes.get(generation).copied().unwrap_or(0);
        let mut sleeping: Vec<Generation> = self.snapshots().collect();
        if sleeping.is_empty() {
            return;
        }
        let list: Vec<String> =
            sleeping.iter().rev().map(|it| format!("generation {it} ({})", mebibytes(size(it)))).collect();
        self.log(Level::Info, format!("snapshots: {}", list.join(", ")));
        let Some(limit) = self.policy.snapshot_memory else { return };
        loop {
            let together: u64 = sleeping.iter().map(size).sum();
            if together <= limit || sleeping.is_empty() {
                return;
            }
            let reason = format!(
                "all together have {} of their own (snapshot-memory = {})",
                mebibytes(together),
                mebibytes(limit)
            );
            self.drop_snapshot(sleeping.remove(0), &reason);
        }
    }
}
