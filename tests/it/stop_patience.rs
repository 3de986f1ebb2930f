//! A stop waits for requests in flight, and for less each time it is asked for.

use nix::sys::signal::Signal;

use crate::support::server::Builder;
use crate::support::{Connection, Exchange, Failure, LIMIT, Server};

fn builder() -> Builder {
    Server::app().args(["--master", "--processes=2", "--threads=4"])
}

/// A request that takes longer than any test, begun.
fn endless(server: &Server) -> Connection {
    let mut connection = server.connect();
    connection.send(b"GET /stream?chunks=1000&ms=1000&size=10 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    connection.receive_status().unwrap();
    connection
}

/// A request that computes for longer than any test: its worker hears nothing more.
fn stuck(server: &Server) -> Connection {
    let mut connection = server.connect();
    connection.send(b"GET /spin?ms=60000 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    server.wait_begun("/spin?ms=60000");
    connection
}

#[test]
fn every_graceful_stop_finishes_what_is_in_flight() {
    let plain: &[Signal] = &[Signal::SIGINT, Signal::SIGQUIT];
    let swapped: &[Signal] = &[Signal::SIGINT, Signal::SIGTERM];
    for (arguments, signals) in [(&[][..], plain), (&["--die-on-term"][..], swapped)] {
        for signal in signals {
            let mut server = builder().args(arguments.iter().copied()).start();
            let (stream, upload) = (Exchange::stream(server.target()), Exchange::upload(server.target()));
            server.signal(*signal);
            server.wait_for_log("graceful shutdown triggered");
            stream.finish().unwrap_or_else(|failure| panic!("{signal} {arguments:?}: {failure:?}"));
            upload.finish().unwrap_or_else(|failure| panic!("{signal} {arguments:?}: {failure:?}"));
            assert_eq!(server.wait_exit(LIMIT).code(), Some(0), "{signal} {arguments:?}");
        }
    }
}

#[test]
fn a_second_stop_cuts_what_the_first_waits_for() {
    for second in [Signal::SIGINT, Signal::SIGQUIT] {
        let mut server = builder().start();
        let mut slow = endless(&server);
        server.signal(Signal::SIGINT);
        server.wait_for_log("graceful shutdown triggered");
        server.signal(second);
        server.wait_for_log("asked to stop again: requests in flight are cut");
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0), "{second}");
        let cut = slow.receive_chunks().unwrap_err();
        assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{cut:?}");
    }
}

#[test]
fn a_worker_stuck_in_a_request_is_killed_by_a_second_stop() {
    let mut server = builder().start();
    let _stuck = stuck(&server);
    server.signal(Signal::SIGINT);
    server.wait_for_log("graceful shutdown triggered");
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn mercy_ends() {
    let mut server = builder().arg("--worker-reload-mercy=1s").start();
    let _slow = endless(&server);
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn mercy_ends_in_a_reload_too() {
    let server = builder().arg("--worker-reload-mercy=1s").start();
    let mut slow = endless(&server);
    let _stuck = stuck(&server);
    let old = server.workers();
    server.reload();
    server.wait_workers("the old ones are gone", |all| all.iter().all(|worker| !old.contains(worker)));
    let cut = slow.receive_chunks().unwrap_err();
    assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{cut:?}");
    server.wait_for_log("NO MERCY !!!");
}
