//! A Flask application in the server, by `config/flask.ini`: blueprint, session, uploads, streams,
//! error handlers.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::browser::{Browser, noise};
use crate::support::http::request;
use crate::support::python::Project;
use crate::support::{Failure, LIMIT, Load, LoadSpec};

#[test]
fn the_application_passes_its_own_tests() {
    Project::new("flask").run(&["-m", "unittest", "-q"], &[]);
}

#[test]
fn pages_come_from_templates_and_files_from_the_server() {
    let project = Project::new("flask");
    let mut server = project.start();
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.text().contains("/static/site.css"));
    let css = server.get("/static/site.css");
    assert_eq!((css.status, css.header("content-type")), (200, Some("text/css; charset=utf-8")));
    let mut browser = Browser::new(server.target());
    let head = browser.call("HEAD", "/", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_session_is_in_the_cookie_whichever_worker_answers() {
    let project = Project::new("flask");
    let server = project.start();
    let mut browser = Browser::new(server.target());
    for item in ["tea", "é"] {
        assert_eq!(browser.post_json("/api/cart", &json!({ "item": item })).status, 200);
        browser = Browser::new(server.target()).with_cookies_of(&browser);
    }
    assert_eq!(browser.get("/api/cart").json(), json!({ "cart": ["tea", "é"] }));
    server.reload();
    assert_eq!(browser.get("/api/cart").json(), json!({ "cart": ["tea", "é"] }));
    assert_eq!(Browser::new(server.target()).get("/api/cart").json(), json!({ "cart": [] }));
}

#[test]
fn uploads_arrive_whole_and_come_back_in_parts() {
    let project = Project::new("flask");
    let server = project.start();
    let mut browser = Browser::new(server.target());
    let content = noise(3 << 20);
    let answer = browser.post_file("/api/upload", &[], "é", ("a.bin", &content));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let digest = answer.json()["sha256"].clone();
    assert_eq!((&answer.json()["size"], &answer.json()["title"]), (&content.len().into(), &"é".into()));
    assert!(std::fs::read(project.data("a.bin")).expect("the application kept it") == content);

    let whole = browser.get("/api/download/a.bin");
    assert!(whole.status == 200 && whole.body == content);
    let part = browser.call("GET", "/api/download/a.bin", &[("Range", "bytes=1000000-1000999")], b"");
    assert_eq!((part.status, &part.body[..]), (206, &content[1_000_000..1_001_000]));
    let etag = whole.header("etag").expect("Flask sends one").to_owned();
    let known = browser.call("GET", "/api/download/a.bin", &[("If-None-Match", &etag)], b"");
    assert_eq!((known.status, known.body.len()), (304, 0));

    let raw = browser.call("POST", "/api/raw", &[], &content);
    assert_eq!((&raw.json()["size"], &raw.json()["sha256"]), (&content.len().into(), &digest));
}

#[test]
fn a_body_without_a_length_reaches_the_application() {
    let project = Project::new("flask");
    let server = project.start();
    let mut connection = server.connect();
    let head = request("POST", "/api/raw", &[("Transfer-Encoding", "chunked")], b"");
    connection.send(&head).expect("the server reads");
    for piece in ["5\r\nhello\r\n", "6\r\n world\r\n", "0\r\n\r\n"] {
        connection.send(piece.as_bytes()).expect("the server reads");
    }
    let answer = connection.receive(false).expect("an answer");
    assert_eq!(answer.json()["size"], 11);
}

#[test]
fn a_stream_still_sees_its_request_and_is_closed_when_the_client_leaves() {
    let project = Project::new("flask");
    let server = project.start();
    let body = server.get("/api/stream?lines=1000").text();
    assert_eq!((body.lines().next(), body.lines().count()), (Some("/api/stream 0"), 1000));
    server.wait_for_log("stream closed");

    let mark = server.log().mark();
    let mut connection = server.connect();
    connection.send(&request("GET", "/api/stream?lines=1000000000", &[], b"")).expect("the server reads");
    assert_eq!(connection.receive_begin().expect("the head comes first").status, 200);
    drop(connection);
    server.wait_for_log_after(mark, "stream closed");
}

#[test]
fn errors_are_answered_by_their_handlers_and_the_rest_is_a_500_with_a_traceback() {
    let project = Project::new("flask");
    let server = project.start();
    let cases = [("/none", 404), ("/api/divide/1/0", 400), ("/api/cart/x", 404), ("/api/broken", 500)];
    for (path, status) in cases {
        let answer = server.get(path);
        assert_eq!((answer.status, &answer.json()["status"]), (status, &status.into()), "{path}");
    }
    server.wait_for_log("RuntimeError: broken on purpose");
}

#[test]
fn an_exception_within_a_body_cuts_it_off() {
    let project = Project::new("flask");
    let server = project.start();
    let mut connection = server.connect();
    connection.send(&request("GET", "/api/broken-stream", &[], b"")).expect("the server reads");
    assert_eq!(connection.receive(false).map(|answer| answer.text()), Err(Failure::Truncated));
    server.wait_for_log("RuntimeError: broken half-way");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn reloads_under_load_lose_nothing() {
    let project = Project::new("flask");
    let server = project.start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    for generation in 2..=4 {
        load.wait_for(50);
        server.reload();
        server.wait_reloaded(generation);
    }
    load.wait_for(50);
    load.stop().assert_nothing_lost();
}
