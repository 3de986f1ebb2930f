//! Relief for a worker that is stuck in a request: its other connections go to workers that are not.
//!
//! An application that is called on the worker's own thread holds up everything else there. When that
//! lasts, a second thread looks after the connections that rest between two requests: those whose
//! client sends something are put into the hand-over queue, unread, for whoever is free. It looks
//! seldom as long as requests are quick, every millisecond after a slow one, and not at all while the
//! worker has nothing to do. The first slow request starts it: a second thread makes every system call of
//! the process a little dearer, which applications that are always quick need not pay.
//!
//! Who has a connection is decided by one atomic in its [`Place`]: the worker's thread claims it
//! before it touches the socket, the helper before it gives the socket away.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use doubt::{Doubt, SLOW, Usage};

use super::handover;
use crate::sys::{fd, signal, stray};

mod doubt;

/// How often the helper looks while requests are slow: a worker that has not moved meanwhile is stuck.
const VIGILANT: Duration = SLOW;
/// How often it looks while they are quick.
const RELAXED: Duration = Duration::from_millis(20);
/// How long it stays vigilant after a slow request, and looks at all after it has seen the worker do
/// something.
const MEMORY: Duration = Duration::from_secs(1);
/// Longest wait for readable connections before it looks whether the worker is free again.
const GLANCE: Duration = Duration::from_millis(2);

/// The worker's thread has it.
const SERVED: u8 = 0;
/// Between two requests, with nothing read: whoever claims it first has it.
const RESTING: u8 = 1;
/// Given to another worker.
const GIVEN: u8 = 2;

/// The relief of one worker: what its own thread and the helper share.
pub struct Relief {
    /// Counts what the worker's thread does; stands still while it is stuck.
    turns: AtomicU64,
    /// The worker's thread waits for events: it is anything but stuck.
    waiting: AtomicBool,
    /// The helper waits to be woken.
    asleep: AtomicBool,
    /// There is a helper.
    started: AtomicBool,
    helper: Mutex<Option<JoinHandle<()>>>,
    /// The helper shall end.
    ended: AtomicBool,
    /// A slow request has come to its end since the helper looked.
    slow: AtomicBool,
    doubt: Doubt,
    bed: Mutex<()>,
    bell: Condvar,
    /// Where the set has the connections.
    places: Mutex<Vec<Option<Arc<Place>>>>,
    queue: OwnedFd,
}

/// A connection as the helper knows it.
#[derive(Debug)]
pub struct Place {
    state: AtomicU8,
    /// Open while the place is entered and rests.
    socket: RawFd,
    listener: Arc<str>,
}

impl Place {
    /// Takes the connection for the worker's thread; false when it has been given away.
    pub fn claim(&self) -> bool {
        let claimed = self.state.compare_exchange(RESTING, SERVED, Ordering::Acquire, Ordering::Acquire);
        claimed != Err(GIVEN)
    }

    /// The connection is between two requests and nothing of the next one has been read.
    pub fn rest(&self) {
        self.state.store(RESTING, Ordering::Release);
    }

    fn rests(&self) -> bool {
        self.state.load(Ordering::Acquire) == RESTING
    }

    fn claim_to_give(&self) -> bool {
        self.state.compare_exchange(RESTING, GIVEN, Ordering::Acquire, Ordering::Acquire).is_ok()
    }
}

impl Relief {
    /// For a worker that gives to `queue`.
    ///
    /// # Errors
    /// When there is no descriptor to be had.
    pub fn new(queue: &impl AsFd) -> io::Result<Arc<Self>> {
        let relief = Arc::new(Relief {
            turns: AtomicU64::new(0),
            waiting: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            started: AtomicBool::new(false),
            helper: Mutex::default(),
            ended: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            doubt: Doubt::default(),
            bed: Mutex::new(()),
            bell: Condvar::new(),
            places: Mutex::default(),
            queue: queue.as_fd().try_clone_to_owned()?,
        });
        // A process that the application forks has no business with it.
        stray::withhold(relief.queue.as_fd());
        Ok(relief)
    }

