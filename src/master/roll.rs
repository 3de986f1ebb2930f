//! Replacing workers within a generation, each successor ready before its predecessor leaves.

use std::collections::VecDeque;
use std::time::Instant;

use log::Level;

use crate::cause::Cause;
use crate::channel::{DrainMode, headline};
use crate::control::Command;

use super::state::Master;
use super::throttle::Throttle;
use super::workers::{Worker, WorkerId};

/// What the log calls the replacement of one worker after the other.
const CHAIN: &str = "chain reload";

/// What the log calls the same after a promotion.
const WARM: &str = "warm roll";

/// A replacement of several workers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roll {
    /// What the log calls it.
    name: &'static str,
    /// Workers still to be replaced.
    queue: VecDeque<WorkerId>,
    /// How many replacements may start at a time.
    at_a_time: usize,
    /// How the old ones leave.
    mode: DrainMode,
    /// Why they leave.
    cause: Cause,
}

impl Master {
    /// FIFO `w`, `W` and `c`.
    pub(super) fn start_roll(&mut self, command: Command) {
        if let Some(roll) = &self.roll {
            let line = format!("{} already running...", roll.name);
            return self.log(Level::Warn, line);
        }
        let (name, at_a_time, mode) = match command {
            Command::ChainReload => (CHAIN, 1, DrainMode::Handover),
            Command::BrutalReloadWorkers => ("brutal workers reload", usize::MAX, DrainMode::Now),
            _ => ("workers reload", usize::MAX, DrainMode::Handover),
        };
        self.roll_all(name, at_a_time, mode, Cause::WorkersReload);
    }

    /// After a promotion: as FIFO `c`.
    pub(super) fn start_warm_roll(&mut self) {
        self.roll_all(WARM, 1, DrainMode::Handover, Cause::Warmed);
    }

    fn roll_all(&mut self, name: &'static str, at_a_time: usize, mode: DrainMode, cause: Cause) {
        let serving = |it: &Worker| it.generation == self.generation && it.is_ready();
        let queue: VecDeque<WorkerId> =
            self.workers.iter().filter(|(_, it)| serving(it)).map(|(id, _)| *id).collect();
        self.log(Level::Info, format!("{name} starting..."));
        self.roll = Some(Roll { name, queue, at_a_time, mode, cause });
    }

    /// Starts the next successors, as many as may start at a time and there is room for.
    pub(super) fn advance_roll(&mut self, now: Instant) {
        loop {
            let starting = self.workers.values().filter(|it| it.replaces.is_some()).count();
            let room = self.has_room();
            let Some(roll) = &mut self.roll else { return };
            let Some(victim) = roll.queue.front().copied() else {
                if starting == 0 {
                    // As uWSGI words it.
                    let line = match roll.name {
                        CHAIN => "chain reloading complete".to_owned(),
                        name => format!("{name} complete"),
                    };
                    self.roll = None;
                    self.log(Level::Info, line);
                    self.resume_deferred(now);
                }
                return;
            };
            if starting >= roll.at_a_time || !room {
                return;
            }
            roll.queue.pop_front();
            let (chain, cause) = (roll.name == CHAIN, roll.cause);
            let replaced = self.workers.values().any(|it| it.replaces == Some(victim));
            let Some(worker) = self.workers.get(&victim).filter(|it| it.is_ready() && !replaced) else {
                continue;
            };
            let (slot, generation) = (worker.slot, worker.generation);
            if chain {
                self.log(Level::Info, format!("chain next victim is worker {slot}"));
            }
            self.wish_for_successor(victim, cause);
            self.spawn_worker(now, slot, generation, Some(victim));
        }
    }

    /// The successor accepts: its predecessor may go.
    pub(super) fn replacement_ready(&mut self, now: Instant, old: WorkerId) {
        if self.promotes(now, old) {
            return;
        }
        let mode = self.roll.as_ref().map_or(DrainMode::Handover, |roll| roll.mode);
        let cause = self.workers.get(&old).and_then(|it| it.wish).unwrap_or(Cause::Asked);
        if cause.is_recycling() {
            self.recycling_throttle = Throttle::default();
        }
        self.drain(now, old, mode, cause);
    }

    /// A successor died young: what has not been replaced stays.
    pub(super) fn abort_roll(&mut self, reason: &str) {
        let reason = headline(reason);
        self.setbacks.unreplaced += 1;
        let line = match self.roll.take() {
            Some(roll) => format!("{} aborted: {reason}; the workers not yet replaced serve on", roll.name),
            None => format!("replacement failed: {reason}; the old worker serves on"),
        };
        self.log(Level::Error, line);
    }
}
