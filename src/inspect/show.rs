//! `--show-config`: the options in force, and where each comes from. `--get`: what was given first.

use serde::Serialize;

use crate::config::options::{self, OPTIONS};
use crate::config::schema::Status;
use crate::config::{Config, Entry};

/// An option in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Canonical name.
    pub name: String,
    /// Its value, after all expansion; `true` for a flag that was only named.
    pub value: String,
    /// Where it was given, as in `app.ini:12`, or `default`.
    pub origin: String,
}

/// What was given, in that order and without what a later use replaced; then the defaults.
pub fn effective(config: &Config) -> Vec<Shown> {
    let mut shown = Vec::new();
    for (index, entry) in config.entries.iter().enumerate() {
        let row = options::find(&entry.name);
        let replaced = row.is_some_and(|row| !row.repeatable)
            && config.entries[index + 1..].iter().any(|later| later.name == entry.name);
        if replaced || entry.is_warning() {
            continue;
        }
        let bare = row.and_then(|row| row.bare).unwrap_or("true");
        shown.push(Shown {
            name: entry.name.clone(),
            value: entry.value.clone().unwrap_or_else(|| bare.to_owned()),
            origin: entry.origin.clone(),
        });
    }
    let given = |name: &str| config.entries.iter().any(|entry| entry.name == name);
    for row in OPTIONS.iter().filter(|row| row.status == Status::Works && !row.default.is_empty()) {
        if !given(row.name) {
            let (name, value) = (row.name.to_owned(), row.default.to_owned());
            shown.push(Shown { name, value, origin: "default".to_owned() });
        }
    }
    shown
}

/// The first value that was given to an option or a placeholder, as uWSGI's `--get` has it.
pub fn first(name: &str, entries: &[Entry]) -> Option<String> {
    let row = options::find(name);
    let is_asked_for =
        |given: &str| given == name || row.is_some_and(|row| row.names().any(|known| known == given));
    entries.iter().find_map(|entry| match (&*entry.name, entry.value.as_deref()) {
        ("set-placeholder", Some(pair)) => {
            pair.split_once('=').filter(|(given, _)| *given == name).map(|(_, value)| value.to_owned())
        }
        (given, value) if is_asked_for(given) => {
            Some(value.or(row.and_then(|row| row.bare)).unwrap_or("true").to_owned())
        }
        _ => None,
    })
}

/// `name = value` lines, the origin behind a semicolon.
pub fn text(options: &[Shown]) -> String {
    /// Longer lines push their origin to the right.
    const COLUMN: usize = 48;
    let mut text = String::from("; the options in force; secrets are not hidden\n");
    for Shown { name, value, origin } in options {
        // One line each, whatever is in the value.
        let value: String = value
            .chars()
            .flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] })
            .collect();
        let setting = format!("{name} = {value}");
        text.push_str(&format!("{setting:COLUMN$} ; {origin}\n"));
    }
    text
}

/// `[{"name", "value", "origin"}, …]`
pub fn json(options: &[Shown]) -> String {
    format!("{:#}\n", serde_json::json!(options))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(lines: &[(&str, Option<&str>)]) -> Vec<(String, String)> {
        let entry = |(name, value): &(&str, Option<&str>)| Entry {
            name: (*name).to_owned(),
            value: value.map(str::to_owned),
            origin: "app.ini:1".to_owned(),
        };
        let config = Config::build(lines.iter().map(entry).collect()).expect("valid");
        let given = effective(&config).into_iter().filter(|option| option.origin != "default");
        given.map(|option| (option.name, option.value)).collect()
    }

    #[test]
    fn what_was_replaced_is_not_in_force_and_lists_are_whole() {
        let lines = [
            ("processes", Some("2")),
            ("env", Some("A=1")),
            ("workers", Some("4")),
            ("env", Some("B=2")),
            ("master", None),
            ("chmod-socket", None),
        ];
        let expected =
            [("env", "A=1"), ("processes", "4"), ("env", "B=2"), ("master", "true"), ("chmod-socket", "666")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(shown(&lines), expected);
    }

    #[test]
    fn defaults_are_shown_where_nothing_was_given() {
        let all = effective(&Config::build(Vec::new()).expect("valid"));
        assert!(all.iter().any(|it| (it.name.as_str(), it.value.as_str()) == ("processes", "1")));
        assert!(all.iter().all(|it| it.origin == "default"));
    }

    #[test]
    fn text_is_a_line_for_each() {
        let option = Shown { name: "env".into(), value: "A=a\nb".into(), origin: "x.ini:3".into() };
        let line = text(&[option]).lines().nth(1).expect("a line").to_owned();
        assert_eq!(line, format!("{:48} ; x.ini:3", "env = A=a\\nb"));
    }
}
