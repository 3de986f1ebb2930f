//! The worker's application slots: how many requests it runs at a time (`threads`).
//!
//! One thread, so no locks: a permit is taken without waiting when one is free, and otherwise
//! handed from the request that finishes to the one that has waited longest.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

/// The permits of one worker.
#[derive(Debug)]
pub struct Slots {
    /// Numbers of the free slots, the next one to use last.
    free: RefCell<Vec<u32>>,
    /// Requests that wait for a slot, the oldest first.
    queue: RefCell<VecDeque<Rc<Place>>>,
    /// The accept loop, when it waits for a free slot.
    watcher: RefCell<Option<Waker>>,
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
            free: RefCell::new((0..threads.max(1)).rev().collect()),
            queue: RefCell::default(),
            watcher: RefCell::default(),
        })
    }

    /// True when a request would get a slot at once.
    pub fn free(&self) -> bool {
        !self.free.borrow().is_empty()
    }

    /// Waits until [`Slots::free`]. Only one task, the accept loop, may wait here.
    pub async fn wait_free(&self) {
        poll_fn(|cx| {
            if self.free() {
                return Poll::Ready(());
            }
            *self.watcher.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Takes a slot if one is free.
    pub fn try_acquire(self: &Rc<Self>) -> Option<Permit> {
        let core = self.free.borrow_mut().pop()?;
        Some(Permit { slots: Rc::clone(self), core })
    }

    /// Takes a slot, or joins the queue for one.
    pub fn acquire(self: &Rc<Self>) -> Acquire {
        let place = Rc::new(Place::default());
        match self.free.borrow_mut().pop() {
            Some(core) => place.granted.set(Some(core)),
            None => self.queue.borrow_mut().push_back(Rc::clone(&place)),
        }
        Acquire { slots: Rc::clone(self), place }
    }

    fn release(&self, core: u32) {
        loop {
            let Some(place) = self.queue.borrow_mut().pop_front() else { break };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(acquire: &mut Acquire) -> Option<Permit> {
        match Pin::new(acquire).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
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
