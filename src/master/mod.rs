//! The master: one thread, one poll loop, no application code.
//!
//! [`state`] decides, `perform` carries out, this file waits. Signals, FIFO, touch files and the
//! control channels of the children become [`event::Event`]s; nothing here ever blocks or sleeps.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::time::{Instant, SystemTime};

use log::{debug, error, warn};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::channel::{WorkerChannel, ZygoteChannel};
use crate::control::{self, Command};
use crate::error::EXIT_ERROR;
use crate::hooks::shell::Commands;
use crate::service::activation::Activation;
use crate::service::readiness::Readiness;
use crate::sys::mapped;
use crate::sys::process::{self, Pid, Signal};
use crate::sys::signal::SignalSource;

mod accepting;
pub mod answer;
mod app_signals;
mod arrival;
mod attention;
mod breaker;
mod budget;
mod cheaper;
mod draining;
pub mod event;
mod evidence;
mod generations;
pub mod harakiri;
mod hearing;
mod heir;
pub mod holdings;
mod idle;
pub mod killing;
mod lenders;
mod letters;
mod lifecycle;
mod memory;
mod oom;
mod perform;
pub mod policy;
mod promotion;
mod queue_watch;
mod recycling;
mod reexec;
mod reload;
mod repair;
pub mod report;
mod roll;
mod rollback;
mod sample;
mod sampling;
mod saved;
mod service;
pub mod slots;
mod snapshots;
pub mod spawn;
pub mod standing;
mod startup;
pub mod state;
mod stop;
mod store;
mod supervision;
mod surge;
#[cfg(test)]
mod tests;
mod throttle;
mod triggers;
mod wishes;
pub mod workers;
mod zygotes;

pub use lifecycle::{SocketOrigin, catch_signals, resume, start};

use accepting::Accepting;
use answer::Answer;
use app_signals::AppSignals;
use event::Event;
use evidence::Evidence;
use generations::Known;
use heir::Heir;
use holdings::{Holdings, Proven};
use memory::MemoryWatch;
use oom::OomWatch;
use service::Service;
use startup::Verdict;
use state::{Master, Phase};
use workers::{Generation, WorkerId};

/// What a readiness event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Signals,
    Fifo,
    FifoWatch,
    Touch,
    Changes,
    /// A descriptor of `reload-on-fd`.
    ArmedFd(RawFd),
    /// The door of a zerg server or pool.
    Lender(RawFd),
    Listener,
    Zygote(Generation),
    /// The worker that is about to become one.
    Heir,
    Worker(WorkerId),
    AppWatches,
}

/// The running master.
pub(crate) struct Runner {
    machine: Master,
    holdings: Holdings,
    poll: Poll,
    signals: SignalSource,
    sources: HashMap<Token, Source>,
    next_token: usize,
    zygotes: BTreeMap<Generation, ZygoteChannel>,
    workers: BTreeMap<WorkerId, WorkerChannel>,
    /// The worker that is about to become the zygote.
    heir: Option<Heir>,
    /// What the zygotes have proven that do not serve yet.
    proven: BTreeMap<Generation, Proven>,
    /// What the zygotes have told of their generations.
    known: BTreeMap<Generation, Known>,
    queue: VecDeque<Event>,
    verdict: Option<Verdict>,
    /// Started by `f`: the pidfiles are the first master's until somebody writes `P`.
    is_copy: bool,
    /// What the service manager has passed, until the first generation serves.
    activation: Activation,
    /// When files are looked at that nothing tells of.
    next_look: Option<Instant>,
    memory: MemoryWatch,
    /// Commands of the shell that run.
    commands: Commands,
    app_signals: AppSignals,
    /// Who has run the hooks of a generation that serves.
    accepting: Accepting,
    evidence: Evidence,
    /// What those who asked were told last.
    told: Option<Answer>,
    /// The log knows that the kernel does not tell how many clients wait.
    told_unmeasured: bool,
    /// Nothing was under way when it last waited.
    rests: bool,
    /// The service manager, if there is one that listens.
    service: Option<Service>,
    /// What a supervisor of another kind is told once.
    readiness: Option<Readiness>,
    oom: OomWatch,
    /// What instants of the state machine are in CLOCK_REALTIME: read once, for what is told must not waver.
    epoch: (Instant, SystemTime),
    /// Descriptors that a previous image of another release has left: its children's channels among
    /// them, which end those children when they close.
    strangers: Vec<OwnedFd>,
    reexec_due: bool,
    exit: Option<u8>,
}

