//! The listeners as one worker watches them: a new client wakes one sleeping worker, not all.
//!
//! The kernel chooses whom ([`Exclusive`]). What it does not know is whether that worker can take the
//! client: it may be full, paused, on its way out, or about to run a request that came in the same moment.
//! The others sleep on and would not hear of the client until the next one comes. So:
//! - Who cannot take clients does not watch ([`Lookout::withdraw`]). To watch again is to look, too.
//! - Who has heard of a client and cannot take it passes that on ([`Lookout::pass_on`]): it rings a bell,
//!   which wakes one of those that sleep, and so on until one of them can.
//! - A worker that is awake at that moment is not woken by a bell. So the scoreboard says that a client may
//!   wait unheard; each worker reads that right before it sleeps ([`Parking`]), and looks first.
//!
//! The bell is the direction of the hand-over queue that carries no connections. All workers of all
//! generations have it.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed, Ordering::SeqCst, fence};
use std::task::{Context, Poll};

use log::debug;
use tokio::sync::Notify;

use crate::scoreboard::Scoreboard;
use crate::sys::exclusive::Exclusive;
use crate::sys::{fd, seqpacket, stray};

/// What is sent to ring: who is woken knows all by that.
const RING: &[u8] = b"!";

/// What a worker says and reads before it sleeps; called by its runtime.
#[derive(Debug)]
pub struct Parking {
    scoreboard: Arc<Scoreboard>,
    cell: usize,
    /// A new client would wake this worker.
    watching: AtomicBool,
    /// The worker shall look before it sleeps.
    look: AtomicBool,
    stir: Notify,
}

impl Parking {
    /// For the worker of cell `cell`.
    pub fn new(scoreboard: Arc<Scoreboard>, cell: usize) -> Arc<Self> {
        let (watching, look) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Parking { scoreboard, cell, watching, look, stir: Notify::new() })
    }

    /// The worker is about to sleep.
    pub fn before_wait(&self) {
        if !self.watching.load(Relaxed) {
            return;
        }
        self.scoreboard.cell(self.cell).set_parked(1);
        // Both sides write one word and read the other's: a total order keeps them from missing each other.
        fence(SeqCst);
        if self.scoreboard.unheard() && !self.look.swap(true, Relaxed) {
            self.stir.notify_one();
        }
    }

    /// It has something to do.
    pub fn after_wait(&self) {
        self.scoreboard.cell(self.cell).set_parked(0);
    }
}

/// A listener, and whether it is worth a try although the reactor knows of nothing.
#[derive(Debug)]
struct Watched {
    listener: Exclusive,
    promising: Cell<bool>,
}

/// What one worker watches for new clients.
#[derive(Debug)]
pub struct Lookout {
    listeners: Vec<Watched>,
    /// Heard of when another worker rings.
    bell: Exclusive,
    /// What to ring with.
    ringer: OwnedFd,
    parking: Arc<Parking>,
    /// The listener to look at first, so that none starves.
    turn: Cell<usize>,
}

