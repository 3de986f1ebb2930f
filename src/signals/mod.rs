//! ● uwsgi signals: numbers from 0 to 255 that make a worker call a function of the application.
//!
//! The application registers functions and asks for timers, times of the day and files to be watched
//! ([`Request`]); the master has the clock and knows the workers ([`table`]); a worker calls the
//! function between two requests. They have nothing to do with the signals of signal(7).

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub mod cron;
pub mod given;
pub mod table;

pub use cron::Schedule;

/// What an application asks of the master. Travels over control channels: variants may only be added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// There is a function for this signal.
    Register {
        /// The signal.
        number: u8,
        /// Who is to call it.
        target: Target,
    },
    /// Raise a signal again and again.
    Timer {
        /// The signal.
        number: u8,
        /// Milliseconds from one to the next; at least one.
        every_ms: u64,
        /// How often; 0 is without end.
        times: u32,
    },
    /// Raise a signal at times of the clock.
    Cron {
        /// The signal.
        number: u8,
        /// When.
        schedule: Schedule,
    },
    /// Raise a signal when a file or directory changes.
    Watch {
        /// The signal.
        number: u8,
        /// The absolute path of what is watched.
        path: PathBuf,
    },
    /// Raise a signal now.
    Raise {
        /// The signal.
        number: u8,
    },
}

/// Who calls the function of a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// One worker, one that is idle if there is one.
    Any,
    /// All workers that serve.
    All,
    /// The worker of this number.
    Worker(u32),
    /// A kind of process that does not exist here.
    Nobody,
}

impl Target {
    /// Reads uWSGI's word for a target; `None` for one that it does not have either.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "" | "worker" | "worker0" => return Some(Target::Any),
            "workers" | "active-workers" => return Some(Target::All),
            "spooler" | "mules" | "subscribed" => return Some(Target::Nobody),
            _ => {}
        }
        if let Some(number) = word.strip_prefix("worker") {
            return number.parse().ok().map(Target::Worker);
        }
        ["mule", "farm"].iter().any(|kind| word.starts_with(kind)).then_some(Target::Nobody)
    }
}

/// Milliseconds as a span of time.
fn span(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_uwsgis_words() {
        let cases = [
            ("", Some(Target::Any)),
            ("worker", Some(Target::Any)),
            ("worker0", Some(Target::Any)),
            ("workers", Some(Target::All)),
            ("active-workers", Some(Target::All)),
            ("worker3", Some(Target::Worker(3))),
            ("mules", Some(Target::Nobody)),
            ("mule2", Some(Target::Nobody)),
            ("farm_jobs", Some(Target::Nobody)),
            ("spooler", Some(Target::Nobody)),
            ("workerx", None),
            ("everybody", None),
        ];
        for (word, expected) in cases {
            assert_eq!(Target::parse(word), expected, "{word:?}");
        }
    }
}
