//! What the machine says to a configuration, asked as the user who would start the server.
//!
//! Nothing is made, changed or listened on. What is done after privileges are dropped is asked by
//! [`trial`](super::trial), which drops them.

use std::collections::{HashMap, HashSet};

use super::problem::{Problem, Severity};
use crate::boot::StartContext;
use crate::config::{Config, ListenSpec};
use crate::control::pidfile;
use crate::master::holdings::pidfile_paths;
use crate::net::error::BindError;
use crate::net::{ListenAddr, effective_backlog, probe};
use crate::privileges::{Refusal, limits, rights};
use crate::sys::cred;
use crate::sys::fs::{Right, may};

/// Everything that is wrong with users, files and addresses.
///
/// Enters the configured directory, which relative addresses start from.
pub fn run(config: &Config, start: &StartContext) -> Vec<Problem> {
    let mut problems = users(config);
    let refused = |it: Refusal| Problem::about(Severity::Error, config, it.option, it.message);
    problems.extend(limits::check(config).into_iter().map(refused));
    problems.extend(files(config, start));
    let base = config.base_directory(&start.cwd);
    if let Err(error) = std::env::set_current_dir(&base) {
        let message = format!("cannot enter {}: {error}", base.display());
        problems.push(Problem::about(Severity::Error, config, "chdir", message));
    } else {
        problems.extend(addresses(config, start));
    }
    problems.extend(habits(config));
    problems
}

fn users(config: &Config) -> Vec<Problem> {
    let wanted = &config.credentials;
    let resolve = |uid: Option<&str>, gid: Option<&str>, groups: &[String]| {
        cred::resolve(uid, gid, groups, false).map(drop)
    };
    let mut looked_up = vec![
        ("uid", resolve(wanted.uid.as_deref(), None, &[])),
        ("gid", resolve(None, wanted.gid.as_deref(), &[])),
        ("add-gid", resolve(None, None, &wanted.add_gid)),
    ];
    if let Some(owner) = &config.chown_socket {
        looked_up.push(("chown-socket", cred::parse_owner(owner).map(drop)));
    }
    let failed = looked_up.into_iter().filter_map(|(option, outcome)| Some((option, outcome.err()?)));
    let mut problems: Vec<_> =
        failed.map(|(option, error)| Problem::about(Severity::Error, config, option, error)).collect();
    if config.chown_socket.is_some() && !cred::is_root() {
        let message = "only root can give sockets away; the server has to be started as root";
        problems.push(Problem::about(Severity::Warning, config, "chown-socket", message));
    }
    problems
}

/// Files that are opened before privileges are dropped, relative to where the server is started.
fn files(config: &Config, start: &StartContext) -> Vec<Problem> {
    let written = [
        ("pidfile", &config.pidfile),
        ("logto", &config.logto),
        ("daemonize", &config.daemonize),
        ("daemonize2", &config.daemonize2),
    ];
    let mut problems = Vec::new();
    for (option, path) in written {
        if let Some(path) = path
            && let Err(message) = rights::can_write(&start.cwd.join(path))
        {
            problems.push(Problem::about(Severity::Error, config, option, message));
        }
    }
    if let Some(path) = &config.fallback_config
        && let Err(error) = may(&start.cwd.join(path), &[Right::Read])
    {
        let message = format!("cannot read {}: {error}", path.display());
        problems.push(Problem::about(Severity::Error, config, "fallback-config", message));
    }
    if let Some(path) = &config.binary_path
        && let Err(error) = may(&start.cwd.join(path), &[Right::Execute])
    {
        let message = format!("cannot execute {}: {error}", path.display());
        problems.push(Problem::about(Severity::Error, config, "binary-path", message));
    }
    problems
}

fn addresses(config: &Config, start: &StartContext) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut seen = HashSet::new();
    let given: HashMap<_, _> = config
        .entries
        .iter()
        .map(|entry| ((entry.origin.as_str(), entry.value.as_deref().unwrap_or_default()), &entry.name))
        .collect();
    for ListenSpec { address, origin } in &config.listeners {
        let option = given.get(&(origin.as_str(), address.as_str())).map(|name| (*name).clone());
        let mut tell = |severity, message| {
            let (origin, option) = (origin.clone(), option.clone());
            problems.push(Problem { severity, origin, option, message });
        };
        if !seen.insert(address.as_str()) {
            tell(Severity::Error, format!("{address} is listened on twice; remove one"));
            continue;
        }
        if matches!(ListenAddr::parse(address), Ok(ListenAddr::Host { .. })) {
            tell(
                Severity::Note,
                format!(
                    "{address} is looked up once, at the start; an address does not depend on the resolver"
                ),
            );
        }
        match probe::probe(address, config.reuse_port) {
            Ok(()) => {}
            Err(BindError::InUse { address }) => match running(config, start) {
                Some((pid, pidfile)) => tell(
                    Severity::Note,
                    format!(
                        "{address} is in use, by the running server it seems (process {pid} of {pidfile})"
                    ),
                ),
                None => tell(Severity::Error, BindError::InUse { address }.to_string()),
            },
            Err(error) => tell(Severity::Error, error.to_string()),
        }
    }
    let (_, cut) = effective_backlog(config.backlog);
    if let Some(cut) = cut {
        let given = config.entries.iter().any(|entry| entry.name == "listen");
        let severity = if given { Severity::Warning } else { Severity::Note };
        problems.push(Problem::about(severity, config, "listen", cut));
    }
    problems
}

/// The server that runs with one of the configured pidfiles.
fn running(config: &Config, start: &StartContext) -> Option<(i32, String)> {
    pidfile_paths(config, &start.cwd).into_iter().find_map(|(_, path)| {
        let owner = pidfile::owner(&path).ok()?;
        Some((owner.pid.as_raw(), path.display().to_string()))
    })
}

/// What is allowed and rarely meant.
fn habits(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tell = |severity, option, message: &str| {
        problems.push(Problem::about(severity, config, option, message));
    };
    if !config.die_on_term.unwrap_or(false) {
        tell(
            Severity::Note,
            "die-on-term",
            "off, so SIGTERM reloads, as in uWSGI; service managers and containers stop with SIGTERM (as process 1 \
             of a container SIGTERM stops when it is not given)",
        );
    }
    let drops = config.credentials.uid.as_deref().is_some_and(|uid| uid != "0" && uid != "root");
    if cred::is_root() && !drops {
        tell(Severity::Warning, "uid", "not given, so the application would run as root");
    }
    if config.logto.is_some() && drops {
        tell(
            Severity::Note,
            "logto",
            "opened before privileges are dropped; reopening needs it writable afterwards (as logto2 is)",
        );
    }
    problems
}
