//! ● Signals that the configuration raises: `timer`, `rbtimer`, `fs-signal`.

use std::path::PathBuf;

use super::Request;
use crate::config::value::{self, ValueError};

const FORM: &str = "is not of the form it has to be";

/// `timer = 1 60`: signal 1 every minute.
///
/// # Errors
/// When that is not a signal and a number of seconds.
pub fn timer(text: &str) -> Result<Request, ValueError> {
    match words(text)[..] {
        [number, seconds] => timed(number, seconds, "0"),
        _ => Err(ValueError::refused(format!("{FORM}; give a signal and seconds, as in \"1 60\""))),
    }
}

/// `rbtimer = 1 60 3`: the same, three times.
///
/// # Errors
/// When that is not a signal, seconds, and how often.
pub fn limited_timer(text: &str) -> Result<Request, ValueError> {
    match words(text)[..] {
        [number, seconds] => timed(number, seconds, "0"),
        [number, seconds, times] => timed(number, seconds, times),
        _ => Err(ValueError::refused(format!(
            "{FORM}; give a signal, seconds and perhaps how often, as in \"1 60 3\""
        ))),
    }
}

/// `fs-signal = /path 1`: signal 1 when the file or directory changes.
///
/// # Errors
/// When that is not a path and a signal.
pub fn watch(text: &str) -> Result<Request, ValueError> {
    // The path may have blanks in it.
    match text.trim().rsplit_once([' ', '\t']) {
        Some((path, number)) => {
            Ok(Request::Watch { number: signal(number)?, path: PathBuf::from(path.trim()) })
        }
        None => Err(ValueError::refused(format!("{FORM}; give a path and a signal, as in \"/etc/app 1\""))),
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split_ascii_whitespace().collect()
}

fn timed(number: &str, seconds: &str, times: &str) -> Result<Request, ValueError> {
    let every_ms = value::int(seconds, 1, u64::from(u32::MAX))? * 1000;
    let times = value::int(times, 0, u64::from(u32::MAX))?;
    Ok(Request::Timer { number: signal(number)?, every_ms, times: u32::try_from(times).unwrap_or(u32::MAX) })
}

fn signal(text: &str) -> Result<u8, ValueError> {
    // In range, so it fits.
    value::int(text, 0, 255).map(|number| number as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_can_be_given_in_the_configuration() {
        assert_eq!(timer("17 60"), Ok(Request::Timer { number: 17, every_ms: 60_000, times: 0 }));
        assert_eq!(limited_timer("1  2 3"), Ok(Request::Timer { number: 1, every_ms: 2000, times: 3 }));
        assert_eq!(watch("/a b/c 9"), Ok(Request::Watch { number: 9, path: "/a b/c".into() }));
        for wrong in
            [timer("17"), timer("256 1"), timer("1 0"), limited_timer("1 2 x"), watch("/a"), watch("/a b")]
        {
            assert!(wrong.is_err(), "{wrong:?}");
        }
    }
}
