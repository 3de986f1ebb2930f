//! ● What becomes of workers: spawned, ready, drained, overdue, dead.

use std::time::{Duration, Instant};

use log::Level;

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::error::EXIT_ERROR;
use crate::sys::process::{Exit, Pid, Signal};

use super::event::Action;
use super::killing::{Subject, Why};
use super::state::{Master, Phase};
use super::workers::{Generation, SlotId, Stage, Worker, WorkerId, ZygoteStage};

/// Deaths in a row of a worker that never became ready after which a first start is given up, and
/// those who wait for something better are told.
pub(super) const HOPELESS: u32 = 3;
/// What a worker gets that is told to leave at once, before it is killed.
const BRUTAL_PATIENCE: Duration = Duration::from_secs(1);
/// A worker that is killed for its memory before that may be too large from the start: then to replace it at
/// once is a loop.
const HARMLESS_LIFE: Duration = Duration::from_secs(60);
/// Exits of unknown processes that are remembered until their fork is reported.
const EARLY_EXITS: usize = 64;

impl Master {
    /// The worker of the serving generation that fills a slot.
    pub(super) fn candidate(&self, slot: SlotId) -> Option<WorkerId> {
        self.holder(self.generation, slot)
    }

    /// The worker of a generation that fills a slot.
    pub(super) fn holder(&self, generation: Generation, slot: SlotId) -> Option<WorkerId> {
        let fills =
            |worker: &Worker| worker.slot == slot && worker.generation == generation && !worker.is_leaving();
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
        self.workers.insert(
            worker,
            Worker {
                slot,
                cell,
                generation,
                pid: None,
                stage,
                replaces,
                doomed: None,
                cause: None,
                wish: None,
                quiet: false,
                warm: false,
            },
        );
        self.push(Action::SpawnWorker { worker, slot, cell, generation, paused: self.paused });
    }

    pub(super) fn worker_forked(&mut self, now: Instant, worker: WorkerId, pid: Pid) {
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
        if let Stage::Leaving { kill_at, .. } = &mut entry.stage {
            *kill_at = now + BRUTAL_PATIENCE;
        }
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

    pub(super) fn worker_fork_failed(&mut self, now: Instant, worker: WorkerId, reason: String) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let slot = entry.slot;
        self.log(Level::Error, format!("worker {slot} could not be forked: {reason}; trying again"));
        self.expect_end(worker, Cause::ForkFailed);
        self.lose_worker(now, worker, None, Some(format!("it could not be forked: {reason}")));
    }

