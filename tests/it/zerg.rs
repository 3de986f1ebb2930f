//! The "zerg dance": instances of one application on one socket that swap roles, each started with the
//! same shipped file.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::shipped_config::shipped;
use crate::support::http::{Client, Target, get};
use crate::support::load::{Load, LoadSpec};
use crate::support::{LIMIT, Server, eventually};

/// What the instances share.
struct Stage {
    listener: TcpListener,
    directory: TempDir,
}

impl Stage {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Stage { listener, directory: tempfile::Builder::new().prefix("it-").tempdir().unwrap() }
    }

    fn target(&self) -> Target {
        Target::Tcp(self.listener.local_addr().unwrap())
    }

    fn path(&self, fifo: &str) -> String {
        self.directory.path().join(format!("{fifo}.fifo")).display().to_string()
    }

    /// Starts the next instance and waits until it is the one that runs.
    fn enter(&self, version: &str) -> Server {
        let here = format!("{}/", self.directory.path().display());
        let server = Server::app()
            .file("zerg-dance.ini", shipped("zerg-dance.ini").replace("/run/appserver/", &here))
            .arg("zerg-dance.ini")
            .settings(json!({ "version": version }))
            .without_listener()
            .descriptor(3, self.listener.try_clone().unwrap())
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
