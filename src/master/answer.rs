//! What became of each reload and rollback, as the master tells those who asked.
//!
//! Whoever asks takes a *ticket* first, a number that only grows (see [`crate::control::answers`]).
//! A reload notes the highest ticket at the moment it begins: it loads what was on disk then, so it
//! answers every ticket up to that one, whichever road the request took and however many requests
//! fell together into one reload. A reload that gives way leaves its tickets to its successor.

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::cause::{Causes, Setbacks};
use crate::net::backlog::Socket;

use super::slots::SlotStanding;
use super::standing::Standing;
use super::state::{Master, Phase};
use super::workers::Generation;

/// Reloads that are remembered; somebody who asks looks at the newest few only.
const REMEMBERED: usize = 8;
/// Bytes kept of a reason: the first lines of a traceback, so that eight of them fit the shared memory.
const REASON_BYTES: usize = 2048;

/// Where a generation comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// From disk.
    #[default]
    Reload,
    /// From memory: it has served before.
    Rollback,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Reload => "reload",
            Kind::Rollback => "rollback",
        })
    }
}

/// One reload or rollback; both are counted together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Its number, which log, status and answer share.
    pub id: u64,
    /// What it is.
    #[serde(default)]
    pub kind: Kind,
    /// The generation it has prepared.
    pub generation: Generation,
    /// The highest ticket when it began.
    #[serde(default)]
    pub ticket: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is")]
pub enum Outcome {
    /// Nothing has been replaced yet.
    Underway,
    /// The new workers accept; the master is about to replace its image.
    Serves,
    /// The new generation serves.
    Complete {
        /// What an operator should know all the same: the image of the master is still the old one.
        #[serde(default)]
        remark: Option<String>,
    },
    /// The old generation was kept.
    Refused {
        /// Why.
        reason: String,
    },
    /// The old workers have left and the new ones do not start; they are tried again.
    Failing {
        /// Why.
        reason: String,
    },
    /// A newer request has replaced it.
    GaveWay,
    /// A stop has ended it.
    Stopped,
    /// A word of another release.
    #[serde(other)]
    Unknown,
}

/// The reloads of late, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Journal(VecDeque<Record>);

impl Journal {
    pub(super) fn begin(&mut self, id: u64, kind: Kind, generation: Generation, ticket: u64) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(Record { id, kind, generation, ticket, outcome: Outcome::Underway });
    }

    pub(super) fn settle(&mut self, id: u64, outcome: Outcome) {
        if let Some(record) = self.0.iter_mut().find(|it| it.id == id) {
            record.outcome = outcome;
        }
    }

    pub(super) fn refuse(&mut self, id: u64, reason: &str) {
        self.settle(id, Outcome::Refused { reason: bounded(reason) });
    }

    pub(super) fn fail(&mut self, id: u64, reason: &str) {
        self.settle(id, Outcome::Failing { reason: bounded(reason) });
    }

    /// True when the last thing of all was one of these, and was refused.
    pub(super) fn has_just_refused(&self, kind: Kind) -> bool {
        let refused = |it: &Record| it.kind == kind && matches!(it.outcome, Outcome::Refused { .. });
        self.0.back().is_some_and(refused)
    }

    /// A stop ends the reload that is under way.
    pub(super) fn stop(&mut self) {
        for record in self.0.iter_mut().filter(|it| it.outcome == Outcome::Underway) {
            record.outcome = Outcome::Stopped;
        }
        self.complete();
    }

    /// The master has its new image, or goes on without one.
    pub(super) fn complete(&mut self) {
        for record in self.0.iter_mut().filter(|it| it.outcome == Outcome::Serves) {
            record.outcome = Outcome::Complete { remark: None };
        }
    }
}

fn bounded(reason: &str) -> String {
    reason[..reason.floor_char_boundary(REASON_BYTES)].to_owned()
}

/// What the server as a whole is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doing {
    /// The first generation is not complete yet; a reload has to wait.
    Starting,
    /// Leaving; there will be no reload any more.
    Stopping,
    /// Serving.
    #[default]
    #[serde(other)]
    Serving,
}

