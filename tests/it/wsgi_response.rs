//! `start_response`, `write()` and what an application returns (PEP 3333), as the client sees it.

use crate::support::http::{Response, request};
use crate::support::server::Builder;
use crate::support::wsgi::{app_with_threads, notes, with_and_without_threads};
use crate::support::{Connection, LIMIT, Server, eventually};

/// Applications by path.
const SHAPES: &str = r#"
PLAIN = [("Content-Type", "text/plain")]

class Body:
    """An iterable that notes its close."""
    def __init__(self, name, pieces):
        self.name, self.pieces = name, iter(pieces)
    def __iter__(self):
        return self
    def __next__(self):
        return next(self.pieces)
    def close(self):
        note("closed", self.name)

class Sequence:
    def __getitem__(self, index):
        return [b"seq", b"uence"][index]

class Bytes(bytes):
    pass

class List(list):
    def close(self):
        note("closed list")

def lazily(start_response):
    yield b""
    start_response("201 Created", PLAIN)
    yield b""
    yield b"la"
    yield b"zy"

def shapes(name, start_response):
    if name == "lazily":
        return lazily(start_response)
    write = start_response("200 OK", PLAIN)
    if name == "write":
        write(b"written ")
        write(b"")
        write(b"twice ")
        return [b"and", b" returned"]
    if name == "write-only":
        write(b"written")
        return []
    if name == "write-iterator":
        write(b"written ")
        return iter([b"iterated"])
    return {
        "list": lambda: [b"li", b"", b"st"],
        "many": lambda: [b"%d " % number for number in range(10000)],
        "large": lambda: [b"x" * 30000, b"y", b"z" * 70000, b"end"],
        "empty-list": lambda: [],
        "empty-pieces": lambda: [b"", b""],
        "tuple": lambda: (b"tu", b"ple"),
        "bytes": lambda: b"bytes",
        "subclass": lambda: [Bytes(b"sub"), b"class"],
        "list-subclass": lambda: List([b"list", b" subclass"]),
        "iterator": lambda: iter([b"ite", b"", b"rator"]),
        "map": lambda: map(bytes, [b"m", b"ap"]),
        "generator": lambda: (piece for piece in [b"gene", b"", b"rator"]),
        "empty-generator": lambda: (piece for piece in []),
        "set": lambda: {b"set"},
        "dict": lambda: {b"dict": 1},
        "sequence": lambda: Sequence(),
        "body": lambda: Body("body", [b"bo", b"dy"]),
        "empty-body": lambda: Body("empty-body", [b""]),
    }[name]()

def application(environ, start_response):
    return shapes(environ["PATH_INFO"][1:], start_response)
"#;

#[test]
fn every_shape_of_a_body_arrives() {
    let many: String = (0..10_000).map(|number| format!("{number} ")).collect();
    let large = format!("{}y{}end", "x".repeat(30_000), "z".repeat(70_000));
    with_and_without_threads(SHAPES, |server| {
        let mut client = server.client();
        for (name, expected) in [
            ("list", "list"),
            ("many", &many),
            ("large", &large),
            ("empty-list", ""),
            ("empty-pieces", ""),
            ("tuple", "tuple"),
            ("bytes", "bytes"),
            ("subclass", "subclass"),
            ("list-subclass", "list subclass"),
            ("iterator", "iterator"),
            ("map", "map"),
            ("generator", "generator"),
            ("empty-generator", ""),
            ("set", "set"),
            ("dict", "dict"),
            ("sequence", "sequence"),
            ("body", "body"),
            ("empty-body", ""),
            ("write", "written twice and returned"),
            ("write-only", "written"),
            ("write-iterator", "written iterated"),
            ("lazily", "lazy"),
        ] {
            let answer =
                client.get(&format!("/{name}")).unwrap_or_else(|failure| panic!("{name}: {failure:?}"));
            assert_eq!(
                (answer.text(), answer.header("content-type")),
                (expected.to_owned(), Some("text/plain"))
            );
            assert_eq!(answer.status, if name == "lazily" { 201 } else { 200 }, "{name}");
            assert!(!client.is_closed(), "{name}");
            // HTTP/1.0 knows no chunks.
            let mut old = server.connect();
            old.send(format!("GET /{name} HTTP/1.0\r\n\r\n").as_bytes()).unwrap();
            let answer = old.receive_begin().unwrap();
            assert_eq!(answer.header("transfer-encoding"), None);
            assert_eq!(old.receive_rest(answer).unwrap().text(), expected, "{name} in HTTP/1.0");
        }
        // Complete bodies say their length.
        for name in ["list", "many", "large", "empty-list", "bytes"] {
            let answer = client.get(&format!("/{name}")).unwrap();
            assert_eq!(
                answer.header("content-length"),
                Some(answer.body.len().to_string().as_str()),
                "{name}"
            );
        }
        eventually("each close is called, twice for two requests", LIMIT, || {
            let mut notes = notes(server);
            notes.sort();
            let expected = ["body", "empty-body", "list"].map(|name| format!("closed {name}"));
            (notes == expected.iter().flat_map(|note| [note.clone(), note.clone()]).collect::<Vec<_>>())
                .then_some(())
        });
    });
}

