//! The three ways in which a master begins: started by a user, as its own successor, as a copy.

use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::Instant;

use log::{error, info, warn};

use crate::boot::{Envelope, StartContext};
use crate::channel::{Channel, WorkerChannel, ZygoteChannel};
use crate::cli;
use crate::config::Config;
use crate::config::context::Reading;
use crate::config::source::KEPT_TEXT;
use crate::control::fd_trigger::ArmedFd;
use crate::control::{MASTER_SIGNALS, answers::Answers, fifo::MasterFifo, pidfile::Pidfile};
use crate::error::EXIT_ERROR;
use crate::hooks::shell::Commands;
use crate::hooks::{self, Point};
use crate::locks::Locks;
use crate::logging::logfile::LogFile;
use crate::net::{Listener, ListenerState};
use crate::privileges::{self, limits::Started};
use crate::scoreboard::Scoreboard;
use crate::scoreboard::sheet::SheetFile;
use crate::service::activation::Activation;
use crate::service::manager;
use crate::service::readiness::Readiness;
use crate::sys::signal::SignalSource;
use crate::sys::title::Title;
use crate::sys::{fd, process, seqpacket};

use super::answer::Kind;
use super::app_signals::AppSignals;
use super::generations::Known;
use super::holdings::{Fifos, HeldPidfile, Holdings};
use super::killing::Subject;
use super::lenders::SavedLender;
use super::policy::Policy;
use super::reexec::Legacy;
use super::startup::Sockets;
use super::state::Master;
use super::workers::{Generation, WorkerId};
use super::{Runner, Source, startup, triggers};

/// Where the sockets of a start are that others have opened.
pub enum SocketOrigin<'a> {
    /// With the service manager.
    Manager(&'a Activation),
    /// With the master that this one is a copy of.
    Master(Envelope),
}

/// Starts a server.
pub fn start(start: StartContext, config: Config, signals: SignalSource, origin: SocketOrigin<'_>) -> u8 {
    let (context, again) = (start.clone(), config.fallback_config.is_some());
    match try_start(start, config, signals, origin) {
        Ok(code) => code,
        Err(error) => {
            error!("cannot start: {error}");
            manager::failed(&context, &error.to_string(), again);
            EXIT_ERROR
        }
    }
}

fn try_start(
    mut start: StartContext,
    config: Config,
    signals: SignalSource,
    origin: SocketOrigin<'_>,
) -> Result<u8, Box<dyn std::error::Error>> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    privileges::drop_at_once(&config).map_err(|it| it.told(&config))?;
    hooks::run_all(&config.hooks, Point::Asap)?;
    let copy = matches!(origin, SocketOrigin::Master(_));
    let readiness = if copy { None } else { claim_readiness(&config)? };
    let mut verdict = None;
    let mut log = None;
    if !copy && (config.daemonize.is_some() || config.daemonize2.is_some()) {
        let watched = manager::watchdog_period(&start).is_some();
        verdict = Some(startup::daemonize(&config)?);
        manager::moved(&mut start, watched);
    }
    if let Some((option, path)) = startup::early_log(&config, &start.cwd) {
        log = Some(startup::open_log(&config, option, &path)?);
    }
    let mut activation = Activation::default();
    let mut stale = Vec::new();
    let sockets = match origin {
        SocketOrigin::Master(envelope) => Sockets::Shared(adopt_listeners(envelope.listeners)?.0),
        SocketOrigin::Manager(passed) => {
            let offered = passed.listeners(&config)?;
            stale = offered.stale;
            activation = passed.clone();
            Sockets::Bind(offered.listeners)
        }
    };
    process::set_child_subreaper()?;
    let mut holdings = startup::prepare(start, config, sockets)?;
    holdings.unstored.append(&mut stale);
    if holdings.log.is_none() {
        holdings.log = log;
    }
    startup::banner(&holdings);
    info!("spawned appserver master process (pid: {})", process::this());
    let machine = Master::new(Policy::of(&holdings.config));
    holdings.set_title(machine.generation());
    report_header(&holdings, machine.generation());
    if holdings.config.daemonize2.is_none()
        && let Some(verdict) = verdict.take()
    {
        verdict.success();
    }
    let mut runner = Runner::new(machine, holdings, signals, verdict)?;
    runner.is_copy = copy;
    runner.readiness = readiness;
    runner.activation = activation;
    runner.run_hooks(Point::MasterStart);
    Ok(runner.run())
}

