//! The master as a pure state machine: events in, actions out, time as an argument.
//!
//! No fork, no clock, no file in here. Desired state (`desired` workers of `generation`) and actual
//! state (`workers`, `zygotes`) are kept apart; `repair` brings the second to the first
//! after every event. What follows from each kind of event stands in files of its own: zygotes,
//! supervision of workers, reload, roll (replacement within a generation), stop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use log::Level;

use crate::cause::{Cause, Causes, Setbacks};
use crate::channel::DrainMode;
use crate::control::Command;
use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::sys::process::{Exit, Pid};

use super::answer::Journal;
use super::arrival::Arrival;
use super::attention::Attention;
use super::breaker::Breaker;
use super::budget::BudgetWatch;
use super::cheaper::Memory;
use super::event::{Action, Event};
use super::harakiri::Harakiri;
use super::killing::Sentences;
use super::policy::Policy;
use super::promotion::Promotion;
use super::queue_watch::QueueWatch;
use super::reload::Reload;
use super::roll::Roll;
use super::slots::End;
use super::throttle::Throttle;
use super::wishes::Wish;
use super::workers::{Generation, SlotId, Stage, Worker, WorkerId, Zygote, ZygoteStage};

/// What the master as a whole is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The first generation is not complete yet.
    Starting,
    /// Serving; a reload may be in preparation.
    Running,
    /// About to replace its image.
    ReExecuting,
    /// Leaving with this code once all children are gone.
    Stopping {
        /// Exit code.
        code: u8,
        /// True when requests in flight are no longer waited for.
        forced: bool,
    },
    /// Gone.
    Finished,
}

/// The state machine.
#[derive(Debug, Clone, PartialEq)]
pub struct Master {
    pub(super) policy: Policy,
    pub(super) phase: Phase,
    /// The generation that serves.
    pub(super) generation: Generation,
    /// The highest generation ever started.
    pub(super) newest: Generation,
    pub(super) zygotes: BTreeMap<Generation, Zygote>,
    /// Zygotes that a warmer one has replaced, until they are reaped.
    pub(super) former_zygotes: Vec<Pid>,
    pub(super) zygote_throttle: Throttle,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) next_worker: WorkerId,
    pub(super) throttles: BTreeMap<SlotId, Throttle>,
    /// Open while several slots keep dying.
    pub(super) breaker: Option<Breaker>,
    /// Workers forked per generation and slot; tells a first spawn from a respawn.
    pub(super) forks: BTreeMap<(Generation, SlotId), u64>,
    /// Workers wanted: `processes`, less after `-` or with `cheaper`, none when cheap.
    pub(super) desired: u32,
    /// Slots without a worker below the highest that has one.
    pub(super) cheaped: BTreeSet<SlotId>,
    /// What the algorithm of `cheaper` remembers.
    pub(super) memory: Memory,
    /// The log knows that no worker is added for want of memory.
    pub(super) told_scarce: bool,
    /// When to look at the workers.
    pub(super) attention: Attention,
    pub(super) queue_watch: QueueWatch,
    pub(super) paused: bool,
    pub(super) watching: bool,
    pub(super) reload: Option<Reload>,
    /// The generation that serves was brought back: what is on disk is not its code.
    pub(super) restored: bool,
    /// A reload whose workers start once the old ones have left.
    pub(super) arrival: Option<Arrival>,
    pub(super) next_reload: u64,
    /// The highest ticket that somebody who asked for a reload holds.
    pub(super) ticket: u64,
    pub(super) journal: Journal,
    /// Why workers have ended.
    pub(super) causes: Causes,
    pub(super) setbacks: Setbacks,
    /// How the last worker of each slot ended.
    pub(super) ends: BTreeMap<SlotId, End>,
    /// Why the first start is given up.
    pub(super) failure: Option<String>,
    pub(super) roll: Option<Roll>,
    /// Those who are about to be killed.
    pub(super) sentences: Sentences,
    pub(super) harakiri: Harakiri,
    pub(super) promotion: Option<Promotion>,
    /// Workers that are to be replaced when there is room.
    pub(super) wishes: VecDeque<Wish>,
    /// Successors for these reasons that could not be started.
    pub(super) recycling_throttle: Throttle,
    pub(super) budget: BudgetWatch,
    /// Commands that have to wait for the start or for a reload to end.
    pub(super) deferred: VecDeque<Command>,
    /// Unknown children that died; their fork may be reported after their death.
    pub(super) early_exits: VecDeque<(Pid, Exit)>,
    pub(super) actions: Vec<Action>,
}