    /// A request took so long that the helper should look at those to come.
    pub fn request_took(self: &Arc<Self>, time: Duration) {
        if !self.doubt.was_slow(time, Usage::of_this_thread) {
            return;
        }
        self.slow.store(true, Ordering::Relaxed);
        if !self.started.swap(true, Ordering::Relaxed) {
            self.start();
        }
    }

    fn start(self: &Arc<Self>) {
        let helper = Arc::clone(self);
        let thread = std::thread::Builder::new().name("relief".to_owned()).stack_size(128 * 1024);
        let spawned = thread.spawn(move || {
            // They are for the worker's thread, whose system calls they are to interrupt.
            signal::block_all();
            helper.watch();
        });
        match spawned {
            Ok(helper) => *locked(&self.helper) = Some(helper),
            Err(error) => log::warn!("relief: {error}; connections wait for their own worker"),
        }
    }

    /// Threads of it, beside the worker's.
    pub fn threads(&self) -> u32 {
        u32::from(locked(&self.helper).is_some())
    }

    /// Ends the helper: the worker serves no more.
    pub fn end(&self) {
        let helper = locked(&self.helper).take();
        self.ended.store(true, Ordering::Relaxed);
        // Should it sleep.
        self.after_wait();
        if let Some(helper) = helper {
            // One that has panicked has ended, too.
            drop(helper.join());
        }
    }

