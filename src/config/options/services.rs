//! Processes and shared memory beside the workers.

use crate::cache::spec;
use crate::config::schema::Group::Services;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};
use crate::signals::given;

const DAEMON: &str = "it is not started; give it a systemd unit of its own";
const MULE: &str = "there are no mules; run workers of a task queue as a service of their own";
const SPOOLER: &str = "tasks are not worked off; run workers of a task queue as a service of their own";
const CRON: &str = "it is never run; use cron or a timer of systemd";
const SHARED: &str = "there is no shared memory for applications; use a service such as Redis or memcached";

pub(super) const ROWS: &[OptionSpec] = &[
    not_yet(Services, "attach-daemon", Shape::Name, "Run a program beside the server.", DAEMON)
        .and(&["attach-control-daemon", "attach-daemon2", "legion-attach-daemon"])
        .repeatable(),
    not_yet(
        Services,
        "smart-attach-daemon",
        Shape::Name,
        "The same, unless its pidfile says it runs.",
        DAEMON,
    )
    .and(&["smart-attach-daemon2", "legion-smart-attach-daemon"])
    .repeatable(),
    not_yet(Services, "mule", Shape::Text, "A process for work in the background.", MULE)
        .bare("true")
        .repeatable(),
    not_yet(Services, "mules", Shape::Int, "That many of them.", MULE).default("0"),
    not_yet(Services, "farm", Shape::Name, "A group of mules.", MULE).repeatable(),
    not_yet(Services, "mule-harakiri", Shape::Seconds, "Time limit of a mule's task.", MULE).default("0"),
    not_yet(Services, "mule-msg-size", Shape::Size, "Buffer for messages to mules.", MULE),
    not_yet(Services, "spooler", Shape::Path, "Directory of tasks to work off.", SPOOLER)
        .short('Q')
        .and(&["spooler-external"])
        .repeatable(),
    not_yet(Services, "spooler-processes", Shape::Int, "Processes that work them off.", SPOOLER),
    not_yet(Services, "spooler-frequency", Shape::Seconds, "How often to look for tasks.", SPOOLER)
        .aliases(&["spooler-freq"]),
    not_yet(Services, "spooler-chdir", Shape::Path, "Directory to work in.", SPOOLER),
    not_yet(Services, "spooler-harakiri", Shape::Seconds, "Time limit of a task.", SPOOLER).default("0"),
    not_yet(Services, "spooler-max-tasks", Shape::Int, "Tasks before a spooler is replaced.", SPOOLER)
        .default("0"),
    not_yet(Services, "spooler-ordered", Shape::Flag, "Take tasks in order.", SPOOLER),
    not_yet(Services, "spooler-quiet", Shape::Flag, "Do not log tasks.", SPOOLER),
    not_yet(Services, "cron", Shape::Name, "Run a command at given times.", CRON)
        .metavar("MIN HOUR DAY MONTH WEEKDAY COMMAND")
        .repeatable(),
    not_yet(Services, "cron2", Shape::Name, "The same, with options.", CRON).repeatable(),
    not_yet(Services, "unique-cron", Shape::Name, "The same, unless it still runs.", CRON)
        .and(&["legion-cron", "unique-legion-cron"])
        .repeatable(),
    not_yet(Services, "cron-harakiri", Shape::Seconds, "Time limit of the command.", CRON).default("0"),
    row(
        Services,
        "timer",
        Kind::Parsed(|c, text| given::timer(text).map(|timer| c.signals.push(timer))),
        "Raise a signal of the application every so many seconds; it registers a function for it.",
    )
    .aliases(&["signal-timer"])
    .metavar("SIGNAL SECONDS")
    .repeatable(),
    row(
        Services,
        "rbtimer",
        Kind::Parsed(|c, text| given::limited_timer(text).map(|timer| c.signals.push(timer))),
        "The same, as often as said.",
    )
    .aliases(&["signal-rbtimer"])
    .metavar("SIGNAL SECONDS [TIMES]")
    .repeatable(),
    row(
        Services,
        "cache2",
        Kind::Parsed(|c, text| spec::named(text).and_then(|cache| spec::add(&mut c.caches, cache))),
        "Cache in shared memory for the application (uwsgi.cache_get); all workers share it, a reload empties it.",
    )
    .metavar("name=NAME,items=N[,blocksize=BYTES][,keysize=BYTES][,purge_lru=1]")
    .repeatable(),
    row(
        Services,
        "cache",
        Kind::Parsed(|c, text| spec::plain(text).map(|cache| spec::replace(&mut c.caches, cache))),
        "The same, of that many items and with the name default.",
    )
    .metavar("N"),
    row(
        Services,
        "locks",
        // In range, so it fits.
        Kind::Int { min: 0, max: 255, set: |c, count| c.locks = count as u32 },
        "Locks for the application (uwsgi.lock) beside number 0, which is always there; all workers share them.",
    )
    .default("0"),
    not_yet(Services, "queue", Shape::Int, "A queue in shared memory.", SHARED),
    not_yet(Services, "sharedarea", Shape::Text, "Raw shared memory.", SHARED).short('A').repeatable(),
    not_yet(Services, "legion", Shape::Name, "Elect a master among servers.", "use a cluster manager")
        .and(&[
            "legion-node",
            "legion-mcast",
            "legion-lord",
            "legion-unlord",
            "legion-setup",
            "legion-death",
            "legion-join",
        ])
        .repeatable(),
];
