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
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use crate::scoreboard::sheet::{Sheet, Suspended};

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
    pub fn let_more_in(&self, more: impl Fn() -> bool + 'static) {
        let set = self.more.set(Box::new(more));
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
        Some(Permit { slots: Rc::clone(self), core })
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
        } else if self.turn_has_come() {
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

    /// Another one that came before has had its slot.
    fn turn_has_come(&self) -> bool {
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
}

impl Permit {
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
            Some(core) => Poll::Ready(Permit { slots: Rc::clone(&self.slots), core }),
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

/// A request's claim to a slot, from its begin to its end. The request leaves the slot to others
/// while its client keeps it waiting, and is let in again before those that were never begun.
#[derive(Debug, Default)]
pub struct Claim(RefCell<Stage>);

#[derive(Debug, Default)]
enum Stage {
    /// There is no request, or it needs no slot.
    #[default]
    None,
    Held(Rc<Permit>),
    /// Given up, unless the application has pinned it.
    Left(Rc<Slots>, Weak<Permit>, Option<Box<Suspended>>),
    Returning(Acquire, Option<Box<Suspended>>),
}

/// Keeps a request's slot occupied while the application works on it, whatever its client does.
#[derive(Debug)]
pub struct Pinned(#[expect(dead_code, reason = "dropping it is what it is for")] Rc<Permit>);

impl Claim {
    /// The request begins.
    pub fn begin(&self, permit: Option<Permit>) {
        self.set(permit.map_or(Stage::None, |permit| Stage::Held(Rc::new(permit))));
    }

    /// The request ends.
    pub fn end(&self) {
        self.set(Stage::None);
    }

    /// Others may use the slot. No effect unless it is held.
    pub fn leave(&self) {
        let left = match &*self.0.borrow() {
            Stage::Held(permit) => {
                // Pinned, it is occupied by the application, whose time goes on.
                let alone = Rc::strong_count(permit) == 1;
                let sheet = permit.sheet().filter(|_| alone);
                let suspended = sheet.and_then(|sheet| sheet.suspend(permit.core));
                Stage::Left(Rc::clone(&permit.slots), Rc::downgrade(permit), suspended)
            }
            Stage::None | Stage::Left(..) | Stage::Returning(..) => return,
        };
        self.set(left);
    }

    /// Keeps the slot occupied until the result is dropped, even if the request ends or its client
    /// makes it wait. `None` unless the slot is held.
    pub fn pin(&self) -> Option<Pinned> {
        match &*self.0.borrow() {
            Stage::Held(permit) => Some(Pinned(Rc::clone(permit))),
            Stage::None | Stage::Left(..) | Stage::Returning(..) => None,
        }
    }

    /// The number of the slot, 0-based; 0 for a request that has none.
    pub fn core(&self) -> u32 {
        match &*self.0.borrow() {
            Stage::Held(permit) => permit.core,
            Stage::None | Stage::Left(..) | Stage::Returning(..) => 0,
        }
    }

    /// The number of the thread that works for it, as the application knows it; `None` if it has no slot.
    pub(crate) fn thread(&self) -> Option<u32> {
        match &*self.0.borrow() {
            Stage::Held(permit) => permit.sheet()?.core(permit.core),
            Stage::None | Stage::Left(..) | Stage::Returning(..) => None,
        }
    }

    /// Ready once the slot is held again, at once if it was never left.
    pub fn poll_return(&self, cx: &mut Context<'_>) -> Poll<()> {
        let back = match &mut *self.0.borrow_mut() {
            Stage::Left(slots, permit, suspended) => Some(match permit.upgrade() {
                Some(pinned) => Stage::Held(pinned),
                None => Stage::Returning(slots.join(&slots.returning), suspended.take()),
            }),
            Stage::None | Stage::Held(_) | Stage::Returning(..) => None,
        };
        if let Some(back) = back {
            self.set(back);
        }
        let permit = match &mut *self.0.borrow_mut() {
            Stage::Returning(acquire, suspended) => {
                let permit = ready!(Pin::new(acquire).poll(cx));
                if let (Some(sheet), Some(suspended)) = (permit.sheet(), suspended) {
                    sheet.resume(permit.core, suspended);
                }
                permit
            }
            Stage::None | Stage::Held(_) | Stage::Left(..) => return Poll::Ready(()),
        };
        self.set(Stage::Held(Rc::new(permit)));
        Poll::Ready(())
    }

    fn set(&self, stage: Stage) {
        // Dropped with the cell free again: a slot that is given up wakes others.
        drop(self.0.replace(stage));
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Instant;

    use super::*;
    use crate::scoreboard::sheet::SheetFile;

    fn poll(acquire: &mut Acquire) -> Option<Permit> {
        match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn who_has_left_the_queue_waits_no_more() {
        let slots = Slots::new(1);
        let permit = slots.try_acquire().expect("it is free");
        assert!(!slots.contended());
        let waiting = slots.acquire();
        assert!(slots.contended());
        drop(waiting);
        assert!(!slots.contended());
        drop(permit);
        assert!(slots.free());
    }

    #[test]
    fn there_are_as_many_permits_as_threads() {
        let slots = Slots::new(2);
        let first = slots.try_acquire().expect("first");
        let second = slots.try_acquire().expect("second");
        assert_eq!((first.core(), second.core()), (0, 1));
        assert!(slots.try_acquire().is_none() && !slots.free());
        drop(first);
        assert!(slots.free());
        assert_eq!(slots.try_acquire().expect("third").core(), 0);
    }

    #[test]
    fn waiting_requests_are_served_in_order() {
        let slots = Slots::new(1);
        let permit = slots.try_acquire();
        let (mut first, mut second) = (slots.acquire(), slots.acquire());
        assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
        drop(permit);
        assert!(poll(&mut second).is_none());
        let permit = poll(&mut first).expect("first in the queue");
        assert!(!slots.free());
        drop(permit);
        assert!(poll(&mut second).is_some());
        assert!(slots.free());
    }

    /// Two slots, and whether requests are quick.
    fn two_and_more(quick: bool) -> (Rc<Slots>, Rc<Cell<bool>>) {
        let (slots, answer) = (Slots::new(2), Rc::new(Cell::new(quick)));
        let quick = Rc::clone(&answer);
        slots.let_more_in(move || quick.get());
        (slots, answer)
    }

    #[test]
    fn more_than_there_are_slots_are_let_in_while_requests_are_quick() {
        let (slots, quick) = two_and_more(true);
        let mut held: Vec<Permit> = (0..4).map_while(|_| slots.try_acquire()).collect();
        assert_eq!(held.len(), 4);
        assert!(!slots.free() && slots.contended());
        quick.set(false);
        let mut waiting = slots.acquire();
        held.truncate(2);
        assert!(poll(&mut waiting).is_none() && !slots.free(), "the slots are occupied");
        held.truncate(1);
        assert!(poll(&mut waiting).is_some());
        drop(held);
        assert!(slots.all_free());
    }

    #[test]
    fn there_is_an_end_to_what_is_let_in() {
        let (slots, _quick) = two_and_more(true);
        let mut held: Vec<Permit> = std::iter::from_fn(|| slots.try_acquire()).collect();
        assert_eq!(held.len(), LET_IN as usize);
        let mut waiting = slots.acquire();
        assert!(poll(&mut waiting).is_none());
        held.pop();
        assert!(poll(&mut waiting).is_some());
    }

    #[test]
    fn who_waits_for_its_turn_comes_after_those_that_were_let_in_before() {
        let (slots, _quick) = two_and_more(true);
        let mut held: Vec<Permit> = (0..4).map_while(|_| slots.try_acquire()).collect();
        let mut turn = slots.acquire_in_turn();
        for _ in 0..2 {
            held.extend(slots.try_acquire());
            held.remove(0);
            assert!(poll(&mut turn).is_none());
        }
        held.extend(slots.try_acquire());
        held.remove(0);
        assert!(poll(&mut turn).is_some(), "and not after those that came later");
    }

    #[test]
    fn who_waits_for_its_turn_comes_after_those_that_waited_before() {
        let slots = Slots::new(1);
        let permit = slots.try_acquire();
        let mut first = slots.acquire();
        let mut turn = slots.acquire_in_turn();
        let mut last = slots.acquire();
        drop(permit);
        let permit = poll(&mut first).expect("it was the first");
        assert!(poll(&mut turn).is_none());
        drop(permit);
        let permit = poll(&mut turn).expect("its turn");
        assert!(poll(&mut last).is_none());
        drop(permit);
        assert!(poll(&mut last).is_some());
        assert!(slots.free());
    }

    #[test]
    fn a_turn_that_is_given_up_is_nobodys() {
        let slots = Slots::new(1);
        let permit = slots.try_acquire();
        drop(slots.acquire_in_turn());
        drop(permit);
        assert!(slots.all_free());
    }

    #[test]
    fn a_request_that_left_its_slot_comes_before_those_never_begun() {
        let cx = &mut Context::from_waker(Waker::noop());
        let slots = Slots::new(1);
        let claim = Claim::default();
        assert!(claim.poll_return(cx).is_ready(), "nothing to return to");
        claim.begin(slots.try_acquire());
        assert!(claim.poll_return(cx).is_ready() && !slots.free());
        claim.leave();
        claim.leave();
        let other = slots.try_acquire().expect("left to others");
        let mut queued = slots.acquire();
        assert!(poll(&mut queued).is_none());
        assert!(claim.poll_return(cx).is_pending());
        drop(other);
        assert!(poll(&mut queued).is_none());
        assert!(claim.poll_return(cx).is_ready());
        claim.end();
        assert!(poll(&mut queued).is_some());
        assert!(slots.free());
    }

    #[test]
    fn a_request_that_ends_on_its_way_back_loses_no_slot() {
        let cx = &mut Context::from_waker(Waker::noop());
        let slots = Slots::new(1);
        let claim = Claim::default();
        claim.begin(slots.try_acquire());
        claim.leave();
        let other = slots.try_acquire();
        assert!(claim.poll_return(cx).is_pending());
        drop(other);
        assert!(!slots.free(), "granted to the one that returns");
        claim.end();
        assert!(slots.free());
    }

    #[test]
    fn a_pinned_slot_is_occupied_until_the_application_has_finished() {
        let cx = &mut Context::from_waker(Waker::noop());
        let slots = Slots::new(1);
        let claim = Claim::default();
        assert!(claim.pin().is_none());
        claim.begin(slots.try_acquire());
        let pinned = claim.pin();
        claim.leave();
        assert!(!slots.free());
        assert!(claim.poll_return(cx).is_ready(), "it is still there");
        claim.end();
        assert!(!slots.free());
        drop(pinned);
        assert!(slots.free());
    }

    #[test]
    fn a_request_is_written_down_while_it_has_a_slot() {
        let file = SheetFile::create().expect("memory files exist");
        let copy = file.as_fd().try_clone_to_owned().expect("descriptors are left");
        let slots = Slots::new(1);
        slots.write_down(Arc::new(Sheet::adopt(copy, 1, None).expect("just made")));
        let lines = || -> Vec<String> {
            file.read().expect("readable").requests.into_iter().map(|it| it.line).collect()
        };
        let begin = |claim: &Claim, target: &str| {
            let permit = slots.try_acquire().expect("it is free");
            permit.sheet().expect("set").begin(permit.core(), Instant::now(), None, "GET", target);
            claim.begin(Some(permit));
        };
        let cx = &mut Context::from_waker(Waker::noop());
        let (slow, quick) = (Claim::default(), Claim::default());
        begin(&slow, "/slow");
        assert_eq!(lines(), ["GET /slow"]);
        slow.leave();
        assert_eq!(lines(), [""; 0], "it waits for its client");
        begin(&quick, "/quick");
        assert!(slow.poll_return(cx).is_pending());
        assert_eq!(lines(), ["GET /quick"]);
        quick.end();
        assert!(slow.poll_return(cx).is_ready());
        assert_eq!(lines(), ["GET /slow"]);
        let pinned = slow.pin();
        slow.leave();
        assert_eq!(lines(), ["GET /slow"], "the application is at work");
        slow.end();
        drop(pinned);
        assert_eq!(lines(), [""; 0]);
    }

    #[test]
    fn leaving_the_queue_loses_no_permit() {
        let slots = Slots::new(1);
        let permit = slots.try_acquire();
        let (left, mut granted, mut last) = (slots.acquire(), slots.acquire(), slots.acquire());
        drop(left);
        assert!(poll(&mut granted).is_none());
        drop(permit);
        drop(granted);
        assert!(poll(&mut last).is_some());
        assert!(slots.free());
    }
}
