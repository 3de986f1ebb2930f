//! Carrying out what the state machine asks for. Each action is a short arm; outcomes are events.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{error, info, log, warn};

use crate::channel::{self, DrainMode, ToWorker, ToZygote, WorkerChannel};
use crate::hooks::{self, Point};
use crate::scoreboard::sheet::SheetFile;
use crate::scoreboard::{CELLS, WorkerState};
use crate::sys::process;
use crate::sys::signal;

use super::event::{Action, Event};
use super::killing::Subject;
use super::reexec::{self, Channels};
use super::workers::{Generation, SlotId, WorkerId};
use super::{Runner, Source, report, spawn, startup};

/// A worker to be spawned.
struct Birth {
    worker: WorkerId,
    slot: SlotId,
    cell: usize,
    generation: Generation,
    paused: bool,
}

impl Runner {
    pub(super) fn perform(&mut self, action: Action) {
        match action {
            Action::SpawnZygote { generation } => self.spawn_zygote(generation),
            Action::DismissZygote { generation, pid } => {
                if let Some(proven) = self.proven.remove(&generation) {
                    proven.discard();
                }
                match pid {
                    // Its channel stays until it is reaped: it may just have reported a worker that
                    // nobody wants any more and that has to be killed, too.
                    Some(pid) => self.kill(pid, process::Signal::SIGKILL),
                    None => self.drop_zygote_channel(generation),
                }
            }
            Action::Awaken { generation } => self.awaken(generation),
            Action::TakeUp { generation } => self.take_up(generation),
            Action::SpawnWorker { worker, slot, cell, generation, paused } => {
                self.spawn_worker(Birth { worker, slot, cell, generation, paused });
            }
            Action::Drain { worker, mode, patience } => {
                let patience_ms = patience.as_millis() as u64;
                self.tell(worker, &ToWorker::Drain { mode, patience_ms, delay_ms: 0 });
            }
            Action::Farewell { worker, delay, patience } => {
                let (patience_ms, delay_ms) = (patience.as_millis() as u64, delay.as_millis() as u64);
                self.tell(worker, &ToWorker::Drain { mode: DrainMode::Stop, patience_ms, delay_ms });
            }
            Action::Promote { worker, patience } => self.promote(worker, patience),
            Action::Enthrone { generation, worker } => self.enthrone(generation, worker),
            Action::CallOffPromotion => self.call_off_promotion(),
            Action::ReleaseListeners => self.holdings.release_listeners(),
            Action::Pause { worker } => {
                self.tell(worker, &ToWorker::Pause);
            }
            Action::Resume { worker } => {
                self.tell(worker, &ToWorker::Resume);
            }
            Action::Kill { pid, signal } => self.kill(pid, signal),
            Action::ReportDeath { slot, cell, pid, exit, cause, reason, .. } => {
                report::death(
                    &self.holdings.scoreboard.cell(cell),
                    slot,
                    pid,
                    exit,
                    cause,
                    reason.as_deref(),
                );
            }
            Action::ReportEviction { slot, cell, pid, generation, most } => {
                let cell = self.holdings.scoreboard.cell(cell);
                report::eviction(&cell, slot, pid, generation, most);
            }
            Action::TakeEvidence { subject, pid, worker, why } => {
                self.take_evidence(subject, pid, worker, why);
            }
            Action::EndEvidence { subject } => self.end_evidence(subject, "it did not answer in time"),
            Action::LookAtRequests => self.look_at_all_requests(),
            Action::Retire { worker, cell } => {
                self.forget_sign_of_life(worker);
                self.forget_sheet(Subject::Worker(worker));
                if let Some(channel) = self.workers.remove(&worker) {
                    self.unwatch(channel.as_raw_fd(), Source::Worker(worker));
                }
                if cell < CELLS {
                    self.holdings.scoreboard.retire(cell);
                }
            }
            Action::WatchListeners(watch) => self.watch_listeners(watch),
            Action::AwaitRequest => self.holdings.scoreboard.set_awaited(true),
            Action::FirstGenerationServes => self.first_generation_serves(),
            Action::Log(level, line) => log!(level, "{line}"),
            Action::LogStatistics => report::statistics(&self.holdings, &self.machine),
            Action::LogWorkers => {
                report::workers(&self.holdings, &self.machine, &self.full_answer());
            }
            Action::ReopenLog => self.reopen_log(false),
            Action::RotateLog => self.reopen_log(true),
            Action::RewritePidfiles => self.holdings.rewrite_pidfiles(),
            Action::Refork => match spawn::second_master(&self.holdings) {
                Ok(pid) => {
                    info!("new master copy spawned with pid {pid}");
                    self.holdings.share_sockets();
                }
                Err(error) => error!("second master not started: {error}"),
            },
            Action::FifoSlot(slot) => {
                self.holdings.switch_fifo(slot);
                self.watch_fifo();
            }
            Action::ReExec => self.reexec_due = true,
            Action::Exit(code) => self.exit = Some(code),
        }
    }

