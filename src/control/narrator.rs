//! From what the master says to what a person reads who waits for it. No file, no clock, no process.

use crate::channel::{headline, parts_of_reason};
use crate::master::answer::{Answer, Doing, Kind, Outcome, Progress, Record};

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The new generation serves.
    Done(String),
    /// It does not, or nobody knows.
    Failed(String),
}

/// Follows the reload or rollback that answers one ticket.
#[derive(Debug)]
pub struct Narrator {
    kind: Kind,
    ticket: u64,
    /// The reload that answers it, as far as known.
    following: Option<u64>,
    /// What was said last.
    last: String,
}

impl Narrator {
    /// For the holder of this ticket, who has asked for one of this kind.
    pub fn new(kind: Kind, ticket: u64) -> Self {
        Narrator { kind, ticket, following: None, last: String::new() }
    }

    /// What there is to say about an answer, and the end when it is one.
    pub fn hear(&mut self, answer: &Answer) -> (Vec<String>, Option<Verdict>) {
        let mut lines = Vec::new();
        if self.kind == Kind::Rollback && answer.generations.is_empty() {
            // It does not speak of them, so it has ignored the signal.
            let why = "the server is of a release that cannot roll back";
            return (lines, Some(Verdict::Failed(why.to_owned())));
        }
        loop {
            // Reloads follow one another, so the oldest that is not over for us is ours. It is forgotten
            // after some newer ones; the next of those answers as well.
            let ours = |it: &&Record| {
                it.kind == self.kind && it.id >= self.following.unwrap_or(0) && it.ticket >= self.ticket
            };
            let Some(record) = answer.reloads.iter().find(ours) else {
                if answer.doing == Doing::Stopping {
                    return (lines, Some(Verdict::Failed("the server is stopping".to_owned())));
                }
                lines.extend(self.once(waits_for(self.kind, answer)));
                return (lines, None);
            };
            self.following = Some(record.id);
            match &record.outcome {
                Outcome::GaveWay => {
                    lines.extend(self.once(Some(describe(record, answer))));
                    self.following = Some(record.id + 1);
                }
                Outcome::Underway | Outcome::Serves => {
                    lines.extend(self.once(Some(describe(record, answer))));
                    return (lines, None);
                }
                Outcome::Complete { .. } => {
                    return (lines, Some(Verdict::Done(describe(record, answer))));
                }
                Outcome::Refused { reason } | Outcome::Failing { reason } => {
                    let mut text = describe(record, answer);
                    if let (_, Some(details)) = parts_of_reason(reason) {
                        text.push('\n');
                        text.push_str(printable(details).trim_end());
                    }
                    return (lines, Some(Verdict::Failed(text)));
                }
                Outcome::Stopped | Outcome::Unknown => {
                    return (lines, Some(Verdict::Failed(describe(record, answer))));
                }
            }
        }
    }

    /// True when the new workers are known to accept, whatever becomes of the master.
    pub fn serves(&self, answer: &Answer) -> bool {
        let ours = |it: &Record| Some(it.id) == self.following && it.outcome == Outcome::Serves;
        answer.reloads.iter().any(ours)
    }

    fn once(&mut self, line: Option<String>) -> Option<String> {
        let line = line.filter(|line| *line != self.last)?;
        self.last.clone_from(&line);
        Some(line)
    }
}

/// Why our reload has not begun.
fn waits_for(kind: Kind, answer: &Answer) -> Option<String> {
    if answer.doing == Doing::Starting {
        return Some(format!("the server is starting: the {kind} begins when it serves"));
    }
    let busy =
        answer.reloads.last().filter(|it| matches!(it.outcome, Outcome::Underway | Outcome::Serves))?;
    let next = if busy.kind == kind { "next one".to_owned() } else { kind.to_string() };
    Some(format!("{} {} is under way: the {next} begins when it is over", busy.kind, busy.id))
}

