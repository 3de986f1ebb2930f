//! Stopping: at once or after the requests in flight, and nothing is left behind.

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::support::{Failure, LIMIT, Server, eventually};

fn start() -> Server {
    Server::app().args(["--master", "--processes=2", "--threads=4"]).with_fifo().start()
}

#[test]
fn signals_stop_the_server_and_it_says_goodbye() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = start();
        server.signal(signal);
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0), "{signal}");
        server.wait_for_log("goodbye to appserver.");
    }
}

#[test]
fn term_stops_when_asked_to() {
    let mut server = Server::app().args(["--master", "--die-on-term"]).start();
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    server.wait_for_log("goodbye to appserver.");
}

#[test]
fn a_graceful_stop_finishes_what_is_in_flight() {
    let mut server = start();
    let mut slow = server.in_flight(300);
    server.fifo("q");
    let body = slow.receive_chunks().unwrap();
    assert!(body.ends_with(b"end\n"), "cut: {}", body.escape_ascii());
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_brutal_stop_waits_for_nobody() {
    let mut server = start();
    let mut slow = server.in_flight(60_000);
    server.fifo("Q");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    let cut = slow.receive_chunks().unwrap_err();
    assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{cut:?}");
}

#[test]
fn the_application_may_ask_for_a_stop() {
    let mut server = start();
    let _ = server.client().get("/stop");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_stopped_server_refuses_connections() {
    let mut server = start();
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    assert_eq!(server.client().get("/").unwrap_err(), Failure::Refused);
}

#[test]
fn workers_follow_a_master_that_was_killed() {
    let mut server = start();
    let workers = server.workers();
    server.signal(Signal::SIGKILL);
    server.wait_exit(LIMIT);
    for worker in workers {
        assert!(!crate::support::processes::is_alive(worker.pid), "{worker:?} outlived its master");
    }
}

#[test]
fn a_stop_during_a_reload_stops_both_generations() {
    let mut server = start();
    server.set_settings(serde_json::json!({ "load": "hang" }));
    let children = server.children().len();
    server.signal(Signal::SIGHUP);
    eventually("the next zygote is there", LIMIT, || (server.children().len() > children).then_some(()));
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn control_c_at_a_terminal_finishes_what_is_in_flight() {
    let mut server = start();
    let mut slow = server.in_flight(300);
    // The terminal signals the whole foreground group: master, zygote and workers.
    killpg(Pid::from_raw(server.pid().cast_signed()), Signal::SIGINT).unwrap();
    let body = slow.receive_chunks().unwrap();
    assert!(body.ends_with(b"end\n"), "cut: {}", body.escape_ascii());
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_second_stop_cuts_the_patience_short() {
    for signal in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = start();
        let mut slow = server.in_flight(60_000);
        server.signal(signal);
        server.wait_for_log("graceful shutdown triggered");
        server.signal(signal);
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0), "{signal}");
        assert!(slow.receive_chunks().is_err());
    }
}

#[test]
fn no_orphans_lets_no_worker_outlive_its_master() {
    let mut server = Server::app().args(["--master", "--processes=2", "--no-orphans"]).start();
    let mut slow = server.in_flight(60_000);
    server.signal(Signal::SIGKILL);
    // At once, although a request is in flight: that is what was asked for.
    server.wait_exit(LIMIT);
    assert!(matches!(slow.receive_chunks().unwrap_err(), Failure::Truncated | Failure::Reset));
}

#[test]
fn without_no_orphans_workers_finish_their_requests_first() {
    let mut server = start();
    let mut slow = server.in_flight(400);
    server.signal(Signal::SIGKILL);
    let body = slow.receive_chunks().unwrap();
    assert!(body.ends_with(b"end\n"), "cut: {}", body.escape_ascii());
    server.wait_exit(LIMIT);
}

#[test]
fn a_worker_stuck_in_its_application_goes_with_its_master() {
    let args = ["--master", "--worker-reload-mercy=200ms", "--pidfile=pid"];
    let mut server = Server::app().args(args).start();
    let mut stuck = server.connect();
    stuck.send(b"GET /spin?ms=60000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    eventually("the worker computes", LIMIT, || {
        let status = server.command(["--status", "pid"]).stdout;
        memchr::memmem::find(&status, b" 1 in flight, busy for ").map(|_| ())
    });
    server.signal(Signal::SIGKILL);
    server.wait_exit(LIMIT);
}

#[test]
fn the_mercy_is_what_was_asked_for() {
    let mut server = Server::app().args(["--master", "--worker-reload-mercy=200ms"]).start();
    let mut slow = server.in_flight(60_000);
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    assert!(slow.receive_chunks().is_err());
}
