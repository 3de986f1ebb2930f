//! Applications that fail: the client gets an answer or a cut, never a hang; the log gets a traceback.

use crate::support::http::request;
use crate::support::wsgi::{app, app_with_threads, with_and_without_threads};
use crate::support::{Connection, LIMIT, Server, eventually};

const FAILING: &str = r#"
class Body:
    def __init__(self, pieces):
        self.pieces = pieces
    def __iter__(self):
        return iter(self.pieces)
    def close(self):
        note("closed")

class Broken(Body):
    def __iter__(self):
        raise KeyError("iter")

class BrokenClose(Body):
    def close(self):
        raise KeyError("in close")

class Unprintable(Exception):
    def __str__(self):
        raise ValueError("cannot be shown")

def failing(*pieces):
    yield from pieces
    raise KeyError("in the generator")

def application(environ, start_response):
    kind = environ["PATH_INFO"][1:]
    if kind == "fine":
        return answer(start_response, "fine")
    if kind == "before":
        raise KeyError("before")
    if kind == "exit":
        sys.exit(3)
    if kind == "interrupt":
        raise KeyboardInterrupt
    if kind == "generator-exit":
        raise GeneratorExit
    if kind == "stop-iteration":
        raise StopIteration
    if kind == "unprintable":
        raise Unprintable
    if kind == "recursion":
        return application(environ, start_response)
    if kind == "memory":
        return [b"x" * (1 << 60)]
    start_response("200 OK", [("Content-Length", "100")] if kind.startswith("length") else [])
    if kind == "after-start":
        raise KeyError("after start_response")
    return {
        "none": lambda: None,
        "number": lambda: 5,
        "text": lambda: "text",
        "texts": lambda: [b"bytes", "text"],
        "numbers": lambda: iter([1]),
        "none-item": lambda: [None],
        "broken": lambda: Broken([]),
        "broken-close": lambda: BrokenClose([b"all"]),
        "first": lambda: failing(),
        "first-empty": lambda: failing(b""),
        "second": lambda: failing(b"first"),
        "length-second": lambda: failing(b"first"),
        "second-text": lambda: Body([b"first", "text"]),
        "exit-late": lambda: (sys.exit(4) if piece is None else piece for piece in [b"first", None]),
        "large": lambda: failing(b"x" * 3000000),
    }[kind]()
"#;

/// What a client gets of an answer that is cut.
fn begin(server: &Server, path: &str) -> (Connection, u16) {
    let mut connection = server.connect();
    connection.send(&request("GET", path, &[], b"")).unwrap();
    let status = connection.receive_status().unwrap();
    (connection, status)
}

#[test]
fn before_the_first_byte_it_is_a_500_with_a_traceback_in_the_log() {
    with_and_without_threads(FAILING, |server| {
        let pid = server.workers()[0].pid;
        for (kind, error) in [
            ("before", "KeyError: 'before'"),
            ("exit", "SystemExit: 3"),
            ("interrupt", "KeyboardInterrupt"),
            ("generator-exit", "GeneratorExit"),
            ("stop-iteration", "StopIteration"),
            ("unprintable", "Unprintable: <exception str() failed>"),
            ("recursion", "RecursionError: "),
            ("memory", "MemoryError"),
            ("after-start", "KeyError: 'after start_response'"),
            ("none", "TypeError: 'NoneType' object is not iterable"),
            ("number", "TypeError: 'int' object is not iterable"),
            ("text", "TypeError: a piece of the response must be bytes, not str"),
            ("texts", "TypeError: a piece of the response must be bytes, not str"),
            ("numbers", "TypeError: a piece of the response must be bytes, not int"),
            ("none-item", "TypeError: a piece of the response must be bytes, not NoneType"),
            ("broken", "KeyError: 'iter'"),
            ("first", "KeyError: 'in the generator'"),
            ("first-empty", "KeyError: 'in the generator'"),
        ] {
            let mark = server.log().mark();
            let answer = server.get(&format!("/{kind}"));
            assert_eq!((answer.status, answer.text().as_str()), (500, "Internal Server Error"), "{kind}");
            assert!(answer.closes());
            // Which request, the traceback, and the error.
            server.wait_for_log_after(mark, &format!("GET /{kind}:"));
            let line = server.wait_for_log_after(mark, error);
            assert!(line.ends_with(error) || error.ends_with(": "), "{line}");
        }
        assert_eq!(server.get("/fine").text(), "fine");
        assert_eq!(server.workers()[0].pid, pid, "no application ends its worker that way");
    });
}

#[test]
fn after_the_first_byte_the_connection_is_cut() {
    with_and_without_threads(FAILING, |server| {
        for (kind, error) in [
            ("second", "KeyError: 'in the generator'"),
            ("length-second", "KeyError: 'in the generator'"),
            ("second-text", "TypeError: a piece of the response must be bytes, not str"),
            ("exit-late", "SystemExit: 4"),
        ] {
            let mark = server.log().mark();
            let (mut connection, status) = begin(server, &format!("/{kind}"));
            assert_eq!(status, 200);
            let part = String::from_utf8_lossy(&connection.receive_until_cut()).into_owned();
            assert!(part.contains("first"), "what was given before is sent: {part:?}");
            assert!(!part.ends_with("0\r\n\r\n"), "the client must see that it is not the end: {part:?}");
            server.wait_for_log_after(mark, &format!("GET /{kind} (in the middle of the response):"));
            server.wait_for_log_after(mark, error);
        }
        let (mut connection, _) = begin(server, "/large");
        let part = connection.receive_until_cut();
        assert!(!part.ends_with(b"0\r\n\r\n"));
        assert_eq!(server.get("/fine").text(), "fine");
    });
}

