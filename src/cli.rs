//! The command line: what it asks for, and the configuration it leads to.
//!
//! Only the shape is checked here, that is which options exist and which take a value. What the
//! values mean is [`Config::build`]'s business, so that a file and the command line are judged alike.
//!
//! `parser` is clap's, built from the option table; `arguments` makes entries of what it found,
//! `declared` helps with options that a file has declared, `reference` prints man page and completions.
//! [`torture`] is the one command with options of its own.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::context::{Context, Reading};
use crate::config::gather::{Ending, Gathered, gather};
use crate::config::{Config, ConfigError, Entry, Examined};
use crate::error::{EXIT_ERROR, EXIT_USAGE};

mod arguments;
mod declared;
mod parser;
mod reference;
pub mod torture;

use arguments::{Arguments, Refusal, parse_arguments};

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Run a server with these options: those of the environment, of the command line and of all
    /// files, in the order in which they count.
    Serve(Vec<Entry>),
    /// Act on a running server and exit.
    Command(Command),
    /// Look at the configuration that was gathered, whatever is wrong with it, and exit.
    Inspect(Inspection, Gathered),
    /// Print this text to standard output and exit.
    Print(String),
    /// Exit because the configuration says so.
    End(Ending),
}

/// What to do with a configuration instead of serving with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inspection {
    /// `--check-config`
    Check {
        /// Print JSON.
        json: bool,
    },
    /// `--show-config`
    Show {
        /// Print JSON.
        json: bool,
    },
    /// `--get`: the first values of these options.
    Get(Vec<String>),
}

/// Acts on a running server, which is named by its pidfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `--reload`: a graceful reload.
    Reload(PathBuf, Option<Wait>),
    /// `--rollback`: the generation before, from memory.
    Rollback(PathBuf, Option<Wait>),
    /// `--stop`
    Stop(PathBuf, Option<Wait>),
    /// `--pause` (true), `--resume` (false)
    Pause(PathBuf, bool),
    /// `--status`: does it run?
    Status(PathBuf),
}

/// `--wait`: return when what was asked for has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// No longer than this.
    pub limit: Option<Duration>,
}

/// A command line that could not be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CliError {
    /// What to print on standard error; whole lines.
    pub text: String,
    /// What to exit with.
    pub exit_code: u8,
    /// What is wrong with the configuration, when that is what `text` is about.
    pub problems: Vec<ConfigError>,
    /// `fallback-config`, if the configuration was read that far.
    pub fallback: Option<PathBuf>,
}

impl CliError {
    fn usage(text: impl Into<String>) -> Self {
        CliError { text: text.into(), exit_code: EXIT_USAGE, problems: Vec::new(), fallback: None }
    }

    fn configuration(problems: Vec<ConfigError>, fallback: Option<PathBuf>) -> Self {
        let text = problems.iter().map(|problem| format!("{problem}\n")).collect();
        CliError { text, exit_code: EXIT_ERROR, problems, fallback }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

impl Error for CliError {}

/// Understands the command line and reads what it names, for a first start; `args` begins with the
/// name of the program, as in [`std::env::args_os`].
///
/// # Errors
/// Those of [`parse_for`].
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    parse_for(Reading::first(), args)
}

/// Understands the command line and reads the environment and the files it names, anew each time.
///
/// # Errors
/// For options that do not exist or lack a value, arguments that are not UTF-8, and commands
/// combined with other options; then the exit code is that of wrong usage. For files that cannot
/// be read or understood: every problem, those with the options' values included.
pub fn parse_for(reading: Reading, args: impl IntoIterator<Item = OsString>) -> Result<Invocation, CliError> {
    let mut words = arguments::words(args)?;
    let parsed = loop {
        // Each round settles one use of a declared option, so there is an end to it.
        match parse_arguments(words.clone()) {
            Ok(parsed) => break parsed,
            Err(Refusal { error, unknown }) => {
                let settled = unknown.and_then(|option| declared::settle(&words, &option, reading));
                words = settled.ok_or(error)?;
            }
        }
    };
    let (inspection, options, files) = match parsed {
        Arguments::Done(invocation) => return Ok(invocation),
        Arguments::Gather { inspection, options, files } => (inspection, options, files),
    };
    let gathered = gather(&Context::capture(reading), options, files);
    if let Some(inspection) = inspection {
        return Ok(Invocation::Inspect(inspection, gathered));
    }
    let Gathered { entries, mut problems, ending } = gathered;
    match ending {
        Some(ending) if problems.is_empty() => Ok(Invocation::End(ending)),
        _ if problems.is_empty() => Ok(Invocation::Serve(entries)),
        _ => {
            let Examined { config, errors } = Config::examine(entries);
            problems.extend(errors);
            Err(CliError::configuration(problems, config.fallback_config))
        }
    }
}

/// The configuration that the arguments of a running server lead to now: for a process that its master
/// has executed.
///
/// # Errors
/// Those of [`parse_for`] and [`Config::build`]; and when the configuration starts no server any more.
pub fn configuration(reading: Reading, args: impl IntoIterator<Item = OsString>) -> Result<Config, CliError> {
    match parse_for(reading, args)? {
        Invocation::Serve(entries) => {
            Config::build(entries).map_err(|errors| CliError::configuration(errors.0, None))
        }
        Invocation::End(Ending { code, origin, .. }) => {
            Err(CliError::usage(format!("{origin}: exit ends the start with status {code}\n")))
        }
        Invocation::Command(_) | Invocation::Inspect(..) | Invocation::Print(_) => {
            Err(CliError::usage("the arguments start no server\n"))
        }
    }
}

#[cfg(test)]
mod tests;
