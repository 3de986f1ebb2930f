//! What a row of the option table is made of.

use std::path::PathBuf;
use std::time::Duration;

use super::directive::Directive;
use super::shape;
pub use super::shape::Shape;
use super::value::{self, ValueError};
use super::{Config, Entry, ListenSpec};

/// One option: everything that parsing, `--help` and the documentation know about it.
#[derive(Debug, Clone, Copy)]
pub struct OptionSpec {
    /// Topic it is listed under.
    pub group: Group,
    /// Canonical name, without dashes.
    pub name: &'static str,
    /// One-letter form, on the command line only.
    pub short: Option<char>,
    /// Other names for the same thing.
    pub aliases: &'static [&'static str],
    /// What its value is and where it goes.
    pub kind: Kind,
    /// Placeholder for the value in help texts; empty means the one of the kind.
    pub metavar: &'static str,
    /// The value in force when the option is not given, as one would write it; empty for none.
    pub default: &'static str,
    /// The value that naming the option without one stands for; `None` where a value is required.
    /// uWSGI writes such a use as the value 1, so `1` and words for on mean the same.
    pub bare: Option<&'static str>,
    /// True when each use adds to a list; otherwise the last one wins.
    pub repeatable: bool,
    /// One or two sentences.
    pub help: &'static str,
    /// What using it does in this release.
    pub status: Status,
    /// What is missing when the option does not work; `None` where the rest is worth serving without it.
    pub essential: Option<Essential>,
    /// Options that the same can be said of; the finished table has them as rows of their own.
    pub(super) siblings: &'static [&'static str],
    /// The release that brought it.
    pub since: &'static str,
}

/// The topics of the option table, in the order help texts show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Worker processes and how the application is loaded.
    Processes,
    /// What is served, and the language it is written in.
    Applications,
    /// When workers are replaced, added or sent home.
    Recycling,
    /// Sockets.
    Listeners,
    /// Limits and time-outs of the protocol.
    Http,
    /// Which request goes where.
    Routing,
    /// Serving files.
    StaticFiles,
    /// The roads to a new generation and to the end.
    ReloadAndStop,
    /// Pidfiles, directories, environment.
    FilesAndDirectories,
    /// Users, groups, modes.
    Privileges,
    /// What is run at points of a process's life.
    Hooks,
    /// Server log and request log.
    Logging,
    /// What `ps` shows.
    ProcessTitles,
    /// Statistics and metrics.
    Monitoring,
    /// Processes and shared memory beside the workers.
    Services,
    /// Many servers from a directory of configurations.
    Emperor,
    /// What acts and exits instead of serving.
    Commands,
    /// Where options come from.
    Configuration,
}

impl Group {
    /// The heading in help texts.
    pub const fn title(self) -> &'static str {
        match self {
            Group::Processes => "Processes",
            Group::Applications => "Applications",
            Group::Recycling => "Recycling",
            Group::Listeners => "Listeners",
            Group::Http => "HTTP",
            Group::Routing => "Routing",
            Group::StaticFiles => "Static files",
            Group::ReloadAndStop => "Reload and stop",
            Group::FilesAndDirectories => "Files and directories",
            Group::Privileges => "Privileges",
            Group::Hooks => "Hooks",
            Group::Logging => "Logging",
            Group::ProcessTitles => "Process titles",
            Group::Monitoring => "Monitoring",
            Group::Services => "Services",
            Group::Emperor => "Emperor",
            Group::Commands => "Commands",
            Group::Configuration => "Configuration",
        }
    }
}

/// What using an option does in this release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// What its help says.
    Works,
    /// Nothing, and nothing is missing: the reason says why.
    AcceptedNoEffect(&'static str),
    /// Nothing yet: a warning at start-up with this reason, an error with `strict`.
    NotYet(&'static str),
}

/// What a configuration lacks without an option that does not work: to serve all the same would look
/// like success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Essential {
    /// It says what to serve, in which confinement, or not to serve at all: the server does not start.
    Application,
    /// It says where to serve: the server does not start unless another option does.
    Listener,
}

/// What acts and exits instead of serving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandKind {
    /// Ask a running server to reload.
    Reload,
    /// Ask a running server to bring the generation before back.
    Rollback,
    /// Ask a running server to stop.
    Stop,
    /// Ask a running server to stop accepting.
    Pause,
    /// Ask a running server to accept again.
    Resume,
    /// Tell whether a server runs.
    Status,
    /// Let a reload, a rollback or a stop return when it is over.
    Wait,
    /// Look for everything that is wrong with the configuration.
    CheckConfig,
    /// Print the configuration in force.
    ShowConfig,
    /// Print values of options.
    Get,
    /// Print the names of all options.
    DumpOptions,
    /// Print the algorithms of `cheaper`.
    AlgorithmList,
    /// Print the man page.
    Man,
    /// Print completions for a shell.
    Completions,
    /// Print the version.
    Version,
    /// Print the options.
    Help,
}

