//! Stopping: at once or after the requests in flight, and nothing is left behind.

use nix::sys::signal::Signal;

use crate::support::{Failure, LIMIT, Server};

fn start() -> Server {
    Server::app().args(["--master", "--processes=2", "--threads=4"]).with_fifo().start()
}

/// Sends a request that takes `ms`, and returns once a worker runs it.
fn in_flight(server: &Server, ms: u32) -> crate::support::Connection {
    let mut connection = server.connect();
    // The first piece of the body proves that the request is being worked on.
    let request = format!("GET /stream?chunks=2&ms={ms}&size=10 HTTP/1.1\r\nHost: test\r\n\r\n");
    connection.send(request.as_bytes()).unwrap();
    connection.receive_status().unwrap();
    connection
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
    let mut slow = in_flight(&server, 300);
    server.fifo("q");
    let body = slow.receive_chunks().unwrap();
    assert!(body.ends_with(b"end\n"), "cut: {}", body.escape_ascii());
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_brutal_stop_waits_for_nobody() {
    let mut server = start();
    let mut slow = in_flight(&server, 60_000);
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
    crate::support::eventually("the next zygote is there", LIMIT, || {
        (server.children().len() > children).then_some(())
    });
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}
