//! The protocol: limits, time-outs, bodies, headers.

use std::time::Duration;

use super::{A_MOMENT, to_usize};
use crate::config::Config;
use crate::config::schema::Group::Http;
use crate::config::schema::{Kind, OptionSpec, Shape, accepted, not_yet, row};
use crate::config::value::ValueError;

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Http,
        "http-keepalive",
        Kind::Seconds { min: Duration::ZERO, set: |c, time| c.keepalive = time },
        "How long an idle connection may wait for a request; 0 closes after each response, 1 is the default.",
    )
    .default("75")
    .bare("75"),
    row(
        Http,
        "http-headers-timeout",
        Kind::Seconds { min: A_MOMENT, set: |c, time| c.headers_timeout = time },
        "How long the head of a request may take to arrive.",
    )
    .default("15"),
    row(
        Http,
        "http-timeout",
        Kind::Seconds { min: A_MOMENT, set: |c, time| c.io_timeout = time },
        "How long reading a body or writing a response may stand still.",
    )
    .short('z')
    .aliases(&["socket-timeout"])
    .default("60"),
    row(
        Http,
        "limit-post",
        Kind::Size { min: 0, max: u64::MAX, set: |c, bytes| c.limit_post = bytes },
        "Largest request body; 0 is no limit.",
    )
    .default("0"),
    row(
        Http,
        "buffer-size",
        Kind::Size { min: 1 << 10, max: 1 << 20, set: |c, bytes| c.buffer_size = to_usize(bytes) },
        "Largest head of a request.",
    )
    .short('b')
    .default("32768"),
    row(
        Http,
        "ready-path",
        Kind::Parsed(ready_path),
        "Path that answers 200, and 503 from the moment a stop is asked for; for load balancers.",
    )
    .metavar("/PATH"),
    not_yet(
        Http,
        "http-websockets",
        Shape::Flag,
        "Pass WebSocket connections on.",
        "there is no WebSocket API",
    ),
    accepted(
        Http,
        "http-raw-body",
        Shape::Flag,
        "Pass bodies on as they arrive.",
        "there is no router in between",
    ),
    accepted(
        Http,
        "http-chunked-input",
        Shape::Flag,
        "Read chunked request bodies.",
        "chunked bodies are always read",
    )
    .and(&["http-manage-expect"]),
    accepted(
        Http,
        "http-auto-chunked",
        Shape::Flag,
        "Send bodies of unknown length in chunks.",
        "that is always done",
    ),
    accepted(
        Http,
        "http-processes",
        Shape::Int,
        "Processes of the router.",
        "the workers speak HTTP, there is no router",
    )
    .aliases(&["http-workers"]),
    accepted(
        Http,
        "http-buffer-size",
        Shape::Size,
        "Buffer of the router.",
        "the workers speak HTTP, there is no router",
    ),
    accepted(
        Http,
        "http-events",
        Shape::Int,
        "Events the router takes at a time.",
        "the workers speak HTTP, there is no router",
    ),
    accepted(
        Http,
        "http-connect-timeout",
        Shape::Seconds,
        "How long the router may take to reach a worker.",
        "the workers speak HTTP, there is no router",
    ),
    accepted(
        Http,
        "http-modifier1",
        Shape::Int,
        "Modifier the router sets.",
        "the workers speak HTTP, there is no router",
    )
    .default("0"),
    accepted(
        Http,
        "http-modifier2",
        Shape::Int,
        "Modifier the router sets.",
        "the workers speak HTTP, there is no router",
    )
    .default("0"),
    accepted(
        Http,
        "http-cheap",
        Shape::Flag,
        "Start the router's socket with the first worker.",
        "the workers speak HTTP, there is no router",
    ),
    not_yet(
        Http,
        "http-harakiri",
        Shape::Seconds,
        "Time limit of the router.",
        "requests are not limited in time",
    )
    .default("0"),
    not_yet(
        Http,
        "http-auto-gzip",
        Shape::Flag,
        "Compress responses that ask for it.",
        "responses are not compressed; let the web server or the application do it",
    ),
    not_yet(
        Http,
        "http-var",
        Shape::Pair,
        "Variable the router adds.",
        "variables are not added; set them with env",
    )
    .repeatable(),
    not_yet(Http, "http-uid", Shape::Name, "User of the router.", "there is no router; use uid"),
    not_yet(Http, "http-gid", Shape::Name, "Group of the router.", "there is no router; use gid"),
    not_yet(Http, "http-stats", Shape::Name, "Statistics of the router.", "use --status")
        .aliases(&["http-stats-server"]),
    not_yet(
        Http,
        "http-enable-proxy-protocol",
        Shape::Flag,
        "Expect the PROXY protocol.",
        "connections that begin with it are refused; use log-x-forwarded-for with an HTTP proxy",
    )
    .and(&["enable-proxy-protocol", "http-enable-proxy-protocol-v1"]),
    not_yet(
        Http,
        "http-to",
        Shape::Address,
        "Forward requests to this backend.",
        "the server does not forward requests; use a web server",
    )
    .repeatable()
    .application(),
    not_yet(
        Http,
        "http-to-https",
        Shape::Name,
        "Redirect to HTTPS from this address.",
        "there is no TLS; let the web server redirect",
    ),
    not_yet(
        Http,
        "https",
        Shape::Name,
        "Serve HTTPS on this address.",
        "there is no TLS; put a web server in front",
    )
    .and(&["https2"])
    .metavar("ADDRESS,CERT,KEY")
    .repeatable()
    .listener(),
    not_yet(
        Http,
        "http-subscription-server",
        Shape::Address,
        "Let backends announce themselves here.",
        "the server does not forward requests",
    )
    .repeatable()
    .application(),
    row(
        Http,
        "post-buffering",
        Kind::Size { min: 0, max: u64::MAX, set: |c, bytes| c.post_buffering = bytes },
        "Read bodies before the application is called: up to this in memory, larger ones in a temporary file.",
    )
    .bare("4096")
    .default("0"),
    accepted(
        Http,
        "post-buffering-bufsize",
        Shape::Size,
        "Buffer for that.",
        "bodies are written as they arrive",
    ),
    accepted(
        Http,
        "body-read-warning",
        Shape::Size,
        "Warn of bodies larger than this.",
        "bodies are read from the connection as the application asks for them",
    ),
    accepted(
        Http,
        "max-vars",
        Shape::Int,
        "Most CGI variables of a request.",
        "buffer-size limits the head of a request",
    )
    .short('v'),
    accepted(
        Http,
        "chunked-input-limit",
        Shape::Size,
        "Largest chunk of a body.",
        "chunks are passed on piece by piece; limit-post limits the body",
    ),
    accepted(
        Http,
        "chunked-input-timeout",
        Shape::Seconds,
        "How long a chunk may take to arrive.",
        "http-timeout limits every wait for a body",
    )
    .default("0"),
    accepted(
        Http,
        "ignore-sigpipe",
        Shape::Flag,
        "Do not report clients that hang up.",
        "a client that hangs up is never an error of the server",
    ),
    accepted(
        Http,
        "ignore-write-errors",
        Shape::Flag,
        "Do not report writes that fail.",
        "a client that hangs up is never an error of the server",
    ),
    accepted(
        Http,
        "disable-write-exception",
        Shape::Flag,
        "Raise no exception when a client hangs up.",
        "a client that hangs up is never an error of the server",
    )
    .aliases(&["disable-write-exceptions"]),
    accepted(
        Http,
        "write-errors-tolerance",
        Shape::Int,
        "Failed writes before the request is given up.",
        "the first one ends the response",
    )
    .default("0"),
    accepted(
        Http,
        "write-errors-exception-only",
        Shape::Flag,
        "Do not log them.",
        "a client that hangs up is never an error of the server",
    ),
    accepted(
        Http,
        "offload-threads",
        Shape::Int,
        "Threads that send files.",
        "files are sent without occupying a slot",
    )
    .aliases(&["offload-thread"])
    .bare("1")
    .default("0"),
    accepted(
        Http,
        "response-headers-limit",
        Shape::Int,
        "Largest head of a response.",
        "the head of a response is not limited",
    ),
    not_yet(
        Http,
        "add-header",
        Shape::Name,
        "Header for every response.",
        "no headers are added; let the web server or the application do it",
    )
    .repeatable(),
    not_yet(
        Http,
        "rem-header",
        Shape::Name,
        "Header to remove from every response.",
        "no headers are removed; let the web server or the application do it",
    )
    .aliases(&["del-header"])
    .repeatable(),
    not_yet(
        Http,
        "collect-header",
        Shape::Name,
        "Keep a response header for the log.",
        "response headers cannot be logged",
    )
    .repeatable(),
    not_yet(
        Http,
        "pull-header",
        Shape::Name,
        "Keep a response header for the log, and remove it.",
        "response headers cannot be logged, and are not removed",
    )
    .repeatable(),
    not_yet(
        Http,
        "error-page-403",
        Shape::Path,
        "Page for 403.",
        "error pages are plain text; let the web server replace them",
    )
    .repeatable(),
    not_yet(
        Http,
        "error-page-404",
        Shape::Path,
        "Page for 404.",
        "error pages are plain text; let the web server replace them",
    )
    .repeatable(),
    not_yet(
        Http,
        "error-page-500",
        Shape::Path,
        "Page for 500.",
        "error pages are plain text; let the web server replace them",
    )
    .repeatable(),
    not_yet(
        Http,
        "websockets-ping-freq",
        Shape::Seconds,
        "How often WebSocket clients are pinged.",
        "there is no WebSocket API",
    ),
    not_yet(
        Http,
        "websockets-pong-tolerance",
        Shape::Seconds,
        "How long their answer may take.",
        "there is no WebSocket API",
    ),
    not_yet(
        Http,
        "websockets-max-size",
        Shape::Int,
        "Largest message, in kilobytes.",
        "there is no WebSocket API",
    ),
];

/// The path part of a URL, as requests have it.
fn ready_path(config: &mut Config, text: &str) -> Result<(), ValueError> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#%".contains(&byte));
    if !text.starts_with('/') || !plain {
        return Err(ValueError::refused("is not a path; it begins with / and has no query, escape or blank"));
    }
    config.ready_path = Some(text.to_owned());
    Ok(())
}
