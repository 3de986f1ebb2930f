//! Finding out what somebody is doing who is about to be killed, without waiting for it.
//!
//! What others can see is written to the log at once. The stacks have to be asked for: they are read when the
//! answer comes, or when patience ends, whichever is first; the loop goes on meanwhile.

use std::collections::BTreeMap;
use std::time::Instant;

use log::{error, warn};

use crate::evidence;
use crate::scoreboard::sheet::{Reading, SheetFile};
use crate::sys::clock::Monotonic;
use crate::sys::process::Pid;
use crate::sys::stacks;

use super::event::Event;
use super::harakiri::{Due, Seen};
use super::killing::{Subject, Why};
use super::workers::{SlotId, WorkerId};
use super::{Runner, report};

/// The sheets of the children, and who of them is asked.
pub(super) struct Evidence {
    /// By child; those of older releases have none.
    pub(super) sheets: BTreeMap<Subject, SheetFile>,
    asked: BTreeMap<Subject, Asked>,
    clock: Monotonic,
}

/// Somebody whose stacks are awaited.
#[derive(Debug, Clone, Copy)]
struct Asked {
    /// What the lines of its evidence begin with.
    word: &'static str,
    /// Its number, and whether it may still leave, where a request takes too long.
    late: Option<(SlotId, bool)>,
}

impl Evidence {
    pub(super) fn new() -> Self {
        Evidence { sheets: BTreeMap::new(), asked: BTreeMap::new(), clock: Monotonic::read() }
    }

    /// A child goes on as something else.
    pub(super) fn pass_sheet_on(&mut self, from: Subject, to: Subject) {
        if let Some(sheet) = self.sheets.remove(&from) {
            self.sheets.insert(to, sheet);
        }
    }

    fn reading(&self, subject: Subject) -> Reading {
        let Some(sheet) = self.sheets.get(&subject) else { return Reading::default() };
        sheet.read().unwrap_or_else(|error| {
            warn!("the requests of {subject:?} cannot be read: {error}");
            Reading::default()
        })
    }

    fn seen(&self, worker: WorkerId) -> Seen {
        let Reading { limit, requests } = self.reading(Subject::Worker(worker));
        let due = |deadline| self.clock.instant_of(deadline);
        let due = requests.iter().filter_map(|it| Some(Due { core: it.core, at: due(it.deadline?) }));
        Seen { worker, limit, due: due.collect() }
    }
}

fn word(why: Why) -> &'static str {
    match why {
        Why::Harakiri { .. } => "HARAKIRI",
        Why::Mercy => "NO MERCY",
        Why::BootTimeout => "BOOT TIMEOUT",
        Why::Excess { .. } => "EVIL RELOAD",
    }
}

fn tell(lines: Vec<String>) {
    lines.iter().for_each(|line| warn!("{line}"));
}

impl Runner {
    /// Looks at what some workers have written down about their requests.
    pub(super) fn look_at_requests(&mut self, workers: impl IntoIterator<Item = WorkerId>) {
        let seen = workers.into_iter().map(|worker| self.evidence.seen(worker)).collect();
        let asked = self.machine.harakiri_asks_who_waits();
        let waiting = asked.then(|| self.longest_queue()).flatten();
        self.queue.push_back(Event::RequestsSeen { seen, waiting });
    }

    /// Looks at all of them.
    pub(super) fn look_at_all_requests(&mut self) {
        // Whoever writes down a deadline after its worker was looked at finds this, or what follows from it.
        self.holdings.scoreboard.set_next_look(0);
        self.look_at_requests(self.workers.keys().copied().collect::<Vec<_>>());
    }

    /// Tells the workers when the next look is.
    pub(super) fn announce_next_look(&self) {
        let at = self.machine.next_request_look().map_or(0, |at| self.evidence.clock.micros_of(at));
        self.holdings.scoreboard.set_next_look(at);
    }

