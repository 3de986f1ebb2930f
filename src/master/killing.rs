//! ● No kill without evidence: whoever has to be killed is asked what it is doing first.
//!
//! Workers that did not leave, start or answer in time or have too much memory, and zygotes that do not load. The log gets what they
//! were doing; that takes a moment, and never longer than a second. Only those are killed without a word
//! that serve nobody and were doing what they should.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cause::Cause;
use crate::sys::process::{Pid, Signal};

use super::event::Action;
use super::state::Master;
use super::workers::{Generation, Stage, WorkerId};

/// How long a process may take to tell where its threads are. Shorter than the second by which the timers in
/// the workers come after the master's.
const PATIENCE: Duration = Duration::from_millis(800);
/// When it is killed once more: it may hang in the kernel.
const AGAIN: Duration = Duration::from_secs(1);

/// Who is to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// A worker.
    Worker(WorkerId),
    /// The zygote of a generation.
    Zygote(Generation),
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A request takes longer than it may.
    Harakiri {
        /// The place of that request.
        core: u32,
        /// How often the worker was caught, this time included.
        attempt: u32,
        /// It is asked to leave; if that helps, nobody is killed.
        graceful: bool,
    },
    /// It was told to leave and did not.
    Mercy,
    /// It was not ready in time.
    BootTimeout,
    /// It has too much memory.
    Excess {
        /// What it has too much of, in uWSGI's words.
        what: &'static str,
        /// How much of it.
        bytes: u64,
    },
}

/// What the master is about to do to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sentence {
    pub(super) why: Why,
    /// The end of patience; once it has been killed, the next try.
    pub(super) until: Instant,
    killed: bool,
}

/// Those who are about to be killed.
pub(super) type Sentences = BTreeMap<Subject, Sentence>;

impl Master {
    /// The pid of a process that is there.
    fn pid_of(&self, subject: Subject) -> Option<Pid> {
        match subject {
            Subject::Worker(worker) => self.workers.get(&worker)?.pid,
            Subject::Zygote(generation) => self.zygotes.get(&generation)?.pid,
        }
    }

    /// Has a process killed as soon as it is known what it is doing, or cannot be known in time.
    pub(super) fn condemn(&mut self, now: Instant, subject: Subject, why: Why) {
        let Some(pid) = self.pid_of(subject) else { return };
        let sentence = Sentence { why, until: now + PATIENCE, killed: false };
        if self.sentences.contains_key(&subject) {
            return;
        }
        self.sentences.insert(subject, sentence);
        let worker = match subject {
            Subject::Worker(worker) => self.workers.get(&worker).map(|it| (it.slot, it.cell)),
            Subject::Zygote(_) => None,
        };
        self.push(Action::TakeEvidence { subject, pid, worker, why });
    }

    /// True once somebody is about to be killed.
    pub(super) fn is_condemned(&self, worker: WorkerId) -> bool {
        self.sentences.contains_key(&Subject::Worker(worker))
    }

    /// What can be known is in the log. `overdue` says whether a request still takes longer than it may.
    pub(super) fn evidence_taken(&mut self, now: Instant, subject: Subject, overdue: bool) {
        let Some(sentence) = self.sentences.get(&subject).copied().filter(|it| !it.killed) else { return };
        match (sentence.why, subject) {
            (Why::Harakiri { .. }, Subject::Worker(worker)) if !overdue => {
                match self.mercy_is_over(now, worker) {
                    true => self.execute(now, subject, Sentence { why: Why::Mercy, ..sentence }),
                    false => self.spare(worker),
                }
            }
            (Why::Harakiri { core, graceful: true, .. }, Subject::Worker(worker)) => {
                self.ask_to_leave(now, worker, core);
            }
            _ => self.execute(now, subject, sentence),
        }
    }

    fn mercy_is_over(&self, now: Instant, worker: WorkerId) -> bool {
        let stage = self.workers.get(&worker).map(|it| it.stage);
        matches!(stage, Some(Stage::Leaving { kill_at, .. }) if now >= kill_at)
    }

    fn execute(&mut self, now: Instant, subject: Subject, sentence: Sentence) {
        let Some(pid) = self.pid_of(subject) else { return };
        if let Subject::Worker(worker) = subject {
            let cause = match sentence.why {
                Why::Harakiri { core, .. } => {
                    self.report_harakiri(worker, core);
                    Cause::Harakiri
                }
                Why::Mercy => Cause::Mercy,
                Why::BootTimeout => Cause::BootTimeout,
                Why::Excess { .. } => Cause::EvilMemory,
            };
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.cause = Some(cause);
                // Whatever keeps it from dying, it is not the application's code.
                worker.quiet = worker.is_leaving();
            }
        }
        self.sentences.insert(subject, Sentence { until: now + AGAIN, killed: true, ..sentence });
        self.push(Action::Kill { pid, signal: Signal::SIGKILL });
    }

    /// Nobody is waited for longer than that, and nobody is left who was killed.
    pub(super) fn tick_sentences(&mut self, now: Instant) {
        let due: Vec<Subject> =
            self.sentences.iter().filter(|(_, it)| now >= it.until).map(|(subject, _)| *subject).collect();
        for subject in due {
            let pid = self.pid_of(subject);
            let Some((sentence, pid)) = self.sentences.get_mut(&subject).zip(pid) else {
                self.sentences.remove(&subject);
                continue;
            };
            sentence.until = now + AGAIN;
            let killed = sentence.killed;
            self.push(match killed {
                // Its answer is that the evidence is taken.
                false => Action::EndEvidence { subject },
                true => Action::Kill { pid, signal: Signal::SIGKILL },
            });
        }
    }

    /// Forgets those that are gone.
    pub(super) fn forget_sentence(&mut self, subject: Subject) {
        if self.sentences.remove(&subject).is_some_and(|it| !it.killed) {
            self.push(Action::EndEvidence { subject });
        }
    }
}
