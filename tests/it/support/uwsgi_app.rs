//! Applications that use the `uwsgi` module.

use serde_json::Value;

use super::Server;
use super::server::Builder;

/// Answers `GET /name` with what the function `name` returns, as JSON. Bytes become text; what is
/// raised becomes `Class: message`.
const DISPATCH: &str = r#"
import json, os, sys, threading, uwsgi

def application(environ, start_response):
    try:
        value = globals()[environ["PATH_INFO"].strip("/")]()
    except Exception as error:
        value = f"{type(error).__name__}: {error}"
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(value, default=bytes.decode).encode()]

def note(*words):
    print("note:", *words, flush=True)
"#;

/// A server of two workers whose application has these functions.
pub fn server(functions: &str) -> Builder {
    Server::builtin()
        .args(["--master", "--processes=2", "--wsgi-file=app.py"])
        .file("app.py", source(functions))
}

/// The text of such an application.
pub fn source(functions: &str) -> String {
    format!("{DISPATCH}\n{functions}")
}

/// What the function `name` returned.
pub fn call(server: &Server, name: &str) -> Value {
    let response = server.get(&format!("/{name}"));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

/// How often the application has noted this.
pub fn noted(server: &Server, what: &str) -> usize {
    let line = format!("note: {what}");
    server.log().lines().iter().filter(|it| **it == line).count()
}
