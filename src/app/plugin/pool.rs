//! Application threads: `threads` of them, when that is more than one.
//!
//! A request comes here when a slot is free, and there are as many threads as slots; or while requests are
//! quick, for the thread that has done one to take the next without a detour. The thread hands
//! the response back to the connection's thread and works on until the application has finished.

use std::cell::{Cell, OnceCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use super::draft::Draft;
use super::exchange::Rest;
use super::job::Job;
use super::lent::Owner;
use super::queue::{Added, PATIENCE, Queue};
use super::{place, table};
use crate::app::Response;
use crate::app::slots::Pinned;

/// What a thread usually gets from the C library. Code for recursion in interpreters and extension
/// modules counts on it; untouched pages cost nothing.
const STACK: usize = 8 * 1024 * 1024;

/// A response, and news of the application if it is not done with the request.
pub(super) struct Delivered {
    pub(super) draft: Draft,
    /// How long the request has waited for a thread.
    pub(super) waited: Duration,
    /// Resolves when the application has finished. The request's slot is occupied until then.
    pub(super) rest: oneshot::Receiver<()>,
}

#[expect(clippy::large_enum_variant, reason = "nearly all of them are requests")]
enum Task {
    /// Since when it waits for a thread, and for whom the response is.
    Request(Job, Instant, oneshot::Sender<Delivered>),
    GiveBack(Owner),
    Signal(u8, oneshot::Sender<()>),
    /// The thread ends.
    End,
}

/// The threads.
pub(super) struct Pool {
    queue: Arc<Queue<Task>>,
    outbox: Arc<Outbox>,
    attendant: OnceCell<Attendant>,
    threads: Vec<JoinHandle<()>>,
}

/// What the connections' thread does for the others.
#[derive(Clone)]
struct Attendant {
    queue: Arc<Queue<Task>>,
    outbox: Arc<Outbox>,
    /// Asks for [`Queue::ring`] once the connections that have something to do now have done it.
    unheard: Rc<Notify>,
    /// Somebody looks after the tasks that wait.
    watched: Rc<Cell<bool>>,
}

/// Responses on their way back. To wake the connections' thread for each would cost more than a quick
/// request: a thread that has more to do lets its responses wait here, and rings when it pauses. Should
/// the next request turn out to be slow, [`Attendant::look_after`] collects what waits.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Vec<(oneshot::Sender<Delivered>, Delivered)>>,
    bell: Notify,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Vec<(oneshot::Sender<Delivered>, Delivered)>> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, deliver: oneshot::Sender<Delivered>, delivered: Delivered) {
        self.waiting().push((deliver, delivered));
    }

    /// Wakes the connections' thread if there is anything for it.
    fn ring(&self) {
        if !self.waiting().is_empty() {
            self.bell.notify_one();
        }
    }

    /// Gives everything to the connections it is for; false if there was nothing.
    fn deliver(&self) -> bool {
        let waiting = std::mem::take(&mut *self.waiting());
        let any = !waiting.is_empty();
        for (deliver, delivered) in waiting {
            // Nobody listens when the client has left.
            drop(deliver.send(delivered));
        }
        any
    }
}

impl Pool {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// When the system has no room for one.
    pub(super) fn start(count: u32) -> io::Result<Self> {
        let queue = Arc::new(Queue::new(count));
        let outbox = Arc::new(Outbox::default());
        let mut threads = Vec::new();
        for core in 0..count {
            let (queue, outbox) = (Arc::clone(&queue), Arc::clone(&outbox));
            let thread = std::thread::Builder::new().name(format!("app-{core}")).stack_size(STACK);
            threads.push(thread.spawn(move || {
                (table().thread_started)(core);
                work(&queue, &outbox, core);
                (table().thread_stopped)();
            })?);
        }
        Ok(Pool { queue, outbox, attendant: OnceCell::new(), threads })
    }

    /// How many threads there are.
    pub(super) fn threads(&self) -> u32 {
        self.threads.len() as u32
    }

    /// Ends the threads, which must have no request: nobody would hear of the response. The runtime must not be
    /// held.
    pub(super) fn end(self) {
        self.queue.end(self.threads.iter().map(|_| Task::End));
        for thread in self.threads {
            // One that has panicked has ended, too.
            drop(thread.join());
        }
    }

    /// Has a thread work on `job`.
    pub(super) fn submit(&self, job: Job) -> oneshot::Receiver<Delivered> {
        let (sender, receiver) = oneshot::channel();
        self.attend();
        if let Some(sheet) = place::sheet() {
            // It may have to wait for a thread.
            sheet.hold(job.slot());
        }
        self.add(Task::Request(job, Instant::now(), sender));
        receiver
    }

    /// Has a thread handle a signal; resolves when that is done.
    pub(super) fn signal(&self, number: u8) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.add(Task::Signal(number, sender));
        receiver
    }

    fn add(&self, task: Task) {
        match self.queue.add(task) {
            Added::Attended => {}
            Added::Waiting | Added::Called => self.attend().watch(),
            Added::Unheard => self.attend().unheard.notify_one(),
        }
    }

    /// Starts what looks after queue and outbox, once there is somebody to run it.
    fn attend(&self) -> &Attendant {
        self.attendant.get_or_init(|| Attendant::start(&self.queue, &self.outbox))
    }

    /// Returns a way to ask whether requests are quick.
    pub(super) fn is_quick(&self) -> impl Fn() -> bool + use<> {
        let queue = Arc::clone(&self.queue);
        move || queue.is_quick()
    }

    /// Returns a way to give objects back to the plugin.
    pub(super) fn give_back(&self) -> impl Fn(Owner) + Send + Sync + use<> {
        let queue = Arc::clone(&self.queue);
        // One that waits is taken by the thread that is at work.
        move |owner| {
            if queue.add(Task::GiveBack(owner)) == Added::Unheard {
                queue.ring();
            }
        }
    }
}