    /// The worker's thread does something.
    pub fn turn(&self) {
        // One thread writes; no read-modify-write is needed.
        self.turns.store(self.turns.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.doubt.begin_turn(Usage::of_this_thread);
    }

    /// The worker's thread is about to wait for events.
    pub fn before_wait(&self) {
        self.waiting.store(true, Ordering::Relaxed);
    }

    /// It has something to do.
    pub fn after_wait(&self) {
        self.turn();
        // Both sides write one flag and read the other's: a total order keeps them from missing
        // each other.
        self.waiting.store(false, Ordering::SeqCst);
        if self.asleep.load(Ordering::SeqCst) {
            let _bed = locked(&self.bed);
            self.asleep.store(false, Ordering::SeqCst);
            self.bell.notify_one();
        }
    }

    /// Enters connection number `index`. With `rests`, it may be given away before it is served from here.
    pub fn enter(&self, index: usize, socket: RawFd, listener: Arc<str>, rests: bool) -> Arc<Place> {
        let state = AtomicU8::new(if rests { RESTING } else { SERVED });
        let place = Arc::new(Place { state, socket, listener });
        let mut places = locked(&self.places);
        if places.len() <= index {
            places.resize_with(index + 1, || None);
        }
        places[index] = Some(Arc::clone(&place));
        place
    }

    /// Forgets connection number `index`, whose socket is about to be closed.
    pub fn leave(&self, index: usize) {
        if let Some(place) = locked(&self.places).get_mut(index) {
            *place = None;
        }
    }

    fn watch(&self) {
        let mut vigilant_until = Instant::now();
        let mut seen = (self.turns.load(Ordering::Relaxed), Instant::now());
        while !self.ended.load(Ordering::Relaxed) {
            let turns = self.turns.load(Ordering::Relaxed);
            let now = Instant::now();
            if turns != seen.0 {
                seen = (turns, now);
            } else if now - seen.1 > MEMORY && self.waiting.load(Ordering::Relaxed) {
                self.sleep();
                continue;
            }
            if self.slow.swap(false, Ordering::Relaxed) {
                vigilant_until = now + MEMORY;
            }
            std::thread::sleep(if now < vigilant_until { VIGILANT } else { RELAXED });
            if self.is_stuck_since(turns) {
                self.relieve(turns);
                vigilant_until = Instant::now() + MEMORY;
            }
        }
    }

    fn is_stuck_since(&self, turns: u64) -> bool {
        let is_moving = self.waiting.load(Ordering::Relaxed) || self.ended.load(Ordering::Relaxed);
        !is_moving && self.turns.load(Ordering::Relaxed) == turns
    }

    /// Sleeps until the worker has something to do.
    fn sleep(&self) {
        let mut bed = locked(&self.bed);
        self.asleep.store(true, Ordering::SeqCst);
        if !self.waiting.load(Ordering::SeqCst) {
            self.asleep.store(false, Ordering::SeqCst);
        }
        while self.asleep.load(Ordering::SeqCst) {
            bed = self.bell.wait(bed).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Gives connections away as they become readable, until the worker moves again.
    fn relieve(&self, turns: u64) {
        let mut resting: Vec<(usize, RawFd)> = Vec::new();
        while self.is_stuck_since(turns) {
            resting.clear();
            let entered = |(index, place): (usize, &Option<Arc<Place>>)| {
                let place = place.as_ref()?;
                place.rests().then_some((index, place.socket))
            };
            resting.extend(locked(&self.places).iter().enumerate().filter_map(entered));
            // The worker may close one of them meanwhile and another may get its number: what is
            // readable here is only a hint.
            let readable = match fd::readable_among(resting.iter().map(|(_, socket)| *socket), GLANCE) {
                Ok(readable) => readable,
                Err(error) => return log::warn!("relief: {error}"),
            };
            for (index, socket) in readable.into_iter().map(|position| resting[position]) {
                if !self.is_stuck_since(turns) {
                    return;
                }
                if let Err(error) = self.give(index, socket) {
                    // Nobody takes anything at the moment; the worker will be as fast.
                    log::debug!("relief: {error}");
                    std::thread::sleep(VIGILANT);
                }
            }
        }
    }

    fn give(&self, index: usize, socket: RawFd) -> io::Result<()> {
        // Held until it is done: the worker cannot close the socket without it.
        let places = locked(&self.places);
        let Some(place) = places.get(index).and_then(Option::as_ref).filter(|place| place.socket == socket)
        else {
            return Ok(());
        };
        if !place.claim_to_give() {
            return Ok(());
        }
        let given = fd::duplicate_number(socket)
            .and_then(|socket| handover::give_unread(self.queue.as_fd(), &place.listener, socket.as_fd()));
        if given.is_err() {
            place.rest();
        }
        given
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::seqpacket;

    #[test]
    fn a_connection_belongs_to_who_claims_it_first() {
        let place = Place { state: AtomicU8::new(SERVED), socket: 0, listener: "a".into() };
        assert!(place.claim() && !place.claim_to_give());
        place.rest();
        assert!(place.claim() && !place.claim_to_give());
        place.rest();
        assert!(place.claim_to_give() && !place.claim() && !place.claim());
    }

    #[test]
    fn readable_connections_of_a_stuck_worker_go_to_the_queue() {
        let (queue, other) = seqpacket::pair().expect("a queue");
        let relief = Relief::new(&queue).expect("a descriptor");
        relief.request_took(RELAXED);
        let (mut client, server) = UnixStream::pair().expect("a connection");
        let (_silent, quiet) = UnixStream::pair().expect("a connection");
        let place = relief.enter(0, server.as_raw_fd(), "a".into(), false);
        let idle = relief.enter(1, quiet.as_raw_fd(), "a".into(), true);
        place.rest();
        client.write_all(b"GET").expect("sent");
        // The worker's thread does nothing from here on: it is stuck.
        assert!(fd::await_readable(other.as_fd(), Duration::from_secs(10)).expect("poll"));
        let received = seqpacket::recv(other.as_fd(), &mut [0; 256]).expect("a parcel");
        assert_eq!(received.fds.len(), 1);
        assert!(!place.claim() && idle.claim());
    }

    #[test]
    fn a_worker_that_waits_is_not_stuck() {
        let (queue, other) = seqpacket::pair().expect("a queue");
        let relief = Relief::new(&queue).expect("a descriptor");
        relief.request_took(RELAXED);
        relief.before_wait();
        let (mut client, server) = UnixStream::pair().expect("a connection");
        let place = relief.enter(0, server.as_raw_fd(), "a".into(), true);
        client.write_all(b"GET").expect("sent");
        assert!(!fd::await_readable(other.as_fd(), 4 * RELAXED).expect("poll"));
        assert!(place.claim());
        relief.after_wait();
    }
}
