//! The roads to a new generation and to the end.

use std::time::Duration;

use crate::config::Config;
use crate::config::reload::{MaxSurge, ReloadMode};
use crate::config::schema::Group::ReloadAndStop;
use crate::config::schema::{Kind, OptionSpec, Shape, Status, accepted, not_yet, row};
use crate::config::value::ValueError;
use crate::control::Command;
use crate::control::fd_trigger::FdTrigger;
use crate::control::touch::Touch;
use crate::signals::given;

/// Each is a process with an application in its memory.
const MOST_SNAPSHOTS: u64 = 64;
/// More generations than can ever drain at a time.
const MANY: u64 = 1000;

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        ReloadAndStop,
        "worker-reload-mercy",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.worker_reload_mercy = time },
        "How long a worker may take to finish its requests before it is killed.",
    )
    .default("60"),
    row(
        ReloadAndStop,
        "drain-delay",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.drain_delay = time },
        "How long workers go on accepting after a graceful stop was asked for, while ready-path says 503.",
    )
    .default("0"),
    row(
        ReloadAndStop,
        "reload-mercy",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.reload_mercy = time },
        "How long processes other than workers may take to leave.",
    )
    .default("3")
    .status(Status::AcceptedNoEffect("there are no such processes; workers have worker-reload-mercy")),
    row(
        ReloadAndStop,
        "reload-mode",
        Kind::Parsed(|c, text| ReloadMode::parse(text).map(|mode| c.reload_mode = mode)),
        "Order of a reload: with surge the new workers accept before the old ones leave; with drain the old \
         ones have left before the new ones start. The application is loaded before either.",
    )
    .metavar("surge|drain")
    .default("surge"),
    row(
        ReloadAndStop,
        "max-surge",
        Kind::Parsed(|c, text| MaxSurge::parse(text).map(|surge| c.max_surge = Some(surge))),
        "How many workers may live beyond processes while workers are replaced, those that leave included; \
         without it, as many as it takes to replace all at once.",
    )
    .metavar("N|N%"),
    row(
        ReloadAndStop,
        "max-draining-generations",
        Kind::Int { min: 0, max: MANY, set: |c, n| c.max_draining_generations = n as u32 },
        "How many older generations may finish their requests at a time; one more, and the oldest is cut. 0 \
         is any number; worker-reload-mercy bounds their age.",
    )
    .default("0"),
    row(
        ReloadAndStop,
        "touch-reload",
        Kind::Path(|c, path| c.touches.push(Touch::command(path, Command::Reload))),
        "Reload when this file is touched.",
    )
    .repeatable(),
    row(
        ReloadAndStop,
        "die-on-term",
        Kind::Flag(|c, on| c.die_on_term = Some(on)),
        "Stop on SIGTERM and reload brutally on SIGQUIT; false: the other way round, and the default. Not \
         given, process 1 of a container stops on both.",
    ),
    row(
        ReloadAndStop,
        "expect-stop",
        Kind::Flag(|c, on| c.expect_stop = on),
        "Tell Upstart that the service is up: raise SIGSTOP once (\"expect stop\" in the job).",
    ),
    row(
        ReloadAndStop,
        "vacuum",
        Kind::Flag(|c, on| c.vacuum = on),
        "Remove Unix sockets, FIFOs and pidfiles at exit.",
    ),
    row(
        ReloadAndStop,
        "binary-path",
        Kind::Path(|c, path| c.binary_path = Some(path)),
        "The program that a reload executes, in place of the one that was started.",
    ),
    row(
        ReloadAndStop,
        "release",
        Kind::Str(|c, label| c.release = Some(label.to_owned())),
        "Label of what is deployed, shown in process titles, status and the built-in page.",
    )
    .metavar("LABEL"),
    row(
        ReloadAndStop,
        "snapshots",
        Kind::Int { min: 0, max: MOST_SNAPSHOTS, set: |c, n| c.snapshots = n as u32 },
        "Generations that stay in memory, asleep, after a reload; a rollback brings the newest of them back.",
    )
    .default("0"),
    row(
        ReloadAndStop,
        "snapshot-memory",
        Kind::Size { min: 1, max: u64::MAX, set: |c, bytes| c.snapshot_memory = Some(bytes) },
        "Memory that all snapshots together may have of their own; a reload drops the oldest until they fit.",
    ),
    row(
        ReloadAndStop,
        "touch-chain-reload",
        Kind::Path(|c, path| c.touches.push(Touch::command(path, Command::ChainReload))),
        "Replace the workers one by one when this file is touched.",
    )
    .repeatable(),
    row(
        ReloadAndStop,
        "touch-workers-reload",
        Kind::Path(|c, path| c.touches.push(Touch::command(path, Command::ReloadWorkers))),
        "Replace the workers when this file is touched.",
    )
    .repeatable(),
    not_yet(
        ReloadAndStop,
        "touch-mules-reload",
        Shape::Path,
        "Replace the mules when this file is touched.",
        "there are no mules",
    )
    .repeatable(),
    not_yet(
        ReloadAndStop,
        "touch-spoolers-reload",
        Shape::Path,
        "Replace the spoolers when this file is touched.",
        "there are no spoolers",
    )
    .repeatable(),
    row(
        ReloadAndStop,
        "touch-exec",
        Kind::Parsed(|c, text| Touch::exec(text).map(|touch| c.touches.push(touch))),
        "Run a command with /bin/sh when a file is touched; it is not waited for.",
    )
    .metavar("FILE COMMAND")
    .repeatable(),
    row(
        ReloadAndStop,
        "touch-signal",
        Kind::Parsed(|c, text| Touch::signal(text).map(|touch| c.touches.push(touch))),
        "Raise a signal of the application when a file is touched; it registers a function for it.",
    )
    .metavar("FILE SIGNAL")
    .repeatable(),
    row(
        ReloadAndStop,
        "hook-touch",
        Kind::Parsed(|c, text| Touch::hook(text).map(|touch| c.touches.push(touch))),
        "Run a hook in the master when a file is touched; commands are not waited for.",
    )
    .metavar("FILE ACTION:ARGUMENT")
    .repeatable(),
    row(
        ReloadAndStop,
        "fs-reload",
        Kind::Path(|c, path| c.fs_reloads.push((path, Command::Reload))),
        "Reload when this file, or an entry of this directory, changes.",
    )
    .repeatable(),
    row(
        ReloadAndStop,
        "fs-brutal-reload",
        Kind::Path(|c, path| c.fs_reloads.push((path, Command::BrutalReload))),
        "The same, cutting requests.",
    )
    .repeatable(),
    row(
        ReloadAndStop,
        "reload-on-fd",
        Kind::Parsed(|c, text| reload_on_fd(c, text, Command::Reload)),
        "Reload when this descriptor, which the server was started with, has SIZE (1) bytes to read.",
    )
    .metavar("FD[:SIZE] [MESSAGE]")
    .repeatable(),
    row(
        ReloadAndStop,
        "brutal-reload-on-fd",
        Kind::Parsed(|c, text| reload_on_fd(c, text, Command::BrutalReload)),
        "The same, cutting requests.",
    )
    .metavar("FD[:SIZE] [MESSAGE]")
    .repeatable(),
    row(
        ReloadAndStop,
        "fs-signal",
        Kind::Parsed(|c, text| given::watch(text).map(|watch| c.signals.push(watch))),
        "Raise a signal of the application when a file or directory changes; it registers a function for it.",
    )
    .metavar("PATH SIGNAL")
    .repeatable(),
    accepted(
        ReloadAndStop,
        "mule-reload-mercy",
        Shape::Seconds,
        "How long a mule may take to leave.",
        "there are no mules",
    )
    .default("60"),
    not_yet(
        ReloadAndStop,
        "exit-on-reload",
        Shape::Flag,
        "Exit instead of reloading.",
        "a reload keeps the process; stop it to have it restarted",
    ),
    row(
        ReloadAndStop,
        "fallback-config",
        Kind::Path(|c, path| c.fallback_config = Some(path)),
        "Configuration to start with when this start ends with status 1; a failed reload changes nothing.",
    ),
    row(
        ReloadAndStop,
        "skip-atexit",
        Kind::Flag(|c, on| c.python.skip_atexit = on),
        "Run no exit handlers of the application when a worker leaves.",
    ),
    row(
        ReloadAndStop,
        "skip-atexit-teardown",
        Kind::Flag(|c, on| c.python.skip_atexit_teardown = on),
        "Run uwsgi.atexit only, and leave the interpreter as it is.",
    ),
    row(
        ReloadAndStop,
        "forkbomb-delay",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.respawn_pause = time },
        "Longest pause before a worker is replaced that keeps dying; it doubles from 100 ms up to this. 0 replaces \
         at once, whatever happens.",
    )
    .default("30"),
];

fn reload_on_fd(config: &mut Config, text: &str, command: Command) -> Result<(), ValueError> {
    config.reload_on_fds.push(FdTrigger::parse(text, command)?);
    Ok(())
}
