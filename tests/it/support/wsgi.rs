//! Python applications that are written in the test.

use super::Server;
use super::http::Response;
use super::server::Builder;

/// What every application here may use.
const PRELUDE: &str = r#"
import os, socket, sys, threading

def note(*words):
    print("note:", *words, flush=True)

def gate():
    """Waits until the test, which opened the gate, lets it go on."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("gate")
        connection.recv(1)

def answer(start_response, body, status="200 OK", *headers):
    start_response(status, [("Content-Type", "text/plain"), *headers])
    return [body if isinstance(body, bytes) else str(body).encode()]
"#;

/// A server with `app.py`, which is a few helpers (`note`, `gate`, `answer`) and `source`.
pub fn app(source: &str) -> Builder {
    Server::builtin().file("app.py", format!("{PRELUDE}{source}")).arg("--wsgi-file=app.py")
}

/// The same with one worker and so many threads.
pub fn app_with_threads(source: &str, threads: u32) -> Builder {
    app(source).args(["--master", "--processes=1"]).arg(format!("--threads={threads}"))
}

/// Checks a promise on the shortest path, one thread, and with threads.
pub fn with_and_without_threads(source: &str, check: impl Fn(&Server)) {
    for threads in [1, 4] {
        check(&app_with_threads(source, threads).start());
    }
}

/// Lines that the application wrote with `note`.
pub fn notes(server: &Server) -> Vec<String> {
    let lines = server.log().lines();
    lines.iter().filter_map(|line| line.strip_prefix("note: ").map(str::to_owned)).collect()
}

/// The application does what the query says, in Python.
pub const EVAL: &str = r#"
import urllib.parse

def application(environ, start_response):
    scope = {"start_response": start_response, "environ": environ, "note": note, "sys": sys, "gate": gate}
    exec(urllib.parse.unquote(environ["QUERY_STRING"]), scope)
    return scope["body"]
"#;

/// A server that does it.
pub fn evaluating(threads: u32) -> Server {
    app_with_threads(EVAL, threads).start()
}

/// The target of a request that has `code` run.
pub fn target(code: &str) -> String {
    let mut target = String::from("/?");
    code.bytes().for_each(|byte| target.push_str(&format!("%{byte:02x}")));
    target
}

/// Has `code` run, which sets `body`.
///
/// # Panics
/// When there is no answer.
pub fn run(server: &Server, code: &str) -> Response {
    server.get(&target(code))
}

/// Has `code` run, which fails before anything is sent.
///
/// # Panics
/// When the client does not get a 500, or the log not this `error`.
#[track_caller]
pub fn assert_raises(server: &Server, code: &str, error: &str) {
    let mark = server.log().mark();
    let answer = run(server, code);
    assert_eq!((answer.status, answer.text().as_str()), (500, "Internal Server Error"), "{code}");
    server.wait_for_log_after(mark, error);
}
