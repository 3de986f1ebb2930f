//! From a parsed command line to a master that holds everything it needs, in the order that matters:
//! log, pidfile, sockets as the starting user, then privileges away, then the rest.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use log::{info, warn};

use crate::boot::StartContext;
use crate::config::context::Reading;
use crate::config::{Config, source};
use crate::control::fifo::MasterFifo;
use crate::control::pidfile::Pidfile;
use crate::control::touch::{Baseline, TouchFiles};
use crate::logging::logfile::LogFile;
use crate::net::Listener;
use crate::net::set::ListenerSet;
use crate::scoreboard::Scoreboard;
use crate::sys::process::{self, Fork};
use crate::sys::title::Title;
use crate::sys::{cred, fd, seqpacket};

use super::holdings::{Fifos, HeldPidfile, Holdings, pidfile_paths};

/// Why a start failed: one line for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl StartError {
    fn new(what: &str, error: impl std::fmt::Display) -> Self {
        StartError(format!("{what}: {error}"))
    }
}

/// The end of a pipe on which the process in the foreground waits for the daemon's word.
#[derive(Debug)]
pub struct Verdict(OwnedFd);

impl Verdict {
    /// Lets the process in the foreground leave with success.
    pub fn success(self) {
        // If it is gone already nobody waits for the word.
        let _ = std::fs::File::from(self.0).write_all(&[0]);
    }
}

/// Goes to the background. Returns in the daemon only; the process in the foreground stays until the
/// daemon gives its verdict, so that the shell (or `Type=forking`) sees why a start failed.
///
/// # Errors
/// When a fork fails.
pub fn daemonize(config: &Config) -> Result<Verdict, StartError> {
    let failed = |error: io::Error| StartError::new("cannot go to the background", error);
    let (reader, writer) = fd::pipe().map_err(failed)?;
    if let Fork::Parent(_) = process::fork().map_err(failed)? {
        drop(writer);
        let mut word = [0; 1];
        let told = std::fs::File::from(reader).read(&mut word).unwrap_or(0);
        process::exit_now(if told == 1 { i32::from(word[0]) } else { 1 });
    }
    drop(reader);
    process::new_session().map_err(failed)?;
    if let Fork::Parent(_) = process::fork().map_err(failed)? {
        process::exit_now(0);
    }
    if config.umask.is_none() {
        // As uWSGI and daemon(7) do; files of ours get explicit modes.
        cred::set_umask(0o022);
    }
    // A configuration that came from there is read again by every zygote.
    if !source::stdin_in_use() {
        let null = std::fs::File::open("/dev/null").map_err(failed)?;
        fd::replace(null.as_fd(), 0).map_err(failed)?;
    }
    Ok(Verdict(writer))
}

/// Where a master's listeners come from.
#[derive(Debug)]
pub enum Sockets {
    /// From nowhere: they are bound.
    Bind,
    /// From another master that goes on using them, and keeps its pidfiles.
    Shared(Vec<Listener>),
    /// From the previous image of this process.
    Kept(Vec<Listener>),
}

/// Binds, opens, drops privileges: all that a master needs before it starts children.
///
/// # Errors
/// The first thing that cannot be had; what was made until then is removed again.
pub fn prepare(start: StartContext, config: Config, sockets: Sockets) -> Result<Holdings, StartError> {
    if let Some(mask) = config.umask {
        cred::set_umask(mask);
    }
    let base = config.base_directory(&start.cwd);
    let mut pidfiles = Vec::new();
    // Claimed before anything is bound: a second master by mistake stops here and harms nothing.
    if !matches!(sockets, Sockets::Shared(_)) {
        for (option, path) in pidfile_paths(&config, &start.cwd) {
            let file = Pidfile::claim(&path, 0o644).map_err(|error| StartError::new(option, error))?;
            pidfiles.push(HeldPidfile { option, file });
        }
    }
    std::env::set_current_dir(&base)
        .map_err(|error| StartError::new(&format!("chdir: cannot enter {}", base.display()), error))?;
    let listeners = match sockets {
        Sockets::Bind => ListenerSet::bind(&config, Vec::new()).map_err(StartError)?.into_listeners(),
        Sockets::Shared(listeners) | Sockets::Kept(listeners) => listeners,
    };
    write_pidfiles(&mut pidfiles, &["pidfile"])?;
    drop_privileges(&config)?;
    write_pidfiles(&mut pidfiles, &["pidfile2"])?;
    let mut log = None;
    if let Some(path) = &config.logto2 {
        log = Some(open_log(&base.join(path))?);
    }
    let scoreboard = Scoreboard::create().map_err(|error| StartError::new("scoreboard", error))?;
    let paths: Vec<_> = config.master_fifos.iter().map(|path| base.join(path)).collect();
    let active = match paths.first() {
        Some(path) => Some(MasterFifo::open(path).map_err(|error| StartError::new("master-fifo", error))?),
        None => None,
    };
    let touch = watch_touch_files(&config, &base, &Baseline::default());
    Ok(Holdings {
        start,
        listeners,
        scoreboard: Arc::new(scoreboard),
        handover: seqpacket::pair().map_err(|error| StartError::new("hand-over queue", error))?,
        pidfiles,
        fifos: Fifos { paths, active, slot: 0, watch: None },
        touch,
        log,
        title: Title::prepare(),
        reloads: 0,
        started_at: Reading::first().started,
        config,
    })
}

