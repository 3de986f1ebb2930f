//! The master as a pure state machine: events in, actions out, time as an argument.
//!
//! No fork, no clock, no file in here. Desired state (`desired` workers of `generation`) and actual
//! state (`workers`, `zygotes`) are kept apart; [`Master::repair`] brings the second to the first
//! after every event. Reload and worker replacement live in [`super::reload`] and [`super::roll`].

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use log::Level;

use crate::channel::DrainMode;
use crate::config::Config;
use crate::control::Command;
use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::sys::process::{Exit, Pid, Signal};

use super::event::{Action, Event};
use super::reload::Reload;
use super::roll::Roll;
use super::workers::{Generation, SlotId, Stage, Throttle, Worker, WorkerId, Zygote, ZygoteStage};

/// Deaths in a row of a worker that never became ready after which a first start is given up.
const FIRST_START_ATTEMPTS: u32 = 3;
/// What a worker gets that is told to leave at once, before it is killed.
pub(super) const BRUTAL_PATIENCE: Duration = Duration::from_secs(1);
/// Exits of unknown processes that are remembered until their fork is reported.
const EARLY_EXITS: usize = 64;

/// The numbers the policy works with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Workers wanted.
    pub processes: u32,
    /// Requests a worker runs at a time, for the log line that operators know.
    pub threads: u32,
    /// How long a leaving worker may take.
    pub mercy: Duration,
    /// How long a zygote or worker may take to become ready.
    pub boot_timeout: Duration,
}

