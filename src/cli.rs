//! The command line: clap's parser, built from the option table.
//!
//! Only the shape is checked here, that is which options exist and which take a value. What the
//! values mean is [`Config::build`](crate::config::Config::build)'s business, so that a file and
//! the command line are judged alike.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::builder::StyledStr;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches};

use crate::config::context::{Context, Reading};
use crate::config::gather::{Gathered, gather};
use crate::config::options::OPTIONS;
use crate::config::schema::{CommandKind, Kind, OptionSpec, Status};
use crate::config::{Config, ConfigError, Entry};
use crate::error::{EXIT_ERROR, EXIT_USAGE};

mod reference;

/// The origin of entries made here.
const ORIGIN: &str = "command line";
/// The positional arguments.
const FILES: &str = "FILE";

const ABOUT: &str = "A pre-fork application server whose reload loses nothing and stops nothing.\n\n\
    SECONDS take a unit: 500ms, 2s, 5m. BYTES too: 64k, 10m. A flag is turned off with --name=false.\n\
    An unambiguous beginning of a name is enough.";

const EXAMPLES: &str = "Examples:\n  \
    appserver --http :8080 --static-dir public\n  \
    appserver /etc/app/app.ini\n  \
    appserver -M -p auto --http-socket /run/app.sock --chmod-socket=660 --pidfile /run/app.pid\n  \
    appserver --check-config -p auto --uid www-data --http :80\n  \
    appserver --reload /run/app.pid\n\n\
    Further options of uWSGI are accepted, or answered with a warning; the man page lists them\n\
    (appserver --man | man -l -).";

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
}

/// What to do with a configuration instead of serving with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Inspection {
    /// `--check-config`; otherwise `--show-config`.
    pub check: bool,
    /// Print JSON.
    pub json: bool,
}

/// Acts on a running server, which is named by its pidfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `--reload`: a graceful reload.
    Reload(PathBuf),
    /// `--stop`
    Stop(PathBuf),
    /// `--status`: does it run?
    Status(PathBuf),
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
}

impl CliError {
    fn usage(text: impl Into<String>) -> Self {
        CliError { text: text.into(), exit_code: EXIT_USAGE, problems: Vec::new() }
    }

