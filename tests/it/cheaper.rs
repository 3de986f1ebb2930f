//! As many workers as there is work for: they come while all are busy and leave when they are not, and no
//! client notices.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::server::Builder;
use crate::support::{Client, Connection, Exchange, LIMIT, Load, LoadSpec, Server, eventually};

/// Four workers at most, one at least; the master looks often, so that the test takes no longer than needed.
fn cheaper() -> Builder {
    Server::app()
        .args(["--processes=4", "--cheaper=1", "--cheaper-overload=2", "--check-interval=50ms"])
        .arg("--pidfile=pid")
        .with_fifo()
}

/// Waits until so many workers run.
fn wait_count(server: &Server, count: usize) {
    server.wait_workers(&format!("{count} workers"), |workers| workers.len() == count);
}

/// Requests that keep so many workers busy, each in one of its own.
fn keep_busy(server: &Server, count: usize) -> Vec<Exchange> {
    (0..count).map(|_| Exchange::stream(server.target())).collect()
}

fn finish(exchanges: Vec<Exchange>) {
    for exchange in exchanges {
        exchange.finish().expect("nothing is cut");
    }
}

/// Kept connections that are still open.
fn keep(server: &Server, count: usize) -> Vec<Client> {
    let kept = |_| {
        let mut client = server.client();
        client.get("/").unwrap();
        client
    };
    (0..count).map(kept).collect()
}

fn still_there(kept: Vec<Client>) {
    for mut client in kept {
        assert!(!client.is_closed(), "a kept connection was closed");
        assert_eq!(client.get("/").unwrap().text(), "hello v1\n");
    }
}

#[test]
fn workers_come_while_all_are_busy_and_leave_when_idle_and_nobody_notices() {
    let server = cheaper().start();
    wait_count(&server, 1);
    let kept = keep(&server, 3);
    let gate = server.gate();
    let held: Vec<_> = (2..=4)
        .map(|count| {
            let mut connection = server.connect();
            let visitor = gate.hold(&mut connection);
            wait_count(&server, count);
            (connection, visitor)
        })
        .collect();
    server.wait_for_log("cheaper (spare): all 3 workers are busy: 4 of 4 workers wanted");
    for (mut connection, visitor) in held {
        drop(visitor);
        assert_eq!(connection.receive(false).unwrap().text(), "waited\n");
    }
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    load.wait_for(50);
    load.stop().assert_nothing_lost();
    wait_count(&server, 1);
    server.wait_for_log(" workers have nothing to do: 1 of 4 workers wanted, worker ");
    server.wait_for_log("exit code 0 (cheaper)");
    still_there(kept);
}

#[test]
fn who_works_on_a_long_request_is_not_the_one_to_leave() {
    let server = cheaper().arg("--cheaper-initial=4").spawn();
    let long = Exchange::stream(server.target());
    // The one that works, and one that waits: what spare is after.
    wait_count(&server, 2);
    assert!(server.workers().iter().any(|worker| worker.pid == long.pid()));
    assert!(
        !server.log().lines().iter().any(|line| line.contains(&format!("(pid: {}, generation ", long.pid())))
    );
    long.finish().unwrap();
    wait_count(&server, 1);
}

#[test]
fn spare2_keeps_its_reserve() {
    let server = cheaper().args(["--cheaper=2", "--cheaper-algo=spare2", "--cheaper-idle=3"]).start();
    wait_count(&server, 2);
    let busy = keep_busy(&server, 1);
    wait_count(&server, 3);
    finish(busy);
    wait_count(&server, 2);
}

#[test]
fn backlog_follows_the_clients_that_wait() {
    let server = cheaper().arg("--cheaper-algo=backlog").start();
    let busy = server.in_flight(60_000);
    let waiting: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    server.wait_for_log("cheaper (backlog): 3 clients wait in the listen queue: 2 of 4 workers wanted");
    // The second one takes them all, for they ask for nothing; and leaves.
    wait_count(&server, 1);
    server.wait_for_log("cheaper (backlog): only ");
    drop((waiting, busy));
}

#[test]
fn busyness_measures_and_tells() {
    let server = cheaper()
        .args(["--cheaper-algo=busyness", "--cheaper-overload=1", "--cheaper-busyness-multiplier=1"])
        .arg("--cheaper-busyness-verbose")
        .start();
    let busy = keep_busy(&server, 1);
    server.wait_for_log("%, will spawn 1 new worker(s)");
    server.wait_workers("another worker", |workers| workers.len() > 1);
    finish(busy);
    server.wait_for_log("cheap one of 2 running workers");
    wait_count(&server, 1);
}

#[test]
fn by_hand_alone_with_manual() {
    let server = cheaper().arg("--cheaper-algo=manual").start();
    let busy = keep_busy(&server, 1);
    server.fifo("++");
    wait_count(&server, 3);
    server.fifo("---");
    server.wait_for_log("1 of 4 workers wanted: cannot change");
    wait_count(&server, 1);
    finish(busy);
    assert!(!server.log().lines().iter().any(|line| line.contains("cheaper (")));
}

#[test]
fn by_hand_and_then_by_the_load() {
    let server = cheaper().start();
    server.fifo("+++");
    server.wait_for_log("4 of 4 workers wanted");
    // Nothing to do for any of them.
    server.wait_for_log("cheaper (spare): 2 workers have nothing to do: 1 of 4 workers wanted");
    wait_count(&server, 1);
}

