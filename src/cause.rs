//! Why workers leave and die: one word, the same in log, status and counters.
//!
//! The words are explained to operators in `docs/supervision.md`; a test sees to it that none is missing.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{EXIT_ERROR, EXIT_NO_APP};
use crate::sys::process::{Exit, Signal};

/// Why a worker process has ended, or is about to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Another generation serves.
    Reload,
    /// Its own generation was refused, or a rollback to it was.
    Refused,
    /// All workers are replaced, or one after the other (FIFO `w`, `W`, `c`).
    WorkersReload,
    /// It was asked for by `SIGHUP` to the worker, or left by itself in good order.
    #[default]
    Asked,
    /// Fewer workers are wanted: FIFO `-` and `C`, a lower `processes`.
    Surplus,
    /// It became the zygote (`refork-after`), or was about to.
    Promoted,
    /// Its successor shares the memory of such a zygote.
    Warmed,
    /// It has served enough requests (`max-requests`).
    MaxRequests,
    /// It has served long enough (`max-worker-lifetime`).
    Lifetime,
    /// It had too much memory (`reload-on-rss` and its like).
    Memory,
    /// All together had too much memory, and it the most (`memory-budget`).
    MemoryBudget,
    /// It was killed for its memory (`evil-reload-on-rss`, `evil-reload-on-as`).
    EvilMemory,
    /// One of its requests ended in an exception (`reload-on-exception`).
    Exception,
    /// There was too little to do (`cheaper`).
    Cheaper,
    /// There was no request for long (`idle`).
    Idle,
    /// The server stops.
    Stop,
    /// It has not left in time, and was killed (`worker-reload-mercy`).
    Mercy,
    /// A request took longer than it may (`harakiri`).
    Harakiri,
    /// It was not ready in time (`boot-timeout`).
    BootTimeout,
    /// It could not load the application.
    LoadFailed,
    /// It could not be forked.
    ForkFailed,
    /// Its own code did what the kernel or the C library ends a process for: `SIGSEGV`, `SIGABRT` and their like.
    Crash,
    /// The kernel's OOM killer chose it.
    OutOfMemory,
    /// Another signal killed it, sent by its own code or from outside.
    Signal,
    /// It ended with an exit code that says failure.
    Exit,
    /// A word of another release.
    #[serde(other)]
    Unknown,
}

impl Cause {
    /// True where a limit decides that a worker is replaced, and nobody waits for it: there is time.
    pub fn is_recycling(self) -> bool {
        matches!(
            self,
            Cause::MaxRequests | Cause::Lifetime | Cause::Memory | Cause::MemoryBudget | Cause::Exception
        )
    }

    /// What an end says by itself, of which nothing else is known.
    pub fn of(exit: Exit, was_ready: bool) -> Self {
        match exit {
            Exit::Signal { number, .. } if is_fault(number) => Cause::Crash,
            Exit::Signal { .. } => Cause::Signal,
            Exit::Code(0) if was_ready => Cause::Asked,
            Exit::Code(_) => Cause::Exit,
        }
    }

    /// The word, and what the end adds to it: `crash (SIGSEGV, core dumped)`, `exit (code 7)`, `reload`.
    pub fn told(self, exit: Option<Exit>) -> String {
        match (self, exit) {
            (Cause::Crash | Cause::Signal, Some(Exit::Signal { number, core })) => {
                let name = Signal::try_from(number);
                let name = name.map_or_else(|_| number.to_string(), |it| it.as_str().to_owned());
                format!("{self} ({name}{})", if core { ", core dumped" } else { "" })
            }
            (Cause::Exit, Some(Exit::Code(code))) => match meaning(code) {
                Some(meaning) => format!("{self} (code {code}: {meaning})"),
                None => format!("{self} (code {code})"),
            },
            _ => self.to_string(),
        }
    }
}

/// Signals that a process gets for what its own code does (signal(7)).
fn is_fault(number: i32) -> bool {
    let faults = [
        Signal::SIGSEGV,
        Signal::SIGBUS,
        Signal::SIGILL,
        Signal::SIGFPE,
        Signal::SIGABRT,
        Signal::SIGTRAP,
        Signal::SIGSYS,
    ];
    Signal::try_from(number).is_ok_and(|signal| faults.contains(&signal))
}