impl Master {
    /// A master that has not started anything.
    pub fn new(policy: Policy) -> Self {
        Master {
            desired: policy.scaling.at_start(policy.processes),
            cheaped: BTreeSet::new(),
            memory: Memory::default(),
            told_scarce: false,
            attention: Attention::default(),
            queue_watch: QueueWatch::default(),
            policy,
            phase: Phase::Starting,
            generation: 1,
            newest: 1,
            zygotes: BTreeMap::new(),
            former_zygotes: Vec::new(),
            zygote_throttle: Throttle::default(),
            workers: BTreeMap::new(),
            next_worker: 1,
            throttles: BTreeMap::new(),
            breaker: None,
            forks: BTreeMap::new(),
            paused: false,
            watching: false,
            reload: None,
            restored: false,
            arrival: None,
            next_reload: 1,
            ticket: 0,
            journal: Journal::default(),
            causes: Causes::default(),
            setbacks: Setbacks::default(),
            ends: BTreeMap::new(),
            failure: None,
            roll: None,
            sentences: Sentences::new(),
            harakiri: Harakiri::default(),
            promotion: None,
            wishes: VecDeque::new(),
            recycling_throttle: Throttle::default(),
            budget: BudgetWatch::default(),
            deferred: VecDeque::new(),
            early_exits: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// What the master as a whole is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The numbers that are in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The generation that serves.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// True while workers do not accept by order of the operator.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// True while clients are waited for in the place of workers (cheap mode).
    pub fn is_watching(&self) -> bool {
        self.watching
    }

    /// Workers there should be.
    pub fn desired(&self) -> u32 {
        self.desired
    }

    /// Why the first start was given up.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Why workers have ended since the instance started, and how many.
    pub fn causes(&self) -> &Causes {
        &self.causes
    }

    /// What was tried with workers and did not come about.
    pub fn setbacks(&self) -> Setbacks {
        self.setbacks
    }

    /// All workers, told to leave or not.
    pub fn workers(&self) -> impl Iterator<Item = (WorkerId, &Worker)> {
        self.workers.iter().map(|(id, worker)| (*id, worker))
    }

    /// All zygotes.
    pub fn zygotes(&self) -> impl Iterator<Item = (Generation, &Zygote)> {
        self.zygotes.iter().map(|(generation, zygote)| (*generation, zygote))
    }

    /// Advances by one event. Touches no process, no file and no clock.
    pub fn step(&mut self, now: Instant, event: Event) -> Vec<Action> {
        match event {
            Event::Start => self.start(now),
            Event::Command(command) => self.command(now, command),
            Event::ZygoteSpawned { generation, pid } => self.zygote_spawned(generation, pid),
            Event::ZygoteSpawnFailed { generation, reason } => {
                self.zygotes.remove(&generation);
                self.zygote_failed(now, generation, reason, EXIT_ERROR);
            }
            Event::ZygoteLoaded { generation, policy } => self.zygote_loaded(now, generation, policy),
            Event::ZygoteLoadFailed { generation, reason, code } => {
                self.zygote_load_failed(generation, reason, code)
            }
            Event::WorkerForked { worker, pid } => self.worker_forked(now, worker, pid),
            Event::WorkerForkFailed { worker, reason } => self.worker_fork_failed(now, worker, reason),
            Event::WorkerReady { worker } => self.worker_ready(now, worker),
            Event::WorkerLoadFailed { worker, reason } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.doomed = Some(reason);
                    worker.cause.get_or_insert(Cause::LoadFailed);
                }
            }
            Event::WorkerLeaves { worker, cause, reason } => self.replace_on_request(worker, cause, &reason),
            Event::WorkersMeasured { memory } => self.punish(now, &memory),
            Event::InstanceMeasured(measured) => self.keep_budget(now, &measured),
            Event::WorkerWarm { worker, obstacle } => self.worker_warm(worker, obstacle),
            Event::HeirReady { worker } => self.heir_ready(worker),
            Event::HeirUnfit { worker, reason } => self.heir_unfit(worker, &reason),
            Event::WorkerQuiet { worker } => {
                if let Some(worker) = self.workers.get_mut(&worker).filter(|it| it.is_leaving()) {
                    worker.quiet = true;
                }
            }
            Event::OutOfMemory { pid, evidence } => self.explain_end(pid, evidence),
            Event::ChildExited { pid, exit } => self.child_exited(now, pid, exit),
            Event::ConnectionWaiting => self.wake_from_cheap(now),
            Event::RequestBegun => self.attend(now),
            Event::Sampled(sample) => self.sampled(now, &sample),
            Event::SnapshotUnfit { generation, reason } => self.drop_snapshot(generation, &reason),
            Event::SnapshotsMeasured { bytes } => self.bound_snapshots(&bytes),
            Event::RequestsSeen { seen, waiting } => self.requests_seen(now, &seen, waiting),
            Event::EvidenceTaken { subject, overdue } => self.evidence_taken(now, subject, overdue),
            Event::ReExecFailed { reason } => {
                self.reexec_failed(reason);
                self.resume_deferred(now);
            }
            Event::Tick => self.tick(now),
        }
        self.repair(now);
        self.stay_awake(now);
        std::mem::take(&mut self.actions)
    }