#[test]
fn a_reload_keeps_the_number_and_obeys_what_is_new() {
    let ini = |processes: u32| {
        format!("[uwsgi]\nprocesses = {processes}\ncheaper = 1\ncheaper-initial = 2\ncheaper-algo = manual\n")
    };
    let server = Server::app().file("app.ini", ini(4)).arg("app.ini").with_fifo().start();
    server.fifo("+");
    wait_count(&server, 3);
    let load = Load::start(server.target(), &LoadSpec::gets());
    server.reload();
    wait_count(&server, 3);
    server.file("app.ini", ini(2));
    server.reload();
    wait_count(&server, 2);
    load.wait_for(20);
    load.stop().assert_nothing_lost();
}

#[test]
fn in_a_pause_nobody_is_added_or_sent_home() {
    let server = cheaper().args(["--cheaper-initial=3", "--cheaper-overload=100"]).start();
    server.fifo("p");
    server.wait_for_log("*** PAUSE");
    let waiting: Vec<Connection> = (0..5)
        .map(|_| {
            let mut connection = server.connect();
            connection.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
            connection
        })
        .collect();
    // Several times the turns that would have been taken.
    eventually("the master sleeps", LIMIT, || server.sleeps_for(Duration::from_millis(300)).then_some(()));
    wait_count(&server, 3);
    server.fifo("p");
    for mut connection in waiting {
        assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n");
    }
}

#[test]
fn memory_sets_a_limit() {
    let server = cheaper().arg("--cheaper-rss-limit-soft=1").start();
    let busy = keep_busy(&server, 1);
    server.wait_for_log("cheaper: no worker is added although all 1 workers are busy: the workers take ");
    wait_count(&server, 1);
    finish(busy);

    let server = cheaper()
        .args(["--cheaper-algo=manual", "--cheaper-initial=3", "--cheaper-rss-limit-hard=1"])
        .start();
    server.wait_for_log(" bytes (cheaper-rss-limit-hard): 1 of 4 workers wanted");
    wait_count(&server, 1);
}

#[test]
fn at_the_minimum_the_master_sleeps() {
    let server = cheaper().arg("--cheaper-initial=2").start();
    wait_count(&server, 1);
    eventually("it sleeps", LIMIT, || server.sleeps_for(Duration::from_millis(500)).then_some(()));
    let busy = keep_busy(&server, 1);
    wait_count(&server, 2);
    finish(busy);
}

#[test]
fn cheap_begins_without_workers_and_the_first_client_is_served() {
    for (args, count) in [(&["--cheap"][..], 3), (&["--cheap", "--cheaper=2"], 2)] {
        let server =
            Server::app().args(["--processes=3", "--pidfile=pid"]).args(args.iter().copied()).start();
        server.wait_for_log("cheap mode enabled: waiting for socket connection...");
        assert_eq!(server.workers(), []);
        // A reload of nobody is over as soon as the application is loaded.
        server.set_settings(json!({ "version": "v2" }));
        server.reload();
        assert_eq!(server.workers(), []);
        assert_eq!(server.get("/").text(), "hello v2\n");
        wait_count(&server, count);
    }
}

#[test]
fn a_client_that_came_while_a_cheap_server_loads_is_served() {
    let builder = Server::app().args(["--processes=1", "--cheap"]);
    let gate = crate::support::gate::Gate::new(builder.path("gate"));
    let server = builder.settings(json!({ "load_gate": gate.path() })).spawn();
    let loading = gate.wait();
    let mut early = server.connect();
    early.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    drop(loading);
    assert_eq!(early.receive(false).unwrap().text(), "hello v1\n");
}

#[test]
fn without_requests_all_go_home_and_the_next_client_brings_them_back() {
    let server = Server::app()
        .args(["--processes=2", "--idle=300ms", "--check-interval=50ms", "--pidfile=pid"])
        .start();
    for _ in 0..2 {
        // A request that takes longer than that is no idleness.
        let long = keep_busy(&server, 1);
        wait_count(&server, 2);
        assert!(!server.sleeps_for(Duration::from_millis(600)));
        assert_eq!(server.workers().len(), 2);
        finish(long);
        wait_count(&server, 0);
        eventually("it sleeps", LIMIT, || server.sleeps_for(Duration::from_millis(500)).then_some(()));
    }
    server.wait_for_log("workers have been inactive for more than 0 seconds");
    server.wait_for_log("exit code 0 (idle)");
}

#[test]
fn a_server_may_die_when_idle() {
    for cheap in ["--cheap=false", "--cheap"] {
        let args = ["--processes=2", "--idle=300ms", "--die-on-idle", "--check-interval=50ms", cheap];
        let mut server = Server::app().args(args).start();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
        assert!(server.log().lines().iter().any(|line| line.ends_with(": stopping (die-on-idle)")));
    }
}

#[test]
fn what_cannot_be_is_refused_and_the_algorithms_are_listed() {
    let server = Server::app().start();
    let refused = |args: &[&str]| {
        let args: Vec<_> = args.iter().copied().chain(["--http=127.0.0.1:0"]).collect();
        let output = std::process::Command::new(server.program()).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let text = refused(&["--processes=2", "--cheaper=2"]);
    assert!(text.contains("cheaper = \"2\" must be less than processes, which is 2"), "{text}");
    let text = refused(&["--processes=2", "--cheaper=1", "--cheaper-algo=busines"]);
    assert!(text.contains("did you mean busyness?"), "{text}");
    let names = server.command(["--cheaper-algo-list"]).stdout;
    assert_eq!(String::from_utf8(names).unwrap(), "spare\nspare2\nbacklog\nbusyness\nmanual\n");
    server.signal(Signal::SIGINT);
}
