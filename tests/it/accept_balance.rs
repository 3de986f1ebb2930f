//! A new client wakes one worker that sleeps, and none waits while any worker is free.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use crate::support::http::request;
use crate::support::wsgi::app;
use crate::support::{Connection, LIMIT, Server, Target, eventually, get, processes};

/// Answers with the pid of its worker, on the worker's own thread.
const GATED: &str = r#"
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/sleep":
        time.sleep(0.02)
    if environ["PATH_INFO"] == "/gate":
        gate()
    return answer(start_response, os.getpid())
"#;

fn send(connection: &mut Connection, path: &str) {
    connection.send(&request("GET", path, &[], b"")).expect("sent");
}

fn ask(connection: &mut Connection, path: &str) -> String {
    send(connection, path);
    connection.receive(false).expect("an answer").text()
}

#[test]
fn a_new_client_wakes_one_of_the_workers_that_sleep() {
    const CLIENTS: u64 = 100;
    let native = Server::builtin().args(["--master", "--processes=8"]).start();
    let python = app(GATED).args(["--master", "--processes=8"]).start();
    for server in [native, python] {
        // Right after the start they still have things of their own to do.
        (0..20).for_each(|_| drop(server.get("/")));
        let workers = server.workers();
        let count = || workers.iter().map(|worker| processes::wakes(worker.pid)).collect::<Vec<_>>();
        let before = count();
        for _ in 0..CLIENTS {
            assert_eq!(server.client().fresh("GET", "/", &[], b"").unwrap().status, 200);
        }
        let woken: Vec<u64> = count().iter().zip(before).map(|(after, before)| after - before).collect();
        // A worker may sleep between connection and request, and the master may ask for something.
        let total: u64 = woken.iter().sum();
        assert!(total < 4 * CLIENTS, "{CLIENTS} clients, 8 workers, woken {total} times: {woken:?}");
    }
}

#[test]
fn clients_that_come_together_are_spread_over_the_workers() {
    let server = app(GATED).args(["--master", "--processes=4"]).start();
    let mut clients: Vec<Connection> = (0..80).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| send(client, "/sleep"));
    let mut served: BTreeMap<String, usize> = BTreeMap::new();
    for client in &mut clients {
        *served.entry(client.receive(false).expect("an answer").text()).or_default() += 1;
    }
    assert!(served.len() == 4 && served.values().all(|&count| count >= 10), "{served:?}");
}

#[test]
fn no_client_waits_for_a_worker_that_stands_still() {
    let server = app(GATED).args(["--master", "--processes=3"]).start();
    for stopped in server.workers() {
        processes::kill(stopped.pid, Signal::SIGSTOP);
        // Until then it still counts as one that sleeps and can be woken.
        eventually("it stands still", LIMIT, || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", stopped.pid)).ok()?;
            stat.contains(") T ").then_some(())
        });
        for _ in 0..20 {
            assert_ne!(server.get("/").text(), stopped.pid.to_string());
        }
        processes::kill(stopped.pid, Signal::SIGCONT);
    }
}

#[test]
fn no_client_waits_for_a_worker_that_runs_a_request() {
    let server = app(GATED).args(["--master", "--processes=3"]).start();
    let gate = server.gate();
    let mut first = server.connect();
    send(&mut first, "/gate");
    let visitor = gate.wait();
    let mut second = server.connect();
    send(&mut second, "/gate");
    let other = gate.wait();
    // One is left.
    let pids: Vec<String> = (0..30).map(|_| server.get("/").text()).collect();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    drop((visitor, other));
    for busy in [&mut first, &mut second] {
        assert_ne!(busy.receive(false).expect("an answer").text(), pids[0]);
    }
}

#[test]
fn a_worker_that_hears_of_a_client_and_of_a_request_at_once_passes_the_client_on() {
    // On one processor, so that both arrive before the worker runs.
    let server = app(GATED).through(["taskset", "--cpu-list", "0"]).args(["--processes=2"]).start();
    let gate = server.gate();
    let mut kept: Vec<Connection> = (0..4).map(|_| server.connect()).collect();
    // From its first slow request on, a worker has help for connections that it has accepted.
    kept.iter_mut().for_each(|kept| drop(ask(kept, "/sleep")));
    for round in 0..100 {
        let kept = &mut kept[round % 4];
        let mut fresh = server.connect();
        let mut other = server.connect();
        send(kept, "/gate");
        let visitor = gate.wait();
        for client in [&mut fresh, &mut other] {
            send(client, "/");
            let answer = client.receive(false).unwrap_or_else(|failure| panic!("round {round}: {failure:?}"));
            assert_eq!(answer.status, 200);
        }
        drop(visitor);
        kept.receive(false).expect("an answer");
    }
}

#[test]
fn clients_that_come_during_a_pause_are_served_after_it() {
    let server = Server::app().args(["--master", "--processes=3", "--pidfile=pid"]).with_fifo().start();
    let paused = |wanted: usize| {
        eventually("all workers obey", LIMIT, || {
            let status = server.command(["--status", "pid"]).stdout;
            let count = memchr::memmem::find_iter(&status, b" paused").count();
            (count == wanted).then_some(())
        });
    };
    for _ in 0..3 {
        server.fifo("p");
        paused(3);
        let mut clients: Vec<Connection> = (0..6).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| send(client, "/"));
        server.fifo("p");
        for client in &mut clients {
            assert_eq!(client.receive(false).unwrap().text(), "hello v1\n");
        }
        paused(0);
    }
}

/// Requests for as long as the test takes, on kept connections: while one is served, others wait for the slot.
fn keep_busy(server: &Server) -> Vec<Connection> {
    let mut busy: Vec<Connection> = (0..3).map(|_| server.connect()).collect();
    let request = request("GET", "/stream?chunks=2&ms=10&size=10", &[], b"");
    for connection in &mut busy {
        connection.send(&request.repeat(1000)).expect("sent");
        // Let in, and the first of its requests is answered.
        connection.receive(false).expect("an answer");
    }
    busy
}

#[test]
fn connections_that_keep_the_worker_busy_do_not_keep_new_clients_out() {
    let second = "second.sock";
    let server = Server::app().args(["--master", &format!("--http={second}")]).start();
    let mut busy = keep_busy(&server);
    // Each has to be let in, on either address, while some 3000 requests wait that would take all slots.
    let quiet = Target::Unix(server.path(second));
    for _ in 0..5 {
        assert_eq!(server.client().fresh("GET", "/", &[], b"").expect("let in").status, 200);
        assert_eq!(get(&quiet, "/").status, 200);
    }
    let answered = |log: &str| log.contains("GET /stream");
    let served = server.log().lines().iter().filter(|line| answered(line)).count();
    // The test takes its time, too.
    assert!(served < 1500, "clients waited for {served} requests that came after them");
    for connection in &mut busy {
        connection.receive(false).expect("nobody is forgotten");
    }
}
