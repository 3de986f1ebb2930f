//! When a worker takes a connection, and from which listener.
//!
//! All workers share the listeners, so a connection goes to whoever takes it first. A worker takes
//! one only while it has a free slot: a slow request never sits in front of others. Where requests of the
//! connections it has leave none free, new clients queue up with them (`Acceptor::wait_in_line`). One connection
//! is taken per wake-up (a few for applications that never wait), and never until the queue is empty:
//! that would pile up a burst in one worker. Who hears of a connection is up to [`super::lookout`].
//! A worker that holds far more connections than the others leaves a new one to them for a moment;
//! smaller differences are evened out later, by handing idle connections over
//! ([`super::connections`]).

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, warn};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::error::EXIT_ERROR;
use crate::logging::spare;
use crate::scoreboard::Scoreboard;
use crate::sys::accept::{self, Client};
use crate::sys::{fd, process};

use super::handover::{self, Parcel};
use super::lookout::Lookout;
use super::stragglers::{self, Stragglers};
use crate::app::slots::Slots;
use crate::scoreboard::share::Share;

/// Standard error.
const STDERR: RawFd = 2;
/// How long a worker with many connections leaves a waiting one to the others. They may be stuck,
/// so it is a moment and never for good.
const DEFERENCE: Duration = Duration::from_millis(1);
/// How long connections that were passed on wait for a worker that has fewer, and may be in the middle of a request.
const LONG_DEFERENCE: Duration = Duration::from_millis(100);
/// Connections taken between two looks at the reactor when requests occupy no slot: a look costs a
/// system call, and there is no slot that the first of them could fill.
const BATCH: u32 = 4;
/// Connections taken out of the hand-over queue, and served, before the worker looks at its own.
const TAKEN_AT_ONCE: u32 = 32;
/// Pause after the process has run out of descriptors: accepting at once again would spin.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Whether the worker accepts at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Yes.
    Open,
    /// Not until resumed.
    Paused,
    /// What waits in the queue is still taken, then nothing more: the server goes away.
    Emptying,
    /// Never again.
    Closed,
}

/// The switch that the control channel turns and the accept loop watches.
#[derive(Debug)]
pub struct Door {
    mode: Cell<Mode>,
    changed: Notify,
}

impl Door {
    /// A door in this position.
    pub fn new(mode: Mode) -> Rc<Self> {
        Rc::new(Door { mode: Cell::new(mode), changed: Notify::new() })
    }

    /// Turns the switch; a closed door stays closed.
    pub fn set(&self, mode: Mode) {
        if self.mode.get() != Mode::Closed {
            self.mode.set(mode);
            self.changed.notify_one();
        }
    }

    /// Its position.
    pub fn mode(&self) -> Mode {
        self.mode.get()
    }
}

/// A connection that was just taken.
#[derive(Debug)]
pub struct Accepted {
    /// The socket, non-blocking.
    pub socket: OwnedFd,
    /// The client.
    pub client: Client,
    /// Index of the listener it came from.
    pub listener: usize,
}

/// The accept loop of one worker.
pub struct Acceptor {
    lookout: Rc<Lookout>,
    slots: Rc<Slots>,
    /// False when the application never occupies a slot.
    bounded: bool,
    door: Rc<Door>,
    /// Of each listener, whether it outlives this server: who waits in its queue waits for the next one.
    outlives: Vec<bool>,
    scoreboard: Arc<Scoreboard>,
    cell: usize,
    /// Connections taken so far.
    taken: u32,
}

impl Acceptor {
    /// Takes connections that `lookout` hears of.
    pub fn new(
        lookout: Rc<Lookout>,
        slots: Rc<Slots>,
        bounded: bool,
        door: Rc<Door>,
        outlives: Vec<bool>,
        scoreboard: Arc<Scoreboard>,
        cell: usize,
    ) -> Self {
        Acceptor { lookout, slots, bounded, door, outlives, scoreboard, cell, taken: 0 }
    }

