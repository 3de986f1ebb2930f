//! What acts and exits instead of serving.

use crate::config::schema::Group::Commands;
use crate::config::schema::{CommandKind, Kind, OptionSpec, Shape, not_yet, row};

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Commands,
        "reload",
        Kind::Command(CommandKind::Reload),
        "Ask the server with this pidfile to reload gracefully.",
    ),
    row(
        Commands,
        "rollback",
        Kind::Command(CommandKind::Rollback),
        "Ask the server with this pidfile to bring back the generation before (see snapshots).",
    ),
    row(Commands, "stop", Kind::Command(CommandKind::Stop), "Ask the server with this pidfile to stop."),
    row(
        Commands,
        "pause",
        Kind::Command(CommandKind::Pause),
        "Ask the server with this pidfile to stop accepting; connections wait in the listen queue.",
    )
    .aliases(&["suspend"]),
    row(
        Commands,
        "resume",
        Kind::Command(CommandKind::Resume),
        "Ask the server with this pidfile to accept again.",
    ),
    row(
        Commands,
        "status",
        Kind::Command(CommandKind::Status),
        "Tell whether the server with this pidfile runs; exit status 0 if so, 3 if not, 4 if unknown.",
    ),
    row(
        Commands,
        "wait",
        Kind::Command(CommandKind::Wait),
        "With --reload, --rollback or --stop: print progress and return when it is over; exit status 0 if it \
         worked, 1 if not, 124 if it takes longer than this.",
    )
    .metavar("SECONDS"),
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
    not_yet(Commands, "signal", Shape::Name, "Raise a uwsgi signal.", "there are no uwsgi signals")
        .application(),
    not_yet(Commands, "connect-and-read", Shape::Address, "Print what an address says.", "use socat or nc")
        .application(),
    row(
        Commands,
        "get",
        Kind::Command(CommandKind::Get),
        "Print the first value that was given to this option, and exit.",
    )
    .metavar("NAME")
    .repeatable(),
    row(Commands, "dump-options", Kind::Command(CommandKind::DumpOptions), "Print the names of all options."),
    not_yet(
        Commands,
        "plugins-list",
        Shape::Flag,
        "Print the plugins that are built in.",
        "all that works is listed by --man",
    )
    .and(&["loop-list", "hooks-list"])
    .application(),
    row(
        Commands,
        "cheaper-algo-list",
        Kind::Command(CommandKind::AlgorithmList),
        "Print the names that cheaper-algo knows.",
    ),
    not_yet(
        Commands,
        "cflags",
        Shape::Flag,
        "Print what plugins of uWSGI are compiled with.",
        "plugins of uWSGI cannot be loaded",
    )
    .and(&["dot-h", "config-py"])
    .application(),
    row(Commands, "version", Kind::Command(CommandKind::Version), "Print the version."),
    row(Commands, "help", Kind::Command(CommandKind::Help), "Print this help.")
        .short('h')
        .aliases(&["usage"]),
];
