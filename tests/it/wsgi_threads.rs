//! `threads`: so many requests at a time, each slot occupied exactly as long as the application works.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::http::request;
use crate::support::wsgi::{app_with_threads, notes};
use crate::support::{Client, Connection, LIMIT, Load, LoadSpec, Server, eventually};

const GATED: &str = r#"
def application(environ, start_response):
    path = environ["PATH_INFO"]
    name = threading.current_thread().name
    if path == "/gate":
        note("core", environ.get("uwsgi.core"), name)
        gate()
        note("done", name)
    if path == "/after":
        def pieces():
            start_response("200 OK", [("Content-Length", "3")])
            yield b"all"
            note("working on")
            gate()
            note("done")
        return pieces()
    return answer(start_response, name)
"#;

fn send(server: &Server, path: &str) -> Connection {
    let mut connection = server.connect();
    connection.send(&request("GET", path, &[], b"")).unwrap();
    connection
}

/// Requests that the application has begun.
fn wait_notes(server: &Server, word: &str, count: usize) -> Vec<String> {
    eventually(&format!("{count} times {word}"), LIMIT, || {
        let notes: Vec<String> = notes(server).into_iter().filter(|note| note.starts_with(word)).collect();
        (notes.len() == count).then_some(notes)
    })
}

#[test]
fn as_many_requests_run_at_a_time_as_there_are_threads() {
    let server = app_with_threads(GATED, 4).start();
    let gate = server.gate();
    let mut connections: Vec<Connection> = (0..6).map(|_| send(&server, "/gate")).collect();
    let visitors: Vec<_> = (0..4).map(|_| gate.wait()).collect();
    let begun = wait_notes(&server, "core", 4);
    let cores: BTreeSet<&str> = begun.iter().map(|note| note.split(' ').nth(1).unwrap()).collect();
    assert_eq!(cores, BTreeSet::from(["0", "1", "2", "3"]), "each has a slot of its own: {begun:?}");
    for note in &begun {
        let (core, name) = note[5..].split_once(' ').unwrap();
        assert!(name.ends_with(&format!("Core{core}")), "{note}");
    }
    let names: BTreeSet<&str> = begun.iter().map(|note| note.split(' ').nth(2).unwrap()).collect();
    let expected = [0, 1, 2, 3].map(|core| format!("uWSGIWorker1Core{core}"));
    assert_eq!(names, expected.iter().map(String::as_str).collect());
    // The other two get their turn with the first that are done.
    drop(visitors);
    let last: Vec<_> = (0..2).map(|_| gate.wait()).collect();
    wait_notes(&server, "done", 4);
    drop(last);
    for connection in &mut connections {
        assert_eq!(connection.receive(false).unwrap().status, 200);
    }
}

#[test]
fn one_thread_serves_one_request_at_a_time() {
    let server = app_with_threads(GATED, 1).start();
    let gate = server.gate();
    let (mut first, mut second) = (send(&server, "/gate"), send(&server, "/name"));
    drop(gate.wait());
    assert_eq!(first.receive(false).unwrap().status, 200);
    assert_eq!(second.receive(false).unwrap().text(), "MainThread");
}

#[test]
fn a_client_that_leaves_does_not_free_the_slot_of_its_request() {
    let server = app_with_threads(GATED, 2).start();
    let gate = server.gate();
    let connections: Vec<Connection> = (0..2).map(|_| send(&server, "/gate")).collect();
    let mut visitors: Vec<_> = (0..2).map(|_| gate.wait()).collect();
    drop(connections);
    let mut third = send(&server, "/gate");
    // Were one of them free, it would have begun before this one is done.
    visitors.pop();
    let third_visit = gate.wait();
    wait_notes(&server, "core", 3);
    let notes = notes(&server);
    let position = |word: &str, nth: usize| {
        notes.iter().enumerate().filter(|(_, note)| note.starts_with(word)).nth(nth).map(|(at, _)| at)
    };
    assert!(position("core", 2) > position("done", 0), "{notes:?}");
    drop(third_visit);
    drop(visitors);
    assert_eq!(third.receive(false).unwrap().status, 200);
    wait_notes(&server, "done", 3);
}

#[test]
fn work_after_the_response_occupies_the_slot() {
    for threads in [1, 2] {
        let server = app_with_threads(GATED, threads).start();
        let gate = server.gate();
        let mut visitors = Vec::new();
        for _ in 0..threads {
            let mut connection = send(&server, "/after");
            assert_eq!(connection.receive(false).unwrap().text(), "all");
            visitors.push(gate.wait());
        }
        let mut waiting = send(&server, "/name");
        visitors.pop();
        assert_eq!(waiting.receive(false).unwrap().status, 200);
        server.wait_for_log("GET /name");
        let lines = server.log().lines();
        let at = |text: &str| lines.iter().position(|line| line.contains(text));
        assert!(at("note: done") < at("GET /name"), "{lines:#?}");
    }
}