    /// Hands each connection to `serve`; returns once the door is closed. What it has watched is returned,
    /// unless all of it was closed because nobody comes after.
    pub async fn run(mut self, mut serve: impl FnMut(Accepted)) -> Option<Rc<Lookout>> {
        self.say_accepting(true);
        loop {
            match self.door.mode() {
                Mode::Open if self.full() => {
                    self.stand_aside();
                    self.wait_in_line(&mut serve).await;
                    self.stand_ready().await;
                }
                Mode::Open => self.take_one(&mut serve).await,
                Mode::Paused => {
                    self.stand_aside();
                    self.door.changed.notified().await;
                    self.stand_ready().await;
                }
                Mode::Closed => {
                    self.stand_aside();
                    return Some(self.lookout);
                }
                Mode::Emptying => {
                    self.hear_out(&mut serve).await;
                    self.stand_aside();
                    empty(self.lookout, &self.outlives, &mut serve);
                    return None;
                }
            }
        }
    }

    fn full(&self) -> bool {
        self.bounded && !self.slots.free()
    }

    /// New clients are the business of other workers.
    fn stand_aside(&self) {
        self.say_accepting(false);
        self.lookout.withdraw();
    }

    async fn stand_ready(&self) {
        while let Err(error) = self.lookout.join() {
            warn!("the listeners cannot be watched: {error}; trying again in {EXHAUSTED_PAUSE:?}");
            tokio::time::sleep(EXHAUSTED_PAUSE).await;
        }
        self.say_accepting(true);
    }

    /// Waits until there is a free slot, or the door has changed.
    ///
    /// A slot that is given back goes to the request that has waited longest. Connections that were let in
    /// could pass the slots on among themselves for ever, and nobody else would be let in, when all
    /// workers are that busy. So those who wait outside have a place in the line, too: when it is
    /// their turn one of them is let in, and its request goes to the end of the line.
    async fn wait_in_line(&mut self, serve: &mut impl FnMut(Accepted)) {
        while self.door.mode() == Mode::Open && self.full() {
            let turn = tokio::select! {
                turn = self.slots.acquire_in_turn() => turn,
                () = self.door.changed.notified() => continue,
            };
            let taken = match self.slots.contended() {
                true => self.take_in_turn(serve),
                false => Ok(()),
            };
            drop(turn);
            if let Err(error) = taken {
                self.rest(&error).await;
            }
        }
    }

    fn take_in_turn(&mut self, serve: &mut impl FnMut(Accepted)) -> io::Result<()> {
        if Share::of(&self.scoreboard, self.cell).far_above_mean() {
            return Ok(());
        }
        for index in self.lookout.in_turn() {
            if let Some(accepted) = self.accept(index)? {
                serve(accepted);
                break;
            }
        }
        Ok(())
    }

    async fn rest(&self, error: &io::Error) {
        warn!("accept: {error}; trying again in {} ms", EXHAUSTED_PAUSE.as_millis());
        tokio::time::sleep(EXHAUSTED_PAUSE).await;
    }

    async fn take_one(&mut self, serve: &mut impl FnMut(Accepted)) {
        let door = Rc::clone(&self.door);
        let ready = tokio::select! {
            biased;
            () = door.changed.notified() => return,
            ready = self.lookout.next() => ready,
        };
        if Share::of(&self.scoreboard, self.cell).far_above_mean() {
            self.lookout.withdraw();
            tokio::time::sleep(DEFERENCE).await;
            self.stand_ready().await;
        }
        // Meanwhile a connection taken earlier may have sent its request, or the door was closed.
        if self.door.mode() != Mode::Open || self.full() {
            return;
        }
        match self.accept(ready) {
            Ok(Some(accepted)) => {
                serve(accepted);
                self.taken = self.taken.wrapping_add(1);
                if self.bounded || self.taken.is_multiple_of(BATCH) {
                    // The new connections' first requests run now and may fill the last slot.
                    tokio::task::yield_now().await;
                }
            }
            Ok(None) => {}
            Err(error) => {
                self.stand_aside();
                self.rest(&error).await;
                self.stand_ready().await;
            }
        }
    }

    /// Takes clients, whatever is free, until those have come that the kernel keeps for listeners that close.
    async fn hear_out(&self, serve: &mut impl FnMut(Accepted)) {
        let closing = self.outlives.iter().enumerate().filter(|(_, outlives)| !**outlives);
        let mut stragglers = Stragglers::of(closing.map(|(index, _)| self.lookout.listener(index)));
        let until = Instant::now() + stragglers::PATIENCE;
        while !stragglers.are_gone() {
            let Ok(index) = tokio::time::timeout_at(until.into(), self.lookout.next()).await else { break };
            match self.accept(index) {
                Ok(accepted) => accepted.into_iter().for_each(&mut *serve),
                // What there is to say is said by who takes the rest.
                Err(_) => break,
            }
        }
    }