    fn configuration(problems: Vec<ConfigError>) -> Self {
        let text = problems.iter().map(|problem| format!("{problem}\n")).collect();
        CliError { text, exit_code: EXIT_ERROR, problems }
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
    match parse_arguments(args)? {
        Arguments::Done(invocation) => Ok(invocation),
        Arguments::Gather { inspection, options, files } => {
            let gathered = gather(&Context::capture(reading), options, files);
            if let Some(inspection) = inspection {
                return Ok(Invocation::Inspect(inspection, gathered));
            }
            if gathered.problems.is_empty() {
                return Ok(Invocation::Serve(gathered.entries));
            }
            let mut problems = gathered.problems;
            if let Err(errors) = Config::build(gathered.entries) {
                problems.extend(errors.0);
            }
            Err(CliError::configuration(problems))
        }
    }
}

/// The command line alone.
#[derive(Debug)]
enum Arguments {
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

fn parse_arguments(args: impl IntoIterator<Item = OsString>) -> Result<Arguments, CliError> {
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
    match parser(Audience::Terminal).try_get_matches_from(words) {
        Ok(matches) => Ok(arguments(&matches)),
        Err(error) => understand(&error).map(Arguments::Done),
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

/// Who reads about the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Audience {
    /// `--help`: what works, so that it can be found.
    Terminal,
    /// Man page and completions: everything that is understood.
    Reference,
}

fn parser(audience: Audience) -> clap::Command {
    clap::Command::new("appserver")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .override_usage(
            "appserver [OPTIONS] [FILE]...\n       \
             appserver --check-config|--show-config [--json] [OPTIONS] [FILE]...\n       \
             appserver --reload|--stop|--status PIDFILE",
        )
        .max_term_width(100)
        .infer_long_args(true)
        // The table has its own rows for both.
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(OPTIONS.iter().map(|row| argument(row, audience)))
        .arg(
            Arg::new(FILES)
                .action(ArgAction::Append)
                .num_args(0..)
                .help("Configuration files, read after all options: .ini .yaml .yml .json .js .toml .xml"),
        )
}

fn argument(row: &OptionSpec, audience: Audience) -> Arg {
    let arg = Arg::new(row.name)
        .hide(audience == Audience::Terminal && row.status != Status::Works)
        .long(row.name)
        .aliases(row.aliases)
        .help(help(row))
        .help_heading(row.group.title())
        .value_name(row.placeholder());
    let arg = match row.short {
        Some(letter) => arg.short(letter),
        None => arg,
    };
    match row.kind {
        Kind::Command(CommandKind::Version) => arg.action(ArgAction::Version),
        Kind::Command(CommandKind::Help) => arg.action(ArgAction::Help),
        Kind::Command(CommandKind::Man) => arg.action(ArgAction::SetTrue).exclusive(true),
        Kind::Command(CommandKind::Completions) => {
            arg.action(ArgAction::Set).exclusive(true).value_parser(reference::shells())
        }
        Kind::Command(CommandKind::CheckConfig | CommandKind::ShowConfig) => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .value_parser(["text", "json"])
            .default_missing_value("text")
            .conflicts_with_all(["check-config", "show-config"].into_iter().filter(|name| *name != row.name)),
        Kind::Command(_) => arg.action(ArgAction::Set).exclusive(true),
        // The empty value takes a place in the order; `entries` tells it from a given one.
        _ if row.value_is_optional() => {
            arg.action(ArgAction::Append).num_args(0..=1).require_equals(true).default_missing_value("")
        }
        // Lets a negative number through to the message that names the least one.
        Kind::Int { .. } | Kind::IntOrAuto { .. } | Kind::Size { .. } | Kind::Seconds { .. } => {
            arg.action(ArgAction::Append).allow_negative_numbers(true)
        }
        _ => arg.action(ArgAction::Append),
    }
}

fn help(row: &OptionSpec) -> StyledStr {
    let mut text = row.help.to_owned();
    match row.status {
        Status::Works => {}
        Status::AcceptedNoEffect(reason) => text.push_str(&format!(" [no effect: {reason}]")),
        Status::NotYet(reason) => text.push_str(&format!(" [not supported yet: {reason}]")),
    }
    // Without dashes and not left to clap, so that only an option's own line begins with its name.
    if !row.aliases.is_empty() {
        text.push_str(&format!(" [also: {}]", row.aliases.join(", ")));
    }
    if !row.default.is_empty() {
        text.push_str(&format!(" [default: {}]", row.default));
    }
    if row.repeatable {
        text.push_str(" [repeatable]");
    }
    text.into()
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
            command(kind, pidfile)
        }
        _ => None,
    });
    if let Some(command) = command {
        return Arguments::Done(Invocation::Command(command));
    }
    let inspection =
        [("check-config", true), ("show-config", false)].into_iter().find_map(|(name, check)| {
            let form = matches.get_one::<String>(name)?;
            Some(Inspection { check, json: form == "json" })
        });
    Arguments::Gather {
        inspection,
        options: entries(matches),
        files: matches.get_many::<String>(FILES).into_iter().flatten().cloned().collect(),
    }
}

