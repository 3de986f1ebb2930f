//! `limit-as`, `limit-nproc`, `max-fd`, `prio`: what a process of the server may have of the machine.
//!
//! Each generation has its own. A zygote sets them before it gives root away and loads the application, and its
//! workers inherit them. It begins with what the server was started with, not with what another generation
//! has set, so that a reload and a rollback can change them either way; for that the master never lowers
//! a hard limit of its own, nor gives up a priority. What is *beyond* the hard limits of the start only root
//! can take: [`claim`] does it in the master, while that is root.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Refusal, child};
use crate::config::Config;
use crate::sys::limits::{self, Resource};
use crate::sys::process;

/// What the server was started with, as far as the master changes it for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Soft limit on descriptors.
    descriptors: u64,
    /// Nice value.
    nice: i32,
}

impl Started {
    /// What this process has now.
    ///
    /// # Errors
    /// None that the kernel documents.
    pub fn now() -> io::Result<Self> {
        let (descriptors, _) = limits::get(Resource::RLIMIT_NOFILE)?;
        Ok(Started { descriptors, nice: limits::nice() })
    }
}

/// One of the options.
#[derive(Debug, Clone, Copy)]
enum Wish {
    /// So much of a resource, at most.
    Most(&'static str, Resource, u64),
    /// This nice value.
    Nice(i32),
}

impl Wish {
    fn all(config: &Config) -> impl Iterator<Item = Wish> {
        let wanted = &config.limits;
        let most = |option, resource, most: Option<u64>| most.map(|most| Wish::Most(option, resource, most));
        [
            most("limit-as", Resource::RLIMIT_AS, wanted.address_space),
            most("limit-nproc", Resource::RLIMIT_NPROC, wanted.processes),
            most("max-fd", Resource::RLIMIT_NOFILE, wanted.descriptors),
            wanted.priority.map(Wish::Nice),
        ]
        .into_iter()
        .flatten()
    }

    fn option(self) -> &'static str {
        match self {
            Wish::Most(option, ..) => option,
            Wish::Nice(_) => "prio",
        }
    }

    /// Makes room for it, if there is none.
    fn claim(self) -> io::Result<()> {
        match self {
            Wish::Most(_, resource, most) => {
                let (soft, hard) = limits::get(resource)?;
                if most > hard { limits::set(resource, soft, most) } else { Ok(()) }
            }
            Wish::Nice(nice) if nice < limits::nice() => limits::set_nice(nice),
            Wish::Nice(_) => Ok(()),
        }
    }

    /// Does it.
    fn fulfil(self) -> io::Result<()> {
        match self {
            Wish::Most(_, resource, most) => limits::set(resource, most, most),
            Wish::Nice(nice) => limits::set_nice(nice),
        }
    }

    /// Why it cannot be, and what to do.
    fn refused(self, error: &io::Error, remedy: &str) -> Refusal {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Refusal::new(self.option(), error);
        }
        let message = match self {
            Wish::Most(_, resource, most) => {
                let hard = limits::get(resource).map_or(0, |(_, hard)| hard);
                let (most, hard) = (amount(resource, most), amount(resource, hard));
                format!(
                    "{most} is above the hard limit of {hard}, which only root (CAP_SYS_RESOURCE) may raise{remedy}"
                )
            }
            Wish::Nice(nice) => format!(
                "{nice} is served before {}, the nice value it has now; only root (CAP_SYS_NICE) may do that{remedy}",
                limits::nice()
            ),
        };
        Refusal::new(self.option(), message)
    }
}

/// A limit as the option counts it.
fn amount(resource: Resource, limit: u64) -> String {
    match resource {
        Resource::RLIMIT_AS => format!("{} MB", limit >> 20),
        _ => limit.to_string(),
    }
}

/// What is to be done about a start that may not do what it is asked for.
const START: &str = ": start the server as root, raise it where it is started (LimitAS=, LimitNPROC=, \
                     LimitNOFILE=, Nice= of systemd, ulimit), or ask for less";
/// What is to be done about a reload that asks for more than the start has left room for.
const RELOAD: &str = ", and a reload does not bring root back: restart the server, or ask for less";

/// Makes room, while this process may, for what the configuration asks for.
///
/// # Errors
/// When that needs root and this process is not root.
pub fn claim(config: &Config) -> Result<(), Refusal> {
    Wish::all(config).try_for_each(|wish| wish.claim().map_err(|error| wish.refused(&error, START)))
}

/// What [`claim`] would refuse; nothing is changed.
pub fn check(config: &Config) -> Vec<Refusal> {
    let tried = |wish: Wish| {
        let claim = || wish.claim().map_err(|error| wish.refused(&error, START).message);
        child::ask(claim).err().map(|message| Refusal { option: wish.option(), message })
    };
    Wish::all(config).filter_map(tried).collect()
}

/// Sets the limits of a generation in its zygote.
///
/// # Errors
/// When one of them is beyond what the master has room for, or too little to load anything.
pub fn apply(config: &Config, started: Started, is_reload: bool) -> Result<(), Refusal> {
    if let (Some(most), Some((_, own))) =
        (config.limits.address_space, process::memory(process::this().as_raw() as u64))
        && most <= own
    {
        let message = format!(
            "{} is no more than the server itself takes before the application is loaded ({} and some); raise it",
            amount(Resource::RLIMIT_AS, most),
            amount(Resource::RLIMIT_AS, own)
        );
        return Err(Refusal::new("limit-as", message));
    }
    if config.limits.descriptors.is_none() {
        limit_descriptors(started.descriptors).map_err(|error| Refusal::new("max-fd", error))?;
    }
    if config.limits.priority.is_none() && started.nice != limits::nice() {
        limits::set_nice(started.nice).map_err(|error| Refusal::new("prio", error))?;
    }
    let remedy = if is_reload { RELOAD } else { START };
    Wish::all(config).try_for_each(|wish| wish.fulfil().map_err(|error| wish.refused(&error, remedy)))
}

/// Gives the master as many descriptors as the configuration of the generation that serves says.
///
/// # Errors
/// When that is more than its hard limit.
pub fn follow(config: &Config, started: Started) -> io::Result<()> {
    limit_descriptors(config.limits.descriptors.unwrap_or(started.descriptors))
}

/// Sets the soft limit, and the hard one where that is in the way.
fn limit_descriptors(most: u64) -> io::Result<()> {
    let (soft, hard) = limits::get(Resource::RLIMIT_NOFILE)?;
    if soft == most { Ok(()) } else { limits::set(Resource::RLIMIT_NOFILE, most, hard.max(most)) }
}
