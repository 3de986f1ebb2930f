//! Lent sockets, and the "zerg dance": instances of one application on the sockets of a pool that swap
//! roles, each started with the same shipped file.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use appserver::config::ListenSpec;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::shipped_config::{shipped, with_ini};
use crate::support::http::{Client, Target, get};
use crate::support::load::{Load, LoadSpec};
use crate::support::{LIMIT, Server, eventually};

/// What the instances share: a directory, and a pool in it.
struct Stage {
    pool: Server,
    address: SocketAddr,
}

impl Stage {
    fn new() -> Self {
        let pool = with_ini(Server::app(), "zerg-pool.ini", &[(":127.0.0.1:8080", ":127.0.0.1:0")]).start();
        // The door says what it lends as the kernel knows it.
        let lent = borrow(&pool.path("pool.sock"));
        let address = TcpListener::from(lent.into_iter().next().unwrap()).local_addr().unwrap();
        Stage { pool, address }
    }

    fn target(&self) -> Target {
        Target::Tcp(self.address)
    }

    fn path(&self, fifo: &str) -> String {
        self.pool.path(&format!("{fifo}.fifo")).display().to_string()
    }

    /// Starts the next instance and waits until it is the one that runs.
    fn enter(&self, version: &str) -> Server {
        let here = self.pool.path("").display().to_string();
        let server = Server::app()
            .file("zerg-dance.ini", shipped("zerg-dance.ini").replace("/run/appserver/", &here))
            .arg("zerg-dance.ini")
            .settings(json!({ "version": version }))
            .without_listener()
            .start();
        self.wait_role(&server, "running");
        server
    }

    fn wait_role(&self, server: &Server, role: &str) {
        let last = format!("active master fifo is now {}", self.path(role));
        eventually(&format!("it is the one that is {role}"), LIMIT, || {
            let lines = server.log().lines();
            let switch = lines.iter().rfind(|line| line.contains("active master fifo is now"))?;
            switch.contains(&last).then_some(())
        });
    }

    fn wait_asleep(&self, server: &Server) {
        self.wait_role(server, "sleeping");
        server.wait_for_log("*** PAUSE");
    }

    fn write(&self, fifo: &str, letters: &str) {
        let opened = OpenOptions::new().write(true).open(Path::new(&self.path(fifo)));
        opened.unwrap().write_all(letters.as_bytes()).unwrap();
    }

    fn wait_serves(&self, version: &str) {
        eventually(&format!("{version} serves"), LIMIT, || {
            (get(&self.target(), "/").text() == format!("hello {version}\n")).then_some(())
        });
    }
}

/// Takes the sockets that are lent at this door.
fn borrow(door: &Path) -> Vec<OwnedFd> {
    let spec = ListenSpec { address: door.display().to_string(), origin: "test".to_owned() };
    appserver::net::zerg::borrow(&spec).unwrap()
}

#[test]
fn instances_swap_roles_and_nobody_notices() {
    let stage = Stage::new();
    let first = stage.enter("v1");
    let load = Load::start(&stage.target(), &LoadSpec { keep_alive: 0, fresh: 4, ..LoadSpec::gets() });
    load.wait_for(50);
    let mut kept = Client::new(&stage.target(), LIMIT);
    assert_eq!(kept.get("/").unwrap().text(), "hello v1\n");

    let second = stage.enter("v2");
    stage.wait_asleep(&first);
    stage.wait_serves("v2");
    assert_eq!(
        kept.get("/").unwrap().text(),
        "hello v1\n",
        "who is connected is served by the one that sleeps"
    );
    drop(kept);
    load.wait_for(50);

    let mut first = first;
    let mut third = stage.enter("v3");
    assert_eq!(first.wait_exit(LIMIT).code(), Some(0), "what slept leaves");
    stage.wait_asleep(&second);
    stage.wait_serves("v3");
    load.wait_for(50);

    // The release before is back.
    stage.write("sleeping", "p1");
    stage.wait_role(&second, "running");
    // It reads the same FIFO as the other by now, so the other is asked otherwise.
    third.signal(Signal::SIGINT);
    assert_eq!(third.wait_exit(LIMIT).code(), Some(0));
    stage.wait_serves("v2");
    load.wait_for(50);

    // A reload keeps the role, and does not send itself to sleep.
    second.set_settings(json!({ "version": "v4" }));
    second.reload();
    stage.wait_serves("v4");
    stage.wait_role(&second, "running");
    load.wait_for(50);
    load.stop().assert_nothing_lost();
    let mark = second.log().mark();
    stage.write("running", "s");
    second.wait_for_log_after(mark, "workers total requests");
}

