//! Slow clients of a Python application: they occupy it neither with one thread nor with more, lose nothing,
//! and survive a reload.

use nix::sys::signal::Signal;

use crate::support::http::{Response, request};
use crate::support::wsgi::{app, with_and_without_threads};
use crate::support::{Connection, LIMIT, Server, eventually};

const MIB: usize = 1024 * 1024;
/// More than the buffers of both sides take.
const LARGE: usize = 40 * MIB;

const APP: &str = r#"
SIZE = 40 * 1024 * 1024
ALL = bytes(range(256)) * (SIZE // 256)
with open("large", "wb") as file:
    file.write(ALL)

class Body:
    def __init__(self, pieces):
        self.pieces = iter(pieces)
    def __iter__(self):
        return self.pieces
    def close(self):
        note("closed")

def application(environ, start_response):
    kind = environ["PATH_INFO"][1:]
    if kind == "upload":
        body = environ["wsgi.input"].read()
        return answer(start_response, len(body))
    if kind == "":
        return answer(start_response, "meanwhile")
    start_response("200 OK", [("Content-Length", str(SIZE))] if kind.startswith("length") else [])
    size = 100000
    pieces = (ALL[at:at + size] for at in range(0, SIZE, size))
    if kind.endswith("one"):
        return [ALL]
    if kind.endswith("list"):
        return list(pieces)
    if kind.endswith("file"):
        return environ["wsgi.file_wrapper"](open("large", "rb"))
    return Body(pieces)
"#;

fn expected() -> Vec<u8> {
    (0..LARGE).map(|at| at as u8).collect()
}

fn begin(server: &Server, path: &str) -> (Connection, Response) {
    let mut connection = server.connect();
    connection.send(&request("GET", path, &[], b"")).unwrap();
    let head = connection.receive_begin().unwrap();
    assert_eq!(head.status, 200);
    (connection, head)
}

fn assert_serves(server: &Server) {
    for _ in 0..10 {
        assert_eq!(server.get("/").text(), "meanwhile");
    }
}

#[test]
fn slow_readers_occupy_nothing_and_lose_nothing() {
    let expected = expected();
    with_and_without_threads(APP, |server| {
        for path in ["/one", "/list", "/file", "/pieces", "/length-pieces"] {
            // More than there are threads.
            let slow: Vec<_> = (0..5).map(|_| begin(server, path)).collect();
            assert_serves(server);
            for (mut connection, head) in slow {
                let body = connection.receive_body(&head).unwrap();
                assert!(body == expected, "{path}: {} bytes", body.len());
            }
        }
    });
}

#[test]
fn an_application_has_finished_long_before_a_slow_reader() {
    with_and_without_threads(APP, |server| {
        let slow = begin(server, "/pieces");
        server.wait_for_log("note: closed");
        drop(slow);
    });
}

#[test]
fn a_response_that_waits_for_its_client_takes_little_memory() {
    let server = app(APP).args(["--master", "--processes=1"]).start();
    let pid = server.workers()[0].pid;
    let resident = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap()
    };
    assert_serves(&server);
    let before = resident();
    let slow: Vec<_> = (0..5).map(|_| begin(&server, "/pieces")).collect();
    eventually("all have finished", LIMIT, || {
        let lines = server.log().lines();
        (lines.iter().filter(|line| *line == "note: closed").count() == 5).then_some(())
    });
    let after = resident();
    assert!(after < before + 10 * 1024, "{before} KiB before, {after} KiB with 200 MiB waiting");
    drop(slow);
}

#[test]
fn slow_uploads_and_idle_clients_occupy_nothing() {
    with_and_without_threads(APP, |server| {
        let idle: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
        for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"] {
            let mut slow: Vec<Connection> = (0..10).map(|_| server.connect()).collect();
            for connection in &mut slow {
                let head = format!("POST /upload HTTP/1.1\r\nHost: a\r\n{framing}");
                connection.send(head.as_bytes()).unwrap();
            }
            eventually("all are begun", LIMIT, || {
                let mark = server.log().mark();
                server.signal(Signal::SIGUSR2);
                server.wait_for_log_after(mark, " in flight").contains(" 10 in flight").then_some(())
            });
            assert_serves(server);
            let rest = if framing.starts_with('C') { "defghij" } else { "7\r\ndefghij\r\n0\r\n\r\n" };
            for connection in &mut slow {
                connection.send(rest.as_bytes()).unwrap();
            }
            for connection in &mut slow {
                assert_eq!(connection.receive(false).unwrap().text(), "10");
            }
        }
        drop(idle);
    });
}

#[test]
fn a_reload_loses_nothing_of_what_is_on_its_way() {
    let expected = expected();
    for threads in [1, 4] {
        let server = app(APP).args(["--master", "--processes=2"]).arg(format!("--threads={threads}")).start();
        let paths = ["/one", "/list", "/file", "/pieces", "/length-pieces"];
        let slow: Vec<_> = paths.iter().map(|path| begin(&server, path)).collect();
        let mut upload = server.connect();
        upload.send(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc").unwrap();
        eventually("all are begun", LIMIT, || {
            let mark = server.log().mark();
            server.signal(Signal::SIGUSR2);
            server.wait_for_log_after(mark, "worker 2 (");
            let lines = server.log().lines();
            let figures = lines.iter().rev().take(2).filter_map(|line| {
                line.split(", ").find_map(|part| part.strip_suffix(" in flight")?.parse::<usize>().ok())
            });
            (figures.sum::<usize>() == 6).then_some(())
        });
        server.signal(Signal::SIGHUP);
        while !server.log().lines().iter().any(|line| line.contains("generation 2 serves")) {
            assert_eq!(server.get("/").text(), "meanwhile");
        }
        upload.send(b"defghij").unwrap();
        assert_eq!(upload.receive(false).unwrap().text(), "10");
        for ((mut connection, head), path) in slow.into_iter().zip(paths) {
            let body = connection.receive_body(&head).unwrap();
            assert!(body == expected, "{path}: {} bytes", body.len());
        }
        server.wait_reloaded(2);
    }
}

/// A stream in the middle, and work that goes on when the response is complete.
const LASTING: &str = r#"
def application(environ, start_response):
    def pieces():
        start_response("200 OK", [("Content-Length", "6")])
        yield b"one"
        if environ["PATH_INFO"] == "/stream":
            gate()
        yield b"two"
        gate()
        note("finished")
    return pieces()
"#;

#[test]
fn a_worker_leaves_when_its_application_has_finished() {
    with_and_without_threads(LASTING, |server| {
        let gate = server.gate();
        // In the middle of a response.
        let (mut connection, head) = begin(server, "/stream");
        let visitor = gate.wait();
        server.reload();
        drop(visitor);
        assert_eq!(connection.receive_rest(head).unwrap().text(), "onetwo");
        drop(gate.wait());
        server.wait_for_log("note: finished");
        // Nobody waits for anything but the end of the work.
        let mark = server.log().mark();
        let (mut connection, head) = begin(server, "/lasting");
        assert_eq!(connection.receive_rest(head).unwrap().text(), "onetwo");
        drop(connection);
        let visitor = gate.wait();
        server.reload();
        drop(visitor);
        server.wait_for_log_after(mark, "note: finished");
    });
}