impl CommandKind {
    /// Whether the command names a running server by its pidfile.
    pub const fn takes_pidfile(self) -> bool {
        match self {
            CommandKind::Reload
            | CommandKind::Rollback
            | CommandKind::Stop
            | CommandKind::Pause
            | CommandKind::Resume
            | CommandKind::Status => true,
            CommandKind::Wait
            | CommandKind::CheckConfig
            | CommandKind::ShowConfig
            | CommandKind::Get
            | CommandKind::DumpOptions
            | CommandKind::AlgorithmList
            | CommandKind::Man
            | CommandKind::Completions
            | CommandKind::Version
            | CommandKind::Help => false,
        }
    }
}

/// The type of an option's value, with the function that puts it into the configuration.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// On or off; naming it is on.
    Flag(fn(&mut Config, bool)),
    /// Naming it turns something off. The function receives the state of that something.
    FlagOff(fn(&mut Config, bool)),
    /// A whole number.
    Int {
        /// Least value accepted.
        min: u64,
        /// Largest value accepted.
        max: u64,
        /// Puts it in place.
        set: fn(&mut Config, u64),
    },
    /// A whole number, or the word `auto`.
    IntOrAuto {
        /// Least value accepted.
        min: u64,
        /// Largest value accepted; `auto` stays below it.
        max: u64,
        /// What `auto` stands for on this machine.
        auto: fn() -> u64,
        /// Puts it in place.
        set: fn(&mut Config, u64),
    },
    /// Bytes, with an optional unit.
    Size {
        /// Least value accepted.
        min: u64,
        /// Largest value accepted.
        max: u64,
        /// Puts it in place.
        set: fn(&mut Config, u64),
    },
    /// Seconds, with an optional unit.
    Seconds {
        /// Least value accepted.
        min: Duration,
        /// Puts it in place.
        set: fn(&mut Config, Duration),
    },
    /// Octal permission bits.
    Mode(fn(&mut Config, u32)),
    /// Octal permission bits to withhold.
    Umask(fn(&mut Config, u32)),
    /// Text that may be empty.
    Str(fn(&mut Config, &str)),
    /// A user or group, by name or number.
    Name(fn(&mut Config, &str)),
    /// Text with a form of its own, checked by the function.
    Parsed(fn(&mut Config, &str) -> Result<(), ValueError>),
    /// A file or directory.
    Path(fn(&mut Config, PathBuf)),
    /// A file that receives the log.
    LogFile(fn(&mut Config, PathBuf)),
    /// A listen address.
    Address(fn(&mut Config, ListenSpec)),
    /// A value that is checked and not used.
    Unused(Shape),
    /// Acts and exits; no part of the configuration.
    Command(CommandKind),
    /// Steers how the configuration is read; no part of it afterwards.
    Directive(Directive),
}

impl OptionSpec {
    /// Every name the option answers to, the canonical one first.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// True when the option may be named without a value.
    pub const fn value_is_optional(&self) -> bool {
        match self.kind {
            Kind::Flag(_) | Kind::FlagOff(_) | Kind::Unused(Shape::Flag) => true,
            Kind::Directive(directive) => directive.is_bare(),
            _ => self.bare.is_some(),
        }
    }