    /// The next instant at which [`Event::Tick`] would change something.
    pub fn deadline(&self) -> Option<Instant> {
        let free = self.workers.iter().filter(|(id, _)| !self.is_condemned(**id));
        let workers = free.filter_map(|(_, worker)| match worker.stage {
            Stage::Starting { deadline } => worker.doomed.is_none().then_some(deadline),
            Stage::Ready { .. } => None,
            // Without a pid its zygote's word or end comes first.
            Stage::Leaving { kill_at, .. } => worker.pid.map(|_| kill_at),
        });
        let zygotes = self.zygotes.values().filter_map(|zygote| match zygote.stage {
            ZygoteStage::Loading { deadline } => Some(deadline),
            ZygoteStage::Ready | ZygoteStage::Asleep { .. } | ZygoteStage::Failed { .. } => None,
        });
        let zygote_retry = if self.zygotes.contains_key(&self.generation) || self.outlives_zygote() {
            None
        } else {
            self.zygote_throttle.not_before
        };
        let sentences = self.sentences.values().map(|sentence| sentence.until);
        let looks = self.next_request_look().into_iter().chain(sentences);
        let recycling = self.wishes_due().into_iter().chain(self.lifetime_due());
        let others = self.respawn_deadline().into_iter().chain(zygote_retry).chain(recycling);
        workers.chain(zygotes).chain(others).chain(looks).min()
    }

    fn start(&mut self, now: Instant) {
        let waiting: Vec<Command> = self.deferred.drain(..).collect();
        if self.phase == Phase::Starting && self.zygotes.is_empty() {
            self.spawn_zygote(now, self.generation);
        }
        if self.phase == Phase::Running {
            self.attend(now);
            self.watch_listeners(self.desired == 0);
        }
        for command in waiting {
            self.command(now, command);
        }
    }

