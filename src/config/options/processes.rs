//! Worker processes and how the application is loaded.

use super::{A_MOMENT, MAX_PROCESSES, MAX_THREADS, cpus, to_u32};
use crate::config::limits;
use crate::config::schema::Group::Processes;
use crate::config::schema::{Kind, OptionSpec, Shape, accepted, not_yet, row};

pub(super) const ROWS: &[OptionSpec] = &[
    accepted(
        Processes,
        "master",
        Shape::Flag,
        "Run under a master process, as production does.",
        "there always is a master, which replaces workers and reloads; false does not change that",
    )
    .short('M'),
    row(
        Processes,
        "processes",
        Kind::IntOrAuto { min: 1, max: MAX_PROCESSES, auto: cpus, set: |c, n| c.processes = to_u32(n) },
        "How many worker processes serve requests; auto is one for each CPU that the process may use: its \
         affinity, and the quota of its control group, rounded up.",
    )
    .short('p')
    .aliases(&["workers"])
    .default("1"),
    row(
        Processes,
        "relief",
        Kind::Flag(|c, on| c.relief = on),
        "While an application that runs on the worker's own thread is slow, hand that worker's other connections \
         to free workers.",
    )
    .default("true"),
    row(
        Processes,
        "threads",
        Kind::Int { min: 1, max: MAX_THREADS, set: |c, n| c.threads = to_u32(n) },
        "How many requests a worker runs at a time.",
    )
    .default("1"),
    row(
        Processes,
        "lazy-apps",
        Kind::Flag(|c, on| c.lazy_apps = on),
        "Load the application in each worker instead of once before forking them.",
    )
    .aliases(&["lazy"]),
    row(
        Processes,
        "need-app",
        Kind::Flag(|c, on| c.need_app = on),
        "Exit with status 22 when no application is named or loads.",
    ),
    row(
        Processes,
        "no-orphans",
        Kind::Flag(|c, on| c.no_orphans = on),
        "Kill the workers at once when the master dies, instead of letting them finish their requests.",
    ),
    row(
        Processes,
        "boot-timeout",
        Kind::Seconds { min: A_MOMENT, set: |c, time| c.boot_timeout = time },
        "How long loading the application or starting a worker may take.",
    )
    .default("60"),
    not_yet(
        Processes,
        "thread-stacksize",
        Shape::Int,
        "Stack size of a thread, in kilobytes.",
        "request threads have the system's stack size",
    )
    .aliases(&["threads-stacksize", "thread-stack-size", "threads-stack-size"]),
    accepted(
        Processes,
        "enable-threads",
        Shape::Flag,
        "Let the application start threads.",
        "applications may always start threads",
    )
    .short('T'),
    accepted(
        Processes,
        "no-threads-wait",
        Shape::Flag,
        "Do not wait for threads when a worker leaves.",
        "a worker waits for its requests only",
    ),
    accepted(
        Processes,
        "thunder-lock",
        Shape::Flag,
        "Take turns in accepting connections.",
        "a new connection wakes one of the workers that sleep (EPOLLEXCLUSIVE), and no worker takes one that it \
         has no free slot for",
    )
    .aliases(&["thunderlock"]),
    accepted(
        Processes,
        "lock-engine",
        Shape::Name,
        "How processes exclude each other.",
        "the server needs no lock between processes",
    )
    .and(&["ftok"]),
    not_yet(Processes, "no-server", Shape::Flag, "Start no workers.", "use --check-config to start nothing")
        .application(),
    not_yet(
        Processes,
        "async",
        Shape::Int,
        "Requests a worker runs at a time in a loop engine.",
        "there is no loop engine; use threads",
    )
    .default("0"),
    not_yet(
        Processes,
        "gevent",
        Shape::Int,
        "Greenlets of a worker.",
        "there is no loop engine; use threads",
    )
    .bare("1")
    .default("0"),
    not_yet(Processes, "asyncio", Shape::Int, "Tasks of a worker.", "there is no loop engine; use threads")
        .bare("1")
        .default("0"),
    not_yet(Processes, "loop", Shape::Name, "The loop engine.", "there is no loop engine; use threads"),
    not_yet(Processes, "ugreen", Shape::Flag, "Use coroutines.", "there is no loop engine; use threads"),
    not_yet(Processes, "greenlet", Shape::Flag, "Use greenlets.", "there is no loop engine; use threads"),
    row(
        Processes,
        "cpu-affinity",
        Kind::Int { min: 0, max: MAX_PROCESSES, set: |c, n| c.limits.cpus = to_u32(n) },
        "How many processors each worker is bound to: worker 1 to the first ones that the process may use, worker \
         2 to the next, and from the beginning again. 0 binds nobody.",
    )
    .default("0"),
    row(
        Processes,
        "prio",
        Kind::Parsed(|c, text| limits::nice(text).map(|nice| c.limits.priority = nice)),
        "Nice value of zygote and workers, -20 (served first) to 19; a negative one, for which root is needed at \
         the start, is the master's, too.",
    )
    .metavar("NICE")
    .default("0"),
    not_yet(
        Processes,
        "never-swap",
        Shape::Flag,
        "Lock the memory of the processes.",
        "memory may be swapped out",
    ),
    not_yet(
        Processes,
        "ksm",
        Shape::Int,
        "Merge equal memory pages.",
        "workers share what the application loaded before the fork",
    )
    .bare("10")
    .default("0"),
    not_yet(
        Processes,
        "worker-exec",
        Shape::Path,
        "Run a program as worker.",
        "workers serve requests themselves",
    )
    .and(&["worker-exec2"])
    .application(),
    accepted(
        Processes,
        "reaper",
        Shape::Flag,
        "Collect dead children after each request.",
        "children of the application are its own; strangers are collected by the master",
    )
    .short('r'),
    accepted(
        Processes,
        "backtrace-depth",
        Shape::Int,
        "Depth of the stack printed at a crash.",
        "a crash is reported by its signal",
    ),
    not_yet(
        Processes,
        "use-abort",
        Shape::Flag,
        "Dump core at a crash.",
        "the limits of the system decide about core files",
    ),
];
