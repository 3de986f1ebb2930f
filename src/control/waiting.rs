//! `--reload`, `--rollback` and `--stop PIDFILE --wait`: ask, tell how it goes, return when it is over.
//!
//! Why through shared memory: see [`super::answers`].

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{EXIT_ERROR, EXIT_OK, EXIT_TIMED_OUT};
use crate::master::answer::Kind;
use crate::sys::fd;
use crate::sys::process::{self, Signal};

use super::answers::Answers;
use super::client::Outcome;
use super::narrator::{Narrator, Verdict};
use super::pidfile::{self, Owner};

/// How often to look whether the master still has the memory: one that starts over drops it, which
/// makes no noise.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Looks in a row that must find it gone: a master that has just replaced its image has to map it first.
const LOOKS: u32 = 2;

/// Asks for a reload or a rollback and returns when the other generation serves, or when it is known that
/// it will not; `say` gets the lines of the progress.
///
/// Nothing is asked for when there would be no answer.
pub fn change(kind: Kind, pidfile: &Path, limit: Option<Duration>, say: &mut dyn FnMut(&str)) -> Outcome {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let (verb, signal) = request(kind);
    let failed = |why: String| Outcome { text: format!("cannot {verb}: {why}"), code: EXIT_ERROR };
    let owner = match pidfile::owner(pidfile) {
        Ok(owner) => owner,
        Err(error) => return failed(error.to_string()),
    };
    let pid = owner.pid;
    let answers = match Answers::of(pid) {
        Ok(Some(answers)) => Arc::new(answers),
        Ok(None) => {
            return failed(format!(
                "appserver {pid} gives no answers: it is still starting, or of an older release; {verb} without \
                 --wait"
            ));
        }
        Err(error) => {
            return failed(format!(
                "the answers of appserver {pid} cannot be read: {error}; be root, or its user if it has no \
                 capabilities, or {verb} without --wait"
            ));
        }
    };
    let mut narrator = Narrator::new(kind, answers.take_ticket());
    if let Err(error) = process::pidfd_signal(owner.pidfd.as_fd(), signal) {
        return failed(format!("appserver {pid}: {error}"));
    }
    say(&format!("asked appserver {pid} to {verb}"));
    let end = match watch_end(owner, &answers) {
        Ok(end) => end,
        Err(error) => {
            return failed(format!("asked, but the end of appserver {pid} cannot be watched: {error}"));
        }
    };
    let mut next_look = Instant::now() + LOOK_INTERVAL;
    let mut missed = 0;
    loop {
        let seen = answers.changes();
        // Before the answer is read: the last word of one that has ended is known then.
        let ended = end.load(Ordering::SeqCst);
        let answer = answers.read();
        if let Some(answer) = &answer {
            let (lines, verdict) = narrator.hear(answer);
            lines.iter().for_each(|line| say(line));
            match verdict {
                Some(Verdict::Done(text)) => return Outcome { text, code: EXIT_OK },
                Some(Verdict::Failed(text)) => return Outcome { text, code: EXIT_ERROR },
                None => {}
            }
        }
        if ended {
            return failed(format!("appserver {pid} has ended before the {kind} was complete"));
        }
        let now = Instant::now();
        if now >= next_look {
            next_look = now + LOOK_INTERVAL;
            missed = if answers.is_held_by(pid) { 0 } else { missed + 1 };
            if !end.load(Ordering::SeqCst) && missed >= LOOKS {
                return match answer.is_some_and(|answer| narrator.serves(&answer)) {
                    true => Outcome {
                        text: format!(
                            "appserver {pid}: the new workers serve; its new master is of a release that gives no answers"
                        ),
                        code: EXIT_OK,
                    },
                    false => failed(format!("appserver {pid} gives no answers any more; its log tells")),
                };
            }
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            let text =
                format!("{kind}: the time is up, appserver {pid} goes on with it; --status tells how far");
            return Outcome { text, code: EXIT_TIMED_OUT };
        }
        let until = deadline.unwrap_or(next_look).min(next_look);
        answers.await_change(seen, until.saturating_duration_since(now));
    }
}

/// What one does who wants this: a verb for the lines about it, and a signal.
pub fn request(kind: Kind) -> (&'static str, Signal) {
    match kind {
        Kind::Reload => ("reload", Signal::SIGHUP),
        Kind::Rollback => ("roll back", Signal::SIGURG),
    }
}

/// Asks for a stop and returns when the master has ended; `say` gets the lines of the progress.
pub fn stop(pidfile: &Path, limit: Option<Duration>, say: &mut dyn FnMut(&str)) -> Outcome {
    let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
    let failed = |why: String| Outcome { text: format!("cannot stop: {why}"), code: EXIT_ERROR };
    let owner = match pidfile::owner(pidfile) {
        Ok(owner) => owner,
        Err(error) => return failed(error.to_string()),
    };
    let pid = owner.pid;
    // Without them there is no progress to tell, but an end all the same.
    let answers = Answers::of(pid).ok().flatten().or_else(|| Answers::create().ok());
    let Some(answers) = answers.map(Arc::new) else { return failed("no memory is left".to_owned()) };
    if let Err(error) = process::pidfd_signal(owner.pidfd.as_fd(), Signal::SIGINT) {
        return failed(format!("appserver {pid}: {error}"));
    }
    say(&format!("asked appserver {pid} to stop"));
    let end = match watch_end(owner, &answers) {
        Ok(end) => end,
        Err(error) => {
            return failed(format!("asked, but the end of appserver {pid} cannot be watched: {error}"));
        }
    };
    let mut last = None;
    loop {
        let seen = answers.changes();
        if end.load(Ordering::SeqCst) {
            return Outcome { text: format!("appserver {pid} has ended"), code: EXIT_OK };
        }
        let leaving = answers.read().map(|answer| answer.leaving).filter(|leaving| *leaving > 0);
        if leaving != last {
            last = leaving;
            leaving.iter().for_each(|leaving| say(&format!("draining {leaving}")));
        }
        let now = Instant::now();
        if deadline.is_some_and(|deadline| now >= deadline) {
            let text = format!("stop: the time is up, appserver {pid} still finishes requests");
            return Outcome { text, code: EXIT_TIMED_OUT };
        }
        let patience = deadline.map_or(Duration::MAX, |deadline| deadline.saturating_duration_since(now));
        answers.await_change(seen, patience.min(Duration::from_secs(3600)));
    }
}

/// Waits for the end of the process beside the answers: the kernel cannot wait for both at once. The
/// thread ends with it, or with this process.
fn watch_end(owner: Owner, answers: &Arc<Answers>) -> std::io::Result<Arc<AtomicBool>> {
    let end = Arc::new(AtomicBool::new(false));
    let (tell, bell) = (Arc::clone(&end), Arc::clone(answers));
    thread::Builder::new().name("watch-end".to_owned()).spawn(move || {
        // The longest time that poll(2) takes; only an error of the kernel's ends it otherwise.
        while let Ok(false) = fd::await_readable(owner.pidfd.as_fd(), Duration::from_secs(20 * 24 * 3600)) {}
        tell.store(true, Ordering::SeqCst);
        bell.wake();
    })?;
    Ok(end)
}