    pub(super) fn worker_ready(&mut self, now: Instant, worker: WorkerId) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        match &mut entry.stage {
            Stage::Starting { .. } => {}
            // Told to leave while it started: now it hears, and has the time of those that served.
            Stage::Leaving { since, kill_at, mode } => {
                if *mode != DrainMode::Now {
                    *kill_at = *since + self.policy.mercy;
                }
                return;
            }
            Stage::Ready { .. } => return,
        }
        entry.stage = Stage::Ready { since: now };
        if let Some(old) = entry.replaces.take() {
            self.replacement_ready(now, old);
        }
        if self.phase == Phase::Starting && self.all_ready() {
            self.serve(now);
        }
    }

    /// The first generation is complete.
    pub(super) fn serve(&mut self, now: Instant) {
        self.phase = Phase::Running;
        self.push(Action::FirstGenerationServes);
        self.watch_listeners(self.desired == 0);
        self.attend(now);
        self.resume_deferred(now);
    }

    pub(super) fn all_ready(&self) -> bool {
        self.wanted_slots().all(|slot| self.candidate(slot).is_some_and(|id| self.workers[&id].is_ready()))
    }

    /// Tells all workers to leave of which that is true.
    pub(super) fn drain_those(
        &mut self,
        now: Instant,
        mode: DrainMode,
        cause: Cause,
        leaves: impl Fn(&Master, &Worker) -> bool,
    ) {
        let leaving: Vec<WorkerId> =
            self.workers.iter().filter(|(_, it)| leaves(self, it)).map(|(id, _)| *id).collect();
        for worker in leaving {
            self.drain(now, worker, mode, cause);
        }
    }

    /// Notes why a worker leaves or is about to die; what was known before counts.
    pub(super) fn expect_end(&mut self, worker: WorkerId, cause: Cause) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.cause.get_or_insert(cause);
        }
    }

    /// Tells a worker to leave; one that is already leaving only gets less time.
    pub(super) fn drain(&mut self, now: Instant, worker: WorkerId, mode: DrainMode, cause: Cause) {
        let patience = if mode == DrainMode::Now { BRUTAL_PATIENCE } else { self.policy.mercy };
        self.expect_end(worker, cause);
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let stage = Stage::Leaving { since: now, kill_at: now + patience, mode };
        match (entry.stage, entry.pid) {
            (Stage::Starting { .. }, Some(pid)) if mode == DrainMode::Now => {
                entry.stage = stage;
                self.push(Action::Kill { pid, signal: Signal::SIGKILL });
            }
            (Stage::Starting { .. }, _) => {
                // It may be deep in the application's start and hear nothing, or have taken its first
                // connection while its word is on the way: see `worker_ready`.
                entry.stage = Stage::Leaving { since: now, kill_at: now + BRUTAL_PATIENCE, mode };
                self.push(Action::Drain { worker, mode, patience });
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

    /// True for a worker or zygote that has no reason to end, as far as is known.
    pub fn is_unexplained(&self, pid: Pid) -> bool {
        self.workers.values().any(|it| it.pid == Some(pid) && it.cause.is_none())
            || self.zygotes.values().any(|it| it.pid == Some(pid) && !it.is_dismissed())
    }

    /// The kernel has killed it; its end follows.
    pub(super) fn explain_end(&mut self, pid: Pid, evidence: String) {
        if let Some(worker) = self.workers.values_mut().find(|it| it.pid == Some(pid)) {
            worker.cause.get_or_insert(Cause::OutOfMemory);
            worker.doomed.get_or_insert(evidence);
        } else if let Some(zygote) = self.zygotes.values_mut().find(|it| it.pid == Some(pid))
            && !zygote.is_asleep()
        {
            let reason = format!("the zygote was {evidence}");
            zygote.stage = ZygoteStage::Failed { reason, code: EXIT_ERROR };
        }
    }

    pub(super) fn child_exited(&mut self, now: Instant, pid: Pid, exit: Exit) {
        if let Some(position) = self.former_zygotes.iter().position(|it| *it == pid) {
            self.former_zygotes.swap_remove(position);
            return;
        }
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

    pub(super) fn lose_worker(
        &mut self,
        now: Instant,
        id: WorkerId,
        death: Option<(Pid, Exit)>,
        reason: Option<String>,
    ) {
        let Some(mut worker) = self.workers.remove(&id) else { return };
        self.forget_sentence(Subject::Worker(id));
        self.forget_requests(id);
        let reason = worker.doomed.clone().or(reason);
        let by_itself = || death.map_or(Cause::ForkFailed, |(_, exit)| Cause::of(exit, worker.is_ready()));
        let cause = worker.cause.unwrap_or_else(by_itself);
        worker.cause = Some(cause);
        self.causes.count(cause);
        let exit = death.map(|(_, exit)| exit);
        self.note_end(now, worker.slot, cause, exit, reason.as_deref());
        match (worker.stage, death) {
            (Stage::Leaving { since, .. }, Some((pid, exit))) => {
                let seconds = now.saturating_duration_since(since).as_secs();
                let (slot, generation) = (worker.slot, worker.generation);
                self.log(
                    Level::Info,
                    format!("worker {slot} (pid: {pid}, generation {generation}) buried after {seconds} seconds, {exit} ({cause})"),
                );
            }
            (Stage::Ready { .. }, Some((pid, Exit::Code(0)))) => {
                let slot = worker.slot;
                self.log(
                    Level::Info,
                    format!("worker {slot} (pid: {pid}) has left in good order; starting the next"),
                );
            }
            (_, Some((pid, exit))) => self.push(Action::ReportDeath {
                worker: id,
                slot: worker.slot,
                cell: worker.cell,
                pid,
                exit,
                cause,
                reason: reason.clone(),
            }),
            (_, None) => {}
        }
        self.push(Action::Retire { worker: id, cell: worker.cell });
        if worker.is_leaving() || self.stopping() {
            return;
        }
        // It may have been the one to tell of a request.
        self.attend(now);
        let never_ready = !worker.is_ready();
        let reason = reason.unwrap_or_else(|| match death {
            Some((_, exit)) => format!("worker {} ended with {exit} before it was ready", worker.slot),
            None => format!("worker {} could not be started", worker.slot),
        });
        if worker.generation != self.generation {
            if never_ready && self.is_surging(worker.generation) {
                self.refuse_reload(now, reason);
            }
            return;
        }
        if let Some(old) = worker.replaces {
            self.replacement_failed(now, old, &reason);
            if self.workers.get(&old).is_some_and(Worker::is_ready) {
                return;
            }
            // The slot is empty: its next worker is one like any other.
        }
        let lived = match worker.stage {
            // Told by SIGTERM, not dead by accident: nothing that needs slowing down.
            Stage::Ready { .. } if matches!(death, Some((_, Exit::Code(0)))) => Some(Duration::MAX),
            Stage::Ready { since } => Some(now.saturating_duration_since(since)),
            Stage::Starting { .. } | Stage::Leaving { .. } => None,
        };
        let lived = lived.filter(|lived| cause != Cause::EvilMemory || *lived >= HARMLESS_LIFE);
        self.slow_down(now, id, &worker, lived);
        if never_ready {
            let short_lives = self.short_lives(worker.slot);
            self.arrival_fails(short_lives, &reason);
            if short_lives >= HOPELESS {
                self.give_up_restoring(now);
            }
            if self.phase == Phase::Starting
                && let Some(code) = self.hopeless_start(worker.slot, cause)
            {
                return self.give_up_start(now, reason, code);
            }
        }
        self.check_no_workers(now, worker.slot);
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.tick_sentences(now);
        self.tick_harakiri(now);
        let overdue: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in overdue {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            let (slot, pid) = (worker.slot, worker.pid);
            match (&mut worker.stage, pid) {
                (Stage::Starting { deadline }, Some(_)) if now >= *deadline && worker.doomed.is_none() => {
                    let seconds = self.policy.boot_timeout.as_secs_f32();
                    worker.doomed =
                        Some(format!("worker {slot} was not ready within {seconds} s (boot-timeout)"));
                    worker.cause = Some(Cause::BootTimeout);
                    self.condemn(now, Subject::Worker(id), Why::BootTimeout);
                }
                (Stage::Starting { deadline }, None) if now >= *deadline => {
                    // The zygote never answered: it is stuck, and no worker can be had from it.
                    let generation = worker.generation;
                    let line = format!(
                        "the zygote of generation {generation} does not fork workers; it is replaced"
                    );
                    self.log(Level::Error, line);
                    self.lose_worker(now, id, None, Some("the zygote does not fork workers".to_owned()));
                    self.dismiss_zygote(generation);
                }
                (Stage::Leaving { kill_at, .. }, Some(_)) if now >= *kill_at => {
                    self.condemn(now, Subject::Worker(id), Why::Mercy);
                }
                _ => {}
            }
        }
        let mut slow = Vec::new();
        for (generation, zygote) in &mut self.zygotes {
            if let (ZygoteStage::Loading { deadline }, Some(_)) = (&zygote.stage, zygote.pid)
                && now >= *deadline
            {
                let seconds = self.policy.boot_timeout.as_secs_f32();
                let reason = format!("the application was not loaded within {seconds} s (boot-timeout)");
                zygote.stage = ZygoteStage::Failed { reason, code: self.policy.no_app_code() };
                slow.push(*generation);
            }
        }
        for generation in slow {
            self.condemn(now, Subject::Zygote(generation), Why::BootTimeout);
        }
    }
}
