//! Where a server listens: each form of address, each option of a socket, and whose files it touches.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use appserver::sys::deferral;
use nix::sys::signal::Signal;
use nix::sys::socket::{getsockopt, sockopt};

use crate::support::server::{Builder, mode};
use crate::support::{LIMIT, Server, Target, get};

/// A server that finds its listeners in its arguments only.
fn on<const N: usize>(args: [&str; N]) -> Builder {
    Server::builtin().without_listener().args(args)
}

fn tcp(address: &str) -> Target {
    let address: SocketAddr = address.parse().unwrap_or_else(|_| panic!("{address} is no TCP address"));
    Target::Tcp(SocketAddr::new(
        if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() },
        address.port(),
    ))
}

/// Starts a server that cannot start; its log to the end.
fn refused(builder: Builder) -> Vec<String> {
    let mut server = builder.spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.log().lines()
}

fn assert_says(log: &[String], text: &str) {
    assert!(log.iter().any(|line| line.contains(text)), "{text:?} is missing in {log:#?}");
}

#[test]
fn each_form_of_address_is_served_and_options_repeat() {
    let name = format!("appserver-test-{}", std::process::id());
    let mut args = vec!["--http=localhost:0", "--http-socket=127.0.0.1:0", "--http=:0", "--http-socket=*:0"];
    let abstract_name = format!("--http=@{name}");
    args.extend([abstract_name.as_str(), "--http-socket=app.sock"]);
    let has_v6 = TcpListener::bind("[::1]:0").is_ok();
    if has_v6 {
        args.push("--http=[::1]:0");
    }
    let server = Server::builtin().without_listener().args(args).start();
    let addresses = server.addresses();
    assert_eq!(addresses.len(), 6 + usize::from(has_v6), "{addresses:?}");
    for (address, begin) in addresses.iter().zip(["127.0.0.1:", "127.0.0.1:", "0.0.0.0:", "0.0.0.0:"]) {
        assert!(address.starts_with(begin), "{address}");
        assert_eq!(get(&tcp(address), "/").status, 200, "{address}");
    }
    if let Some(v6) = addresses.get(6) {
        assert!(v6.starts_with("[::1]:"), "{v6}");
        assert_eq!(get(&tcp(v6), "/").status, 200, "{v6}");
    }
    assert_eq!(get(&Target::Unix(server.path("app.sock")), "/").status, 200);

    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let mut stream = UnixStream::connect_addr(&address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[test]
fn an_address_that_is_none_is_explained() {
    let cases = [
        ("8080", "write :8080"),
        ("::1:8080", "like [::1]:8080"),
        ("fd://1", "standard stream"),
        ("fd://77", "cannot use fd://77"),
        ("127.0.0.1:99999", "99999"),
        ("no.such.host.invalid:80", "cannot be resolved"),
        ("missing/app.sock", "cannot bind "),
    ];
    for (address, text) in cases {
        let log = refused(on([]).arg(format!("--http={address}")));
        assert_says(&log, text);
        assert_says(&log, address);
    }
}

#[test]
fn a_unix_path_is_relative_to_chdir() {
    let server = on(["--chdir=sub", "--http=app.sock"]).file("sub/.keep", "").start();
    assert_eq!(get(&Target::Unix(server.path("sub/app.sock")), "/").status, 200);
}

#[test]
fn a_backlog_above_the_systems_limit_is_cut_and_said_so() {
    let server = Server::builtin().arg("--listen=2000000000").start();
    let limit = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
    let line = server.wait_for_log("listen backlog 2000000000 cut to ");
    assert!(line.contains(&format!("cut to {} (net.core.somaxconn)", limit.trim())), "{line}");
    assert!(line.contains("] WARN "), "{line}");
}

#[test]
fn modes_of_unix_sockets_are_those_asked_for() {
    for (args, expected) in [
        (vec!["--chmod-socket"], 0o666),
        (vec!["--chmod-socket=660"], 0o660),
        (vec!["-C600"], 0o600),
        (vec!["--chmod-socket=0700", "--umask=000"], 0o700),
        (vec!["--umask=077"], 0o700),
        (vec!["--umask=027"], 0o750),
    ] {
        let server = Server::builtin().on_unix_socket("app.sock").args(&args).start();
        assert_eq!(mode(&server.path("app.sock")), expected, "{args:?}");
        assert_eq!(server.get("/").status, 200, "{args:?}");
    }
}

#[test]
fn owners_of_unix_sockets_are_those_asked_for() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: only root may give files away");
    }
    for (owner, expected) in
        [("nobody:nogroup", (65534, 65534)), ("65534", (65534, 0)), (":65534", (0, 65534))]
    {
        let server =
            Server::builtin().on_unix_socket("app.sock").arg(format!("--chown-socket={owner}")).start();
        let socket = std::fs::symlink_metadata(server.path("app.sock")).unwrap();
        assert_eq!((socket.uid(), socket.gid()), expected, "{owner}");
        assert_eq!(server.get("/").status, 200, "{owner}");
    }
    let log = refused(on(["--http=app.sock", "--chown-socket=no-such-user"]));
    assert_says(&log, "chown-socket: there is no user named \"no-such-user\"");
}