    fn spawn_zygote(&mut self, generation: Generation) {
        match spawn::zygote(&self.holdings, generation) {
            Ok((pid, channel, sheet)) => {
                self.evidence.sheets.insert(Subject::Zygote(generation), sheet);
                self.watch(channel.as_raw_fd(), Source::Zygote(generation));
                self.zygotes.insert(generation, channel);
                self.queue.push_back(Event::ZygoteSpawned { generation, pid });
            }
            Err(error) => {
                let reason = format!("no zygote could be started: {error}");
                self.queue.push_back(Event::ZygoteSpawnFailed { generation, reason });
            }
        }
    }

    pub(super) fn drop_zygote_channel(&mut self, generation: Generation) {
        self.forget_sheet(Subject::Zygote(generation));
        if let Some(channel) = self.zygotes.remove(&generation) {
            self.unwatch(channel.as_raw_fd(), Source::Zygote(generation));
        }
    }

    fn spawn_worker(&mut self, birth: Birth) {
        let worker = birth.worker;
        if let Err(reason) = self.try_spawn_worker(birth) {
            self.queue.push_back(Event::WorkerForkFailed { worker, reason });
        }
    }

    fn try_spawn_worker(&mut self, birth: Birth) -> Result<(), String> {
        let Birth { worker, slot, cell, generation, paused } = birth;
        if cell >= CELLS {
            return Err(format!("{CELLS} workers are alive already, the leaving ones included"));
        }
        let zygote = self.zygotes.get(&generation).ok_or("its zygote is gone")?;
        let (ours, theirs): (WorkerChannel, _) = channel::pair().map_err(|error| error.to_string())?;
        let sheet = SheetFile::create().map_err(|error| error.to_string())?;
        let board = self.holdings.scoreboard.open(cell);
        board.set_state(WorkerState::Starting);
        board.set_slot(u64::from(slot));
        board.set_generation(generation);
        board.set_respawns(self.machine.forks.get(&(generation, slot)).copied().unwrap_or_default());
        board.set_started_at(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
        // Workers of a generation that has not served yet will do so under the next image.
        let reloads = self.holdings.reloads + u64::from(generation > self.machine.generation());
        let spawn = ToZygote::Spawn { worker, slot, cell, reloads, paused };
        zygote
            .send(&spawn, &[theirs.as_fd(), sheet.as_fd()])
            .map_err(|error| format!("its zygote does not listen: {error}"))?;
        self.evidence.sheets.insert(Subject::Worker(worker), sheet);
        self.watch(ours.as_raw_fd(), Source::Worker(worker));
        self.workers.insert(worker, ours);
        Ok(())
    }

    /// True when the message is on its way.
    pub(super) fn tell(&self, worker: WorkerId, message: &ToWorker) -> bool {
        let Some(channel) = self.workers.get(&worker) else { return false };
        let sent = channel.send(message, &[]);
        match &sent {
            Ok(()) => {}
            // It is dead, or about to be; that is reported when it is reaped.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            // It is stuck: its deadline decides.
            Err(error) => warn!("worker {worker} cannot be told {message:?}: {error}"),
        }
        sent.is_ok()
    }

    fn kill(&self, pid: process::Pid, signal: process::Signal) {
        match process::kill(pid, signal) {
            Ok(()) => {}
            // It died by itself meanwhile; that is reported when it is reaped.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!("cannot send {} to {pid}: {error}", signal.as_str()),
        }
    }

    pub(super) fn watch_listeners(&mut self, watch: bool) {
        let fds: Vec<_> = self.holdings.listeners.iter().map(|listener| listener.fd.as_raw_fd()).collect();
        for fd in fds {
            if watch {
                self.watch(fd, Source::Listener);
            } else {
                self.unwatch(fd, Source::Listener);
            }
        }
    }

    fn first_generation_serves(&mut self) {
        let generation = self.machine.generation();
        self.activation.release();
        if !self.is_copy {
            self.holdings.write_safe_pidfiles();
        }
        let addresses: Vec<&str> = self.holdings.listeners.iter().map(|it| it.local.as_str()).collect();
        let workers = self.machine.workers().filter(|(_, worker)| worker.is_ready()).count();
        let addresses = addresses.join(", ");
        match self.machine.desired() {
            0 if self.holdings.config.processes > 0 => {
                info!("cheap mode enabled: waiting for socket connection...");
                info!(
                    "ready: generation {generation} is loaded, its workers start with the first connection to {addresses}"
                );
            }
            _ => info!("ready: {workers} workers of generation {generation} accept on {addresses}"),
        }
        if !self.strangers.is_empty() {
            self.strangers.clear();
            // One of them may have been a descriptor of a pidfile: closing it drops the lock (fcntl(2)).
            for held in &mut self.holdings.pidfiles {
                if let Err(error) = held.file.relock() {
                    error!("{}: {error}", held.option);
                }
            }
        }
        if let Some(verdict) = self.verdict.take() {
            if startup::leave_terminal(&mut self.holdings) {
                self.pass_log_on();
            }
            verdict.success();
        }
        if let Some(readiness) = self.readiness.take() {
            readiness.tell();
        }
        if self.holdings.config.expect_stop && self.holdings.start.var("UPSTART_JOB").is_some() {
            info!("stopping myself, for Upstart to see that the service is up (expect-stop)");
            if let Err(error) = process::kill(process::this(), process::Signal::SIGSTOP) {
                error!("expect-stop: {error}");
            }
        }
    }

    /// The master alone opens the log; the children get the new descriptor.
    fn reopen_log(&mut self, rotate: bool) {
        let reopened = if rotate { self.holdings.rotate_log() } else { self.holdings.reopen_log() };
        match reopened {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                return error!("the log could not be opened anew: {error}; the old one stays in use");
            }
        }
        self.pass_log_on();
    }

