//! All connections of a worker: their time limits, and how they leave when the worker drains.
//!
//! One sweeper looks at all of them, at most once a second, instead of a timer for each. It notes
//! when a connection began to wait for something; connections themselves never read a clock. The
//! sweeper sleeps while nothing changes, and without connections it does not wake at all.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::connection::Connection;
use super::handover::{Giver, Parcel};
use super::relief::Relief;
use crate::protocol::Refusal;
use crate::protocol::http::Front;
use crate::protocol::state::{ConnectionState, Order, Phase};

/// Resolution of all time limits.
const TICK: Duration = Duration::from_secs(1);
/// How long a client may take to close after its last answer.
const LINGER: Duration = Duration::from_secs(5);
/// The same while the worker wants to leave.
const LINGER_DRAINING: Duration = Duration::from_secs(1);
/// How long a draining worker keeps idle connections open for one more request, when it cannot pass
/// them on: their next answer says `Connection: close`, which no client can take for a failure.
pub const IDLE_GRACE: Duration = Duration::from_secs(5);
/// How long a stop waits for the first word of clients that have just come: it may be on its way, and to
/// close the connection would look like a crash.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// How long the sweeper sleeps when no connection has a time limit and none moves.
const LONG: Duration = Duration::from_secs(3600);

const TIMEOUT: Refusal = Refusal::new(408, "the request did not arrive in time");

/// Whether the worker is about to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drain {
    Serving,
    /// Connections go to other workers as soon as they are between two requests.
    HandingOver,
    /// Idle connections may wait for a last request until then.
    Draining(Instant),
    Stopping,
}

#[derive(Debug)]
struct Entry {
    state: Rc<ConnectionState>,
    /// What it was waiting for when last looked at, and since when.
    stretch: (Phase, u64),
    since: Instant,
}

/// The registry of a worker's connections.
pub struct ConnectionSet {
    front: Rc<Front>,
    entries: RefCell<Vec<Option<Entry>>>,
    vacant: RefCell<Vec<usize>>,
    count: Cell<usize>,
    drain: Cell<Drain>,
    /// Until then clients that have not said anything are heard out by a stop.
    hears_out: Cell<Option<Instant>>,
    /// The sweeper sleeps for long: tell it when something moves.
    quiet: Cell<bool>,
    moved: Notify,
    emptied: Notify,
    giver: Giver,
    /// Connections that wait for room in the hand-over queue, in the order of their turn.
    waiting: RefCell<VecDeque<Parcel>>,
    /// Gives connections away while this worker is stuck.
    relief: Option<Arc<Relief>>,
}

impl ConnectionSet {
    /// An empty set of connections behind `front`; those that leave unserved go to `giver`. With
    /// `relief`, others may take connections while this worker is stuck.
    pub fn new(front: Rc<Front>, giver: Giver, relief: Option<Arc<Relief>>) -> Rc<Self> {
        Rc::new(ConnectionSet {
            front,
            entries: RefCell::default(),
            vacant: RefCell::default(),
            count: Cell::new(0),
            drain: Cell::new(Drain::Serving),
            hears_out: Cell::new(None),
            quiet: Cell::new(false),
            moved: Notify::new(),
            emptied: Notify::new(),
            giver,
            waiting: RefCell::default(),
            relief,
        })
    }

    /// The front door of these connections.
    pub fn front(&self) -> &Rc<Front> {
        &self.front
    }

    pub(super) fn relief(&self) -> Option<&Arc<Relief>> {
        self.relief.as_ref()
    }

    /// Open connections.
    pub fn len(&self) -> usize {
        self.count.get()
    }

    /// No connection is open, nor on its way to another worker.
    pub fn is_empty(&self) -> bool {
        self.count.get() == 0 && self.waiting.borrow().is_empty()
    }

    /// Connections with a request in flight; a half-read head counts as one.
    pub fn busy(&self) -> usize {
        let entries = self.entries.borrow();
        let busy = |entry: &&Entry| !entry.state.idle() && !entry.state.lingering.get();
        entries.iter().flatten().filter(busy).count()
    }

    /// Waits until the last connection is closed.
    pub async fn emptied(&self) {
        while !self.is_empty() {
            self.emptied.notified().await;
        }
    }