/// The application does what the query says, in Python.
const EVAL: &str = r#"
import urllib.parse

def application(environ, start_response):
    scope = {"start_response": start_response, "environ": environ, "note": note, "sys": sys, "gate": gate}
    exec(urllib.parse.unquote(environ["QUERY_STRING"]), scope)
    return scope["body"]
"#;

fn evaluating(threads: u32) -> Server {
    app_with_threads(EVAL, threads).start()
}

fn target(code: &str) -> String {
    let mut target = String::from("/?");
    code.bytes().for_each(|byte| target.push_str(&format!("%{byte:02x}")));
    target
}

fn run(server: &Server, code: &str) -> Response {
    server.get(&target(code))
}

#[track_caller]
fn assert_raises(server: &Server, code: &str, error: &str) {
    let mark = server.log().mark();
    let answer = run(server, code);
    assert_eq!((answer.status, answer.text().as_str()), (500, "Internal Server Error"), "{code}");
    server.wait_for_log_after(mark, error);
}

#[test]
fn a_wrong_head_is_an_error_where_the_application_makes_it() {
    for threads in [1, 4] {
        let server = evaluating(threads);
        for (arguments, error) in [
            ("200, []", "TypeError: the status is not a str"),
            ("b'200 OK', []", "TypeError: the status is not a str"),
            ("'', []", "ValueError: the status \"\" is not"),
            ("'OK', []", "ValueError: the status \"OK\" is not"),
            ("'20 OK', []", "ValueError: the status \"20 OK\" is not"),
            ("'2000 OK', []", "ValueError: the status \"2000 OK\" is not"),
            ("'200OK', []", "ValueError: the status \"200OK\" is not"),
            ("'+20 OK', []", "ValueError: the status"),
            ("'100 Continue', []", "ValueError: the status"),
            ("'101 Switching Protocols', []", "ValueError: the status"),
            ("'200 O\\r\\nK: x', []", "ValueError: the status \"200 O\\r\\nK: x\" has control characters"),
            ("'200 \\u20ac', []", "UnicodeEncodeError: "),
            ("'200 OK', ()", "TypeError: the headers are not a list"),
            ("'200 OK', None", "TypeError: the headers are not a list"),
            ("'200 OK', {'a': 'b'}", "TypeError: the headers are not a list"),
            ("'200 OK', ['ab']", "TypeError: a header is not a tuple"),
            ("'200 OK', [['a', 'b']]", "TypeError: a header is not a tuple"),
            ("'200 OK', [('a', 'b', 'c')]", "TypeError: a header is not a tuple"),
            ("'200 OK', [('a', b'b')]", "TypeError: name and value of a header"),
            ("'200 OK', [(b'a', 'b')]", "TypeError: name and value of a header"),
            ("'200 OK', [('Content-Length', 5)]", "TypeError: name and value of a header"),
            ("'200 OK', [('a b', 'c')]", "ValueError: the name of the header \"a b\": \"c\""),
            ("'200 OK', [('', 'c')]", "ValueError: the name of the header"),
            ("'200 OK', [('a:', 'c')]", "ValueError: the name of the header"),
            ("'200 OK', [('a\\r\\nb', 'c')]", "ValueError: the name of the header"),
            ("'200 OK', [('a', 'b\\r\\nc: d')]", "ValueError: the value of the header"),
            ("'200 OK', [('a', 'b\\nc: d')]", "ValueError: the value of the header"),
            ("'200 OK', [('a', 'b\\0')]", "ValueError: the value of the header"),
            ("'200 OK', [('a', '\\u20ac')]", "UnicodeEncodeError: "),
            ("'200 OK', [('Content-Length', '-1')]", "ValueError: this is no length"),
            ("'200 OK', [('Content-Length', '1'), ('content-length', '2')]", "ValueError: this is no length"),
            ("'200 OK'", "TypeError: start_response takes"),
            ("", "TypeError: start_response takes"),
            ("'200 OK', [], None, 1", "TypeError: start_response takes"),
        ] {
            assert_raises(&server, &format!("start_response({arguments}); body = [b'x']"), error);
        }
        assert_eq!(run(&server, "start_response('200 OK', []); body = [b'x']").text(), "x");
    }
}

