//! Limits of time and size: what is too slow, too long or too large is refused in time, with the
//! status that says so.

use std::time::{Duration, Instant};

use crate::support::{Connection, Failure, Server, eventually};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// The answer to a refused request, after which the connection must be closed.
fn refusal(connection: &mut Connection) -> u16 {
    let answer = connection.receive(false).unwrap();
    assert!(answer.status >= 400 && answer.closes(), "{answer:?}");
    assert!(!answer.body.is_empty() && answer.body.len() < 200, "{}", answer.text());
    assert!(connection.ends(), "{} and the connection stays open", answer.status);
    answer.status
}

#[test]
fn a_head_that_drips_is_given_up_at_the_limit_all_the_same() {
    let server = Server::app().arg("--http-headers-timeout=400ms").start();
    let mut connection = server.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ").unwrap();
    let begin = Instant::now();
    connection.set_timeout(Duration::from_millis(20)).unwrap();
    // A byte now and then, as a tool for slow attacks does; the wait for an answer is the pause.
    let status = loop {
        match connection.receive_status() {
            Ok(status) => break status,
            Err(Failure::Timeout) => connection.send(b"x").unwrap(),
            Err(failure) => panic!("{failure:?} after {:?}", begin.elapsed()),
        }
    };
    assert_eq!(status, 408);
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    let server = Server::app().arg("--http-headers-timeout=300ms").start();
    let mut connection = server.connect();
    assert!(connection.ends());
}

#[test]
fn an_upload_that_stands_still_is_given_up() {
    let server = Server::app().args(["--http-timeout=300ms", "--processes=1"]).start();
    for framing in ["Content-Length: 10\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n5\r\nabc"] {
        let mut connection = server.connect();
        connection.send(format!("POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\n{framing}").as_bytes()).unwrap();
        assert_eq!(refusal(&mut connection), 408, "{framing:?}");
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn an_upload_that_moves_may_take_any_time() {
    let server = Server::app().arg("--http-timeout=1s").start();
    let mut connection = server.connect();
    connection.send(b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 15\r\n\r\n").unwrap();
    connection.set_timeout(Duration::from_millis(150)).unwrap();
    for _ in 0..15 {
        // Nothing is answered before the end: the wait for it is the pause.
        assert_eq!(connection.receive_status().unwrap_err(), Failure::Timeout);
        connection.send(b"x").unwrap();
    }
    connection.set_timeout(crate::support::LIMIT).unwrap();
    assert_eq!(connection.receive(false).unwrap().json()["length"], 15);
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let server = Server::app().args(["--http-timeout=300ms", "--pidfile=pid"]).start();
    let mut connection = server.connect();
    connection.send(b"GET /stream?chunks=1000&size=65536 HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    server.wait_for_log("GET /stream?");
    let cut = connection.receive(false).unwrap_err();
    assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{cut:?}");
    eventually("the connection is forgotten", crate::support::LIMIT, || {
        let status = server.command(["--status", "pid"]).stdout;
        String::from_utf8_lossy(&status).contains(", 0 connections, 0 in flight").then_some(())
    });
}

#[test]
fn keep_alive_lasts_as_long_as_asked_for() {
    for (args, kept) in [
        (&["--http-keepalive=0"] as &[&str], false),
        (&["--http-keepalive=false"], false),
        (&["--http-keepalive"], true),
        (&["--http-keepalive=75"], true),
        (&[], true),
    ] {
        let server = Server::app().args(args).start();
        let mut connection = server.connect();
        connection.send(GET).unwrap();
        let answer = connection.receive(false).unwrap();
        assert_eq!(answer.closes(), !kept, "{args:?}");
        if kept {
            connection.send(GET).unwrap();
            assert_eq!(connection.receive(false).unwrap().status, 200, "{args:?}");
        } else {
            assert!(connection.ends(), "{args:?}");
        }
    }
}

#[test]
fn a_body_above_the_limit_is_refused_however_it_is_framed() {
    let server = Server::app().args(["--limit-post=1000", "--processes=1"]).start();
    let mut connection = server.connect();
    connection.send(b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n").unwrap();
    assert_eq!(refusal(&mut connection), 413);

    // Nobody is asked to send what will be refused.
    let mut connection = server.connect();
    let expecting = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\nExpect: 100-continue\r\n\r\n";
    connection.send(expecting).unwrap();
    assert_eq!(connection.receive_status().unwrap(), 413);

    for path in ["/echo?sum=1", "/echo"] {
        let mut connection = server.connect();
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        connection.send(head.as_bytes()).unwrap();
        let chunk = [b"1f4\r\n".as_slice(), &[b'x'; 500], b"\r\n"].concat();
        connection.send(&chunk.repeat(2)).unwrap();
        connection.send(b"1\r\nx\r\n0\r\n\r\n").unwrap();
        if path == "/echo" {
            // The answer may have begun by then: it is cut, so that nobody takes it for a whole one.
            match connection.receive(false) {
                Ok(answer) => assert_eq!(answer.status, 413),
                Err(cut) => assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{cut:?}"),
            }
        } else {
            assert_eq!(refusal(&mut connection), 413);
        }
    }
    let allowed = server.client().call("POST", "/echo", &[], &[b'x'; 1000]).unwrap();
    assert_eq!(allowed.body.len(), 1000);
}

#[test]
fn the_head_may_be_as_large_as_asked_for() {
    for (size, args) in [(32 << 10, &[] as &[&str]), (2048, &["--buffer-size=2048"]), (65536, &["-b", "64k"])]
    {
        let server = Server::app().args(args).start();
        let filled = |total: usize| {
            let frame = "GET / HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(total - frame))
        };
        let mut connection = server.connect();
        connection.send(filled(size).as_bytes()).unwrap();
        assert_eq!(connection.receive(false).unwrap().status, 200, "{size}");
        connection.send(filled(size + 1).as_bytes()).unwrap();
        assert_eq!(refusal(&mut connection), 431, "{size}");
        let mut connection = server.connect();
        connection.send(format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(size)).as_bytes()).unwrap();
        assert_eq!(refusal(&mut connection), 414, "{size}");
        let mut connection = server.connect();
        let many: String = (0..200).map(|at| format!("X{at}: x\r\n")).collect();
        if many.len() < size {
            connection.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").as_bytes()).unwrap();
            assert_eq!(refusal(&mut connection), 431, "200 fields");
        }
    }
}

#[test]
fn refusals_are_told_in_the_log() {
    let server = Server::app().start();
    let mut connection = server.connect();
    connection.send(b"NONSENSE\r\n\r\n").unwrap();
    assert_eq!(refusal(&mut connection), 400);
    let line = server.wait_for_log(" refused with 400: ");
    assert!(line.contains(" 127.0.0.1:") && line.contains("worker 1 pid "), "{line}");
}

#[test]
fn a_refusal_waits_for_the_answers_that_are_due() {
    let server = Server::app().start();
    let mut connection = server.connect();
    connection.send(b"GET /sleep?ms=100 HTTP/1.1\r\nHost: a\r\n\r\nNONSENSE\r\n\r\n").unwrap();
    assert_eq!(connection.receive(false).unwrap().text(), "slept\n");
    assert_eq!(refusal(&mut connection), 400);
}
