//! The listen queue: how many clients wait is told, and the log is warned when no more may.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::log::Mark;
use crate::support::processes::kill;
use crate::support::server::Builder;
use crate::support::{Connection, LIMIT, Server, eventually};

/// One worker with one slot, and room for four clients that wait.
fn narrow() -> Builder {
    Server::app().args(["--processes=1", "--listen=4", "--pidfile=pid", "--check-interval=50ms"])
}

fn on_tcp() -> Server {
    let mut server = narrow().without_listener().arg("--http=127.0.0.1:0").start();
    let address = server.addresses()[0].parse().expect("an address");
    server.set_address(address);
    server
}

/// What `--status` says of the only queue.
fn queue(server: &Server) -> String {
    let status = String::from_utf8(server.command(["--status", "pid"]).stdout).unwrap();
    let line = status.lines().find(|line| line.starts_with("listen queue of socket "));
    line.unwrap_or_else(|| panic!("{status}")).to_owned()
}

/// Ends a request that would take a minute, and its worker; the next one finds the clients.
fn end(server: &Server, request: Connection) {
    drop(request);
    kill(server.workers()[0].pid, Signal::SIGKILL);
}

/// Lets this many clients wait behind a request, and looks how many of them are told of.
fn clients_wait_and_are_counted(server: &Server, limit: u32) {
    let address = server.addresses()[0].clone();
    let told = |count: u32| format!("listen queue of socket \"{address}\": {count}/{limit}");
    assert_eq!(queue(server), told(0));
    let busy = server.in_flight(60_000);
    let waiting: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    eventually("three clients wait", LIMIT, || (queue(server) == told(3)).then_some(()));
    let mark = server.log().mark();
    server.signal(Signal::SIGUSR1);
    server.wait_for_log_after(mark, &told(3));

    // Fills it: the kernel lets one more in.
    let more: Vec<Connection> = (3..=limit).map(|_| server.connect()).collect();
    let full = format!("*** appserver listen queue of socket \"{address}\" (fd: ");
    let line = server.wait_for_log(&full);
    assert!(line.contains(&format!(") full !!! ({}/{limit}) ***", limit + 1)), "{line}");
    // Told once, not at each look.
    let looks = server.log().mark();
    eventually("the master has looked again", LIMIT, || {
        server.signal(Signal::SIGUSR1);
        server
            .log()
            .wait_for(looks, Duration::from_millis(200), |line| line.contains("workers total"))
            .and(Some(()))
    });
    let lines = server.log().lines();
    assert_eq!(lines.iter().filter(|line| line.contains(&full)).count(), 1, "{lines:#?}");

    drop((waiting, more));
    end(server, busy);
    server.wait_for_log(&format!("listen queue of socket \"{address}\" is no longer full"));
    eventually("nobody waits", LIMIT, || (queue(server) == told(0)).then_some(()));
}

#[test]
fn clients_that_wait_on_tcp_are_counted_and_a_full_queue_is_told() {
    clients_wait_and_are_counted(&on_tcp(), 4);
}

#[test]
fn clients_that_wait_on_a_unix_socket_are_counted_and_a_full_queue_is_told() {
    clients_wait_and_are_counted(&narrow().on_unix_socket("app.sock").start(), 4);
}

#[test]
fn a_master_without_requests_sleeps_and_wakes_for_the_next_one() {
    let server = on_tcp();
    // Twice: it is told of the next request each time that it falls asleep.
    for round in 0..2 {
        server.get("/");
        eventually("the master sleeps", LIMIT, || {
            server.sleeps_for(Duration::from_millis(500)).then_some(())
        });
        let mark = if round == 0 { Mark::START } else { server.log().mark() };
        let busy = server.in_flight(60_000);
        let waiting: Vec<Connection> = (0..5).map(|_| server.connect()).collect();
        server.wait_for_log_after(mark, " full !!! (5/4) ***");
        drop(waiting);
        end(&server, busy);
        server.wait_for_log_after(mark, " is no longer full");
    }
}