    /// Gives the log's descriptor to the children.
    pub(super) fn pass_log_on(&self) {
        let Some(log) = &self.holdings.log else { return };
        if let Some(heir) = &self.heir
            && let Err(error) = heir.channel.send(&ToZygote::LogFile, &[log.fd()])
        {
            warn!("the worker that is to become the zygote keeps the old log: {error}");
        }
        for (generation, channel) in &self.zygotes {
            if let Err(error) = channel.send(&ToZygote::LogFile, &[log.fd()]) {
                warn!("zygote of generation {generation} keeps the old log: {error}");
            }
        }
        for (worker, channel) in &self.workers {
            if let Err(error) = channel.send(&ToWorker::LogFile, &[log.fd()]) {
                warn!("worker {worker} keeps the old log: {error}");
            }
        }
    }

    /// Replaces the image. Coming back means that it failed, and that nothing has changed.
    pub(super) fn reexec(&mut self) {
        info!("binary reloading appserver...");
        info!("running {}", self.holdings.binary().display());
        // Blocked signals stay pending across execve; those already caught travel in the state.
        if let Err(error) = signal::block(crate::control::MASTER_SIGNALS) {
            warn!("signals could not be blocked: {error}");
        }
        let caught: Vec<_> = self.signals.pending().collect();
        let stops = self.holdings.config.stop_signals();
        let pending: Vec<_> =
            caught.iter().filter_map(|it| crate::control::signal_command(*it, stops)).collect();
        let generation = self.machine.generation();
        if let Some(proven) = self.proven.remove(&generation)
            && let Err(error) = self.holdings.adopt(proven)
        {
            error!("the new configuration of the master is not in effect: {error}");
        }
        self.follow_store();
        self.sign_before_exec();
        let signals = self.app_signals.save(generation);
        let channels = Channels {
            zygotes: &self.zygotes,
            workers: &self.workers,
            sheets: &self.evidence.sheets,
            known: &self.known,
            signals,
            accepting: &self.accepting,
            commands: self.commands.running(),
        };
        let error = reexec::reexec(&self.holdings, &self.machine, &channels, &pending);
        if let Err(error) = signal::unblock_all() {
            warn!("signals could not be unblocked: {error}");
        }
        self.queue.push_back(Event::ReExecFailed {
            reason: format!("cannot execute {}: {error}", self.holdings.binary().display()),
        });
        self.queue.extend(pending.into_iter().map(Event::Command));
        self.holdings.set_title(generation);
        self.review_snapshots();
        self.reap();
    }

    /// The last things of a master.
    pub(super) fn leave(mut self, code: u8) -> u8 {
        let config = &self.holdings.config;
        for hook in config.hooks.iter().filter(|hook| hook.point == Point::AsUserAtexit) {
            if let Err(error) = hooks::run(&hook.action) {
                error!("hook-as-user-atexit: {error}");
            }
        }
        self.holdings.clean_up();
        info!("goodbye to appserver.");
        if let Some(verdict) = self.verdict.take() {
            // Never served: the shell that waits gets the exit code of the daemon.
            verdict.failure(code);
        }
        code
    }
}
