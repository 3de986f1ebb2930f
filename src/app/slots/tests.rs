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

/// Two slots, and whether requests are quick, which they are.
fn two_and_more() -> (Rc<Slots>, Rc<Cell<bool>>) {
    let (slots, quick) = (Slots::new(2), Rc::new(Cell::new(true)));
    let answer = Rc::clone(&quick);
    slots.let_more_in(Box::new(move || answer.get()));
    (slots, quick)
}

#[test]
fn more_than_there_are_slots_are_let_in_while_requests_are_quick() {
    let (slots, quick) = two_and_more();
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
    let (slots, _quick) = two_and_more();
    let mut held: Vec<Permit> = std::iter::from_fn(|| slots.try_acquire()).collect();
    assert_eq!(held.len(), LET_IN as usize);
    let mut waiting = slots.acquire();
    assert!(poll(&mut waiting).is_none());
    held.pop();
    assert!(poll(&mut waiting).is_some());
}

#[test]
fn who_waits_for_its_turn_comes_after_those_that_were_let_in_before() {
    let (slots, _quick) = two_and_more();
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
    let lines =
        || -> Vec<String> { file.read().expect("readable").requests.into_iter().map(|it| it.line).collect() };
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
