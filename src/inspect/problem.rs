//! What can be wrong with a configuration, and how it is told.

use serde::{Deserialize, Serialize};

use crate::config::gather::Ending;
use crate::config::{Config, ConfigError, Entry};

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The server would not start, or not load its application.
    Error,
    /// It would start, and something would not be as it was meant.
    Warning,
    /// Worth knowing.
    Note,
}

/// One thing to tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// Where the option was given, as in `app.ini:12`; `default` where it was not.
    pub origin: String,
    /// The option, if it is about one.
    pub option: Option<String>,
    /// One or two sentences, which name option and value where there are any.
    pub message: String,
}

impl Problem {
    /// One that was found while options were read.
    pub fn of_config(severity: Severity, error: &ConfigError) -> Self {
        let text = error.to_string();
        let message = text.strip_prefix(&format!("{}: ", error.origin)).unwrap_or(&text).to_owned();
        Problem { severity, origin: error.origin.clone(), option: Some(error.option.clone()), message }
    }

    /// The configuration does not let the server start.
    pub fn of_ending(ending: &Ending) -> Self {
        let Ending { code, origin, .. } = ending;
        let message = format!("exit: the start ends here with status {code}; what follows was not looked at");
        Problem {
            severity: Severity::Error,
            origin: origin.clone(),
            option: Some("exit".to_owned()),
            message,
        }
    }

    /// One about this use of an option.
    pub fn of_entry(severity: Severity, entry: &Entry, message: impl std::fmt::Display) -> Self {
        let Entry { name, origin, .. } = entry;
        let message = format!("{name}: {message}");
        Problem { severity, origin: origin.clone(), option: Some(name.clone()), message }
    }

    /// One about the last use of an option, or about its not being used.
    pub fn about(severity: Severity, config: &Config, option: &str, message: impl std::fmt::Display) -> Self {
        match config.entries.iter().rev().find(|entry| entry.name == option) {
            Some(entry) => Problem::of_entry(severity, entry, message),
            None => Problem {
                severity,
                origin: "default".to_owned(),
                option: Some(option.to_owned()),
                message: format!("{option}: {message}"),
            },
        }
    }

    /// File and line of the origin, where it has them.
    fn place(&self) -> Option<(&str, u64)> {
        let (file, line) = self.origin.rsplit_once(':')?;
        Some((file, line.parse().ok()?))
    }
}

/// Puts them in the order of files and lines; what is in no file comes first.
pub fn sort(problems: &mut [Problem]) {
    problems.sort_by(|a, b| {
        let key = |problem: &Problem| problem.place().map(|(file, line)| (file.to_owned(), line));
        key(a).cmp(&key(b)).then(a.severity.cmp(&b.severity))
    });
}

/// A line each, and one that counts them.
pub fn text(problems: &[Problem]) -> String {
    let mut text = String::new();
    for Problem { severity, origin, message, .. } in problems {
        text.push_str(&format!("{origin}: {}: {message}\n", word(*severity)));
    }
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let counts: Vec<_> = [Severity::Error, Severity::Warning, Severity::Note]
        .into_iter()
        .filter_map(|severity| match count(severity) {
            0 => None,
            1 => Some(format!("1 {}", word(severity))),
            many => Some(format!("{many} {}s", word(severity))),
        })
        .collect();
    let verdict = if count(Severity::Error) == 0 {
        "the configuration is valid"
    } else {
        "the configuration is not valid"
    };
    match counts.is_empty() {
        true => format!("{verdict}\n"),
        false => format!("{text}{verdict}: {}\n", counts.join(", ")),
    }
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Note => "note",
    }
}

/// `{"valid": …, "problems": […]}`; file and line are null where a problem is in no file.
pub fn json(problems: &[Problem]) -> String {
    let valid = problems.iter().all(|problem| problem.severity != Severity::Error);
    let problems: Vec<_> = problems
        .iter()
        .map(|problem| {
            let place = problem.place();
            serde_json::json!({
                "severity": problem.severity,
                "origin": problem.origin,
                "file": place.map(|(file, _)| file),
                "line": place.map(|(_, line)| line),
                "option": problem.option,
                "message": problem.message,
            })
        })
        .collect();
    format!("{:#}\n", serde_json::json!({ "valid": valid, "problems": problems }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity, origin: &str) -> Problem {
        Problem {
            severity,
            origin: origin.to_owned(),
            option: Some("uid".to_owned()),
            message: "uid: no".to_owned(),
        }
    }

    #[test]
    fn problems_are_told_in_the_order_of_files_and_lines() {
        use Severity::{Error, Note, Warning};
        let mut all = [
            problem(Warning, "b.ini:2"),
            problem(Note, "a.ini:10"),
            problem(Warning, "a.ini:9"),
            problem(Error, "a.ini:10"),
            problem(Error, "command line"),
        ];
        sort(&mut all);
        assert_eq!(
            text(&all),
            "command line: error: uid: no\na.ini:9: warning: uid: no\na.ini:10: error: uid: no\n\
             a.ini:10: note: uid: no\nb.ini:2: warning: uid: no\n\
             the configuration is not valid: 2 errors, 2 warnings, 1 note\n"
        );
        assert_eq!(text(&[]), "the configuration is valid\n");
    }

    #[test]
    fn json_names_file_and_line() {
        let parsed: serde_json::Value =
            serde_json::from_str(&json(&[problem(Severity::Warning, "a.ini:9")])).expect("JSON");
        assert_eq!(parsed["valid"], true);
        assert_eq!(parsed["problems"][0]["file"], "a.ini");
        assert_eq!(parsed["problems"][0]["line"], 9);
        assert_eq!(parsed["problems"][0]["severity"], "warning");
    }
}
