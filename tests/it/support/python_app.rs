//! Python applications of the fault tests, and the interpreters to run them with.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::Server;
use super::server::Builder;

/// Answers `GET /name` with what the function `name` of the application returns.
const DISPATCH: &str = r#"
import os, sys, threading, time

def application(environ, start_response):
    handler = globals()[environ["PATH_INFO"].strip("/") or "hello"]
    body = str(handler()).encode()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body]

def hello():
    return "hello"

def pid():
    return os.getpid()
"#;

/// An application with these functions besides `hello` and `pid`.
pub fn source(functions: &str) -> String {
    format!("{DISPATCH}\n{functions}")
}

/// A server of two workers with this application, not started yet.
pub fn server(functions: &str) -> Builder {
    bare().file("app.py", source(functions)).arg("--wsgi-file=app.py")
}

/// A server of two workers without an application.
pub fn bare() -> Builder {
    Server::builtin().args(["--master", "--processes=2"]).arg(format!("--python={}", usual().display()))
}

/// The interpreter behind `python3`: asked once, because that may be a slow script.
pub fn usual() -> &'static PathBuf {
    static USUAL: OnceLock<PathBuf> = OnceLock::new();
    USUAL.get_or_init(|| {
        let output = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let output = output.expect("the tests need python3");
        String::from_utf8(output.stdout).expect("a path").trim().into()
    })
}
