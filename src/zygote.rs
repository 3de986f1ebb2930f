//! The zygote: loads the application once, forks workers on request, serves nothing.
//!
//! It is a fresh execution of the binary with the configuration as it is now, so "does the binary
//! start, does the configuration parse, does the application load" is answered by doing it, while
//! the generation before serves. Workers are forked twice, so that they become children of the
//! master (a subreaper, prctl(2)) and there is one supervisor instead of a tree of them.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use log::{error, info, warn};

use crate::app::plugin::Shared;
use crate::app::stray::turn_away;
use crate::app::{self, App, AppFactory, Side};
use crate::boot::{Envelope, StartContext};
use crate::cache::Caches;
use crate::channel::{Channel, FromZygote, Incoming, ToZygote, bounded_reason, headline};
use crate::cli;
use crate::config::Config;
use crate::config::context::Reading;
use crate::error::{EXIT_ERROR, EXIT_NO_APP, EXIT_OK};
use crate::hooks::{self, Point};
use crate::locks::Locks;
use crate::logging::{self, Role, logfile, spare};
use crate::master::spawn::ZygoteBoot;
use crate::net::set::ListenerSet;
use crate::net::{Listener, ListenerState};
use crate::privileges::limits::{self, Started};
use crate::privileges::{Plan, Refusal};
use crate::scoreboard::Scoreboard;
use crate::scoreboard::sheet::{Sheet, SheetFile};
use crate::signals;
use crate::sys::process::{self, Fork, Pid, Signal};
use crate::sys::title::Title;
use crate::sys::{self, affinity, cred, fd, heap, mapped, signal, stacks, stray};
use crate::worker::rebirth::Reborn;
use crate::worker::{self, Birth};

