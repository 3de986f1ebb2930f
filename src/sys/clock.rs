//! The monotonic clock in figures that all processes of a machine understand.
//!
//! [`Instant`] is that clock (clock_gettime(2), `CLOCK_MONOTONIC`), but does not tell its figure. A deadline
//! in shared memory must be one: the wall clock may be set while somebody waits.
#![allow(unsafe_code)]

use std::time::{Duration, Instant};

/// Readings further apart were interrupted, and are repeated.
const CLOSE: u64 = 20;
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

    /// The moment of that figure; now, should it be one that the clock never shows.
    pub fn instant_of(self, micros: u64) -> Instant {
        let moment = match micros.checked_sub(self.micros) {
            Some(later) => self.instant.checked_add(Duration::from_micros(later)),
            None => self.instant.checked_sub(Duration::from_micros(self.micros - micros)),
        };
        moment.unwrap_or_else(Instant::now)
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
        clock.instant_of(u64::MAX);
        clock.instant_of(0);
    }
}