    /// `None` when another worker was faster, or the client is gone again.
    fn accept(&self, index: usize) -> io::Result<Option<Accepted>> {
        match accept::accept(self.lookout.listener(index)) {
            Ok((mut socket, client)) => {
                self.lookout.had_its_turn(index);
                if socket.as_raw_fd() <= STDERR {
                    // The next word in the log would go to the client.
                    socket = fd::shelter(socket);
                    spare::mend();
                }
                Ok(Some(Accepted { socket, client, listener: index }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lookout.was_empty(index);
                Ok(None)
            }
            Err(error) => match error.raw_os_error() {
                Some(code) if exhausted(code) => Err(error),
                Some(code) if lost(code) => {
                    error!("a listener is gone: {error}; has the application closed it? This worker ends");
                    process::exit_now(i32::from(EXIT_ERROR));
                }
                // Errors of that one connection, which accept(2) passes on.
                _ => Ok(None),
            },
        }
    }

    fn say_accepting(&self, accepting: bool) {
        self.scoreboard.cell(self.cell).set_accepting(u64::from(accepting));
    }
}

/// Takes connections that other workers pass on, one at a time, until aborted. A worker that has more than its
/// share leaves them to the others for a moment: with `defers` always, without only while requests wait for
/// their turn here, for who is free is right when clients may be waiting in them.
pub async fn take_handed_over(
    queue: AsyncFd<OwnedFd>,
    scoreboard: Arc<Scoreboard>,
    cell: usize,
    slots: Rc<Slots>,
    defers: bool,
    mut serve: impl FnMut(Parcel),
) {
    loop {
        let Ok(mut ready) = queue.readable().await else { return };
        // A whole generation's connections may be on their way: only who has a surplus waits.
        let rich = || Share::of(&scoreboard, cell).surplus() > 0;
        if defers && rich() {
            tokio::time::sleep(DEFERENCE).await;
        }
        // It would take back what it has just given away.
        let until = Instant::now() + LONG_DEFERENCE;
        while slots.contended() && rich() && Instant::now() < until {
            tokio::time::sleep(DEFERENCE).await;
        }
        // Who waits in the queue has waited longer than who comes now.
        let most = if defers { 1 } else { TAKEN_AT_ONCE };
        for _ in 0..most {
            match ready.try_io(|queue| handover::take(queue.get_ref().as_fd())) {
                Ok(Ok(parcel)) => serve(parcel),
                Ok(Err(error)) => warn!("{error}"),
                Err(_would_block) => break,
            }
        }
        tokio::task::yield_now().await;
    }
}

/// Takes what waits in the queues, where nobody else will. Each listener is closed as soon as it is empty: who
/// comes then is refused, as by a server that is gone, while one that is let in between the last look and
/// the close is reset.
fn empty(lookout: Rc<Lookout>, outlives: &[bool], serve: &mut impl FnMut(Accepted)) {
    let Ok(lookout) = Rc::try_unwrap(lookout) else { return };
    let listeners = lookout.into_listeners().enumerate();
    for (index, listener) in listeners.filter(|(index, _)| outlives.get(*index) != Some(&true)) {
        loop {
            match accept::accept(listener.as_fd()) {
                Ok((socket, client)) => {
                    serve(Accepted { socket, client, listener: index });
                }
                // That one has gone again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => {
                    warn!("clients may be left in the queue: accept: {error}");
                    break;
                }
            }
        }
    }
}

/// EBADF, EINVAL, ENOTSOCK of accept(2): the number is no longer the listener.
fn lost(code: i32) -> bool {
    [9, 22, 88].contains(&code)
}

fn exhausted(code: i32) -> bool {
    // EMFILE, ENFILE, ENOBUFS, ENOMEM of accept(2): the process or the machine is out of something.
    const EXHAUSTED: [i32; 4] = [24, 23, 105, 12];
    EXHAUSTED.contains(&code)
}