#[test]
fn tcp_nodelay_is_on_unless_turned_off() {
    for (args, expected) in
        [(vec![], true), (vec!["--tcp-nodelay"], true), (vec!["--tcp-nodelay=false"], false)]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.try_clone().unwrap();
        let builder = on(["--http=fd://11"]).descriptor(11, listener);
        let server = builder.args(&args).start();
        assert_eq!(getsockopt(&ours.as_fd(), sockopt::TcpNoDelay).unwrap(), expected, "{args:?}");
        assert_eq!(get(&Target::Tcp(ours.local_addr().unwrap()), "/").status, 200);
        drop(server);
    }
}

#[test]
fn a_tcp_connection_is_taken_when_its_first_bytes_have_come_unless_that_is_turned_off() {
    for (args, before, expected) in
        [(vec![], 0, 1), (vec![], 7, 7), (vec!["--no-defer-accept"], 7, 0), (vec!["--no-defer-accept"], 0, 0)]
    {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = listener.try_clone().unwrap();
        deferral::set(ours.as_fd(), Duration::from_secs(before)).unwrap();
        let server = on(["--http=fd://11"]).descriptor(11, listener).args(&args).start();
        assert_eq!(deferral::get(ours.as_fd()).unwrap(), Duration::from_secs(expected), "{args:?}, {before}");
        assert_eq!(get(&Target::Tcp(ours.local_addr().unwrap()), "/").status, 200);
        drop(server);
    }
}

#[test]
fn a_reload_changes_when_connections_are_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = listener.try_clone().unwrap();
    let ini = "[uwsgi]\nmaster = true\n";
    let builder = on(["--http=fd://11", "a.ini"]).descriptor(11, listener);
    let server = builder.file("a.ini", format!("{ini}no-defer-accept = true\n")).start();
    for (expected, text) in [(1, ini), (0, &format!("{ini}no-defer-accept = true\n"))] {
        server.file("a.ini", text);
        server.reload();
        assert_eq!(deferral::get(ours.as_fd()).unwrap(), Duration::from_secs(expected), "{text}");
    }
}

#[test]
fn two_servers_share_a_port_only_if_both_want_to() {
    let one = on(["--http=127.0.0.1:0", "--reuse-port"]).start();
    let address = one.addresses().remove(0);
    let argument = format!("--http={address}");
    let log = refused(on([]).arg(&argument));
    assert_says(&log, &format!("cannot bind {address}: address in use"));
    let two = on([]).arg(&argument).arg("--reuse-port").start();
    assert_eq!(two.addresses(), std::slice::from_ref(&address));
    for _ in 0..8 {
        assert_eq!(get(&tcp(&address), "/").status, 200);
    }
}

#[test]
fn one_address_named_twice_is_refused() {
    let log = refused(on(["--http=app.sock", "--http=app.sock"]));
    assert_says(&log, "app.sock: address in use");
}

