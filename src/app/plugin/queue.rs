//! The queue of the application threads, and whom to wake for what.
//!
//! The threads share the lock of their language's runtime. While requests are quick, waking a second
//! thread only makes the two pass the lock to and fro, at several times the price of a request; so a
//! thread that is at work takes what comes next as well, and another is woken only when a task has
//! waited for [`PATIENCE`]. When requests are slow, because they wait for something, each gets its
//! thread at once.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a task may wait for the thread that is at work before another is woken for it.
pub(super) const PATIENCE: Duration = Duration::from_millis(1);
/// Tasks that typically take longer than this get a thread each.
const QUICK: Duration = Duration::from_micros(200);
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
    /// A thread was called for it, or all are at work.
    Attended,
    /// It waits for a thread at work although others are idle: look after it in a while.
    Waiting,
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

    /// Adds a task.
    pub(super) fn add(&self, task: T) -> Added {
        let mut state = self.state();
        state.tasks.push_back(task);
        if state.idle == 0 {
            return Added::Attended;
        }
        if state.idle < state.threads && self.typical.load(Ordering::Relaxed) < nanos(QUICK) {
            return Added::Waiting;
        }
        self.call(state);
        Added::Attended
    }

    fn call(&self, mut state: MutexGuard<'_, State<T>>) {
        state.idle -= 1;
        state.called += 1;
        drop(state);
        self.bell.notify_one();
    }

    /// The next task, as soon as there is one.
    pub(super) fn take(&self) -> T {
        let mut state = self.state();
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

    /// A task took so long.
    pub(super) fn took(&self, time: Duration) {
        let typical = self.typical.load(Ordering::Relaxed);
        let next = (typical * (MEMORY - 1) + nanos(time)) / MEMORY;
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
        assert_eq!(queue.add(1), Added::Attended);
        assert_eq!((queue.add(2), queue.add(3)), (Added::Waiting, Added::Waiting));
        assert_eq!(called(&queue), 1);
    }

    #[test]
    fn slow_tasks_get_a_thread_each() {
        let queue = idle(2);
        queue.took(Duration::from_millis(20));
        for task in 1..=3 {
            assert_eq!(queue.add(task), Added::Attended);
        }
        assert_eq!(called(&queue), 2);
    }

    #[test]
    fn a_task_that_nobody_takes_gets_a_thread_and_so_do_the_next() {
        let queue = idle(4);
        queue.add(1);
        queue.add(2);
        let first = queue.look_after(None);
        assert_eq!(called(&queue), 1, "it has only just come");
        assert_eq!(queue.look_after(first), first);
        assert_eq!(called(&queue), 2);
        assert_eq!(queue.add(3), Added::Attended);
        assert_eq!(called(&queue), 3);
    }

    #[test]
    fn nobody_is_called_while_tasks_are_taken() {
        let queue = idle(4);
        queue.add(1);
        queue.add(2);
        queue.add(3);
        let seen = queue.look_after(None);
        assert_eq!(queue.take(), 1);
        queue.look_after(seen);
        assert_eq!(called(&queue), 1);
        assert_eq!((queue.take(), queue.take()), (2, 3));
        assert_eq!(queue.look_after(seen), None);
    }
}
