//! The monotonic clock in figures that all processes of a machine understand.
//!
//! [`Instant`] is that clock (clock_gettime(2), `CLOCK_MONOTONIC`), but does not tell its figure. A deadline
//! in shared memory must be one: the wall clock may be set while somebody waits.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Readings further apart were interrupted, and are repeated.
const CLOSE: u64 = 20;
/// No deadline is further away: a year, and adding it to a clock never overflows.
const FAR_AWAY: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// After so many the last one has to do.
const TRIES: usize = 16;

/// The same moment as [`Instant`] and as microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Monotonic {
    instant: Instant,
    micros: u64,
}

impl Monotonic {
    /// Reads both; they never drift apart.
    pub fn read() -> Self {
        let mut pair = Monotonic { micros: micros(), instant: Instant::now() };
        for _ in 0..TRIES {
            if micros() - pair.micros <= CLOSE {
                break;
            }
            pair = Monotonic { micros: micros(), instant: Instant::now() };
        }
        pair
    }

    /// Microseconds at that moment.
    pub fn micros_of(self, instant: Instant) -> u64 {
        match instant.checked_duration_since(self.instant) {
            Some(later) => self.micros.saturating_add(whole_micros(later)),
            None => self.micros.saturating_sub(whole_micros(self.instant.duration_since(instant))),
        }
    }

    /// The moment of that figure, or one as far away as a clock is ever read.
    pub fn instant_of(self, micros: u64) -> Instant {
        match micros.checked_sub(self.micros) {
            Some(later) => self.instant + Duration::from_micros(later).min(FAR_AWAY),
            None => {
                let earlier = Duration::from_micros(self.micros - micros);
                self.instant.checked_sub(earlier).unwrap_or(self.instant)
            }
        }
    }
}

/// As `Duration::as_micros`, without its detour over 128 bits.
pub fn whole_micros(duration: Duration) -> u64 {
    duration.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(duration.subsec_micros()))
}

fn micros() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.cast_unsigned() * 1_000_000 + time.tv_nsec.cast_unsigned() / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_and_figures_are_the_same_clock() {
        let clock = Monotonic::read();
        let now = Instant::now();
        let later = now + Duration::from_secs(5);
        assert_eq!(clock.micros_of(later) - clock.micros_of(now), 5_000_000);
        let there_and_back = clock.instant_of(clock.micros_of(later));
        assert!(later.duration_since(there_and_back) < Duration::from_micros(2));
        let earlier = clock.instant_of(clock.micros_of(now) - 1000);
        assert!(earlier < now);
    }

    #[test]
    fn two_readings_agree() {
        let (one, other) = (Monotonic::read(), Monotonic::read());
        let now = Instant::now();
        assert!(one.micros_of(now).abs_diff(other.micros_of(now)) < 100_000);
    }

    #[test]
    fn figures_that_no_clock_shows_do_no_harm() {
        let clock = Monotonic::read();
        let now = Instant::now();
        assert!(clock.instant_of(u64::MAX) > now + FAR_AWAY / 2, "a deadline that never comes is not over");
        assert!(clock.instant_of(0) <= now);
    }
}