impl Policy {
    /// The policy that a configuration asks for.
    pub fn of(config: &Config) -> Self {
        Policy {
            processes: config.processes,
            threads: config.threads,
            mercy: config.worker_reload_mercy,
            boot_timeout: config.boot_timeout,
        }
    }
}

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
    pub(super) zygote_throttle: Throttle,
    pub(super) workers: BTreeMap<WorkerId, Worker>,
    pub(super) next_worker: WorkerId,
    pub(super) throttles: BTreeMap<SlotId, Throttle>,
    /// Workers forked per generation and slot; tells a first spawn from a respawn.
    pub(super) forks: BTreeMap<(Generation, SlotId), u64>,
    /// Workers wanted: `processes`, less after `-`, none when cheap.
    pub(super) desired: u32,
    pub(super) paused: bool,
    pub(super) watching: bool,
    pub(super) reload: Option<Reload>,
    pub(super) next_reload: u64,
    pub(super) roll: Option<Roll>,
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
            desired: policy.processes,
            policy,
            phase: Phase::Starting,
            generation: 1,
            newest: 1,
            zygotes: BTreeMap::new(),
            zygote_throttle: Throttle::default(),
            workers: BTreeMap::new(),
            next_worker: 1,
            throttles: BTreeMap::new(),
            forks: BTreeMap::new(),
            paused: false,
            watching: false,
            reload: None,
            next_reload: 1,
            roll: None,
            deferred: VecDeque::new(),
            early_exits: VecDeque::new(),
            actions: Vec::new(),
        }
    }

    /// What the master as a whole is doing.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The generation that serves.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// True while workers do not accept by order of the operator.
    pub fn is_paused(&self) -> bool {
        self.paused
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
            Event::ZygoteLoaded { generation } => self.zygote_loaded(now, generation),
            Event::ZygoteLoadFailed { generation, reason, code } => {
                self.zygote_load_failed(generation, reason, code)
            }
            Event::WorkerForked { worker, pid } => self.worker_forked(now, worker, pid),
            Event::WorkerForkFailed { worker, reason } => self.worker_fork_failed(now, worker, reason),
            Event::WorkerReady { worker } => self.worker_ready(now, worker),
            Event::WorkerLoadFailed { worker, reason } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.doomed = Some(reason);
                }
            }
            Event::WorkerLeaves { worker, reason } => self.replace_on_request(now, worker, &reason),
            Event::ChildExited { pid, exit } => self.child_exited(now, pid, exit),
            Event::ConnectionWaiting => self.wake_from_cheap(),
            Event::ReExecFailed { reason } => {
                self.reexec_failed(reason);
                self.resume_deferred(now);
            }
            Event::Tick => self.tick(now),
        }
        self.repair(now);
        std::mem::take(&mut self.actions)
    }

    /// The next instant at which [`Event::Tick`] would change something.
    pub fn deadline(&self) -> Option<Instant> {
        let workers = self.workers.values().filter_map(|worker| match worker.stage {
            Stage::Starting { deadline } => worker.doomed.is_none().then_some(deadline),
            Stage::Ready { .. } => None,
            Stage::Leaving { kill_at, .. } => Some(kill_at),
        });
        let zygotes = self.zygotes.values().filter_map(|zygote| match zygote.stage {
            ZygoteStage::Loading { deadline } => Some(deadline),
            ZygoteStage::Ready | ZygoteStage::Failed { .. } => None,
        });
        let respawns = (1..=self.desired).filter(|slot| self.candidate(*slot).is_none());
        let throttles = respawns.filter_map(|slot| self.throttles.get(&slot).and_then(|it| it.not_before));
        let zygote_retry =
            if self.zygotes.contains_key(&self.generation) { None } else { self.zygote_throttle.not_before };
        workers.chain(zygotes).chain(throttles).chain(zygote_retry).min()
    }

    fn start(&mut self, now: Instant) {
        let waiting: Vec<Command> = self.deferred.drain(..).collect();
        if self.phase == Phase::Starting && self.zygotes.is_empty() {
            self.spawn_zygote(now, self.generation);
        }
        if self.desired == 0 {
            self.watch_listeners(true);
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
            Command::Refork => self.push(Action::Refork),
            _ if matches!(self.phase, Phase::Stopping { .. }) => {
                self.log(Level::Warn, format!("{command:?} ignored: the server is stopping"));
            }
            Command::TogglePause => self.toggle_pause(),
            Command::Reload => self.request_reload(now, command),
            Command::BrutalReload => self.request_reload(now, command),
            Command::ReloadWorkers | Command::BrutalReloadWorkers | Command::ChainReload => {
                if self.phase == Phase::Running && self.reload.is_none() {
                    self.start_roll(now, command);
                } else {
                    self.defer(command);
                }
            }
            Command::MoreWorkers => self.change_desired(1),
            Command::FewerWorkers => self.change_desired(-1),
            Command::GoCheap => self.go_cheap(now),
        }
    }

    /// Keeps a command until the start or the reload under way is over.
    pub(super) fn defer(&mut self, command: Command) {
        if self.deferred.back() != Some(&command) {
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

    fn toggle_pause(&mut self) {
        self.paused = !self.paused;
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
    }

    fn change_desired(&mut self, change: i64) {
        let wanted = (i64::from(self.desired) + change).clamp(1, i64::from(self.policy.processes)) as u32;
        if wanted == self.desired {
            self.log(
                Level::Warn,
                format!("{wanted} of {} workers wanted: cannot change", self.policy.processes),
            );
        } else {
            self.desired = wanted;
            self.log(Level::Info, format!("{wanted} of {} workers wanted", self.policy.processes));
        }
        self.watch_listeners(false);
    }

    fn go_cheap(&mut self, now: Instant) {
        self.log(Level::Info, "going cheap: workers leave until the next connection".to_owned());
        self.desired = 0;
        // Not a hand-over: nobody would be there to take the connections.
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.drain(now, worker, DrainMode::Stop);
        }
        self.watch_listeners(true);
    }

    fn wake_from_cheap(&mut self) {
        if self.watching && self.phase == Phase::Running {
            self.watch_listeners(false);
            self.desired = self.policy.processes;
            self.log(Level::Info, "a connection waits: leaving cheap mode".to_owned());
        }
    }

    fn watch_listeners(&mut self, watch: bool) {
        if self.watching != watch {
            self.watching = watch;
            self.push(Action::WatchListeners(watch));
        }
    }

    // Zygotes.

    pub(super) fn spawn_zygote(&mut self, now: Instant, generation: Generation) {
        let stage = ZygoteStage::Loading { deadline: now + self.policy.boot_timeout };
        self.newest = self.newest.max(generation);
        self.zygotes.insert(generation, Zygote { pid: None, stage });
        self.push(Action::SpawnZygote { generation });
    }

    fn zygote_spawned(&mut self, generation: Generation, pid: Pid) {
        match self.zygotes.get_mut(&generation) {
            Some(zygote) => zygote.pid = Some(pid),
            // Dismissed in the same breath as it was asked for.
            None => self.push(Action::DismissZygote { generation, pid: Some(pid) }),
        }
    }

    fn zygote_loaded(&mut self, now: Instant, generation: Generation) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        zygote.stage = ZygoteStage::Ready;
        if generation == self.generation {
            self.zygote_throttle = Throttle::default();
        }
        if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            self.surge(now);
        }
    }

    /// The zygote has said why; its exit follows and is acted upon.
    fn zygote_load_failed(&mut self, generation: Generation, reason: String, code: u8) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        zygote.stage = ZygoteStage::Failed { reason, code };
        if let Some(pid) = zygote.pid {
            self.push(Action::Kill { pid, signal: Signal::SIGKILL });
        }
    }

    fn zygote_exited(&mut self, now: Instant, generation: Generation, exit: Exit) {
        let Some(zygote) = self.zygotes.remove(&generation) else { return };
        self.push(Action::DismissZygote { generation, pid: None });
        match zygote.stage {
            ZygoteStage::Failed { reason, code } => self.zygote_failed(now, generation, reason, code),
            ZygoteStage::Loading { .. } => {
                let reason = format!("the zygote ended with {exit} before the application was loaded");
                self.zygote_failed(now, generation, reason, EXIT_ERROR);
            }
            ZygoteStage::Ready if self.stopping() => {}
            ZygoteStage::Ready => {
                self.zygote_failed(now, generation, format!("the zygote ended with {exit}"), EXIT_ERROR);
            }
        }
    }

    fn zygote_failed(&mut self, now: Instant, generation: Generation, reason: String, code: u8) {
        if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            self.refuse_reload(now, reason);
        } else if generation == self.generation && self.phase == Phase::Starting {
            self.log(Level::Error, format!("cannot start: {reason}"));
            self.stop(now, code, true);
        } else if generation == self.generation && !self.stopping() {
            // The workers serve on; without a zygote a dead one could not be replaced.
            self.zygote_throttle.record_death(now, None);
            let delay = self.zygote_throttle.delay();
            self.log(
                Level::Error,
                format!("zygote of generation {generation} lost: {reason}; its workers serve on, a new one is started in {} ms", delay.as_millis()),
            );
        }
    }

    // Workers.

    /// The worker of the serving generation that fills a slot.
    fn candidate(&self, slot: SlotId) -> Option<WorkerId> {
        let fills = |worker: &Worker| {
            worker.slot == slot && worker.generation == self.generation && !worker.is_leaving()
        };
        self.workers.iter().find(|(_, worker)| fills(worker)).map(|(id, _)| *id)
    }

    pub(super) fn spawn_worker(
        &mut self,
        now: Instant,
        slot: SlotId,
        generation: Generation,
        replaces: Option<WorkerId>,
    ) {
        let worker = self.next_worker;
        self.next_worker += 1;
        let cell = (0..)
            .find(|cell| self.workers.values().all(|it| it.cell != *cell))
            .expect("cells are unbounded here");
        let stage = Stage::Starting { deadline: now + self.policy.boot_timeout };
        self.workers
            .insert(worker, Worker { slot, cell, generation, pid: None, stage, replaces, doomed: None });
        self.push(Action::SpawnWorker { worker, slot, cell, generation, paused: self.paused });
    }

    fn worker_forked(&mut self, now: Instant, worker: WorkerId, pid: Pid) {
        if let Some(position) = self.early_exits.iter().position(|(early, _)| *early == pid) {
            let (_, exit) = self.early_exits.remove(position).expect("position was just found");
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.pid = Some(pid);
                self.child_exited(now, pid, exit);
            }
            return;
        }
        let Some(entry) = self.workers.get_mut(&worker) else {
            // It was given up while the zygote forked it.
            return self.push(Action::Kill { pid, signal: Signal::SIGKILL });
        };
        entry.pid = Some(pid);
        let (slot, generation) = (entry.slot, entry.generation);
        let forks = self.forks.entry((generation, slot)).or_default();
        *forks += 1;
        let line = match *forks {
            1 => format!("spawned appserver worker {slot} (pid: {pid}, cores: {})", self.policy.threads),
            times => {
                format!("Respawned appserver worker {slot} (new pid: {pid}, respawned {} times)", times - 1)
            }
        };
        self.log(Level::Info, line);
    }

    fn worker_fork_failed(&mut self, now: Instant, worker: WorkerId, reason: String) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let slot = entry.slot;
        self.log(Level::Error, format!("worker {slot} could not be forked: {reason}; trying again"));
        self.lose_worker(now, worker, None, Some(format!("it could not be forked: {reason}")));
    }

    fn worker_ready(&mut self, now: Instant, worker: WorkerId) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        if !matches!(entry.stage, Stage::Starting { .. }) {
            return;
        }
        entry.stage = Stage::Ready { since: now };
        let generation = entry.generation;
        if let Some(old) = entry.replaces.take() {
            self.replacement_ready(now, old);
        }
        if self.reload.as_ref().is_some_and(|reload| reload.generation == generation) {
            self.check_surge(now);
        } else if self.phase == Phase::Starting && self.all_ready() {
            self.phase = Phase::Running;
            self.push(Action::FirstGenerationServes);
            self.resume_deferred(now);
        }
    }

    fn all_ready(&self) -> bool {
        (1..=self.desired).all(|slot| self.candidate(slot).is_some_and(|id| self.workers[&id].is_ready()))
    }

    /// Tells a worker to leave; one that is already leaving only gets less time.
    pub(super) fn drain(&mut self, now: Instant, worker: WorkerId, mode: DrainMode) {
        let patience = if mode == DrainMode::Now { BRUTAL_PATIENCE } else { self.policy.mercy };
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let stage = Stage::Leaving { since: now, kill_at: now + patience, mode };
        match (entry.stage, entry.pid) {
            (Stage::Starting { .. }, Some(pid)) => {
                // It serves nobody yet, and may be deep in the application's start.
                entry.stage = stage;
                self.push(Action::Kill { pid, signal: Signal::SIGKILL });
            }
            (Stage::Starting { .. }, None) => {
                let cell = entry.cell;
                self.workers.remove(&worker);
                self.push(Action::Retire { worker, cell });
            }
            (Stage::Ready { .. }, _) => {
                entry.stage = stage;
                self.push(Action::Drain { worker, mode, patience });
            }
            (Stage::Leaving { kill_at, .. }, _) if mode != DrainMode::Handover => {
                entry.stage = Stage::Leaving { since: now, kill_at: kill_at.min(now + patience), mode };
                self.push(Action::Drain { worker, mode, patience });
            }
            (Stage::Leaving { .. }, _) => {}
        }
    }

    fn child_exited(&mut self, now: Instant, pid: Pid, exit: Exit) {
        let zygote = self
            .zygotes
            .iter()
            .find(|(_, zygote)| zygote.pid == Some(pid))
            .map(|(generation, _)| *generation);
        if let Some(generation) = zygote {
            return self.zygote_exited(now, generation, exit);
        }
        match self.workers.iter().find(|(_, worker)| worker.pid == Some(pid)).map(|(id, _)| *id) {
            Some(worker) => self.lose_worker(now, worker, Some((pid, exit)), None),
            None => {
                if self.early_exits.len() == EARLY_EXITS {
                    self.early_exits.pop_front();
                }
                self.early_exits.push_back((pid, exit));
            }
        }
    }

    fn lose_worker(
        &mut self,
        now: Instant,
        id: WorkerId,
        death: Option<(Pid, Exit)>,
        reason: Option<String>,
    ) {
        let Some(worker) = self.workers.remove(&id) else { return };
        let reason = worker.doomed.clone().or(reason);
        match (worker.stage, death) {
            (Stage::Leaving { since, .. }, Some((pid, exit))) => {
                let seconds = now.saturating_duration_since(since).as_secs();
                let (slot, generation) = (worker.slot, worker.generation);
                self.log(
                    Level::Info,
                    format!("worker {slot} (pid: {pid}, generation {generation}) buried after {seconds} seconds, {exit}"),
                );
            }
            (_, Some((pid, exit))) => self.push(Action::ReportDeath {
                worker: id,
                slot: worker.slot,
                cell: worker.cell,
                pid,
                exit,
                reason: reason.clone(),
            }),
            (_, None) => {}
        }
        self.push(Action::Retire { worker: id, cell: worker.cell });
        if worker.is_leaving() || self.stopping() {
            return;
        }
        let never_ready = !worker.is_ready();
        let reason = reason.unwrap_or_else(|| match death {
            Some((_, exit)) => format!("worker {} ended with {exit} before it was ready", worker.slot),
            None => format!("worker {} could not be started", worker.slot),
        });
        if self.reload.as_ref().is_some_and(|reload| reload.generation == worker.generation) {
            if never_ready {
                self.refuse_reload(now, reason);
            } else {
                self.spawn_worker(now, worker.slot, worker.generation, None);
            }
            return;
        }
        if worker.replaces.is_some() {
            self.abort_roll(&reason);
            return;
        }
        let lived = match worker.stage {
            Stage::Ready { since } => Some(now.saturating_duration_since(since)),
            Stage::Starting { .. } | Stage::Leaving { .. } => None,
        };
        let throttle = self.throttles.entry(worker.slot).or_default();
        throttle.record_death(now, lived);
        let (short_lives, delay) = (throttle.short_lives(), throttle.delay());
        if self.phase == Phase::Starting && never_ready && short_lives >= FIRST_START_ATTEMPTS {
            self.log(Level::Error, format!("cannot start: {reason}"));
            self.stop(now, EXIT_ERROR, true);
        } else if !delay.is_zero() {
            let (slot, milliseconds) = (worker.slot, delay.as_millis());
            self.log(
                Level::Warn,
                format!("worker respawning too fast !!! worker {slot} died {short_lives} times in a row, next try in {milliseconds} ms"),
            );
        }
    }

    // Time.

    fn tick(&mut self, now: Instant) {
        let overdue: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in overdue {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            let (slot, pid) = (worker.slot, worker.pid);
            match (&mut worker.stage, pid) {
                (Stage::Starting { deadline }, Some(pid)) if now >= *deadline && worker.doomed.is_none() => {
                    let seconds = self.policy.boot_timeout.as_secs_f32();
                    worker.doomed =
                        Some(format!("worker {slot} was not ready within {seconds} s (boot-timeout)"));
                    self.push(Action::Kill { pid, signal: Signal::SIGKILL });
                }
                (Stage::Starting { deadline }, None) if now >= *deadline => {
                    // The zygote never answered: it is stuck, and no worker can be had from it.
                    let generation = worker.generation;
                    self.lose_worker(now, id, None, Some("the zygote does not fork workers".to_owned()));
                    self.dismiss_zygote(generation);
                }
                (Stage::Leaving { kill_at, .. }, Some(pid)) if now >= *kill_at => {
                    *kill_at = now + BRUTAL_PATIENCE;
                    self.log(
                        Level::Warn,
                        format!("worker {slot} (pid: {pid}) is taking too much time to die...NO MERCY !!!"),
                    );
                    self.push(Action::Kill { pid, signal: Signal::SIGKILL });
                }
                _ => {}
            }
        }
        let mut slow = Vec::new();
        for zygote in self.zygotes.values_mut() {
            if let (ZygoteStage::Loading { deadline }, Some(pid)) = (&zygote.stage, zygote.pid)
                && now >= *deadline
            {
                let seconds = self.policy.boot_timeout.as_secs_f32();
                let reason = format!("the application was not loaded within {seconds} s (boot-timeout)");
                zygote.stage = ZygoteStage::Failed { reason, code: EXIT_ERROR };
                slow.push(pid);
            }
        }
        for pid in slow {
            self.push(Action::Kill { pid, signal: Signal::SIGKILL });
        }
    }

    // Desired against actual.

    fn repair(&mut self, now: Instant) {
        match self.phase {
            Phase::Starting | Phase::Running => {}
            Phase::Stopping { code, .. } => return self.finish_if_alone(code),
            Phase::ReExecuting | Phase::Finished => return,
        }
        match self.zygotes.get(&self.generation).map(|zygote| &zygote.stage) {
            Some(ZygoteStage::Ready) => {}
            Some(_) => return,
            None if self.zygote_throttle.allows(now) => return self.spawn_zygote(now, self.generation),
            None => return,
        }
        for slot in 1..=self.desired {
            let allowed = self.throttles.get(&slot).is_none_or(|throttle| throttle.allows(now));
            if self.candidate(slot).is_none() && allowed {
                self.spawn_worker(now, slot, self.generation, None);
            }
        }
        self.drain_surplus(now);
    }

    fn drain_surplus(&mut self, now: Instant) {
        let surplus = |worker: &Worker| {
            worker.slot > self.desired && worker.generation == self.generation && !worker.is_leaving()
        };
        let workers: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| surplus(worker)).map(|(id, _)| *id).collect();
        for worker in workers {
            self.drain(now, worker, DrainMode::Handover);
        }
    }

    // The end.

    pub(super) fn stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. } | Phase::Finished)
    }

    /// Begins to leave; asked again, it waits for less each time.
    pub(super) fn stop(&mut self, now: Instant, code: u8, now_please: bool) {
        let (again, forced, code) = match self.phase {
            Phase::Finished => return,
            Phase::Stopping { forced, code } => (true, forced, code),
            _ => (false, false, code),
        };
        if again && forced {
            self.log(Level::Warn, "asked to stop once more: killing what is left".to_owned());
            let pids: Vec<Pid> = self.workers.values().filter_map(|worker| worker.pid).collect();
            for pid in pids {
                self.push(Action::Kill { pid, signal: Signal::SIGKILL });
            }
            return;
        }
        let force = again || now_please;
        self.log(
            Level::Info,
            match (again, force) {
                (true, _) => "asked to stop again: requests in flight are cut".to_owned(),
                (false, true) => "stopping now...killing workers...".to_owned(),
                (false, false) => format!(
                    "graceful shutdown triggered...killing workers... (requests in flight get {} s)",
                    self.policy.mercy.as_secs()
                ),
            },
        );
        self.phase = Phase::Stopping { code, forced: force };
        self.reload = None;
        self.roll = None;
        self.watch_listeners(false);
        for generation in self.zygotes.keys().copied().collect::<Vec<_>>() {
            self.dismiss_zygote(generation);
        }
        let mode = if force { DrainMode::Now } else { DrainMode::Stop };
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.drain(now, worker, mode);
        }
    }

    /// Kills a zygote; it stays in the table until it is reaped.
    pub(super) fn dismiss_zygote(&mut self, generation: Generation) {
        let Some(zygote) = self.zygotes.get_mut(&generation) else { return };
        let pid = zygote.pid;
        if pid.is_none() {
            self.zygotes.remove(&generation);
        } else {
            zygote.stage = ZygoteStage::Failed { reason: "dismissed".to_owned(), code: EXIT_ERROR };
        }
        self.push(Action::DismissZygote { generation, pid });
    }

    fn finish_if_alone(&mut self, code: u8) {
        if self.workers.is_empty() && self.zygotes.is_empty() {
            self.phase = Phase::Finished;
            self.push(Action::Exit(code));
        }
    }

    pub(super) fn push(&mut self, action: Action) {
        self.actions.push(action);
    }

    pub(super) fn log(&mut self, level: Level, line: String) {
        self.push(Action::Log(level, line));
    }
}
