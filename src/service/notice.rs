//! ● From the master's state to what the service manager reads.
//!
//! Only what has changed is said, in one datagram each time: what sd_notify(3) calls READY, RELOADING and
//! STOPPING when the stage changes, STATUS when the text does, EXTEND_TIMEOUT_USEC when a phase begins that
//! may take longer than what was announced before. A reload that is refused ends with READY, too: the
//! service is as ready as it was, and a manager that waits must not wait for ever.

use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::channel::headline;
use crate::control::narrator::describe;
use crate::master::answer::{Answer, Doing, Outcome};
use crate::master::slots::Trouble;

/// What may still follow the last deadline of a phase: a kill, the exec of the next image.
const MARGIN: Duration = Duration::from_secs(5);
/// Bytes of a status text; `systemctl status` shows one line.
const STATUS_BYTES: usize = 512;

/// Where the service is, in the words of the service manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    Ready,
    /// Each reload is announced, for the manager may have asked for the second of two.
    Reloading(u64),
    Stopping,
}

/// What the answer does not tell about the workers of the serving generation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Crew<'a> {
    /// Workers that accept.
    pub ready: u32,
    /// Workers that start.
    pub starting: u32,
    /// Workers there should be.
    pub wanted: u32,
    /// They take no new connections, by order.
    pub paused: bool,
    /// The label of the release, when it has one.
    pub release: Option<&'a str>,
}

/// The master at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View<'a> {
    /// What those who ask are told.
    pub answer: &'a Answer,
    /// Who serves.
    pub crew: Crew<'a>,
    /// Why the first start has failed.
    pub failure: Option<&'a str>,
    /// Another configuration is tried when the first start fails.
    pub falls_back: bool,
    /// When the master's patience ends with what it waits for: a start, a reload, the last requests.
    pub patience: Option<Instant>,
}

/// What the service manager was told last.
#[derive(Debug)]
pub struct Notices {
    pid: u32,
    stage: Option<Stage>,
    status: String,
    extended: Option<Instant>,
}

impl Notices {
    /// Nothing was told by this image of the master, whose pid this is.
    pub fn new(pid: u32) -> Self {
        Notices { pid, stage: None, status: String::new(), extended: None }
    }

    /// The datagram that is due, and whether it says that the service is ready. The time is asked for twice:
    /// once for our deadlines, once in microseconds of CLOCK_MONOTONIC, for the manager to compare.
    pub fn follow(&mut self, view: &View<'_>, now: Instant, monotonic_usec: i128) -> Option<(String, bool)> {
        let stage = stage(view.answer);
        let status = status(view);
        let mut states = Vec::new();
        let changed = self.stage != Some(stage);
        if changed {
            match stage {
                Stage::Starting => {}
                Stage::Ready => states.extend([NotifyState::Ready, NotifyState::MainPid(self.pid)]),
                // One datagram, or Type=notify-reload does not know which request this is about.
                Stage::Reloading(_) => {
                    states.extend([NotifyState::Reloading, NotifyState::MonotonicUsec(monotonic_usec)]);
                }
                Stage::Stopping => states.push(NotifyState::Stopping),
            }
            self.stage = Some(stage);
            self.extended = None;
        }
        if self.status != status {
            states.push(NotifyState::Status(&status));
            if let Some(errno) = view.failure.filter(|_| !view.falls_back).and_then(errno) {
                states.push(NotifyState::Errno(errno));
            }
        }
        let wanted = view.patience.filter(|_| stage != Stage::Ready).map(|until| until + MARGIN);
        let extension =
            wanted.filter(|until| self.extended.is_none_or(|known| *until > known)).map(|until| {
                self.extended = Some(until);
                // The crate's own has room for 71 minutes.
                format!("EXTEND_TIMEOUT_USEC={}", until.saturating_duration_since(now).as_micros())
            });
        states.extend(extension.as_deref().map(NotifyState::Custom));
        let datagram = (!states.is_empty()).then(|| lines(&states));
        self.status = status;
        Some((datagram?, changed && stage == Stage::Ready))
    }
}

