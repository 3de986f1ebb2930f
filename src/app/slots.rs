//! The worker's application slots: how many requests it runs at a time (`threads`).
//!
//! One thread, so no locks: a permit is taken without waiting when one is free, and otherwise
//! handed from the request that finishes to the one that has waited longest.
//!
//! An application with threads of its own has a slot free only when its response has found its way back
//! to this thread. While requests are quick, that way is longer than they are. Then some more of them are
//! let in ([`Slots::let_more_in`]) and wait right before the threads, which take one after the other. They
//! are requests of connections that this worker has anyway: it takes no client for them.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::scoreboard::sheet::Sheet;

mod claim;
#[cfg(test)]
mod tests;

pub use claim::{Claim, Pinned};

/// Requests that a worker with threads lets in at most, if it has fewer threads.
const LET_IN: u32 = 64;

/// The permits of one worker.
pub struct Slots {
    /// Requests that run at a time.
    count: usize,
    /// Rows there are: for those, and for requests that were let in beyond.
    rows: usize,
    /// Numbers of the free rows, the next one to use last.
    free: RefCell<Vec<u32>>,
    /// Requests that wait for a slot, the oldest first.
    queue: RefCell<VecDeque<Rc<Place>>>,
    /// Requests that had one and left it; they come before those that were never begun.
    returning: RefCell<VecDeque<Rc<Place>>>,
    /// Who waits for its turn, and how many requests come before it.
    turn: RefCell<Option<(Rc<Place>, usize)>>,
    /// True while more requests may be let in than there are slots.
    more: OnceCell<Box<dyn Fn() -> bool>>,
    /// The worker that leaves.
    watcher: RefCell<Option<Waker>>,
    /// Called when the last free slot is taken.
    when_filled: OnceCell<Box<dyn Fn()>>,
    /// Where the requests that have a slot are written down.
    sheet: OnceCell<Arc<Sheet>>,
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = &self.free.borrow();
        f.debug_struct("Slots").field("count", &self.count).field("free rows", free).finish_non_exhaustive()
    }
}

