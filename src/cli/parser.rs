//! clap's parser, made from the option table: names, forms of values, help texts.

use std::time::Duration;

use clap::builder::StyledStr;
use clap::{Arg, ArgAction, ArgGroup};

use super::reference;
use crate::config::options::OPTIONS;
use crate::config::schema::{CommandKind, Kind, OptionSpec, Status};
use crate::config::value::{self, ValueError};

/// The positional arguments.
pub(super) const FILES: &str = "FILE";

/// Commands that `--wait` goes with.
const WAITABLE: &str = "--reload, --rollback or --stop";

const ABOUT: &str = "A pre-fork application server whose reload loses nothing and stops nothing.\n\n\
    SECONDS take a unit: 500ms, 2s, 5m. BYTES too: 64k, 10m. A flag is turned off with --name=false.\n\
    An unambiguous beginning of a name is enough.";

const EXAMPLES: &str = "Examples:\n  \
    appserver --http :8080 --static-dir public\n  \
    appserver /etc/app/app.ini\n  \
    appserver -p auto --http-socket /run/app.sock --chmod-socket=660 --pidfile /run/app.pid\n  \
    appserver --check-config -p auto --uid www-data --http :80\n  \
    appserver --reload /run/app.pid --wait\n\n\
    Further options of uWSGI are accepted, or answered with a warning; the man page lists them\n\
    (appserver --man | man -l -).";

/// Who reads about the options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// `--help`: what works, so that it can be found.
    Terminal,
    /// Man page and completions: everything that is understood.
    Reference,
}

pub(super) fn parser(audience: Audience) -> clap::Command {
    clap::Command::new("appserver")
        .version(env!("CARGO_PKG_VERSION"))
        .about(ABOUT)
        .after_help(EXAMPLES)
        .override_usage(
            "appserver [OPTIONS] [FILE]...\n       \
             appserver --check-config|--show-config [--json] [OPTIONS] [FILE]...\n       \
             appserver --reload|--rollback|--stop PIDFILE [--wait[=SECONDS]]\n       \
             appserver --status PIDFILE\n       \
             appserver torture [--help] [OPTIONS OF TORTURE] -- [OPTIONS]",
        )
        .max_term_width(100)
        .infer_long_args(true)
        // The table has its own rows for both.
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(OPTIONS.iter().map(|row| argument(row, audience)))
        .group(ArgGroup::new(WAITABLE).args(["reload", "rollback", "stop"]))
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
        Kind::Command(CommandKind::Man | CommandKind::DumpOptions | CommandKind::AlgorithmList) => {
            arg.action(ArgAction::SetTrue).exclusive(true)
        }
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
        Kind::Command(CommandKind::Get) => {
            arg.action(ArgAction::Append).conflicts_with_all(["check-config", "show-config"])
        }
        Kind::Command(CommandKind::Reload | CommandKind::Rollback | CommandKind::Stop) => {
            let others =
                OPTIONS.iter().map(|other| other.name).filter(|name| ![row.name, "wait"].contains(name));
            arg.action(ArgAction::Set).conflicts_with_all(others.chain([FILES]))
        }
        // The default is no time, so it cannot be taken for one.
        Kind::Command(CommandKind::Wait) => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("")
            .value_parser(patience)
            .requires(WAITABLE),
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

/// How long `--wait` waits; `None` is as long as it takes.
fn patience(text: &str) -> Result<Option<Duration>, ValueError> {
    match text {
        "" => Ok(None),
        text => value::duration(text, Duration::ZERO).map(Some),
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
