//! How many workers run, and when.

use std::time::Duration;

use super::{MAX_PROCESSES, to_u32};
use crate::config::scaling::Algorithm;
use crate::config::schema::Group::Recycling;
use crate::config::schema::{Kind, OptionSpec, row};

/// Turns, spans, seconds and clients: more than anybody waits for.
const MANY: u64 = 1_000_000;
/// Shorter turns would measure the master itself.
const SHORTEST_TURN: Duration = Duration::from_millis(10);

const fn count(
    name: &'static str,
    set: fn(&mut crate::config::Config, u64),
    help: &'static str,
) -> OptionSpec {
    row(Recycling, name, Kind::Int { min: 0, max: MANY, set }, help)
}

const fn counted(
    name: &'static str,
    set: fn(&mut crate::config::Config, u64),
    help: &'static str,
) -> OptionSpec {
    row(Recycling, name, Kind::Int { min: 1, max: MANY, set }, help)
}

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Recycling,
        "cheaper",
        Kind::Int { min: 0, max: MAX_PROCESSES, set: |c, n| c.scaling.fewest = to_u32(n) },
        "Fewest workers while there is little to do; less than processes, which is the most. 0 lets all run all \
         the time.",
    )
    .default("0"),
    row(
        Recycling,
        "cheaper-algo",
        Kind::Parsed(|c, text| Algorithm::parse(text).map(|it| c.scaling.algorithm = it)),
        "By which rule workers are added and sent home: spare (all are busy), spare2 (too few have nothing to \
         do), backlog (clients wait), busyness (share of time in requests), manual (FIFO + and -).",
    )
    .metavar("NAME")
    .default("spare"),
    row(
        Recycling,
        "cheaper-initial",
        Kind::Int { min: 1, max: MAX_PROCESSES, set: |c, n| c.scaling.initial = Some(to_u32(n)) },
        "Workers at the start; cheaper without it.",
    ),
    row(
        Recycling,
        "cheaper-step",
        Kind::Int { min: 1, max: MAX_PROCESSES, set: |c, n| c.scaling.step = to_u32(n) },
        "Most workers that are added at a time.",
    )
    .default("1"),
    counted(
        "cheaper-overload",
        |c, n| c.scaling.overload = to_u32(n),
        "Turns (see check-interval) that spare lets pass before it acts; clients that may wait with backlog; \
         seconds over which busyness measures.",
    )
    .default("3"),
    counted(
        "cheaper-idle",
        |c, n| c.scaling.idle_turns = to_u32(n),
        "Turns for which spare2 lets more than cheaper workers have nothing to do.",
    )
    .default("10"),
    row(
        Recycling,
        "cheaper-busyness-max",
        Kind::Int { min: 1, max: 100, set: |c, n| c.scaling.busyness.max = to_u32(n) },
        "Share of time in requests, in percent, above which workers are added.",
    )
    .default("50"),
    row(
        Recycling,
        "cheaper-busyness-min",
        Kind::Int { min: 0, max: 100, set: |c, n| c.scaling.busyness.min = to_u32(n) },
        "Share of time below which a worker is sent home, if it lasts.",
    )
    .default("25"),
    counted(
        "cheaper-busyness-multiplier",
        |c, n| c.scaling.busyness.multiplier = to_u32(n),
        "How long it has to last, in spans of cheaper-overload.",
    )
    .default("10"),
    count(
        "cheaper-busyness-penalty",
        |c, n| c.scaling.busyness.penalty = to_u32(n),
        "Spans more after a worker was sent home and soon needed again.",
    )
    .default("2"),
    row(
        Recycling,
        "cheaper-busyness-verbose",
        Kind::Flag(|c, on| c.scaling.busyness.verbose = on),
        "Log what is measured, and what follows from it.",
    ),
    count(
        "cheaper-busyness-backlog-alert",
        |c, n| c.scaling.busyness.backlog_alert = to_u32(n),
        "Waiting clients above which workers are added at once.",
    )
    .default("33"),
    counted(
        "cheaper-busyness-backlog-multiplier",
        |c, n| c.scaling.busyness.backlog_multiplier = to_u32(n),
        "The multiplier while there are workers that were added because clients waited.",
    )
    .default("3"),
    row(
        Recycling,
        "cheaper-busyness-backlog-step",
        Kind::Int { min: 1, max: MAX_PROCESSES, set: |c, n| c.scaling.busyness.backlog_step = to_u32(n) },
        "How many are added then.",
    )
    .default("1"),
    counted(
        "cheaper-busyness-backlog-nonzero",
        |c, n| c.scaling.busyness.backlog_nonzero = to_u32(n),
        "Seconds for which any clients may wait before a worker is added.",
    )
    .default("60"),
    row(
        Recycling,
        "cheaper-rss-limit-soft",
        Kind::Size { min: 0, max: u64::MAX, set: |c, n| c.scaling.rss_soft = n },
        "Resident memory of all workers together above which none is added.",
    )
    .default("0"),
    row(
        Recycling,
        "cheaper-rss-limit-hard",
        Kind::Size { min: 0, max: u64::MAX, set: |c, n| c.scaling.rss_hard = n },
        "Resident memory of all workers together above which one is sent home each turn, down to cheaper.",
    )
    .default("0"),
    row(
        Recycling,
        "cheap",
        Kind::Flag(|c, on| c.scaling.cheap = on),
        "Load the application, and start workers with the first connection: cheaper of them, or all.",
    ),
    row(
        Recycling,
        "idle",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.scaling.idle = time },
        "Send all workers home after this time without a request; the next connection brings them back.",
    )
    .default("0"),
    row(
        Recycling,
        "die-on-idle",
        Kind::Flag(|c, on| c.scaling.die_on_idle = on),
        "Stop the server after that time instead, with exit status 0.",
    ),
    row(
        Recycling,
        "check-interval",
        Kind::Seconds { min: SHORTEST_TURN, set: |c, time| c.scaling.check_interval = time },
        "How often the master looks at its workers and listen queues (a turn), while there are requests or \
         workers too many; it sleeps otherwise.",
    )
    .default("1"),
];
