//! Loads the application in a process that is thrown away, as the user and in the directory it would
//! be loaded with, and looks at the files that user needs.

use std::error::Error;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use log::error;
use serde::{Deserialize, Serialize};

use super::problem::{Problem, Severity};
use crate::app::AppFactory;
use crate::app::python::{self, Found};
use crate::app::stray::turn_away;
use crate::boot::{BootRole, Envelope, StartContext};
use crate::channel::headline;
use crate::config::{Config, Entry, value};
use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::guest;
use crate::privileges::{self, Plan, Refusal, rights};
use crate::sys::fs::{Right, may};
use crate::sys::process::{self, Exit, Fork, Pid, Signal};
use crate::sys::{self, fd, signal, stray};

/// Runs the trial; what it found, and what became of it if it did not end well.
pub fn run(config: &Config, start: &StartContext, factory: AppFactory) -> Vec<Problem> {
    match attempt(config, start, factory) {
        Ok(problems) => problems,
        Err(message) => {
            vec![Problem {
                severity: Severity::Error,
                origin: "default".to_owned(),
                option: None,
                message: format!("the application cannot be tried: {message}"),
            }]
        }
    }
}

fn attempt(config: &Config, start: &StartContext, factory: AppFactory) -> Result<Vec<Problem>, String> {
    let (ours, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    let child = match process::fork().map_err(|error| error.to_string())? {
        Fork::Parent(child) => child,
        Fork::Child => {
            drop(ours);
            // The application may close low descriptors, as it may in a zygote.
            let theirs = UnixStream::from(fd::shelter(theirs.into()));
            let problems = probation(config, start, factory, &theirs);
            report(theirs, &problems);
            process::exit_now(0);
        }
    };
    drop(theirs);
    let told = listen(ours, config.boot_timeout);
    let exit = end(child);
    match told {
        Err(error) if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock) => {
            let limit = config.boot_timeout.as_secs_f32();
            Err(format!("loading it takes longer than boot-timeout ({limit} s)"))
        }
        Err(error) => Err(error.to_string()),
        // A process that told everything may be ended by us before it ends itself.
        Ok(text) => serde_json::from_slice(&text).map_err(|_| match exit {
            Ok(exit) => format!("the process that loads it ended with {exit}"),
            Err(error) => error.to_string(),
        }),
    }
}

fn report(mut stream: UnixStream, problems: &[Problem]) {
    let told = serde_json::to_vec(problems).map_err(io::Error::from).and_then(|text| stream.write_all(&text));
    if told.is_err() {
        process::exit_now(1);
    }
}

/// Everything the child says until it ends; a descendant of it that lives on cannot keep us.
fn listen(mut stream: UnixStream, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + patience;
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut piece) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn end(child: Pid) -> io::Result<Exit> {
    // Dead already unless it ran out of time; the pid is ours until it is waited for.
    let _ = process::kill(child, Signal::SIGKILL);
    process::wait(child)
}

/// In the child: what a zygote does, in its order.
fn probation(
    config: &Config,
    start: &StartContext,
    factory: AppFactory,
    stream: &UnixStream,
) -> Vec<Problem> {
    let failed = |option, message: String| Problem::about(Severity::Error, config, option, message);
    // What the application prints must not get into our own output.
    if let Err(error) = fd::replace(io::stderr().as_fd(), 1) {
        return vec![failed("chdir", format!("standard output: {error}"))];
    }
    let refused = |it: Refusal| failed(it.option, it.message);
    let wanted = &config.credentials;
    let mut start = start.clone();
    let confined = privileges::enter_root(config, &mut start)
        .and_then(|()| if wanted.chroot.is_some() { rights::inside(config, &start) } else { Ok(()) });
    if let Err(refusal) = confined {
        return vec![refused(refusal)];
    }
    let base = config.base_directory(&start.cwd);
    if std::env::set_current_dir(&base).is_err() {
        // Told by the checks before.
        return Vec::new();
    }
    let mut problems = Vec::new();
    let drop = || match Plan::of(config) {
        Ok(plan) => plan.follow_in_master().err(),
        // Names that do not exist were told by the checks before.
        Err(_) => None,
    };
    if !wanted.master_keeps_root() {
        problems.extend(drop().map(refused));
    }
    problems.extend(rights::lacks(config, &start).into_iter().map(refused));
    if wanted.master_keeps_root() && !wanted.drop_after_apps {
        problems.extend(drop().map(refused));
    }
    problems.extend(files(config, &base));
    sys::env::change(&config.unenv, &config.env);
    let loaded = move_in(config, &start, factory, stream, &problems);
    conclude(config, loaded.and_then(|()| load(config, factory)), problems)
}