/// What `daemonize2` puts off until the first generation serves: errors until then are the shell's.
pub fn leave_terminal(holdings: &mut Holdings) {
    let Some(path) = holdings.config.daemonize2.clone() else { return };
    match open_log(&holdings.start.cwd.join(path)) {
        Ok(log) => holdings.log = Some(log),
        Err(error) => warn!("daemonize2: {error}; logging goes on to the terminal"),
    }
}

/// Opens a log file and makes it standard output and standard error.
///
/// # Errors
/// When it cannot be opened.
pub fn open_log(path: &Path) -> Result<LogFile, StartError> {
    let log = LogFile::open(path)
        .map_err(|error| StartError::new(&format!("cannot open the log {}", path.display()), error))?;
    log.install().map_err(|error| StartError::new("log", error))?;
    Ok(log)
}

/// Starts watching the touch files; what is not there yet counts when it appears.
/// Changes since `earlier` count as touches: a re-exec misses none.
pub fn watch_touch_files(config: &Config, base: &Path, earlier: &Baseline) -> TouchFiles {
    let paths: Vec<_> = config.touch_reload.iter().map(|path| base.join(path)).collect();
    let touch = TouchFiles::with_baseline(&paths, earlier);
    if let Some(reason) = touch.degraded() {
        warn!("touch-reload: {reason}; looking once a second instead");
    }
    touch
}

/// Writes those of the claimed pidfiles whose time has come.
///
/// # Errors
/// When a file cannot be written.
pub fn write_pidfiles(pidfiles: &mut [HeldPidfile], options: &[&str]) -> Result<(), StartError> {
    for held in pidfiles.iter_mut().filter(|held| options.contains(&held.option)) {
        held.file.write(process::this()).map_err(|error| StartError::new(held.option, error))?;
    }
    Ok(())
}

fn drop_privileges(config: &Config) -> Result<(), StartError> {
    let wanted = &config.credentials;
    if wanted.uid.is_none() && wanted.gid.is_none() && wanted.add_gid.is_empty() {
        if cred::is_root() {
            warn!("*** WARNING: you are running appserver as root !!! (use the uid and gid options) ***");
        }
        return Ok(());
    }
    let identity = cred::resolve(wanted.uid.as_deref(), wanted.gid.as_deref(), &wanted.add_gid)
        .map_err(|error| StartError::new("uid/gid", error))?;
    cred::drop_privileges(&identity).map_err(|error| StartError::new("cannot drop privileges", error))
}

/// What an operator sees first.
pub fn banner(holdings: &Holdings) {
    let config = &holdings.config;
    let pid = process::this();
    let version = env!("CARGO_PKG_VERSION");
    info!("*** Starting appserver {version} ({}bit), pid {pid} ***", usize::BITS);
    for listener in &holdings.listeners {
        info!("listening on {} (http)", listener.local);
    }
    info!(
        "{} workers with {} {} each",
        config.processes,
        config.threads,
        if config.threads == 1 { "slot" } else { "slots" }
    );
    info!(
        "reload: kill -HUP {pid}    stop: kill -INT {pid}{}",
        if config.die_on_term { " or kill -TERM" } else { "" }
    );
    if let Some(fifo) = &holdings.fifos.active {
        info!("master fifo: echo r > {} (r reload, q stop, s statistics)", fifo.path().display());
    }
}
