//! The test bed itself: a client that cannot tell failures apart proves nothing.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use crate::support::log::{CapturedLog, Mark};
use crate::support::server::{Worker, spawned_worker};
use crate::support::{Client, Failure, Load, LoadSpec, Target, get};

/// A server that reads a little and answers each connection with the same bytes, then closes.
fn canned(answer: &'static [u8]) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    target
}

fn failure_of(answer: &'static [u8]) -> Failure {
    Client::new(&canned(answer), Duration::from_secs(10)).get("/").unwrap_err()
}

#[test]
fn bodies_are_read_by_length_by_chunks_or_to_the_end() {
    for answer in [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello".as_slice(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\n\r\nhello",
    ] {
        assert_eq!(get(&canned(answer), "/").text(), "hello");
    }
}

#[test]
fn each_way_to_fail_has_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let deserted = directory.path().join("socket");
    drop(UnixListener::bind(&deserted).unwrap());
    let refused = Client::new(&Target::Unix(deserted), Duration::from_secs(10)).get("/").unwrap_err();
    assert_eq!(refused, Failure::Refused);
    assert_eq!(failure_of(b""), Failure::EofBeforeAnswer);
    assert_eq!(failure_of(b"HTTP/1.1 200"), Failure::Truncated);
    assert_eq!(failure_of(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell"), Failure::Truncated);
    assert_eq!(
        failure_of(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n"),
        Failure::Truncated
    );
    assert!(matches!(failure_of(b"SSH-2.0\r\n\r\n"), Failure::Malformed(_)));
}

#[test]
fn silence_is_a_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = Target::Tcp(listener.local_addr().unwrap());
    let silence = Client::new(&target, Duration::from_millis(50)).get("/").unwrap_err();
    assert_eq!(silence, Failure::Timeout);
}

#[test]
fn a_connection_closed_between_two_requests_is_no_failure() {
    let mut client =
        Client::new(&canned(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Duration::from_secs(10));
    client.get("/").unwrap();
    // The server closes right behind its answer; the close has to arrive before the next request.
    crate::support::eventually("the close arrives", crate::support::LIMIT, || {
        client.is_closed().then_some(())
    });
    client.get("/").unwrap();
}

#[test]
fn a_load_counts_what_was_lost() {
    let spec = LoadSpec { keep_alive: 0, fresh: 1, ..LoadSpec::gets() };
    let load = Load::start(&canned(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"), &spec);
    load.wait_for(3);
    let report = load.stop();
    assert_eq!((report.ok, report.failed.get("Fresh: ServerError(503)")), (0, Some(&report.sent)));
}

#[test]
fn worker_lines_of_the_log_are_understood() {
    let line = "[2026] INFO spawned appserver worker 1 (pid: 7, cores: 1)";
    assert_eq!(spawned_worker(line), Some(Worker { slot: 1, pid: 7 }));
    assert_eq!(spawned_worker("Respawned appserver worker 2 (new pid: 8)"), Some(Worker { slot: 2, pid: 8 }));
    assert_eq!(spawned_worker("spawned appserver master process (pid: 6)"), None);
}

#[test]
fn a_log_is_waited_for_from_a_mark() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let log = CapturedLog::capture(reader);
    let limit = crate::support::LIMIT;
    writer.write_all(b"one\ntwo\n").unwrap();
    assert!(log.wait_for(Mark::START, limit, |line| line == "two").is_some());
    let mark = log.mark();
    writer.write_all(b"three\n").unwrap();
    drop(writer);
    assert_eq!(log.wait_for(mark, limit, |line| line.starts_with('t')).as_deref(), Some("three"));
    assert_eq!(log.wait_for(mark, limit, |line| line == "one"), None, "the log ended without it");
    assert!(log.wait_end(limit));
}