/// What an exit code usually means, if it means anything.
fn meaning(code: i32) -> Option<&'static str> {
    const NO_APP: i32 = EXIT_NO_APP as i32;
    const ERROR: i32 = EXIT_ERROR as i32;
    /// What the Rust runtime leaves with.
    const PANIC: i32 = 101;
    /// What Python leaves with when it cannot write out its files at the end.
    const NOT_FLUSHED: i32 = 120;
    match code {
        0 => Some("it left before it served"),
        ERROR => Some("an error, told in the lines before"),
        NO_APP => Some("no application could be loaded"),
        PANIC => Some("a panic in Rust code"),
        NOT_FLUSHED => Some("Python could not write its standard output or error"),
        129..=192 => Some("the number of a signal, and 128, as shells say it"),
        _ => None,
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Reload => "reload",
            Cause::Refused => "refused",
            Cause::WorkersReload => "workers-reload",
            Cause::Asked => "asked",
            Cause::Surplus => "surplus",
            Cause::Promoted => "promoted",
            Cause::Warmed => "warmed",
            Cause::MaxRequests => "max-requests",
            Cause::Lifetime => "lifetime",
            Cause::Memory => "memory",
            Cause::MemoryBudget => "memory-budget",
            Cause::EvilMemory => "evil-memory",
            Cause::Exception => "exception",
            Cause::Cheaper => "cheaper",
            Cause::Idle => "idle",
            Cause::Stop => "stop",
            Cause::Mercy => "mercy",
            Cause::Harakiri => "harakiri",
            Cause::BootTimeout => "boot-timeout",
            Cause::LoadFailed => "load-failed",
            Cause::ForkFailed => "fork-failed",
            Cause::Crash => "crash",
            Cause::OutOfMemory => "out-of-memory",
            Cause::Signal => "signal",
            Cause::Exit => "exit",
            Cause::Unknown => "unknown",
        })
    }
}

/// How many workers have ended for each cause since the instance started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Causes(BTreeMap<Cause, u64>);

impl Causes {
    /// One more.
    pub fn count(&mut self, cause: Cause) {
        *self.0.entry(cause).or_default() += 1;
    }

    /// How many so far.
    pub fn of(&self, cause: Cause) -> u64 {
        self.0.get(&cause).copied().unwrap_or_default()
    }
}

/// `reload 4, signal 1`; nothing before the first.
impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, (cause, count)) in self.0.iter().enumerate() {
            let separator = if position > 0 { ", " } else { "" };
            write!(f, "{separator}{cause} {count}")?;
        }
        Ok(())
    }
}

/// What was tried with workers and did not come about, since the instance started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Setbacks {
    /// Reloads and rollbacks that were refused.
    pub refused: u64,
    /// Replacements within a generation that failed: the old worker was kept, the rest of the roll left undone.
    pub unreplaced: u64,
}

/// `reloads refused 1, replacements failed 2`
impl fmt::Display for Setbacks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "reloads refused {}, replacements failed {}", self.refused, self.unreplaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_with_what_it_adds_to_the_word() {
        let signal = |number, core| Exit::Signal { number, core };
        let cases = [
            (signal(11, false), true, "crash (SIGSEGV)"),
            (signal(6, true), false, "crash (SIGABRT, core dumped)"),
            (signal(9, false), true, "signal (SIGKILL)"),
            (signal(40, false), true, "signal (40)"),
            (Exit::Code(7), true, "exit (code 7)"),
            (Exit::Code(22), true, "exit (code 22: no application could be loaded)"),
            (Exit::Code(0), true, "asked"),
            (Exit::Code(0), false, "exit (code 0: it left before it served)"),
        ];
        for (exit, was_ready, text) in cases {
            assert_eq!(Cause::of(exit, was_ready).told(Some(exit)), text);
        }
        assert_eq!(Cause::Mercy.told(Some(signal(9, false))), "mercy", "that it was killed is no news");
        assert_eq!(Cause::ForkFailed.told(None), "fork-failed");
    }

    /// The words of [`Cause`]'s `Display`, which the compiler lets nobody forget.
    fn words() -> Vec<&'static str> {
        let source = include_str!("cause.rs");
        let arms = source.lines().filter(|line| line.trim_start().starts_with("Cause::"));
        arms.filter_map(|line| line.split_once(" => \"")?.1.strip_suffix("\",")).collect()
    }

    #[test]
    fn every_cause_is_explained_to_operators() {
        let page = include_str!("../docs/supervision.md");
        assert!(words().len() > 10, "the words are found: {:?}", words());
        for word in words() {
            assert!(
                page.contains(&format!("\n| `{word}` | ")),
                "the cause {word:?} is not in the table of docs/supervision.md, \"Why workers end\": add a line \
                 `| `{word}` | what it means | what to do |`"
            );
        }
    }

    #[test]
    fn a_cause_travels_as_the_word_that_is_shown() {
        for word in words() {
            let cause: Cause = serde_json::from_value(word.into()).expect("any word is understood");
            assert_eq!(
                cause.to_string(),
                word,
                "Display and serde differ, or a word of this release is unknown"
            );
        }
    }

    #[test]
    fn causes_read_the_same_in_text_and_in_what_travels() {
        let mut causes = Causes::default();
        assert_eq!(causes.to_string(), "");
        causes.count(Cause::Signal);
        causes.count(Cause::BootTimeout);
        causes.count(Cause::Signal);
        assert_eq!(causes.to_string(), "boot-timeout 1, signal 2");
        let text = serde_json::to_string(&causes).expect("plain data");
        assert_eq!(text, r#"{"boot-timeout":1,"signal":2}"#);
        assert_eq!(serde_json::from_str::<Causes>(&text).expect("just written"), causes);
    }

    #[test]
    fn causes_of_another_release_are_no_errors() {
        let causes: Causes = serde_json::from_str(r#"{"boredom":3,"exit":1}"#).expect("understood");
        assert_eq!((causes.of(Cause::Unknown), causes.of(Cause::Exit)), (3, 1));
    }
}