/// A reload as the log says it.
pub fn describe(record: &Record, answer: &Answer) -> String {
    let Record { id, kind, generation, outcome, .. } = record;
    match outcome {
        Outcome::Underway if answer.reloads.last().is_some_and(|last| last.id > *id) => {
            // The progress is that of the latest.
            format!("{kind} {id}: generation {generation} is prepared, and does not serve yet")
        }
        Outcome::Underway => match answer.progress {
            Some(Progress { restoring: true, .. }) => {
                let kept = answer.generation;
                format!("{kind} {id} fails: bringing back the workers of generation {kept}")
            }
            Some(Progress { waits_for, .. }) if waits_for > 0 => {
                format!(
                    "{kind} {id}: generation {generation} is prepared, waiting for {waits_for} old workers to leave"
                )
            }
            Some(Progress { ready, wanted, .. }) if *kind == Kind::Rollback => {
                format!("rollback {id}: generation {generation} is awake, workers {ready}/{wanted}")
            }
            Some(Progress { prepared: true, ready, wanted, .. }) => {
                format!("{kind} {id}: generation {generation} is prepared, new workers {ready}/{wanted}")
            }
            _ => format!("{kind} {id}: preparing generation {generation}"),
        },
        Outcome::Serves => {
            format!(
                "{kind} {id}: generation {generation} serves, draining {}; replacing the master",
                answer.leaving
            )
        }
        Outcome::Complete { remark: None } => {
            format!("{kind} {id} complete: generation {generation} serves, draining {}", answer.leaving)
        }
        Outcome::Complete { remark: Some(remark) } => {
            format!("{kind} {id} complete: generation {generation} serves, but {}", printable(remark))
        }
        Outcome::Refused { reason } => {
            let kept = answer.generation;
            format!("{kind} {id} refused: {}; generation {kept} serves on", printable(headline(reason)))
        }
        Outcome::Failing { reason } => {
            let reason = printable(headline(reason));
            format!(
                "{kind} {id}: the old workers have left and the new ones do not start: {reason}; the server tries on"
            )
        }
        Outcome::GaveWay => format!("{kind} {id} gives way to a newer one"),
        Outcome::Stopped => format!("{kind} {id} has ended: the server is stopping"),
        Outcome::Unknown => {
            format!("{kind} {id} ended in a way this release does not know; the server's log tells")
        }
    }
}