    /// Writes down what can be seen, and asks for the rest.
    pub(super) fn take_evidence(
        &mut self,
        subject: Subject,
        pid: Pid,
        worker: Option<(SlotId, usize)>,
        why: Why,
    ) {
        let mut late = None;
        match (why, worker) {
            (Why::Harakiri { attempt, graceful, .. }, Some((slot, _))) => {
                late = Some((slot, graceful));
                let graceful = if graceful { "yes" } else { "no" };
                error!(
                    "*** HARAKIRI ON WORKER {slot} (pid: {pid}, try: {attempt}, graceful: {graceful}) ***"
                );
            }
            (Why::Mercy, Some((slot, cell))) => {
                report::impatience(&self.holdings.scoreboard.cell(cell), slot, pid);
            }
            (Why::Excess { what, bytes }, Some((slot, cell))) => {
                report::excess(&self.holdings.scoreboard.cell(cell), slot, pid, what, bytes);
            }
            (_, Some((slot, _))) => error!("worker {slot} (pid: {pid}) was not ready in time (boot-timeout)"),
            (_, None) => {
                error!("the zygote (pid: {pid}) has not loaded the application in time (boot-timeout)")
            }
        }
        self.inquire(subject, pid, Asked { word: word(why), late });
    }

    /// Writes down what a worker does that gives no sign of life: whoever waits for one will end all of them.
    pub(super) fn witness(&mut self, worker: WorkerId) {
        let entry = self.machine.workers().find(|(id, _)| *id == worker);
        let Some((slot, pid)) = entry.and_then(|(_, it)| Some((it.slot, it.pid?))) else { return };
        warn!("worker {slot} (pid: {pid}) gives no sign of life (watchdog)");
        self.inquire(Subject::Worker(worker), pid, Asked { word: "WATCHDOG", late: None });
    }

    fn inquire(&mut self, subject: Subject, pid: Pid, asked: Asked) {
        let Asked { word, late } = asked;
        tell(evidence::kernel(word, pid, self.holdings.config.harakiri.verbose));
        if let Some((slot, _)) = late {
            warn!("HARAKIRI !!! worker {slot} status !!!");
        }
        let now = self.evidence.clock.micros_of(Instant::now());
        tell(evidence::requests(word, &self.evidence.reading(subject), now));
        self.evidence.asked.insert(subject, asked);
        if let Err(reason) = self.ask_for_stacks(subject, pid) {
            self.end_evidence(subject, &reason);
        }
    }

    /// The error is why there will be no answer.
    fn ask_for_stacks(&self, subject: Subject, pid: Pid) -> Result<(), String> {
        let sheet = self.evidence.sheets.get(&subject).ok_or("it is of a release that does not tell them")?;
        if evidence::is_stopped(pid) {
            return Err("the process is stopped".to_owned());
        }
        if !stacks::heeds(pid) {
            let signal = stacks::number();
            return Err(format!("it does not heed signal {signal}, which asks for them"));
        }
        sheet.forget_stacks().and_then(|()| stacks::ask(pid)).map_err(|error| error.to_string())
    }

    /// Somebody has answered.
    pub(super) fn stacks_arrived(&mut self, subject: Subject) {
        self.end_evidence(subject, "the application has none to tell; those of Python are told");
    }

    /// Writes down the stacks as far as they are there, else why there are `none`.
    pub(super) fn end_evidence(&mut self, subject: Subject, none: &str) {
        let Some(Asked { word, late }) = self.evidence.asked.remove(&subject) else { return };
        let text = self.evidence.sheets.get(&subject).map(SheetFile::stacks);
        let text = match text {
            Some(Ok(text)) => text,
            Some(Err(error)) => format!("cannot be read: {error}"),
            None => String::new(),
        };
        tell(evidence::stacks(word, &text, none));
        let now = self.evidence.clock.micros_of(Instant::now());
        let requests = self.evidence.reading(subject).requests;
        let overdue = requests.iter().filter(|it| it.deadline.is_some_and(|at| now >= at)).count();
        if let Some((slot, graceful)) = late {
            warn!("HARAKIRI !!! end of worker {slot} status !!!");
            if !graceful && overdue > 0 {
                warn!(
                    "HARAKIRI: worker {slot} is killed with {} requests in flight, {overdue} of them over their limit",
                    requests.len()
                );
            }
        }
        self.queue.push_back(Event::EvidenceTaken { subject, overdue: overdue > 0 });
    }

    /// A child is gone.
    pub(super) fn forget_sheet(&mut self, subject: Subject) {
        self.evidence.sheets.remove(&subject);
        self.evidence.asked.remove(&subject);
    }
}
