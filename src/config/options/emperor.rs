//! Many servers from a directory of configurations.

use crate::config::schema::Group::Emperor;
use crate::config::schema::{OptionSpec, Shape, not_yet};

const EMPEROR: &str = "there is no emperor";

pub(super) const ROWS: &[OptionSpec] = &[
    not_yet(
        Emperor,
        "emperor",
        Shape::Text,
        "Run a server for each configuration in a directory.",
        "there is no emperor; start each server with a systemd unit (a template unit does for all)",
    )
    .repeatable()
    .application(),
    not_yet(Emperor, "emperor-tyrant", Shape::Flag, "Run each as the owner of its file.", EMPEROR),
    not_yet(Emperor, "emperor-freq", Shape::Seconds, "How often to look.", EMPEROR),
    not_yet(Emperor, "vassals-inherit", Shape::Path, "Configuration that each inherits.", EMPEROR)
        .and(&["vassals-inherit-before"])
        .repeatable(),
    not_yet(Emperor, "vassals-include", Shape::Path, "Configuration that each includes.", EMPEROR)
        .and(&["vassals-include-before"])
        .repeatable(),
    not_yet(Emperor, "vassals-set", Shape::Pair, "Option that each gets.", EMPEROR)
        .aliases(&["vassal-set"])
        .repeatable(),
    not_yet(Emperor, "emperor-stats", Shape::Address, "Statistics of the emperor.", EMPEROR)
        .aliases(&["emperor-stats-server"]),
    not_yet(Emperor, "emperor-pidfile", Shape::Path, "Pidfile of the emperor.", EMPEROR),
    not_yet(
        Emperor,
        "emperor-required-heartbeat",
        Shape::Seconds,
        "How often each has to give a sign of life.",
        EMPEROR,
    ),
    not_yet(Emperor, "heartbeat", Shape::Seconds, "Give the emperor signs of life.", EMPEROR).default("0"),
    not_yet(Emperor, "emperor-throttle", Shape::Int, "Delay between two starts, in milliseconds.", EMPEROR),
    not_yet(Emperor, "emperor-max-throttle", Shape::Int, "Longest delay, in milliseconds.", EMPEROR),
    not_yet(
        Emperor,
        "emperor-curse-tolerance",
        Shape::Seconds,
        "How long a server may take to leave.",
        EMPEROR,
    ),
    not_yet(
        Emperor,
        "emperor-graceful-shutdown",
        Shape::Flag,
        "Let all finish their requests at the end.",
        EMPEROR,
    ),
    not_yet(Emperor, "emperor-nofollow", Shape::Flag, "Do not follow symbolic links.", EMPEROR),
    not_yet(Emperor, "emperor-no-blacklist", Shape::Flag, "Start again at once what failed.", EMPEROR),
    not_yet(Emperor, "emperor-magic-exec", Shape::Flag, "Execute configurations that are programs.", EMPEROR),
    not_yet(Emperor, "early-emperor", Shape::Flag, "Start the emperor before anything else.", EMPEROR),
    not_yet(Emperor, "emperor-broodlord", Shape::Int, "Start helpers for busy servers.", EMPEROR),
    not_yet(
        Emperor,
        "emperor-on-demand-extension",
        Shape::Name,
        "Start a server with its first connection.",
        EMPEROR,
    )
    .and(&[
        "emperor-on-demand-ext",
        "emperor-on-demand-directory",
        "emperor-on-demand-dir",
        "emperor-on-demand-exec",
    ]),
    not_yet(Emperor, "emperor-wrapper", Shape::Path, "Program that starts each server.", EMPEROR),
    not_yet(Emperor, "emperor-command-socket", Shape::Address, "Address that takes commands.", EMPEROR),
    not_yet(
        Emperor,
        "fork-server",
        Shape::Address,
        "Fork each from a server that has its language loaded.",
        EMPEROR,
    ),
    not_yet(Emperor, "emperor-procname", Shape::Text, "Title of the emperor.", EMPEROR),
    not_yet(Emperor, "emperor-extra-extension", Shape::Name, "Further extension of configurations.", EMPEROR)
        .repeatable(),
    not_yet(Emperor, "vassal-sos", Shape::Int, "Ask the emperor for help.", EMPEROR)
        .and(&["vassal-sos-backlog"]),
    not_yet(Emperor, "vassals-start-hook", Shape::Name, "Command at the start of each.", EMPEROR)
        .and(&["vassals-stop-hook"]),
];