/// Goes on where the previous image stopped.
pub fn resume(start: StartContext, envelope: Envelope, signals: SignalSource) -> u8 {
    let resumed = match envelope.body::<Legacy>() {
        Ok(legacy) => try_resume(start, envelope.listeners, legacy, signals),
        Err(error) => {
            error!(
                "the previous image speaks of another release ({error}): keeping the listeners, starting anew"
            );
            start_over(start, envelope.listeners, signals)
        }
    };
    match resumed {
        Ok(code) => code,
        Err(error) => {
            error!("cannot take over from the previous image: {error}");
            EXIT_ERROR
        }
    }
}

fn try_resume(
    start: StartContext,
    listeners: Vec<ListenerState>,
    legacy: Legacy,
    signals: SignalSource,
) -> Result<u8, Box<dyn std::error::Error>> {
    let (listeners, spares) = adopt_listeners(listeners)?;
    let config = Config::build(legacy.entries.clone())?;
    let base = config.base_directory(&start.cwd);
    std::env::set_current_dir(&base)?;
    let scoreboard = Scoreboard::adopt(claim(legacy.scoreboard)?)?;
    let touch = triggers::watch_touch_files(&config, &base, &legacy.touch.unwrap_or_default());
    let changes = triggers::watch_changes(&config, &base, &legacy.changes.unwrap_or_default());
    let armed_fds = keep_armed_fds(&config, &legacy.armed_fds)?;
    let fifo = match legacy.fifo {
        Some((slot, state)) => Some((slot, MasterFifo::adopt(state)?)),
        None => None,
    };
    let pidfiles = legacy.pidfiles.into_iter().filter_map(|(option, state)| {
        let option =
            ["pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2"].into_iter().find(|it| **it == option)?;
        match Pidfile::adopt(state) {
            Ok(file) => Some(HeldPidfile { option, file }),
            Err(error) => {
                warn!("{option} is lost: {error}");
                None
            }
        }
    });
    let mut holdings = Holdings {
        listeners,
        spares,
        unstored: Vec::new(),
        scoreboard: Arc::new(scoreboard),
        handover: match legacy.handover {
            Some((take, give)) => (claim(take)?, claim(give)?),
            None => seqpacket::pair()?,
        },
        answers: match legacy.answers {
            // Who waits notices that those of another layout are gone.
            Some(raw) => Answers::adopt(claim(raw)?).or_else(|_| Answers::create())?,
            None => Answers::create()?,
        },
        locks: match legacy.locks {
            Some(raw) => Locks::adopt(claim(raw)?)?,
            None => Locks::create()?,
        },
        pidfiles: pidfiles.collect(),
        fifos: Fifos {
            paths: legacy.fifo_paths,
            slot: fifo.as_ref().map_or(0, |(slot, _)| *slot),
            active: fifo.map(|(_, fifo)| fifo),
            watch: None,
        },
        touch,
        changes,
        armed_fds,
        lenders: legacy.lenders.into_iter().map(SavedLender::adopt).collect::<Result<_, _>>()?,
        log: legacy.log.map(|path| LogFile::adopt(&path)).transpose()?,
        title: Title::prepare(),
        reloads: legacy.reloads,
        started_at: legacy.started_at,
        started_by: legacy.started_by.unwrap_or(Reading::first().started_by),
        limits: legacy.limits.map_or_else(Started::now, Ok)?,
        start,
        config,
    };
    let completed = legacy.machine.completed;
    let mut known = legacy.known;
    let policies = known.iter().filter_map(|(number, it)| Some((*number, it.policy()?))).collect();
    let machine = Master::restore(legacy.machine, Policy::of(&holdings.config), policies, Instant::now());
    let generation = machine.generation();
    // Before anything is said to be complete: until then ps shows the bare command line.
    holdings.set_title(generation);
    info!("gracefully (RE)spawned appserver master process (pid: {})", process::this());
    report_header(&holdings, generation);
    if let Some(completed) = completed {
        info!("{}", machine.completion(Kind::Reload, completed.id));
    }
    holdings.follow_limits();
    holdings.follow_config();
    known.entry(generation).or_insert_with(|| Known::serving(&holdings, legacy.signals.get(&generation)));
    let mut runner = Runner::new(machine, holdings, signals, None)?;
    runner.known = known;
    runner.app_signals = AppSignals::restore(legacy.signals);
    runner.commands = Commands::restore(legacy.commands);
    runner.accepting = legacy.accepting;
    for (generation, raw) in legacy.zygotes {
        runner.adopt_zygote(generation, Channel::new(claim(raw)?));
    }
    for (worker, raw) in legacy.workers {
        runner.adopt_worker(worker, Channel::new(claim(raw)?));
    }
    let zygotes = legacy.zygote_sheets.into_iter().map(|(it, raw)| (Subject::Zygote(it), raw));
    let workers = legacy.worker_sheets.into_iter().map(|(it, raw)| (Subject::Worker(it), raw));
    for (subject, raw) in zygotes.chain(workers) {
        runner.evidence.sheets.insert(subject, SheetFile::adopt(claim(raw)?));
    }
    runner.look_at_all_requests();
    if runner.holdings.follow_log() {
        runner.pass_log_on();
    }
    runner.review_snapshots();
    // The reload is over, whatever this image begins with.
    runner.answer();
    // Children may have died while nobody was there to hear of it.
    runner.reap();
    Ok(runner.run())
}

