//! From a parsed command line to a master that holds everything it needs, in the order that matters:
//! log, pidfile, sockets as the starting user, then privileges away, then the rest.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{info, warn};

use crate::boot::StartContext;
use crate::config::context::Reading;
use crate::config::{Config, source};
use crate::control::StopSignals;
use crate::control::answers::Answers;
use crate::control::changes::Looks;
use crate::control::fd_trigger::ArmedFd;
use crate::control::fifo::MasterFifo;
use crate::control::pidfile::Pidfile;
use crate::control::touch::Baseline;
use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::hooks::{self, Point};
use crate::locks::Locks;
use crate::logging::logfile::LogFile;
use crate::net::set::ListenerSet;
use crate::net::zerg::Lender;
use crate::net::{Listener, VacuumOutcome, inherited};
use crate::privileges::limits::Started;
use crate::privileges::{self, Plan};
use crate::scoreboard::Scoreboard;
use crate::service::store;
use crate::sys::fs::Removal;
use crate::sys::process::{self, Fork};
use crate::sys::title::Title;
use crate::sys::{cgroup, cred, fd, seqpacket, signal};

use super::holdings::{Fifos, HeldPidfile, Holdings, pidfile_paths};
use super::{lenders, triggers};

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
        let _ = std::fs::File::from(self.0).write_all(&[EXIT_OK]);
    }

    /// Lets the process in the foreground leave with this code; with [`EXIT_ERROR`] if it is none
    /// of a failure. Dropping the verdict means [`EXIT_ERROR`], too.
    pub fn failure(self, code: u8) {
        let code = if code == EXIT_OK { EXIT_ERROR } else { code };
        let _ = std::fs::File::from(self.0).write_all(&[code]);
    }
}

