//! Text to values: flags, numbers, sizes, durations, file modes, environment variables.
//!
//! uWSGI takes what it can from a value and drops the rest (`processes = 4x` is 4, a misspelt flag
//! is on). Here a value is understood as a whole or refused with what would be right.

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::StaticMap;

/// The longest duration an option accepts: a year. Deadlines are computed by adding to a clock,
/// which must not overflow.
pub const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Why a value was refused. The text says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ValueError {
    /// Named without a value, but needs one.
    #[error("needs a value: {0}")]
    Missing(&'static str),
    /// Neither a word for on nor one for off.
    #[error("is neither on nor off; use true or false")]
    NotAFlag,
    /// Not a decimal number.
    #[error("is not a whole number")]
    NotANumber,
    /// Not a number with an optional unit of size.
    #[error("is not a size; use bytes, or a number followed by k, m or g")]
    NotASize,
    /// Not a number with an optional unit of time.
    #[error("is not a duration; use seconds, or a number followed by ms, s, m or h")]
    NotADuration,
    /// Not an octal file mode of the right length.
    #[error("is not a file mode; use {0} octal digits, for example 660")]
    NotAMode(&'static str),
    /// Below what makes sense.
    #[error("is too small; the least is {0}")]
    TooSmall(String),
    /// Above what is possible.
    #[error("is too large; the most is {0}")]
    TooLarge(String),
    /// A rule of one option only.
    #[error("{0}")]
    Refused(String),
}

impl ValueError {
    /// A rule of one option only; `what_to_do` is read behind the option and its value.
    pub fn refused(what_to_do: impl Into<String>) -> Self {
        ValueError::Refused(what_to_do.into())
    }
}

/// Reads an on/off word in any case. Empty is on: that is how ini files write a bare flag.
///
/// # Errors
/// [`ValueError::NotAFlag`] for any other word; uWSGI would take it for on.
pub fn flag(text: &str) -> Result<bool, ValueError> {
    match text.to_ascii_lowercase().as_str() {
        "" | "1" | "true" | "on" | "yes" => Ok(true),
        "0" | "false" | "off" | "no" => Ok(false),
        _ => Err(ValueError::NotAFlag),
    }
}

/// Reads a decimal number between `min` and `max`.
///
/// # Errors
/// When it is no number, or out of range.
pub fn int(text: &str, min: u64, max: u64) -> Result<u64, ValueError> {
    in_range(digits(text, ValueError::NotANumber)?, min, max)
}

/// Reads bytes with an optional unit `k`, `m` or `g`: powers of 1024, in either case.
///
/// # Errors
/// When it is no size, or out of range.
pub fn size(text: &str, min: u64, max: u64) -> Result<u64, ValueError> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        _ => return Err(ValueError::NotASize),
    };
    let number = digits(&text[..text.len() - unit.len()], ValueError::NotASize)?;
    in_range(number.saturating_mul(factor), min, max)
}

/// Reads seconds, or a number with a unit `ms`, `s`, `m` or `h`; at most [`MAX_DURATION`].
///
/// # Errors
/// When it is no duration, or out of range.
pub fn duration(text: &str, min: Duration) -> Result<Duration, ValueError> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
    let number = digits(&text[..text.len() - unit.len()], ValueError::NotADuration)?;
    let value = match unit {
        "ms" => Duration::from_millis(number),
        "" | "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        "h" => Duration::from_secs(number.saturating_mul(60 * 60)),
        _ => return Err(ValueError::NotADuration),
    };
    if value < min {
        return Err(ValueError::TooSmall(format!("{} ms", min.as_millis())));
    }
    if value > MAX_DURATION {
        return Err(ValueError::TooLarge("365 days".to_owned()));
    }
    Ok(value)
}

/// Reads the mode of a socket: three octal digits, or four beginning with zero.
///
/// # Errors
/// For anything else; set-user-id and sticky bits mean nothing on a socket.
pub fn mode(text: &str) -> Result<u32, ValueError> {
    octal(text, 3).ok_or(ValueError::NotAMode("three"))
}

/// Reads a file creation mask: one to three octal digits, or four beginning with zero.
///
/// # Errors
/// For anything else.
pub fn umask(text: &str) -> Result<u32, ValueError> {
    octal(text, 1).ok_or(ValueError::NotAMode("up to three"))
}