/// Lines stay lines; what a terminal would take for a command does not reach it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::standing::Standing;

    fn record(id: u64, ticket: u64, outcome: Outcome) -> Record {
        Record { id, kind: Kind::Reload, generation: id + 1, ticket, outcome }
    }

    fn answer(reloads: Vec<Record>) -> Answer {
        Answer { generation: 1, reloads, ..Answer::default() }
    }

    const COMPLETE: Outcome = Outcome::Complete { remark: None };

    #[test]
    fn each_step_is_told_once() {
        let mut narrator = Narrator::new(Kind::Reload, 1);
        assert_eq!(narrator.hear(&answer(vec![])), (vec![], None));
        let mut now = answer(vec![record(1, 1, Outcome::Underway)]);
        assert_eq!(narrator.hear(&now).0, ["reload 1: preparing generation 2"]);
        assert_eq!(narrator.hear(&now), (vec![], None));
        now.progress = Some(Progress { prepared: true, ready: 3, wanted: 4, waits_for: 0, restoring: false });
        assert_eq!(narrator.hear(&now).0, ["reload 1: generation 2 is prepared, new workers 3/4"]);
        now.reloads[0].outcome = COMPLETE;
        now.leaving = 2;
        let done = Verdict::Done("reload 1 complete: generation 2 serves, draining 2".into());
        assert_eq!(narrator.hear(&now), (vec![], Some(done)));
    }

    #[test]
    fn a_reload_that_began_before_the_question_is_not_the_answer() {
        let mut narrator = Narrator::new(Kind::Reload, 5);
        let mut now = answer(vec![record(1, 4, Outcome::Underway)]);
        assert_eq!(narrator.hear(&now).0, ["reload 1 is under way: the next one begins when it is over"]);
        now.reloads[0].outcome = COMPLETE;
        assert_eq!(narrator.hear(&now), (vec![], None));
        now.reloads.push(record(2, 5, COMPLETE));
        assert!(matches!(narrator.hear(&now).1, Some(Verdict::Done(line)) if line.contains("reload 2")));
    }

    #[test]
    fn one_that_gives_way_leaves_the_answer_to_its_successor() {
        let mut narrator = Narrator::new(Kind::Reload, 1);
        let refused = Outcome::Refused { reason: "a\u{1b}[1mb\n\nIn detail:\nTraceback\n".into() };
        let now = answer(vec![record(1, 1, Outcome::GaveWay), record(2, 2, refused)]);
        let (lines, verdict) = narrator.hear(&now);
        assert_eq!(lines, ["reload 1 gives way to a newer one"]);
        let failed = "reload 2 refused: a\u{fffd}[1mb; generation 1 serves on\nTraceback";
        assert_eq!(verdict, Some(Verdict::Failed(failed.into())));
    }

    #[test]
    fn a_rollback_is_answered_by_rollbacks_and_a_reload_by_reloads() {
        let rollback = |id, outcome| Record { kind: Kind::Rollback, ..record(id, 1, outcome) };
        let mut now = answer(vec![record(1, 1, COMPLETE)]);
        let mut narrator = Narrator::new(Kind::Rollback, 1);
        assert!(
            matches!(narrator.hear(&now).1, Some(Verdict::Failed(why)) if why.contains("cannot roll back"))
        );
        now.generations.push(Standing::default());
        assert_eq!(narrator.hear(&now), (vec![], None));
        now.reloads = vec![rollback(1, Outcome::Underway)];
        now.progress = Some(Progress { prepared: true, ready: 1, wanted: 2, waits_for: 0, restoring: false });
        assert_eq!(narrator.hear(&now).0, ["rollback 1: generation 2 is awake, workers 1/2"]);
        now.reloads[0].outcome = COMPLETE;
        let told = narrator.hear(&now).1;
        assert!(matches!(told, Some(Verdict::Done(line)) if line.starts_with("rollback 1 complete: ")));
        assert_eq!(Narrator::new(Kind::Reload, 1).hear(&now), (vec![], None));
    }

    #[test]
    fn nothing_is_to_be_waited_for_while_the_server_stops() {
        let now = Answer { doing: Doing::Stopping, ..Answer::default() };
        assert!(matches!(Narrator::new(Kind::Reload, 1).hear(&now).1, Some(Verdict::Failed(_))));
        let now = Answer { doing: Doing::Starting, ..Answer::default() };
        assert_eq!(Narrator::new(Kind::Reload, 1).hear(&now).0.len(), 1);
    }

    #[test]
    fn one_whose_workers_wait_for_the_old_ones_says_so() {
        let mut narrator = Narrator::new(Kind::Reload, 1);
        let mut now = answer(vec![record(1, 1, Outcome::Underway)]);
        let progress = Progress { prepared: true, ready: 0, wanted: 2, waits_for: 3, restoring: false };
        now.progress = Some(progress);
        let waits = "reload 1: generation 2 is prepared, waiting for 3 old workers to leave";
        assert_eq!(narrator.hear(&now).0, [waits]);
        now.progress = Some(Progress { waits_for: 0, restoring: true, ..progress });
        assert_eq!(narrator.hear(&now).0, ["reload 1 fails: bringing back the workers of generation 1"]);
        now.reloads.push(record(2, 2, Outcome::Underway));
        let behind = "reload 1: generation 2 is prepared, and does not serve yet";
        assert_eq!(narrator.hear(&now).0, [behind]);
        now.reloads[0].outcome = Outcome::Failing { reason: "boom\n\nIn detail:\nTraceback\n".into() };
        let failed = "reload 1: the old workers have left and the new ones do not start: boom; the server tries \
                      on\nTraceback";
        assert_eq!(narrator.hear(&now).1, Some(Verdict::Failed(failed.into())));
    }

    #[test]
    fn a_reload_that_was_forgotten_is_answered_by_a_newer_one() {
        let mut narrator = Narrator::new(Kind::Reload, 1);
        narrator.hear(&answer(vec![record(1, 1, Outcome::Underway)]));
        let verdict = narrator.hear(&answer(vec![record(9, 9, COMPLETE)])).1;
        assert!(matches!(verdict, Some(Verdict::Done(_))));
    }
}
