//! No answer is cut by a reset: a client that is still sending gets to read it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::support::{LIMIT, Server, Target};

const MIB: usize = 1024 * 1024;

fn connect(server: &Server) -> TcpStream {
    let Target::Tcp(address) = *server.target() else { unreachable!("it listens on a port") };
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    stream.set_write_timeout(Some(LIMIT)).expect("a limit");
    stream
}

/// Sends all of the request before it reads: a client that is reset meanwhile never sees the answer.
fn send_all_then_read(server: &Server, head: &str, body: usize) -> String {
    let mut stream = connect(server);
    stream.write_all(head.as_bytes()).expect("the head");
    let piece = vec![b'x'; 64 * 1024];
    for _ in 0..body / piece.len() {
        stream.write_all(&piece).expect("the body is taken, not reset");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer, then the end");
    answer
}

fn post(path: &str, framing: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n")
}

#[test]
fn a_client_that_sends_all_of_a_refused_body_reads_why() {
    let server = Server::app().args(["--limit-post=1000", "--processes=1"]).start();
    for path in ["/", "/echo", "/echo?sum=1"] {
        let head = post(path, &format!("Content-Length: {}", 10 * MIB));
        let answer = send_all_then_read(&server, &head, 10 * MIB);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer:?}");
    }
    // One chunk that is too long.
    let head = post("/echo?sum=1", "Transfer-Encoding: chunked") + "a00000\r\n";
    assert!(send_all_then_read(&server, &head, 10 * MIB).starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_client_that_sends_on_after_a_malformed_request_reads_why() {
    let server = Server::app().arg("--processes=1").start();
    for (head, status) in [
        ("NONSENSE\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    ] {
        let answer = send_all_then_read(&server, head, 4 * MIB);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer:?}");
    }
}

#[test]
fn a_body_that_the_application_does_not_read_cuts_no_answer() {
    let server = Server::app().arg("--processes=1").start();
    let head = post("/", &format!("Content-Length: {}", 4 * MIB));
    let answer = send_all_then_read(&server, &head, 4 * MIB);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("hello v1\n"), "{answer:?}");
}

#[test]
fn requests_behind_the_last_one_cut_no_answer() {
    let server = Server::app().arg("--processes=1").start();
    let head = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let mut stream = connect(&server);
    stream.write_all(head.as_bytes()).unwrap();
    // What comes after the last request is nobody's business.
    stream.write_all("GET /ignored HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer, then the end");
    assert!(answer.ends_with("hello v1\n") && answer.matches("HTTP/1.1 ").count() == 1, "{answer:?}");
}

#[test]
fn a_stop_cuts_no_answer_either() {
    let mut server = Server::app().args(["--limit-post=4m", "--processes=1"]).start();
    let mut refused = connect(&server);
    refused.write_all(post("/", &format!("Content-Length: {}", 10 * MIB)).as_bytes()).unwrap();
    server.wait_for_log("refused with 413");
    let mut ignored = connect(&server);
    let path = "/stream?chunks=3&ms=100&size=10";
    ignored.write_all(post(path, &format!("Content-Length: {}", 2 * MIB)).as_bytes()).unwrap();
    let mut begun = [0; 12];
    ignored.read_exact(&mut begun).expect("the answer has begun");
    server.signal(Signal::SIGINT);
    server.wait_for_log("graceful shutdown triggered");
    for (stream, begun, end) in [(&mut refused, "HTTP/1.1 413 ", "\n"), (&mut ignored, "", "0\r\n\r\n")] {
        stream.write_all(&vec![b'x'; 2 * MIB]).expect("taken, not reset");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("the answer, then the end");
        assert!(answer.starts_with(begun) && answer.ends_with(end), "{answer:?}");
    }
    drop((refused, ignored));
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_client_that_never_closes_is_cut_off_in_the_end() {
    let server = Server::app().args(["--limit-post=1000", "--processes=1"]).start();
    let mut stream = connect(&server);
    stream.write_all(post("/", &format!("Content-Length: {}", 1_u64 << 40)).as_bytes()).unwrap();
    // By bytes: it sends for ever.
    let piece = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while sent < 256 * MIB && stream.write_all(&piece).is_ok() {
        sent += piece.len();
    }
    assert!(sent < 256 * MIB, "it would read for ever");
    // By time: it neither sends nor closes.
    let mut stream = connect(&server);
    stream.write_all(b"NONSENSE\r\n\r\n").unwrap();
    let begin = Instant::now();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 400 "));
    crate::support::eventually("the server has closed its socket", LIMIT, || {
        // Only a closed socket answers with a reset.
        stream.write_all(b"x").is_err().then_some(())
    });
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
}
