//! What the master says to a worker, what signals say, and how a worker leaves.

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{debug, info, warn};
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::task::AbortHandle;

use crate::app::slots::Slots;
use crate::cause::Cause;
use crate::channel::{DrainMode, FromWorker, Incoming, ToWorker};
use crate::evidence;
use crate::logging::logfile;
use crate::protocol::accounting::Accounting;
use crate::scoreboard::WorkerState;
use crate::scoreboard::sheet::Sheet;
use crate::sys::signal::KillTimer;
use crate::sys::{process, stacks, watch};

use super::MasterChannel;
use super::accept::{Door, Mode};
use super::accepting_hooks::AcceptingHooks;
use super::connections::ConnectionSet;
use super::signals::Signals;

/// The timer of the last resort comes so long after the master's patience, and after what it wants to know.
const LAST_RESORT: Duration = Duration::from_secs(3);
/// Turns of the event loop that a worker without anything to do waits for a client in the hand-over queue.
const FINAL_LOOKS: u32 = 3;

/// The parts of a worker that orders are about.
pub(super) struct Control {
    pub(super) channel: Arc<MasterChannel>,
    /// The same channel, as the reactor watches it.
    pub(super) orders: AsyncFd<OwnedFd>,
    pub(super) door: Rc<Door>,
    pub(super) connections: Rc<ConnectionSet>,
    pub(super) slots: Rc<Slots>,
    pub(super) accounting: Rc<Accounting>,
    pub(super) signals: Signals,
    pub(super) birth_mercy: Duration,
    pub(super) hooks: AcceptingHooks,
    pub(super) sheet: Arc<Sheet>,
    /// Takes connections from the other end until this worker leaves to others what it has.
    pub(super) taking: AbortHandle,
}

/// How to leave, and until when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Leave {
    mode: DrainMode,
    deadline: Instant,
}

/// What an order to leave means.
enum Goodbye {
    Now(Leave),
    /// And then to become the zygote, with this channel.
    Promotion(Leave, OwnedFd),
    /// Serve on until then; what follows may take that long.
    At(Instant, Duration),
}

impl Control {
    /// Carries out orders until one of them is to leave; with the channel of a zygote if it is to become one.
    pub(super) async fn until_told_to_leave(
        &self,
        wake: OwnedFd,
        hup: OwnedFd,
    ) -> io::Result<(Leave, Option<OwnedFd>)> {
        let wake = watch::readable(wake)?;
        let hup = watch::readable(hup)?;
        let mut farewell: Option<(Instant, Duration)> = None;
        loop {
            let at = farewell.map_or_else(Instant::now, |(at, _)| at);
            tokio::select! {
                () = tokio::time::sleep_until(at.into()), if farewell.is_some() => {
                    let patience = farewell.map_or(self.birth_mercy, |(_, patience)| patience);
                    return Ok((self.close_door(DrainMode::Stop, patience), None));
                }
                ready = self.orders.readable() => {
                    let mut ready = ready?;
                    while let Some(message) = self.next_message(&mut ready) {
                        match self.obey(message) {
                            Some(Goodbye::Now(leave)) => return Ok((leave, None)),
                            Some(Goodbye::Promotion(leave, channel)) => return Ok((leave, Some(channel))),
                            Some(Goodbye::At(at, patience)) => farewell = Some((at, patience)),
                            None => {}
                        }
                    }
                }
                ready = wake.readable() => {
                    drop(ready?);
                    info!("told to leave by signal, or by the master's death");
                    return Ok((self.close_door(DrainMode::Stop, self.birth_mercy), None));
                }
                ready = hup.readable() => {
                    ready?.try_io(|fd| drain_pipe(fd.get_ref())).ok();
                    let (cause, reason) = (Cause::Asked, "SIGHUP".to_owned());
                    if let Err(error) = self.channel.send(&FromWorker::Leave { cause, reason }, &[]) {
                        warn!("the master cannot be asked for a replacement: {error}");
                    }
                }
            }
        }
    }

