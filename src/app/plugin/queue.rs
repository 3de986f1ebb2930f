//! The queue of the application threads, and whom to wake for what.
//!
//! The threads share the lock of their language's runtime. While requests are quick, waking a second
//! thread only makes the two pass the lock to and fro, at several times the price of a request; so a
//! thread that is at work takes what comes next as well, and another is woken only when a task has
//! waited for [`PATIENCE`]. Nor is the first thread woken for a single quick request: it would be done
//! before the connection's thread has read the next one, and each request would cost a wake-up, which is
//! dearer than the request. It is woken for all that are there ([`Queue::ring`]). When requests are slow,
//! because they wait for something, each gets its thread at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a task may wait for the thread that is at work before another is woken for it.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);
/// Tasks that typically take longer than this get a thread each.
const QUICK: Duration = Duration::from_micros(200);
/// What a task counts for at most: one that takes long among many that do not, or had to wait for a
/// processor, says nothing about the others.
const MOST: Duration = Duration::from_micros(800);
/// Weight of the typical time so far against that of the last task.
const MEMORY: u64 = 8;

/// Tasks on their way to the threads.
pub(super) struct Queue<T> {
    state: Mutex<State<T>>,
    bell: Condvar,
    /// A moving average of how long tasks take, in nanoseconds.
    typical: AtomicU64,
}

struct State<T> {
    tasks: VecDeque<T>,
    /// Threads that wait and have not been called.
    idle: u32,
    /// Threads that have been called and have not heard it.
    called: u32,
    threads: u32,
    /// Tasks taken so far.
    taken: u64,
}

/// What became of a task that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// Nobody has to look after it: all threads are at work, or it is all there is for the one that was called.
    Attended,
    /// A thread was called for it. One that is at work may take it first, and leave the response to what it
    /// did before: look after that in a while.
    Called,
    /// It waits for a thread at work although others are idle: look after it in a while.
    Waiting,
    /// All threads are idle, and none was called: ring when there is nothing more to add for now.
    Unheard,
}