/// Reads `/prefix=directory`. A slash at the end of the prefix is dropped, except for the root's.
///
/// # Errors
/// When either side is missing or the prefix does not begin with a slash.
pub fn static_map(text: &str) -> Result<StaticMap, ValueError> {
    let (prefix, target) = text.split_once('=').ok_or_else(|| {
        ValueError::refused("has no `=`; write /prefix=directory, for example /static=/srv/www")
    })?;
    if !prefix.starts_with('/') {
        return Err(ValueError::refused(
            "must begin with the URL prefix, and that with a slash: /prefix=directory",
        ));
    }
    if target.is_empty() {
        return Err(ValueError::refused("names no directory; write /prefix=directory"));
    }
    let prefix = match prefix.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    Ok(StaticMap { prefix: prefix.to_owned(), target: PathBuf::from(target) })
}

/// Reads `NAME=VALUE`; the value may be empty and may contain `=`.
///
/// # Errors
/// When there is no `=` or no name. uWSGI removes the variable in the first case.
pub fn variable(text: &str) -> Result<(String, String), ValueError> {
    match text.split_once('=') {
        None => Err(ValueError::refused("has no `=`; write NAME=VALUE, or use unenv to remove a variable")),
        Some(("", _)) => Err(ValueError::refused("has no name before the `=`; write NAME=VALUE")),
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
    }
}

/// Reads the file that receives the log.
///
/// # Errors
/// For `host:port`, which uWSGI takes as a UDP target: it must not become a file of that name.
pub fn log_file(text: &str) -> Result<PathBuf, ValueError> {
    if text.contains(':') && !text.contains('/') {
        return Err(ValueError::refused(
            "looks like a network target, which is not supported; give the path of a file",
        ));
    }
    Ok(PathBuf::from(text))
}

/// Parses digits only: no sign, no space. A number beyond 64 bits becomes the largest one, so that
/// the range check names the limit.
fn digits(text: &str, otherwise: ValueError) -> Result<u64, ValueError> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(otherwise);
    }
    if unsigned.len() < text.len() {
        return Err(ValueError::TooSmall("0".to_owned()));
    }
    Ok(unsigned.parse().unwrap_or(u64::MAX))
}

fn in_range(value: u64, min: u64, max: u64) -> Result<u64, ValueError> {
    if value < min {
        Err(ValueError::TooSmall(min.to_string()))
    } else if value > max {
        Err(ValueError::TooLarge(max.to_string()))
    } else {
        Ok(value)
    }
}