impl Runner {
    fn new(
        machine: Master,
        holdings: Holdings,
        mut signals: SignalSource,
        verdict: Option<Verdict>,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        poll.registry().register(&mut signals, Token(0), Interest::READABLE)?;
        let mut runner = Runner {
            machine,
            service: Service::of(&holdings.start),
            holdings,
            poll,
            signals,
            sources: HashMap::from([(Token(0), Source::Signals)]),
            next_token: 1,
            zygotes: BTreeMap::new(),
            workers: BTreeMap::new(),
            heir: None,
            proven: BTreeMap::new(),
            known: BTreeMap::new(),
            queue: VecDeque::from([Event::Start]),
            verdict,
            is_copy: false,
            activation: Activation::default(),
            next_look: None,
            memory: MemoryWatch::new(Instant::now()),
            commands: Commands::default(),
            app_signals: AppSignals::default(),
            accepting: Accepting::default(),
            evidence: Evidence::new(),
            told: None,
            told_unmeasured: false,
            rests: false,
            readiness: None,
            oom: OomWatch::new(),
            epoch: (Instant::now(), SystemTime::now()),
            strangers: Vec::new(),
            reexec_due: false,
            exit: None,
        };
        runner.watch_fifo();
        // It may have been removed during an exec, when nobody watched.
        runner.check_fifo();
        Ok(runner)
    }