    /// Waits until none is served any more; some may still wait for room in the hand-over queue.
    pub async fn none_served(&self) {
        while self.count.get() > 0 {
            self.emptied.notified().await;
        }
    }

    /// Begins to drain for a reload: each connection goes to another worker once it is between two
    /// requests. Those that cannot fall back to [`ConnectionSet::drain`].
    pub fn hand_over(&self) {
        if self.drain.get() == Drain::Serving {
            self.drain.set(Drain::HandingOver);
            self.wake_all();
            self.disturb();
        }
    }

    pub(super) fn hands_over(&self) -> bool {
        self.drain.get() == Drain::HandingOver
    }

    /// Gives one connection to another worker. One that cannot travel is served here to its next answer.
    pub(super) fn give(self: &Rc<Self>, parcel: Parcel) {
        let first = self.waiting.borrow().is_empty();
        let given = if first { self.giver.give(&parcel) } else { Err(io::ErrorKind::WouldBlock.into()) };
        match given {
            Ok(()) => {}
            // Too much to travel; or there was no need to, and the client may be waiting.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput || !self.hands_over() => {
                log::debug!("connection of {:?} stays: {error}", parcel.info.peer);
                self.keep(parcel);
            }
            Err(_full) => {
                self.waiting.borrow_mut().push_back(parcel);
                if first {
                    tokio::task::spawn_local(Rc::clone(self).give_waiting());
                }
            }
        }
    }

    async fn give_waiting(self: Rc<Self>) {
        self.giver.give_patiently(&self.waiting).await;
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    fn keep(self: &Rc<Self>, parcel: Parcel) {
        if self.hands_over() {
            self.drain(Instant::now() + IDLE_GRACE);
        }
        tokio::task::spawn_local(Connection::new(self, parcel));
    }

    fn wake_all(&self) {
        for entry in self.entries.borrow().iter().flatten() {
            entry.state.wake();
        }
    }

    /// Gives connections away while this worker holds more than its share: kept-alive connections would
    /// otherwise stay where they happened to land. Those that are idle go at once, and then those that are not,
    /// for all of a worker that never rests have a request waiting.
    fn balance(&self) {
        let surplus = self.surplus();
        if surplus == 0 {
            return;
        }
        let entries = self.entries.borrow();
        let idle = |entry: &&Entry| entry.state.phase() == Phase::Idle;
        let (idle, others): (Vec<&Entry>, Vec<&Entry>) = entries.iter().flatten().partition(idle);
        for entry in idle.into_iter().chain(others).take(surplus) {
            entry.state.command(Order::HandOver);
        }
    }

    /// How many connections others should have.
    pub(super) fn surplus(&self) -> usize {
        match self.drain.get() {
            Drain::Serving => self.front.accounting().share().surplus() as usize,
            Drain::HandingOver | Drain::Draining(_) | Drain::Stopping => 0,
        }
    }

    /// Begins to drain without a worker to pass connections to: each response closes its connection. An idle connection stays
    /// for one more request, at most until `idle_deadline`.
    pub fn drain(&self, idle_deadline: Instant) {
        if self.drain.get() != Drain::Stopping {
            self.front.close_after_response();
            self.drain.set(Drain::Draining(idle_deadline));
            self.disturb();
        }
    }

    /// Stops for good: idle connections are closed now, the others after their response; those of clients
    /// that have said nothing yet in a moment.
    pub fn stop(self: &Rc<Self>) {
        if self.hears_out.get().is_none() {
            let until = Instant::now() + FIRST_WORD;
            self.hears_out.set(Some(until));
            let set = Rc::clone(self);
            tokio::task::spawn_local(async move {
                tokio::time::sleep_until(until.into()).await;
                set.wake_all();
            });
        }
        self.close_all();
    }

    fn close_all(&self) {
        self.front.close_after_response();
        self.drain.set(Drain::Stopping);
        // Nobody may be there any more to take them.
        self.waiting.borrow_mut().clear();
        if self.is_empty() {
            self.emptied.notify_waiters();
        }
        self.wake_all();
        self.disturb();
    }

    /// Ends all connections, whatever they are doing. Those that are between two requests go to another worker;
    /// if there is none, they end with the queue.
    pub fn evict(&self) {
        self.close_all();
        for entry in self.entries.borrow().iter().flatten() {
            entry.state.command(Order::Evict);
        }
    }

    /// Idle connections are not wanted any more.
    pub(super) fn stopping(&self) -> bool {
        self.drain.get() == Drain::Stopping
    }

    /// A client that has not said anything yet still may.
    pub(super) fn hears_out(&self) -> bool {
        self.hears_out.get().is_some_and(|until| Instant::now() < until)
    }

    /// Enters a connection accepted at `now`.
    pub(super) fn insert(&self, state: Rc<ConnectionState>, now: Instant) -> usize {
        let entry = Some(Entry { stretch: state.stretch(), state, since: now });
        let mut entries = self.entries.borrow_mut();
        let index = match self.vacant.borrow_mut().pop() {
            Some(index) => {
                entries[index] = entry;
                index
            }
            None => {
                entries.push(entry);
                entries.len() - 1
            }
        };
        self.recount(self.count.get() + 1);
        self.disturb();
        index
    }

    pub(super) fn remove(&self, index: usize) {
        if self.entries.borrow_mut()[index].take().is_some() {
            self.vacant.borrow_mut().push(index);
            self.recount(self.count.get() - 1);
        }
        if self.count.get() == 0 {
            self.emptied.notify_waiters();
        }
    }

    fn recount(&self, count: usize) {
        self.count.set(count);
        self.front.accounting().connections(count);
    }

    /// Tells the sweeper that a connection may be waiting for something new.
    pub(super) fn disturb(&self) {
        if self.quiet.replace(false) {
            self.moved.notify_one();
        }
    }

    /// Enforces the time limits, for ever. The worker runs this in a task of its own.
    pub async fn run_sweeper(self: Rc<Self>) {
        loop {
            self.front.accounting().synchronise_clock();
            let Some(next) = self.sweep(Instant::now()) else {
                self.moved.notified().await;
                continue;
            };
            self.balance();
            if tokio::time::timeout_at(next.into(), self.moved.notified()).await.is_ok() {
                tokio::time::sleep(TICK).await;
            }
        }
    }

    /// Looks at all connections once and deals with those whose patience is at an end. Returns
    /// when to look again: `None` while there are no connections, and then or as soon as one moves
    /// otherwise.
    pub fn sweep(&self, now: Instant) -> Option<Instant> {
        let mut moved = false;
        let mut next = now + LONG;
        for entry in self.entries.borrow_mut().iter_mut().flatten() {
            let stretch = entry.state.stretch();
            if stretch != entry.stretch {
                entry.stretch = stretch;
                entry.since = now;
                moved = true;
            }
            let Some(deadline) = self.deadline(stretch.0, entry.since) else { continue };
            if deadline <= now {
                Self::expire(&entry.state, stretch.0);
            }
            next = next.min(deadline);
        }
        self.quiet.set(!moved);
        if self.is_empty() {
            return None;
        }
        Some(if moved { now + TICK } else { next.max(now + TICK) })
    }

    fn deadline(&self, phase: Phase, since: Instant) -> Option<Instant> {
        let limits = self.front.limits();
        let limit = match phase {
            Phase::Silent | Phase::Head => limits.headers_timeout,
            Phase::Idle => limits.keepalive,
            Phase::Body | Phase::Write => limits.io_timeout,
            Phase::Linger if self.drain.get() == Drain::Serving => LINGER,
            Phase::Linger => LINGER_DRAINING,
            // How long the application may take is the master's business.
            Phase::App => return None,
        };
        // A limit too large for the clock is none.
        let deadline = since.checked_add(limit);
        match (phase, self.drain.get()) {
            (Phase::Silent | Phase::Idle, Drain::Draining(idle_deadline)) => {
                Some(deadline.map_or(idle_deadline, |deadline| deadline.min(idle_deadline)))
            }
            _ => deadline,
        }
    }

    fn expire(state: &ConnectionState, phase: Phase) {
        match phase {
            Phase::Silent | Phase::Idle => state.command(Order::CloseIdle),
            Phase::Head => {
                state.refuse(TIMEOUT, false);
                state.wake();
            }
            // Too late for an answer of our own once the application's has begun.
            Phase::Body if !state.responding.get() => {
                state.refuse(TIMEOUT, true);
                state.wake();
            }
            Phase::Body | Phase::Write | Phase::Linger => state.command(Order::Abort),
            Phase::App => {}
        }
    }
}
