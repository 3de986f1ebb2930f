//! The worker's application slots: how many requests it runs at a time (`threads`).
//!
//! One thread, so no locks: a permit is taken without waiting when one is free, and otherwise
//! handed from the request that finishes to the one that has waited longest.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use crate::scoreboard::sheet::{Sheet, Suspended};

/// The permits of one worker.
pub struct Slots {
    count: usize,
    /// Numbers of the free slots, the next one to use last.
    free: RefCell<Vec<u32>>,
    /// Requests that wait for a slot, the oldest first.
    queue: RefCell<VecDeque<Rc<Place>>>,
    /// Requests that had one and left it; they come before those that were never begun.
    returning: RefCell<VecDeque<Rc<Place>>>,
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
        f.debug_struct("Slots").field("count", &self.count).field("free", free).finish_non_exhaustive()
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
        Rc::new(Slots {
            count: threads.max(1) as usize,
            free: RefCell::new((0..threads.max(1)).rev().collect()),
            queue: RefCell::default(),
            returning: RefCell::default(),
            watcher: RefCell::default(),
            when_filled: OnceCell::new(),
            sheet: OnceCell::new(),
        })
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
        let core = self.free.borrow_mut().pop()?;
        if let Some(call) = self.when_filled.get()
            && !self.free()
        {
            call();
        }
        Some(core)
    }

    /// True when a request would get a slot at once.
    pub fn free(&self) -> bool {
        !self.free.borrow().is_empty()
    }

    /// True when somebody waits for a slot.
    pub fn contended(&self) -> bool {
        let waits =
            |queue: &RefCell<VecDeque<Rc<Place>>>| queue.borrow().iter().any(|it| !it.abandoned.get());
        waits(&self.returning) || waits(&self.queue)
    }

    /// True when no request has one.
    pub fn all_free(&self) -> bool {
        self.free.borrow().len() == self.count
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

    fn join(self: &Rc<Self>, queue: &RefCell<VecDeque<Rc<Place>>>) -> Acquire {
        let place = Rc::new(Place::default());
        match self.take() {
            Some(core) => place.granted.set(Some(core)),
            None => queue.borrow_mut().push_back(Rc::clone(&place)),
        }
        Acquire { slots: Rc::clone(self), place }
    }

    fn next(&self) -> Option<Rc<Place>> {
        self.returning.borrow_mut().pop_front().or_else(|| self.queue.borrow_mut().pop_front())
    }

    fn release(&self, core: u32) {
        if let Some(sheet) = self.sheet.get() {
            sheet.end(core);
        }
        while let Some(place) = self.next() {
            if place.abandoned.get() {
                continue;
            }
            place.granted.set(Some(core));
            if let Some(waker) = place.waker.take() {
                waker.wake();
            }
            return;
        }
        self.free.borrow_mut().push(core);
        if let Some(waker) = self.watcher.take() {
            waker.wake();
        }
    }
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
