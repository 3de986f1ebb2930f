//! The master's word to the service manager, where one is there.

use std::time::Instant;

use log::{debug, warn};
use sd_notify::NotifyState;

use crate::boot::StartContext;
use crate::channel::ToWorker;
use crate::service::manager::{self, Manager};
use crate::service::notice::{self, Crew, Notices, View};
use crate::service::watchdog::{Beat, Progress, Watchdog};
use crate::sys::process;

use super::Runner;
use super::answer::Answer;
use super::state::{Master, Phase};
use super::workers::{Stage, WorkerId, ZygoteStage};

/// What this image has told it, and how.
pub(super) struct Service {
    manager: Manager,
    notices: Notices,
    watchdog: Option<Watchdog>,
    /// How many descriptors it keeps.
    store: usize,
}

impl Service {
    /// The manager that has started this service, if it wants to be told anything.
    pub(super) fn of(start: &StartContext) -> Option<Self> {
        let period = manager::watchdog_period(start);
        if let Some(period) = period {
            debug!("the service manager expects a sign of life within {} s", period.as_secs_f32());
        }
        Some(Service {
            manager: Manager::of(start)?,
            notices: Notices::new(process::this().as_raw().cast_unsigned()),
            watchdog: period.map(Watchdog::new),
            store: manager::store_size(start),
        })
    }

    /// The way to the descriptor store, and its size; `None` when there is none.
    pub(super) fn store(&mut self) -> Option<(&mut Manager, usize)> {
        (self.store > 0).then_some((&mut self.manager, self.store))
    }

    fn give_sign_of_life(&mut self) {
        self.manager.send(notice::alive());
    }
}

impl Runner {
    /// Tells the service manager what has changed.
    pub(super) fn inform(&mut self, answer: &Answer) {
        let Some(service) = &mut self.service else { return };
        let now = Instant::now();
        let config = &self.holdings.config;
        let view = View {
            answer,
            crew: crew(&self.machine, config.release.as_deref()),
            failure: self.machine.failure(),
            falls_back: config.fallback_config.is_some(),
            patience: patience(&self.machine),
        };
        let monotonic = match NotifyState::monotonic_usec_now() {
            Ok(NotifyState::MonotonicUsec(time)) => time,
            _ => return warn!("the service manager is not told anything: there is no monotonic clock"),
        };
        let Some((datagram, ready)) = service.notices.follow(&view, now, monotonic) else { return };
        service.manager.send(datagram);
        if ready && let Some(watchdog) = &mut service.watchdog {
            // At once: a manager may count from the last sign that the image before has given.
            watchdog.given(now);
            service.give_sign_of_life();
        }
    }

    /// When [`Runner::tick_service`] is due.
    pub(super) fn service_deadline(&self) -> Option<Instant> {
        let service = self.service.as_ref()?;
        let watchdog = service.watchdog.as_ref().and_then(Watchdog::deadline);
        watchdog.into_iter().chain(service.manager.deadline()).min()
    }

    /// Gives signs of life, and sends what could not be sent before.
    pub(super) fn tick_service(&mut self, now: Instant) {
        if self.service_deadline().is_none_or(|at| now < at) {
            return;
        }
        let progress = self.progress();
        let Some(service) = &mut self.service else { return };
        if service.manager.deadline().is_some_and(|at| now >= at) {
            service.manager.flush();
        }
        match service.watchdog.as_mut().and_then(|watchdog| watchdog.tick(now, progress)) {
            Some(Beat::Alive) => service.give_sign_of_life(),
            Some(Beat::Ask) => self.ask_for_signs_of_life(),
            None => {}
        }
    }

    /// A worker has answered, or begins to serve.
    pub(super) fn hear_sign_of_life(&mut self, worker: WorkerId) {
        let Some(service) = &mut self.service else { return };
        let Some(watchdog) = &mut service.watchdog else { return };
        if watchdog.hear(Instant::now(), worker) {
            service.give_sign_of_life();
        }
    }

    /// A worker is gone: it will not answer.
    pub(super) fn forget_sign_of_life(&mut self, worker: WorkerId) {
        if let Some(watchdog) = self.service.as_mut().and_then(|service| service.watchdog.as_mut()) {
            watchdog.forget(worker);
        }
    }

    /// The last word of this image: its successor may take a moment to say its first.
    pub(super) fn sign_before_exec(&mut self) {
        let watched = self.service.as_mut().filter(|service| service.watchdog.is_some());
        if let Some(service) = watched {
            service.give_sign_of_life();
        }
    }

    fn ask_for_signs_of_life(&mut self) {
        let ready: Vec<WorkerId> =
            self.machine.workers().filter(|(_, it)| it.is_ready()).map(|(id, _)| id).collect();
        for worker in ready {
            let watchdog = self.service.as_mut().and_then(|service| service.watchdog.as_mut());
            let Some(watchdog) = watchdog else { return };
            if watchdog.ask(worker) {
                self.tell(worker, &ToWorker::Ping);
            } else if watchdog.is_silent(worker) {
                self.witness(worker);
            }
        }
    }

    fn progress(&self) -> Progress {
        let ready = self.machine.workers().filter(|(_, it)| it.is_ready());
        let requests = ready.map(|(_, it)| self.holdings.scoreboard.cell(it.cell).requests()).sum();
        Progress { requests, excused: excused(&self.machine) }
    }
}

/// True while no worker can be asked for a sign of life, and none has to: the deadlines of a start and of
/// the last requests bound that time, and a server without workers by order waits for a connection.
fn excused(machine: &Master) -> bool {
    let stopping = matches!(machine.phase(), Phase::Stopping { .. } | Phase::Finished);
    let start = machine.workers().any(|(_, it)| it.is_starting())
        || machine.zygotes().any(|(_, it)| matches!(it.stage, ZygoteStage::Loading { .. }));
    let served = machine.workers().any(|(_, it)| it.is_ready());
    stopping || (!served && (start || machine.desired() == 0))
}

fn crew<'a>(machine: &Master, release: Option<&'a str>) -> Crew<'a> {
    let mut crew =
        Crew { wanted: machine.desired(), paused: machine.is_paused(), release, ..Crew::default() };
    for (_, worker) in machine.workers().filter(|(_, it)| it.generation == machine.generation()) {
        crew.ready += u32::from(worker.is_ready());
        crew.starting += u32::from(worker.is_starting());
    }
    crew
}

/// When the master's patience ends with what starts or, in a stop or with `reload-mode = drain`, with what
/// leaves.
fn patience(machine: &Master) -> Option<Instant> {
    let stopping = matches!(machine.phase(), Phase::Stopping { .. });
    let waited_for = stopping || machine.waits_for_old_workers();
    let workers = machine.workers().filter_map(|(_, worker)| match worker.stage {
        Stage::Starting { deadline } if !stopping => Some(deadline),
        Stage::Leaving { kill_at, .. } if waited_for => Some(kill_at),
        Stage::Starting { .. } | Stage::Ready { .. } | Stage::Leaving { .. } => None,
    });
    let zygotes = machine.zygotes().filter_map(|(_, zygote)| match zygote.stage {
        ZygoteStage::Loading { deadline } if !stopping => Some(deadline),
        _ => None,
    });
    workers.chain(zygotes).max()
}
