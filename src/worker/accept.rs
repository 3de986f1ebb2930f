//! When a worker takes a connection, and from which listener.
//!
//! All workers share the listeners, so a connection goes to whoever takes it first. A worker takes
//! one only while it has a free slot: a slow request never sits in front of others. One connection
//! is taken per wake-up (a few where the first of them are served already, or applications never wait),
//! and never until the queue is empty: that would pile up a burst in one worker.
//! A worker that holds far more connections than the others waits a moment before it takes another;
//! smaller differences are evened out later, by handing idle connections over
//! ([`super::connections`]).

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use log::{error, warn};
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use crate::error::EXIT_ERROR;
use crate::logging::spare;
use crate::scoreboard::Scoreboard;
use crate::sys::accept::{self, Client};
use crate::sys::{fd, process, watch};

use super::handover::{self, Parcel};
use crate::app::slots::Slots;
use crate::scoreboard::share::Share;

/// Standard error.
const STDERR: RawFd = 2;
/// How long a worker with many connections leaves a waiting one to the others. They may be stuck,
/// so it is a moment and never for good.
const DEFERENCE: Duration = Duration::from_millis(1);
/// Connections taken between two looks at the reactor when requests occupy no slot, or have left it again:
/// a look costs a system call, and there is no slot that the first of them could fill.
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
    listeners: Vec<AsyncFd<OwnedFd>>,
    slots: Rc<Slots>,
    /// False when the application never occupies a slot.
    bounded: bool,
    door: Rc<Door>,
    scoreboard: Arc<Scoreboard>,
    cell: usize,
    /// The listener to look at first, so that none starves.
    turn: usize,
    /// Connections taken so far.
    taken: u32,
}

impl Acceptor {
    /// Registers the listeners with the reactor of this thread.
    ///
    /// # Errors
    /// When the reactor refuses a descriptor.
    pub fn new(
        listeners: Vec<OwnedFd>,
        slots: Rc<Slots>,
        bounded: bool,
        door: Rc<Door>,
        scoreboard: Arc<Scoreboard>,
        cell: usize,
    ) -> io::Result<Self> {
        let listeners = listeners.into_iter().map(watch::readable).collect::<io::Result<Vec<_>>>()?;
        Ok(Acceptor { listeners, slots, bounded, door, scoreboard, cell, turn: 0, taken: 0 })
    }

    /// Hands each connection to `serve`, which says whether it is done with it; returns once the door is
    /// closed.
    pub async fn run(mut self, mut serve: impl FnMut(Accepted) -> bool) {
        loop {
            match self.door.mode() {
                Mode::Closed => return self.say_accepting(false),
                Mode::Paused => {
                    self.say_accepting(false);
                    self.door.changed.notified().await;
                }
                Mode::Emptying => return self.empty(&mut serve),
                Mode::Open if self.bounded && !self.slots.free() => {
                    self.say_accepting(false);
                    tokio::select! {
                        () = self.slots.wait_free() => {}
                        () = self.door.changed.notified() => {}
                    }
                }
                Mode::Open => {
                    self.say_accepting(true);
                    self.take_one(&mut serve).await;
                }
            }
        }
    }

    async fn take_one(&mut self, serve: &mut impl FnMut(Accepted) -> bool) {
        let door = Rc::clone(&self.door);
        let ready = tokio::select! {
            biased;
            () = door.changed.notified() => return,
            ready = self.wait_ready() => ready,
        };
        if Share::of(&self.scoreboard, self.cell).far_above_mean() {
            tokio::time::sleep(DEFERENCE).await;
        }
        // Meanwhile a connection taken earlier may have sent its request, or the door was closed. The
        // readiness stays known until accept(2) finds nothing.
        if self.door.mode() != Mode::Open || (self.bounded && !self.slots.free()) {
            return;
        }
        match self.accept(ready) {
            Ok(Some(accepted)) => {
                let done = serve(accepted);
                self.taken = self.taken.wrapping_add(1);
                if (self.bounded && !done) || self.taken.is_multiple_of(BATCH) {
                    // The new connections' first requests may arrive now, and fill the last slot.
                    tokio::task::yield_now().await;
                }
            }
            Ok(None) => {}
            Err(error) => {
                warn!("accept: {error}; trying again in {} ms", EXHAUSTED_PAUSE.as_millis());
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }

    /// The index of a listener that may have a connection.
    async fn wait_ready(&mut self) -> usize {
        let count = self.listeners.len();
        let first = self.turn;
        let ready = poll_fn(|cx| {
            for index in (0..count).map(|offset| (first + offset) % count) {
                if let Poll::Ready(Ok(_)) = self.listeners[index].poll_read_ready(cx) {
                    return Poll::Ready(index);
                }
            }
            Poll::Pending
        })
        .await;
        self.turn = (ready + 1) % count;
        ready
    }

    /// `None` when another worker was faster, or the client is gone again.
    fn accept(&self, index: usize) -> io::Result<Option<Accepted>> {
        let listener = &self.listeners[index];
        match accept::accept(listener.get_ref().as_fd()) {
            Ok((mut socket, client)) => {
                if socket.as_raw_fd() <= STDERR {
                    // The next word in the log would go to the client.
                    socket = fd::shelter(socket);
                    spare::mend();
                }
                Ok(Some(Accepted { socket, client, listener: index }))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                clear_ready(listener);
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

    /// Takes what waits in the queues: nobody else will.
    fn empty(&self, serve: &mut impl FnMut(Accepted) -> bool) {
        self.say_accepting(false);
        for (index, listener) in self.listeners.iter().enumerate() {
            while let Ok((socket, client)) = accept::accept(listener.get_ref().as_fd()) {
                serve(Accepted { socket, client, listener: index });
            }
        }
    }

    fn say_accepting(&self, accepting: bool) {
        self.scoreboard.cell(self.cell).set_accepting(u64::from(accepting));
    }
}

/// Takes connections that other workers pass on, one at a time, until aborted. With `defers`, a worker that
/// has more than its share leaves them to the others for a moment; without, who is free is right:
/// clients may be waiting in them.
pub async fn take_handed_over(
    queue: AsyncFd<OwnedFd>,
    scoreboard: Arc<Scoreboard>,
    cell: usize,
    defers: bool,
    mut serve: impl FnMut(Parcel),
) {
    loop {
        let Ok(mut ready) = queue.readable().await else { return };
        // A whole generation's connections may be on their way: only who has a surplus waits.
        if defers && Share::of(&scoreboard, cell).surplus() > 0 {
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

/// Makes the reactor wait for the next edge. Between the `EAGAIN` and this line an edge could be
/// lost only if the reactor ran, and it runs on this thread.
fn clear_ready(watched: &AsyncFd<OwnedFd>) {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    if let Poll::Ready(Ok(mut guard)) = watched.poll_read_ready(&mut cx) {
        guard.clear_ready();
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