#[test]
fn threads_that_are_free_serve_while_others_wait() {
    let server = app_with_threads(GATED, 4).start();
    let gate = server.gate();
    let mut busy: Vec<Connection> = (0..3).map(|_| send(&server, "/gate")).collect();
    let visitors: Vec<_> = (0..3).map(|_| gate.wait()).collect();
    let mut client = server.client();
    for _ in 0..50 {
        assert!(client.get("/name").unwrap().text().starts_with("uWSGIWorker1Core"));
        assert_eq!(server.get("/name").status, 200);
    }
    drop(visitors);
    for connection in &mut busy {
        assert_eq!(connection.receive(false).unwrap().status, 200);
    }
}

#[test]
fn a_quick_answer_does_not_wait_for_the_slow_request_behind_it() {
    let server = app_with_threads(GATED, 4).start();
    let gate = server.gate();
    let (mut quick, mut slow) = (server.connect(), server.connect());
    for _ in 0..20 {
        // As a rule one thread takes both, one after the other.
        quick.send(&request("GET", "/name", &[], b"")).unwrap();
        slow.send(&request("GET", "/gate", &[], b"")).unwrap();
        let visitor = gate.wait();
        assert_eq!(quick.receive(false).unwrap().status, 200);
        drop(visitor);
        assert_eq!(slow.receive(false).unwrap().status, 200);
    }
}

/// While requests are quick, more of them are on their way to the threads than there are threads.
#[test]
fn requests_that_wait_for_a_thread_have_all_of_their_time() {
    let source = r#"
import time

def application(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.9)
    return answer(start_response, "done")
"#;
    let server = app_with_threads(source, 2).arg("--harakiri=2").start();
    let mut clients: Vec<Connection> = (0..6).map(|_| send(&server, "/quick")).collect();
    for path in ["/slow", "/quick"] {
        for client in &mut clients {
            assert_eq!(client.receive(false).unwrap().text(), "done");
        }
        for client in &mut clients {
            client.send(&request("GET", path, &[], b"")).unwrap();
        }
    }
    for client in &mut clients {
        assert_eq!(client.receive(false).unwrap().text(), "done", "on the connection it had");
    }
    let lines = eventually("all are logged", LIMIT, || {
        let lines = server.log().lines().into_iter().filter(|line| line.contains(" switches on core "));
        let lines: Vec<String> = lines.collect();
        (lines.len() == 3 * clients.len()).then_some(lines)
    });
    for line in lines {
        let msecs: u32 =
            line.split(" msecs").next().and_then(|it| it.rsplit(' ').next()).unwrap().parse().unwrap();
        assert!(msecs < 1700, "it did not take the time that it has waited: {line}");
        assert!(line.contains("on core 0)") || line.contains("on core 1)"), "threads have numbers: {line}");
    }
}

#[test]
fn new_clients_are_let_in_while_kept_connections_are_never_at_rest() {
    let server = app_with_threads(GATED, 2).start();
    let kept = LoadSpec { keep_alive: 12, fresh: 0, pause: Duration::ZERO, ..LoadSpec::gets() };
    let load = Load::start(server.target(), &kept);
    for _ in 0..50 {
        assert_eq!(server.get("/name").status, 200);
    }
    load.stop().assert_nothing_lost();
}

#[test]
fn many_requests_in_many_threads_do_not_mix() {
    let source = r#"
import hashlib

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    seed = environ["QUERY_STRING"].encode() + body
    start_response("200 OK", [("X-Seed", environ["QUERY_STRING"])])
    def pieces():
        for number in range(20):
            yield hashlib.sha256(seed + bytes([number])).digest() * 100
    if len(body) % 2:
        return pieces()
    return list(pieces())
"#;
    let server = app_with_threads(source, 4).start();
    let answer = |client: &mut Client, number: usize| {
        let body = vec![b'x'; number % 50];
        client.call("POST", &format!("/?{number}"), &[], &body).unwrap()
    };
    let first: Vec<Vec<u8>> = (0..50).map(|number| answer(&mut server.client(), number).body).collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.client();
                for (number, first) in first.iter().enumerate() {
                    let answer = answer(&mut client, number);
                    assert_eq!(answer.header("x-seed"), Some(number.to_string().as_str()));
                    assert!(answer.body == *first, "{number}");
                }
            });
        }
    });
}