#[test]
fn close_is_called_after_an_error_too_and_its_own_error_harms_nobody() {
    with_and_without_threads(FAILING, |server| {
        for (path, error) in [("/broken", "KeyError: 'iter'"), ("/second-text", "TypeError")] {
            let mark = server.log().mark();
            let (mut connection, _) = begin(server, path);
            connection.receive_until_cut();
            server.wait_for_log_after(mark, "note: closed");
            server.wait_for_log_after(mark, error);
        }
        let mark = server.log().mark();
        assert_eq!(server.get("/broken-close").text(), "all");
        server.wait_for_log_after(mark, "close() of the response:");
        server.wait_for_log_after(mark, "KeyError: 'in close'");
    });
}

#[test]
fn close_is_called_once_when_the_client_is_gone() {
    let source = r#"
class Body:
    def __init__(self):
        self.number = 0
    def __iter__(self):
        return self
    def __next__(self):
        self.number += 1
        if self.number == 2:
            note("second")
            gate()
        return b"x" * 100000
    def close(self):
        note("closed")

def application(environ, start_response):
    start_response("200 OK", [])
    return Body()
"#;
    with_and_without_threads(source, |server| {
        let gate = server.gate();
        let (connection, _) = begin(server, "/");
        let visitor = gate.wait();
        drop(connection);
        drop(visitor);
        // It is endless: only the missing client ends it.
        server.wait_for_log("note: closed");
        eventually("its request has ended", LIMIT, || {
            let mark = server.log().mark();
            server.signal(nix::sys::signal::Signal::SIGUSR2);
            server.wait_for_log_after(mark, "worker 1 (").contains(" 0 in flight").then_some(())
        });
        let lines = server.log().lines();
        assert_eq!(lines.iter().filter(|line| *line == "note: closed").count(), 1);
    });
}

#[test]
fn a_generator_is_closed_when_its_client_is_gone() {
    let source = r#"
def pieces():
    try:
        while True:
            yield b"x" * 100000
    finally:
        note("finally")

def application(environ, start_response):
    start_response("200 OK", [])
    return pieces()
"#;
    with_and_without_threads(source, |server| {
        let (connection, _) = begin(server, "/");
        drop(connection);
        server.wait_for_log("note: finally");
    });
}

#[test]
fn write_tells_when_the_client_is_gone() {
    let source = r#"
def application(environ, start_response):
    write = start_response("200 OK", [])
    try:
        while True:
            write(b"x" * 100000)
    except OSError as error:
        note(error)
    return []
"#;
    let server = app_with_threads(source, 2).start();
    let (connection, _) = begin(&server, "/");
    drop(connection);
    server.wait_for_log("note: write error: the client is gone");
}

#[test]
fn wsgi_errors_goes_to_the_log() {
    let source = r#"
def application(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("one caf\u00e9 \udcff\n")
    errors.writelines(["two\n", "three\n"])
    errors.flush()
    print("four", file=errors)
    print("five")
    return answer(start_response, "fine")
"#;
    with_and_without_threads(source, |server| {
        assert_eq!(server.get("/").text(), "fine");
        for line in ["one caf", "two", "three", "four", "five"] {
            server.wait_for_log(line);
        }
    });
}

#[test]
fn exceptions_are_shown_to_the_client_where_the_operator_says_so() {
    for threads in [1, 4] {
        let server = app_with_threads(FAILING, threads).arg("--catch-exceptions").start();
        let mut client = server.client();
        for (kind, error) in [
            ("before", "KeyError: 'before'"),
            ("texts", "TypeError: a piece"),
            ("first", "KeyError: 'in the"),
        ] {
            let answer = client.call("GET", &format!("/{kind}?a=b"), &[("X-Shown", "yes")], b"").unwrap();
            assert_eq!(answer.status, 500);
            assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
            let text = answer.text();
            for part in [&format!("GET /{kind}?a=b"), error, "HTTP_X_SHOWN = 'yes'", "QUERY_STRING = 'a=b'"] {
                assert!(text.contains(part), "{part:?} is missing: {text}");
            }
            // An error of the server's own check has no line of the application.
            assert_eq!(text.contains("app.py\", line "), kind != "texts", "{text}");
            assert!(!text.contains("bytes\n"), "of the response before there is nothing: {text}");
            server.wait_for_log(error);
        }
        // Too late for that.
        let (mut connection, status) = begin(&server, "/second");
        assert_eq!(status, 200);
        let part = String::from_utf8_lossy(&connection.receive_until_cut()).into_owned();
        assert!(!part.contains("Traceback"), "{part}");
    }
}

#[test]
fn a_failing_application_leaks_nothing() {
    let server = app(FAILING).args(["--master", "--processes=1"]).start();
    let pid = server.workers()[0].pid;
    let mut client = server.client();
    let body = vec![b'x'; 2 * 1024 * 1024];
    let mut once = || {
        for path in ["/before", "/second", "/broken", "/fine"] {
            let _ = client.call("POST", path, &[], &body);
        }
    };
    once();
    let descriptors = || crate::support::processes::descriptor_kinds(pid);
    let before = descriptors();
    (0..5).for_each(|_| once());
    eventually("as many descriptors as before", LIMIT, || (descriptors() == before).then_some(()));
}