#[test]
fn what_is_unusual_and_right_passes() {
    let server = evaluating(1);
    let mut connection = server.connect();
    let mut line_of = |status: &str| {
        let code = format!("start_response({status:?}, []); body = [b'x']");
        connection.send(&request("GET", &target(&code), &[], b"")).unwrap();
        connection.receive_begin().map(|begun| begun.status).unwrap()
    };
    assert_eq!(line_of("299 Almost"), 299);
    for (status, expected) in [
        ("200 OK", "HTTP/1.1 200 OK\r\n"),
        ("404", "HTTP/1.1 404 Not Found\r\n"),
        ("404 ", "HTTP/1.1 404 Not Found\r\n"),
        ("404 Gone fishing", "HTTP/1.1 404 Gone fishing\r\n"),
        ("299 Almost", "HTTP/1.1 299 Almost\r\n"),
        ("999 Caf\u{e9}", "HTTP/1.1 999 Caf"),
    ] {
        let code = format!("start_response('{status}', [('Connection', 'close')]); body = [b'x']");
        let mut connection = server.connect();
        connection.send(&request("GET", &target(&code), &[], b"")).unwrap();
        let answer = String::from_utf8_lossy(&connection.receive_to_end().unwrap()).into_owned();
        assert!(answer.starts_with(expected), "{status}: {answer}");
    }
    let code = "start_response('200 OK', [('X-A', '1'), ('x-a', '2'), ('Set-Cookie', 'a=\\xe9'), ('X-E', '')]); body = [b'x']";
    let answer = run(&server, code);
    let values: Vec<&str> =
        answer.headers.iter().filter(|(name, _)| name == "x-a").map(|(_, value)| value.as_str()).collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(answer.header("x-e"), Some(""));
    // Content-Length, once, though it was said twice.
    let code = "start_response('200 OK', [('Content-Length', '1'), ('content-length', ' 1')]); body = [b'x']";
    let answer = run(&server, code);
    assert_eq!(answer.headers.iter().filter(|(name, _)| name == "content-length").count(), 1);
}

