//! Options that the configuration itself declares, used on the command line.
//!
//! As in uWSGI they are known from the argument on that declares them, or names a file that does.

use super::arguments::{Arguments, parse_arguments};
use crate::config::context::{Context, Reading};
use crate::config::gather::declared;

/// Rewrites the first use of `option`, which the parser does not know, to `--set`; `None` when
/// nothing before it declares such an option.
///
/// The files before it are read for that, and once more when all is gathered.
pub(super) fn settle(words: &[String], option: &str, reading: Reading) -> Option<Vec<String>> {
    let name = option.strip_prefix("--")?;
    let is_use = |word: &String| {
        word.strip_prefix(option).is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let place = words.iter().skip(1).position(is_use)? + 1;
    let Ok(Arguments::Gather { options, .. }) = parse_arguments(words[..place].to_vec()) else { return None };
    let known = declared(&Context::capture(reading), options);
    let takes_argument = known.get(name)?.takes_argument();
    let (value, next) = match (words[place].split_once('='), takes_argument) {
        (Some((_, value)), true) => (value, place + 1),
        (None, true) => (words.get(place + 1)?.as_str(), place + 2),
        (None, false) => ("", place + 1),
        (Some(_), false) => return None,
    };
    let mut settled = words[..place].to_vec();
    settled.push(format!("--set={name}={value}"));
    settled.extend_from_slice(words.get(next..).unwrap_or_default());
    Some(settled)
}
