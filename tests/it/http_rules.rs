//! Bad input never reaches an application: it gets a short answer and the connection is closed.

use std::time::Duration;

use crate::support::{LIMIT, Server};

fn status_of(server: &Server, input: &[u8]) -> u16 {
    let mut connection = server.connect();
    connection.send(input).unwrap();
    let answer = connection.receive(false);
    let answer = answer.unwrap_or_else(|failure| panic!("{}: {failure:?}", input.escape_ascii()));
    if answer.status >= 400 {
        assert!(connection.ends(), "{} and the connection stays open", input.escape_ascii());
    }
    answer.status
}

#[test]
fn what_is_not_http_is_refused() {
    let server = Server::app().start();
    let cases: &[(u16, &[u8])] = &[
        (400, b"NONSENSE\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nno colon here\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nSpace : before\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n folded\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: nul\0\r\n\r\n"),
        (400, b"GET / HTTP/1.1\nHost: a\n\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: bare\rreturn\r\n\r\n"),
        (400, b"GET /two words HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
        (505, b"GET / HTTP/3.7\r\nHost: a\r\n\r\n"),
    ];
    for (status, input) in cases {
        assert_eq!(status_of(&server, input), *status, "{}", input.escape_ascii());
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_body_whose_length_is_in_doubt_is_refused() {
    let server = Server::app().start();
    let cases: &[(u16, &str)] = &[
        (400, "Content-Length: 1\r\nTransfer-Encoding: chunked"),
        (400, "Content-Length: 1\r\nContent-Length: 2"),
        (400, "Content-Length: 1, 2"),
        (400, "Content-Length: -1"),
        (400, "Content-Length: +1"),
        (400, "Content-Length: 0x1"),
        (400, "Content-Length: 99999999999999999999"),
        (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
        (400, "Transfer-Encoding: chunked, gzip"),
        (501, "Transfer-Encoding: gzip"),
    ];
    for (status, headers) in cases {
        let input = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
        assert_eq!(status_of(&server, input.as_bytes()), *status, "{headers}");
    }
}

#[test]
fn too_much_is_refused_with_the_status_that_says_so() {
    let server = Server::app().args(["--buffer-size=4096", "--limit-post=1000"]).start();
    let long = "a".repeat(5000);
    let uri = format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(status_of(&server, uri.as_bytes()), 414);
    let header = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n");
    assert_eq!(status_of(&server, header.as_bytes()), 431);
    let announced = b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n";
    assert_eq!(status_of(&server, announced), 413);
    let allowed = server.client().call("POST", "/echo", &[], &[b'x'; 1000]).unwrap();
    assert_eq!(allowed.body.len(), 1000);
}

#[test]
fn a_head_that_does_not_arrive_in_time_is_given_up() {
    let server = Server::app().arg("--http-headers-timeout=500ms").start();
    assert_eq!(status_of(&server, b"GET / HTTP/1.1\r\nHost: a\r\nX: "), 408);
}

#[test]
fn an_idle_connection_is_closed_without_a_word() {
    let server = Server::app().arg("--http-keepalive=300ms").start();
    let mut connection = server.connect();
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(connection.receive(false).unwrap().status, 200);
    assert!(connection.ends());
}

#[test]
fn requests_sent_ahead_are_answered_in_order() {
    let server = Server::app().start();
    let mut connection = server.connect();
    let one = "GET /pid HTTP/1.1\r\nHost: a\r\n\r\n";
    let two = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
    let three = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    connection.send(format!("{one}{two}{three}").as_bytes()).unwrap();
    assert_ne!(connection.receive(false).unwrap().text(), "");
    assert_eq!(connection.receive(false).unwrap().text(), "abc");
    assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n");
    assert!(connection.ends());
}

#[test]
fn an_http10_client_gets_a_connection_of_its_time() {
    let server = Server::app().start();
    let mut connection = server.connect();
    connection.send(b"GET /stream?chunks=2&size=3 HTTP/1.0\r\n\r\n").unwrap();
    let answer = connection.receive(false).unwrap();
    assert_eq!(answer.header("transfer-encoding"), None);
    assert_eq!(answer.text(), "xx\nxx\nend\n");
    assert!(connection.ends());
}

#[test]
fn a_client_that_asks_is_told_to_continue() {
    let server = Server::app().start();
    let mut connection = server.connect();
    connection.set_timeout(LIMIT.min(Duration::from_secs(10))).unwrap();
    let head = b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    connection.send(head).unwrap();
    let interim = connection.receive_status().unwrap();
    assert_eq!(interim, 100);
    connection.send(b"abc").unwrap();
    assert_eq!(connection.receive(false).unwrap().json()["length"], 3);
}

#[test]
fn framing_that_two_parsers_could_read_differently_is_refused() {
    let server = Server::app().start();
    let cases: &[(u16, &[u8])] = &[
        (400, b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n"),
        (400, b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\nabcde\n0\n\n"),
        (400, b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n"),
        (400, b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n"),
        (400, b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n"),
        (400, b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabX"),
        (400, b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
        (400, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nx"),
        (400, b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
        (400, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\n: no name\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1\r\nX\x01: a\r\nHost: a\r\n\r\n"),
        (400, b"G\x01T / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET /\r\n\r\n"),
        (400, b"GET / http/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
        (400, b" GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        (400, b"GET nopath HTTP/1.1\r\nHost: a\r\n\r\n"),
    ];
    for (status, input) in cases {
        assert_eq!(status_of(&server, input), *status, "{}", input.escape_ascii());
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn what_the_rules_allow_is_served() {
    let server = Server::app().start();
    let cases: &[&[u8]] = &[
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhOsT: [::1]:80\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nEmpty:\r\nTab:\tx\t\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: caf\xc3\xa9\r\n\r\n",
    ];
    for input in cases {
        assert_eq!(status_of(&server, input), 200, "{}", input.escape_ascii());
    }
}

#[test]
fn chunks_in_any_cut_arrive_whole() {
    let server = Server::app().start();
    let message = b"POST /echo?sum=1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
        a;name=value\r\n0123456789\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n";
    let mut connection = server.connect();
    for byte in message {
        connection.send(&[*byte]).unwrap();
    }
    assert_eq!(connection.receive(false).unwrap().json()["length"], 11);
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n", "the connection goes on");
}

#[test]
fn a_head_request_is_never_answered_with_a_body() {
    let server = Server::app().start();
    let mut connection = server.connect();
    for path in ["/", "/stream?chunks=3", "/no-such-page", "/fail"] {
        connection.send(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()).unwrap();
        connection.receive(true).unwrap();
    }
    // A body would be taken for the next answer here.
    connection.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n");
}

#[test]
fn an_http10_connection_is_kept_if_the_client_asks() {
    let server = Server::app().start();
    let mut connection = server.connect();
    for _ in 0..2 {
        connection.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
        let answer = connection.receive(false).unwrap();
        assert_eq!(answer.header("connection"), Some("keep-alive"));
        assert_eq!(answer.text(), "hello v1\n");
    }
    connection.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    connection.receive(false).unwrap();
    assert!(connection.ends());
}