#[test]
fn the_release_before_is_back_when_the_new_one_was_asked_to_leave() {
    let stage = Stage::new();
    let first = stage.enter("v1");
    let mut second = stage.enter("v2");
    stage.wait_asleep(&first);
    let load = Load::start(&stage.target(), &LoadSpec { keep_alive: 0, fresh: 4, ..LoadSpec::gets() });
    load.wait_for(50);
    stage.write("running", "q");
    assert_eq!(second.wait_exit(LIMIT).code(), Some(0));
    stage.write("sleeping", "p1");
    stage.wait_serves("v1");
    stage.wait_role(&first, "running");
    load.wait_for(50);
    load.stop().assert_nothing_lost();
}

#[test]
fn a_server_lends_the_sockets_it_serves_on() {
    let mut first = Server::app().args(["--master", "--zerg-server=door", "--vacuum"]).start();
    let target = first.target().clone();
    let door = first.path("door").display().to_string();
    let mut second = Server::app()
        .settings(json!({ "version": "v2" }))
        .without_listener()
        .args(["--master".to_owned(), format!("--zerg={door}"), "--processes=2".to_owned()])
        .start();
    let load = Load::start(&target, &LoadSpec::gets());
    load.wait_for(50);
    // The door stays open over reloads of one, and the sockets are kept over those of the other.
    first.reload();
    assert_eq!(borrow(&first.path("door")).len(), 1);
    let mut message = Vec::new();
    UnixStream::connect(first.path("door")).unwrap().read_to_end(&mut message).unwrap();
    assert_eq!(message, *b"uwsgi-zerg\x01\0\0\0", "as uWSGI does on this machine's kind");
    second.reload();
    load.wait_for(50);
    assert_eq!(load.stop().failed.len(), 0);
    first.signal(Signal::SIGINT);
    assert_eq!(first.wait_exit(LIMIT).code(), Some(0));
    assert!(!first.path("door").exists());
    assert_eq!(get(&target, "/").text(), "hello v2\n");
    second.reload();
    assert_eq!(get(&target, "/").text(), "hello v2\n");
    second.signal(Signal::SIGINT);
    assert_eq!(second.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn without_a_zerg_server_there_is_an_error_or_a_fallback() {
    let mut server = Server::app().without_listener().arg("--zerg=nowhere").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("cannot take the sockets of the zerg server nowhere: No such file");
    let server = Server::app().args(["--zerg=nowhere", "--zerg-fallback"]).start();
    assert_eq!(server.get("/").text(), "hello v1\n");
    server.reload();
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_pool_keeps_its_sockets_over_a_reload_and_leaves_nothing() {
    let mut stage = Stage::new();
    assert_eq!(stage.pool.workers(), []);
    stage.pool.reload();
    let lent = borrow(&stage.pool.path("pool.sock"));
    assert_eq!(TcpListener::from(lent.into_iter().next().unwrap()).local_addr().unwrap(), stage.address);
    // Another address, and one that cannot be had: what is there stays.
    let ini = std::fs::read_to_string(stage.pool.path("zerg-pool.ini")).unwrap();
    stage.pool.file("zerg-pool.ini", ini.replace(":127.0.0.1:0", ":127.0.0.1:0,127.0.0.2:0,192.0.2.1:9"));
    stage.pool.reload();
    stage.pool.wait_for_log("zerg-pool: cannot bind 192.0.2.1:9");
    assert_eq!(borrow(&stage.pool.path("pool.sock")).len(), 2);
    stage.pool.signal(Signal::SIGINT);
    assert_eq!(stage.pool.wait_exit(LIMIT).code(), Some(0));
    assert!(!stage.pool.path("pool.sock").exists());
}