fn command(kind: CommandKind, pidfile: PathBuf) -> Option<Command> {
    match kind {
        CommandKind::Reload => Some(Command::Reload(pidfile)),
        CommandKind::Stop => Some(Command::Stop(pidfile)),
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

/// What clap reports as an error: help and version are none.
fn understand(error: &clap::Error) -> Result<Invocation, CliError> {
    let text = error.render().to_string();
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Ok(Invocation::Print(text));
    }
    Err(CliError::usage(text))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    fn arguments_of(words: &[&str]) -> Result<Arguments, CliError> {
        parse_arguments(std::iter::once("appserver").chain(words.iter().copied()).map(OsString::from))
    }

    fn parse_words(words: &[&str]) -> Result<Invocation, CliError> {
        match arguments_of(words)? {
            Arguments::Done(invocation) => Ok(invocation),
            Arguments::Gather { inspection: Some(inspection), options: entries, .. } => {
                let problems = Vec::new();
                Ok(Invocation::Inspect(inspection, Gathered { entries, problems }))
            }
            Arguments::Gather { inspection: None, options, files } => {
                assert_eq!(files, [""; 0], "{words:?}");
                Ok(Invocation::Serve(options))
            }
        }
    }

    /// Entries as `name` or `name=value`.
    fn served(words: &[&str]) -> Vec<String> {
        match parse_words(words) {
            Ok(Invocation::Serve(entries)) => entries
                .into_iter()
                .map(|entry| match entry.value {
                    Some(value) => format!("{}={value}", entry.name),
                    None => entry.name,
                })
                .collect(),
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn refused(words: &[&str]) -> String {
        match parse_words(words) {
            Err(error) => {
                assert_eq!(error.exit_code, EXIT_USAGE, "{words:?}");
                error.text
            }
            other => panic!("{words:?}: {other:?}"),
        }
    }

    fn printed(words: &[&str]) -> String {
        match parse_words(words) {
            Ok(Invocation::Print(text)) => text,
            other => panic!("{words:?}: {other:?}"),
        }
    }

    #[test]
    fn entries_keep_the_order_in_which_they_were_typed() {
        let words =
            ["--http", ":1", "-M", "--http-socket=:2", "--http", ":3", "--master=no", "-p", "4", "-Mp5"];
        let expected = [
            "http=:1",
            "master",
            "http-socket=:2",
            "http=:3",
            "master=no",
            "processes=4",
            "master",
            "processes=5",
        ];
        assert_eq!(served(&words), expected);
        assert_eq!(served(&[]), [""; 0]);
    }

    #[test]
    fn options_can_be_written_in_several_ways() {
        let cases: [(&[&str], &[&str]); 14] = [
            (&["--processes", "3"], &["processes=3"]),
            (&["--processes=3"], &["processes=3"]),
            (&["-p3"], &["processes=3"]),
            (&["--workers", "3"], &["processes=3"]),
            (&["--process", "3"], &["processes=3"]),
            (&["--processes", "-3"], &["processes=-3"]),
            (&["--chmod-socket"], &["chmod-socket"]),
            (&["--chmod-socket=660"], &["chmod-socket=660"]),
            (&["--chmod=660"], &["chmod-socket=660"]),
            (&["-C660"], &["chmod-socket=660"]),
            (&["-C", "-M"], &["chmod-socket", "master"]),
            (&["--http-keepalive=", "--pidfile="], &["http-keepalive", "pidfile="]),
            (&["--env", "A=b,c"], &["env=A=b,c"]),
            (&["-LMz5"], &["disable-logging", "master", "http-timeout=5"]),
        ];
        for (words, expected) in cases {
            assert_eq!(served(words), expected, "{words:?}");
        }
    }

    #[test]
    fn every_option_reaches_the_configuration_by_each_of_its_names() {
        for row in OPTIONS.iter().filter(|row| !matches!(row.kind, Kind::Command(_))) {
            let shorts = row.short.map(|letter| format!("-{letter}=x"));
            for word in row.names().map(|name| format!("--{name}=x")).chain(shorts) {
                assert_eq!(served(&[&word]), [format!("{}=x", row.name)], "{word}");
            }
        }
    }

    #[test]
    fn commands_take_a_pidfile_and_nothing_else() {
        let path = || PathBuf::from("/run/a.pid");
        let cases = [
            ("--reload", Command::Reload(path())),
            ("--stop", Command::Stop(path())),
            ("--status", Command::Status(path())),
        ];
        for (word, expected) in cases {
            assert_eq!(parse_words(&[word, "/run/a.pid"]), Ok(Invocation::Command(expected)));
            assert!(refused(&[word]).contains("a value is required"), "{word}");
            assert!(refused(&[word, "/run/a.pid", "-M"]).contains("cannot be used with"), "{word}");
        }
        assert!(refused(&["--reload", "a", "--stop", "b"]).contains("cannot be used with"));
    }

    #[test]
    fn an_unknown_option_brings_a_suggestion() {
        let text = refused(&["--proceses", "3"]);
        assert!(text.contains("--proceses") && text.contains("'--processes'"), "{text}");
        assert!(refused(&["-9"]).contains("-9"));
        assert!(refused(&["--procname-", "x"]).contains("unexpected argument"), "an ambiguous beginning");
    }

    #[test]
    fn a_missing_value_is_a_usage_error() {
        assert!(refused(&["--pidfile"]).contains("a value is required"));
        assert!(refused(&["--pidfile", "--master"]).contains("a value is required"));
    }

    #[test]
    fn positional_arguments_are_files_wherever_they_stand() {
        for words in [&["a.ini", "-M", "b.yaml"][..], &["-M", "--", "a.ini", "b.yaml"]] {
            let Ok(Arguments::Gather { options, files, .. }) = arguments_of(words) else {
                panic!("{words:?}")
            };
            assert_eq!((options.len(), files), (1, vec!["a.ini".to_owned(), "b.yaml".to_owned()]));
        }
        let Ok(Arguments::Gather { files, .. }) = arguments_of(&["--ini", "-", "-"]) else { panic!("-") };
        assert_eq!(files, ["-"]);
    }

    #[test]
    fn problems_of_files_and_values_come_together() {
        let words = ["appserver", "--ini", "/nowhere/a.ini", "--processes=many", "app.py", "5"];
        let error = parse(words.map(OsString::from)).expect_err("four problems");
        assert_eq!((error.exit_code, error.problems.len()), (EXIT_ERROR, 4), "{error}");
        for part in
            ["/nowhere/a.ini\" cannot be read: No such file", "Python", "--name=value", "whole number"]
        {
            assert!(error.text.contains(part), "{part}: {error}");
        }
    }

    #[test]
    fn arguments_must_be_utf_8_except_the_name_of_the_program() {
        let bad = || OsString::from_vec(b"--pid\xff".to_vec());
        let error = parse_arguments([OsString::from("appserver"), bad()]).expect_err("not UTF-8");
        assert!(error.text.contains("argument 1 (--pid\u{fffd}) is not valid UTF-8"), "{error}");
        for words in [vec![bad()], Vec::new()] {
            assert!(
                matches!(parse_arguments(words), Ok(Arguments::Gather { options, .. }) if options.is_empty())
            );
        }
    }

    #[test]
    fn version_is_one_line() {
        assert_eq!(printed(&["--version"]), format!("appserver {}\n", env!("CARGO_PKG_VERSION")));
    }

    #[test]
    fn help_lists_every_option_that_works_once_under_its_topic() {
        assert_eq!(printed(&["--help"]), printed(&["-h"]));
        // A fixed width: wrapping at the tester's could begin a line with the name of an option.
        let text = parser(Audience::Terminal).term_width(100).render_help().to_string();
        let mut topic = "";
        let mut listed = Vec::new();
        for line in text.lines() {
            if !line.starts_with(' ') && line.ends_with(':') {
                topic = line.trim_end_matches(':');
            }
            let line = line.trim_start();
            let long = match line.strip_prefix('-').and_then(|rest| rest.split_once(", --")) {
                Some((letter, rest)) if letter.len() == 1 => Some(rest),
                _ => line.strip_prefix("--"),
            };
            if let Some(long) = long {
                let name = long.split([' ', '[']).next().expect("split yields one at least");
                listed.push((topic.to_owned(), name.to_owned()));
            }
        }
        let expected: Vec<_> = OPTIONS
            .iter()
            .filter(|row| row.status == Status::Works)
            .map(|row| (row.group.title().to_owned(), row.name.to_owned()))
            .collect();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_configuration_can_be_looked_at() {
        let inspect = |words: &[&str]| match parse_words(words) {
            Ok(Invocation::Inspect(inspection, gathered)) => {
                (inspection.check, inspection.json, gathered.entries.len())
            }
            other => panic!("{words:?}: {other:?}"),
        };
        assert_eq!(inspect(&["--check-config", "-p", "2"]), (true, false, 1));
        assert_eq!(inspect(&["-p", "2", "--check-config", "-M"]), (true, false, 2));
        assert_eq!(inspect(&["--check-config=json"]), (true, true, 0));
        assert_eq!(inspect(&["--check-config", "--json", "-M"]), (true, true, 1));
        assert_eq!(inspect(&["--json", "--show-config"]), (false, true, 0));
        assert_eq!(inspect(&["--json=a.json", "--show-config", "-j", "b.json"]), (false, false, 2));
        assert_eq!(served(&["--json", "a.json"]), ["json=a.json"]);
        assert!(refused(&["--show-config", "--check-config"]).contains("cannot be used with"));
        assert!(refused(&["--check-config=xml"]).contains("text, json"));
    }

    #[test]
    fn the_parser_is_consistent() {
        parser(Audience::Terminal).debug_assert();
    }
}