    /// Runs until the master has nothing left to supervise; the exit code.
    fn run(mut self) -> u8 {
        let mut events = Events::with_capacity(256);
        self.watch_triggers();
        self.watch_lenders();
        self.follow_store();
        loop {
            self.settle();
            if let Some(code) = self.exit {
                return self.leave(code);
            }
            self.rest();
            let timeout = self.deadline().map(|instant| instant.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    error!("the master cannot wait for events: {error}");
                    return self.leave(EXIT_ERROR);
                }
            }
            let ready: Vec<Source> =
                events.iter().filter_map(|event| self.sources.get(&event.token()).copied()).collect();
            self.collect(&ready);
        }
    }

    /// When nothing is under way any more, lets go of what was needed for it.
    fn rest(&mut self) {
        let rests = self.told.as_ref().is_some_and(Answer::is_at_rest);
        if rests
            && !self.rests
            && let Err(error) = mapped::forget_files()
        {
            warn!("memory of the program stays in use: {error}");
        }
        self.rests = rests;
    }

    /// Steps through all events, then replaces the image if that has become due: never with an event
    /// in hand, for it would be lost.
    fn settle(&mut self) {
        let ordered = self.holdings.answers.pause_order();
        if let Some((_, paused)) = ordered {
            self.command(if paused { Command::Pause } else { Command::Resume }, "order");
        }
        self.step_through();
        if let Some((number, _)) = ordered {
            self.holdings.answers.obey_pause(number);
        }
    }

    fn step_through(&mut self) {
        loop {
            while let Some(event) = self.queue.pop_front() {
                // Taken before the request was sent, so a request that is an event here is covered.
                self.machine.note_ticket(self.holdings.answers.ticket());
                let actions = self.machine.step(Instant::now(), event);
                if matches!(self.machine.phase(), Phase::Stopping { .. }) {
                    // A stop is announced before anything of it is done; all else once it is done.
                    self.inform(&self.machine.answer());
                }
                for action in actions {
                    self.perform(action);
                }
                self.answer();
            }
            self.announce_next_look();
            if !std::mem::take(&mut self.reexec_due) || self.machine.phase() != Phase::ReExecuting {
                self.settle_hooks();
                if !self.queue.is_empty() {
                    continue;
                }
                return self.settle_signals();
            }
            self.reexec();
        }
    }

    /// Tells those who wait for a reload or a stop what has become of it; the service manager first, because
    /// it may be the one who waits.
    fn answer(&mut self) {
        let answer = self.full_answer();
        self.inform(&answer);
        if self.told.as_ref() != Some(&answer) {
            self.forget_gone(&answer);
            self.holdings.answers.publish(&answer);
            self.told = Some(answer);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        self.machine
            .deadline()
            .into_iter()
            .chain(self.machine.look_deadline())
            .chain(self.look_deadline())
            .chain(self.signal_deadline())
            .chain(self.service_deadline())
            .chain(self.memory_deadline())
            .min()
    }

    /// Turns readiness into events. Children's messages come before their deaths, so that the last
    /// word of a child is known when its exit is judged.
    fn collect(&mut self, ready: &[Source]) {
        for source in ready {
            match source {
                Source::Zygote(generation) => self.hear_zygote(*generation),
                Source::Heir => self.hear_heir(),
                Source::Worker(worker) => self.hear_worker(*worker),
                Source::Fifo => self.read_fifo(),
                Source::FifoWatch => self.check_fifo(),
                Source::Touch => self.check_touch(),
                Source::Changes => self.check_changes(),
                Source::ArmedFd(fd) => self.read_armed_fd(*fd),
                Source::Lender(door) => self.lend(*door),
                Source::Listener => self.queue.push_back(Event::ConnectionWaiting),
                Source::AppWatches => self.read_app_watches(),
                Source::Signals => {}
            }
        }
        if ready.contains(&Source::Signals) {
            self.read_signals();
        }
        let now = Instant::now();
        self.look(now);
        self.tick_signals(now);
        self.tick_service(now);
        self.look_at_memory(now);
        if self.machine.deadline().is_some_and(|at| now >= at) {
            self.queue.push_back(Event::Tick);
        }
        if self.machine.look_deadline().is_some_and(|at| now >= at) {
            self.sample();
        }
    }

    fn read_signals(&mut self) {
        let pending: Vec<Signal> = self.signals.pending().collect();
        let stops = self.holdings.config.stop_signals();
        for signal in pending {
            match control::signal_command(signal, stops) {
                Some(command) => self.command(command, signal.as_str()),
                None if signal == Signal::SIGCHLD => self.reap(),
                None => debug!("{} ignored", signal.as_str()),
            }
        }
    }

    fn command(&mut self, command: Command, origin: &str) {
        log::info!("{origin} received: {command:?}");
        self.queue.push_back(Event::Command(command));
    }

    /// Reaps every child that is gone, strangers included.
    fn reap(&mut self) {
        let mut dead: Vec<(Pid, process::Exit)> = Vec::new();
        loop {
            match process::reap() {
                Ok(Some(child)) => dead.push(child),
                Ok(None) => break,
                Err(error) => {
                    error!("waitpid: {error}");
                    break;
                }
            }
        }
        dead.retain(|(pid, exit)| !self.commands.ended(*pid, *exit));
        if dead.is_empty() {
            return;
        }
        for generation in self.zygotes.keys().copied().collect::<Vec<_>>() {
            self.hear_zygote(generation);
        }
        self.hear_heir();
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.hear_worker(worker);
        }
        self.look_for_oom(&dead);
        self.queue.extend(dead.into_iter().map(|(pid, exit)| Event::ChildExited { pid, exit }));
    }

    // Registration.

    fn watch(&mut self, fd: RawFd, source: Source) {
        let token = Token(self.next_token);
        self.next_token += 1;
        match self.poll.registry().register(&mut SourceFd(&fd), token, Interest::READABLE) {
            Ok(()) => {
                self.sources.insert(token, source);
            }
            Err(error) => error!("cannot watch descriptor {fd} ({source:?}): {error}"),
        }
    }

    /// Forgets a source. The descriptor is deregistered here, because a duplicate of it in another
    /// process would keep it alive in the epoll set (epoll(7), question 6).
    fn unwatch(&mut self, fd: RawFd, source: Source) {
        self.sources.retain(|_, it| *it != source);
        if let Err(error) = self.poll.registry().deregister(&mut SourceFd(&fd)) {
            debug!("descriptor {fd} was not watched: {error}");
        }
    }
}