impl<T> Queue<T> {
    /// For so many threads, each of which calls [`Queue::take`] in a loop.
    pub(super) fn new(threads: u32) -> Self {
        let state = State { tasks: VecDeque::new(), idle: 0, called: 0, threads, taken: 0 };
        Queue { state: Mutex::new(state), bell: Condvar::new(), typical: AtomicU64::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tasks are done sooner than a thread is woken.
    pub(super) fn is_quick(&self) -> bool {
        self.typical.load(Ordering::Relaxed) < nanos(QUICK)
    }

    /// Adds a task.
    pub(super) fn add(&self, task: T) -> Added {
        let mut state = self.state();
        state.tasks.push_back(task);
        if state.idle == 0 {
            return Added::Attended;
        }
        if self.is_quick() {
            return if state.idle < state.threads { Added::Waiting } else { Added::Unheard };
        }
        self.call(state);
        Added::Called
    }

    /// Calls a thread for tasks that none has heard of; one for all of them.
    pub(super) fn ring(&self) -> Added {
        let state = self.state();
        let waiting = state.tasks.len();
        if state.idle < state.threads {
            return Added::Waiting;
        }
        if waiting > 0 {
            self.call(state);
        }
        if waiting > 1 { Added::Waiting } else { Added::Attended }
    }

    fn call(&self, mut state: MutexGuard<'_, State<T>>) {
        state.idle -= 1;
        state.called += 1;
        drop(state);
        self.bell.notify_one();
    }

    /// The next task, as soon as there is one. Before it waits for one, or when tasks are slow or may be
    /// looked after by nobody, it says so with `pause`.
    pub(super) fn take(&self, pause: impl Fn()) -> T {
        let mut state = self.state();
        if state.tasks.is_empty() || state.idle == 0 || !self.is_quick() {
            drop(state);
            pause();
            state = self.state();
        }
        loop {
            if let Some(task) = state.tasks.pop_front() {
                state.taken += 1;
                return task;
            }
            state.idle += 1;
            while state.called == 0 {
                state = self.bell.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.called -= 1;
        }
    }

    /// Adds the last tasks, one for each thread, and calls all threads that wait.
    pub(super) fn end(&self, last: impl Iterator<Item = T>) {
        let mut state = self.state();
        state.tasks.extend(last);
        state.called += std::mem::take(&mut state.idle);
        drop(state);
        self.bell.notify_all();
    }

    /// A task took so long.
    pub(super) fn took(&self, time: Duration) {
        let typical = self.typical.load(Ordering::Relaxed);
        let next = (typical * (MEMORY - 1) + nanos(time.min(MOST))) / MEMORY;
        self.typical.store(next, Ordering::Relaxed);
    }

    /// Looks after tasks that wait: if none has been taken since `taken`, a thread is called, and
    /// more at once from now on. The number taken so far, or `None` when none waits.
    pub(super) fn look_after(&self, taken: Option<u64>) -> Option<u64> {
        let state = self.state();
        if state.tasks.is_empty() {
            return None;
        }
        let now = state.taken;
        if taken == Some(now) && state.idle > 0 {
            self.typical.store(nanos(PATIENCE), Ordering::Relaxed);
            self.call(state);
        }
        Some(now)
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A queue whose threads are all idle, without the threads.
    fn idle(threads: u32) -> Queue<u32> {
        let queue = Queue::new(threads);
        queue.state().idle = threads;
        queue
    }

    fn called(queue: &Queue<u32>) -> u32 {
        queue.state().called
    }

    #[test]
    fn quick_tasks_wait_for_the_thread_that_is_at_work() {
        let queue = idle(4);
        assert_eq!((queue.add(1), queue.add(2)), (Added::Unheard, Added::Unheard));
        assert_eq!(called(&queue), 0);
        assert_eq!(queue.ring(), Added::Waiting);
        assert_eq!((queue.add(3), queue.ring()), (Added::Waiting, Added::Waiting));
        assert_eq!(called(&queue), 1);
    }

    #[test]
    fn a_single_quick_task_needs_nobody_to_look_after_it() {
        let queue = idle(4);
        assert_eq!((queue.add(1), queue.ring()), (Added::Unheard, Added::Attended));
        assert_eq!(called(&queue), 1);
    }

    #[test]
    fn slow_tasks_get_a_thread_each() {
        let queue = idle(2);
        (0..3).for_each(|_| queue.took(Duration::from_millis(20)));
        for task in 1..=3 {
            let all_called = if task <= 2 { Added::Called } else { Added::Attended };
            assert_eq!(queue.add(task), all_called);
        }
        assert_eq!(called(&queue), 2);
    }

    #[test]
    fn a_slow_task_among_quick_ones_changes_nothing() {
        let queue = idle(4);
        queue.took(Duration::from_millis(20));
        assert_eq!(queue.add(1), Added::Unheard);
    }

    #[test]
    fn a_thread_with_more_to_do_does_not_pause() {
        let queue = idle(2);
        queue.add(1);
        queue.add(2);
        queue.ring();
        // The thread that was called.
        queue.state().called = 0;
        let pauses = std::cell::Cell::new(0);
        let pause = || pauses.set(pauses.get() + 1);
        assert_eq!((queue.take(pause), queue.take(pause), pauses.get()), (1, 2, 0));
        queue.add(3);
        (0..3).for_each(|_| queue.took(Duration::from_secs(1)));
        assert_eq!((queue.take(pause), pauses.get()), (3, 1), "the next may be slow, too");
    }

    #[test]
    fn a_task_that_nobody_takes_gets_a_thread_and_so_do_the_next() {
        let queue = idle(4);
        queue.add(1);
        queue.ring();
        queue.add(2);
        let first = queue.look_after(None);
        assert_eq!(called(&queue), 1, "it has only just come");
        assert_eq!(queue.look_after(first), first);
        assert_eq!(called(&queue), 2);
        assert_eq!(queue.add(3), Added::Called);
        assert_eq!(called(&queue), 3);
    }

    #[test]
    fn nobody_is_called_while_tasks_are_taken() {
        let queue = idle(4);
        queue.add(1);
        queue.add(2);
        queue.add(3);
        queue.ring();
        let seen = queue.look_after(None);
        assert_eq!(queue.take(|| ()), 1);
        queue.look_after(seen);
        assert_eq!(called(&queue), 1);
        assert_eq!((queue.take(|| ()), queue.take(|| ())), (2, 3));
        assert_eq!(queue.look_after(seen), None);
    }
}