    /// The next message, if one is there; the master's death is an order to leave, too.
    fn next_message(&self, ready: &mut AsyncFdReadyGuard<'_, OwnedFd>) -> Option<Order> {
        match self.channel.receive() {
            Ok(Incoming::Message(message, fds)) => Some(Order::Message(message, fds)),
            Ok(Incoming::Closed) => Some(Order::MasterGone),
            Ok(Incoming::Nothing) => {
                ready.clear_ready();
                None
            }
            Err(error) => {
                warn!("the master sent something unintelligible: {error}");
                None
            }
        }
    }

    fn obey(&self, order: Order) -> Option<Goodbye> {
        match order {
            Order::MasterGone => {
                info!("the master is gone: leaving within {:?}", self.birth_mercy);
                Some(Goodbye::Now(self.close_door(DrainMode::Stop, self.birth_mercy)))
            }
            Order::Message(ToWorker::Drain { mode, patience_ms, delay_ms: 0 }, _) => {
                Some(Goodbye::Now(self.close_door(mode, Duration::from_millis(patience_ms))))
            }
            Order::Message(ToWorker::Drain { patience_ms, delay_ms, .. }, _) => {
                self.connections.front().farewell();
                let at = Instant::now() + Duration::from_millis(delay_ms);
                Some(Goodbye::At(at, Duration::from_millis(patience_ms)))
            }
            Order::Message(ToWorker::Promote { patience_ms }, fds) => match fds.into_iter().next() {
                Some(channel) => {
                    info!("about to become the zygote (refork-after): finishing requests");
                    let leave = self.close_door(DrainMode::Handover, Duration::from_millis(patience_ms));
                    Some(Goodbye::Promotion(leave, channel))
                }
                None => {
                    warn!("a promotion without a control channel");
                    None
                }
            },
            Order::Message(ToWorker::Pause, _) => {
                self.door.set(Mode::Paused);
                self.accounting.set_resting_state(WorkerState::Paused);
                None
            }
            Order::Message(ToWorker::Resume, _) => {
                self.door.set(Mode::Open);
                self.accounting.set_resting_state(WorkerState::Idle);
                None
            }
            Order::Message(ToWorker::LogFile, fds) => {
                logfile::follow_master(fds);
                None
            }
            Order::Message(ToWorker::Signal { number }, _) => {
                self.signals.handle(number);
                None
            }
            Order::Message(ToWorker::Ping, _) => {
                if let Err(error) = self.channel.send(&FromWorker::Pong, &[]) {
                    warn!("the master cannot be given a sign of life: {error}");
                }
                None
            }
            Order::Message(ToWorker::Accepting { first }, _) => {
                self.hooks.run(first);
                None
            }
        }
    }

    /// First of all no more connections, then the rest.
    fn close_door(&self, mode: DrainMode, patience: Duration) -> Leave {
        if mode == DrainMode::Stop {
            // Before the clients that still wait are taken: what they are answered is the last.
            self.connections.front().farewell();
            self.door.set(Mode::Emptying);
        } else {
            self.door.set(Mode::Closed);
            self.taking.abort();
        }
        self.accounting.set_resting_state(WorkerState::Draining);
        Leave { mode, deadline: Instant::now() + patience }
    }

