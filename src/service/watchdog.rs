//! ● Whether the server is alive enough to say so.
//!
//! A sign of life stands for the master, which runs its loop to send it, *and* for a worker: since the last
//! sign one has finished a request, or has answered a question over its control channel, which it reads
//! between requests. Where nobody is there to be asked (all workers start, or the last one was sent home),
//! other deadlines bound how long that may take, and the master speaks for itself.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::master::workers::WorkerId;

/// Signs of life in a period. A worker has the rest of the period to answer.
const SIGNS: u32 = 3;
/// A manager that wants more of them than this gets no more.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(1);

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Give a sign of life.
    Alive,
    /// Ask the workers for one.
    Ask,
}

/// What the master knows of its workers' progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Requests finished by the workers that serve.
    pub requests: u64,
    /// Nobody can be asked, for a good reason that does not last.
    pub excused: bool,
}

/// The rhythm.
#[derive(Debug)]
pub struct Watchdog {
    interval: Duration,
    next: Option<Instant>,
    requests: u64,
    asking: bool,
    /// Workers that owe an answer: one that is stuck is not asked again, its channel would fill up.
    owing: BTreeSet<WorkerId>,
    /// Those of them that have been told of.
    silent: BTreeSet<WorkerId>,
}

impl Watchdog {
    /// For a manager that waits so long.
    pub fn new(period: Duration) -> Self {
        let interval = (period / SIGNS).max(SHORTEST_INTERVAL);
        Watchdog {
            interval,
            next: None,
            requests: 0,
            asking: false,
            owing: BTreeSet::new(),
            silent: BTreeSet::new(),
        }
    }

    /// A sign of life was given: the manager counts from here. The first one goes with readiness.
    pub fn given(&mut self, now: Instant) {
        self.asking = false;
        self.next = Some(now + self.interval);
    }

    /// When to call [`Watchdog::tick`].
    pub fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant, progress: Progress) -> Option<Beat> {
        self.next.filter(|at| now >= *at)?;
        let moved = progress.requests > self.requests;
        // Less when a worker was replaced.
        self.requests = progress.requests;
        if moved || progress.excused {
            self.given(now);
            return Some(Beat::Alive);
        }
        self.asking = true;
        self.next = Some(now + self.interval);
        Some(Beat::Ask)
    }

    /// True when this worker is to be asked now; then it owes an answer.
    pub fn ask(&mut self, worker: WorkerId) -> bool {
        self.owing.insert(worker)
    }

    /// True once for a worker that has been asked before and has not answered since.
    pub fn is_silent(&mut self, worker: WorkerId) -> bool {
        self.owing.contains(&worker) && self.silent.insert(worker)
    }

    /// A worker has answered, or begun to serve. True when that was the sign that was missing.
    pub fn hear(&mut self, now: Instant, worker: WorkerId) -> bool {
        self.forget(worker);
        let missing = self.asking;
        if missing {
            self.given(now);
        }
        missing
    }

    /// A worker is gone.
    pub fn forget(&mut self, worker: WorkerId) {
        self.owing.remove(&worker);
        self.silent.remove(&worker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(9);

    fn progress(requests: u64) -> Progress {
        Progress { requests, excused: false }
    }

    fn begun() -> (Watchdog, Instant) {
        let (mut watchdog, now) = (Watchdog::new(PERIOD), Instant::now());
        assert_eq!(watchdog.deadline(), None, "nothing is watched before the server is ready");
        watchdog.given(now);
        (watchdog, now)
    }

    #[test]
    fn requests_are_signs_of_life_and_nobody_has_to_be_asked() {
        let (mut watchdog, now) = begun();
        let at = watchdog.deadline().unwrap();
        assert!(at - now < PERIOD / 2, "systemd wants at least two signs in a period");
        assert_eq!(watchdog.tick(now, progress(1)), None);
        assert_eq!(watchdog.tick(at, progress(1)), Some(Beat::Alive));
        assert_eq!(watchdog.tick(watchdog.deadline().unwrap(), progress(1)), Some(Beat::Ask));
    }

    #[test]
    fn an_answer_is_passed_on_at_once_and_counts_for_one_question() {
        let (mut watchdog, _) = begun();
        let at = watchdog.deadline().unwrap();
        assert_eq!(watchdog.tick(at, progress(0)), Some(Beat::Ask));
        assert!(watchdog.ask(1) && watchdog.ask(2));
        assert!(watchdog.hear(at, 1));
        assert!(!watchdog.hear(at, 2), "one sign is enough");
    }

    #[test]
    fn who_does_not_answer_is_not_asked_again_and_gives_no_sign() {
        let (mut watchdog, now) = begun();
        let mut at = now;
        for turn in 0..5 {
            at = watchdog.deadline().unwrap().max(at);
            assert_eq!(watchdog.tick(at, progress(0)), Some(Beat::Ask));
            assert_eq!(watchdog.ask(1), turn == 0);
            assert_eq!(turn > 0 && watchdog.is_silent(1), turn == 1, "it is told of once");
        }
        assert!(at - now > PERIOD);
        watchdog.forget(1);
        assert!(!watchdog.is_silent(1) && watchdog.ask(1));
    }

    #[test]
    fn where_nobody_can_be_asked_the_master_speaks_for_itself() {
        let (mut watchdog, _) = begun();
        let at = watchdog.deadline().unwrap();
        assert_eq!(watchdog.tick(at, Progress { requests: 0, excused: true }), Some(Beat::Alive));
    }

    #[test]
    fn a_count_that_falls_because_a_worker_was_replaced_is_no_sign() {
        let (mut watchdog, _) = begun();
        assert_eq!(watchdog.tick(watchdog.deadline().unwrap(), progress(100)), Some(Beat::Alive));
        assert_eq!(watchdog.tick(watchdog.deadline().unwrap(), progress(3)), Some(Beat::Ask));
        assert_eq!(watchdog.tick(watchdog.deadline().unwrap(), progress(4)), Some(Beat::Alive));
    }
}
