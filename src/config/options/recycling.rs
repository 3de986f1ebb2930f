//! When workers are replaced, added or sent home.

use std::time::Duration;

use crate::config::harakiri::asking_signal;
use crate::config::limits;
use crate::config::schema::Group::Recycling;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};

/// Zero is no time at all.
fn some_time(time: Duration) -> Option<Duration> {
    (!time.is_zero()).then_some(time)
}

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Recycling,
        "harakiri",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.harakiri.limit = some_time(time) },
        "Time limit of a request, from the call of the application on: a worker in which one takes longer is \
         killed once the log has what it was doing, and is replaced. 0 is no limit.",
    )
    .short('t')
    .default("0"),
    row(
        Recycling,
        "harakiri-verbose",
        Kind::Flag(|c, on| c.harakiri.verbose = on),
        "Log the state and system call of every thread of a worker that is to be killed, not of the first only.",
    ),
    row(
        Recycling,
        "harakiri-graceful-timeout",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.harakiri.graceful = some_time(time) },
        "Ask a worker whose request takes too long to leave, start its successor at once, and kill it after this \
         time if that request still runs. 0 kills without asking.",
    )
    .default("0"),
    row(
        Recycling,
        "harakiri-graceful-signal",
        Kind::Parsed(|c, text| asking_signal(text).map(|signal| c.harakiri.signal = signal)),
        "Signal that asks. 15 lets the worker finish its other requests and leave; a worker that is sent another \
         one, for a handler of the application, stays if the request ends in time.",
    )
    .metavar("SIGNAL")
    .default("15"),
    not_yet(
        Recycling,
        "harakiri-queue-threshold",
        Shape::Int,
        "Keep the time limit only while fewer connections wait than this.",
        "the time limit counts whatever the length of the listen queue",
    )
    .default("0"),
    row(
        Recycling,
        "harakiri-no-arh",
        Kind::Flag(|c, on| c.harakiri.no_after_request = on),
        "Stop the clock of a request before uwsgi.after_req_hook is called.",
    ),
    not_yet(
        Recycling,
        "max-requests",
        Shape::Int,
        "Replace a worker after this many requests.",
        "workers are not replaced by count; reload through the FIFO (c) from a timer",
    )
    .short('R')
    .default("0"),
    not_yet(
        Recycling,
        "max-requests-delta",
        Shape::Int,
        "Requests by which the workers differ.",
        "workers are not replaced by count",
    )
    .default("0"),
    not_yet(
        Recycling,
        "max-worker-lifetime",
        Shape::Seconds,
        "Replace a worker after this time.",
        "workers are not replaced by age; reload through the FIFO (c) from a timer",
    )
    .default("0"),
    not_yet(
        Recycling,
        "max-worker-lifetime-delta",
        Shape::Seconds,
        "Time by which the workers differ.",
        "workers are not replaced by age",
    )
    .default("0"),
    not_yet(
        Recycling,
        "min-worker-lifetime",
        Shape::Seconds,
        "Never replace a worker younger than this.",
        "a worker that dies early is replaced with a growing delay",
    ),
    not_yet(
        Recycling,
        "reload-on-rss",
        Shape::Megabytes,
        "Replace a worker that uses this much memory.",
        "memory is not watched; limit it with MemoryMax of systemd",
    )
    .default("0"),
    not_yet(
        Recycling,
        "reload-on-as",
        Shape::Megabytes,
        "Replace a worker with this much address space.",
        "memory is not watched; limit it with MemoryMax of systemd",
    )
    .default("0"),
    not_yet(
        Recycling,
        "reload-on-uss",
        Shape::Megabytes,
        "Replace a worker with this much memory of its own.",
        "memory is not watched; limit it with MemoryMax of systemd",
    )
    .default("0"),
    not_yet(
        Recycling,
        "reload-on-pss",
        Shape::Megabytes,
        "Replace a worker with this share of memory.",
        "memory is not watched; limit it with MemoryMax of systemd",
    )
    .default("0"),
    not_yet(
        Recycling,
        "evil-reload-on-rss",
        Shape::Megabytes,
        "Kill a worker that uses this much memory.",
        "memory is not watched; limit it with MemoryMax of systemd",
    )
    .default("0"),
    not_yet(
        Recycling,
        "evil-reload-on-as",
        Shape::Megabytes,
        "Kill a worker with this much address space.",
        "memory is not watched; limit it with MemoryMax of systemd",
    )
    .default("0"),
    not_yet(
        Recycling,
        "mem-collector-freq",
        Shape::Seconds,
        "How often memory is looked at.",
        "memory is not watched",
    ),
    row(
        Recycling,
        "limit-as",
        Kind::Parsed(|c, text| limits::megabytes(text).map(|bytes| c.limits.address_space = bytes)),
        "Most address space of a zygote or worker; more memory is refused to it. 0 sets no limit.",
    )
    .metavar("MEGABYTES")
    .default("0"),
    row(
        Recycling,
        "limit-nproc",
        Kind::Int {
            min: 0,
            max: u64::MAX,
            set: |c, n| c.limits.processes = Some(n).filter(|most| *most > 0),
        },
        "Most processes and threads that the user may have for a zygote or worker to start another; root is \
         exempt. 0 sets no limit.",
    )
    .default("0"),
    row(
        Recycling,
        "max-fd",
        Kind::Parsed(|c, text| limits::descriptors(text).map(|most| c.limits.descriptors = most)),
        "Most open descriptors of each process, the master included. 0 sets no limit.",
    )
    .metavar("N")
    .default("0"),
    not_yet(
        Recycling,
        "reload-on-exception",
        Shape::Flag,
        "Replace a worker whose request ended in an exception.",
        "workers go on after an exception",
    ),
    not_yet(
        Recycling,
        "reload-on-exception-type",
        Shape::Name,
        "The same for a type of exception.",
        "workers go on after an exception",
    )
    .repeatable(),
    not_yet(
        Recycling,
        "reload-on-exception-value",
        Shape::Name,
        "The same for the text of an exception.",
        "workers go on after an exception",
    )
    .repeatable(),
    not_yet(
        Recycling,
        "reload-on-exception-repr",
        Shape::Name,
        "The same for both.",
        "workers go on after an exception",
    )
    .repeatable(),
    not_yet(
        Recycling,
        "cheaper",
        Shape::Int,
        "Fewest workers while there is little to do.",
        "all processes run all the time",
    )
    .default("0"),
    not_yet(
        Recycling,
        "cheaper-initial",
        Shape::Int,
        "Workers at the start.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-step",
        Shape::Int,
        "Workers started at a time.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-overload",
        Shape::Seconds,
        "How often the number of workers is considered.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-idle",
        Shape::Seconds,
        "How long a worker must have nothing to do.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-algo",
        Shape::Name,
        "How the number of workers is decided.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-max",
        Shape::Int,
        "Share of time, in percent, above which workers are added.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-min",
        Shape::Int,
        "Share of time below which workers are removed.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-multiplier",
        Shape::Int,
        "Rounds before a worker is removed.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-penalty",
        Shape::Int,
        "Rounds more after a removal that was too early.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-verbose",
        Shape::Flag,
        "Log the decisions.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-backlog-alert",
        Shape::Int,
        "Waiting connections at which workers are added.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-backlog-multiplier",
        Shape::Int,
        "Waiting connections per worker added.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-backlog-step",
        Shape::Int,
        "Workers added then.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-busyness-backlog-nonzero",
        Shape::Seconds,
        "How long connections may wait before workers are added.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "cheaper-rss-limit-soft",
        Shape::Int,
        "Memory, in bytes, above which no worker is added.",
        "all processes run all the time",
    )
    .default("0"),
    not_yet(
        Recycling,
        "cheaper-rss-limit-hard",
        Shape::Int,
        "Memory, in bytes, above which workers are removed.",
        "all processes run all the time",
    )
    .default("0"),
    not_yet(
        Recycling,
        "cheap",
        Shape::Flag,
        "Start workers with the first request.",
        "all processes run all the time",
    ),
    not_yet(
        Recycling,
        "idle",
        Shape::Seconds,
        "Send the workers home after this time without requests.",
        "all processes run all the time",
    )
    .default("0"),
    not_yet(Recycling, "die-on-idle", Shape::Flag, "Stop after that time.", "all processes run all the time"),
    row(
        Recycling,
        "die-on-no-workers",
        Kind::Flag(|c, on| c.die_on_no_workers = on),
        "Stop with status 1 when no worker is left and those that are started keep dying, for a supervisor to \
         start the server anew.",
    ),
];