fn octal(text: &str, min_digits: usize) -> Option<u32> {
    let well_formed =
        (min_digits..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok()?;
    (well_formed && mode <= 0o777).then_some(mode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn too_small(least: &str) -> ValueError {
        ValueError::TooSmall(least.to_owned())
    }

    fn too_large(most: &str) -> ValueError {
        ValueError::TooLarge(most.to_owned())
    }

    #[test]
    fn flags_know_four_words_each_and_refuse_the_rest() {
        for on in ["", "1", "true", "True", "on", "YES"] {
            assert_eq!(flag(on), Ok(true), "{on:?}");
        }
        for off in ["0", "false", "FALSE", "off", "No"] {
            assert_eq!(flag(off), Ok(false), "{off:?}");
        }
        for wrong in ["2", "ture", "false ", "disabled", "ja"] {
            assert_eq!(flag(wrong), Err(ValueError::NotAFlag), "{wrong:?}");
        }
    }

    #[test]
    fn numbers_are_read_whole_and_in_range() {
        let cases = [
            ("1", Ok(1)),
            ("9", Ok(9)),
            ("007", Ok(7)),
            ("0", Err(too_small("1"))),
            ("10", Err(too_large("9"))),
            ("99999999999999999999999", Err(too_large("9"))),
            ("-1", Err(too_small("0"))),
            ("", Err(ValueError::NotANumber)),
            ("-", Err(ValueError::NotANumber)),
            ("+1", Err(ValueError::NotANumber)),
            ("4x", Err(ValueError::NotANumber)),
            (" 4", Err(ValueError::NotANumber)),
            ("1.5", Err(ValueError::NotANumber)),
        ];
        for (text, expected) in cases {
            assert_eq!(int(text, 1, 9), expected, "{text:?}");
        }
    }

    #[test]
    fn sizes_take_a_binary_unit() {
        let cases = [
            ("0", Ok(0)),
            ("4096", Ok(4096)),
            ("4k", Ok(4096)),
            ("1M", Ok(1 << 20)),
            ("2g", Ok(2 << 30)),
            ("20g", Err(too_large("4294967296"))),
            ("99999999999999999g", Err(too_large("4294967296"))),
            ("-4k", Err(too_small("0"))),
            ("k", Err(ValueError::NotASize)),
            ("4kb", Err(ValueError::NotASize)),
            ("1.5m", Err(ValueError::NotASize)),
            ("", Err(ValueError::NotASize)),
            ("4é", Err(ValueError::NotASize)),
        ];
        for (text, expected) in cases {
            assert_eq!(size(text, 0, 4 << 30), expected, "{text:?}");
        }
    }

    #[test]
    fn durations_are_seconds_unless_a_unit_follows() {
        let cases = [
            ("1", Ok(Duration::from_secs(1))),
            ("500ms", Ok(Duration::from_millis(500))),
            ("2s", Ok(Duration::from_secs(2))),
            ("5m", Ok(Duration::from_secs(300))),
            ("1h", Ok(Duration::from_secs(3600))),
            ("0", Err(too_small("1 ms"))),
            ("0ms", Err(too_small("1 ms"))),
            ("-1", Err(too_small("0"))),
            ("9000h", Err(too_large("365 days"))),
            ("99999999999999999999h", Err(too_large("365 days"))),
            ("1d", Err(ValueError::NotADuration)),
            ("1.5", Err(ValueError::NotADuration)),
            ("ms", Err(ValueError::NotADuration)),
            ("", Err(ValueError::NotADuration)),
        ];
        for (text, expected) in cases {
            assert_eq!(duration(text, Duration::from_millis(1)), expected, "{text:?}");
        }
        assert_eq!(duration("0", Duration::ZERO), Ok(Duration::ZERO));
    }

    #[test]
    fn modes_are_octal_and_hold_permission_bits_only() {
        assert_eq!(mode("660"), Ok(0o660));
        assert_eq!(mode("0660"), Ok(0o660));
        for wrong in ["", "66", "668", "1666", "00660", "rw-", "+66", "0o6"] {
            assert_eq!(mode(wrong), Err(ValueError::NotAMode("three")), "{wrong:?}");
        }
        assert_eq!(umask("0"), Ok(0));
        assert_eq!(umask("22"), Ok(0o22));
        assert_eq!(umask("0027"), Ok(0o27));
        for wrong in ["", "8", "1000", "00022"] {
            assert_eq!(umask(wrong), Err(ValueError::NotAMode("up to three")), "{wrong:?}");
        }
    }

    #[test]
    fn static_maps_need_a_prefix_and_a_directory() {
        let cases = [
            ("/static=/srv/www", Some(("/static", "/srv/www"))),
            ("/static/=/srv/www", Some(("/static", "/srv/www"))),
            ("/=/srv", Some(("/", "/srv"))),
            ("/a=b=c", Some(("/a", "b=c"))),
            ("/static", None),
            ("static=/srv", None),
            ("=/srv", None),
            ("/static=", None),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(prefix, target)| StaticMap {
                prefix: prefix.to_owned(),
                target: PathBuf::from(target),
            });
            assert_eq!(static_map(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn variables_need_a_name_and_an_equals_sign() {
        assert_eq!(variable("A=b=c"), Ok(("A".to_owned(), "b=c".to_owned())));
        assert_eq!(variable("A="), Ok(("A".to_owned(), String::new())));
        assert!(variable("A").is_err());
        assert!(variable("=b").is_err());
    }

    #[test]
    fn a_log_file_is_no_network_target() {
        assert_eq!(log_file("/var/log/a:b.log"), Ok(PathBuf::from("/var/log/a:b.log")));
        assert_eq!(log_file("app.log"), Ok(PathBuf::from("app.log")));
        assert!(log_file("127.0.0.1:1717").is_err());
    }
}
