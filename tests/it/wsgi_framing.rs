//! Where a response ends: `Content-Length` and the body, HEAD, statuses without a body, HTTP/1.0.

use crate::support::http::{Response, request};
use crate::support::wsgi::{evaluating, run, target};

#[test]
fn a_body_is_as_long_as_its_content_length() {
    for threads in [1, 4] {
        let server = evaluating(threads);
        let cut = |body: &str| {
            let code = format!("start_response('200 OK', [('Content-Length', '10')]); body = {body}");
            let mut connection = server.connect();
            connection.send(&request("GET", &target(&code), &[], b"")).unwrap();
            let head = connection.receive_begin().unwrap();
            assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "{body}");
            connection
        };
        // Too short: the client must see that something is missing.
        for body in ["[b'12345']", "[]", "iter([b'123', b'45'])", "b'12345'", "iter([])"] {
            let mark = server.log().mark();
            let part = cut(body).receive_until_cut();
            assert!(b"12345".starts_with(&part), "{body}: {part:?}");
            let line = server.wait_for_log_after(mark, "promised a body of 10 bytes and gave ");
            assert!(line.contains("gave 5") || line.contains("gave 0"), "{line}");
        }
        // Too long: the client gets what was promised, and the connection can be used further.
        for body in [
            "[b'1234567890', b'x']",
            "[b'1234567890x']",
            "iter([b'12345', b'67890x', b'y'])",
            "iter([b'1234567890', b'x'])",
            "b'1234567890xyz'",
        ] {
            let mark = server.log().mark();
            let mut connection = cut(body);
            let code = "start_response('200 OK', []); body = [b'next']";
            connection.send(&request("GET", &target(code), &[], b"")).unwrap();
            let rest = connection.receive_body(&Response {
                status: 200,
                headers: vec![("content-length".to_owned(), "10".to_owned())],
                body: Vec::new(),
            });
            assert_eq!(rest.unwrap(), b"1234567890", "{body}");
            assert_eq!(connection.receive(false).unwrap().text(), "next", "{body}");
            server.wait_for_log_after(mark, "gave more than the body of 10 bytes");
        }
        let code = "write = start_response('200 OK', [('Content-Length', '3')]); write(b'12')
try:
    write(b'345')
except AssertionError as error:
    note(error)
body = []";
        assert_eq!(run(&server, code).text(), "123");
        server.wait_for_log("note: write() is given more than the Content-Length says");
    }
}

#[test]
fn an_application_goes_on_after_the_last_byte_it_promised() {
    let code = "
def pieces():
    start_response('200 OK', [('Content-Length', '4')])
    yield b'ab'
    yield b'cd'
    note('after the last piece')
body = pieces()
";
    for threads in [1, 4] {
        let server = evaluating(threads);
        for _ in 0..20 {
            let mark = server.log().mark();
            assert_eq!(run(&server, code).text(), "abcd");
            server.wait_for_log_after(mark, "note: after the last piece");
        }
    }
}

#[test]
fn head_gets_the_head_and_no_more() {
    for threads in [1, 4] {
        let server = evaluating(threads);
        let mut connection = server.connect();
        for (headers, body, length) in [
            ("[('Content-Length', '5')]", "[b'12345']", Some("5")),
            ("[('Content-Length', '5')]", "[]", Some("5")),
            ("[('Content-Length', '5')]", "iter([b'12', b'345'])", Some("5")),
            ("[('Content-Length', '50')]", "iter([b'12', b'345'])", Some("50")),
            ("[('Content-Length', '5')]", "[b'12345678']", Some("5")),
            ("[]", "[b'12345']", None),
            ("[]", "[]", None),
            ("[]", "iter([b'12', b'345'])", None),
        ] {
            let code = format!("start_response('200 OK', {headers}); body = {body}");
            connection.send(&request("HEAD", &target(&code), &[], b"")).unwrap();
            let answer = connection.receive(true).unwrap();
            assert_eq!((answer.status, answer.header("content-length")), (200, length), "{headers} {body}");
            assert_eq!(answer.header("transfer-encoding"), None);
        }
        for code in [
            "write = start_response('200 OK', []); write(b'12345'); body = [b'6']",
            "
class Body:
    def __iter__(self):
        yield b'one'
        yield b'two'
    def close(self):
        note('closed after HEAD')
start_response('200 OK', []); body = Body()",
        ] {
            connection.send(&request("HEAD", &target(code), &[], b"")).unwrap();
            assert_eq!(connection.receive(true).unwrap().status, 200);
        }
        server.wait_for_log("note: closed after HEAD");
        // In order, with nothing between.
        let code = "start_response('200 OK', []); body = [b'next']";
        connection.send(&request("GET", &target(code), &[], b"")).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "next");
        let log = server.log().lines();
        assert!(!log.iter().any(|line| line.contains(" promised ") || line.contains("Error")), "{log:#?}");
    }
}

#[test]
fn statuses_without_a_body_have_none() {
    for threads in [1, 4] {
        let server = evaluating(threads);
        let mut connection = server.connect();
        for (status, length) in [("204 No Content", None), ("304 Not Modified", Some("5"))] {
            for (headers, length) in [("[]", None), ("[('Content-Length', '5')]", length)] {
                for body in ["[]", "[b'12345']", "iter([b'12', b'345'])", "b'12345'"] {
                    let code = format!("start_response('{status}', {headers}); body = {body}");
                    connection.send(&request("GET", &target(&code), &[], b"")).unwrap();
                    let answer = connection.receive(false).unwrap();
                    assert_eq!(answer.status.to_string(), status[..3]);
                    assert_eq!(answer.header("content-length"), length, "{status} {headers} {body}");
                    assert_eq!(answer.header("transfer-encoding"), None);
                }
            }
        }
        let code = "write = start_response('204 No Content', []); write(b'12345'); body = [b'6']";
        connection.send(&request("GET", &target(code), &[], b"")).unwrap();
        assert_eq!(connection.receive(false).unwrap().status, 204);
        let code = "start_response('200 OK', []); body = [b'next']";
        connection.send(&request("GET", &target(code), &[], b"")).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "next");
    }
}

#[test]
fn http_10_connections_are_kept_when_the_length_is_known() {
    for threads in [1, 4] {
        let server = evaluating(threads);
        let mut connection = server.connect();
        for body in ["[b'12345']", "b'12345'", "[b'123', b'45']"] {
            let path = target(&format!("start_response('200 OK', []); body = {body}"));
            connection
                .send(format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes())
                .unwrap();
            let answer = connection.receive(false).unwrap();
            assert_eq!((answer.text().as_str(), answer.header("connection")), ("12345", Some("keep-alive")));
        }
        let path =
            target("start_response('200 OK', [('Content-Length', '5')]); body = iter([b'123', b'45'])");
        connection.send(format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "12345");
        // Without a length, its end is the end of the connection.
        let path = target("start_response('200 OK', []); body = iter([b'123', b'45'])");
        connection.send(format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").as_bytes()).unwrap();
        let answer = connection.receive(false).unwrap();
        assert_eq!(answer.text(), "12345");
        assert!(connection.ends());
    }
}
