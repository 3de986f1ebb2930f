//! Replacing workers within a generation, each successor ready before its predecessor leaves.

use std::collections::VecDeque;
use std::time::Instant;

use log::Level;

use crate::channel::{DrainMode, headline};
use crate::control::Command;

use super::state::{Master, Phase};
use super::workers::WorkerId;

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
}

impl Master {
    /// FIFO `w`, `W` and `c`.
    pub(super) fn start_roll(&mut self, now: Instant, command: Command) {
        if let Some(roll) = &self.roll {
            let line = format!("{} already running", roll.name);
            return self.log(Level::Warn, line);
        }
        let (name, at_a_time, mode) = match command {
            Command::ChainReload => ("chain reload", 1, DrainMode::Handover),
            Command::BrutalReloadWorkers => ("brutal workers reload", usize::MAX, DrainMode::Now),
            _ => ("workers reload", usize::MAX, DrainMode::Handover),
        };
        let serving = |it: &super::workers::Worker| it.generation == self.generation && it.is_ready();
        let queue: VecDeque<WorkerId> =
            self.workers.iter().filter(|(_, it)| serving(it)).map(|(id, _)| *id).collect();
        self.log(Level::Info, format!("{name} starting: {} workers", queue.len()));
        self.roll = Some(Roll { name, queue, at_a_time, mode });
        self.advance_roll(now);
    }

    /// A worker asked to be replaced (`SIGHUP` to it, or a limit it has reached).
    pub(super) fn replace_on_request(&mut self, now: Instant, id: WorkerId, reason: &str) {
        let Some(worker) = self.workers.get(&id) else { return };
        let (slot, generation) = (worker.slot, worker.generation);
        let busy = self.phase != Phase::Running || self.reload.is_some() || generation != self.generation;
        if !worker.is_ready() || busy || self.workers.values().any(|it| it.replaces == Some(id)) {
            return;
        }
        self.log(Level::Info, format!("worker {slot} asks to be replaced: {reason}"));
        self.spawn_worker(now, slot, generation, Some(id));
    }

    fn advance_roll(&mut self, now: Instant) {
        loop {
            let starting = self.workers.values().filter(|it| it.replaces.is_some()).count();
            let Some(roll) = &mut self.roll else { return };
            if starting >= roll.at_a_time {
                return;
            }
            let Some(victim) = roll.queue.pop_front() else {
                if starting == 0 {
                    let line = format!("{} complete", roll.name);
                    self.roll = None;
                    self.log(Level::Info, line);
                    self.resume_deferred(now);
                }
                return;
            };
            let name = roll.name;
            if let Some(worker) = self.workers.get(&victim).filter(|it| !it.is_leaving()) {
                let (slot, generation) = (worker.slot, worker.generation);
                self.log(Level::Info, format!("{name}: next victim is worker {slot}"));
                self.spawn_worker(now, slot, generation, Some(victim));
            }
        }
    }

    /// The successor accepts: its predecessor may go.
    pub(super) fn replacement_ready(&mut self, now: Instant, old: WorkerId) {
        let mode = self.roll.as_ref().map_or(DrainMode::Handover, |roll| roll.mode);
        self.drain(now, old, mode);
        self.advance_roll(now);
    }

    /// A successor died young: what has not been replaced stays.
    pub(super) fn abort_roll(&mut self, reason: &str) {
        let reason = headline(reason);
        let line = match self.roll.take() {
            Some(roll) => format!("{} aborted: {reason}; the workers not yet replaced serve on", roll.name),
            None => format!("replacement failed: {reason}; the old worker serves on"),
        };
        self.log(Level::Error, line);
    }
}
