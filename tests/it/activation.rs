//! Sockets that a service manager opens before it starts the server: the test is that manager.

use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{self as unix, UnixListener};
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::daemon::Daemon;
use crate::support::http::Connection;
use crate::support::notify::NotifySocket;
use crate::support::server::{Builder, mode};
use crate::support::{LIMIT, Server, Target, get};

/// systemd tells the pid that it has forked, which the server keeps.
const SYSTEMD: &str = "export LISTEN_PID=$$; exec \"$0\" \"$@\"";

/// Passes these sockets as systemd does, under these names.
fn passing<const N: usize>(builder: Builder, names: &str, sockets: [OwnedFd; N]) -> Builder {
    let builder = builder.without_listener().env("LISTEN_FDS", N.to_string()).env("LISTEN_FDNAMES", names);
    let builder = builder.through(["sh", "-c", SYSTEMD]);
    sockets.into_iter().zip(3..).fold(builder, |builder, (socket, number)| builder.descriptor(number, socket))
}

fn loopback() -> (OwnedFd, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener.into(), Target::Tcp(address))
}

fn address(target: &Target) -> SocketAddr {
    let Target::Tcp(address) = target else { panic!("{target:?} is no TCP address") };
    *address
}

/// Starts a server that cannot start; its log.
fn refused(builder: Builder) -> String {
    let mut server = builder.spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.log().lines().join("\n")
}

fn assert_serves(target: &Target) {
    assert_eq!(get(target, "/").status, 200, "{target:?}");
}

#[test]
fn without_a_listener_in_the_configuration_every_socket_is_served() {
    let builder = Server::app().with_fifo();
    let path = builder.path("theirs.sock");
    let name = format!("appserver-activation-{}", std::process::id());
    let (tcp, tcp_target) = loopback();
    let six = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let six_target = Target::Tcp(six.local_addr().unwrap());
    let file = UnixListener::bind(&path).unwrap();
    let abstract_address = unix::SocketAddr::from_abstract_name(&name).unwrap();
    let unnamed = UnixListener::bind_addr(&abstract_address).unwrap();
    let sockets = [tcp, six.into(), file.into(), unnamed.into()];
    let server = passing(builder, "web:web:local:local", sockets).start();
    assert_eq!(server.addresses().len(), 4);
    let unix_target = Target::Unix(path);
    for _ in 0..3 {
        for target in [&tcp_target, &six_target, &unix_target] {
            assert_serves(target);
        }
        let client = unix::UnixStream::connect_addr(&abstract_address).unwrap();
        drop(client);
        server.reload();
    }
}

#[test]
fn the_application_knows_nothing_of_it() {
    let (socket, target) = loopback();
    let server = passing(Server::app().env("FDSTORE", "7"), "web", [socket]).start();
    let mut processes = vec![server.pid()];
    processes.extend(server.workers().iter().map(|worker| worker.pid));
    assert_serves(&target);
    for worker in server.workers() {
        let environment = std::fs::read_to_string(format!("/proc/{}/environ", worker.pid)).unwrap();
        for name in ["LISTEN_", "FDSTORE"] {
            assert!(!environment.contains(name), "{name} in {environment:?}");
        }
    }
}

#[test]
fn a_listener_claims_the_socket_of_its_name_or_of_its_address() {
    let builder = Server::builtin().with_fifo();
    let (path, link) = (builder.path("run/theirs.sock"), builder.path("link"));
    let builder = builder.file("run/.keep", "");
    std::os::unix::fs::symlink(builder.path("run"), &link).unwrap();
    let (by_name, named) = loopback();
    let (by_number, numbered) = loopback();
    let (by_address, addressed) = loopback();
    let (by_host, hosted) = loopback();
    let by_path = UnixListener::bind(&path).unwrap();
    let sockets = [by_name, by_number, by_address, by_host, by_path.into()];
    let server = passing(builder, "web:x:x:x:x", sockets)
        .args(["--http=fd:web", "--http-socket=fd://4"])
        .arg(format!("--http={}", address(&addressed)))
        .arg(format!("--http=localhost:{}", address(&hosted).port()))
        .arg(format!("--http={}/theirs.sock", link.display()))
        .start();
    for target in [&named, &numbered, &addressed, &hosted, &Target::Unix(path)] {
        assert_serves(target);
    }
    assert_eq!(server.addresses().len(), 5);
}

#[test]
fn all_sockets_of_one_unit_have_one_name() {
    let ((one, first), (two, second)) = (loopback(), loopback());
    let server =
        passing(Server::builtin(), "app.socket:app.socket", [one, two]).arg("--http=fd:app.socket").start();
    assert_serves(&first);
    assert_serves(&second);
    assert_eq!(server.addresses().len(), 2);
}

