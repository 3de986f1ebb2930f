//! The master FIFO: one letter, one command.

use crate::support::server::mode;
use crate::support::{LIMIT, Server, eventually};

fn start() -> Server {
    Server::app().args(["--master", "--processes=2"]).with_fifo().start()
}

#[test]
fn the_fifo_is_for_its_owner_only() {
    let server = start();
    assert_eq!(mode(&server.path("fifo")), 0o600);
}

#[test]
fn r_reloads_and_the_fifo_survives() {
    let server = start();
    for generation in 2..=4 {
        server.fifo("r");
        server.wait_reloaded(generation);
    }
}

#[test]
fn a_letter_that_means_nothing_is_warned_about() {
    let server = start();
    let mark = server.log().mark();
    server.fifo("z");
    let line = server.wait_for_log_after(mark, "WARN");
    assert!(line.contains('z'), "{line}");
    server.fifo("r");
    server.wait_reloaded(2);
}

#[test]
fn s_writes_statistics() {
    let server = start();
    let mark = server.log().mark();
    server.fifo("s");
    server.wait_for_log_after(mark, "requests");
}

#[test]
fn w_and_c_replace_the_workers_but_not_the_application() {
    for letter in ["w", "c"] {
        let server = start();
        let before = server.workers();
        server.set_settings(serde_json::json!({ "version": "v2" }));
        server.fifo(letter);
        server.wait_workers("all workers are new", |workers| {
            workers.len() == 2 && workers.iter().all(|worker| !before.contains(worker))
        });
        assert_eq!(server.get("/").text(), "hello v1\n", "{letter}");
    }
}

#[test]
fn minus_and_plus_change_the_number_of_workers() {
    let server = start();
    server.fifo("-");
    server.wait_workers("one worker runs", |workers| workers.len() == 1);
    assert_eq!(server.get("/").text(), "hello v1\n");
    server.fifo("-");
    server.wait_for_log("1 of 2 workers wanted: cannot change");
    server.fifo("+");
    server.wait_workers("two workers run", |workers| workers.len() == 2);
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn capital_p_writes_the_pidfile_again() {
    let server = Server::app().args(["--master", "--pidfile=pid"]).with_fifo().start();
    std::fs::remove_file(server.path("pid")).unwrap();
    server.fifo("P");
    eventually("the pidfile is back", LIMIT, || {
        let text = std::fs::read_to_string(server.path("pid")).ok()?;
        (text.trim() == server.pid().to_string()).then_some(())
    });
}

#[test]
fn l_reopens_the_log_in_every_process() {
    let server = Server::app().args(["--master", "--processes=2", "--logto=log"]).with_fifo().spawn();
    let log = server.path("log");
    let wait_for = |what: &str| {
        eventually(what, LIMIT, || std::fs::read_to_string(&log).ok()?.contains(what).then_some(()));
    };
    wait_for("ready: ");
    std::fs::rename(&log, server.path("log.1")).unwrap();
    server.fifo("l");
    eventually("the log is there again", LIMIT, || log.exists().then_some(()));
    let is_old = |pid: u32| {
        let descriptors = crate::support::processes::descriptors(pid);
        descriptors.values().any(|target| target.ends_with("log.1"))
    };
    eventually("nobody writes to the old file", LIMIT, || {
        let everyone = server.children().into_iter().chain([server.pid()]);
        (!everyone.into_iter().any(is_old)).then_some(())
    });
    server.get("/pid");
    wait_for("GET /pid");
}

#[test]
fn vacuum_removes_the_fifo() {
    for (vacuum, there) in [(true, false), (false, true)] {
        let builder = Server::app().arg("--master").with_fifo();
        let mut server = if vacuum { builder.arg("--vacuum").start() } else { builder.start() };
        server.fifo("q");
        server.wait_exit(LIMIT);
        assert_eq!(server.path("fifo").exists(), there, "vacuum: {vacuum}");
    }
}

#[test]
fn a_writer_that_comes_and_goes_does_not_wake_the_master_for_ever() {
    let server = start();
    server.fifo("");
    server.fifo("s");
    server.wait_for_log("requests");
    assert_eq!(server.get("/").text(), "hello v1\n");
}
