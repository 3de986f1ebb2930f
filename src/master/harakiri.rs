//! ● `harakiri`: which worker has a request that takes longer than it may, and what becomes of it.
//!
//! Every request has a deadline of its own, which its worker writes down. The master looks at them when the
//! first of those that can exist is due: none that begins after a look can end before a whole limit has
//! passed. A worker in which the application sets an earlier one says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use log::Level;

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::sys::process::Signal;

use super::event::Action;
use super::killing::{Subject, Why};
use super::state::Master;
use super::workers::{Stage, WorkerId};

/// From one look at the listen queues to the next, while a request takes too long and holds up nobody.
const NEXT_QUEUE_LOOK: Duration = Duration::from_secs(1);

/// When a request ends its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its place in the worker.
    pub core: u32,
    /// When.
    pub at: Instant,
}

/// What a worker has written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Which.
    pub worker: WorkerId,
    /// Its `harakiri`.
    pub limit: Option<Duration>,
    /// Its requests in flight that have a deadline.
    pub due: Vec<Due>,
}

/// A worker that was caught and asked to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Caught {
    attempts: u32,
    /// It has time until then.
    until: Instant,
}

/// What the master knows of the time limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Harakiri {
    /// When to look next.
    look_at: Option<Instant>,
    caught: BTreeMap<WorkerId, Caught>,
    /// Workers that the log knows of whose late requests hold up nobody.
    passed_over: BTreeSet<WorkerId>,
}

impl Master {
    /// True when it matters how many clients wait.
    pub fn harakiri_asks_who_waits(&self) -> bool {
        self.policy.harakiri_threshold.is_some()
    }

    /// When the requests in flight are looked at; `None` while none has a deadline that anybody knows of.
    pub fn next_request_look(&self) -> Option<Instant> {
        self.harakiri.look_at
    }

    fn look_by(&mut self, at: Instant) {
        let look_at = &mut self.harakiri.look_at;
        *look_at = Some(look_at.map_or(at, |before| before.min(at)));
    }

    /// Has the requests looked at, if that is due.
    pub(super) fn tick_harakiri(&mut self, now: Instant) {
        if self.harakiri.look_at.is_some_and(|at| now >= at) {
            self.harakiri.look_at = None;
            self.push(Action::LookAtRequests);
        }
    }

    /// Judges what was seen.
    pub(super) fn requests_seen(&mut self, now: Instant, seen: &[Seen], waiting: Option<u32>) {
        let threshold = self.policy.harakiri_threshold;
        let nobody_waits = waiting.zip(threshold).filter(|(waiting, threshold)| waiting < threshold);
        for one in seen {
            let fresh = one.limit.map(|limit| now + limit);
            let (overdue, coming): (Vec<Due>, Vec<Due>) = one.due.iter().partition(|due| due.at <= now);
            let next = coming.iter().map(|due| due.at).chain(fresh).min();
            next.into_iter().for_each(|at| self.look_by(at));
            match (overdue.iter().min_by_key(|due| due.at), nobody_waits) {
                (Some(_), Some((waiting, threshold))) => self.pass_over(now, one.worker, waiting, threshold),
                (Some(due), None) => self.catch(now, one.worker, due.core),
                // It may have been asked, and have heard.
                (None, _) => self.let_off(one.worker),
            }
        }
    }

    /// A request takes longer than it may.
    fn catch(&mut self, now: Instant, worker: WorkerId, core: u32) {
        let Some(entry) = self.workers.get(&worker) else { return };
        if self.is_condemned(worker) {
            return;
        }
        let caught = self.harakiri.caught.get(&worker).copied();
        if let Some(caught) = caught.filter(|it| now < it.until) {
            return self.look_by(caught.until);
        }
        let attempt = caught.map_or(0, |it| it.attempts) + 1;
        let graceful = attempt == 1 && self.policy.harakiri_graceful.is_some() && !entry.is_leaving();
        self.harakiri.caught.insert(worker, Caught { attempts: attempt, until: now });
        self.condemn(now, Subject::Worker(worker), Why::Harakiri { core, attempt, graceful });
    }

    /// A request takes longer than it may, and holds up nobody (`harakiri-queue-threshold`). Told once, in
    /// uWSGI's words.
    fn pass_over(&mut self, now: Instant, worker: WorkerId, waiting: u32, threshold: u32) {
        self.look_by(now + NEXT_QUEUE_LOOK);
        let Some(entry) = self.workers.get(&worker) else { return };
        let slot = entry.slot;
        if self.harakiri.passed_over.insert(worker) {
            self.log(
                Level::Warn,
                format!(
                    "HARAKIRI: Skipping harakiri on worker {slot}. Listen queue is smaller than the threshold \
                     ({waiting} < {threshold})"
                ),
            );
        }
    }

    /// A worker that was caught does nothing any more that takes too long.
    fn let_off(&mut self, worker: WorkerId) {
        self.harakiri.passed_over.remove(&worker);
        if self.harakiri.caught.remove(&worker).is_some()
            && let Some(worker) = self.workers.get_mut(&worker)
        {
            worker.doomed = None;
        }
    }

    /// The request has come to its end while its worker was asked what it is doing.
    pub(super) fn spare(&mut self, worker: WorkerId) {
        self.sentences.remove(&Subject::Worker(worker));
        self.let_off(worker);
        let Some(entry) = self.workers.get(&worker) else { return };
        let slot = entry.slot;
        self.log(
            Level::Warn,
            format!("HARAKIRI: the request of worker {slot} has ended meanwhile; the worker lives on"),
        );
    }

    /// Asks the worker to leave before it is killed: with the usual signal its successor is started now, and
    /// it has the time of any worker that leaves for what else it does.
    pub(super) fn ask_to_leave(&mut self, now: Instant, worker: WorkerId, core: u32) {
        self.sentences.remove(&Subject::Worker(worker));
        let Some((timeout, signal)) = self.policy.harakiri_graceful else { return };
        self.harakiri.caught.insert(worker, Caught { attempts: 1, until: now + timeout });
        self.look_by(now + timeout);
        let patience = self.policy.mercy.max(timeout);
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let (slot, Some(pid)) = (entry.slot, entry.pid) else { return };
        if signal != Signal::SIGTERM {
            self.push(Action::Kill { pid, signal });
        } else if entry.is_ready() {
            // What the signal says to a worker, with the difference that its idle clients are passed on.
            let mode = DrainMode::Handover;
            entry.stage = Stage::Leaving { since: now, kill_at: now + patience, mode };
            self.expect_end(worker, Cause::Harakiri);
            self.push(Action::Drain { worker, mode, patience });
        }
        let number = signal as i32;
        self.log(
            Level::Warn,
            format!(
                "HARAKIRI: graceful termination attempt on worker {slot} with signal {number}. Next harakiri: in {timeout:?}"
            ),
        );
        self.report_harakiri(worker, core);
    }

    /// The words that tools look for.
    pub(super) fn report_harakiri(&mut self, worker: WorkerId, core: u32) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let slot = entry.slot;
        entry.doomed.get_or_insert_with(|| format!("a request on core {core} took too long"));
        self.log(Level::Error, format!("HARAKIRI triggered by worker {slot} core {core} !!!"));
    }

    /// A worker is gone.
    pub(super) fn forget_requests(&mut self, worker: WorkerId) {
        self.harakiri.caught.remove(&worker);
        self.harakiri.passed_over.remove(&worker);
    }
}
