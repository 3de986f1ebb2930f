//! Statistics and metrics; readiness for supervisors.

use crate::config::schema::Group::Monitoring;
use crate::config::schema::{Kind, OptionSpec, Shape, not_yet, row};

const METRICS: &str = "there are no metrics; use --status, or s through master-fifo";

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Monitoring,
        "notify-fd",
        Kind::Int { min: 3, max: i32::MAX as u64, set: |c, n| c.notify_fd = i32::try_from(n).ok() },
        "Write a newline to this descriptor, which the server was started with, when the first generation \
         serves, and close it (s6, dinit).",
    ),
    not_yet(
        Monitoring,
        "stats",
        Shape::Address,
        "Offer statistics on this address.",
        "use --status, or s through master-fifo",
    )
    .aliases(&["stats-server"]),
    not_yet(
        Monitoring,
        "stats-http",
        Shape::Flag,
        "Offer them over HTTP.",
        "use --status, or s through master-fifo",
    )
    .aliases(&["stats-server-http"]),
    not_yet(Monitoring, "stats-minified", Shape::Flag, "Offer them without spaces.", "use --status")
        .aliases(&["stats-min"]),
    not_yet(Monitoring, "stats-no-cores", Shape::Flag, "Leave the cores out.", "use --status"),
    not_yet(Monitoring, "stats-no-metrics", Shape::Flag, "Leave the metrics out.", "use --status"),
    not_yet(
        Monitoring,
        "stats-push",
        Shape::Text,
        "Send statistics to a server.",
        "use --status from a timer",
    )
    .and(&["stats-pusher-default-freq"])
    .repeatable(),
    not_yet(Monitoring, "enable-metrics", Shape::Flag, "Keep metrics.", METRICS),
    not_yet(Monitoring, "metric", Shape::Text, "Define a metric.", METRICS).repeatable(),
    not_yet(Monitoring, "metrics-dir", Shape::Path, "Directory of files with metrics.", METRICS)
        .metavar("DIR"),
    not_yet(Monitoring, "metrics-no-cores", Shape::Flag, "No metrics of cores.", METRICS),
    not_yet(Monitoring, "snmp", Shape::Text, "Answer SNMP.", METRICS).bare("true"),
    not_yet(Monitoring, "snmp-community", Shape::Text, "Community of SNMP.", METRICS),
    not_yet(Monitoring, "carbon", Shape::Address, "Send metrics to Carbon.", METRICS).repeatable(),
    not_yet(Monitoring, "udp", Shape::Address, "Take commands over UDP.", "use master-fifo"),
];
