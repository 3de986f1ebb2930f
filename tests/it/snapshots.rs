//! Snapshots: what stays in memory after a reload, and for how long.

use std::fs;

use nix::sys::signal::Signal;

use crate::rollback::{builder, configured, deploy, rollback, wait_zygotes, zygote};
use crate::support::processes::{is_alive, kill};
use crate::support::{LIMIT, Server, eventually};

/// How often a process has been switched to or from: what sleeps is not.
fn switches(pid: u32) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    text.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect()
}

#[test]
fn snapshots_sleep_until_they_are_dropped_or_die_or_the_server_stops() {
    let mut server = builder().start();
    let first = zygote(&server, 1);
    deploy(&server, "v2");
    deploy(&server, "v3");
    wait_zygotes(&server, 3);
    let before = switches(first);
    for _ in 0..50 {
        server.get("/");
    }
    let (second, third) = (zygote(&server, 2), zygote(&server, 3));
    assert_eq!(switches(first), before, "it was woken up");
    deploy(&server, "v4");
    server.wait_for_log("snapshot of generation 1 is dropped: there are newer ones (snapshots = 2)");
    eventually("it is gone", LIMIT, || (!is_alive(first)).then_some(()));

    kill(third, Signal::SIGKILL);
    server.wait_for_log("snapshot of generation 3 is lost: the zygote ended with signal 9 (SIGKILL)");
    assert!(is_alive(second));
    let (code, lines, _) = rollback(&server);
    assert!(code == Some(0) && lines.last().unwrap().contains("generation 2 serves"), "{lines:?}");
    deploy(&server, "v5");
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_snapshot_that_listens_where_nobody_does_any_more_is_dropped() {
    let server = Server::builtin()
        .without_listener()
        .file("app.ini", configured("http = a.sock\nhttp = b.sock\n"))
        .args(["--ini", "app.ini"])
        .start();
    server.reload();
    server.file("app.ini", configured("http = a.sock\n"));
    server.reload();
    for generation in 1..=2 {
        let text = format!(
            "snapshot of generation {generation} is dropped: it listens on b.sock, which is no longer"
        );
        server.wait_for_log(&text);
    }
    wait_zygotes(&server, 1);
    let (code, _, errors) = rollback(&server);
    assert!(code == Some(1) && errors.contains("no snapshot is left"), "{errors}");
}

#[test]
fn snapshots_that_take_too_much_memory_are_dropped() {
    let server = builder().arg("--snapshot-memory=1").start();
    deploy(&server, "v2");
    let line = server.wait_for_log("snapshot of generation 1 is dropped: all together have ");
    assert!(line.contains("(snapshot-memory = 0.0 MiB)"), "{line}");
    wait_zygotes(&server, 1);
}

#[test]
fn without_snapshots_a_rollback_says_what_to_configure() {
    let server = Server::app().args(["--master", "--pidfile=pid"]).start();
    server.reload();
    let (code, _, errors) = rollback(&server);
    assert!(code == Some(1) && errors.contains("set snapshots = 1 or more"), "{errors}");
    assert_eq!(wait_zygotes(&server, 1).len(), 1);
}
