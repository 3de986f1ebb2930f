//! What a process is doing, in words for the log: its requests, its place in the kernel, its stacks.
//!
//! For the master, who asks before it kills, and for a worker that cuts its own requests. Every line begins
//! with a word that says what it is about, and nothing that a client or the application has written can end
//! a line.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::scoreboard::sheet::{InHand, Reading};
use crate::sys::cred;
use crate::sys::process::{self, Pid};

/// Lines of stacks that are told: Python writes no more than a hundred frames of each thread.
const STACK_LINES: usize = 1000;
/// Threads that are told of.
const THREADS: usize = 200;

/// The requests in flight: place, client, what, since when. `now` is on the clock of the sheet.
pub fn requests(word: &str, reading: &Reading, now: u64) -> Vec<String> {
    reading.requests.iter().map(|request| request_line(word, request, now)).collect()
}

fn request_line(word: &str, request: &InHand, now: u64) -> String {
    let age = Duration::from_micros(now.saturating_sub(request.started));
    let began = SystemTime::now().checked_sub(age).and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let since = began.map_or(0, |began| began.as_secs());
    let InHand { core, line, .. } = request;
    let (client, port) = match request.peer {
        Some(peer) => (peer.ip().to_string(), format!("port {}, ", peer.port())),
        None => ("unix socket".to_owned(), String::new()),
    };
    let milliseconds = age.as_millis();
    let limit = match request.deadline {
        Some(at) if now >= at => format!(", {} ms over its limit", (now - at) / 1000),
        Some(at) => format!(", {} ms left", (at - now) / 1000),
        None => String::new(),
    };
    format!("{word} [core {core}] {client} - {line} since {since} ({port}for {milliseconds} ms{limit})")
}

/// Memory, state, system call and where it waits in the kernel; with `verbose` of every thread. Nothing here
/// waits for a lock that a process which hangs may hold, such as that of its memory map.
pub fn kernel(word: &str, pid: Pid, verbose: bool) -> Vec<String> {
    let home = format!("/proc/{pid}");
    let mut line = format!("{word}: process {pid}: state {}", state(Path::new(&home)));
    if let Some((resident, _)) = process::memory(pid.as_raw().cast_unsigned().into()) {
        let _ = write!(line, ", {} KiB of memory (rss)", resident / 1024);
    }
    let mut lines = vec![line];
    if !verbose {
        lines.push(format!("{word}: -- syscall> {}", read(pid, &format!("{home}/syscall"))));
        lines.push(format!("{word}: -- wchan> {}", read(pid, &format!("{home}/wchan"))));
        return lines;
    }
    let tasks = std::fs::read_dir(format!("{home}/task")).into_iter().flatten().flatten();
    for task in tasks.map(|entry| entry.path()).take(THREADS) {
        let of = |file: &str| read(pid, &task.join(file).to_string_lossy());
        let number = task.file_name().unwrap_or_default().to_string_lossy();
        lines.push(format!("{word}: -- thread {number} ({}): state {}", of("comm"), state(&task)));
        lines.push(format!("{word}: -- syscall> {}", of("syscall")));
        lines.push(format!("{word}: -- wchan> {}", of("wchan")));
    }
    lines
}

/// `S (sleeping)`, see proc_pid_status(5).
fn state(home: &Path) -> String {
    let status = std::fs::read_to_string(home.join("status")).unwrap_or_default();
    let state = status.lines().find_map(|line| line.strip_prefix("State:"));
    state.map_or_else(|| "unknown".to_owned(), |state| state.trim().to_owned())
}

/// Whether a process is stopped, by a signal or a debugger: it does nothing, and answers nobody.
pub fn is_stopped(pid: Pid) -> bool {
    state(Path::new(&format!("/proc/{pid}"))).starts_with(['T', 't'])
}

/// A short file of `/proc`, or why it cannot be read.
fn read(pid: Pid, path: &str) -> String {
    let text: io::Result<String> = cred::with_eyes_of(pid, || std::fs::read_to_string(path));
    text.map_or_else(|error| format!("not known: {error}"), |text| harmless(text.trim()))
}

/// The stacks that a process has written down, or why there are none.
pub fn stacks(word: &str, text: &str, none: &str) -> Vec<String> {
    let mut lines: Vec<String> = text
        .lines()
        .filter(|line| !line.is_empty())
        .take(STACK_LINES)
        .map(|line| format!("{word}: -- stack> {}", harmless(line)))
        .collect();
    if lines.is_empty() {
        lines.push(format!("{word}: -- stack> none: {none}"));
    } else if text.lines().count() > STACK_LINES {
        lines.push(format!("{word}: -- stack> [cut]"));
    }
    lines
}

fn harmless(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_told_with_client_age_and_limit() {
        let request = |deadline, peer: Option<&str>| InHand {
            core: 2,
            started: 1_000_000,
            deadline,
            peer: peer.map(|it| it.parse().expect("an address")),
            line: "GET /a".to_owned(),
        };
        let line = |it| request_line("HARAKIRI", &it, 3_500_000);
        let text = line(request(Some(3_000_000), Some("10.0.0.1:99")));
        assert!(text.starts_with("HARAKIRI [core 2] 10.0.0.1 - GET /a since "), "{text}");
        assert!(text.ends_with(" (port 99, for 2500 ms, 500 ms over its limit)"), "{text}");
        assert!(line(request(Some(4_000_000), None)).ends_with(" (for 2500 ms, 500 ms left)"));
        assert!(line(request(None, None)).contains(" unix socket - GET /a since "));
    }

    #[test]
    fn stacks_cannot_forge_lines_and_their_absence_is_explained() {
        let lines = stacks("W", "Thread 1:\n  File \"x\"\x1b[2J\n\n", "");
        assert_eq!(lines, ["W: -- stack> Thread 1:", "W: -- stack>   File \"x\"\\u{1b}[2J"]);
        assert_eq!(stacks("W", "", "it sleeps"), ["W: -- stack> none: it sleeps"]);
        assert_eq!(stacks("W", &"x\n".repeat(2000), "").len(), STACK_LINES + 1);
    }

    #[test]
    fn the_place_in_the_kernel_is_told_of_every_thread() {
        let pid = process::this();
        let lines = kernel("W", pid, false);
        assert!(lines[0].starts_with(&format!("W: process {pid}: state ")) && lines[0].ends_with("(rss)"));
        assert_eq!(lines.len(), 3);
        let verbose = kernel("W", pid, true);
        assert!(verbose.iter().any(|line| line.starts_with(&format!("W: -- thread {pid} ("))), "{verbose:?}");
        assert!(!is_stopped(pid));
        assert!(kernel("W", Pid::from_raw(i32::MAX), true)[0].ends_with("state unknown"));
    }
}
