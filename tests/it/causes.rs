//! Log, status and counters tell why each worker has ended.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::processes::kill;
use crate::support::server::Builder;
use crate::support::{LIMIT, Server, eventually};

fn workers(count: u32) -> Builder {
    Server::app().args(["--master", "--pidfile=pid"]).arg(format!("--processes={count}"))
}

fn status(server: &Server) -> String {
    let output = server.command(["--status", "pid"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Waits until the status has a line that begins and ends so, or contains `end` behind the beginning.
fn wait_status(server: &Server, begin: &str, text: &str) -> String {
    eventually(&format!("a line {begin:?} with {text:?}"), LIMIT, || {
        let status = status(server);
        status.lines().find(|line| line.starts_with(begin) && line.contains(text)).map(str::to_owned)
    })
}

#[test]
fn the_status_tells_how_the_last_worker_of_a_slot_ended() {
    let server = workers(1).start();
    assert!(!status(&server).contains("before it"), "nobody was");
    for (path, respawns, how) in [
        ("/abort", 1, "crash (SIGABRT"),
        ("/kill9", 2, "signal (SIGKILL)"),
        ("/exit?code=101", 3, "exit (code 101: a panic in Rust code)"),
        ("/exit?code=7", 4, "exit (code 7)"),
    ] {
        let mark = server.log().mark();
        // The request dies with its worker; that is the point.
        let _ = server.client().get(path);
        let line = server.wait_for_log_after(mark, "DAMN ! worker 1 ");
        assert!(line.contains(&format!(" :( trying respawn ... ({how}")), "{line}");
        let line = wait_status(&server, "worker 1 (", how);
        assert!(line.contains(&format!("before it: {how}")), "{line}");
        assert!(line.contains(" s ago, ") && line.contains(&format!(", {respawns} respawns")), "{line}");
    }
    wait_status(&server, "workers ended: ", "crash 1, signal 1, exit 2");
    // It survives the image that has seen it.
    server.reload();
    wait_status(&server, "workers ended: ", "reload 1, crash 1, signal 1, exit 2");
    wait_status(&server, "worker 1 (", "before it: reload ");
}

#[test]
fn who_was_asked_to_leave_is_no_accident() {
    let server = workers(1).start();
    for signal in [Signal::SIGTERM, Signal::SIGHUP] {
        // It hears of signals only once it serves.
        assert_eq!(server.get("/").text(), "hello v1\n");
        let before = server.workers()[0].pid;
        kill(before, signal);
        server.wait_workers("another one", |workers| workers.len() == 1 && workers[0].pid != before);
    }
    wait_status(&server, "workers ended: ", "asked 2");
    wait_status(&server, "worker 1 (", "before it: asked ");
    assert!(server.log().lines().iter().all(|line| !line.contains("DAMN")), "nobody has died");
}

#[test]
fn an_application_that_does_not_load_in_a_worker_is_told_as_uwsgi_tells_it() {
    let server = workers(2).arg("--lazy-apps").start();
    server.set_settings(json!({ "load": "fail" }));
    let victim = server.workers()[0];
    kill(victim.pid, Signal::SIGKILL);
    let line = server.wait_for_log("OOPS ! failed loading app in worker 1 (pid: ");
    assert!(
        line.contains(":( trying again... no application: the test application was told to fail"),
        "{line}"
    );
    let line = wait_status(&server, "worker 1 is degraded: ", " times in a row");
    assert!(line.contains("last by load-failed: no application: the test application"), "{line}");
    assert_eq!(server.get("/").text(), "hello v1\n", "the other one serves");
    server.set_settings(json!({}));
    server.wait_workers("it is back", |workers| workers.len() == 2);
    eventually("nothing is degraded", LIMIT, || (!status(&server).contains("degraded")).then_some(()));
}

#[test]
fn a_worker_that_is_not_ready_in_time_says_so() {
    let server = workers(2).arg("--boot-timeout=1s").start();
    server.set_settings(json!({ "worker_start": "hang" }));
    server.signal(Signal::SIGHUP);
    server.wait_for_log(" refused: worker ");
    let counted = wait_status(&server, "workers ended: ", "boot-timeout ");
    wait_status(&server, "reloads refused 1, replacements failed 0", "");
    let line = server.wait_for_log("was not ready within 1 s (boot-timeout)");
    assert!(!counted.contains("signal"), "{counted}: {line}");
}

#[test]
fn statistics_and_worker_status_in_the_log_tell_the_same() {
    let server = workers(2).start();
    let victim = server.workers()[1];
    let mark = server.log().mark();
    kill(victim.pid, Signal::SIGABRT);
    server.wait_for_log_after(mark, "Respawned appserver worker 2 ");
    server.signal(Signal::SIGUSR1);
    server.wait_for_log_after(mark, "workers ended: crash 1; reloads refused 0, replacements failed 0");
    server.signal(Signal::SIGUSR2);
    server.wait_for_log_after(mark, "before it: crash (SIGABRT");
}