    /// Placeholder for the value in help texts.
    pub const fn placeholder(&self) -> &'static str {
        if !self.metavar.is_empty() {
            return self.metavar;
        }
        match self.kind {
            Kind::Flag(_) | Kind::FlagOff(_) => "BOOL",
            Kind::Int { .. } => "N",
            Kind::IntOrAuto { .. } => "N|auto",
            Kind::Size { .. } => "BYTES",
            Kind::Seconds { .. } => "SECONDS",
            Kind::Mode(_) | Kind::Umask(_) => "MODE",
            Kind::Str(_) | Kind::Parsed(_) => "TEXT",
            Kind::Name(_) => "NAME|NUMBER",
            Kind::Path(_) => "PATH",
            Kind::LogFile(_) => "FILE",
            Kind::Address(_) => "ADDRESS",
            Kind::Unused(shape) => shape.placeholder(),
            Kind::Command(_) => "PIDFILE",
            Kind::Directive(directive) => directive.metavar(),
        }
    }

    /// Reads the entry's value and puts it into `config`.
    ///
    /// # Errors
    /// When the value is missing or not of this option's kind.
    pub(super) fn apply(&self, config: &mut Config, entry: &Entry) -> Result<(), ValueError> {
        let text = self.text(entry.value.as_deref())?;
        match self.kind {
            Kind::Flag(set) => set(config, value::flag(text)?),
            Kind::FlagOff(set) => set(config, !value::flag(text)?),
            Kind::Int { min, max, set } => set(config, value::int(text, min, max)?),
            Kind::IntOrAuto { min, max, auto, set } if text == "auto" => set(config, auto().clamp(min, max)),
            Kind::IntOrAuto { min, max, set, .. } => set(config, value::int(text, min, max)?),
            Kind::Size { min, max, set } => set(config, value::size(text, min, max)?),
            // `http-keepalive = false` is common in ini files, and 0 to uWSGI.
            Kind::Seconds { set, .. } if self.bare.is_some() && value::flag(text) == Ok(false) => {
                set(config, Duration::ZERO);
            }
            Kind::Seconds { min, set } => set(config, value::duration(text, min)?),
            Kind::Mode(set) => set(config, value::mode(text)?),
            Kind::Umask(set) => set(config, value::umask(text)?),
            Kind::Str(set) | Kind::Name(set) => set(config, text),
            Kind::Parsed(set) => set(config, text)?,
            Kind::Path(set) => set(config, PathBuf::from(text)),
            Kind::LogFile(set) => set(config, value::log_file(text)?),
            Kind::Unused(shape) => shape.check(text)?,
            Kind::Address(set) => {
                shape::address(text)?;
                set(config, ListenSpec { address: text.to_owned(), origin: entry.origin.clone() });
            }
            Kind::Command(_) => {
                return Err(ValueError::refused("is a command; it works on the command line only"));
            }
            // All that is left of the directives: names for other values to refer to.
            Kind::Directive(Directive::Placeholder) => {}
            Kind::Directive(_) => {
                return Err(ValueError::refused(
                    "is a directive; it must come before options are put together",
                ));
            }
        }
        Ok(())
    }

    /// The value as written, or what naming the option without one stands for.
    fn text<'a>(&self, given: Option<&'a str>) -> Result<&'a str, ValueError> {
        let means_on = given.is_none_or(|text| value::flag(text) == Ok(true));
        match (self.bare, given) {
            (Some(bare), _) if means_on => Ok(bare),
            (_, Some(text)) if text.contains('\0') => {
                Err(ValueError::refused("contains a NUL byte; remove it"))
            }
            (None, None | Some("")) if !self.accepts_empty() => Err(ValueError::Missing(self.placeholder())),
            (_, given) => Ok(given.unwrap_or("")),
        }
    }

    const fn accepts_empty(&self) -> bool {
        matches!(
            self.kind,
            Kind::Flag(_)
                | Kind::FlagOff(_)
                | Kind::Str(_)
                | Kind::Unused(Shape::Flag | Shape::Text)
                | Kind::Command(_)
                | Kind::Directive(_)
        )
    }
}

/// A row with the common case in every other field; the methods below tell what is special.
pub(super) const fn row(group: Group, name: &'static str, kind: Kind, help: &'static str) -> OptionSpec {
    OptionSpec {
        group,
        name,
        short: None,
        aliases: &[],
        kind,
        metavar: "",
        default: "",
        bare: None,
        repeatable: false,
        help,
        status: Status::Works,
        essential: None,
        siblings: &[],
        since: "0.1.0",
    }
}

/// A row for an option that needs nothing done; `reason` says why.
pub(super) const fn accepted(
    group: Group,
    name: &'static str,
    shape: Shape,
    help: &'static str,
    reason: &'static str,
) -> OptionSpec {
    row(group, name, Kind::Unused(shape), help).status(Status::AcceptedNoEffect(reason))
}

/// A row for an option that does not work yet; `hint` says what that means or what to do instead.
pub(super) const fn not_yet(
    group: Group,
    name: &'static str,
    shape: Shape,
    help: &'static str,
    hint: &'static str,
) -> OptionSpec {
    row(group, name, Kind::Unused(shape), help).status(Status::NotYet(hint))
}

impl OptionSpec {
    pub(super) const fn short(self, letter: char) -> Self {
        OptionSpec { short: Some(letter), ..self }
    }

    pub(super) const fn aliases(self, aliases: &'static [&'static str]) -> Self {
        OptionSpec { aliases, ..self }
    }

    pub(super) const fn metavar(self, metavar: &'static str) -> Self {
        OptionSpec { metavar, ..self }
    }

    pub(super) const fn default(self, default: &'static str) -> Self {
        OptionSpec { default, ..self }
    }

    pub(super) const fn bare(self, bare: &'static str) -> Self {
        OptionSpec { bare: Some(bare), ..self }
    }

    pub(super) const fn repeatable(self) -> Self {
        OptionSpec { repeatable: true, ..self }
    }

    pub(super) const fn status(self, status: Status) -> Self {
        OptionSpec { status, ..self }
    }

    pub(super) const fn application(self) -> Self {
        OptionSpec { essential: Some(Essential::Application), ..self }
    }

    pub(super) const fn listener(self) -> Self {
        OptionSpec { essential: Some(Essential::Listener), ..self }
    }

    /// The same row for options of other names, which are no synonyms.
    pub(super) const fn and(self, siblings: &'static [&'static str]) -> Self {
        OptionSpec { siblings, ..self }
    }

    /// The row of one sibling.
    pub(super) const fn sibling(self, name: &'static str) -> Self {
        OptionSpec { name, short: None, aliases: &[], siblings: &[], ..self }
    }
}