    /// Finishes what is in flight, as long as patience lasts. False when something was cut, or could have
    /// been: it was told to hurry meanwhile, or the master is gone.
    pub(super) async fn leave(&self, leave: Leave) -> bool {
        self.begin(leave);
        let mut in_peace = true;
        let mut deadline = leave.deadline;
        let mut master_gone = false;
        let mut quiet = false;
        while !self.is_done().await {
            tokio::select! {
                biased;
                () = self.finished() => {}
                () = self.fallen_quiet(), if !quiet => {
                    quiet = true;
                    if let Err(error) = self.channel.send(&FromWorker::Quiet, &[]) {
                        debug!("the master does not hear that only connections are left: {error}");
                    }
                }
                () = tokio::time::sleep_until(deadline.into()) => {
                    match self.accounting.in_flight() {
                        0 => debug!("patience ends with {} connections open", self.connections.len()),
                        many => warn!(
                            "patience ends with {many} requests in flight, which are cut; the last one begun is {}",
                            self.accounting.last_request()
                        ),
                    }
                    if !self.slots.all_free() {
                        self.tell_what_is_cut();
                    }
                    return false;
                }
                ready = self.orders.readable(), if !master_gone => {
                    let Ok(mut ready) = ready else { return false };
                    while let Some(order) = self.next_message(&mut ready) {
                        match order {
                            // Asked again: less patience than before, never more.
                            Order::Message(ToWorker::Drain { mode, patience_ms, .. }, _) => {
                                in_peace = false;
                                deadline = deadline.min(Instant::now() + Duration::from_millis(patience_ms));
                                self.begin(Leave { mode, deadline });
                            }
                            Order::MasterGone => {
                                in_peace = false;
                                master_gone = true;
                                deadline = deadline.min(Instant::now() + self.birth_mercy);
                                self.begin(Leave { mode: DrainMode::Stop, deadline });
                                break;
                            }
                            Order::Message(ToWorker::LogFile, fds) => logfile::follow_master(fds),
                            // The next signal is for those that stay, and so are questions.
                            Order::Message(
                                ToWorker::Pause
                                | ToWorker::Resume
                                | ToWorker::Signal { .. }
                                | ToWorker::Accepting { .. }
                                | ToWorker::Promote { .. }
                                | ToWorker::Ping,
                                _,
                            ) => {}
                        }
                    }
                }
            }
        }
        in_peace
    }

    /// What the master would find out before it kills.
    fn tell_what_is_cut(&self) {
        const WORD: &str = "NO MERCY";
        let written = || -> io::Result<()> {
            let file = self.sheet.file()?;
            evidence::requests(WORD, &file.read()?, self.sheet.now()).iter().for_each(|line| warn!("{line}"));
            file.forget_stacks()?;
            if stacks::heeds(process::this()) {
                stacks::ask_this_thread()?;
            }
            let none = "the application has none to tell; those of Python are told";
            evidence::stacks(WORD, &file.stacks()?, none).iter().for_each(|line| warn!("{line}"));
            Ok(())
        };
        if let Err(error) = written() {
            warn!("what is cut cannot be told in detail: {error}");
        }
    }

    /// True when nothing is left to do. A stop goes on taking what workers that are stuck have passed on
    /// before they knew of it, for nobody comes after the last one who looks.
    async fn is_done(&self) -> bool {
        // An application may be at work on a request whose client is gone, or has all of its answer.
        let idle = || self.connections.is_empty() && self.slots.all_free();
        // The reactor is asked, then who takes gets his turn.
        for _ in 0..FINAL_LOOKS {
            if !idle() {
                return false;
            }
            tokio::task::yield_now().await;
        }
        idle()
    }

    async fn finished(&self) {
        self.connections.emptied().await;
        self.slots.wait_all_free().await;
    }

    /// Only connections to be passed on are left, and the queue is full: with `reload-mode = drain` those
    /// who will take them out wait for this.
    async fn fallen_quiet(&self) {
        self.connections.none_served().await;
        self.slots.wait_all_free().await;
    }

    fn begin(&self, leave: Leave) {
        match leave.mode {
            DrainMode::Handover => self.connections.hand_over(),
            DrainMode::Stop => self.connections.stop(),
            DrainMode::Now => {
                self.taking.abort();
                self.connections.evict();
            }
        }
        // Should the runtime itself be blocked by the application, the timer still ends it.
        let left = leave.deadline.saturating_duration_since(Instant::now());
        if let Err(error) = KillTimer::arm_kill(left + LAST_RESORT) {
            warn!("the last resort timer cannot be set: {error}");
        }
    }
}

/// What the control channel brings.
enum Order {
    Message(ToWorker, Vec<OwnedFd>),
    MasterGone,
}

fn drain_pipe(pipe: &OwnedFd) -> io::Result<()> {
    let mut file = std::fs::File::from(pipe.as_fd().try_clone_to_owned()?);
    let mut bytes = [0; 64];
    loop {
        // Until WouldBlock, which clears the readiness.
        if file.read(&mut bytes)? == 0 {
            return Ok(());
        }
    }
}
