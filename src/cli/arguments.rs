//! Words of the command line to entries, in the order they were typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::ArgMatches;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::parser::{Audience, FILES, parser};
use super::{CliError, Command, Inspection, Invocation, Wait, reference};
use crate::config::Entry;
use crate::config::options::OPTIONS;
use crate::config::scaling::Algorithm;
use crate::config::schema::{CommandKind, Kind};

/// The origin of entries made here.
const ORIGIN: &str = "command line";

/// The command line alone.
#[derive(Debug)]
pub(super) enum Arguments {
    /// A command, or a text to print.
    Done(Invocation),
    /// A server is to be run, or its configuration to be looked at.
    Gather {
        /// How to look at it.
        inspection: Option<Inspection>,
        /// Options in the order they were typed.
        options: Vec<Entry>,
        /// Positional arguments.
        files: Vec<String>,
    },
}

/// A command line that the parser refuses.
#[derive(Debug)]
pub(super) struct Refusal {
    pub error: CliError,
    /// The option that it does not know, if that is why; with dashes.
    pub unknown: Option<String>,
}

/// The arguments as text, in a form that clap reads as meant.
///
/// # Errors
/// When one is not UTF-8.
pub(super) fn words(args: impl IntoIterator<Item = OsString>) -> Result<Vec<String>, CliError> {
    let mut words = Vec::new();
    for (index, arg) in args.into_iter().enumerate() {
        match arg.into_string() {
            Ok(word) => words.push(detach_optional_value(word)),
            // Nobody chooses the program's name by hand, and nothing is read from it.
            Err(_) if index == 0 => words.push(String::new()),
            Err(arg) => {
                let shown = arg.to_string_lossy();
                return Err(CliError::usage(format!(
                    "error: argument {index} ({shown}) is not valid UTF-8\n"
                )));
            }
        }
    }
    settle_json(&mut words);
    Ok(words)
}

/// Reads the command line alone; no file is opened.
///
/// # Errors
/// For what clap refuses.
pub(super) fn parse_arguments(words: Vec<String>) -> Result<Arguments, Refusal> {
    let error = match parser(Audience::Terminal).try_get_matches_from(words) {
        Ok(matches) => return Ok(arguments(&matches)),
        Err(error) => error,
    };
    let unknown = match (error.kind(), error.get(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(ContextValue::String(option))) => Some(option.clone()),
        _ => None,
    };
    let text = error.render().to_string();
    match error.kind() {
        // To clap these are errors, too.
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Arguments::Done(Invocation::Print(text))),
        _ => Err(Refusal { error: CliError::usage(text), unknown }),
    }
}

/// Turns `-C660` into `-C=660`: clap would otherwise read the digits as more one-letter options.
fn detach_optional_value(word: String) -> String {
    let mut chars = word.chars();
    if chars.next() != Some('-') {
        return word;
    }
    let takes_one = |letter| OPTIONS.iter().any(|row| row.short == Some(letter) && row.bare.is_some());
    match chars.next() {
        Some(letter) if takes_one(letter) && chars.as_str().starts_with(|c: char| c.is_ascii_digit()) => {
            format!("-{letter}={}", chars.as_str())
        }
        _ => word,
    }
}

/// With `--check-config` or `--show-config`, a bare `--json` is the form of the output; `--json=FILE`
/// and `-j FILE` still load a file, as they do everywhere.
fn settle_json(words: &mut Vec<String>) {
    let options = words.iter().position(|word| word == "--").unwrap_or(words.len());
    let inspects = |word: &String| word == "--check-config" || word == "--show-config";
    let Some(inspection) = words[..options].iter().position(inspects) else { return };
    let Some(json) = words[..options].iter().position(|word| word == "--json") else { return };
    words[inspection].push_str("=json");
    words.remove(json);
}

fn arguments(matches: &ArgMatches) -> Arguments {
    if matches.get_flag("man") {
        return Arguments::Done(Invocation::Print(reference::man_page()));
    }
    if let Some(shell) = matches.get_one::<String>("completions") {
        return Arguments::Done(Invocation::Print(reference::completions(shell)));
    }
    let command = OPTIONS.iter().find_map(|row| match row.kind {
        Kind::Command(kind) if kind.takes_pidfile() => {
            let pidfile = PathBuf::from(matches.get_one::<String>(row.name)?);
            let wait = matches.get_one::<Option<Duration>>("wait").copied().map(|limit| Wait { limit });
            command(kind, pidfile, wait)
        }
        _ => None,
    });
    if let Some(command) = command {
        return Arguments::Done(Invocation::Command(command));
    }
    if matches.get_flag("dump-options") {
        let names: String = OPTIONS.iter().map(|row| format!("{}\n", row.name)).collect();
        return Arguments::Done(Invocation::Print(names));
    }
    if matches.get_flag("cheaper-algo-list") {
        let names: String = Algorithm::ALL.iter().map(|it| format!("{it}\n")).collect();
        return Arguments::Done(Invocation::Print(names));
    }
    let form = |name: &str| matches.get_one::<String>(name).map(|form| form == "json");
    let asked = matches.get_many::<String>("get").map(|names| Inspection::Get(names.cloned().collect()));
    let check = form("check-config").map(|json| Inspection::Check { json });
    let show = form("show-config").map(|json| Inspection::Show { json });
    let inspection = check.or(show).or(asked);
    Arguments::Gather {
        inspection,
        options: entries(matches),
        files: matches.get_many::<String>(FILES).into_iter().flatten().cloned().collect(),
    }
}

fn command(kind: CommandKind, pidfile: PathBuf, wait: Option<Wait>) -> Option<Command> {
    match kind {
        CommandKind::Reload => Some(Command::Reload(pidfile, wait)),
        CommandKind::Rollback => Some(Command::Rollback(pidfile, wait)),
        CommandKind::Stop => Some(Command::Stop(pidfile, wait)),
        CommandKind::Pause => Some(Command::Pause(pidfile, true)),
        CommandKind::Resume => Some(Command::Pause(pidfile, false)),
        CommandKind::Status => Some(Command::Status(pidfile)),
        _ => None,
    }
}

/// clap groups values by option; their indices bring back the order in which they were typed.
fn entries(matches: &ArgMatches) -> Vec<Entry> {
    let mut found = Vec::new();
    for row in OPTIONS.iter().filter(|row| !matches!(row.kind, Kind::Command(_))) {
        let (Some(values), Some(indices)) =
            (matches.get_many::<String>(row.name), matches.indices_of(row.name))
        else {
            continue;
        };
        for (value, index) in values.zip(indices) {
            // `--master=` is no different from `--master`: both mean on.
            let value = (!row.value_is_optional() || !value.is_empty()).then(|| value.clone());
            found.push((index, Entry { name: row.name.to_owned(), value, origin: ORIGIN.to_owned() }));
        }
    }
    found.sort_by_key(|(index, _)| *index);
    found.into_iter().map(|(_, entry)| entry).collect()
}
