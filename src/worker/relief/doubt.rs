//! Whether a request that took long was slow itself, or only waited for a processor.
//!
//! On a machine whose processors are all busy every request may be interrupted for some milliseconds. To look
//! after the worker's other connections then helps nobody: whoever takes them needs a processor, too. The
//! kernel tells the two apart (getrusage(2)): who sleeps, reads a disk or waits for a lock gives its processor
//! up of its own accord, who is interrupted does not.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};

/// From here on a request counts as slow.
pub const SLOW: Duration = Duration::from_millis(1);
/// From here on it does, whatever the reason: no scheduler takes turns that long.
const BEYOND_DOUBT: Duration = Duration::from_millis(10);
/// After a request in doubt, so many turns are watched, each with a system call: an application of which fewer
/// requests are slow needs no help.
const WATCHED_TURNS: u32 = 256;
/// How many more requests than not have worked that long, all of them being watched, before it is believed: a
/// virtual machine may be interrupted, too, and its kernel takes that for work.
const CONVINCED: u32 = 4;

/// What the kernel tells of a thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Usage {
    /// Microseconds it ran.
    cpu: u64,
    /// How often it gave up its processor of its own accord.
    waits: u64,
}

impl Usage {
    /// Of the thread that asks.
    pub fn of_this_thread() -> Self {
        let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return Usage::default() };
        let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or_default();
        Usage {
            cpu: micros(usage.user_time()) + micros(usage.system_time()),
            waits: u64::try_from(usage.voluntary_context_switches()).unwrap_or_default(),
        }
    }
}

/// What is remembered between two requests. Only the worker's thread uses it.
#[derive(Debug, Default)]
pub struct Doubt {
    /// Turns of the worker that are still watched.
    turns: AtomicU32,
    cpu: AtomicU64,
    waits: AtomicU64,
    /// Goes up with each watched request that has worked for long, and down with each that has not.
    conviction: AtomicU32,
}

impl Doubt {
    /// The worker has waited for events, or turns to a connection.
    pub fn begin_turn(&self, usage: impl FnOnce() -> Usage) {
        let turns = self.turns.load(Ordering::Relaxed);
        if turns > 0 {
            self.turns.store(turns - 1, Ordering::Relaxed);
            self.remember(usage());
        }
    }

    /// True when a request that took so long, and has just ended, was slow itself. The first ones are given the benefit
    /// of the doubt, and have those to come watched.
    pub fn was_slow(&self, took: Duration, usage: impl FnOnce() -> Usage) -> bool {
        if took < SLOW {
            return false;
        }
        let watched = self.turns.swap(WATCHED_TURNS, Ordering::Relaxed) > 0;
        if took >= BEYOND_DOUBT {
            return true;
        }
        let now = usage();
        let worked = Duration::from_micros(now.cpu.saturating_sub(self.cpu.load(Ordering::Relaxed)));
        let waited = now.waits > self.waits.load(Ordering::Relaxed);
        // The next one is not to answer for this one.
        self.remember(now);
        let conviction = match self.conviction.load(Ordering::Relaxed) {
            _ if !watched => 0,
            conviction if worked >= SLOW => CONVINCED.min(conviction + 1),
            conviction => conviction.saturating_sub(1),
        };
        self.conviction.store(conviction, Ordering::Relaxed);
        watched && waited || conviction == CONVINCED
    }

    fn remember(&self, usage: Usage) {
        self.cpu.store(usage.cpu, Ordering::Relaxed);
        self.waits.store(usage.waits, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_millis(3);

    fn usage(cpu: u64, waits: u64) -> impl FnOnce() -> Usage {
        move || Usage { cpu, waits }
    }

    fn unasked() -> Usage {
        unreachable!("a system call that need not be made")
    }

    #[test]
    fn quick_requests_cost_no_system_call() {
        let doubt = Doubt::default();
        doubt.begin_turn(unasked);
        assert!(!doubt.was_slow(Duration::from_micros(999), unasked));
    }

    #[test]
    fn who_is_interrupted_is_not_slow() {
        let doubt = Doubt::default();
        assert!(!doubt.was_slow(LONG, usage(5_000_000, 700)), "nobody knows what was before");
        doubt.begin_turn(usage(5_000_100, 701));
        assert!(!doubt.was_slow(LONG, usage(5_000_400, 701)));
    }

    #[test]
    fn who_waits_is_slow() {
        let doubt = Doubt::default();
        assert!(!doubt.was_slow(LONG, usage(0, 0)), "nobody knows what was before");
        doubt.begin_turn(usage(100, 1));
        assert!(doubt.was_slow(LONG, usage(200, 2)));
        assert!(!doubt.was_slow(LONG, usage(300, 2)), "the one after it was only interrupted");
    }

    #[test]
    fn who_works_again_and_again_is_slow() {
        let doubt = Doubt::default();
        let verdicts = [1, 2, 3, 4, 5].map(|turn| doubt.was_slow(LONG, usage(turn * 1_000, 0)));
        assert_eq!(verdicts, [false, false, false, false, true]);
        assert!(!doubt.was_slow(LONG, usage(5_999, 0)), "that one was only interrupted");
    }

    #[test]
    fn an_interruption_that_looks_like_work_is_forgotten() {
        let doubt = Doubt::default();
        for now in 1..20 {
            for turn in 0..3 {
                assert!(!doubt.was_slow(LONG, usage(now * 10_000 + turn * 1000, 0)));
            }
            (0..WATCHED_TURNS).for_each(|_| doubt.begin_turn(usage(0, 0)));
        }
    }

    #[test]
    fn a_very_slow_one_is_beyond_doubt() {
        assert!(Doubt::default().was_slow(BEYOND_DOUBT, unasked));
    }

    #[test]
    fn the_watch_ends() {
        let doubt = Doubt::default();
        doubt.was_slow(LONG, usage(0, 0));
        (0..WATCHED_TURNS).for_each(|_| doubt.begin_turn(usage(0, 0)));
        doubt.begin_turn(unasked);
    }

    #[test]
    fn many_quick_requests_are_not_a_slow_one() {
        let doubt = Doubt::default();
        doubt.was_slow(LONG, usage(0, 0));
        for turn in 1..100 {
            doubt.begin_turn(usage(turn * 100, 0));
        }
        assert!(!doubt.was_slow(LONG, usage(10_000, 0)));
    }

    #[test]
    fn the_kernel_tells_waits_and_work() {
        let before = Usage::of_this_thread();
        std::thread::sleep(Duration::from_millis(1));
        let after = Usage::of_this_thread();
        assert!(after.waits > before.waits && after.cpu >= before.cpu);
    }
}
