//! ● How long to wait before what keeps dying is started again.

use std::time::{Duration, Instant};

/// How long a process must have served for its death to count as an accident and not as a loop.
pub const SHORT_LIFE: Duration = Duration::from_secs(1);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Pauses are shortened by up to this part of themselves, so that what has failed together is not tried together.
const JITTER: u32 = 4;

/// Grows the pause between respawns while processes keep dying young.
///
/// The first death is answered at once: most deaths are single accidents, and a service waits for
/// its worker. From the second short life in a row the pause doubles, up to `forkbomb-delay`, so that
/// a crash loop neither burns the machine nor gives up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttle {
    short_lives: u32,
    /// No respawn before this instant.
    pub not_before: Option<Instant>,
}

/// How pauses grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pauses {
    /// The longest one; zero is none at all.
    pub longest: Duration,
    /// Differs from death to death.
    pub chance: u64,
}

impl Throttle {
    /// Counts one death and says how long to wait; `lived` is the time from ready to death, `None` if never
    /// ready.
    pub fn record_death(&mut self, now: Instant, lived: Option<Duration>, pauses: Pauses) -> Duration {
        if lived.is_some_and(|lived| lived >= SHORT_LIFE) {
            *self = Throttle::default();
            return Duration::ZERO;
        }
        self.short_lives = self.short_lives.saturating_add(1);
        let pause = pauses.after(self.short_lives);
        self.not_before = (!pause.is_zero()).then(|| now + pause);
        pause
    }

    /// Counts a start that has failed for want of something: to try again at once would be in vain.
    pub fn record_failure(&mut self, now: Instant, pauses: Pauses) -> Duration {
        self.short_lives = self.short_lives.max(1);
        self.record_death(now, None, pauses)
    }

    /// Deaths in a row of processes that never served for long.
    pub fn short_lives(&self) -> u32 {
        self.short_lives
    }

    /// True when a respawn may happen now.
    pub fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|instant| now >= instant)
    }

    /// There is reason to hope: the next start is allowed at once, and one more short life is no accident.
    pub fn relent(&mut self) {
        self.short_lives = self.short_lives.min(1);
        self.not_before = None;
    }
}

impl Pauses {
    /// The pause after so many deaths in a row.
    fn after(self, short_lives: u32) -> Duration {
        let Some(doublings) = short_lives.checked_sub(2) else { return Duration::ZERO };
        let pause = FIRST_PAUSE.saturating_mul(1 << doublings.min(16)).min(self.longest);
        // Multiples of the golden ratio are far from each other, whatever they are multiples of.
        let share = (self.chance.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32;
        pause - (pause / JITTER).mul_f64(f64::from(share) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(longest: u64, chance: u64) -> Pauses {
        Pauses { longest: Duration::from_secs(longest), chance }
    }

    #[test]
    fn a_single_accident_is_answered_at_once() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        let pause = throttle.record_death(now, Some(Duration::from_millis(5)), pauses(30, 1));
        assert!(pause.is_zero() && throttle.allows(now));
    }

    #[test]
    fn the_pause_doubles_and_is_bounded() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        // Chance 0 takes nothing off.
        let delays: Vec<u128> =
            (0..12).map(|_| throttle.record_death(now, None, pauses(30, 0)).as_millis()).collect();
        assert_eq!(delays[..5], [0, 100, 200, 400, 800]);
        assert_eq!(delays[11], 30_000);
        assert!(!throttle.allows(now));
        assert!(throttle.allows(now + Duration::from_secs(30)));
    }

    #[test]
    fn pauses_differ_by_up_to_a_quarter() {
        let now = Instant::now();
        let pauses: Vec<Duration> = (1..50)
            .map(|chance| {
                let mut throttle = Throttle::default();
                throttle.record_failure(now, pauses(30, chance))
            })
            .collect();
        assert!(pauses.iter().all(|it| (75..=100).contains(&it.as_millis())), "{pauses:?}");
        let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        assert!(*most - *least > Duration::from_millis(15), "{pauses:?}");
    }

    #[test]
    fn who_wants_no_pauses_gets_none() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        (0..20).for_each(|chance| assert!(throttle.record_death(now, None, pauses(0, chance)).is_zero()));
        assert!(throttle.allows(now));
        assert_eq!(throttle.short_lives(), 20);
    }

    #[test]
    fn a_long_life_forgives_the_deaths_before() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for chance in 0..5 {
            throttle.record_death(now, None, pauses(30, chance));
        }
        throttle.record_death(now, Some(Duration::from_secs(2)), pauses(30, 0));
        assert!(throttle.allows(now));
        assert_eq!(throttle.short_lives(), 0);
    }

    #[test]
    fn hope_allows_one_try_at_once() {
        let now = Instant::now();
        let mut throttle = Throttle::default();
        for chance in 0..9 {
            throttle.record_death(now, None, pauses(30, chance));
        }
        throttle.relent();
        assert!(throttle.allows(now));
        assert!(!throttle.record_death(now, None, pauses(30, 0)).is_zero());
    }
}
