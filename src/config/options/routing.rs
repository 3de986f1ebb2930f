//! Which request goes where.

use crate::config::schema::Group::Routing;
use crate::config::schema::{OptionSpec, Shape, accepted, not_yet};

const PLUGIN: &str = "needs a language plugin, which this release does not have";
const ROUTES: &str = "requests are not routed; let the web server do it";

pub(super) const ROWS: &[OptionSpec] = &[
    not_yet(Routing, "mount", Shape::Pair, "Serve an application under a URL prefix.", PLUGIN)
        .metavar("/PREFIX=APP")
        .repeatable()
        .application(),
    not_yet(
        Routing,
        "manage-script-name",
        Shape::Flag,
        "Split the path at the mount point.",
        "there are no mount points",
    ),
    not_yet(
        Routing,
        "no-default-app",
        Shape::Flag,
        "Answer 404 outside the mount points.",
        "there are no mount points",
    ),
    not_yet(
        Routing,
        "vhost",
        Shape::Flag,
        "Choose the application by host name.",
        "there is one application; start a server for each host",
    )
    .and(&["vhost-host"]),
    not_yet(
        Routing,
        "dynamic-apps",
        Shape::Flag,
        "Load the application that a request names.",
        "there is one application, the configured one",
    ),
    accepted(Routing, "max-apps", Shape::Int, "Most applications of a worker.", "there is one application"),
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