/// A sign of life.
pub fn alive() -> String {
    lines(&[NotifyState::Watchdog])
}

/// Keep the descriptor that goes with it for the next start of the service.
pub fn store(name: &str) -> String {
    // A socket that listens is never at its end, which is what the manager would look for. (The crate's own
    // words for the store come with another way to send them.)
    format!("FDSTORE=1\nFDNAME={name}\nFDPOLL=0")
}

/// Close the descriptor that was kept under this name.
pub fn forget(name: &str) -> String {
    format!("FDSTOREREMOVE=1\nFDNAME={name}")
}

/// Who the service is, once it has gone to the background.
pub fn main_pid(pid: u32) -> String {
    lines(&[NotifyState::MainPid(pid)])
}

/// A start that failed before there was a master; `again` when another configuration will be tried.
pub fn failure(reason: &str, again: bool) -> String {
    let status = failed(reason);
    let errno = errno(reason).filter(|_| !again).map(NotifyState::Errno);
    lines(&[NotifyState::Status(&status)].into_iter().chain(errno).collect::<Vec<_>>())
}

fn lines(states: &[NotifyState<'_>]) -> String {
    states.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn stage(answer: &Answer) -> Stage {
    let last = answer.reloads.last().filter(|it| matches!(it.outcome, Outcome::Underway | Outcome::Serves));
    match (answer.doing, last) {
        (Doing::Stopping, _) => Stage::Stopping,
        (Doing::Starting, _) => Stage::Starting,
        (Doing::Serving, Some(reload)) => Stage::Reloading(reload.id),
        (Doing::Serving, None) => Stage::Ready,
    }
}

/// What `systemctl status` shows.
fn status(view: &View<'_>) -> String {
    let View { answer, crew, .. } = view;
    let text = match (answer.doing, view.failure) {
        (_, Some(reason)) => return failed(reason),
        (Doing::Stopping, None) => match answer.leaving {
            0 => "stopping".to_owned(),
            1 => "stopping: 1 worker finishes its requests".to_owned(),
            many => format!("stopping: {many} workers finish their requests"),
        },
        (Doing::Starting, None) if crew.ready + crew.starting == 0 => {
            "starting: loading the application".to_owned()
        }
        (Doing::Starting, None) => format!("starting: {} of {} workers accept", crew.ready, crew.wanted),
        (Doing::Serving, None) => serving(answer, crew),
    };
    one_line(&text)
}

fn serving(answer: &Answer, crew: &Crew<'_>) -> String {
    let serves = format!("generation {} serves", answer.generation);
    let mut text = match answer.reloads.last() {
        Some(reload) => match reload.outcome {
            // As the answer to --wait says it; it ends with "generation N serves on".
            Outcome::Refused { .. } | Outcome::Failing { .. } => describe(reload, answer),
            Outcome::Underway => format!("{}; {serves}", describe(reload, answer)),
            // The old image's last word; the number of workers would be that of the old generation.
            Outcome::Serves => return describe(reload, answer),
            Outcome::Complete { remark: Some(_) } => return describe(reload, answer),
            _ => serves,
        },
        None => serves,
    };
    text += &match (crew.ready, crew.wanted) {
        (0, 0) => ", without workers until the next connection".to_owned(),
        (1, 1) => " with 1 worker".to_owned(),
        (ready, wanted) if ready == wanted => format!(" with {ready} workers"),
        (ready, wanted) => format!(" with {ready} of {wanted} workers"),
    };
    if let Some(release) = crew.release {
        text += &format!(", release {release}");
    }
    if crew.paused {
        text += ", paused: new connections wait";
    }
    text += &Trouble(&answer.slots).to_string();
    match answer.leaving {
        0 => {}
        1 => text += "; 1 old worker finishes its requests",
        many => text += &format!("; {many} old workers finish their requests"),
    }
    text
}

fn failed(reason: &str) -> String {
    one_line(&format!("cannot start: {}", headline(reason)))
}

/// The error number in a reason. It is part of the text because reasons travel as text, between processes of
/// different releases too; `std::io::Error` writes it there.
fn errno(reason: &str) -> Option<u32> {
    let (_, rest) = headline(reason).rsplit_once("(os error ")?;
    rest.split_once(')')?.0.parse().ok()
}

/// What fits into a datagram of lines, and into a terminal.
fn one_line(text: &str) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    text[..text.floor_char_boundary(STATUS_BYTES)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::master::answer::{Kind, Progress, Record};

    const FOUR: Crew<'_> = Crew { ready: 4, starting: 0, wanted: 4, paused: false, release: None };
    const USEC: i128 = 123;

    fn view<'a>(answer: &'a Answer, crew: Crew<'a>) -> View<'a> {
        View { answer, crew, failure: None, falls_back: false, patience: None }
    }

    fn answer(doing: Doing, outcomes: &[(u64, Outcome)]) -> Answer {
        let record = |(id, outcome): &(u64, Outcome)| Record {
            kind: Kind::Reload,
            id: *id,
            generation: id + 1,
            ticket: 0,
            outcome: outcome.clone(),
        };
        Answer { doing, generation: 1, reloads: outcomes.iter().map(record).collect(), ..Answer::default() }
    }

    fn said(notices: &mut Notices, view: &View<'_>) -> Vec<String> {
        let datagram = notices.follow(view, Instant::now(), USEC);
        datagram.map_or(Vec::new(), |(text, _)| text.lines().map(str::to_owned).collect())
    }

    #[test]
    fn a_start_a_reload_and_a_stop_are_told_step_by_step_and_once() {
        let mut notices = Notices::new(7);
        let steps = [
            (
                answer(Doing::Starting, &[]),
                Crew { wanted: 4, ..Crew::default() },
                &["STATUS=starting: loading the application"][..],
            ),
            (
                answer(Doing::Starting, &[]),
                Crew { ready: 1, starting: 3, wanted: 4, ..Crew::default() },
                &["STATUS=starting: 1 of 4 workers accept"],
            ),
            (
                answer(Doing::Serving, &[]),
                FOUR,
                &["READY=1", "MAINPID=7", "STATUS=generation 1 serves with 4 workers"],
            ),
            (
                answer(Doing::Serving, &[(1, Outcome::Underway)]),
                FOUR,
                &[
                    "RELOADING=1",
                    "MONOTONIC_USEC=123",
                    "STATUS=reload 1: preparing generation 2; generation 1 serves with 4 workers",
                ],
            ),
            (
                answer(Doing::Serving, &[(1, Outcome::GaveWay), (2, Outcome::Underway)]),
                FOUR,
                &[
                    "RELOADING=1",
                    "MONOTONIC_USEC=123",
                    "STATUS=reload 2: preparing generation 3; generation 1 serves with 4 workers",
                ],
            ),
            (
                answer(Doing::Serving, &[(2, Outcome::Complete { remark: None })]),
                FOUR,
                &["READY=1", "MAINPID=7", "STATUS=generation 1 serves with 4 workers"],
            ),
            (answer(Doing::Stopping, &[]), FOUR, &["STOPPING=1", "STATUS=stopping"]),
        ];
        for (answer, crew, expected) in &steps {
            let view = view(answer, *crew);
            assert_eq!(said(&mut notices, &view), *expected);
            assert_eq!(notices.follow(&view, Instant::now(), USEC), None, "said once");
        }
    }

    #[test]
    fn a_reload_that_is_refused_ends_with_readiness_and_the_reason() {
        let mut notices = Notices::new(7);
        said(&mut notices, &view(&answer(Doing::Serving, &[(3, Outcome::Underway)]), FOUR));
        let refused = Outcome::Refused { reason: "no application:\nbad\n\nIn detail:\nTraceback".to_owned() };
        let answer = answer(Doing::Serving, &[(3, refused)]);
        assert_eq!(
            said(&mut notices, &view(&answer, FOUR)),
            [
                "READY=1",
                "MAINPID=7",
                "STATUS=reload 3 refused: no application: bad; generation 1 serves on with 4 workers"
            ]
        );
    }

    #[test]
    fn what_else_an_operator_should_know_is_in_the_status() {
        let text = |answer: &Answer, crew| status(&view(answer, crew));
        let plain = answer(Doing::Serving, &[]);
        let cases = [
            (Crew { ready: 1, wanted: 1, ..FOUR }, "generation 1 serves with 1 worker"),
            (Crew { ready: 3, ..FOUR }, "generation 1 serves with 3 of 4 workers"),
            (
                Crew { ready: 0, wanted: 0, ..FOUR },
                "generation 1 serves, without workers until the next connection",
            ),
            (Crew { release: Some("v2"), ..FOUR }, "generation 1 serves with 4 workers, release v2"),
            (
                Crew { paused: true, ..FOUR },
                "generation 1 serves with 4 workers, paused: new connections wait",
            ),
        ];
        for (crew, expected) in cases {
            assert_eq!(text(&plain, crew), expected);
        }
        let draining = Answer { leaving: 2, ..plain };
        assert_eq!(
            text(&draining, FOUR),
            "generation 1 serves with 4 workers; 2 old workers finish their requests"
        );
        let progress = Some(Progress { prepared: true, ready: 1, wanted: 4, waits_for: 0, restoring: false });
        let surging = Answer { progress, ..answer(Doing::Serving, &[(1, Outcome::Underway)]) };
        assert_eq!(
            text(&surging, FOUR),
            "reload 1: generation 2 is prepared, new workers 1/4; generation 1 serves with 4 workers"
        );
        let stopping = Answer { leaving: 1, ..answer(Doing::Stopping, &[]) };
        assert_eq!(text(&stopping, FOUR), "stopping: 1 worker finishes its requests");
    }

    #[test]
    fn more_time_is_asked_for_when_a_phase_may_take_longer_than_announced() {
        let mut notices = Notices::new(7);
        let now = Instant::now();
        let mut follow = |answer: &Answer, seconds: u64| {
            let patience = Some(now + Duration::from_secs(seconds));
            let datagram = notices.follow(&View { patience, ..view(answer, FOUR) }, now, USEC);
            let text = datagram.map(|(text, _)| text).unwrap_or_default();
            text.lines().find_map(|line| line.strip_prefix("EXTEND_TIMEOUT_USEC=").map(str::to_owned))
        };
        let starting = answer(Doing::Starting, &[]);
        assert_eq!(follow(&starting, 60).as_deref(), Some("65000000"));
        assert_eq!(follow(&starting, 50), None, "less is no news");
        assert_eq!(follow(&starting, 5000).as_deref(), Some("5005000000"));
        assert_eq!(follow(&answer(Doing::Serving, &[]), 6000), None, "old workers drain at leisure");
        assert_eq!(follow(&answer(Doing::Stopping, &[]), 60).as_deref(), Some("65000000"));
    }

    #[test]
    fn a_failed_start_tells_its_reason_and_its_error_number() {
        let reason = "cannot bind 127.0.0.1:80: Permission denied (os error 13) (app.ini:3)";
        assert_eq!(failure(reason, false), format!("STATUS=cannot start: {reason}\nERRNO=13"));
        assert_eq!(failure(reason, true), format!("STATUS=cannot start: {reason}"));
        assert_eq!(
            failure("the application\nis gone", false),
            "STATUS=cannot start: the application is gone"
        );
        let mut notices = Notices::new(7);
        let answer = answer(Doing::Stopping, &[]);
        let failed = View { failure: Some("chdir: gone (os error 2)"), ..view(&answer, FOUR) };
        assert_eq!(
            said(&mut notices, &failed),
            ["STOPPING=1", "STATUS=cannot start: chdir: gone (os error 2)", "ERRNO=2"]
        );
    }

    #[test]
    fn a_status_is_one_line_of_bounded_length() {
        let line = one_line(&format!("a\nb\u{1b}[1m{}", "é".repeat(1000)));
        assert!(line.starts_with("a b [1m") && line.len() <= STATUS_BYTES, "{line}");
    }
}