/// Goes to the background. Returns in the daemon only; the process in the foreground stays until the
/// daemon gives its verdict, so that the shell (or `Type=forking`) sees why a start failed.
///
/// # Errors
/// When a fork fails.
pub fn daemonize(config: &Config) -> Result<Verdict, StartError> {
    if process::is_init() {
        let place = config.place(if config.daemonize.is_some() { "daemonize" } else { "daemonize2" });
        let why = "process 1 has to stay: the container ends with it; leave daemonize out and log to standard error";
        return Err(StartError(format!("{why}{place}")));
    }
    let failed = |error: io::Error| StartError::new("cannot go to the background", error);
    let (reader, writer) = fd::pipe().map_err(failed)?;
    if let Fork::Parent(_) = process::fork().map_err(failed)? {
        drop(writer);
        // Whoever waits for the prompt may press Ctrl-C; the handlers are for the daemon.
        signal::reset_all().map_err(failed)?;
        let mut word = [0; 1];
        let told = std::fs::File::from(reader).read(&mut word).unwrap_or(0);
        process::exit_now(i32::from(if told == 1 { word[0] } else { EXIT_ERROR }));
    }
    drop(reader);
    process::new_session().map_err(failed)?;
    if let Fork::Parent(_) = process::fork().map_err(failed)? {
        process::exit_now(i32::from(EXIT_OK));
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
    /// Bound, but for those that a service manager has passed.
    Bind(Vec<Listener>),
    /// From another master that goes on using them, and keeps its pidfiles.
    Shared(Vec<Listener>),
    /// From the previous image of this process.
    Kept(Vec<Listener>),
}

/// Binds, opens, drops privileges: all that a master needs before it starts children.
///
/// # Errors
/// The first thing that cannot be had; what was made until then is removed again.
pub fn prepare(mut start: StartContext, config: Config, sockets: Sockets) -> Result<Holdings, StartError> {
    let limits = Started::now().map_err(|error| StartError::new("limits", error))?;
    let mut made = Made::default();
    let opened = match made.acquire(&mut start, &config, sockets) {
        Ok(opened) => opened,
        Err(error) => {
            made.undo();
            return Err(error);
        }
    };
    let base = config.base_directory(&start.cwd);
    let Opened { listeners, unstored, scoreboard, handover, answers, locks, log, paths, active } = opened;
    let touch = triggers::watch_touch_files(&config, &base, &Baseline::default());
    let changes = triggers::watch_changes(&config, &base, &Looks::default());
    let holdings = Holdings {
        start,
        listeners,
        spares: Vec::new(),
        unstored,
        scoreboard: Arc::new(scoreboard),
        handover,
        answers,
        locks,
        pidfiles: made.pidfiles,
        fifos: Fifos { paths, active, slot: 0, watch: None },
        touch,
        changes,
        armed_fds: made.armed_fds,
        lenders: made.lenders,
        log,
        title: Title::prepare(),
        reloads: 0,
        started_at: Reading::first().started,
        started_by: Reading::first().started_by,
        limits,
        config,
    };
    holdings.follow_limits();
    Ok(holdings)
}

/// What has a name in the file system, and must not stay behind when the start fails.
#[derive(Default)]
struct Made {
    pidfiles: Vec<HeldPidfile>,
    /// Those bound by this start, until it has succeeded.
    bound: Vec<Listener>,
    armed_fds: Vec<ArmedFd>,
    lenders: Vec<Lender>,
}

/// The rest of what a start opens.
struct Opened {
    listeners: Vec<Listener>,
    unstored: Vec<String>,
    scoreboard: Scoreboard,
    handover: (OwnedFd, OwnedFd),
    answers: Answers,
    locks: Locks,
    log: Option<LogFile>,
    paths: Vec<PathBuf>,
    active: Option<MasterFifo>,
}

impl Made {
    /// The order matters: sockets as the starting user, then privileges away, then the rest.
    fn acquire(
        &mut self,
        start: &mut StartContext,
        config: &Config,
        sockets: Sockets,
    ) -> Result<Opened, StartError> {
        let first = matches!(sockets, Sockets::Bind(_));
        if first {
            // Before anything is made: a misspelt name is the most likely mistake.
            privileges::check(config, start).map_err(StartError)?;
        }
        privileges::limits::claim(config).map_err(|it| StartError(it.told(config)))?;
        if let Some(mask) = config.umask {
            cred::set_umask(mask);
        }
        for trigger in &config.reload_on_fds {
            // A copy of a running master, or one that starts over, has none of its descriptors but listeners.
            if !first {
                warn!("reload-on-fd: descriptor {} is not listened to by this copy", trigger.fd);
                continue;
            }
            let told = |error| StartError(format!("reload-on-fd: {error}{}", config.place("reload-on-fd")));
            self.armed_fds.push(ArmedFd::claim(trigger.clone()).map_err(told)?);
        }
        let confined = config.credentials.chroot.is_some();
        // Claimed before anything is bound: a second master by mistake stops here and harms nothing.
        if first || matches!(sockets, Sockets::Kept(_)) && !confined {
            self.claim_pidfiles(start, config, |option| option == "pidfile")?;
        }
        if first && confined {
            // Its place is outside, where nothing can be written once the root is another; other images of
            // this master are inside already.
            write_pidfiles(&mut self.pidfiles, "pidfile")?;
            privileges::enter_root(config, start).map_err(|it| StartError(it.told(config)))?;
        }
        if !matches!(sockets, Sockets::Shared(_)) {
            self.claim_pidfiles(start, config, |option| option != "pidfile")?;
        }
        let base = config.base_directory(&start.cwd);
        std::env::set_current_dir(&base).map_err(|error| {
            let place = config.place("chdir");
            StartError(format!("chdir: cannot enter {}: {error}{place}", base.display()))
        })?;
        let (fresh, is_copy) = (!matches!(sockets, Sockets::Kept(_)), matches!(sockets, Sockets::Shared(_)));
        let mut unstored = Vec::new();
        let adopted = match sockets {
            Sockets::Bind(given) => {
                let mut set = ListenerSet::bind(config, given).map_err(StartError)?;
                let left = set.take_left();
                self.bound = set.into_listeners();
                let unclaimed: Vec<String> = left.iter().filter_map(inherited::unclaimed).collect();
                if !unclaimed.is_empty() {
                    return Err(StartError(unclaimed.join("; ")));
                }
                unstored.extend(left.iter().filter_map(retire));
                Vec::new()
            }
            Sockets::Shared(listeners) | Sockets::Kept(listeners) => listeners,
        };
        // A copy lends nothing: the door is the first master's.
        if !is_copy {
            let (lenders, errors) = lenders::open(config, Vec::new());
            self.lenders = lenders;
            if let Some(error) = errors.into_iter().next() {
                return Err(StartError(error));
            }
        }
        if !confined {
            write_pidfiles(&mut self.pidfiles, "pidfile")?;
        }
        if fresh && cred::is_root() {
            hooks::run_all(&config.hooks, Point::AsRoot).map_err(StartError)?;
        }
        let log = if config.credentials.drop_after_init {
            let log = self.open_late(config, &base)?;
            drop_privileges(config, fresh)?;
            log
        } else {
            drop_privileges(config, fresh)?;
            self.open_late(config, &base)?
        };
        let scoreboard = Scoreboard::create().map_err(|error| StartError::new("scoreboard", error))?;
        let handover = seqpacket::pair().map_err(|error| StartError::new("hand-over queue", error))?;
        let answers = Answers::create().map_err(|error| StartError::new("answers", error))?;
        let locks = Locks::create().map_err(|error| StartError::new("locks", error))?;
        let paths = config.fifo_paths(&start.cwd);
        let active = match paths.first() {
            Some(path) => {
                let told = |error| StartError(format!("master-fifo: {error}{}", config.place("master-fifo")));
                Some(MasterFifo::open(path).map_err(told)?)
            }
            None => None,
        };
        let listeners = std::mem::take(&mut self.bound).into_iter().chain(adopted).collect();
        Ok(Opened { listeners, unstored, scoreboard, handover, answers, locks, log, paths, active })
    }

    /// What has its time when privileges are dropped: afterwards, unless `drop-after-init` says before.
    fn open_late(&mut self, config: &Config, base: &Path) -> Result<Option<LogFile>, StartError> {
        write_pidfiles(&mut self.pidfiles, "pidfile2")?;
        config.logto2.as_ref().map(|path| open_log(config, "logto2", &base.join(path))).transpose()
    }

    fn claim_pidfiles(
        &mut self,
        start: &StartContext,
        config: &Config,
        wanted: fn(&str) -> bool,
    ) -> Result<(), StartError> {
        let files = pidfile_paths(config, &start.cwd);
        for (option, path) in files.into_iter().filter(|(option, _)| wanted(option)) {
            // Whoever waits for a safe pidfile to appear must not see it before it has its number.
            if option.starts_with("safe-") && std::fs::symlink_metadata(&path).is_err() {
                continue;
            }
            let file = Pidfile::claim(&path, 0o644)
                .map_err(|error| StartError(format!("{option}: {error}{}", config.place(option))))?;
            self.pidfiles.push(HeldPidfile { option, file });
        }
        Ok(())
    }

    /// Removes what this start has made; what cannot be removed any more is named.
    fn undo(&mut self) {
        for HeldPidfile { option, file } in &self.pidfiles {
            if let Removal::Failed(reason) = file.remove_if_ours() {
                warn!("{option} {} stays behind: {reason}", file.path().display());
            }
        }
        self.lenders.iter().for_each(lenders::remove_files);
        // What the service manager has kept stays for the next attempt.
        for listener in self.bound.iter().filter(|listener| !listener.stored) {
            if let VacuumOutcome::Failed(reason) = listener.remove_if_ours() {
                warn!("unix socket {} stays behind: {reason}", listener.local);
            }
        }
    }
}

/// Gives up a stored listener that is not configured any more; its name in the store.
fn retire(listener: &Listener) -> Option<String> {
    warn!("no longer listening on {}", listener.local);
    if let VacuumOutcome::Failed(reason) = listener.remove_if_ours() {
        warn!("unix socket {}: {reason}", listener.local);
    }
    store::name(listener)
}

/// What `daemonize2` puts off until the first generation serves: errors until then are the shell's.
/// True when the log is another one now.
pub fn leave_terminal(holdings: &mut Holdings) -> bool {
    let Some(path) = holdings.config.daemonize2.clone() else { return false };
    match open_log(&holdings.config, "daemonize2", &holdings.start.cwd.join(path)) {
        Ok(log) => {
            holdings.log = Some(log);
            true
        }
        Err(error) => {
            warn!("{error}; logging goes on to the terminal");
            false
        }
    }
}

/// The log that is opened before privileges are dropped, and the option that names it.
pub fn early_log(config: &Config, cwd: &Path) -> Option<(&'static str, PathBuf)> {
    let named = [("logto", &config.logto), ("daemonize", &config.daemonize)];
    named.into_iter().find_map(|(option, path)| Some((option, cwd.join(path.as_ref()?))))
}

/// Opens a log file and makes it standard output and standard error.
///
/// # Errors
/// When it cannot be opened.
pub fn open_log(config: &Config, option: &str, path: &Path) -> Result<LogFile, StartError> {
    let told =
        |error: &dyn std::fmt::Display| StartError(format!("{option}: {error}{}", config.place(option)));
    let log = LogFile::open(path).map_err(|error| told(&error))?;
    log.install().map_err(|error| told(&error))?;
    Ok(log)
}

/// Writes the claimed pidfile of this option, whose time has come.
fn write_pidfiles(pidfiles: &mut [HeldPidfile], option: &str) -> Result<(), StartError> {
    for held in pidfiles.iter_mut().filter(|held| held.option == option) {
        held.file.write(process::this()).map_err(|error| StartError::new(held.option, error))?;
    }
    Ok(())
}

/// Becomes the user of the configuration, unless the master stays root, and runs the hooks of that user.
fn drop_privileges(config: &Config, fresh: bool) -> Result<(), StartError> {
    let plan = Plan::of(config).map_err(|it| StartError(it.told(config)))?;
    let stays = config.credentials.master_keeps_root();
    if !stays {
        plan.follow_in_master().map_err(|it| StartError(it.told(config)))?;
    }
    if cred::is_root() && !(stays && config.credentials.uid.is_some()) {
        warn!("*** WARNING: you are running appserver as root !!! (use the uid and gid options) ***");
    }
    let hooks = || hooks::run_all(&config.hooks, Point::AsUser);
    match (fresh, stays) {
        (false, _) => Ok(()),
        (true, false) => hooks().map_err(StartError),
        // Their user is the same, whoever goes on here.
        (true, true) => privileges::as_user(config, &plan, hooks).map_err(StartError),
    }
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
        if config.stop_signals().include_term() { " or kill -TERM" } else { "" }
    );
    if process::is_init() {
        let term = match config.stop_signals() {
            StopSignals::Both => "SIGTERM and SIGQUIT stop it (die-on-term is not given)",
            StopSignals::Term => "SIGTERM stops it (die-on-term)",
            StopSignals::Quit => "SIGTERM reloads it (die-on-term = false)",
        };
        info!("process 1 of a container: {term}");
    }
    if let Some(bytes) = cgroup::memory_limit() {
        info!("memory limit of the control group: {} MiB", bytes / (1 << 20));
    }
    if let Some(fifo) = &holdings.fifos.active {
        info!("master fifo: echo r > {} (r reload, q stop, s statistics)", fifo.path().display());
    }
}
