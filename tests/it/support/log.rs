//! The server's log as it is written.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// Lines read from the server's standard error by a thread of its own.
#[derive(Clone, Default)]
pub struct CapturedLog {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    lines: Vec<String>,
    ended: bool,
}

/// A place in the log: only lines after it count.
#[derive(Debug, Clone, Copy)]
pub struct Mark(usize);

impl Mark {
    /// The beginning of the log.
    pub const START: Mark = Mark(0);

    /// How many lines are before it.
    pub fn line(self) -> usize {
        self.0
    }
}

impl CapturedLog {
    /// Reads until every process that holds the other end is gone.
    pub fn capture(pipe: impl Read + Send + 'static) -> Self {
        let log = CapturedLog::default();
        let writer = log.clone();
        std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                let text = String::from_utf8_lossy(&line).trim_end_matches('\n').to_owned();
                line.clear();
                writer.update(|state| state.lines.push(text));
            }
            writer.update(|state| state.ended = true);
        });
        log
    }

    /// Everything so far.
    pub fn lines(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Here.
    pub fn mark(&self) -> Mark {
        Mark(self.lock().lines.len())
    }

    /// Waits for the first line after `mark` that `matches`; `None` when `limit` passed or the log
    /// ended without one.
    pub fn wait_for(&self, mark: Mark, limit: Duration, matches: impl Fn(&str) -> bool) -> Option<String> {
        let mut seen = mark.0;
        let mut found = None;
        self.wait(limit, |state| {
            found = state.lines[seen..].iter().find(|line| matches(line)).cloned();
            seen = state.lines.len();
            found.is_some() || state.ended
        });
        found
    }

    /// Waits until no process holds the log any more; false when `limit` passed before.
    pub fn wait_end(&self, limit: Duration) -> bool {
        self.wait(limit, |state| state.ended);
        self.lock().ended
    }

    fn wait(&self, limit: Duration, mut done: impl FnMut(&State) -> bool) {
        let state = self.lock();
        drop(self.shared.1.wait_timeout_while(state, limit, |state| !done(state)));
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.shared.1.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().expect("nothing panics with the log locked")
    }
}