#[test]
fn fields_of_the_connection_are_the_servers() {
    let server = evaluating(1);
    let code = "start_response('200 OK', [('Connection', 'keep-alive, upgrade'), ('Keep-Alive', 'timeout=1'), \
                ('Transfer-Encoding', 'chunked'), ('Upgrade', 'h2c'), ('Trailer', 'X'), ('TE', 'x')]); body = [b'x']";
    let mut client = server.client();
    for _ in 0..2 {
        let answer = client.get(&target(code)).unwrap();
        assert_eq!(answer.text(), "x");
        for name in ["connection", "keep-alive", "transfer-encoding", "upgrade", "trailer", "te"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }
    assert!(!client.is_closed());
    let answer =
        client.get(&target("start_response('200 OK', [('Connection', 'Close')]); body = [b'x']")).unwrap();
    assert!(answer.closes());
}

#[test]
fn start_response_may_be_called_again_only_with_an_error() {
    for threads in [1, 4] {
        let server = evaluating(threads);
        assert_raises(
            &server,
            "start_response('200 OK', []); start_response('201 Created', []); body = []",
            "AssertionError: start_response was called before",
        );
        let code = "
start_response('200 OK', [('X-Old', '1')])
try:
    raise KeyError('early')
except KeyError:
    start_response('503 Sorry', [('X-New', '1')], sys.exc_info())
body = [b'sorry']
";
        let answer = run(&server, code);
        assert_eq!((answer.status, answer.text().as_str()), (503, "sorry"));
        assert_eq!((answer.header("x-old"), answer.header("x-new")), (None, Some("1")));
        server.wait_for_log("KeyError: 'early'");
        // Too late: the error goes on, and the client sees a cut.
        let code = "
def late():
    start_response('200 OK', [])
    yield b'first'
    try:
        raise KeyError('late')
    except KeyError:
        start_response('500 Oh', [], sys.exc_info())
    yield b'never'
body = late()
";
        let mut connection = server.connect();
        connection.send(&request("GET", &target(code), &[], b"")).unwrap();
        assert_eq!(connection.receive_status(), Ok(200));
        let part = String::from_utf8_lossy(&connection.receive_until_cut()).into_owned();
        assert!(part.contains("first") && !part.contains("never") && !part.ends_with("0\r\n\r\n"), "{part}");
        server.wait_for_log("KeyError: 'late'");
        // The second head takes the place of the first as long as nothing is out.
        let code = "
start_response('200 OK', [('Content-Length', '100')])
try:
    raise ValueError
except ValueError:
    start_response('500 Oh', [], sys.exc_info())
body = [b'short']
";
        assert_eq!(run(&server, code).text(), "short");
    }
}

#[test]
fn an_application_that_says_no_status_has_failed() {
    for threads in [1, 4] {
        let server = evaluating(threads);
        for body in ["[b'x']", "[]", "iter([])", "b'x'", "iter([b'', b'x'])", "(piece for piece in [b'x'])"] {
            assert_raises(&server, &format!("body = {body}"), "start_response");
        }
    }
}

#[test]
fn a_start_response_that_was_kept_does_nothing() {
    let server = evaluating(1);
    run(&server, "sys.kept = start_response; start_response('200 OK', []); body = [b'x']");
    let code = "
start_response('200 OK', [])
try:
    sys.kept('404 Oh', [])
    body = [b'no error']
except RuntimeError as error:
    body = [str(error).encode()]
";
    assert_eq!(run(&server, code).text(), "start_response of a request that is over");
    let code = "sys.write = start_response('200 OK', []); body = [b'x']";
    run(&server, code);
    let code = "
start_response('200 OK', [])
try:
    sys.write(b'y')
    body = [b'no error']
except RuntimeError as error:
    body = [str(error).encode()]
";
    assert_eq!(run(&server, code).text(), "write() of a request that is over");
}

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

/// Each piece waits at the gate.
const GATED: &str = r#"
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield b"first "
    gate()
    yield b"second "
    gate()
    yield b""
    gate()
    yield b"third"
"#;

fn expect_bytes(connection: &mut Connection, expected: &str) {
    let mut seen = Vec::new();
    // One chunk is one piece.
    while seen.len() < expected.len() {
        seen.extend(connection.receive_chunk().unwrap());
    }
    assert_eq!(String::from_utf8_lossy(&seen), expected);
}

#[test]
fn each_piece_reaches_the_client_before_the_next_is_asked_for() {
    with_and_without_threads(GATED, |server| {
        let gate = server.gate();
        let mut connection = server.connect();
        connection.send(&request("GET", "/", &[], b"")).unwrap();
        assert_eq!(connection.receive_status(), Ok(200));
        expect_bytes(&mut connection, "first ");
        drop(gate.wait());
        expect_bytes(&mut connection, "second ");
        drop(gate.wait());
        drop(gate.wait());
        expect_bytes(&mut connection, "third");
        assert_eq!(connection.receive_chunks().unwrap(), b"");
    });
}

#[test]
fn with_threads_what_is_written_is_sent_at_once() {
    let source = r#"
def application(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    write(b"first ")
    gate()
    write(b"second ")
    gate()
    return [b"third"]
"#;
    let server = app_with_threads(source, 2).start();
    let gate = server.gate();
    let mut connection = server.connect();
    connection.send(&request("GET", "/", &[], b"")).unwrap();
    assert_eq!(connection.receive_status(), Ok(200));
    expect_bytes(&mut connection, "first ");
    drop(gate.wait());
    expect_bytes(&mut connection, "second ");
    drop(gate.wait());
    assert_eq!(connection.receive_chunks().unwrap(), b"third");
}

#[test]
fn much_that_is_written_arrives_whole() {
    let source = r#"
def application(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    for number in range(200):
        write(bytes([number]) * 50000)
    return [b"end"]
"#;
    with_and_without_threads(source, |server| {
        let mut expected: Vec<u8> = (0..200).flat_map(|number| [number; 50_000]).collect();
        expected.extend_from_slice(b"end");
        assert!(server.get("/").body == expected);
    });
}

#[test]
fn the_client_does_not_wait_for_close() {
    let source = r#"
class Body:
    def __init__(self, pieces):
        self.pieces = iter(pieces)
    def __iter__(self):
        return self.pieces
    def close(self):
        gate()
        note("closed")

class Listed(list):
    def close(self):
        gate()
        note("closed")

def application(environ, start_response):
    kind = environ["PATH_INFO"][1:]
    headers = [("Content-Length", "5")] if kind.startswith("length") else []
    if kind.endswith("file"):
        import io
        start_response("200 OK", headers)
        file = open("app.py", "rb")
        close = file.close
        def close_later():
            close()
            gate()
            note("closed")
        file.close = close_later
        return environ["wsgi.file_wrapper"](file)
    start_response("200 OK", headers)
    return Body([b"123", b"45"]) if kind.endswith("pieces") else Listed([b"123", b"45"])
"#;
    with_and_without_threads(source, |server| {
        let gate = server.gate();
        for path in ["/pieces", "/length-pieces", "/list", "/length-list", "/file"] {
            let mark = server.log().mark();
            // Complete for the client, with its end, while close() has not begun to return.
            let answer = server.get(path);
            match path {
                "/file" => assert!(answer.text().contains("def gate")),
                _ => assert_eq!(answer.text(), "12345", "{path}"),
            }
            drop(gate.wait());
            server.wait_for_log_after(mark, "note: closed");
        }
    });
}

fn options(option: &str, threads: u32) -> Builder {
    app_with_threads(EVAL, threads).arg(option)
}

#[test]
fn buffers_are_pieces_where_the_operator_says_so() {
    let shapes = ["[bytearray(b'ab'), memoryview(b'cd')]", "iter([memoryview(b'abcd')[::1]])"];
    for threads in [1, 4] {
        let (strict, lax) = (evaluating(threads), options("--wsgi-accept-buffer", threads).start());
        for shape in shapes {
            let code = format!("start_response('200 OK', []); body = {shape}");
            assert_eq!(run(&lax, &code).text(), "abcd");
            assert_raises(&strict, &code, "TypeError: a piece of the response must be bytes, not ");
        }
        let code = "write = start_response('200 OK', []); write(bytearray(b'ab')); body = [b'cd']";
        assert_eq!(run(&lax, code).text(), "abcd");
        assert_raises(&strict, code, "TypeError: what write() is given must be bytes, not bytearray");
        let code = "start_response('200 OK', []); body = ['text']";
        assert_raises(&lax, code, "TypeError");
    }
}

#[test]
fn bytes_are_no_body_where_the_operator_is_strict() {
    let server = options("--wsgi-strict", 1).start();
    let code = "start_response('200 OK', []); body = b'abc'";
    assert_raises(&server, code, "TypeError: a piece of the response must be bytes, not int");
    assert_eq!(run(&server, "start_response('200 OK', []); body = [b'abc']").text(), "abc");
}

#[test]
fn headers_are_sent_by_start_response_where_the_operator_wants_it() {
    let source = r#"
def application(environ, start_response):
    start_response("200 OK", [("X-Early", "1")])
    if environ["PATH_INFO"] == "/blocking":
        gate()
        return [b"body"]
    def pieces():
        gate()
        yield b"body"
    return pieces()
"#;
    for (threads, path) in [(1, "/pieces"), (4, "/pieces"), (4, "/blocking")] {
        let server = app_with_threads(source, threads).arg("--start_response-nodelay").start();
        let gate = server.gate();
        let mut connection = server.connect();
        connection.send(&request("GET", path, &[], b"")).unwrap();
        let head = connection.receive_begin().unwrap();
        assert_eq!(head.header("x-early"), Some("1"));
        drop(gate.wait());
        assert_eq!(connection.receive_rest(head).unwrap().text(), "body");
    }
}
