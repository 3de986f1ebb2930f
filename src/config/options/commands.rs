//! What acts and exits instead of serving.

use crate::config::schema::Group::Commands;
use crate::config::schema::{CommandKind, Kind, OptionSpec, row};

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Commands,
        "reload",
        Kind::Command(CommandKind::Reload),
        "Ask the server with this pidfile to reload gracefully.",
    ),
    row(Commands, "stop", Kind::Command(CommandKind::Stop), "Ask the server with this pidfile to stop."),
    row(
        Commands,
        "status",
        Kind::Command(CommandKind::Status),
        "Tell whether the server with this pidfile runs; exit status 0 if so, 3 if not, 4 if unknown.",
    ),
    row(
        Commands,
        "check-config",
        Kind::Command(CommandKind::CheckConfig),
        "Print all that is wrong with the configuration, as text or JSON; exit status 1 if so.",
    )
    .metavar("text|json"),
    row(
        Commands,
        "show-config",
        Kind::Command(CommandKind::ShowConfig),
        "Print the options in force and their origins, as text or JSON; secrets are not hidden.",
    )
    .metavar("text|json"),
    row(Commands, "man", Kind::Command(CommandKind::Man), "Print the man page."),
    row(Commands, "completions", Kind::Command(CommandKind::Completions), "Print completions for a shell.")
        .metavar("SHELL"),
    row(Commands, "version", Kind::Command(CommandKind::Version), "Print the version."),
    row(Commands, "help", Kind::Command(CommandKind::Help), "Print this help.").short('h'),
];