/// What a trial tells the image that takes its place in the executable of an interpreter.
#[derive(Debug, Serialize, Deserialize)]
struct Lodging {
    /// Number of the descriptor that the outcome is told on.
    stream: RawFd,
    entries: Vec<Entry>,
    found: Found,
    /// What was found so far.
    problems: Vec<Problem>,
}

/// As a zygote does.
fn move_in(
    config: &Config,
    start: &StartContext,
    factory: AppFactory,
    stream: &UnixStream,
    problems: &[Problem],
) -> Result<(), Box<dyn Error>> {
    let Some(found) = guest::invitation(config, factory)? else { return Ok(()) };
    let lodging = Lodging {
        stream: stream.as_raw_fd(),
        entries: config.entries.clone(),
        found: found.clone(),
        problems: problems.to_vec(),
    };
    let envelope = Envelope::write(BootRole::Trial, Vec::new(), &lodging)?;
    guest::execute(found, start, &envelope, &[stream.as_fd()])
}

/// The rest of a trial, in the executable of an interpreter; the exit code.
pub fn go_on(envelope: &Envelope, factory: AppFactory) -> u8 {
    let told = || -> Result<(), Box<dyn Error>> {
        let Lodging { stream, entries, found, problems } = envelope.body()?;
        let stream = UnixStream::from(fd::shelter(fd::claim(stream)?));
        signal::unblock_all()?;
        python::use_found(found);
        let config = Config::build(entries)?;
        report(stream, &conclude(&config, load(&config, factory), problems));
        Ok(())
    };
    match told() {
        Ok(()) => EXIT_OK,
        Err(error) => {
            error!("the application cannot be tried: {error}");
            EXIT_ERROR
        }
    }
}

fn load(config: &Config, factory: AppFactory) -> Result<(), Box<dyn Error>> {
    stray::watch();
    let loaded = factory(config);
    turn_away("while it was loaded");
    loaded.map(drop)
}

/// What was found before, by loading the application, and after that.
fn conclude(config: &Config, loaded: Result<(), Box<dyn Error>>, mut problems: Vec<Problem>) -> Vec<Problem> {
    if let Err(error) = loaded {
        problems.push(Problem {
            severity: Severity::Error,
            origin: "default".to_owned(),
            option: None,
            message: format!("no application: {}", headline(&error.to_string())),
        });
    }
    if let Some(directory) = &config.chdir2
        && let Err(error) = std::env::set_current_dir(directory)
    {
        let message = format!("cannot enter {}: {error}", directory.display());
        problems.push(Problem::about(Severity::Error, config, "chdir2", message));
    }
    problems
}

/// Files and directories that are used once privileges are dropped, relative to `base`.
fn files(config: &Config, base: &Path) -> Vec<Problem> {
    config.entries.iter().filter_map(|entry| file(entry, base)).collect()
}

fn file(entry: &Entry, base: &Path) -> Option<Problem> {
    let value = entry.value.as_deref()?;
    let path = base.join(value);
    let (severity, message) = match entry.name.as_str() {
        "static-map" => {
            let target = value::static_map(value).ok()?.target;
            (Severity::Warning, unreadable(&base.join(target))?)
        }
        "static-dir" | "static-safe" | "mimefile" => (Severity::Warning, unreadable(&path)?),
        "touch-reload" => {
            let error = may(&path, &[]).err()?;
            (Severity::Note, format!("{}: {error}; to make it later will reload", path.display()))
        }
        _ => return None,
    };
    Some(Problem::of_entry(severity, entry, message))
}

/// Why the files under a path cannot be served.
fn unreadable(path: &Path) -> Option<String> {
    let rights: &[Right] = if path.is_dir() { &[Right::Read, Right::Execute] } else { &[Right::Read] };
    let error = may(path, rights).err()?;
    Some(format!("cannot read {}: {error}", path.display()))
}
