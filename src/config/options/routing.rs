//! Which request goes where.

use crate::config::python;
use crate::config::schema::Group::Routing;
use crate::config::schema::{Kind, OptionSpec, Shape, accepted, not_yet, row};

const ROUTES: &str = "requests are not routed; let the web server do it";

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Routing,
        "mount",
        Kind::Parsed(|c, text| python::mount(text).map(|mount| c.python.mounts.push(mount))),
        "Serve a Python application, a file or MODULE:CALLABLE, under a URL prefix.",
    )
    .metavar("/PREFIX=APP")
    .repeatable(),
    not_yet(
        Routing,
        "worker-mount",
        Shape::Pair,
        "The same, in one worker only or after it has started.",
        "use mount, with lazy-apps to load the application in the workers",
    )
    .repeatable()
    .application(),
    accepted(
        Routing,
        "manage-script-name",
        Shape::Flag,
        "Split the path at the mount point: SCRIPT_NAME is the prefix, PATH_INFO the rest.",
        "that is always done",
    ),
    accepted(
        Routing,
        "ignore-script-name",
        Shape::Flag,
        "Do not choose the application by SCRIPT_NAME.",
        "clients cannot set SCRIPT_NAME",
    ),
    row(
        Routing,
        "no-default-app",
        Kind::Flag(|c, on| c.python.no_default_app = on),
        "Answer 404 outside the mount points.",
    ),
    not_yet(
        Routing,
        "dynamic-apps",
        Shape::Flag,
        "Load applications that requests name.",
        "applications are named in the configuration",
    ),
    not_yet(
        Routing,
        "vhost",
        Shape::Flag,
        "Choose the application by host name.",
        "start a server for each host",
    )
    .and(&["vhost-host"]),
    accepted(Routing, "max-apps", Shape::Int, "Most applications of a worker.", "there is no limit"),
    not_yet(Routing, "route", Shape::Name, "Rule for requests whose path matches.", ROUTES).repeatable().and(
        &[
            "route-host",
            "route-uri",
            "route-qs",
            "route-remote-addr",
            "route-remote-user",
            "route-user-agent",
            "route-cookie",
            "route-referer",
        ],
    ),
    not_yet(Routing, "route-if", Shape::Name, "Rule for requests that satisfy a condition.", ROUTES)
        .repeatable()
        .and(&["route-if-not", "route-status"]),
    not_yet(Routing, "route-run", Shape::Name, "Rule for all requests.", ROUTES).repeatable(),
    not_yet(Routing, "route-label", Shape::Name, "Name a place among the rules.", ROUTES).repeatable(),
    not_yet(Routing, "response-route", Shape::Name, "Rule for responses.", ROUTES).repeatable().and(&[
        "response-route-if",
        "response-route-if-not",
        "response-route-run",
        "response-route-label",
        "response-route-status",
        "response-route-host",
        "response-route-uri",
    ]),
    not_yet(Routing, "final-route", Shape::Name, "Rule for the end of a request.", ROUTES).repeatable().and(
        &[
            "final-route-if",
            "final-route-if-not",
            "final-route-run",
            "final-route-label",
            "final-route-status",
            "final-route-host",
            "final-route-uri",
        ],
    ),
    not_yet(Routing, "error-route", Shape::Name, "Rule for requests that failed.", ROUTES).repeatable().and(
        &[
            "error-route-if",
            "error-route-if-not",
            "error-route-run",
            "error-route-label",
            "error-route-status",
            "error-route-host",
            "error-route-uri",
        ],
    ),
    not_yet(
        Routing,
        "allowed-modifiers",
        Shape::Name,
        "Modifiers that clients may set.",
        "there are no modifiers",
    ),
    not_yet(Routing, "remap-modifier", Shape::Name, "Modifiers to be replaced.", "there are no modifiers"),
    not_yet(
        Routing,
        "subscribe-to",
        Shape::Name,
        "Announce this server to a router.",
        "configure the backend in the web server",
    )
    .repeatable()
    .and(&["subscribe", "st", "subscribe2"]),
    not_yet(
        Routing,
        "fastrouter",
        Shape::Address,
        "Route the uwsgi protocol.",
        "the server does not forward requests; use a web server",
    )
    .repeatable()
    .application(),
];
