//! The zygote: loads the application once, forks workers on request, serves nothing.
//!
//! It is a fresh execution of the binary with the configuration as it is now, so "does the binary
//! start, does the configuration parse, does the application load" is answered by doing it, while
//! the generation before serves. Workers are forked twice, so that they become children of the
//! master (a subreaper, prctl(2)) and there is one supervisor instead of a tree of them.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use log::{error, info, warn};

use crate::app::slots::Slots;
use crate::app::{App, AppFactory, Side};
use crate::boot::{BootRole, Envelope, StartContext};
use crate::channel::{Channel, FromZygote, Incoming, ToZygote, bounded_reason, headline};
use crate::config::Config;
use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::logging::{self, Role, logfile};
use crate::master::spawn::ZygoteBoot;
use crate::net::Listener;
use crate::scoreboard::Scoreboard;
use crate::scoreboard::sheet::{Sheet, SheetFile};
use crate::sys::process::{self, Fork, Pid, Signal};
use crate::sys::title::Title;
use crate::sys::{affinity, fd, heap, mapped, signal, stacks};
use crate::worker::rebirth::Reborn;
use crate::worker::{self, Birth};

mod belongings;
mod lodging;
mod proof;
mod sockets;

use lodging::Lodging;
use proof::{Arrival, Proven, Unfit};

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
    let arrived = match envelope.role {
        BootRole::Guest => {
            envelope.body().map(|(boot, lodging): (ZygoteBoot, Lodging)| (boot, Some(lodging)))
        }
        _ => envelope.body().map(|boot| (boot, None)),
    };
    let (boot, lodging) = match arrived {
        Ok(arrived) => arrived,
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
    match Zygote::prepare(Arrival { start, boot, lodging, listeners: envelope.listeners }, control, factory) {
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
        arrival: Arrival<'_>,
        control: Channel<FromZygote, ToZygote>,
        factory: AppFactory,
    ) -> Result<Self, u8> {
        let mut title = Title::prepare();
        let generation = arrival.boot.generation;
        match arrival.prove(control.as_fd(), factory, &mut title) {
            Ok(Proven { config, app, listeners, scoreboard, handover, sheet }) => {
                let loaded = FromZygote::Loaded {
                    entries: config.entries.clone(),
                    listeners: listeners.announce(),
                    requests: proof::requests(&config, app.as_deref()),
                };
                let fresh: Vec<_> = listeners.fresh().map(|listener| listener.fd.as_fd()).collect();
                if let Err(error) = control.send(&loaded, &fresh) {
                    error!("the master does not listen: {error}");
                    return Err(EXIT_ERROR);
                }
                let master = process::parent();
                let listeners = listeners.into_listeners().into_iter().map(sockets::sheltered).collect();
                Ok(Zygote {
                    generation,
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
                error!("generation {generation} cannot serve: {}", headline(&reason));
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
            sheet: Arc::new(Sheet::adopt(
                sheet,
                Slots::rows(self.config.threads),
                self.config.harakiri.limit,
            )?),
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
    if let Err(error) = mapped::forget_files() {
        warn!("memory of programs and libraries stays in use: {error}");
    }
}

/// Which process [`Zygote::fork_worker`] returned in.
enum Forked {
    Zygote,
    Worker,
}