/// How far the reload under way has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The application is loaded.
    pub prepared: bool,
    /// New workers that accept.
    pub ready: u32,
    /// New workers that have to.
    pub wanted: u32,
    /// Old workers that have to leave before the new ones start.
    #[serde(default)]
    pub waits_for: u32,
    /// The new generation is refused, and old workers are being brought back.
    #[serde(default)]
    pub restoring: bool,
}

/// All that those who asked can learn. Fields of other releases are left out or have a default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Answer {
    /// What the server is doing.
    pub doing: Doing,
    /// The generation that serves.
    pub generation: Generation,
    /// Workers that finish their requests.
    pub leaving: u32,
    /// Of the reload under way.
    pub progress: Option<Progress>,
    /// The generations that have processes, the newest first.
    pub generations: Vec<Standing>,
    /// The reloads of late, oldest first.
    pub reloads: Vec<Record>,
    /// Why workers have ended, and how many.
    pub causes: Causes,
    /// Where it listens.
    pub listeners: Vec<Socket>,
    /// What did not come about.
    pub setbacks: Setbacks,
    /// Slots of which there is something to tell: the degraded ones first, then those of which a worker ended
    /// last.
    pub slots: Vec<SlotStanding>,
}

impl Answer {
    /// Nothing is under way: the next thing to happen comes from outside.
    pub fn is_at_rest(&self) -> bool {
        self.doing == Doing::Serving && self.progress.is_none() && self.leaving == 0
    }
}

impl Master {
    /// The highest ticket that somebody holds now.
    pub fn note_ticket(&mut self, ticket: u64) {
        self.ticket = ticket;
    }

    /// What to tell those who asked.
    pub fn answer(&self) -> Answer {
        let count = |check: &dyn Fn(&super::workers::Worker) -> bool| {
            self.workers.values().filter(|it| check(it)).count() as u32
        };
        let surge = self.reload.as_ref().map(|reload| Progress {
            prepared: reload.policy.is_some(),
            ready: count(&|it| it.generation == reload.generation && it.is_ready()),
            wanted: reload.wanted,
            waits_for: 0,
            restoring: reload.refusal.is_some(),
        });
        let arrival = self.arrival.as_ref().map(|_| Progress {
            prepared: true,
            ready: count(&|it| it.generation == self.generation && it.is_ready()),
            wanted: self.desired,
            waits_for: count(&|it| it.generation != self.generation && !it.quiet),
            restoring: false,
        });
        let progress = surge.or(arrival);
        Answer {
            doing: match self.phase {
                Phase::Starting => Doing::Starting,
                Phase::Running | Phase::ReExecuting => Doing::Serving,
                Phase::Stopping { .. } | Phase::Finished => Doing::Stopping,
            },
            generation: self.generation,
            leaving: count(&|it| it.is_leaving()),
            progress,
            generations: self.standings(),
            reloads: self.journal.0.iter().cloned().collect(),
            causes: self.causes.clone(),
            // For those to say who have them.
            listeners: Vec::new(),
            setbacks: self.setbacks,
            // When something was, in everybody's time, is for others to say.
            slots: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_are_forgotten_and_reasons_cut() {
        let mut journal = Journal::default();
        for id in 1..=10 {
            journal.begin(id, Kind::Reload, id + 1, id);
        }
        journal.settle(1, Outcome::GaveWay);
        journal.refuse(10, &"é".repeat(2000));
        let ids: Vec<u64> = journal.0.iter().map(|it| it.id).collect();
        assert_eq!(ids, [3, 4, 5, 6, 7, 8, 9, 10]);
        assert!(matches!(&journal.0[7].outcome, Outcome::Refused { reason } if reason.len() == REASON_BYTES));
    }

    #[test]
    fn words_of_other_releases_are_no_errors() {
        let text =
            r#"{"doing":"Pondering","reloads":[{"id":1,"generation":2,"outcome":{"is":"Vetoed","by":"x"}}]}"#;
        let answer: Answer = serde_json::from_str(text).expect("it is understood");
        assert_eq!(answer.doing, Doing::Serving);
        assert_eq!(answer.reloads[0].outcome, Outcome::Unknown);
    }
}
