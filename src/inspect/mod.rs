//! Looking at a configuration instead of serving with it: `--check-config` and `--show-config`.
//!
//! - [`problem`]: what can be wrong, in order, as text or JSON.
//! - [`checks`]: what the machine says to the configuration: users, files, addresses.
//! - [`trial`]: loads the application in a process that is thrown away.
//! - [`show`]: the options in force.

use crate::app::AppFactory;
use crate::boot::StartContext;
use crate::cli::Inspection;
use crate::config::gather::Gathered;
use crate::config::{Config, ConfigError, Examined};
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
    let Examined { config, errors: wrong } = Config::examine(gathered.entries);
    let mut errors = gathered.problems;
    errors.extend(wrong);
    if inspection.check {
        check(inspection, &config, errors, start, factory)
    } else {
        display(inspection, &config, &errors)
    }
}

fn check(
    inspection: Inspection,
    config: &Config,
    errors: Vec<ConfigError>,
    start: &StartContext,
    factory: AppFactory,
) -> Report {
    let told = |severity| move |error: &ConfigError| Problem::of_config(severity, error);
    let mut problems: Vec<Problem> = errors.iter().map(told(Severity::Error)).collect();
    problems.extend(config.warnings.iter().map(told(Severity::Warning)));
    problems.extend(checks::run(config, start));
    problems.extend(trial::run(config, start, factory));
    problem::sort(&mut problems);
    let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
    Report {
        text: if inspection.json { problem::json(&problems) } else { problem::text(&problems) },
        complaints: Vec::new(),
        code: if failed { EXIT_ERROR } else { EXIT_OK },
    }
}

fn display(inspection: Inspection, config: &Config, errors: &[ConfigError]) -> Report {
    let options = show::effective(config);
    Report {
        text: if inspection.json { show::json(&options) } else { show::text(&options) },
        complaints: errors.iter().map(ToString::to_string).collect(),
        code: if errors.is_empty() { EXIT_OK } else { EXIT_ERROR },
    }
}
