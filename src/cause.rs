//! Why workers leave and die: one word, the same in log, status and counters.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a worker process has ended, or is about to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Another generation serves, or its own was refused.
    Reload,
    /// All workers are replaced, or one after the other (FIFO `w`, `W`, `c`).
    WorkersReload,
    /// It was asked for by `SIGHUP` to the worker, or left by itself in good order.
    #[default]
    Asked,
    /// Fewer workers are wanted: FIFO `-`, cheaper, cheap, idle.
    Surplus,
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
    /// A signal killed it, sent by its own code or from outside.
    Signal,
    /// It ended with an exit code that says failure.
    Exit,
    /// A word of another release.
    #[serde(other)]
    Unknown,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cause::Reload => "reload",
            Cause::WorkersReload => "workers-reload",
            Cause::Asked => "asked",
            Cause::Surplus => "surplus",
            Cause::Stop => "stop",
            Cause::Mercy => "mercy",
            Cause::Harakiri => "harakiri",
            Cause::BootTimeout => "boot-timeout",
            Cause::LoadFailed => "load-failed",
            Cause::ForkFailed => "fork-failed",
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

#[cfg(test)]
mod tests {
    use super::*;

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