    fn command(&mut self, now: Instant, command: Command) {
        if matches!(self.phase, Phase::Finished) {
            return;
        }
        match command {
            Command::Stop => self.stop(now, EXIT_OK, false),
            Command::StopNow => self.stop(now, EXIT_OK, true),
            Command::Statistics => self.push(Action::LogStatistics),
            Command::WorkerStatus => self.push(Action::LogWorkers),
            Command::ReopenLog => self.push(Action::ReopenLog),
            Command::RotateLog => self.push(Action::RotateLog),
            Command::RewritePidfiles => self.push(Action::RewritePidfiles),
            Command::FifoSlot(slot) => self.push(Action::FifoSlot(slot)),
            _ if matches!(self.phase, Phase::Stopping { .. }) => {
                self.log(Level::Warn, format!("{command:?} ignored: the server is stopping"));
            }
            Command::Refork => self.push(Action::Refork),
            Command::TogglePause => self.set_paused(now, !self.paused),
            Command::Pause => self.set_paused(now, true),
            Command::Resume => self.set_paused(now, false),
            Command::Reload | Command::BrutalReload => {
                self.try_again();
                self.request_reload(now, command);
            }
            Command::Rollback => self.request_rollback(now),
            Command::ReloadWorkers | Command::BrutalReloadWorkers | Command::ChainReload => {
                self.try_again();
                if self.phase == Phase::Running && self.reload.is_none() {
                    self.start_roll(command);
                } else {
                    self.defer(command);
                }
            }
            Command::MoreWorkers | Command::FewerWorkers | Command::GoCheap if self.replacing() => {
                self.defer(command);
            }
            // Without workers the start would not end.
            Command::GoCheap if self.phase == Phase::Starting => self.defer(command),
            Command::MoreWorkers => self.change_desired(1),
            Command::FewerWorkers => self.change_desired(-1),
            Command::GoCheap => self.go_cheap(now, Cause::Surplus),
        }
    }

    /// Keeps a command until the start or the reload under way is over.
    pub(super) fn defer(&mut self, command: Command) {
        let counts = matches!(command, Command::MoreWorkers | Command::FewerWorkers);
        if counts || self.deferred.back() != Some(&command) {
            self.deferred.push_back(command);
        }
    }

    /// Carries out what had to wait.
    pub(super) fn resume_deferred(&mut self, now: Instant) {
        while self.phase == Phase::Running && self.reload.is_none() {
            let Some(command) = self.deferred.pop_front() else { return };
            self.command(now, command);
        }
    }

    fn set_paused(&mut self, now: Instant, paused: bool) {
        if self.paused == paused {
            return;
        }
        self.paused = paused;
        let line = if self.paused {
            "*** PAUSE: workers accept no new connections; they wait in the listen queue (SIGTSTP or p resumes) ***"
        } else {
            "*** resuming workers ***"
        };
        self.log(Level::Info, line.to_owned());
        let workers: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| !worker.is_leaving()).map(|(id, _)| *id).collect();
        for worker in workers {
            self.push(if self.paused { Action::Pause { worker } } else { Action::Resume { worker } });
        }
        self.attend(now);
        self.watch_listeners_anew();
    }

    fn change_desired(&mut self, change: i64) {
        let before = self.desired;
        if change > 0 && before < self.policy.processes {
            self.want_one_more();
        } else if change < 0 && before > self.fewest() {
            self.want_one_less(None);
        }
        let (wanted, most) = (self.desired, self.policy.processes);
        let line = format!("{wanted} of {most} workers wanted");
        match wanted == before {
            true => self.log(Level::Warn, format!("{line}: cannot change")),
            false => self.log(Level::Info, line),
        }
        self.watch_listeners(self.desired == 0);
    }

    pub(super) fn go_cheap(&mut self, now: Instant, cause: Cause) {
        self.log(Level::Info, "going cheap: workers leave until the next connection".to_owned());
        self.want(0);
        // Not a hand-over: nobody would be there to take the connections.
        self.drain_those(now, DrainMode::Stop, cause, |_, _| true);
        self.watch_listeners(true);
    }

    fn wake_from_cheap(&mut self, now: Instant) {
        if self.watching && self.phase == Phase::Running && !self.paused {
            self.watch_listeners(false);
            self.want(self.policy.scaling.when_woken(self.policy.processes));
            self.log(Level::Info, "a connection waits: leaving cheap mode".to_owned());
            self.attend(now);
        }
    }

    pub(super) fn watch_listeners(&mut self, watch: bool) {
        if self.watching != watch {
            self.watching = watch;
            self.push(Action::WatchListeners(watch));
        }
    }

    /// Asks again for clients that wait: they are told of once, and may have come when that was of no use.
    pub(super) fn watch_listeners_anew(&mut self) {
        if self.watching {
            self.watch_listeners(false);
            self.watch_listeners(true);
        }
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn log(&mut self, level: Level, line: String) {
        self.push(Action::Log(level, line));
    }
}
