//! Durations in buckets: any number of them in a few kilobytes, each within two per cent.

use std::time::Duration;

/// Buckets in each power of two.
const FINE: u64 = 64;
/// log2 of [`FINE`].
const FINE_BITS: u32 = 6;

/// A histogram of microseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Grows with the longest.
    buckets: Vec<u64>,
    count: u64,
}

impl Histogram {
    /// Counts one.
    pub fn record(&mut self, duration: Duration) {
        let bucket = bucket_of(duration.as_micros().try_into().unwrap_or(u64::MAX));
        if bucket >= self.buckets.len() {
            self.buckets.resize(bucket + 1, 0);
        }
        self.buckets[bucket] += 1;
        self.count += 1;
    }

    /// Adds all of another one.
    pub fn merge(&mut self, other: &Histogram) {
        if other.buckets.len() > self.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += others;
        }
        self.count += other.count;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// What this share of them, `0.0..=1.0`, does not exceed; zero when there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.count as f64 * share).ceil() as u64).max(1);
        let mut seen = 0;
        let bucket = self.buckets.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_micros(upper_end(bucket)))
    }
}

/// Exact below [`FINE`], then [`FINE`] buckets for each doubling.
fn bucket_of(micros: u64) -> usize {
    if micros < FINE {
        return micros as usize;
    }
    let doublings = micros.ilog2() - FINE_BITS;
    let within = (micros >> doublings) - FINE;
    (FINE * (u64::from(doublings) + 1) + within) as usize
}

/// The largest value of a bucket.
fn upper_end(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let Some(doublings) = (bucket / FINE).checked_sub(1) else { return bucket };
    let first = (FINE + bucket % FINE) << doublings;
    first + ((1 << doublings) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_is_in_a_bucket_that_ends_close_above_it() {
        for micros in (0..5000).chain([70_000, 1_000_000, 123_456_789, u64::MAX / 2]) {
            let end = upper_end(bucket_of(micros));
            assert!(end >= micros && end - micros <= micros / FINE, "{micros} ends at {end}");
            assert_eq!(bucket_of(end), bucket_of(micros));
        }
    }

    #[test]
    fn quantiles_count_from_below() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        for (share, expected) in [(0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let found = histogram.quantile(share).as_millis();
            assert!((expected..=expected * 102 / 100).contains(&found), "{share}: {found}");
        }
    }

    #[test]
    fn merged_ones_are_as_one() {
        let (mut both, mut one, mut other) = <(Histogram, Histogram, Histogram)>::default();
        for micros in [1, 50, 5000, 10_000_000] {
            both.record(Duration::from_micros(micros));
            both.record(Duration::from_micros(micros * 3));
            one.record(Duration::from_micros(micros));
            other.record(Duration::from_micros(micros * 3));
        }
        one.merge(&other);
        assert_eq!(one, both);
        assert_eq!(one.count(), 8);
    }
}
