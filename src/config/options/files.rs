//! Pidfiles, directories, environment.

use crate::config::Config;
use crate::config::directive::Directive;
use crate::config::schema::Group::FilesAndDirectories;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};
use crate::config::value::{self, ValueError};

const WAIT: &str = "the start does not wait; order the units of systemd";

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        FilesAndDirectories,
        "chdir",
        Kind::Path(|c, dir| c.chdir = Some(dir)),
        "Change to this directory before binding sockets and loading the application.",
    )
    .metavar("DIR"),
    row(
        FilesAndDirectories,
        "chdir2",
        Kind::Path(|c, dir| c.chdir2 = Some(dir)),
        "Change to this directory in each worker, after the application is loaded.",
    )
    .metavar("DIR"),
    row(
        FilesAndDirectories,
        "pidfile",
        Kind::Path(|c, path| c.pidfile = Some(path)),
        "Write the master's process id to this file, first of all.",
    ),
    row(
        FilesAndDirectories,
        "pidfile2",
        Kind::Path(|c, path| c.pidfile2 = Some(path)),
        "The same, after privileges are dropped.",
    ),
    row(
        FilesAndDirectories,
        "safe-pidfile",
        Kind::Path(|c, path| c.safe_pidfile = Some(path)),
        "The same, once the server is up.",
    ),
    row(
        FilesAndDirectories,
        "safe-pidfile2",
        Kind::Path(|c, path| c.safe_pidfile2 = Some(path)),
        "The same, once the workers are forked.",
    ),
    row(
        FilesAndDirectories,
        "master-fifo",
        Kind::Path(|c, path| c.master_fifos.push(path)),
        "Take one-letter commands from this FIFO, made when missing; of up to ten, 0 to 9 choose one.",
    )
    .repeatable(),
    row(FilesAndDirectories, "env", Kind::Parsed(set_variable), "Set an environment variable.")
        .metavar("NAME=VALUE")
        .repeatable(),
    row(
        FilesAndDirectories,
        "ienv",
        Kind::Directive(Directive::Variable),
        "The same, at once: $(NAME) and if-env in the lines that follow see it.",
    )
    .repeatable(),
    row(FilesAndDirectories, "unenv", Kind::Parsed(unset_variable), "Remove an environment variable.")
        .metavar("NAME")
        .repeatable(),
    row(
        FilesAndDirectories,
        "strict",
        Kind::Flag(|c, on| c.strict = on),
        "Refuse to start, rather than warn, when an option is not supported.",
    ),
    not_yet(
        FilesAndDirectories,
        "force-cwd",
        Shape::Path,
        "Directory in which a reload starts the server.",
        "a reload starts where the server was started",
    )
    .metavar("DIR"),
    not_yet(
        FilesAndDirectories,
        "envdir",
        Shape::Path,
        "Directory of files to set variables from.",
        "use env, or EnvironmentFile of systemd",
    )
    .and(&["early-envdir"])
    .metavar("DIR")
    .repeatable(),
    not_yet(FilesAndDirectories, "wait-for-fs", Shape::Path, "Wait at the start for a path.", WAIT)
        .and(&["wait-for-file", "wait-for-dir", "wait-for-mountpoint", "wait-for-socket"])
        .repeatable(),
    not_yet(
        FilesAndDirectories,
        "wait-for-interface",
        Shape::Name,
        "Wait at the start for a network interface.",
        WAIT,
    )
    .repeatable(),
    not_yet(FilesAndDirectories, "wait-for-fs-timeout", Shape::Seconds, "How long to wait.", WAIT).and(&[
        "wait-for-interface-timeout",
        "wait-for-socket-timeout",
        "wait-for-file-timeout",
        "wait-for-dir-timeout",
        "wait-for-mountpoint-timeout",
    ]),
    not_yet(
        FilesAndDirectories,
        "flock",
        Shape::Path,
        "Start only if this file can be locked.",
        "a pidfile excludes a second server",
    )
    .and(&["flock2", "flock-wait", "flock-wait2"]),
];

/// Which word on a variable is the last is settled when all are known.
fn set_variable(config: &mut Config, text: &str) -> Result<(), ValueError> {
    config.env.push(value::variable(text)?);
    Ok(())
}

fn unset_variable(config: &mut Config, name: &str) -> Result<(), ValueError> {
    if name.contains('=') {
        return Err(ValueError::refused("contains `=`; give the name of the variable only"));
    }
    config.unenv.push(name.to_owned());
    Ok(())
}
