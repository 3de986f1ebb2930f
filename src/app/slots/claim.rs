//! A request's hold on its slot, which its client may interrupt.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::{Acquire, Permit, Slots};
use crate::scoreboard::sheet::Suspended;

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
pub struct Pinned(Rc<Permit>);

impl Pinned {
    /// The request has waited so long for a thread of the application.
    pub(crate) fn note_wait(&self, time: Duration) {
        self.0.waited.set(time);
    }
}

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

    /// How long it has waited for a thread of the application, as far as is known.
    pub(crate) fn waited(&self) -> Duration {
        match &*self.0.borrow() {
            Stage::Held(permit) => permit.waited.get(),
            Stage::None | Stage::Left(..) | Stage::Returning(..) => Duration::ZERO,
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
