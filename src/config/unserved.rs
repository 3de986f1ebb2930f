//! What a configuration asks for and does not get.
//!
//! Most options that do not work yet are worth a warning: the server serves without them, only less
//! well. Not so where the welcome page would be served in place of the application, or on an address
//! that nobody asked for: that looks like success to whoever deploys, and so the server refuses.

use super::error::ConfigError;
use super::schema::{Essential, OptionSpec, Status};
use super::value;
use super::{Config, Entry};

/// Adds a warning for each entry that asks for something not supported, or an error where `strict`
/// demands it or nothing sensible would be served.
pub(super) fn judge(
    config: &mut Config,
    uses: &[(Option<&OptionSpec>, Entry)],
    errors: &mut Vec<ConfigError>,
) {
    let served_elsewhere = !(config.listeners.is_empty() && config.zergs.is_empty());
    for (row, entry) in uses {
        let Some((row, hint)) = row.and_then(missing) else { continue };
        if asks_for_nothing(row, entry) || (row.name == "socket" && config.sockets_speak_http) {
            continue;
        }
        let refusal = match row.essential {
            Some(Essential::Application) => Some(format!(
                "is not supported yet: {hint}. Without it the server would do something else than you ask for"
            )),
            Some(Essential::Listener) if !served_elsewhere => {
                Some(format!("is not supported yet: {hint}. There is no other address to serve on"))
            }
            Some(Essential::Listener) | None => None,
        };
        let is_fatal = refusal.is_some() || config.strict;
        let problem =
            ConfigError::new(entry, refusal.unwrap_or_else(|| format!("is not supported yet: {hint}")));
        if is_fatal { errors.push(problem) } else { config.warnings.push(problem) }
    }
}

fn missing(row: &OptionSpec) -> Option<(&OptionSpec, &'static str)> {
    match row.status {
        Status::NotYet(hint) => Some((row, hint)),
        Status::Works | Status::AcceptedNoEffect(_) => None,
    }
}

/// True for `harakiri = 0`, `emperor-tyrant = false` and their like.
fn asks_for_nothing(row: &OptionSpec, entry: &Entry) -> bool {
    let Some(text) = entry.value.as_deref().or(row.bare) else { return false };
    let is_default = !row.default.is_empty() && text == row.default;
    is_default || (row.value_is_optional() && !text.is_empty() && value::flag(text) == Ok(false))
}

#[cfg(test)]
mod tests {
    use super::super::Examined;
    use super::super::options::OPTIONS;
    use super::super::schema::{Kind, Shape};
    use super::*;

    fn examine(lines: &[&str]) -> (Vec<String>, Vec<String>) {
        let entry = |(index, line): (usize, &&str)| {
            let (name, value) = line.split_once('=').map_or((*line, None), |(n, v)| (n, Some(v.to_owned())));
            Entry { name: name.to_owned(), value, origin: format!("app.ini:{}", index + 1) }
        };
        let Examined { config, errors } = Config::examine(lines.iter().enumerate().map(entry).collect());
        let text = |problems: Vec<ConfigError>| problems.iter().map(ToString::to_string).collect();
        (text(config.warnings), text(errors))
    }

    #[test]
    fn an_option_not_supported_is_a_warning_with_its_place_and_a_hint() {
        let (warnings, errors) = examine(&["master", "harakiri=30"]);
        let expected = r#"app.ini:2: harakiri = "30" is not supported yet: requests are not limited in time"#;
        assert_eq!((warnings, errors), (vec![expected.to_owned()], vec![]));
    }

    #[test]
    fn strict_makes_it_an_error_wherever_it_stands() {
        for lines in [["strict", "harakiri=30"], ["harakiri=30", "strict"]] {
            let (warnings, errors) = examine(&lines);
            assert_eq!((warnings.len(), errors.len()), (0, 1), "{errors:?}");
        }
    }

    #[test]
    fn to_turn_off_what_is_not_there_is_fine() {
        for line in [
            "harakiri=0",
            "emperor-tyrant=false",
            "stats-minified=off",
            "gevent=0",
            "log-date",
            "max-requests=0",
        ] {
            assert_eq!(examine(&["strict", line]), (vec![], vec![]), "{line}");
        }
        assert_eq!(examine(&["stats-minified="]).0.len(), 1, "an empty value is on");
    }

    #[test]
    fn an_application_that_cannot_be_loaded_stops_the_start() {
        for line in
            ["psgi=app.psgi", "paste=config:a.ini", "worker-mount=/=a.py", "emperor=/etc/v", "http-to=:1"]
        {
            let (warnings, errors) = examine(&[line, "http-socket=:1"]);
            assert_eq!((warnings.len(), errors.len()), (0, 1), "{line}: {errors:?}");
            assert!(errors[0].contains("something else than you ask for"), "{errors:?}");
        }
    }

    #[test]
    fn a_protocol_that_is_not_spoken_stops_the_start_only_where_nothing_else_is_served() {
        for line in ["socket=:2", "fastcgi-socket=:2", "https-socket=:2,c,k"] {
            let (warnings, errors) = examine(&[line]);
            assert_eq!((warnings.len(), errors.len()), (0, 1), "{line}: {errors:?}");
            let (warnings, errors) = examine(&[line, "http-socket=:1"]);
            assert_eq!((warnings.len(), errors.len()), (1, 0), "{line}: {errors:?}");
        }
    }

    #[test]
    fn sockets_that_speak_http_are_served() {
        assert_eq!(examine(&["strict", "socket=:2", "protocol=http"]), (vec![], vec![]));
        assert_eq!(examine(&["protocol=http", "protocol=uwsgi", "socket=:2"]).1.len(), 1);
    }

    #[test]
    fn every_value_that_is_not_used_is_checked_all_the_same() {
        let wrong = |shape| match shape {
            Shape::Flag => Some("perhaps"),
            Shape::Int | Shape::Size | Shape::Seconds | Shape::Megabytes => Some("-1"),
            Shape::Mode => Some("9"),
            Shape::Pair => Some("x"),
            Shape::Address => Some("1:2:3"),
            Shape::Name | Shape::Path => Some(""),
            Shape::Text => None,
        };
        for row in OPTIONS {
            let Kind::Unused(shape) = row.kind else { continue };
            let Some(value) = wrong(shape) else { continue };
            if value.is_empty() && row.bare.is_some() {
                continue;
            }
            let line = format!("{}={value}", row.name);
            assert_eq!(examine(&[&line]).1.len(), 1, "{line}");
        }
    }
}