#[test]
fn all_addresses_of_both_families_are_those_of_the_socket_that_has_both() {
    // What `ListenStream=PORT` makes.
    let Ok(listener) = TcpListener::bind("[::]:0") else { return eprintln!("skipped: no IPv6") };
    let port = listener.local_addr().unwrap().port();
    for forms in [
        vec![format!("--http=:{port}")],
        vec![format!("--http=*:{port}")],
        vec![format!("--http=0.0.0.0:{port}")],
        vec![format!("--http=[::]:{port}")],
        vec![format!("--http=:{port}"), format!("--http=[::]:{port}")],
        vec![format!("--http=[::]:{port}"), format!("--http=:{port}")],
    ] {
        let copy = listener.try_clone().unwrap();
        let server = passing(Server::builtin(), "web", [copy.into()]).args(&forms).start();
        assert_serves(&Target::Tcp(SocketAddr::from(([127, 0, 0, 1], port))));
        assert_serves(&Target::Tcp(SocketAddr::from((Ipv6Addr::LOCALHOST, port))));
        assert_eq!(server.addresses().len(), 1, "{forms:?}");
    }
}

#[test]
fn nothing_of_a_socket_that_is_not_ours_is_changed_or_removed() {
    let builder =
        Server::builtin().with_fifo().args(["--vacuum", "--chmod-socket=600", "--chown-socket=65534"]);
    let path = builder.path("theirs.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let mut server =
        passing(builder, "web", [listener.into()]).arg(format!("--http={}", path.display())).start();
    server.reload();
    assert_serves(&Target::Unix(path.clone()));
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!((before.ino(), before.mode(), before.uid()), (after.ino(), after.mode(), after.uid()));
    assert_ne!(mode(&path), 0o600);
}

#[test]
fn a_socket_that_nobody_claims_is_refused_with_what_to_write() {
    let ((one, first), (two, second)) = (loopback(), loopback());
    let builder = passing(Server::builtin(), "web:admin", [one, two]).arg("--http=fd:web");
    let log = refused(builder);
    let second = address(&second);
    assert!(
        log.contains(&format!("the socket {second} was passed by systemd as descriptor 4, named \"admin\"")),
        "{log}"
    );
    assert!(log.contains(&format!("write http = {second} or http = fd:admin")), "{log}");
    assert!(!log.contains(&format!("the socket {}", address(&first))), "{log}");
}

#[test]
fn a_name_that_no_socket_has_is_refused_with_those_there_are() {
    let (socket, _) = loopback();
    let log = refused(passing(Server::builtin(), "app.socket", [socket]).arg("--http=fd:web"));
    assert!(
        log.contains("cannot use fd:web: the service manager has passed no socket of that name"),
        "{log}"
    );
    assert!(log.contains("there is app.socket"), "{log}");
    let log = refused(Server::builtin().without_listener().arg("--http=fd:web"));
    assert!(log.contains("no service manager has passed a socket; start the .socket unit"), "{log}");
}

#[test]
fn what_nobody_can_connect_to_is_refused() {
    let (_keep, target) = loopback();
    let connection = TcpStream::connect(address(&target)).unwrap();
    let bound = UdpSocket::bind("127.0.0.1:0").unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    for (fd, reason) in [
        (connection.into(), "is a connection and not a socket that listens"),
        (OwnedFd::from(bound), "is not a stream socket"),
        (OwnedFd::from(file), "is not a socket"),
    ] {
        let log = refused(passing(Server::builtin(), "odd", [fd]));
        assert!(log.contains("descriptor 3, which systemd has passed under the name \"odd\""), "{log}");
        assert!(log.contains(reason) && log.contains("Accept=no"), "{log}");
    }
}

#[test]
fn sockets_of_another_process_are_told_and_not_used() {
    let (socket, _) = loopback();
    let builder = Server::builtin().on_unix_socket("app.sock").env("LISTEN_FDS", "1").env("LISTEN_PID", "1");
    let server = builder.descriptor(3, socket).start();
    server.wait_for_log("the sockets of LISTEN_FDS are for process 1 and this is ");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_reload_may_give_a_socket_up_and_take_it_again() {
    let ((one, first), (two, second)) = (loopback(), loopback());
    let both = "[uwsgi]\nhttp = fd:one\nhttp = fd:two\n";
    let builder = passing(Server::app().with_fifo().file("app.ini", both), "one:two", [one, two]);
    let server = builder.args(["--ini", "app.ini"]).start();
    assert_serves(&second);

    server.file("app.ini", format!("[uwsgi]\nhttp = {}\n", address(&first)));
    server.reload();
    server.wait_for_log(&format!("no longer listening on {}", address(&second)));
    assert_serves(&first);
    // It listens still, as the manager's copy does: who comes waits.
    let mut patient = Connection::open(&second, LIMIT).expect("nobody is refused");
    server.reload();
    assert_eq!(server.log().lines().iter().filter(|line| line.contains("no longer listening")).count(), 1);

    server.file("app.ini", both);
    server.reload();
    assert_serves(&first);
    patient.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(patient.receive(false).unwrap().status, 200);
    assert_serves(&second);
}

#[test]
fn a_reload_that_is_refused_keeps_the_sockets() {
    let (socket, target) = loopback();
    let server = passing(Server::app().with_fifo(), "web", [socket]).start();
    server.set_settings(json!({ "load": "fail" }));
    server.fifo("r");
    server.wait_for_log("reload 1 refused");
    assert_serves(&target);
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    assert_eq!(get(&target, "/").text(), "hello v2\n");
}

#[test]
fn listeners_of_our_own_are_stored_once_under_their_address() {
    let builder =
        Server::app().without_listener().with_fifo().args(["--http=127.0.0.1:0", "--http=app.sock"]);
    let notify = NotifySocket::at(&builder.path("notify"));
    let (name, path) = (notify.name.clone(), builder.path("app.sock"));
    let server = builder.env("NOTIFY_SOCKET", name).env("FDSTORE", "4").start();
    let inode = std::fs::metadata(&path).unwrap();
    let port = server.addresses()[0].rsplit_once(':').unwrap().1.to_owned();
    let names = [
        format!("FDNAME=appserver/127.0.0.1%3A{port}"),
        format!("FDNAME=appserver/{};{}.{}", path.display(), inode.dev(), inode.ino()),
    ];
    for name in names {
        assert_eq!(notify.next(), ["FDSTORE=1".to_owned(), name, "FDPOLL=0".to_owned()]);
    }
    server.reload();
    let mut told = notify.until("READY=1");
    told.extend(notify.until("READY=1"));
    assert!(!told.iter().flatten().any(|line| line.starts_with("FDSTORE")), "{told:#?}");
}

/// Passes this socket as inetd does, but for the log.
fn on_stdin(builder: Builder, socket: OwnedFd) -> Builder {
    builder.without_listener().descriptor(9, socket).through(["sh", "-c", "exec \"$0\" \"$@\" <&9 9<&-"])
}

#[test]
fn a_listening_socket_on_standard_input_is_served() {
    let (socket, target) = loopback();
    let server = on_stdin(Server::app().with_fifo(), socket).start();
    for _ in 0..2 {
        assert_serves(&target);
        for process in server.workers().iter().map(|worker| worker.pid).chain([server.pid()]) {
            let stdin = std::fs::read_link(format!("/proc/{process}/fd/0")).unwrap();
            assert_eq!(stdin, Path::new("/dev/null"), "no application reads from it");
        }
        server.reload();
    }
    for by_name in [true, false] {
        let (socket, target) = loopback();
        let wanted = if by_name { "fd:stdin".to_owned() } else { address(&target).to_string() };
        let _server = on_stdin(Server::builtin().arg(format!("--http={wanted}")), socket).start();
        assert_serves(&target);
    }
}

#[test]
fn standard_input_is_refused_or_left_alone_when_another_address_is_configured() {
    let (socket, _) = loopback();
    let log = refused(on_stdin(Server::builtin(), socket).arg("--http=app.sock"));
    assert!(log.contains("is standard input, as inetd does it, and no option claims it"), "{log}");
    assert!(log.contains("or set skip-zero"), "{log}");
    let (socket, _) = loopback();
    let server = on_stdin(Server::builtin().on_unix_socket("app.sock"), socket).arg("--skip-zero").start();
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_fallback_configuration_has_the_sockets_too() {
    let (socket, target) = loopback();
    let builder = Server::app().file("good.ini", "[uwsgi]\nhttp = fd:web\n").file(
        "bad.ini",
        "[uwsgi]\nfallback-config = good.ini\nhttp = fd:web\nhttp = missing/directory/sock\n",
    );
    let _server = passing(builder, "web", [socket]).args(["--ini", "bad.ini"]).start();
    assert_serves(&target);
}

#[test]
fn the_service_in_the_background_has_the_sockets() {
    let (socket, target) = loopback();
    let builder = passing(Server::builtin(), "web", [socket]);
    let mut starter = builder.args(["--daemonize2=log", "--pidfile=pid"]).spawn();
    assert_eq!(starter.wait_exit(LIMIT).code(), Some(0));
    let _daemon = Daemon::of(&starter, "pid");
    assert_serves(&target);
}
