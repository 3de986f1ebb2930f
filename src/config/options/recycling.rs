//! When workers are replaced, added or sent home.

use std::time::Duration;

use super::{A_MOMENT, to_u32};
use crate::config::harakiri::asking_signal;
use crate::config::limits::{self, megabytes};
use crate::config::recycling::{Budget, unless_zero};
use crate::config::reload::MaxSurge;
use crate::config::schema::Group::Recycling;
use crate::config::schema::{Kind, OptionSpec, row};

/// As the page of all options explains it.
const MEGABYTES: &str = "MEGABYTES";
/// Looks that nobody wants to wait for.
const MANY_SAMPLES: u64 = 1000;

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Recycling,
        "harakiri",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.harakiri.limit = unless_zero(time) },
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
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.harakiri.graceful = unless_zero(time) },
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
    row(
        Recycling,
        "harakiri-queue-threshold",
        Kind::Int {
            min: 0,
            max: u32::MAX as u64,
            set: |c, n| c.harakiri.queue_threshold = unless_zero(to_u32(n)),
        },
        "Leave a request that takes too long alone while fewer connections than this wait in the longest listen \
         queue; it is looked at again each second. 0 does not ask who waits.",
    )
    .default("0"),
    row(
        Recycling,
        "harakiri-no-arh",
        Kind::Flag(|c, on| c.harakiri.no_after_request = on),
        "Stop the clock of a request before uwsgi.after_req_hook is called.",
    ),
    row(
        Recycling,
        "max-requests",
        Kind::Int { min: 0, max: u64::MAX, set: |c, n| c.recycling.max_requests = unless_zero(n) },
        "Replace a worker after this many requests, or up to a tenth more; its successor accepts before it leaves.",
    )
    .short('R')
    .default("0"),
    row(
        Recycling,
        "max-requests-delta",
        Kind::Int { min: 0, max: u64::MAX, set: |c, n| c.recycling.max_requests_delta = Some(n) },
        "Requests by which the limits of two neighbours differ, in place of the tenth: that of worker N is \
         max-requests + (N - 1) times this.",
    ),
    row(
        Recycling,
        "max-worker-lifetime",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.recycling.max_lifetime = unless_zero(time) },
        "Replace a worker that has served this long, or up to a tenth longer.",
    )
    .default("0"),
    row(
        Recycling,
        "max-worker-lifetime-delta",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.recycling.max_lifetime_delta = Some(time) },
        "Time by which the limits of two neighbours differ, in place of the tenth.",
    ),
    row(
        Recycling,
        "refork-after",
        Kind::Int { min: 0, max: u64::MAX, set: |c, n| c.refork_after = unless_zero(n) },
        "Once in each generation, the first worker that has served so many requests becomes the process that \
         workers are forked from, and the others are replaced one by one: they share what it has loaded and \
         cached by then. 0 is never.",
    )
    .default("0"),
    row(
        Recycling,
        "min-worker-lifetime",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.recycling.min_lifetime = time },
        "Replace no worker that has served for less, whatever limit it has reached. Must be shorter than \
         max-worker-lifetime.",
    )
    .default("10"),
    row(
        Recycling,
        "max-recycling",
        Kind::Parsed(|c, text| MaxSurge::parse(text).map(|most| c.recycling.at_a_time = most)),
        "How many workers may be replaced at a time for these reasons: from the start of the successor until the \
         old one is gone. A part of processes is rounded up.",
    )
    .metavar("N|N%")
    .default("10%"),
    row(
        Recycling,
        "reload-on-rss",
        Kind::Parsed(|c, text| megabytes(text).map(|bytes| c.recycling.memory.resident = bytes)),
        "Replace a worker with this much resident memory.",
    )
    .metavar(MEGABYTES)
    .default("0"),
    row(
        Recycling,
        "reload-on-as",
        Kind::Parsed(|c, text| megabytes(text).map(|bytes| c.recycling.memory.address_space = bytes)),
        "Replace a worker with this much address space.",
    )
    .metavar(MEGABYTES)
    .default("0"),
    row(
        Recycling,
        "reload-on-uss",
        Kind::Parsed(|c, text| megabytes(text).map(|bytes| c.recycling.memory.unique = bytes)),
        "Replace a worker with this much memory that it shares with no other process.",
    )
    .metavar(MEGABYTES)
    .default("0"),
    row(
        Recycling,
        "reload-on-pss",
        Kind::Parsed(|c, text| megabytes(text).map(|bytes| c.recycling.memory.proportional = bytes)),
        "Replace a worker with this much memory, of which what is shared counts in parts.",
    )
    .metavar(MEGABYTES)
    .default("0"),
    row(
        Recycling,
        "memory-samples",
        Kind::Int { min: 1, max: MANY_SAMPLES, set: |c, n| c.recycling.memory_samples = to_u32(n) },
        "How many looks in a row must find too much memory before a worker is replaced for it.",
    )
    .default("3"),
    row(
        Recycling,
        "evil-reload-on-rss",
        Kind::Parsed(|c, text| megabytes(text).map(|bytes| c.recycling.evil_resident = bytes)),
        "Kill a worker with this much resident memory, in the middle of a request.",
    )
    .metavar(MEGABYTES)
    .default("0"),
    row(
        Recycling,
        "evil-reload-on-as",
        Kind::Parsed(|c, text| megabytes(text).map(|bytes| c.recycling.evil_address_space = bytes)),
        "Kill a worker with this much address space, in the middle of a request.",
    )
    .metavar(MEGABYTES)
    .default("0"),
    row(
        Recycling,
        "memory-budget",
        Kind::Parsed(|c, text| Budget::parse(text).map(|budget| c.recycling.budget = Some(budget))),
        "Memory of the whole instance, as a size or as a part of what its control group may have (of the \
         machine's memory, if that is not limited): when there is more, the largest worker is replaced.",
    )
    .metavar("BYTES|N%"),
    row(
        Recycling,
        "mem-collector-freq",
        Kind::Seconds { min: A_MOMENT, set: |c, time| c.recycling.look_every = time },
        "How often the master looks at memory for evil-reload-on-rss, evil-reload-on-as and memory-budget, and \
         a worker for reload-on-uss, reload-on-pss and memory-budget.",
    )
    .default("3"),
    row(
        Recycling,
        "limit-as",
        Kind::Parsed(|c, text| megabytes(text).map(|bytes| c.limits.address_space = bytes)),
        "Most address space of a zygote or worker; more memory is refused to it. 0 sets no limit.",
    )
    .metavar(MEGABYTES)
    .default("0"),
    row(
        Recycling,
        "limit-nproc",
        Kind::Int {
            min: 0,
            max: u64::MAX,
            set: |c, n| c.limits.processes = unless_zero(n),
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
    row(
        Recycling,
        "reload-on-exception",
        Kind::Flag(|c, on| c.recycling.exceptions.any = on),
        "Replace a worker whose request ended in an exception. The client gets its answer.",
    ),
    row(
        Recycling,
        "reload-on-exception-type",
        Kind::Name(|c, text| c.recycling.exceptions.types.push(text.to_owned())),
        "The same for exceptions of this class only: ValueError, shop.errors.Gone.",
    )
    .metavar("CLASS")
    .repeatable(),
    row(
        Recycling,
        "reload-on-exception-value",
        Kind::Str(|c, text| c.recycling.exceptions.values.push(text.to_owned())),
        "The same for exceptions with this text only.",
    )
    .metavar("TEXT")
    .repeatable(),
    row(
        Recycling,
        "reload-on-exception-repr",
        Kind::Name(|c, text| c.recycling.exceptions.reprs.push(text.to_owned())),
        "The same for exceptions that are shown like this only: ValueError('no'), or ValueError: no.",
    )
    .metavar("TEXT")
    .repeatable(),
    row(
        Recycling,
        "die-on-no-workers",
        Kind::Flag(|c, on| c.die_on_no_workers = on),
        "Stop with status 1 when no worker is left and those that are started keep dying, for a supervisor to \
         start the server anew.",
    ),
];
