//! Slots: what occupies a worker is a request that runs, and nothing a client does or leaves undone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::server::Builder;
use crate::support::{Client, Connection, Failure, LIMIT, Server, eventually, processes};

/// One worker with one slot.
/// Connections come into it before their requests do.
fn narrow() -> Builder {
    Server::app().args(["--master", "--processes=1", "--threads=1", "--pidfile=pid", "--no-defer-accept"])
}

/// What `--status` says.
fn status(server: &Server) -> String {
    String::from_utf8(server.command(["--status", "pid"]).stdout).unwrap()
}

/// The number before ` requests in flight` and the like, of each worker.
fn figures(server: &Server, unit: &str) -> Vec<u64> {
    let status = status(server);
    let lines = status.lines().filter(|line| line.starts_with("worker "));
    let figure = |line: &str| line.split(", ").find_map(|part| part.strip_suffix(unit)?.trim().parse().ok());
    lines.filter_map(figure).collect()
}

fn wait_in_flight(server: &Server, count: u64) {
    eventually(&format!("{count} requests are in flight"), LIMIT, || {
        (figures(server, " in flight").iter().sum::<u64>() == count).then_some(())
    });
}

/// Many requests on connections of their own, answered without anything else having to happen.
fn assert_serves(server: &Server) {
    for _ in 0..10 {
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
}

#[test]
fn half_sent_heads_occupy_nothing() {
    let server = narrow().start();
    let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send(b"GET / HTTP/1.1\r\nHo").unwrap();
    }
    assert_serves(&server);
    for connection in &mut slow {
        connection.send(b"st: a\r\n\r\n").unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n");
    }
}

#[test]
fn silent_connections_occupy_nothing() {
    let server = narrow().start();
    let silent: Vec<_> = (0..50).map(|_| server.connect()).collect();
    assert_serves(&server);
    drop(silent);
}

#[test]
fn slow_uploads_occupy_nothing() {
    let server = narrow().start();
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
        for path in ["/echo?sum=1", "/echo"] {
            let mut slow: Vec<_> = (0..20).map(|_| server.connect()).collect();
            for connection in &mut slow {
                let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}");
                connection.send(head.as_bytes()).unwrap();
            }
            wait_in_flight(&server, 20);
            assert_serves(&server);
            let rest = if framing.starts_with('C') { "defghij" } else { "7\r\ndefghij\r\n0\r\n\r\n" };
            for connection in &mut slow {
                connection.send(rest.as_bytes()).unwrap();
            }
            for connection in &mut slow {
                let answer = connection.receive(false).unwrap();
                assert_eq!(answer.status, 200, "{path} {framing:?}");
                match path {
                    "/echo" => assert_eq!(answer.text(), "abcdefghij"),
                    _ => assert_eq!(answer.json()["length"], 10),
                }
            }
        }
    }
}

