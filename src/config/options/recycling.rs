//! When workers are replaced, added or sent home.

use crate::config::limits;
use crate::config::schema::Group::Recycling;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};

pub(super) const ROWS: &[OptionSpec] = &[
    not_yet(
        Recycling,
        "harakiri",
        Shape::Seconds,
        "Time limit of a request; a worker that exceeds it is killed.",
        "requests are not limited in time",
    )
    .short('t')
    .default("0"),
    not_yet(
        Recycling,
        "harakiri-verbose",
        Shape::Flag,
        "Log where a request was when its time ran out.",
        "requests are not limited in time",
    ),
    not_yet(
        Recycling,
        "harakiri-graceful-timeout",
        Shape::Seconds,
        "Time between asking and killing.",
        "requests are not limited in time",
    )
    .default("0"),
    not_yet(
        Recycling,
        "harakiri-graceful-signal",
        Shape::Int,
        "Signal that asks.",
        "requests are not limited in time",
    )
    .default("15"),
    not_yet(
        Recycling,
        "harakiri-queue-threshold",
        Shape::Int,
        "Keep the time limit only while fewer connections wait than this.",
        "requests are not limited in time",
    )
    .default("0"),
    not_yet(
        Recycling,
        "harakiri-no-arh",
        Shape::Flag,
        "No time limit for handlers that run after the request.",
        "requests are not limited in time",
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
    row(
        Recycling,
        "die-on-no-workers",
        Kind::Flag(|c, on| c.die_on_no_workers = on),
        "Stop with status 1 when no worker is left and those that are started keep dying, for a supervisor to \
         start the server anew.",
    ),
];
