//! Where options come from, and in which cases they count.

use crate::config::directive::{Directive, Place};
use crate::config::document::Format;
use crate::config::logic::{BlockKind, Loop, Test};
use crate::config::schema::Group::Configuration;
use crate::config::schema::{Kind, OptionSpec, Status, row};

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Configuration,
        "ini",
        Kind::Directive(Directive::Read(Some(Format::Ini))),
        "Read an ini file here; - is standard input, exec://CMD the output of a command.",
    )
    .repeatable(),
    row(
        Configuration,
        "yaml",
        Kind::Directive(Directive::Read(Some(Format::Yaml))),
        "Read a YAML file here.",
    )
    .short('y')
    .aliases(&["yml"])
    .repeatable(),
    row(
        Configuration,
        "json",
        Kind::Directive(Directive::Read(Some(Format::Json))),
        "Read a JSON file here.",
    )
    .short('j')
    .aliases(&["js"])
    .repeatable(),
    row(
        Configuration,
        "toml",
        Kind::Directive(Directive::Read(Some(Format::Toml))),
        "Read a TOML file here.",
    )
    .repeatable(),
    row(Configuration, "xml", Kind::Directive(Directive::Read(Some(Format::Xml))), "Read an XML file here.")
        .short('x')
        .aliases(&["xmlconfig"])
        .repeatable(),
    row(
        Configuration,
        "config",
        Kind::Directive(Directive::Read(None)),
        "Read a file here; its extension tells the format.",
    )
    .repeatable(),
    row(
        Configuration,
        "include",
        Kind::Directive(Directive::Include),
        "Read a file here as a part of this one: %N and its kin stay those of the first file.",
    )
    .repeatable(),
    row(
        Configuration,
        "inherit",
        Kind::Directive(Directive::Inherit),
        "Read a file after everything else, so that its values win.",
    )
    .repeatable(),
    row(
        Configuration,
        "inject-before",
        Kind::Directive(Directive::Inject(Place::Before)),
        "Put the text of this file before that of each file read from here on.",
    )
    .repeatable(),
    row(
        Configuration,
        "inject-after",
        Kind::Directive(Directive::Inject(Place::After)),
        "Put the text of this file behind that of each file read from here on.",
    )
    .repeatable(),
    row(
        Configuration,
        "mode",
        Kind::Directive(Directive::Mode),
        "Skip the elements of XML files read from here on whose mode attribute is another one.",
    ),
    row(
        Configuration,
        "exit",
        Kind::Directive(Directive::Exit),
        "End the start here with this status, or 1; within an if block, to refuse a machine.",
    ),
    row(
        Configuration,
        "set",
        Kind::Directive(Directive::Set),
        "Give an option or a placeholder by NAME=VALUE.",
    )
    .short('S')
    .repeatable(),
    row(
        Configuration,
        "set-placeholder",
        Kind::Directive(Directive::Placeholder),
        "Give a placeholder that other values use as %(NAME).",
    )
    .aliases(&["set-ph"])
    .repeatable(),
    row(
        Configuration,
        "resolve",
        Kind::Directive(Directive::Resolve),
        "Give a placeholder that is the IPv4 address of a host.",
    )
    .repeatable(),
    row(
        Configuration,
        "print",
        Kind::Str(|c, text| c.prints.push(text.to_owned())),
        "Print this line at start-up.",
    )
    .repeatable(),
    row(
        Configuration,
        "iprint",
        Kind::Str(|c, text| c.prints.push(text.to_owned())),
        "The same, without expanding variables and placeholders.",
    )
    .repeatable(),
    row(
        Configuration,
        "declare-option",
        Kind::Directive(Directive::Declare),
        "Define an option by NAME=TEMPLATE, where $1 to $9 stand for the words of its value; also for the \
         command line behind it.",
    )
    .aliases(&["declare-option2"])
    .repeatable(),
    row(
        Configuration,
        "blacklist",
        Kind::Directive(Directive::Deny(true)),
        "Refuse these options until end-blacklist.",
    ),
    row(Configuration, "end-blacklist", Kind::Directive(Directive::Deny(false)), "End a blacklist."),
    row(
        Configuration,
        "whitelist",
        Kind::Directive(Directive::AllowOnly(true)),
        "Refuse all but these options until end-whitelist.",
    ),
    row(Configuration, "end-whitelist", Kind::Directive(Directive::AllowOnly(false)), "End a whitelist."),
    row(
        Configuration,
        "autoload",
        Kind::Flag(|_, _| ()),
        "Load the plugin that an unknown option belongs to.",
    )
    .status(Status::AcceptedNoEffect("all options are known without their plugins")),
    row(
        Configuration,
        "for",
        Kind::Directive(Directive::Open(BlockKind::For(Loop::Words))),
        "Repeat each line up to endfor for these words, which are %(_) in it.",
    )
    .repeatable(),
    row(
        Configuration,
        "for-times",
        Kind::Directive(Directive::Open(BlockKind::For(Loop::Times))),
        "Repeat each line up to endfor this many times.",
    )
    .repeatable(),
    row(
        Configuration,
        "for-glob",
        Kind::Directive(Directive::Open(BlockKind::For(Loop::Glob))),
        "Repeat each line up to endfor for the files that match a pattern.",
    )
    .repeatable(),
    row(
        Configuration,
        "for-readline",
        Kind::Directive(Directive::Open(BlockKind::For(Loop::Lines))),
        "Repeat each line up to endfor for the lines of a file.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-opt",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Option, false))),
        "Apply the lines up to endif when an option was given before, as NAME or as NAME=VALUE.",
    )
    .aliases(&["ifopt"])
    .repeatable(),
    row(
        Configuration,
        "if-not-opt",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Option, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-env",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Env, false))),
        "Apply the lines up to endif when a variable is set, to anything or as in NAME=VALUE.",
    )
    .aliases(&["ifenv"])
    .repeatable(),
    row(
        Configuration,
        "if-not-env",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Env, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-exists",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Exists, false))),
        "Apply the lines up to endif when a path exists.",
    )
    .aliases(&["ifexists"])
    .repeatable(),
    row(
        Configuration,
        "if-not-exists",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Exists, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-file",
        Kind::Directive(Directive::Open(BlockKind::If(Test::File, false))),
        "Apply the lines up to endif when a path is a regular file.",
    )
    .aliases(&["iffile"])
    .repeatable(),
    row(
        Configuration,
        "if-not-file",
        Kind::Directive(Directive::Open(BlockKind::If(Test::File, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-dir",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Directory, false))),
        "Apply the lines up to endif when a path is a directory.",
    )
    .aliases(&["ifdir", "if-directory"])
    .repeatable(),
    row(
        Configuration,
        "if-not-dir",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Directory, true))),
        "The same, when that is not so.",
    )
    .aliases(&["if-not-directory"])
    .repeatable(),
    row(
        Configuration,
        "if-reload",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Reload, false))),
        "Apply the lines up to endif when this is a reload.",
    )
    .aliases(&["ifreload"])
    .repeatable(),
    row(
        Configuration,
        "if-not-reload",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Reload, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-plugin",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Plugin, false))),
        "Apply the lines up to endif when a plugin was asked for before.",
    )
    .aliases(&["ifplugin"])
    .repeatable(),
    row(
        Configuration,
        "if-not-plugin",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Plugin, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-hostname",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Hostname, false))),
        "Apply the lines up to endif when the host has this name.",
    )
    .aliases(&["ifhostname"])
    .repeatable(),
    row(
        Configuration,
        "if-not-hostname",
        Kind::Directive(Directive::Open(BlockKind::If(Test::Hostname, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-hostname-match",
        Kind::Directive(Directive::Open(BlockKind::If(Test::HostnameMatch, false))),
        "Apply the lines up to endif when the name of the host matches a pattern.",
    )
    .repeatable(),
    row(
        Configuration,
        "if-not-hostname-match",
        Kind::Directive(Directive::Open(BlockKind::If(Test::HostnameMatch, true))),
        "The same, when that is not so.",
    )
    .repeatable(),
    row(
        Configuration,
        "else",
        Kind::Directive(Directive::Else),
        "Apply the lines up to endif when the condition before does not hold.",
    )
    .repeatable(),
    row(Configuration, "end", Kind::Directive(Directive::End), "End a block, of whatever kind.")
        .aliases(&["endif", "end-if", "endfor", "end-for"])
        .repeatable(),
];
