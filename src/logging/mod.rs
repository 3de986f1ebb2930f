//! One log, one owner, one line per write.
//!
//! Everything the server says goes to descriptor 2 through the [`log`] macros: a line is formatted
//! in memory and handed to the kernel with a single `write`, so the lines of several processes
//! never mix on an append-only file or, up to `PIPE_BUF` bytes, on a pipe. There is no logging
//! thread and no lock that a fork could leave taken, and nobody waits for a log that takes no more.
//!
//! - [`logfile`]: the file behind descriptors 1 and 2, opened and reopened by the master alone.
//! - [`output`]: descriptor 2 as it is written to, and what becomes of lines that it does not take.
//! - [`spare`]: what puts descriptors 0 to 2 back when application code has closed them.
//! - [`reqlog`]: one line per request, buffered in the worker; [`mod@line`] is uWSGI's, [`mod@format`] the
//!   operator's own.
//! - [`clock`]: times as text.
//!
//! A line looks like this, with the role and pid of the process that wrote it:
//!
//! ```text
//! [2026-11-21 09:15:02.123 +0000 worker 2 pid 4711] INFO text
//! ```

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use log::{Level, LevelFilter, Log, Metadata, Record};

pub mod clock;
pub mod escape;
pub mod format;
pub mod line;
pub mod logfile;
pub mod output;
pub mod reqlog;
pub mod spare;
pub mod title;

/// The variables that choose the log level, the first one that is set wins.
const FILTER_VARIABLES: [&str; 2] = ["APPSERVER_LOG", "RUST_LOG"];

/// Which part of the server this process is; named in each line it logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The process an operator talks to.
    Master,
    /// The process that loads the application.
    Zygote {
        /// The generation it loads, from 1.
        generation: u64,
    },
    /// A process that serves requests.
    Worker {
        /// Its number, from 1.
        slot: u32,
    },
}

impl Role {
    /// Bits of the encoded role that tell which variant it is; the rest is its number.
    const KIND_BITS: u32 = 2;

    const fn encode(self) -> u64 {
        match self {
            Role::Master => 0,
            Role::Zygote { generation } => (generation << Self::KIND_BITS) | 1,
            Role::Worker { slot } => ((slot as u64) << Self::KIND_BITS) | 2,
        }
    }

    fn decode(word: u64) -> Self {
        let number = word >> Self::KIND_BITS;
        match word & ((1 << Self::KIND_BITS) - 1) {
            1 => Role::Zygote { generation: number },
            2 => Role::Worker { slot: u32::try_from(number).unwrap_or(u32::MAX) },
            _ => Role::Master,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Master => write!(f, "master"),
            Role::Zygote { generation } => write!(f, "zygote g{generation}"),
            Role::Worker { slot } => write!(f, "worker {slot}"),
        }
    }
}

/// The role of this process. One atomic word, because a forked child changes it and a mutex might
/// have been held across the fork.
static ROLE: AtomicU64 = AtomicU64::new(Role::Master.encode());

/// Starts logging to descriptor 2, and sends panics there as a line like any other.
///
/// Reads `APPSERVER_LOG` or else `RUST_LOG` (`debug`, `appserver::master=trace`, …); without them
/// `info` and above is logged. A second call only changes the role.
pub fn init(role: Role) {
    set_role(role);
    // Read before any chroot, and before the first fork: the children then share it.
    clock::init();
    output::look();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(LevelFilter::Info);
    if let Some(filter) = FILTER_VARIABLES.iter().find_map(|name| std::env::var(name).ok()) {
        builder.parse_filters(&filter);
    }
    let filter = builder.build();
    let most = filter.filter();
    if log::set_boxed_logger(Box::new(Lines { filter })).is_ok() {
        log::set_max_level(most);
        std::panic::set_hook(Box::new(|panic| match panic.payload_as_str() {
            // Descriptors of the reactor are closed, or are something else by now: whatever thread
            // finds out, none can serve.
            Some(text) if text.contains("I/O driver") => {
                log::error!(
                    "{text}: the application has closed descriptors of the server; this process ends"
                );
                crate::sys::process::exit_now(i32::from(crate::error::EXIT_ERROR));
            }
            _ => log::error!("{panic}"),
        }));
    }
}

/// Writes what the filter lets through.
struct Lines {
    /// Asked only; writing itself, it would take a lock.
    filter: env_logger::Logger,
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.filter.matches(record) {
            return;
        }
        let line = |record: &Record<'_>| line(&clock::now(), current_role(), std::process::id(), record);
        output::line(line(record).as_bytes(), |lost| {
            let text = format_args!("{lost} lines of this process were lost: the log took no more");
            line(&Record::builder().level(Level::Warn).args(text).build())
        });
    }

    fn flush(&self) {}
}

/// Tells what this process has become, after a fork.
pub fn set_role(role: Role) {
    ROLE.store(role.encode(), Relaxed);
}

/// What this process said it is.
pub fn current_role() -> Role {
    Role::decode(ROLE.load(Relaxed))
}

/// One complete line. Control characters of the message are escaped: text that came from outside
/// must not be able to forge a second line.
fn line(time: &str, role: Role, pid: u32, record: &Record<'_>) -> String {
    let message = record.args().to_string();
    let mut line = format!("[{time} {role} pid {pid}] {} ", record.level());
    line.reserve(message.len() + 1);
    for c in message.trim_end_matches('\n').chars() {
        if c.is_control() && c != '\t' {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(role: Role, message: &str) -> String {
        let args = format_args!("{message}");
        let record = Record::builder().level(log::Level::Info).args(args).build();
        line("2026-11-21 09:15:02.123 +0000", role, 4711, &record)
    }

    #[test]
    fn a_line_names_time_role_pid_and_level() {
        let line = line_of(Role::Worker { slot: 2 }, "spawned appserver worker 1 (pid: 7, cores: 1)");
        assert_eq!(
            line,
            "[2026-11-21 09:15:02.123 +0000 worker 2 pid 4711] INFO spawned appserver worker 1 (pid: 7, cores: 1)\n"
        );
    }

    #[test]
    fn a_message_cannot_forge_a_second_line() {
        let line = line_of(Role::Master, "cannot load\n[2026] master\u{1b}[2J\tend\n");
        assert!(line.ends_with("INFO cannot load\\n[2026] master\\u{1b}[2J\tend\n"), "{line}");
    }

    #[test]
    fn roles_survive_encoding() {
        for role in [
            Role::Master,
            Role::Zygote { generation: 1 },
            Role::Zygote { generation: 1 << 40 },
            Role::Worker { slot: 1 },
            Role::Worker { slot: u32::MAX },
        ] {
            assert_eq!(Role::decode(role.encode()), role);
        }
    }

    #[test]
    fn roles_read_as_operators_know_them() {
        assert_eq!(Role::Master.to_string(), "master");
        assert_eq!(Role::Zygote { generation: 3 }.to_string(), "zygote g3");
        assert_eq!(Role::Worker { slot: 2 }.to_string(), "worker 2");
    }
}
