//! Connections of a worker that is stuck in a request go to workers that are free.

use nix::sys::signal::Signal;

use crate::support::http::request;
use crate::support::wsgi::app;
use crate::support::{Connection, LIMIT, Server, eventually};

const GATED: &str = r#"
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.01)
    if environ["PATH_INFO"] == "/gate":
        gate()
    return answer(start_response, os.getpid())
"#;

fn start(relief: bool) -> Server {
    app(GATED).args(["--master", "--processes=2"]).arg(format!("--relief={relief}")).start()
}

fn send(connection: &mut Connection, path: &str) {
    connection.send(&request("GET", path, &[], b"")).expect("sent");
}

fn ask(connection: &mut Connection, path: &str) -> String {
    send(connection, path);
    connection.receive(false).expect("an answer").text()
}

/// Connections that rest in the same worker, and its pid: at least two of them.
fn neighbours(server: &Server) -> (Vec<Connection>, String) {
    let mut connections: Vec<(Connection, String)> = (0..8)
        .map(|_| {
            let mut connection = server.connect();
            // The first slow request of a worker is what makes it look after its connections.
            let pid = ask(&mut connection, "/slow");
            (connection, pid)
        })
        .collect();
    // Workers even out their connections now and then, so each is asked again.
    for (connection, pid) in &mut connections {
        *pid = ask(connection, "/");
    }
    let count = |pid: &str| connections.iter().filter(|(_, other)| other == pid).count();
    let pid =
        connections.iter().map(|(_, pid)| pid.clone()).max_by_key(|pid| count(pid)).expect("connections");
    let here = connections.into_iter().filter(|(_, other)| *other == pid);
    (here.map(|(connection, _)| connection).collect(), pid)
}

#[test]
fn a_kept_alive_connection_does_not_wait_for_a_slow_request_on_another() {
    let server = start(true);
    let (mut connections, pid) = neighbours(&server);
    assert!(connections.len() >= 2);
    let gate = server.gate();
    send(&mut connections[0], "/gate");
    let visitor = gate.wait();
    for connection in &mut connections[1..] {
        assert_ne!(ask(connection, "/"), pid, "the other worker answers, on the same connection");
    }
    drop(visitor);
    assert_eq!(connections[0].receive(false).expect("an answer").text(), pid);
    // Each goes on wherever it is now.
    for connection in &mut connections {
        ask(connection, "/");
    }
}

#[test]
fn requests_that_nobody_is_free_for_are_answered_by_the_first_who_is() {
    let server = start(true);
    let (mut connections, _) = neighbours(&server);
    let gate = server.gate();
    let mut others: Vec<Connection> = (0..2).map(|_| server.connect()).collect();
    send(&mut others[0], "/gate");
    let first = gate.wait();
    send(&mut others[1], "/gate");
    let second = gate.wait();
    connections.iter_mut().for_each(|connection| send(connection, "/"));
    drop(first);
    let free = others[0].receive(false).expect("an answer").text();
    for connection in &mut connections {
        assert_eq!(connection.receive(false).expect("an answer").text(), free);
    }
    drop(second);
    others[1].receive(false).expect("an answer");
}

#[test]
fn requests_that_were_passed_on_are_answered_when_the_server_stops() {
    let mut server = start(true);
    let (mut connections, _) = neighbours(&server);
    let gate = server.gate();
    let mut others: Vec<Connection> = (0..2).map(|_| server.connect()).collect();
    let stuck: Vec<_> = others
        .iter_mut()
        .map(|other| {
            send(other, "/gate");
            gate.wait()
        })
        .collect();
    connections.iter_mut().for_each(|connection| send(connection, "/"));
    server.signal(Signal::SIGINT);
    // Then the workers are told, who cannot hear it yet.
    eventually("the zygote is gone", LIMIT, || (server.children().len() == 2).then_some(()));
    drop(stuck);
    for connection in others.iter_mut().chain(&mut connections) {
        assert_eq!(connection.receive(false).expect("an answer").status, 200);
    }
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn without_relief_connections_wait_for_their_own_worker() {
    let server = start(false);
    let (mut connections, pid) = neighbours(&server);
    let gate = server.gate();
    send(&mut connections[0], "/gate");
    let visitor = gate.wait();
    send(&mut connections[1], "/");
    drop(visitor);
    for connection in &mut connections[..2] {
        assert_eq!(connection.receive(false).expect("an answer").text(), pid);
    }
}

#[test]
fn a_client_that_leaves_while_its_worker_is_stuck_disturbs_nobody() {
    let server = start(true);
    let (mut connections, _) = neighbours(&server);
    let gate = server.gate();
    send(&mut connections[0], "/gate");
    let visitor = gate.wait();
    let mut rest = connections.split_off(1);
    // Sent and gone: whoever takes it finds a request and nobody to answer.
    for connection in &mut rest {
        send(connection, "/");
    }
    drop(rest);
    drop(visitor);
    connections[0].receive(false).expect("an answer");
    for _ in 0..20 {
        assert_eq!(server.get("/").status, 200);
    }
}