impl Lookout {
    /// Watches `listeners`. `queue` is the hand-over queue: the end to take from and the end to give to.
    ///
    /// # Errors
    /// When the reactor refuses a descriptor, or none is left.
    pub fn new(
        listeners: Vec<OwnedFd>,
        queue: (BorrowedFd<'_>, BorrowedFd<'_>),
        parking: Arc<Parking>,
    ) -> io::Result<Self> {
        let watched =
            |fd| Exclusive::new(fd).map(|listener| Watched { listener, promising: Cell::new(false) });
        let copy = |fd: BorrowedFd<'_>| -> io::Result<OwnedFd> {
            let copy = fd::shelter(fd.try_clone_to_owned()?);
            // A process that the application forks has no business with it.
            stray::withhold(copy.as_fd());
            Ok(copy)
        };
        let (take_from, give_to) = queue;
        let bell = Exclusive::new(copy(give_to)?)?;
        if !bell.is_exclusive() {
            debug!("EPOLLEXCLUSIVE cannot be had: every new client wakes all workers that wait");
        }
        let listeners = listeners.into_iter().map(watched).collect::<io::Result<_>>()?;
        parking.watching.store(true, Relaxed);
        Ok(Lookout { listeners, bell, ringer: copy(take_from)?, parking, turn: Cell::new(0) })
    }

    /// The bare listeners, in the order of [`Lookout::new`].
    pub fn into_listeners(self) -> impl Iterator<Item = OwnedFd> {
        self.into_parts().0
    }

    /// The same, and the hand-over queue: the end to take from and the end to give to.
    pub fn into_parts(self) -> (impl Iterator<Item = OwnedFd>, (OwnedFd, OwnedFd)) {
        let listeners = self.listeners.into_iter().map(|watched| watched.listener.into_inner());
        (listeners, (self.ringer, self.bell.into_inner()))
    }

    /// Listener number `index`.
    pub fn listener(&self, index: usize) -> BorrowedFd<'_> {
        self.listeners[index].listener.as_fd()
    }

    /// Waits for a listener that may have a client, and returns its number.
    pub async fn next(&self) -> usize {
        let mut stirred = pin!(self.parking.stir.notified());
        poll_fn(|cx| {
            if stirred.as_mut().poll(cx).is_ready() {
                stirred.set(self.parking.stir.notified());
                // It has to be heard the next time, too.
                let _ = stirred.as_mut().poll(cx);
            }
            self.take_hints(cx);
            // Each is asked, so that news from any of them wakes this task.
            let asked = self.in_turn().map(|index| self.listeners[index].is_promising(cx).then_some(index));
            match asked.fold(None, Option::or) {
                Some(index) => Poll::Ready(index),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// The numbers of all listeners, the one to look at first before the others.
    pub fn in_turn(&self) -> impl Iterator<Item = usize> + use<> {
        let (count, first) = (self.listeners.len(), self.turn.get());
        (0..count).map(move |offset| (first + offset) % count)
    }

    /// A client was taken from listener number `index`: it is the turn of the next one. Not before: who has
    /// heard of a client and could not take it has had nothing.
    pub fn had_its_turn(&self, index: usize) {
        self.turn.set((index + 1) % self.listeners.len());
    }

    /// Learns from the bell and from the scoreboard that listeners are worth a try.
    fn take_hints(&self, cx: &mut Context<'_>) {
        let mut hinted = self.parking.look.swap(false, Relaxed);
        while self.bell.poll_heard(cx).is_ready() {
            hinted = true;
            while seqpacket::recv(self.bell.as_fd(), &mut [0; RING.len()]).is_ok() {}
            self.bell.forget();
        }
        if hinted {
            // Before the look: what comes after it is told anew.
            self.parking.scoreboard.set_unheard(false);
            self.listeners.iter().for_each(|watched| watched.promising.set(true));
        }
    }

    /// Nothing was found at listener number `index`.
    pub fn was_empty(&self, index: usize) {
        let watched = &self.listeners[index];
        watched.promising.set(false);
        watched.listener.forget();
    }

    /// Watches no more, and tells the others of a client that waits.
    pub fn withdraw(&self) {
        self.parking.watching.store(false, Relaxed);
        for watched in self.watched() {
            if let Err(error) = watched.withdraw() {
                debug!("a listener was not watched: {error}");
            }
        }
        if self.listeners.iter().any(|watched| watched.listener.is_readable()) {
            self.tell_others();
        }
    }

    /// Watches again.
    ///
    /// # Errors
    /// When the kernel has no room; then it watches nothing.
    pub fn join(&self) -> io::Result<()> {
        for (done, watched) in self.watched().enumerate() {
            if let Err(error) = watched.join() {
                // Those that could be had are given back. An error would say that they are, already.
                self.watched().take(done).for_each(|watched| drop(watched.withdraw()));
                return Err(error);
            }
        }
        self.parking.watching.store(true, Relaxed);
        Ok(())
    }

    fn watched(&self) -> impl Iterator<Item = &Exclusive> {
        self.listeners.iter().map(|watched| &watched.listener).chain([&self.bell])
    }

    /// This worker is about to do something that may take long: were it woken for a client that waits, it
    /// would keep that to itself. Costs a system call only if it has heard of one.
    pub fn pass_on(&self) {
        let rung = self.bell.heard() || self.parking.look.load(Relaxed);
        let mut waits = false;
        for (index, watched) in self.listeners.iter().enumerate() {
            if rung || watched.promising.get() || watched.listener.heard() {
                match watched.listener.is_readable() {
                    true => waits = true,
                    false => self.was_empty(index),
                }
            }
        }
        if waits {
            self.tell_others();
        }
    }

    fn tell_others(&self) {
        let board = &self.parking.scoreboard;
        board.set_unheard(true);
        if board.another_parked(self.parking.cell)
            && let Err(error) = seqpacket::send(self.ringer.as_fd(), RING, &[])
        {
            // Full of rings that are not heard yet.
            debug!("the bell: {error}");
        }
    }
}

impl Watched {
    fn is_promising(&self, cx: &mut Context<'_>) -> bool {
        self.listener.poll_heard(cx).is_ready() || self.promising.get()
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;

    /// The worker of cell 0; cell 1 is another one.
    struct Scene {
        lookout: Lookout,
        parking: Arc<Parking>,
        board: Arc<Scoreboard>,
        address: SocketAddr,
        /// Where its ring arrives.
        others: OwnedFd,
    }

    impl Scene {
        fn new() -> Self {
            let board = Arc::new(Scoreboard::create().expect("memory files exist"));
            board.open(0);
            board.open(1);
            let (take, give) = seqpacket::pair().expect("a queue");
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("bound");
            let parking = Parking::new(Arc::clone(&board), 0);
            let lookout =
                Lookout::new(vec![listener.into()], (take.as_fd(), give.as_fd()), Arc::clone(&parking))
                    .expect("registered");
            Scene { lookout, parking, board, address, others: give }
        }

        fn client(&self) -> TcpStream {
            TcpStream::connect(self.address).expect("it listens")
        }

        async fn hears(&self) -> bool {
            tokio::time::timeout(Duration::from_millis(50), self.lookout.next()).await.is_ok()
        }

        fn rung(&self) -> bool {
            seqpacket::recv(self.others.as_fd(), &mut [0; 8]).is_ok()
        }
    }

    fn on_a_worker(test: impl AsyncFnOnce(Scene)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { test(Scene::new()).await });
    }

    #[test]
    fn a_client_is_heard_of_until_the_queue_is_known_to_be_empty() {
        on_a_worker(async |scene| {
            assert!(!scene.hears().await);
            let _client = scene.client();
            assert!(scene.hears().await && scene.hears().await);
            scene.lookout.was_empty(0);
            assert!(!scene.hears().await);
        });
    }

    #[test]
    fn who_sleeps_is_rung_for_a_client_that_cannot_be_taken() {
        on_a_worker(async |scene| {
            scene.board.cell(1).set_parked(1);
            let _client = scene.client();
            scene.lookout.pass_on();
            assert!(!scene.rung(), "it has not heard of the client, so another worker was woken");
            assert!(scene.hears().await);
            scene.lookout.pass_on();
            assert!(scene.rung() && scene.board.unheard());
        });
    }

    #[test]
    fn nobody_is_rung_when_there_is_no_client_after_all() {
        on_a_worker(async |scene| {
            scene.board.cell(1).set_parked(1);
            let _client = scene.client();
            assert!(scene.hears().await);
            crate::sys::accept::accept(scene.lookout.listener(0)).expect("a client waits");
            scene.lookout.pass_on();
            assert!(!scene.rung() && !scene.board.unheard());
            assert!(!scene.hears().await, "and nobody tries in vain");
        });
    }

    #[test]
    fn who_is_awake_reads_the_note_before_it_sleeps() {
        on_a_worker(async |scene| {
            scene.board.set_unheard(true);
            scene.parking.before_wait();
            assert!(scene.hears().await && !scene.board.unheard());
            scene.lookout.was_empty(0);
            scene.parking.after_wait();
            scene.parking.before_wait();
            assert!(!scene.hears().await);
            assert!(scene.board.another_parked(1) && !scene.board.another_parked(0));
        });
    }

    #[test]
    fn who_is_rung_looks_at_all_listeners() {
        on_a_worker(async |scene| {
            scene.board.set_unheard(true);
            seqpacket::send(scene.lookout.ringer.as_fd(), RING, &[]).expect("room");
            assert!(scene.hears().await && !scene.board.unheard());
            assert!(!scene.rung(), "the ring is spent");
        });
    }

    #[test]
    fn who_withdraws_leaves_clients_to_the_others_and_finds_them_when_it_joins() {
        on_a_worker(async |scene| {
            scene.board.cell(1).set_parked(1);
            let _client = scene.client();
            scene.lookout.withdraw();
            assert!(scene.rung());
            scene.parking.before_wait();
            assert!(!scene.board.another_parked(1), "a new client would not wake it");
            assert!(!scene.hears().await);
            scene.lookout.join().expect("room");
            assert!(scene.hears().await);
        });
    }
}