/// A place in the queue.
#[derive(Debug, Default)]
struct Place {
    granted: Cell<Option<u32>>,
    abandoned: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Slots {
    /// `threads` free slots.
    pub fn new(threads: u32) -> Rc<Self> {
        let rows = Self::rows(threads);
        Rc::new(Slots {
            count: threads.max(1) as usize,
            rows: rows as usize,
            free: RefCell::new((0..rows).rev().collect()),
            queue: RefCell::default(),
            returning: RefCell::default(),
            turn: RefCell::default(),
            more: OnceCell::new(),
            watcher: RefCell::default(),
            when_filled: OnceCell::new(),
            sheet: OnceCell::new(),
        })
    }

    /// Rows that a sheet needs for the requests of so many threads.
    pub fn rows(threads: u32) -> u32 {
        if threads > 1 { threads.max(LET_IN) } else { 1 }
    }

    /// Lets in more requests than there are slots while `more` is true. They have to wait for each other by
    /// themselves. Once only.
    pub fn let_more_in(&self, more: Box<dyn Fn() -> bool>) {
        let set = self.more.set(more);
        debug_assert!(set.is_ok(), "invariant: the worker says it once");
    }

    /// Has `call` called whenever the last free slot is about to be used. Once only.
    pub fn when_filled(&self, call: impl Fn() + 'static) {
        let set = self.when_filled.set(Box::new(call));
        debug_assert!(set.is_ok(), "invariant: the worker says it once");
    }

    /// Has requests that get a slot written down there, for as long as they have it. Once only.
    pub fn write_down(&self, sheet: Arc<Sheet>) {
        let set = self.sheet.set(sheet);
        debug_assert!(set.is_ok(), "invariant: the worker says it once");
    }

    /// Takes a slot without waiting.
    fn take(&self) -> Option<u32> {
        if !self.has_room() {
            return None;
        }
        let core = self.free.borrow_mut().pop()?;
        if let Some(call) = self.when_filled.get()
            && self.used() == self.count
        {
            call();
        }
        Some(core)
    }

    /// Requests that are let in.
    fn used(&self) -> usize {
        self.rows - self.free.borrow().len()
    }

    /// True when one more request may be let in.
    fn has_room(&self) -> bool {
        self.free() || (self.used() < self.rows && self.more.get().is_some_and(|more| more()))
    }

    /// True when a request would have a slot at once.
    pub fn free(&self) -> bool {
        self.used() < self.count
    }

    /// True when somebody waits for a slot.
    pub fn contended(&self) -> bool {
        let waits =
            |queue: &RefCell<VecDeque<Rc<Place>>>| queue.borrow().iter().any(|it| !it.abandoned.get());
        self.used() > self.count || waits(&self.returning) || waits(&self.queue)
    }

    /// True when no request has one.
    pub fn all_free(&self) -> bool {
        self.used() == 0
    }

    /// Waits until [`Slots::all_free`]: the application has finished. Only one task may wait here.
    pub async fn wait_all_free(&self) {
        poll_fn(|cx| {
            if self.all_free() {
                return Poll::Ready(());
            }
            *self.watcher.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Takes a slot if one is free.
    pub fn try_acquire(self: &Rc<Self>) -> Option<Permit> {
        let core = self.take()?;
        Some(Permit::new(self, core))
    }

    /// Takes a slot, or joins the queue for one.
    pub fn acquire(self: &Rc<Self>) -> Acquire {
        self.join(&self.queue)
    }

    /// Takes a slot when those have had one that are let in or wait by now. Only one task may wait here.
    pub fn acquire_in_turn(self: &Rc<Self>) -> Acquire {
        let place = Rc::new(Place::default());
        if self.free()
            && let Some(core) = self.take()
        {
            place.granted.set(Some(core));
        } else {
            let before = self.used().saturating_sub(self.count) + self.queue.borrow().len();
            self.turn.replace(Some((Rc::clone(&place), before)));
        }
        Acquire { slots: Rc::clone(self), place }
    }

    fn join(self: &Rc<Self>, queue: &RefCell<VecDeque<Rc<Place>>>) -> Acquire {
        let place = Rc::new(Place::default());
        match self.take() {
            Some(core) => place.granted.set(Some(core)),
            None => queue.borrow_mut().push_back(Rc::clone(&place)),
        }
        Acquire { slots: Rc::clone(self), place }
    }

    fn release(&self, core: u32) {
        if let Some(sheet) = self.sheet.get() {
            sheet.end(core);
        }
        self.free.borrow_mut().push(core);
        if self.has_room()
            && let Some(place) = first(&self.returning)
        {
            self.grant(&place);
        } else if self.advance_turn() {
            self.grant_turn();
        }
        while self.has_room()
            && let Some(place) = first(&self.queue)
        {
            self.grant(&place);
        }
        if self.free() {
            self.grant_turn();
        }
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }

    /// Another one that came before has had its slot; true when it is the turn of who waits for that.
    fn advance_turn(&self) -> bool {
        match &mut *self.turn.borrow_mut() {
            None => false,
            Some((_, 0)) => true,
            Some((_, before)) => {
                *before -= 1;
                false
            }
        }
    }

    fn grant_turn(&self) {
        if let Some((place, _)) = self.turn.take()
            && !place.abandoned.get()
        {
            self.grant(&place);
        }
    }

    /// There is a free row.
    fn grant(&self, place: &Place) {
        place.granted.set(self.free.borrow_mut().pop());
        if let Some(waker) = place.waker.take() {
            waker.wake();
        }
    }
}

/// Who has waited longest.
fn first(queue: &RefCell<VecDeque<Rc<Place>>>) -> Option<Rc<Place>> {
    let mut queue = queue.borrow_mut();
    std::iter::from_fn(|| queue.pop_front()).find(|place| !place.abandoned.get())
}

/// One slot in use; free again when this is dropped.
#[derive(Debug)]
pub struct Permit {
    slots: Rc<Slots>,
    core: u32,
    /// How long its request had it in vain.
    waited: Cell<Duration>,
}

impl Permit {
    fn new(slots: &Rc<Slots>, core: u32) -> Self {
        Permit { slots: Rc::clone(slots), core, waited: Cell::default() }
    }

    /// The number of the slot, 0-based.
    pub fn core(&self) -> u32 {
        self.core
    }

    /// Where the request that has it is written down.
    pub(crate) fn sheet(&self) -> Option<&Sheet> {
        self.slots.sheet.get().map(|sheet| &**sheet)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.slots.release(self.core);
    }
}

/// Waits for a slot. Dropping it leaves the queue.
#[derive(Debug)]
pub struct Acquire {
    slots: Rc<Slots>,
    place: Rc<Place>,
}

impl Future for Acquire {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        match self.place.granted.take() {
            Some(core) => Poll::Ready(Permit::new(&self.slots, core)),
            None => {
                *self.place.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Acquire {
    fn drop(&mut self) {
        self.place.abandoned.set(true);
        // Granted but never picked up: the next in the queue must not starve.
        if let Some(core) = self.place.granted.take() {
            self.slots.release(core);
        }
    }
}