#[test]
fn clients_that_do_not_read_occupy_nothing() {
    let server = narrow().start();
    // More than the buffers of both sides take.
    let mut slow: Vec<_> = (0..5).map(|_| server.connect()).collect();
    for connection in &mut slow {
        connection.send(b"GET /stream?chunks=1000&size=65536 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    }
    wait_in_flight(&server, 5);
    assert_serves(&server);
    // And nothing of what they left waiting is lost.
    for connection in &mut slow {
        let answer = connection.receive(false).unwrap();
        assert_eq!(answer.body.len(), 1000 * 65536 + 4);
        assert!(answer.body.ends_with(b"end\n"));
    }
    wait_in_flight(&server, 0);
    assert_serves(&server);
}

#[test]
fn a_request_that_runs_occupies_its_slot() {
    let server = narrow().start();
    let (gate, mut first, mut second) = (server.gate(), server.connect(), server.connect());
    let visitor = gate.hold(&mut first);
    second.send(b"GET /?second HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    second.set_timeout(Duration::from_millis(300)).unwrap();
    assert_eq!(second.receive(false).err(), Some(Failure::Timeout), "two requests ran in one slot");
    drop(visitor);
    assert_eq!(first.receive(false).unwrap().text(), "waited\n");
    second.set_timeout(LIMIT).unwrap();
    assert_eq!(second.receive(false).unwrap().text(), "hello v1\n");
}

#[test]
fn an_application_at_work_on_its_answer_occupies_its_slot() {
    let server = narrow().start();
    let mut first = server.connect();
    first.send(b"GET /stream?chunks=4&ms=100 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    first.receive_status().unwrap();
    assert_eq!(server.get("/").text(), "hello v1\n");
    first.set_timeout(Duration::from_millis(20)).unwrap();
    let body = first.receive_chunks().expect("it ended before the other began");
    assert!(body.ends_with(b"end\n"));
}

#[test]
fn a_worker_that_is_busy_leaves_new_connections_to_the_others() {
    let server = Server::app().args(["--master", "--processes=2", "--threads=1"]).start();
    let mut slow = server.connect();
    slow.send(b"GET /sleep?ms=20000 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    eventually("the slow request is taken", LIMIT, || (busy_workers(&server) == 1).then_some(()));
    let begin = Instant::now();
    for _ in 0..60 {
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "delayed: {:?}", begin.elapsed());
    drop(slow);
}

/// Workers that are in a request now, by the log.
fn busy_workers(server: &Server) -> usize {
    let mark = server.log().mark();
    server.signal(nix::sys::signal::Signal::SIGUSR2);
    server.wait_for_log_after(mark, "worker 2 (");
    let lines = server.log().lines();
    let last = lines.iter().rev().take(2);
    last.filter(|line| line.contains(" 1 in flight")).count()
}

#[test]
fn more_requests_than_slots_are_served_in_their_order() {
    let server = narrow().start();
    let (gate, mut first) = (server.gate(), server.connect());
    let visitor = gate.hold(&mut first);
    // Connections that wait in the accept queue, one after the other.
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    for (number, connection) in waiting.iter_mut().enumerate() {
        connection.send(format!("GET /?{number} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
    }
    drop(visitor);
    for connection in &mut waiting {
        assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n");
    }
    server.wait_for_log("GET /?9 ");
    let lines = server.log().lines();
    let served: Vec<_> =
        lines.iter().filter_map(|line| line.split_once("GET /?")?.1.chars().next()).collect();
    assert_eq!(served.iter().collect::<String>(), "0123456789");
}

#[test]
fn kept_connections_spread_over_the_workers() {
    let args = ["--master", "--processes=4", "--threads=1", "--pidfile=pid"];
    let server = Server::app().args(args).start();
    let mut clients: Vec<Client> = (0..40).map(|_| server.client()).collect();
    // Uneven connections move while they are idle; no request may suffer from it.
    // One on its way is counted by both or by neither.
    eventually("the connections are spread, and all there", LIMIT, || {
        for client in &mut clients {
            assert_eq!(client.get("/").unwrap().status, 200);
        }
        let counts = figures(&server, " connections");
        let spread = counts.len() == 4 && counts.iter().all(|count| (5..=15).contains(count));
        (spread && counts.iter().sum::<u64>() == 40).then_some(())
    });
}

#[test]
fn each_worker_takes_its_part_of_single_requests() {
    let server = Server::app().args(["--master", "--processes=2", "--threads=1"]).start();
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    // Two at a time: while one worker is busy the other is free.
    for _ in 0..10 {
        let mut pair: Vec<Connection> = (0..2).map(|_| server.connect()).collect();
        for connection in &mut pair {
            connection.send(b"GET /sleep?ms=20 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        }
        for connection in &mut pair {
            connection.receive(false).unwrap();
        }
    }
    server.wait_for_log("req: ");
    eventually("all are logged", LIMIT, || {
        served.clear();
        for line in server.log().lines() {
            if let Some((pid, _)) = line.strip_prefix("[pid: ").and_then(|rest| rest.split_once('|')) {
                *served.entry(pid.to_owned()).or_default() += 1;
            }
        }
        (served.values().sum::<usize>() == 20).then_some(())
    });
    assert!(served.len() == 2 && served.values().all(|&count| count >= 5), "{served:?}");
}

/// Sockets that each worker holds: one more when it has accepted a connection.
fn sockets(server: &Server) -> Vec<usize> {
    let count = |pid| processes::descriptor_kinds(pid).get("socket").copied().unwrap_or_default();
    server.workers().iter().map(|worker| count(worker.pid)).collect()
}

#[test]
fn a_request_that_comes_late_on_its_connection_fills_the_slot_all_the_same() {
    let server = Server::app().args(["--master", "--processes=2", "--no-defer-accept"]).start();
    // Both workers hear of each connection, and either may be faster: once is no proof.
    for _ in 0..60 {
        let before = sockets(&server);
        let mut silent = server.connect();
        // It is accepted while the slot is free, and only then the request comes.
        eventually("a worker has accepted it", LIMIT, || (sockets(&server) != before).then_some(()));
        silent.send(b"GET /stream?chunks=3000&ms=10 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let head = silent.receive_begin().unwrap();
        let answer = server.get("/pid");
        assert_ne!(answer.header("x-pid"), head.header("x-pid"), "the full worker took another connection");
        drop(silent);
        eventually("both are gone", LIMIT, || (sockets(&server) == before).then_some(()));
    }
}
