//! ● Times of the clock at which something is due, as uWSGI's `cron` says them.

use jiff::Zoned;
use jiff::civil::DateTime;
use serde::{Deserialize, Serialize};

/// Minute, hour, day of the month, month, day of the week, in local time.
///
/// -1 is any, `-n` every n-th. The day of the week counts from Sunday, which is 0 and 7. When day of
/// the month and day of the week are both given, either is enough, as in cron(8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    minute: i32,
    hour: i32,
    day: i32,
    month: i32,
    weekday: i32,
}

impl Schedule {
    /// A schedule of the five figures.
    ///
    /// # Errors
    /// Names the one that can never come true.
    pub fn new([minute, hour, day, month, weekday]: [i32; 5]) -> Result<Self, String> {
        for (name, value, least, largest) in [
            ("minute", minute, 0, 59),
            ("hour", hour, 0, 23),
            ("day", day, 1, 31),
            ("month", month, 1, 12),
            ("weekday", weekday, 0, 7),
        ] {
            if value >= 0 && !(least..=largest).contains(&value) {
                return Err(format!("{name} {value} is not from {least} to {largest}"));
            }
        }
        Ok(Schedule { minute, hour, day, month, weekday: if weekday == 7 { 0 } else { weekday } })
    }

    /// Whether it is due in this minute.
    pub fn matches(self, time: DateTime) -> bool {
        let is = |wanted: i32, value: i8| match wanted {
            0.. => wanted == i32::from(value),
            every => i32::from(value) % every.saturating_abs() == 0,
        };
        let day = is(self.day, time.day());
        let weekday = is(self.weekday, time.weekday().to_sunday_zero_offset());
        let date = if self.day >= 0 && self.weekday >= 0 { day || weekday } else { day && weekday };
        date && is(self.minute, time.minute()) && is(self.hour, time.hour()) && is(self.month, time.month())
    }

    /// Seconds until the next minute, of the `minutes` that come, in which it is due; until the end of
    /// them if there is none. The present minute does not count.
    pub fn wait(self, now: &Zoned, minutes: i64) -> i64 {
        let start = now.timestamp().as_second();
        let this_minute = start - start.rem_euclid(60);
        let zone = now.time_zone();
        let due = (1..=minutes).find(|ahead| {
            jiff::Timestamp::from_second(this_minute + ahead * 60)
                .is_ok_and(|minute| self.matches(zone.to_datetime(minute)))
        });
        this_minute + due.unwrap_or(minutes) * 60 - start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(figures: [i32; 5], time: &str) -> bool {
        Schedule::new(figures).expect("valid").matches(time.parse().expect("a time"))
    }

    #[test]
    fn each_figure_is_a_value_any_or_every_nth() {
        // A Saturday.
        let time = "2026-11-21T06:30:59";
        for (figures, expected) in [
            ([-1, -1, -1, -1, -1], true),
            ([30, 6, 21, 11, 6], true),
            ([31, -1, -1, -1, -1], false),
            ([-15, -1, -1, -1, -1], true),
            ([-7, -1, -1, -1, -1], false),
            ([-1, -1, -1, 12, -1], false),
            ([-1, -1, 22, -1, -1], false),
            ([-1, -1, -1, -1, 0], false),
            ([-1, -1, -1, -1, 6], true),
        ] {
            assert_eq!(matches(figures, time), expected, "{figures:?}");
        }
    }

    #[test]
    fn day_of_month_or_day_of_week_is_enough_when_both_are_given() {
        let figures = [0, 0, 1, -1, 7];
        assert!(matches(figures, "2026-11-22T00:00:00"), "a Sunday");
        assert!(matches(figures, "2026-12-01T00:00:00"), "a first, though a Tuesday");
        assert!(!matches(figures, "2026-12-02T00:00:00"));
    }

    #[test]
    fn figures_that_never_come_are_refused_by_name() {
        let refused = |figures| Schedule::new(figures).expect_err("cannot be");
        assert_eq!(refused([60, -1, -1, -1, -1]), "minute 60 is not from 0 to 59");
        assert_eq!(refused([-1, 24, -1, -1, -1]), "hour 24 is not from 0 to 23");
        assert_eq!(refused([-1, -1, 0, -1, -1]), "day 0 is not from 1 to 31");
        assert_eq!(refused([-1, -1, -1, 13, -1]), "month 13 is not from 1 to 12");
    }

    #[test]
    fn the_wait_ends_with_the_minute_that_matches_or_with_patience() {
        let now: Zoned = "2026-11-21T06:30:45+00:00[UTC]".parse().expect("a time");
        let wait = |figures| Schedule::new(figures).expect("valid").wait(&now, 60);
        assert_eq!(wait([-1, -1, -1, -1, -1]), 15);
        assert_eq!(wait([30, -1, -1, -1, -1]), 60 * 60 - 45);
        assert_eq!(wait([0, 7, -1, -1, -1]), 30 * 60 - 45);
        assert_eq!(wait([0, 12, -1, -1, -1]), 60 * 60 - 45);
    }
}
