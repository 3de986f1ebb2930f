//! What one connection tells the worker about itself: counters and flags in cells.
//!
//! Written by the IO wrapper and the service while hyper runs, read between hyper's polls by the
//! connection and by the sweeper. From these figures follows what the connection is waiting for;
//! nothing on the request path reads a clock for it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};

use super::Refusal;
use super::outgoing::Outgoing;
use crate::app::slots::Claim;

/// What a connection is waiting for; decides which time limit applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// For the first byte of its first request.
    Silent,
    /// For the rest of a request head.
    Head,
    /// For more of a request body that somebody wants to read.
    Body,
    /// For the application.
    App,
    /// For the client to take more of a response.
    Write,
    /// For the next request.
    Idle,
    /// For the client to close, after the last answer.
    Linger,
}

/// What the sweeper wants a connection to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Close if it is idle; forget it if it is not.
    CloseIdle,
    /// Go to another worker once it is between two requests, if that is still useful then.
    HandOver,
    /// Close whatever it is doing.
    Abort,
    /// Go to another worker now, if it is between two requests; close if it is not.
    Evict,
}

/// A refusal of this connection's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// What to answer.
    pub refusal: Refusal,
    /// The head of the message had been accepted: the answer takes the place of the
    /// application's. Otherwise it follows the answers that are due.
    pub in_body: bool,
}

/// The figures of one connection.
#[derive(Debug, Default)]
pub struct ConnectionState {
    /// Request heads passed on to hyper.
    pub(crate) heads: Cell<u64>,
    /// It had answers before, from another worker.
    pub(crate) known: Cell<bool>,
    /// Requests answered, or given up.
    pub(crate) finished: Cell<u64>,
    /// Part of a head has been read.
    pub(crate) in_head: Cell<bool>,
    /// A request body has not been read to its end.
    pub(crate) in_body: Cell<bool>,
    /// The last read found nothing.
    pub(crate) read_blocked: Cell<bool>,
    /// The last write was not taken.
    pub(crate) write_blocked: Cell<bool>,
    /// The client has closed its side.
    pub(crate) end_of_input: Cell<bool>,
    /// The newest request is the client's last.
    pub(crate) last_request: Cell<bool>,
    /// Bytes read and written.
    pub(crate) received: Cell<u64>,
    pub(crate) sent: Cell<u64>,
    /// A response has been handed to hyper and is not finished.
    pub(crate) responding: Cell<bool>,
    /// The last answer is out; only the close is left.
    pub(crate) lingering: Cell<bool>,
    /// The slot of the request in flight.
    pub(crate) claim: Rc<Claim>,
    /// The application waits for more of the request body.
    pub(crate) reading: Cell<bool>,
    /// The application has been asked for more of the response body and has none yet.
    pub(crate) producing: Cell<bool>,
    /// The file that is the body of the response.
    pub(crate) outgoing: Outgoing,
    pub(crate) refused: Cell<Option<Refused>>,
    pub(crate) order: Cell<Option<Order>>,
    waker: RefCell<Option<Waker>>,
}

impl ConnectionState {
    /// Every request that was read has been answered and the client has taken the answers.
    pub fn all_answered(&self) -> bool {
        self.heads.get() == self.finished.get() && !self.write_blocked.get()
    }

    /// Between requests: nothing in flight, nothing half-read.
    pub fn idle(&self) -> bool {
        self.all_answered() && !self.in_head.get() && !self.in_body.get() && !self.lingering.get()
    }

    /// The client has not completed a request yet.
    pub fn silent(&self) -> bool {
        self.heads.get() == 0 && !self.known.get()
    }

    /// What the connection is waiting for.
    pub fn phase(&self) -> Phase {
        if self.lingering.get() {
            Phase::Linger
        } else if self.write_blocked.get() {
            Phase::Write
        } else if self.in_body.get() && self.read_blocked.get() {
            Phase::Body
        } else if !self.all_answered() {
            Phase::App
        } else if self.in_head.get() {
            Phase::Head
        } else if self.silent() {
            Phase::Silent
        } else {
            Phase::Idle
        }
    }

    /// Changes whenever the clock of the present phase starts anew. A head or an idle wait is one
    /// stretch however its bytes drip; a transfer may take any time as long as it moves.
    pub fn stretch(&self) -> (Phase, u64) {
        let phase = self.phase();
        let count = match phase {
            Phase::Silent | Phase::Linger | Phase::App => 0,
            Phase::Head | Phase::Idle => self.finished.get(),
            Phase::Body => self.received.get(),
            Phase::Write => self.sent.get(),
        };
        (phase, count)
    }

    /// Leaves the slot to other requests if nothing but the client is waited for.
    pub(crate) fn leave_slot_to_others(&self) {
        let upload = self.in_body.get() && self.read_blocked.get() && self.reading.get();
        let download = self.responding.get() && self.write_blocked.get() && !self.producing.get();
        if upload || download {
            self.claim.leave();
        }
    }

    /// Remembers whom to wake when the connection has to look at its orders.
    pub(crate) fn register(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Refuses the client; the first refusal stands.
    pub(crate) fn refuse(&self, refusal: Refusal, in_body: bool) {
        if self.refused.get().is_none() {
            self.refused.set(Some(Refused { refusal, in_body }));
        }
    }

    /// What to answer in place of the application, if anything.
    pub(crate) fn refused_in_body(&self) -> Option<Refusal> {
        self.refused.get().filter(|refused| refused.in_body).map(|refused| refused.refusal)
    }

    /// What to answer after the answers that are due, if anything.
    pub(crate) fn refused_head(&self) -> Option<Refusal> {
        self.refused.get().filter(|refused| !refused.in_body).map(|refused| refused.refusal)
    }

    /// Gives an order and wakes the connection to carry it out.
    pub(crate) fn command(&self, order: Order) {
        self.order.set(Some(order));
        self.wake();
    }

    /// Makes the connection look at its state again.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_phase_follows_from_the_figures() {
        let state = ConnectionState::default();
        assert_eq!(state.phase(), Phase::Silent);
        state.in_head.set(true);
        assert_eq!(state.phase(), Phase::Head);
        state.in_head.set(false);
        state.heads.set(1);
        state.in_body.set(true);
        assert_eq!(state.phase(), Phase::App);
        state.read_blocked.set(true);
        assert_eq!(state.phase(), Phase::Body);
        state.in_body.set(false);
        state.finished.set(1);
        state.write_blocked.set(true);
        assert_eq!(state.phase(), Phase::Write);
        assert!(!state.idle());
        state.write_blocked.set(false);
        assert_eq!(state.phase(), Phase::Idle);
        assert!(state.idle());
    }

    #[test]
    fn a_dripping_head_is_one_stretch_and_a_moving_body_is_not() {
        let state = ConnectionState::default();
        state.in_head.set(true);
        let head = state.stretch();
        state.received.set(7);
        assert_eq!(state.stretch(), head);
        state.in_head.set(false);
        state.heads.set(1);
        state.in_body.set(true);
        state.read_blocked.set(true);
        let body = state.stretch();
        state.received.set(8);
        assert_ne!(state.stretch(), body);
    }
}
