//! The application's signals in the master's loop: the table, the clock, the watched files.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;

use log::{debug, warn};

use crate::channel::ToWorker;
use crate::control::monitor::Monitor;
use crate::logging::clock;
use crate::signals::Request;
use crate::signals::table::{Candidate, Effect, Origin, Signals, Waiting};

use super::state::Phase;
use super::workers::{Generation, WorkerId};
use super::{Runner, Source};

/// Signals that a worker may have to handle still before it gets no more.
const UNHANDLED: u64 = 64;

/// The table and what it needs of the system.
#[derive(Debug, Default)]
pub(super) struct AppSignals {
    table: Signals,
    /// Watched files, each with its signals.
    monitor: Option<Monitor<u8>>,
    /// Signals sent to each worker, counted on from what it had handled before.
    sent: HashMap<WorkerId, u64>,
    /// Workers that were sent more than they handle, and that the log knows of.
    behind: HashSet<WorkerId>,
}

impl AppSignals {
    /// Takes up what the previous image has left.
    pub(super) fn restore(waiting: BTreeMap<Generation, Waiting>) -> Self {
        AppSignals { table: Signals::restore(waiting), ..AppSignals::default() }
    }

    /// A generation older than the one that serves is about to serve again.
    pub(super) fn expect(&mut self, generation: Generation, requests: Vec<Request>) {
        self.table.expect(generation, requests);
    }

    /// What the next image has to know, in which `generation` serves.
    pub(super) fn save(&self, generation: Generation) -> BTreeMap<Generation, Waiting> {
        self.table.save(generation)
    }

    /// Raises a signal that the configuration asks for; [`Runner::settle_signals`] delivers it.
    pub(super) fn raise(&mut self, number: u8) {
        self.table.raise(number);
    }
}

impl Runner {
    /// Hands on what children ask for.
    pub(super) fn ask_signals(&mut self, asked: Vec<(Generation, Origin, Request)>) {
        if asked.is_empty() {
            return;
        }
        let (now, wall) = (Instant::now(), clock::local_now());
        for (generation, origin, request) in asked {
            debug!("generation {generation}, {origin:?}: {request:?}");
            let effects = self.app_signals.table.ask(now, &wall, generation, origin, request);
            self.carry_out(effects);
        }
    }

    /// After every event: another generation may serve, or a worker be ready that signals wait for.
    pub(super) fn settle_signals(&mut self) {
        let generation = self.machine.generation();
        if self.app_signals.table.serving() != generation {
            let effects = self.app_signals.table.serve(Instant::now(), &clock::local_now(), generation);
            self.carry_out(effects);
        }
        if !self.app_signals.table.is_pending() || !self.is_signalling() {
            return;
        }
        let board = &self.holdings.scoreboard;
        let candidates: Vec<Candidate> = self
            .machine
            .workers()
            .filter(|(_, it)| it.generation == generation && it.is_ready())
            .map(|(id, it)| Candidate {
                worker: id,
                slot: it.slot,
                idle: board.cell(it.cell).in_flight() == 0,
            })
            .collect();
        let effects = self.app_signals.table.deliver(&candidates);
        self.carry_out(effects);
    }

    /// When the next signal is due.
    pub(super) fn signal_deadline(&self) -> Option<Instant> {
        if self.is_signalling() { self.app_signals.table.deadline() } else { None }
    }

    /// Raises what is due; [`Runner::settle_signals`] delivers it.
    pub(super) fn tick_signals(&mut self, now: Instant) {
        if self.signal_deadline().is_some_and(|at| now >= at) {
            self.app_signals.table.tick(now, &clock::local_now());
        }
    }

    /// A server that leaves calls nobody any more.
    fn is_signalling(&self) -> bool {
        matches!(self.machine.phase(), Phase::Starting | Phase::Running)
    }

    /// Watched files have changed.
    pub(super) fn read_app_watches(&mut self) {
        let Some(monitor) = &mut self.app_signals.monitor else { return };
        match monitor.read() {
            Ok(changes) => {
                changes.changed.into_iter().for_each(|number| self.app_signals.table.raise(number));
                changes.lost.iter().for_each(|(path, number, error)| unwatched(path, *number, error));
            }
            Err(error) => warn!("watched files: {error}"),
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Deliver { worker, number } => self.send_signal(worker, number),
                Effect::Warn(line) => warn!("{line}"),
                Effect::WatchOnly(paths) => self.watch_only(&paths),
            }
        }
    }

    /// Sends a signal, unless the worker has enough of them: they must not take the room of orders.
    fn send_signal(&mut self, worker: WorkerId, number: u8) {
        let Some((_, entry)) = self.machine.workers().find(|(id, _)| *id == worker) else { return };
        let handled = self.holdings.scoreboard.cell(entry.cell).signals();
        let slot = entry.slot;
        let sent = self.app_signals.sent.entry(worker).or_insert(handled);
        if sent.saturating_sub(handled) >= UNHANDLED {
            if self.app_signals.behind.insert(worker) {
                warn!(
                    "worker {slot} does not keep up with its signals: some are dropped (the first is {number})"
                );
            }
            return;
        }
        *sent = (*sent).max(handled) + 1;
        self.app_signals.behind.remove(&worker);
        if !self.tell(worker, &ToWorker::Signal { number }) {
            // Nobody will handle it.
            self.app_signals.sent.remove(&worker);
        }
        self.forget_the_dead();
    }

    /// Now and then, when many are.
    fn forget_the_dead(&mut self) {
        if self.app_signals.sent.len() > 2 * self.machine.workers().count() {
            let alive: HashSet<WorkerId> = self.machine.workers().map(|(id, _)| id).collect();
            self.app_signals.sent.retain(|id, _| alive.contains(id));
            self.app_signals.behind.retain(|id| alive.contains(id));
        }
    }

    /// Begins anew: that is simpler than to find out what is no longer wanted, and rare.
    fn watch_only(&mut self, paths: &[(PathBuf, u8)]) {
        if let Some(old) = self.app_signals.monitor.take() {
            self.unwatch(old.fd().as_raw_fd(), Source::AppWatches);
        }
        if paths.is_empty() {
            return;
        }
        let mut monitor = match Monitor::new() {
            Ok(monitor) => monitor,
            Err(error) => return warn!("files are not watched: {error}"),
        };
        self.watch(monitor.fd().as_raw_fd(), Source::AppWatches);
        for (path, number) in paths {
            if let Err(error) = monitor.add(path, *number) {
                unwatched(path, *number, &error);
            }
        }
        self.app_signals.monitor = Some(monitor);
    }
}

fn unwatched(path: &Path, number: u8, error: &std::io::Error) {
    warn!("signal {number}: {} is not watched: {error}", path.display());
}
