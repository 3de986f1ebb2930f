//! What an application returns and writes (PEP 3333), as the client sees it.

use crate::support::http::request;
use crate::support::wsgi::{app_with_threads, notes, with_and_without_threads};
use crate::support::{Connection, LIMIT, eventually};

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