impl Attendant {
    fn start(queue: &Arc<Queue<Task>>, outbox: &Arc<Outbox>) -> Self {
        let (queue, outbox) = (Arc::clone(queue), Arc::clone(outbox));
        let attendant = Attendant { queue, outbox, unheard: Rc::default(), watched: Rc::default() };
        tokio::task::spawn_local(attendant.clone().ring());
        tokio::task::spawn_local(attendant.clone().collect());
        attendant
    }

    /// Rings for tasks that no thread has heard of. This comes behind the connections that are ready
    /// before it: their requests are heard of together.
    async fn ring(self) {
        loop {
            self.unheard.notified().await;
            if self.queue.ring() == Added::Waiting {
                self.watch();
            }
        }
    }

    /// Delivers responses.
    async fn collect(self) {
        loop {
            self.outbox.bell.notified().await;
            self.outbox.deliver();
        }
    }

    /// Has tasks and responses that wait looked after.
    fn watch(&self) {
        if !self.watched.replace(true) {
            tokio::task::spawn_local(self.clone().look_after());
        }
    }

    /// Sees to it that no task waits behind a slow one while threads are idle, and no response until a
    /// slow one is done.
    async fn look_after(self) {
        let mut taken = self.queue.look_after(None);
        // At least once: a thread may have taken everything by now, the slow one last.
        loop {
            tokio::time::sleep(PATIENCE).await;
            taken = self.queue.look_after(taken);
            if !self.outbox.deliver() && taken.is_none() {
                break;
            }
        }
        self.watched.set(false);
    }
}

fn work(queue: &Queue<Task>, outbox: &Outbox, core: u32) {
    loop {
        match queue.take(|| outbox.ring()) {
            // Whichever slot the request has: the application sees the number of its thread.
            Task::Request(job, added, deliver) => {
                let (start, row) = (Instant::now(), job.slot());
                if let Some(sheet) = place::sheet() {
                    sheet.restart(row, start);
                    sheet.set_core(row, core);
                }
                place::at(row, || serve(job.in_core(core), start - added, deliver, outbox));
                queue.took(start.elapsed());
            }
            Task::Signal(number, done) => {
                (table().acquire)();
                (table().signal)(number);
                (table().release)();
                // The worker may have left without waiting for it.
                let _ = done.send(());
            }
            Task::GiveBack(owner) => {
                (table().acquire)();
                (table().release_bytes)(owner.into_pointer());
                (table().release)();
            }
            Task::End => return,
        }
    }
}

fn serve(job: Job, waited: Duration, deliver: oneshot::Sender<Delivered>, outbox: &Outbox) {
    // Dropped when the application has finished, whatever way this function ends.
    let (finished, rest) = oneshot::channel();
    let mut finished = Some(finished);
    let delivery = Rc::new(Cell::new(Some((deliver, rest))));
    let mut exchange = job.exchange();
    let early = Rc::clone(&delivery);
    exchange.set_early(Box::new(move |draft| {
        if let Some((deliver, rest)) = early.take() {
            // Nobody listens when the client has left: then the pieces find their outlet closed.
            drop(deliver.send(Delivered { draft, waited, rest }));
        }
    }));
    (table().acquire)();
    let (draft, mut left) = job.call(&mut exchange);
    if left.is_none() {
        // Before the response: then nothing has to wait for this thread once more.
        finished = None;
    }
    if let (Some(draft), Some((deliver, rest))) = (draft, delivery.take()) {
        let delivered = Delivered { draft, waited, rest };
        match left {
            None => outbox.add(deliver, delivered),
            Some(_) => drop(deliver.send(delivered)),
        }
    }
    while let Some(started) = left.take() {
        // Others may have the runtime between two pieces, and the response may leave.
        (table().release)();
        if let Rest::Outlet(outlet) = &started.rest
            && outlet.is_full()
        {
            place::wait_for_client(|| outlet.wait_room());
        }
        (table().acquire)();
        left = started.go_on();
    }
    (table().release)();
    drop(finished);
}

/// Waits for the response of a [`Job`]. The slot stays occupied until the application has finished,
/// even if the client leaves before.
pub(super) struct Awaited {
    delivered: Option<oneshot::Receiver<Delivered>>,
    pinned: Option<Pinned>,
}

impl Awaited {
    pub(super) fn new(delivered: oneshot::Receiver<Delivered>, pinned: Option<Pinned>) -> Self {
        Awaited { delivered: Some(delivered), pinned }
    }
}

impl Future for Awaited {
    type Output = Response;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response> {
        let Some(delivered) = &mut self.delivered else { return Poll::Pending };
        let delivered = ready!(Pin::new(delivered).poll(cx));
        self.delivered = None;
        let Ok(Delivered { draft, waited, mut rest }) = delivered else {
            // The thread is gone, which only a panic of ours can do.
            return Poll::Ready(Draft::failure().into_response());
        };
        if let Some(pinned) = self.pinned.take() {
            pinned.note_wait(waited);
            if rest.try_recv() == Err(oneshot::error::TryRecvError::Empty) {
                tokio::task::spawn_local(async move {
                    let _ = rest.await;
                    drop(pinned);
                });
            }
        }
        Poll::Ready(draft.into_response())
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let (Some(delivered), Some(pinned)) = (self.delivered.take(), self.pinned.take()) {
            tokio::task::spawn_local(async move {
                if let Ok(delivered) = delivered.await {
                    drop(delivered.draft);
                    let _ = delivered.rest.await;
                }
                drop(pinned);
            });
        }
    }
}