#[test]
fn a_socket_with_a_live_server_is_refused_and_left_alone() {
    let server = Server::builtin().on_unix_socket("app.sock").start();
    let path = server.path("app.sock");
    let before = std::fs::metadata(&path).unwrap().ino();
    let log = refused(on(["--vacuum"]).arg(format!("--http={}", path.display())));
    assert_says(&log, "ERROR");
    assert_says(&log, &format!("cannot bind {}: address in use", path.display()));
    assert_eq!(std::fs::metadata(&path).unwrap().ino(), before);
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_dead_socket_is_replaced() {
    let builder = Server::builtin().on_unix_socket("app.sock");
    drop(UnixListener::bind(builder.path("app.sock")).unwrap());
    let server = builder.start();
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_file_that_is_no_socket_is_in_the_way_and_stays() {
    let builder = on(["--http=app.sock", "--vacuum"]).file("app.sock", "precious");
    let mut server = builder.spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("app.sock: a regular file is in the way");
    assert_eq!(std::fs::read_to_string(server.path("app.sock")).unwrap(), "precious");
}

#[test]
fn sockets_bound_before_one_that_fails_are_removed_again() {
    let mut server = on(["--http=a.sock", "--http=b.sock"]).file("b.sock", "precious").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    assert!(!server.path("a.sock").exists() && server.path("b.sock").exists());
}

#[test]
fn vacuum_removes_what_the_server_made_also_after_a_reload() {
    for (vacuum, reloads) in [(true, 0), (true, 2), (false, 1)] {
        let builder = Server::builtin().on_unix_socket("app.sock").with_fifo().arg("--pidfile=pid");
        let mut server = if vacuum { builder.arg("--vacuum").start() } else { builder.start() };
        for _ in 0..reloads {
            server.reload();
        }
        server.signal(Signal::SIGINT);
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
        let what = format!("vacuum {vacuum} after {reloads} reloads");
        assert_eq!(server.path("app.sock").exists(), !vacuum, "{what}");
        assert_eq!(server.path("fifo").exists(), !vacuum, "{what}");
        assert!(!server.path("pid").exists(), "{what}");
        if vacuum {
            server.wait_for_log("VACUUM: unix socket app.sock removed.");
        }
    }
}

#[test]
fn vacuum_leaves_a_file_that_took_the_sockets_name() {
    let mut server = Server::builtin().on_unix_socket("app.sock").with_fifo().arg("--vacuum").start();
    for name in ["app.sock", "fifo"] {
        std::fs::remove_file(server.path(name)).unwrap();
    }
    std::fs::write(server.path("app.sock"), "precious").unwrap();
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    assert_eq!(std::fs::read_to_string(server.path("app.sock")).unwrap(), "precious");
    server.wait_for_log("VACUUM WARNING: unix socket app.sock changed inode. Skip removal");
}

#[test]
fn vacuum_removes_every_fifo_the_server_made() {
    let mut server = Server::builtin().with_fifo().args(["--master-fifo=other", "--vacuum"]).start();
    server.fifo("1");
    server.wait_for_log("active master fifo is now ");
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    assert!(!server.path("other").exists(), "the active FIFO stays");
    assert!(!server.path("fifo").exists(), "the FIFO of before stays");
}

#[test]
fn a_listener_of_another_program_is_taken_over_and_never_removed() {
    let builder = on(["--http=fd://11", "--vacuum"]);
    let path = builder.path("theirs.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let mut server = builder.descriptor(11, listener).start();
    assert_eq!(get(&Target::Unix(path.clone()), "/").status, 200);
    server.reload();
    assert_eq!(get(&Target::Unix(path.clone()), "/").status, 200);
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    assert!(Path::new(&path).exists());
}

#[test]
fn the_default_address_is_loopback_only() {
    // The port may be taken on this machine; either way the log names the address.
    let mut server = on([]).spawn();
    server.wait_for_log("127.0.0.1:8080");
    if TcpStream::connect("127.0.0.1:8080").is_err() {
        server.wait_exit(LIMIT);
    }
}
