//! Looking at a configuration instead of serving with it: `--check-config`, `--show-config` and
//! `--get`.
//!
//! - [`problem`]: what can be wrong, in order, as text or JSON.
//! - [`checks`]: what the machine says to the configuration: users, files, addresses.
//! - [`trial`]: loads the application in a process that is thrown away.
//! - [`show`]: the options in force.

use crate::app::AppFactory;
use crate::boot::StartContext;
use crate::cli::Inspection;
use crate::config::gather::{Ending, Gathered};
use crate::config::{Config, ConfigError, Entry, Examined};
use crate::error::{EXIT_ERROR, EXIT_OK};

pub mod checks;
pub mod problem;
pub mod show;
pub mod trial;

use problem::{Problem, Severity};

/// What came of looking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// For standard output.
    pub text: String,
    /// For standard error, a line each.
    pub complaints: Vec<String>,
    /// What to exit with.
    pub code: u8,
}

/// Checks or shows the configuration that was gathered.
///
/// Needs a process with one thread; it enters the configured directory.
pub fn run(inspection: Inspection, gathered: Gathered, start: &StartContext, factory: AppFactory) -> Report {
    let Gathered { entries, problems: mut errors, ending } = gathered;
    let mut examine = |entries| {
        let Examined { config, errors: wrong } = Config::examine(entries);
        errors.extend(wrong);
        config
    };
    let report = match inspection {
        Inspection::Get(names) => first_values(&names, &entries, &errors),
        Inspection::Show { json } => {
            let config = examine(entries);
            display(json, &config, &errors)
        }
        Inspection::Check { json } => {
            let config = examine(entries);
            return check(json, &config, errors, ending.as_ref(), start, factory);
        }
    };
    match ending {
        Some(Ending { code, origin, .. }) if report.code == EXIT_OK => Report {
            complaints: vec![format!("{origin}: exit ends the start with status {code}")],
            code,
            ..report
        },
        _ => report,
    }
}

fn first_values(names: &[String], entries: &[Entry], errors: &[ConfigError]) -> Report {
    let values = names.iter().filter_map(|name| show::first(name, entries));
    Report {
        text: values.map(|value| format!("{value}\n")).collect(),
        complaints: errors.iter().map(ToString::to_string).collect(),
        code: if errors.is_empty() { EXIT_OK } else { EXIT_ERROR },
    }
}

fn check(
    json: bool,
    config: &Config,
    errors: Vec<ConfigError>,
    ending: Option<&Ending>,
    start: &StartContext,
    factory: AppFactory,
) -> Report {
    let told = |severity| move |error: &ConfigError| Problem::of_config(severity, error);
    let mut problems: Vec<Problem> = errors.iter().map(told(Severity::Error)).collect();
    problems.extend(config.warnings.iter().map(told(Severity::Warning)));
    match ending {
        // What comes behind it is not known, so the rest would be guesswork.
        Some(ending) => problems.push(Problem::of_ending(ending)),
        None => {
            problems.extend(checks::run(config, start));
            problems.extend(trial::run(config, start, factory));
        }
    }
    problem::sort(&mut problems);
    let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
    Report {
        text: if json { problem::json(&problems) } else { problem::text(&problems) },
        complaints: Vec::new(),
        code: if failed { EXIT_ERROR } else { EXIT_OK },
    }
}

fn display(json: bool, config: &Config, errors: &[ConfigError]) -> Report {
    let options = show::effective(config);
    Report {
        text: if json { show::json(&options) } else { show::text(&options) },
        complaints: errors.iter().map(ToString::to_string).collect(),
        code: if errors.is_empty() { EXIT_OK } else { EXIT_ERROR },
    }
}
