//! The master's bookkeeping of its children: workers, zygotes, and how fast a slot may respawn.

use std::time::{Duration, Instant};

use crate::cause::Cause;
use crate::channel::DrainMode;
use crate::sys::process::Pid;

use super::state::Policy;

/// Identity of a worker process for the life of the instance; never reused.
pub type WorkerId = u64;
/// Worker number, 1-based, stable across respawns.
pub type SlotId = u32;
/// One release of code and configuration; the first one is 1.
pub type Generation = u64;

/// How long a worker must have been ready for its death to count as an accident and not as a loop.
const SHORT_LIFE: Duration = Duration::from_secs(1);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// Where a worker is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Asked of the zygote or forked, not ready by `deadline` means it is killed.
    Starting {
        /// End of the boot time-out.
        deadline: Instant,
    },
    /// Accepting.
    Ready {
        /// Since when.
        since: Instant,
    },
    /// Told to leave.
    Leaving {
        /// When it was told.
        since: Instant,
        /// When patience ends.
        kill_at: Instant,
        /// How it was told.
        mode: DrainMode,
    },
}

/// One worker process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    /// Worker number.
    pub slot: SlotId,
    /// Index of its scoreboard cell.
    pub cell: usize,
    /// The generation it was forked from.
    pub generation: Generation,
    /// Unknown until the zygote has reported the fork.
    pub pid: Option<Pid>,
    /// Where it is in its life.
    pub stage: Stage,
    /// The worker that leaves once this one is ready.
    pub replaces: Option<WorkerId>,
    /// Why it is expected to die without having been told to leave.
    pub doomed: Option<String>,
    /// Why it leaves or dies, once that is known.
    pub cause: Option<Cause>,
    /// Why its successor was last asked for.
    pub wish: Option<Cause>,
    /// Told to leave, and runs no code of the application any more: it only waits to pass connections
    /// on, or has been killed.
    pub quiet: bool,
}

impl Worker {
    /// True while it accepts.
    pub fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready { .. })
    }

    /// True until it accepts or is told to leave.
    pub fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting { .. })
    }

    /// True once it has been told to leave.
    pub fn is_leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving { .. })
    }
}

/// Where a zygote is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ZygoteStage {
    /// Loading the application.
    Loading {
        /// End of the boot time-out.
        deadline: Instant,
    },
    /// Ready to fork workers.
    Ready,
    /// A snapshot: the generation has served, and can be brought back.
    Asleep {
        /// What its configuration asks for.
        policy: Policy,
    },
    /// Killed or about to exit, for this reason.
    Failed {
        /// What an operator reads.
        reason: String,
        /// Exit code of the server if this was the first start.
        code: u8,
    },
}

/// One zygote process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zygote {
    /// Unknown until `perform` reports the fork.
    pub pid: Option<Pid>,
    /// Where it is in its life.
    pub stage: ZygoteStage,
}

impl Zygote {
    /// True once it has been told to go, or has said that it is of no use.
    pub fn is_dismissed(&self) -> bool {
        matches!(self.stage, ZygoteStage::Failed { .. })
    }

    /// True for a snapshot.
    pub fn is_asleep(&self) -> bool {
        matches!(self.stage, ZygoteStage::Asleep { .. })
    }
}

/// Grows the pause between respawns while processes keep dying young.
///
/// The first death is answered at once: most deaths are single accidents, and a service waits for
/// its worker. From the second short life in a row the pause doubles, up to half a minute, so that
/// a crash loop neither burns the machine nor gives up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttle {
    short_lives: u32,
    /// No respawn before this instant.
    pub not_before: Option<Instant>,
}

impl Throttle {
    /// Counts one death; `lived` is the time from ready to death, `None` if never ready.
    pub fn record_death(&mut self, now: Instant, lived: Option<Duration>) {
        if lived.is_some_and(|lived| lived >= SHORT_LIFE) {
            *self = Throttle::default();
            return;
        }
        self.short_lives = self.short_lives.saturating_add(1);
        let delay = self.delay();
        self.not_before = (!delay.is_zero()).then(|| now + delay);
    }

    /// The pause that the deaths so far have earned.
    pub fn delay(&self) -> Duration {
        match self.short_lives {
            0 | 1 => Duration::ZERO,
            lives => FIRST_DELAY.saturating_mul(1 << (lives - 2).min(16)).min(LONGEST_DELAY),
        }
    }

    /// Deaths in a row of processes that never served for long.
    pub fn short_lives(&self) -> u32 {
        self.short_lives
    }

    /// True when a respawn may happen now.
    pub fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|instant| now >= instant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_accident_is_answered_at_once() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        throttle.record_death(now, Some(Duration::from_millis(5)));
        assert!(throttle.allows(now));
    }

    #[test]
    fn the_pause_doubles_and_is_bounded() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        let delays: Vec<u64> = (0..12)
            .map(|_| {
                throttle.record_death(now, None);
                throttle.delay().as_millis() as u64
            })
            .collect();
        assert_eq!(delays[..5], [0, 100, 200, 400, 800]);
        assert_eq!(delays[11], 30_000);
        assert!(!throttle.allows(now));
        assert!(throttle.allows(now + LONGEST_DELAY));
    }

    #[test]
    fn a_long_life_forgives_the_deaths_before() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        (0..5).for_each(|_| throttle.record_death(now, None));
        throttle.record_death(now, Some(Duration::from_secs(2)));
        assert!(throttle.allows(now));
        assert_eq!(throttle.short_lives(), 0);
    }
}
