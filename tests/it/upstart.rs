//! Upstart, played by the test, as there is no package of it: the socket bridge, and `expect stop`.

use std::net::TcpListener;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::shipped_config::shipped;
use crate::support::server::Builder;
use crate::support::{LIMIT, Server, Target, eventually, get};

/// The environment of a job with `start on socket`.
fn job(builder: Builder) -> (Builder, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    let builder = builder.without_listener().descriptor(7, listener);
    (builder.env("UPSTART_JOB", "app").env("UPSTART_EVENTS", "socket").env("UPSTART_FDS", "7"), target)
}

/// Waits until the server has stopped itself, as Upstart does.
fn wait_stopped(server: &Server) {
    let pid = Pid::from_raw(server.pid().cast_signed());
    eventually("it stops itself", LIMIT, || {
        let flags = WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG;
        (waitpid(pid, Some(flags)).expect("it is our child") == WaitStatus::Stopped(pid, Signal::SIGSTOP))
            .then_some(())
    });
    kill(pid, Signal::SIGCONT).expect("it is our child");
}

#[test]
fn the_socket_of_the_bridge_is_served_and_kept_over_reloads() {
    let (builder, target) = job(Server::app().with_fifo().arg("--die-on-term"));
    let mut server = builder.start();
    for _ in 0..2 {
        assert_eq!(get(&target, "/").status, 200);
        server.reload();
    }
    for worker in server.workers() {
        let environment = std::fs::read_to_string(format!("/proc/{}/environ", worker.pid)).unwrap();
        assert!(
            !environment.contains("UPSTART_FDS") && environment.contains("UPSTART_JOB"),
            "{environment:?}"
        );
    }
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn with_expect_stop_the_server_stops_itself_once_when_it_serves() {
    let (builder, target) = job(Server::app().with_fifo().args(["--expect-stop", "--die-on-term"]));
    let mut server = builder.settings(serde_json::json!({ "load_ms": 200 })).spawn();
    wait_stopped(&server);
    // The workers serve already: Upstart says that the job runs when it has seen this.
    server.wait_ready();
    assert_eq!(get(&target, "/").status, 200);
    server.reload();
    assert_eq!(get(&target, "/").status, 200);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn without_upstart_nobody_is_there_to_wake_it_and_it_does_not_stop() {
    let server = Server::builtin().with_fifo().arg("--expect-stop").start();
    server.reload();
    assert_eq!(server.get("/").status, 200);
}

/// What Upstart runs: the `exec` of a job in `config/`, here on the address of the test bed.
fn shipped_job(file: &str) -> String {
    let text = shipped(file);
    assert!(text.contains("\nexpect stop\n"), "{file}");
    let line = text.lines().find_map(|line| line.strip_prefix("exec /usr/local/bin/appserver "));
    let line = line.expect("a job runs the server").replace(" --uid=www-data --gid=www-data", "");
    format!("#!/bin/sh -e\nexec \"$PROGRAM\" {}\n", line.replace("--http=127.0.0.1:8080", "\"$@\""))
}

/// Start, reload, stop, as Upstart goes about them.
fn supervise(mut server: Server, target: &Target) {
    wait_stopped(&server);
    server.wait_ready();
    assert_eq!(get(target, "/").text(), "hello v1\n");
    server.set_settings(serde_json::json!({ "version": "v2" }));
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    assert_eq!(get(target, "/").text(), "hello v2\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_shipped_jobs_start_reload_and_stop() {
    let script = shipped_job("upstart/appserver.conf");
    let server = Server::app().env("UPSTART_JOB", "appserver").wrapped_by(&script).spawn();
    let target = server.target().clone();
    supervise(server, &target);

    let (builder, target) = job(Server::app());
    supervise(builder.wrapped_by(&shipped_job("upstart/appserver-socket.conf")).spawn(), &target);
}