/// Signals that a terminal or `pkill` sends to the whole family; the master answers them.
const FAMILY_SIGNALS: &[Signal] = &[
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGTSTP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// "No child processes", errno(3).
const ECHILD: i32 = 10;

/// A generation that cannot serve: the reason and the exit code of a first start.
struct Unfit {
    reason: String,
    code: u8,
}

impl Unfit {
    fn new(reason: impl ToString) -> Self {
        Unfit { reason: reason.to_string(), code: EXIT_ERROR }
    }
}

/// What the zygote needs to make a worker.
struct Zygote {
    generation: u64,
    control: Channel<FromZygote, ToZygote>,
    listeners: Vec<Listener>,
    scoreboard: Arc<Scoreboard>,
    handover: (OwnedFd, OwnedFd),
    /// Where its stacks go; a worker's has the same number.
    sheet: OwnedFd,
    config: Arc<Config>,
    app: Option<Rc<dyn App>>,
    factory: AppFactory,
    title: Option<Title>,
    master: Pid,
    /// Where workers begin.
    place: Place,
}

/// Where a process is. A worker that becomes the zygote may have gone elsewhere.
#[derive(Debug, Clone)]
struct Place {
    directory: Option<PathBuf>,
    /// Processors that it may use; each worker is confined to some of them (`cpu-affinity`).
    cpus: Option<Vec<usize>>,
}

impl Place {
    fn here() -> Self {
        Place { directory: std::env::current_dir().ok(), cpus: affinity::usable().ok() }
    }

    fn go_back(&self) -> io::Result<()> {
        self.directory.as_ref().map_or(Ok(()), std::env::set_current_dir)?;
        self.cpus.as_ref().map_or(Ok(()), |cpus| affinity::confine(cpus))
    }
}

/// Runs the zygote until its master dismisses it; the exit code. In a forked worker it returns only if that has
/// become a zygote (`refork-after`), as the same.
pub fn run(start: &StartContext, envelope: Envelope, factory: AppFactory) -> u8 {
    let boot: ZygoteBoot = match envelope.body() {
        Ok(boot) => boot,
        Err(error) => {
            error!("the master speaks to its zygote in words of another release: {error}");
            return EXIT_ERROR;
        }
    };
    logging::set_role(Role::Zygote { generation: boot.generation });
    let control = match take_control(boot.control) {
        Ok(fd) => Channel::new(fd),
        Err(error) => {
            error!("no control channel: {error}");
            return EXIT_ERROR;
        }
    };
    match Zygote::prepare(start, boot, control, envelope.listeners, factory) {
        Ok(zygote) => zygote.serve(),
        Err(code) => code,
    }
}

fn take_control(raw: i32) -> io::Result<OwnedFd> {
    let control = fd::shelter(fd::claim(raw)?);
    // The zygote has nothing else to wait for.
    fd::set_nonblocking(control.as_fd(), false)?;
    Ok(control)
}

impl Zygote {
    fn prepare(
        start: &StartContext,
        boot: ZygoteBoot,
        control: Channel<FromZygote, ToZygote>,
        listeners: Vec<ListenerState>,
        factory: AppFactory,
    ) -> Result<Self, u8> {
        let mut title = Title::prepare();
        match proven(start, &boot, control.as_fd(), listeners, factory, &mut title) {
            Ok(Proven { config, app, listeners, scoreboard, handover, sheet }) => {
                let loaded = FromZygote::Loaded {
                    entries: config.entries.clone(),
                    listeners: listeners.announce(),
                    requests: requests(&config, app.as_deref()),
                };
                let fresh: Vec<_> = listeners.fresh().map(|listener| listener.fd.as_fd()).collect();
                if let Err(error) = control.send(&loaded, &fresh) {
                    error!("the master does not listen: {error}");
                    return Err(EXIT_ERROR);
                }
                let master = process::parent();
                let listeners = listeners.into_listeners().into_iter().map(sheltered).collect();
                Ok(Zygote {
                    generation: boot.generation,
                    control,
                    listeners,
                    scoreboard,
                    handover,
                    sheet,
                    config,
                    app: app.map(Rc::from),
                    factory,
                    title: Some(title),
                    master,
                    place: Place::here(),
                })
            }
            Err(Unfit { reason, code }) => {
                error!("generation {} cannot serve: {}", boot.generation, headline(&reason));
                let reason = bounded_reason(reason);
                if let Err(error) = control.send(&FromZygote::LoadFailed { reason, code }, &[]) {
                    error!("the master does not listen: {error}");
                }
                Err(code)
            }
        }
    }

    fn serve(mut self) -> u8 {
        settle_memory();
        loop {
            match self.control.receive() {
                Ok(Incoming::Message(ToZygote::Spawn { worker, slot, cell, reloads, paused }, fds)) => {
                    let mut fds = fds.into_iter();
                    let (Some(control), sheet) = (fds.next(), fds.next()) else {
                        warn!("worker {slot} was asked for without a control channel");
                        continue;
                    };
                    match self.fork_worker(worker) {
                        Ok(Forked::Zygote) => {}
                        Ok(Forked::Worker) => {
                            logging::set_role(Role::Worker { slot });
                            if let Some(app) = &self.app {
                                app.after_fork(Side::Child);
                            }
                            let place = self.place.clone();
                            let order = Order { worker, slot, cell, reloads, paused, control, sheet };
                            let birth = match self.birth(order) {
                                Ok(birth) => birth,
                                Err(error) => {
                                    error!("worker cannot start: {error}");
                                    process::exit_now(i32::from(EXIT_ERROR));
                                }
                            };
                            match Zygote::reborn(worker::run(birth), place) {
                                Ok(zygote) => self = zygote,
                                Err(error) => {
                                    info!("this worker does not become the zygote: {error}");
                                    return EXIT_OK;
                                }
                            }
                        }
                        Err(error) => self.report_fork_failure(worker, &error),
                    }
                }
                Ok(Incoming::Message(ToZygote::LogFile, fds)) => logfile::follow_master(fds),
                Ok(Incoming::Closed) => return EXIT_OK,
                Ok(Incoming::Nothing) => {}
                Err(error) => {
                    error!("control channel: {error}");
                    return EXIT_ERROR;
                }
            }
        }
    }

    /// The zygote that a worker of this process has become, once the master has heard of it.
    fn reborn(reborn: Reborn, place: Place) -> io::Result<Self> {
        logging::set_role(Role::Zygote { generation: reborn.generation });
        signal::shrug_off(&[Signal::SIGHUP, Signal::SIGTERM])?;
        signal::shrug_off(&signal::defaulted(FAMILY_SIGNALS))?;
        place.go_back()?;
        let mut title = reborn.title;
        if let Some(title) = &mut title {
            title.set(&logging::title::zygote(&reborn.config, reborn.generation));
        }
        let sheet = Sheet::give_away(reborn.sheet)?;
        stacks::answer_on(reborn.control.as_fd());
        settle_memory();
        reborn.control.send(&FromZygote::Promoted, &[])?;
        Ok(Zygote {
            generation: reborn.generation,
            control: reborn.control,
            listeners: reborn.listeners,
            scoreboard: reborn.scoreboard,
            handover: reborn.handover,
            config: reborn.config,
            app: Some(reborn.app),
            factory: reborn.factory,
            title,
            master: reborn.master,
            sheet,
            place,
        })
    }

    fn report_fork_failure(&self, worker: u64, error: &io::Error) {
        let reason = error.to_string();
        if let Err(error) = self.control.send(&FromZygote::ForkFailed { worker, reason }, &[]) {
            warn!("the master does not listen: {error}");
        }
    }

    /// Forks twice. The middle process ends at once, which makes the worker a child of the master;
    /// the worker does nothing before that, and before the master has been told its pid.
    fn fork_worker(&self, worker: u64) -> io::Result<Forked> {
        let (pid_out, pid_in) = fd::pipe()?;
        let (go_out, go_in) = fd::pipe()?;
        let prepared = self.app.as_ref().and_then(|app| app.before_fork());
        let forked = match &prepared {
            Some(prepared) => process::fork_among_threads(prepared),
            None => process::fork(),
        };
        let is_child = matches!(forked, Ok(Fork::Child));
        if let (Some(app), false) = (&self.app, is_child) {
            app.after_fork(Side::Parent);
        }
        match forked? {
            // This process has one thread, whatever the zygote has.
            Fork::Child => match process::fork() {
                Ok(Fork::Parent(pid)) => {
                    let told = std::fs::File::from(pid_in).write_all(&pid.as_raw().to_ne_bytes());
                    process::exit_now(i32::from(told.is_err()));
                }
                Ok(Fork::Child) => {
                    drop((pid_out, pid_in, go_in));
                    let mut go = [0; 1];
                    match std::fs::File::from(go_out).read(&mut go) {
                        Ok(1) => Ok(Forked::Worker),
                        _ => process::exit_now(1),
                    }
                }
                Err(error) => {
                    // In the place of the pid, and negative. If the zygote is gone nobody wants to know.
                    let errno = -error.raw_os_error().unwrap_or(0);
                    let _ = std::fs::File::from(pid_in).write_all(&errno.to_ne_bytes());
                    process::exit_now(1);
                }
            },
            Fork::Parent(middle) => {
                drop((pid_in, go_out));
                let mut pid = [0; 4];
                let told = std::fs::File::from(pid_out).read_exact(&mut pid);
                match process::wait(middle) {
                    // Reaped by the kernel: the application ignores SIGCHLD.
                    Err(error) if error.raw_os_error() == Some(ECHILD) => {}
                    waited => drop(waited?),
                }
                told.map_err(|_| io::Error::other("the process in between was ended before it forked"))?;
                let pid = i32::from_ne_bytes(pid);
                if pid <= 0 {
                    return Err(io::Error::from_raw_os_error(-pid));
                }
                self.control.send(&FromZygote::Forked { worker, pid }, &[])?;
                // It may have been killed already; then the master reaps it.
                let _ = std::fs::File::from(go_in).write_all(&[1]);
                Ok(Forked::Zygote)
            }
        }
    }

    fn birth(self, order: Order) -> io::Result<Birth> {
        let Order { worker, slot, cell, reloads, paused, control, sheet } = order;
        drop(self.control);
        let control = fd::shelter(control);
        let sheet = sheet.map_or_else(|| SheetFile::create().map(OwnedFd::from), Ok)?;
        // The plugin knows the number.
        let sheet = fd::take_place(self.sheet, sheet)?;
        Ok(Birth {
            worker,
            slot,
            cell,
            generation: self.generation,
            reloads,
            paused,
            control,
            listeners: self.listeners,
            scoreboard: self.scoreboard,
            handover: self.handover,
            sheet: Arc::new(Sheet::adopt(sheet, self.config.threads, self.config.harakiri.limit)?),
            config: self.config,
            app: self.app,
            factory: self.factory,
            title: self.title,
            master: self.master,
        })
    }
}

/// The worker that the master has asked for.
struct Order {
    worker: u64,
    slot: u32,
    cell: usize,
    reloads: u64,
    paused: bool,
    control: OwnedFd,
    /// None from a master of an older release.
    sheet: Option<OwnedFd>,
}

/// Makes what there is by now a good thing to share: what is allocated from here on lies together.
fn settle_memory() {
    heap::fill_holes();
    if let Err(error) = mapped::forget_libraries() {
        warn!("memory of libraries stays in use: {error}");
    }
}

/// Which process [`Zygote::fork_worker`] returned in.
enum Forked {
    Zygote,
    Worker,
}

/// What the master is asked for about signals: by the application while it was loaded, and by the
/// configuration.
fn requests(config: &Config, app: Option<&dyn App>) -> Vec<signals::Request> {
    let mut requests = app.map(App::requests_to_master).unwrap_or_default();
    requests.extend(config.signals.iter().cloned());
    for request in &mut requests {
        if let signals::Request::Watch { path, .. } = request
            && let Ok(absolute) = std::path::absolute(&*path)
        {
            *path = absolute;
        }
    }
    requests
}

/// What a generation that can serve has.
struct Proven {
    config: Arc<Config>,
    app: Option<Box<dyn App>>,
    listeners: ListenerSet,
    scoreboard: Arc<Scoreboard>,
    handover: (OwnedFd, OwnedFd),
    sheet: OwnedFd,
}

fn proven(
    start: &StartContext,
    boot: &ZygoteBoot,
    control: BorrowedFd<'_>,
    listeners: Vec<ListenerState>,
    factory: AppFactory,
    title: &mut Title,
) -> Result<Proven, Unfit> {
    signal::shrug_off(FAMILY_SIGNALS).map_err(Unfit::new)?;
    let first = Reading::first();
    let reading = Reading {
        started: if boot.started > 0 { boot.started } else { first.started },
        started_by: boot.started_by.unwrap_or(first.started_by),
        is_reload: boot.generation > 1,
    };
    let config = cli::configuration(reading, start.argv.iter().cloned()).map_err(Unfit::new)?;
    if reading.is_reload {
        // The first time it was the master who printed.
        let lines: String = config.prints.iter().map(|line| format!("{line}\n")).collect();
        // A log that nobody reads any more is no reason to refuse a reload.
        let _ = io::stdout().write_all(lines.as_bytes());
        for warning in &config.warnings {
            warn!("{warning}");
        }
    }
    if reading.is_reload {
        // The first time it was the master, before it did anything else.
        hooks::run_all(&config.hooks, Point::Asap).map_err(Unfit::new)?;
    }
    // Here and not by the master: a reload takes them from the configuration as it is now.
    for name in &config.unenv {
        sys::env::remove_var(name);
    }
    for (name, value) in &config.env {
        sys::env::set_var(name, value);
    }
    title.set(&logging::title::zygote(&config, boot.generation));
    let base = config.base_directory(&start.cwd);
    std::env::set_current_dir(&base)
        .map_err(|error| Unfit::new(format!("chdir: cannot enter {}: {error}", base.display())))?;
    let adopt = |state| Listener::adopt(state).map(sheltered);
    let listeners = listeners.into_iter().map(adopt).collect::<io::Result<Vec<_>>>().map_err(Unfit::new)?;
    let claim = |raw| fd::claim(raw).map(fd::shelter);
    let scoreboard = claim(boot.scoreboard).and_then(Scoreboard::adopt).map_err(Unfit::new)?;
    let sheet = match boot.sheet {
        Some(raw) => claim(raw),
        None => SheetFile::create().map(|sheet| fd::shelter(sheet.into())),
    };
    let sheet = sheet.map_err(Unfit::new)?;
    stacks::prepare(sheet.as_fd()).map_err(Unfit::new)?;
    stacks::answer_on(control);
    let (take, give) = boot.handover;
    let handover = (claim(take).map_err(Unfit::new)?, claim(give).map_err(Unfit::new)?);
    let locks = boot.locks.map(|raw| claim(raw).and_then(Locks::adopt)).transpose().map_err(Unfit::new)?;
    let caches = Caches::create(&config.caches).map_err(Unfit::new)?;
    app::plugin::share(boot.generation, Shared { locks, highest_lock: config.locks, caches });
    let refused = |refusal: Refusal| Unfit::new(refusal.told(&config));
    let started = boot.limits.map_or_else(Started::now, Ok).map_err(Unfit::new)?;
    limits::apply(&config, started, reading.is_reload).map_err(refused)?;
    let plan = Plan::of(&config).map_err(refused)?;
    let late = config.credentials.drop_after_apps;
    let bind = |listeners| ListenerSet::bind(&config, listeners).map_err(Unfit::new);
    let load = |listeners: &mut dyn Iterator<Item = &Listener>| {
        // A server that only lends sockets has nobody to serve it.
        if config.lazy_apps || config.processes == 0 {
            return Ok(None);
        }
        let mut held: Vec<BorrowedFd<'_>> =
            vec![control, sheet.as_fd(), handover.0.as_fd(), handover.1.as_fd()];
        held.extend(listeners.map(|listener| listener.fd.as_fd()));
        load(&config, factory, &held).map(Some)
    };
    let (app, listeners) = if cred::is_root() && plan.gives_root_up() && !late {
        // Sockets while it may bind anything. A socket file of a generation that cannot serve is taken back if the
        // new user may do so; otherwise nobody listens on it, and the next one replaces it.
        let listeners = bind(listeners)?;
        let loaded = plan.follow_in_zygote().map_err(refused);
        let loaded = loaded.and_then(|()| load(&mut listeners.iter()));
        let app = loaded.inspect_err(|_| listeners.undo())?;
        (app, listeners)
    } else {
        if !late {
            plan.follow_in_zygote().map_err(refused)?;
        }
        let app = load(&mut listeners.iter())?;
        // Last of all: sockets of a generation that cannot serve need not be taken back.
        let listeners = bind(listeners)?;
        if late {
            plan.follow_in_zygote().map_err(refused).inspect_err(|_| listeners.undo())?;
        }
        (app, listeners)
    };
    Ok(Proven { config: Arc::new(config), app, listeners, scoreboard: Arc::new(scoreboard), handover, sheet })
}

/// Loads the application, and puts right what it did to this process.
fn load(config: &Config, factory: AppFactory, held: &[BorrowedFd<'_>]) -> Result<Box<dyn App>, Unfit> {
    let code = if config.need_app { EXIT_NO_APP } else { EXIT_ERROR };
    let identities: Vec<_> = held.iter().map(|fd| fd::identity(*fd).ok()).collect();
    spare::keep();
    stray::watch();
    let app = app::load(config, factory);
    turn_away("while it was loaded");
    spare::mend();
    if held.iter().map(|fd| fd::identity(*fd).ok()).ne(identities) {
        error!(
            "the application has closed descriptors of the server while it was loaded: it must close only \
             those that it has opened"
        );
        // The channel to the master may be one of them, and none of them may be closed again.
        process::exit_now(i32::from(code));
    }
    let app = app.map_err(|error| Unfit { reason: format!("no application: {error}"), code })?;
    // Code that gives signals their default actions means its own process, not the zygote's part.
    signal::shrug_off(&signal::defaulted(FAMILY_SIGNALS)).map_err(Unfit::new)?;
    Ok(app)
}

/// The same listener out of the application's way.
fn sheltered(listener: Listener) -> Listener {
    Listener { fd: fd::shelter(listener.fd), ..listener }
}
