//! How a reload replaces the workers: in which order, and how many at a time.

use super::value::{self, ValueError};

/// Largest number of extra workers; more than can ever be started.
const MOST: u64 = 4096;

/// `reload-mode`: who comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ReloadMode {
    /// The new workers accept before the old ones leave.
    #[default]
    Surge,
    /// The old workers have left before the new ones start; the application is loaded before either.
    Drain,
}

/// `max-surge`: workers that may live beyond `processes` while they are replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxSurge {
    /// So many.
    Workers(u32),
    /// So many in a hundred of `processes`, rounded up.
    Percent(u32),
}

impl ReloadMode {
    /// Reads the word.
    ///
    /// # Errors
    /// For any other word.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        match text {
            "surge" => Ok(ReloadMode::Surge),
            "drain" => Ok(ReloadMode::Drain),
            _ => Err(ValueError::refused("is not an order of a reload; use surge or drain")),
        }
    }
}

impl MaxSurge {
    /// Reads `N` or `N%`.
    ///
    /// # Errors
    /// For anything else, and for 0: nothing could ever be replaced.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        match text.strip_suffix('%') {
            Some(percent) => value::int(percent.trim_end(), 1, 100 * MOST).map(|n| Self::Percent(n as u32)),
            None => value::int(text, 1, MOST).map(|n| Self::Workers(n as u32)),
        }
    }

    /// How many that are for this number of workers; at least one.
    pub fn of(self, processes: u32) -> usize {
        match self {
            MaxSurge::Workers(workers) => workers as usize,
            MaxSurge::Percent(percent) => {
                let workers = (u64::from(processes) * u64::from(percent)).div_ceil(100);
                workers.max(1) as usize
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_or_a_share_of_the_workers() {
        assert_eq!(MaxSurge::parse("2").map(|it| it.of(8)), Ok(2));
        assert_eq!(MaxSurge::parse("25%").map(|it| it.of(8)), Ok(2));
        assert_eq!(MaxSurge::parse("25 %").map(|it| it.of(9)), Ok(3), "rounded up");
        assert_eq!(MaxSurge::parse("1%").map(|it| it.of(0)), Ok(1), "never none");
        for text in ["0", "0%", "", "%", "-1", "two", "1.5", "5%%"] {
            assert!(MaxSurge::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn two_orders_are_known() {
        assert_eq!(ReloadMode::parse("surge"), Ok(ReloadMode::Surge));
        assert_eq!(ReloadMode::parse("drain"), Ok(ReloadMode::Drain));
        assert!(ReloadMode::parse("Drain ").is_err() && ReloadMode::parse("").is_err());
    }
}
