//! Server log and request log.

use crate::config::schema::Group::Logging;
use crate::config::schema::{Kind, OptionSpec, Shape, accepted, not_yet, row};
use crate::control::Command;
use crate::control::touch::Touch;

const FILTER: &str = "lines are not filtered; let the log collector do it";

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Logging,
        "daemonize",
        Kind::LogFile(|c, path| c.daemonize = Some(path)),
        "Go to the background and log to this file.",
    )
    .short('d'),
    row(
        Logging,
        "daemonize2",
        Kind::LogFile(|c, path| c.daemonize2 = Some(path)),
        "The same, but only once the application is loaded, so that the shell sees a failure.",
    ),
    row(
        Logging,
        "logto",
        Kind::LogFile(|c, path| c.logto = Some(path)),
        "Log to this file, opened before privileges are dropped.",
    ),
    row(
        Logging,
        "logto2",
        Kind::LogFile(|c, path| c.logto2 = Some(path)),
        "Log to this file, opened after privileges are dropped.",
    ),
    row(
        Logging,
        "disable-logging",
        Kind::FlagOff(|c, on| c.request_log.enabled = on),
        "Do not log requests.",
    )
    .short('L'),
    row(
        Logging,
        "log-format",
        Kind::Str(|c, format| c.request_log.format = Some(format.to_owned())),
        "Line to log for a request, with variables as %(uri).",
    )
    .aliases(&["logformat"])
    .metavar("FORMAT"),
    row(
        Logging,
        "log-4xx",
        Kind::Flag(|c, on| c.request_log.log_4xx = on),
        "Log requests answered with 4xx even with disable-logging.",
    ),
    row(
        Logging,
        "log-5xx",
        Kind::Flag(|c, on| c.request_log.log_5xx = on),
        "Log requests answered with 5xx even with disable-logging.",
    ),
    row(
        Logging,
        "log-slow",
        Kind::Int { min: 0, max: u64::MAX, set: |c, ms| c.request_log.slow = (ms > 0).then_some(ms) },
        "Log requests that take this many milliseconds even with disable-logging; 0 is off.",
    )
    .metavar("MILLISECONDS"),
    row(
        Logging,
        "log-micros",
        Kind::Flag(|c, on| c.request_log.micros = on),
        "Log how long a request took in microseconds instead of milliseconds.",
    ),
    row(
        Logging,
        "log-x-forwarded-for",
        Kind::Flag(|c, on| c.request_log.x_forwarded_for = on),
        "Log the client named by X-Forwarded-For instead of the peer.",
    ),
    accepted(
        Logging,
        "log-master",
        Shape::Flag,
        "Let the master write the log.",
        "the log has one owner, the master",
    ),
    accepted(
        Logging,
        "threaded-logger",
        Shape::Flag,
        "Write the log in a thread.",
        "writing a line blocks nobody",
    )
    .and(&["threaded-log", "log-master-stream"]),
    accepted(
        Logging,
        "log-master-bufsize",
        Shape::Size,
        "Longest line of the log.",
        "lines may have any length",
    ),
    row(
        Logging,
        "log-reopen",
        Kind::Flag(|c, on| c.log_reopen = on),
        "Open the log anew at each reload, as l through master-fifo does at any time.",
    ),
    not_yet(
        Logging,
        "log-date",
        Shape::Text,
        "Form of the date in front of each line.",
        "lines begin with date, time, role and pid in a form of their own",
    )
    .aliases(&["logdate"])
    .bare("true")
    .default("true"),
    not_yet(
        Logging,
        "log-prefix",
        Shape::Text,
        "Text in front of each line.",
        "lines begin with date, time, role and pid",
    ),
    not_yet(
        Logging,
        "log-format-strftime",
        Shape::Flag,
        "Read log-format as a form of the date as well.",
        "use %(ltime) or %(ctime) in log-format",
    )
    .aliases(&["logformat-strftime"]),
    not_yet(
        Logging,
        "log-big",
        Shape::Size,
        "Log large responses even with disable-logging.",
        "use log-4xx, log-5xx or log-slow",
    )
    .default("0"),
    not_yet(
        Logging,
        "log-zero",
        Shape::Flag,
        "Log empty responses even with disable-logging.",
        "use log-4xx, log-5xx or log-slow",
    ),
    not_yet(
        Logging,
        "log-sendfile",
        Shape::Flag,
        "Log files sent even with disable-logging.",
        "use log-4xx, log-5xx or log-slow",
    ),
    not_yet(
        Logging,
        "log-ioerror",
        Shape::Flag,
        "Log requests whose connection broke.",
        "use log-4xx, log-5xx or log-slow",
    ),
    not_yet(
        Logging,
        "log-maxsize",
        Shape::Size,
        "Size at which the log is renamed.",
        "use logrotate, and send l through master-fifo; or L to rename it at once",
    )
    .default("0"),
    not_yet(
        Logging,
        "log-backupname",
        Shape::Path,
        "Name the log gets then.",
        "use logrotate, and send l through master-fifo",
    ),
    not_yet(Logging, "log-truncate", Shape::Flag, "Empty the log at the start.", "the log is appended to"),
    row(
        Logging,
        "touch-logreopen",
        Kind::Path(|c, path| c.touches.push(Touch::command(path, Command::ReopenLog))),
        "Open the log anew when this file is touched.",
    )
    .repeatable(),
    row(
        Logging,
        "touch-logrotate",
        Kind::Path(|c, path| c.touches.push(Touch::command(path, Command::RotateLog))),
        "Rename the log when this file is touched.",
    )
    .repeatable(),
    not_yet(
        Logging,
        "logfile-chown",
        Shape::Flag,
        "Give the log to the user of uid.",
        "use logto2, which that user opens",
    )
    .aliases(&["log-chown"]),
    not_yet(
        Logging,
        "logfile-chmod",
        Shape::Mode,
        "Mode of the log.",
        "create the log with its mode, or use umask",
    ),
    not_yet(
        Logging,
        "logger",
        Shape::Text,
        "Send the log to a logger.",
        "the log goes to standard error or a file: use logto",
    )
    .repeatable(),
    not_yet(
        Logging,
        "req-logger",
        Shape::Text,
        "Send the request log to a logger.",
        "requests are logged with the rest: use logto",
    )
    .aliases(&["logger-req"])
    .repeatable(),
    not_yet(
        Logging,
        "log-syslog",
        Shape::Text,
        "Send the log to syslog.",
        "let systemd collect standard error, or use logger(1)",
    )
    .bare("appserver"),
    not_yet(
        Logging,
        "log-socket",
        Shape::Text,
        "Send the log to a socket.",
        "the log goes to standard error or a file: use logto",
    ),
    not_yet(Logging, "log-encoder", Shape::Text, "Form of the lines.", "use log-format for requests")
        .and(&["log-req-encoder"])
        .repeatable(),
    not_yet(Logging, "log-route", Shape::Name, "Send matching lines to a logger.", FILTER)
        .and(&["log-req-route"])
        .repeatable(),
    not_yet(Logging, "log-drain", Shape::Name, "Drop matching lines.", FILTER).repeatable(),
    not_yet(Logging, "log-filter", Shape::Name, "Keep matching lines only.", FILTER).repeatable(),
    not_yet(
        Logging,
        "memory-report",
        Shape::Int,
        "Log the memory of the worker with each request.",
        "memory is not watched",
    )
    .short('m')
    .bare("1")
    .default("0"),
    not_yet(
        Logging,
        "alarm",
        Shape::Name,
        "Something to do in an emergency.",
        "let your monitoring watch the log",
    )
    .repeatable(),
    not_yet(
        Logging,
        "log-alarm",
        Shape::Name,
        "Raise an alarm for matching lines.",
        "let your monitoring watch the log",
    )
    .aliases(&["alarm-log"])
    .repeatable(),
    not_yet(
        Logging,
        "alarm-backlog",
        Shape::Name,
        "Raise an alarm when the listen queue is full.",
        "let your monitoring watch the log",
    )
    .and(&["alarm-segfault", "alarm-fd"])
    .repeatable(),
    not_yet(
        Logging,
        "alarm-freq",
        Shape::Seconds,
        "Time between two alarms.",
        "let your monitoring watch the log",
    ),
];