/// A state that cannot be read: the sockets are what must not be lost. A new generation starts; the
/// children of the previous image leave when their channels close, once the new workers serve.
fn start_over(
    start: StartContext,
    listeners: Vec<ListenerState>,
    signals: SignalSource,
) -> Result<u8, Box<dyn std::error::Error>> {
    let (listeners, spares) = adopt_listeners(listeners)?;
    let strangers = fd::claim_left_open(KEPT_TEXT)?;
    let config = cli::configuration(Reading::first(), start.argv.iter().cloned())?;
    let log = startup::early_log(&config, &start.cwd);
    process::set_child_subreaper()?;
    let mut holdings = startup::prepare(start, config, Sockets::Kept(listeners))?;
    holdings.spares = spares;
    if holdings.log.is_none() {
        holdings.log = log.map(|(_, path)| LogFile::adopt(&path)).transpose()?;
    }
    info!("spawned appserver master process (pid: {})", process::this());
    let machine = Master::new(Policy::of(&holdings.config));
    report_header(&holdings, machine.generation());
    let mut runner = Runner::new(machine, holdings, signals, None)?;
    runner.holdings.set_title(1);
    runner.strangers = strangers;
    Ok(runner.run())
}

/// The listeners, and those that are kept for their manager.
fn adopt_listeners(states: Vec<ListenerState>) -> std::io::Result<(Vec<Listener>, Vec<Listener>)> {
    let (spares, served): (Vec<_>, Vec<_>) = states.into_iter().partition(|state| state.spare);
    let adopt =
        |states: Vec<ListenerState>| states.into_iter().map(Listener::adopt).collect::<Result<_, _>>();
    Ok((adopt(served)?, adopt(spares)?))
}

/// Descriptors of `reload-on-fd` that are still configured; the others are closed. A reload cannot bring
/// new ones: the number may be one of our own by now.
fn keep_armed_fds(config: &Config, held: &[i32]) -> std::io::Result<Vec<ArmedFd>> {
    let wanted = |raw: &i32| config.reload_on_fds.iter().find(|trigger| trigger.fd == *raw);
    for trigger in config.reload_on_fds.iter().filter(|trigger| !held.contains(&trigger.fd)) {
        let place = config.place("reload-on-fd");
        warn!(
            "reload-on-fd: descriptor {} counts from the next start on, not by a reload{place}",
            trigger.fd
        );
    }
    for raw in held.iter().filter(|raw| wanted(raw).is_none()) {
        drop(claim(*raw)?);
    }
    held.iter().filter_map(wanted).map(|trigger| ArmedFd::claim(trigger.clone())).collect()
}

fn claim_readiness(config: &Config) -> Result<Option<Readiness>, String> {
    Readiness::claim(config).map_err(|error| format!("notify-fd: {error}{}", config.place("notify-fd")))
}

/// A descriptor that the previous image left open on purpose; close-on-exec again from here on.
fn claim(raw: i32) -> std::io::Result<std::os::fd::OwnedFd> {
    let owned = fd::claim(raw)?;
    fd::set_cloexec(owned.as_fd(), true)?;
    Ok(owned)
}

/// Writes into the scoreboard what is true of the server as a whole.
pub(super) fn report_header(holdings: &Holdings, generation: u64) {
    holdings.scoreboard.set_instance(generation, holdings.reloads, holdings.started_at);
}

/// The signals of a master, caught from the first moment of the process.
///
/// # Errors
/// When the process is out of descriptors.
pub fn catch_signals() -> std::io::Result<SignalSource> {
    let source = SignalSource::new(MASTER_SIGNALS)?;
    // A previous image has blocked them for the time of the exec.
    crate::sys::signal::unblock_all()?;
    Ok(source)
}

impl Runner {
    pub(super) fn adopt_zygote(&mut self, generation: Generation, channel: ZygoteChannel) {
        self.watch(channel.as_raw_fd(), Source::Zygote(generation));
        self.zygotes.insert(generation, channel);
    }

    fn adopt_worker(&mut self, worker: WorkerId, channel: WorkerChannel) {
        self.watch(channel.as_raw_fd(), Source::Worker(worker));
        self.workers.insert(worker, channel);
    }
}
