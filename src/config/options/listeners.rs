//! Sockets.

use super::{MAX_BACKLOG, to_u32};
use crate::config::Config;
use crate::config::schema::Group::Listeners;
use crate::config::schema::{Kind, OptionSpec, Shape, Status, accepted, not_yet, row};
use crate::config::value::ValueError;
use crate::net::zerg::PoolSpec;

pub(super) const ROWS: &[OptionSpec] = &[
    row(
        Listeners,
        "http-socket",
        Kind::Address(|c, spec| c.listeners.push(spec)),
        "Serve HTTP on this address: HOST:PORT, :PORT, a path for a Unix socket, @NAME for an abstract one, fd:NAME for a socket of systemd.",
    )
    .aliases(&["http11-socket"])
    .repeatable(),
    row(
        Listeners,
        "http",
        Kind::Address(|c, spec| c.listeners.push(spec)),
        "The same as http-socket: the workers speak HTTP, there is no router process.",
    )
    .repeatable(),
    row(
        Listeners,
        "listen",
        Kind::Int { min: 1, max: MAX_BACKLOG, set: |c, n| c.backlog = to_u32(n) },
        "How many connections may wait to be accepted; the kernel caps it at net.core.somaxconn.",
    )
    .short('l')
    .default("1024"),
    row(
        Listeners,
        "chmod-socket",
        Kind::Mode(|c, mode| c.chmod_socket = Some(mode)),
        "Mode of Unix sockets, in octal; without a value 666.",
    )
    .short('C')
    .aliases(&["chmod"])
    .bare("666"),
    row(
        Listeners,
        "chown-socket",
        Kind::Name(|c, owner| c.chown_socket = Some(owner.to_owned())),
        "Owner of Unix sockets.",
    )
    .metavar("USER[:GROUP]"),
    row(
        Listeners,
        "reuse-port",
        Kind::Flag(|c, on| c.reuse_port = on),
        "Let other servers bind the same TCP address (SO_REUSEPORT).",
    ),
    row(
        Listeners,
        "tcp-nodelay",
        Kind::Flag(|c, on| c.tcp_nodelay = on),
        "Send small packets at once (TCP_NODELAY).",
    )
    .default("true"),
    row(
        Listeners,
        "socket",
        Kind::Address(|c, spec| c.sockets.push(spec)),
        "Serve the uwsgi protocol on this address, or HTTP with protocol=http.",
    )
    .short('s')
    .aliases(&["uwsgi-socket"])
    .repeatable()
    .status(Status::NotYet(
        "the uwsgi protocol is not spoken; use http-socket, and nginx's proxy_pass in place of uwsgi_pass",
    ))
    .listener(),
    row(
        Listeners,
        "protocol",
        Kind::Parsed(set_protocol),
        "What is spoken on addresses given by socket: uwsgi or http.",
    )
    .aliases(&["socket-protocol"])
    .metavar("NAME")
    .default("uwsgi"),
    not_yet(
        Listeners,
        "suwsgi-socket",
        Shape::Address,
        "Serve the uwsgi protocol over TLS.",
        "only HTTP is spoken; use http-socket",
    )
    .and(&["puwsgi-socket"])
    .repeatable()
    .listener(),
    not_yet(
        Listeners,
        "fastcgi-socket",
        Shape::Address,
        "Serve FastCGI on this address.",
        "only HTTP is spoken; use http-socket",
    )
    .and(&["fastcgi-nph-socket"])
    .repeatable()
    .listener(),
    not_yet(
        Listeners,
        "scgi-socket",
        Shape::Address,
        "Serve SCGI on this address.",
        "only HTTP is spoken; use http-socket",
    )
    .and(&["scgi-nph-socket"])
    .repeatable()
    .listener(),
    not_yet(
        Listeners,
        "raw-socket",
        Shape::Address,
        "Pass connections to the application unread.",
        "only HTTP is spoken; use http-socket",
    )
    .repeatable()
    .listener(),
    not_yet(
        Listeners,
        "https-socket",
        Shape::Name,
        "Serve HTTPS on this address.",
        "there is no TLS; put a web server in front of http-socket",
    )
    .metavar("ADDRESS,CERT,KEY")
    .repeatable()
    .listener(),
    not_yet(
        Listeners,
        "shared-socket",
        Shape::Address,
        "Bind a socket to be named as =N.",
        "write the address itself; sockets are bound before privileges are dropped",
    )
    .repeatable()
    .listener(),
    not_yet(
        Listeners,
        "undeferred-shared-socket",
        Shape::Address,
        "Bind a socket to be named as =N, at once.",
        "write the address itself; sockets are bound before privileges are dropped",
    )
    .repeatable()
    .listener(),
    not_yet(
        Listeners,
        "map-socket",
        Shape::Name,
        "Which workers accept on a socket.",
        "all workers accept on all sockets",
    )
    .repeatable(),
    row(
        Listeners,
        "zerg",
        Kind::Address(|c, spec| c.zergs.push(spec)),
        "Serve on the sockets that the zerg server or pool at this path or @NAME lends.",
    )
    .metavar("PATH")
    .repeatable(),
    row(
        Listeners,
        "zerg-fallback",
        Kind::Flag(|c, on| c.zerg_fallback = on),
        "Bind the own addresses only when the zerg server is not there, which then is no error.",
    ),
    row(
        Listeners,
        "zerg-server",
        Kind::Address(|c, spec| c.zerg_server = Some(spec)),
        "Lend the sockets that are served on to who connects to this path or @NAME.",
    )
    .metavar("PATH"),
    row(
        Listeners,
        "zerg-pool",
        Kind::Parsed(|c, text| PoolSpec::parse(text).map(|pool| c.zerg_pools.push(pool))),
        "Bind these addresses and lend them to who connects to the path; without others, no workers are started.",
    )
    .aliases(&["zergpool"])
    .metavar("PATH:ADDRESS[,ADDRESS...]")
    .repeatable(),
    not_yet(
        Listeners,
        "abstract-socket",
        Shape::Flag,
        "Give Unix sockets names in the abstract namespace.",
        "write the address as @NAME",
    )
    .short('a'),
    not_yet(
        Listeners,
        "so-keepalive",
        Shape::Flag,
        "Let the kernel probe idle connections (SO_KEEPALIVE).",
        "http-keepalive and http-timeout end idle connections",
    ),
    not_yet(
        Listeners,
        "tcp-fast-open",
        Shape::Int,
        "Queue of connections opened with data.",
        "connections are opened the ordinary way",
    ),
    not_yet(
        Listeners,
        "tcp-fast-open-client",
        Shape::Flag,
        "Open connections with data.",
        "connections are opened the ordinary way",
    ),
    not_yet(
        Listeners,
        "freebind",
        Shape::Flag,
        "Bind addresses that are not there yet (IP_FREEBIND).",
        "set net.ipv4.ip_nonlocal_bind, or start after the network",
    ),
    not_yet(
        Listeners,
        "socket-sndbuf",
        Shape::Int,
        "Send buffer of the sockets.",
        "the kernel chooses (net.ipv4.tcp_wmem)",
    ),
    not_yet(
        Listeners,
        "socket-rcvbuf",
        Shape::Int,
        "Receive buffer of the sockets.",
        "the kernel chooses (net.ipv4.tcp_rmem)",
    ),
    not_yet(Listeners, "so-send-timeout", Shape::Seconds, "How long a send may block.", "use http-timeout")
        .aliases(&["socket-send-timeout"]),
    row(
        Listeners,
        "no-defer-accept",
        Kind::Flag(|c, on| c.defer_accept = !on),
        "Accept TCP connections before they have sent anything (no TCP_DEFER_ACCEPT).",
    ),
    accepted(
        Listeners,
        "close-on-exec",
        Shape::Flag,
        "Keep client connections from child processes.",
        "descriptors are always close-on-exec",
    ),
    accepted(
        Listeners,
        "close-on-exec2",
        Shape::Flag,
        "Keep listening sockets from child processes.",
        "descriptors are always close-on-exec",
    ),
    not_yet(
        Listeners,
        "safe-fd",
        Shape::Int,
        "Keep this descriptor open over a reload.",
        "a reload keeps listening sockets only",
    )
    .aliases(&["fd-safe"])
    .repeatable(),
    row(
        Listeners,
        "skip-zero",
        Kind::Flag(|c, on| c.skip_zero = on),
        "Do not look for a socket of inetd on descriptor 0.",
    ),
    not_yet(
        Listeners,
        "honour-stdin",
        Shape::Flag,
        "Leave standard input as it is.",
        "workers have no standard input",
    ),
    accepted(
        Listeners,
        "shutdown-sockets",
        Shape::Flag,
        "Close listening sockets first at a stop.",
        "a stop always begins with it",
    ),
];

fn set_protocol(config: &mut Config, name: &str) -> Result<(), ValueError> {
    config.sockets_speak_http = match name {
        "http" | "http11" => true,
        "uwsgi" => false,
        _ => return Err(ValueError::refused("is not spoken here; use http")),
    };
    Ok(())
}
