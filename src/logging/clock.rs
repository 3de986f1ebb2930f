//! Times as text, in the local time zone.

use std::sync::OnceLock;
use std::time::SystemTime;

use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// The time zone of the machine, read once: it must still be known after a chroot.
static ZONE: OnceLock<TimeZone> = OnceLock::new();

/// How the start of a request can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DateStyle {
    /// `Sat Nov 21 07:14:55 2026`, as `ctime(3)` without its newline.
    Ctime,
    /// `21/Nov/2026:07:14:55 +0000`, as Apache writes it.
    Apache,
}

impl DateStyle {
    fn pattern(self) -> &'static str {
        match self {
            DateStyle::Ctime => "%a %b %e %H:%M:%S %Y",
            DateStyle::Apache => "%d/%b/%Y:%H:%M:%S %z",
        }
    }
}

/// Reads the time zone of the machine (`TZ`, `/etc/localtime`) unless that was done already.
pub fn init() {
    let _ = zone();
}

fn zone() -> &'static TimeZone {
    ZONE.get_or_init(TimeZone::system)
}

/// Now, for a line of the server log: `2026-11-21 09:15:02.123 +0000`.
pub fn now() -> String {
    written("%Y-%m-%d %H:%M:%S.%3f %z", &local_now())
}

/// Now, in the time zone of the machine.
pub fn local_now() -> Zoned {
    Timestamp::now().to_zoned(zone().clone())
}

fn written(pattern: &str, time: &Zoned) -> String {
    // Only an unknown letter in the pattern can fail, and the patterns are ours.
    strtime::format(pattern, time).unwrap_or_else(|_| time.timestamp().to_string())
}

/// Seconds since 1970; 0 for a clock set before that.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Writes dates and remembers the last one, because a busy worker logs many requests a second.
#[derive(Debug)]
pub struct DateWriter {
    style: DateStyle,
    zone: TimeZone,
    second: Option<u64>,
    text: String,
}

impl DateWriter {
    /// A writer for the time zone of the machine.
    pub fn new(style: DateStyle) -> Self {
        Self::in_zone(style, zone().clone())
    }

    fn in_zone(style: DateStyle, zone: TimeZone) -> Self {
        DateWriter { style, zone, second: None, text: String::new() }
    }

    /// `time` as text, to the second.
    pub fn write(&mut self, time: SystemTime) -> &str {
        let second = unix_seconds(time);
        if self.second != Some(second) {
            let timestamp = i64::try_from(second).ok().and_then(|s| Timestamp::from_second(s).ok());
            // Out of jiff's range is beyond the year 9999.
            let timestamp = timestamp.unwrap_or(Timestamp::MAX);
            self.text = written(self.style.pattern(), &timestamp.to_zoned(self.zone.clone()));
            self.second = Some(second);
        }
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    #[test]
    fn ctime_pads_the_day_with_a_space() {
        let mut dates = DateWriter::in_zone(DateStyle::Ctime, TimeZone::UTC);
        assert_eq!(dates.write(at(1_795_245_295)), "Sat Nov 21 07:14:55 2026");
        assert_eq!(dates.write(at(1_793_516_400)), "Sun Nov  1 07:00:00 2026");
    }

    #[test]
    fn apache_dates_carry_the_offset() {
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        let mut dates = DateWriter::in_zone(DateStyle::Apache, zone);
        assert_eq!(dates.write(at(1_795_245_295)), "21/Nov/2026:04:14:55 -0300");
    }

    #[test]
    fn a_remembered_date_is_replaced_when_the_second_changes() {
        let mut dates = DateWriter::in_zone(DateStyle::Ctime, TimeZone::UTC);
        let first = dates.write(at(0)).to_owned();
        assert_eq!(dates.write(at(0) + Duration::from_millis(999)), first);
        assert_eq!(dates.write(at(1)), "Thu Jan  1 00:00:01 1970");
    }

    #[test]
    fn a_clock_before_1970_does_not_panic() {
        let mut dates = DateWriter::in_zone(DateStyle::Ctime, TimeZone::UTC);
        assert_eq!(dates.write(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), "Thu Jan  1 00:00:00 1970");
    }

    #[test]
    fn the_time_of_a_server_line_has_milliseconds_and_an_offset() {
        let now = now();
        assert_eq!(now.len(), "2026-11-21 09:15:02.123 +0000".len(), "{now}");
    }
}
