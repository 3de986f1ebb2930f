//! `environ`: what an application is told about a request (PEP 3333, RFC 3875).

use std::net::TcpListener;

use serde_json::{Value, json};

use crate::support::http::request;
use crate::support::wsgi::{app, app_with_threads, with_and_without_threads};
use crate::support::{Server, Target};

/// Answers with its environ, each value with its type.
const ENVIRON: &str = r#"
import json

def application(environ, start_response):
    shown = {}
    for key, value in environ.items():
        kind = type(value).__name__
        if isinstance(value, bytes):
            value = value.decode()
        elif not isinstance(value, (str, int, tuple)):
            value = repr(value)
        shown[key] = [kind, value]
    return answer(start_response, json.dumps(shown))
"#;

/// Sends bytes and returns what the application was told.
fn told(server: &Server, request: &[u8]) -> Value {
    let mut connection = server.connect();
    connection.send(request).unwrap();
    connection.receive(false).unwrap().json()
}

fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Value {
    told(server, &request("GET", path, headers, b""))
}

#[track_caller]
fn assert_str(environ: &Value, key: &str, expected: &str) {
    assert_eq!(environ[key], json!(["str", expected]), "{key}");
}

#[test]
fn the_validator_of_the_standard_library_finds_nothing() {
    let source = r#"
from wsgiref.validate import validator
import warnings
warnings.simplefilter("error")

def plain(environ, start_response):
    size = int(environ.get("CONTENT_LENGTH") or 0)
    kind = environ["PATH_INFO"]
    body = b""
    if kind == "/read":
        body = environ["wsgi.input"].read(size)
    elif kind == "/lines":
        body = b"".join(environ["wsgi.input"])
    elif kind == "/readline":
        body = environ["wsgi.input"].readline()
    environ["wsgi.errors"].write("to the log\n")
    environ["wsgi.errors"].flush()
    if kind == "/nothing":
        start_response("304 Not Modified", [])
        return iter([])
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if kind == "/write":
        write(b"written ")
    return iter([b"got ", body or b"-"])

application = validator(plain)
"#;
    with_and_without_threads(source, |server| {
        let mut client = server.client();
        for method in ["GET", "PUT", "POST", "DELETE", "OPTIONS", "PATCH"] {
            for path in ["/", "/read", "/lines", "/readline", "/a%20b?c=d&e=%C3%A9", "//x", "/write"] {
                for body in [&b""[..], b"one\ntwo\n", &[b'x'; 2_000_000]] {
                    let answer = client.call(method, path, &[("X-A", "1"), ("X-A", "2")], body).unwrap();
                    assert_eq!(answer.status, 200, "{method} {path} {}", body.len());
                    match (path, body.len()) {
                        ("/read" | "/lines", 1..) => {
                            assert_eq!(&answer.body[4..], body, "{method} {path}");
                        }
                        ("/readline", 8) => assert_eq!(answer.text(), "got one\n"),
                        ("/write", _) => assert_eq!(answer.text(), "written got -"),
                        ("/", _) => assert_eq!(answer.text(), "got -"),
                        _ => {}
                    }
                }
            }
        }
        assert_eq!(client.call("HEAD", "/", &[], b"").unwrap().status, 200);
        assert_eq!(client.call("GET", "/nothing", &[], b"").unwrap().status, 304);
        let mut connection = server.connect();
        for lines in ["GET / HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
        {
            connection.send(lines.as_bytes()).unwrap();
            assert_eq!(connection.receive(false).unwrap().text(), "got -");
            connection = server.connect();
        }
        connection
            .send(
                b"POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            )
            .unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "got abc");
        server.wait_for_log("to the log");
        let errors: Vec<String> =
            server.log().lines().into_iter().filter(|line| line.contains("Error")).collect();
        assert_eq!(errors, <[String; 0]>::default());
    });
}

#[test]
fn every_variable_is_there_with_its_type() {
    let server = app(ENVIRON).args(["--master", "--processes=2"]).start();
    let environ = get(&server, "/a/b?x=1&y", &[("User-Agent", "t"), ("X-Some-Thing", "v")]);
    let Target::Tcp(address) = server.target() else { unreachable!("it listens on TCP") };
    for (key, expected) in [
        ("REQUEST_METHOD", "GET"),
        ("REQUEST_URI", "/a/b?x=1&y"),
        ("SCRIPT_NAME", ""),
        ("PATH_INFO", "/a/b"),
        ("QUERY_STRING", "x=1&y"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_PORT", &address.port().to_string()),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("HTTP_HOST", "test"),
        ("HTTP_USER_AGENT", "t"),
        ("HTTP_X_SOME_THING", "v"),
        ("wsgi.url_scheme", "http"),
    ] {
        assert_str(&environ, key, expected);
    }
    assert!(environ["REMOTE_PORT"][1].as_str().unwrap().parse::<u16>().is_ok());
    assert_ne!(environ["SERVER_NAME"][1], "");
    assert_eq!(environ["wsgi.version"], json!(["tuple", [1, 0]]));
    for (key, expected) in
        [("wsgi.multithread", false), ("wsgi.multiprocess", true), ("wsgi.run_once", false)]
    {
        assert_eq!(environ[key], json!(["bool", expected]), "{key}");
    }
    for key in ["uwsgi.version", "uwsgi.node"] {
        assert_eq!(environ[key][0], "bytes", "{key}");
    }
    for key in ["CONTENT_LENGTH", "CONTENT_TYPE", "HTTPS", "uwsgi.core", "HTTP_CONTENT_LENGTH"] {
        assert_eq!(environ.get(key), None, "{key}");
    }
    for key in ["wsgi.input", "wsgi.errors", "wsgi.file_wrapper", "wsgi.input_terminated"] {
        assert!(environ.get(key).is_some(), "{key}");
    }
}

#[test]
fn threads_show_in_environ() {
    let server = app_with_threads(ENVIRON, 3).start();
    let environ = get(&server, "/", &[]);
    assert_eq!(environ["wsgi.multithread"], json!(["bool", true]));
    assert_eq!(environ["wsgi.multiprocess"], json!(["bool", false]));
    assert_eq!(environ["uwsgi.core"][0], "int");
    assert!(environ["uwsgi.core"][1].as_u64().unwrap() < 3);
}

#[test]
fn a_request_gets_nothing_of_the_one_before() {
    let server = app_with_threads(ENVIRON, 1).start();
    let mut client = server.client();
    let headers = [("X-Secret", "1"), ("Content-Type", "a/b"), ("X-Forwarded-Proto", "https")];
    client.call("POST", "/first?query", &headers, b"body").unwrap();
    let environ = client.get("/").unwrap().json();
    assert_str(&environ, "QUERY_STRING", "");
    assert_str(&environ, "wsgi.url_scheme", "http");
    for key in ["HTTP_X_SECRET", "CONTENT_TYPE", "CONTENT_LENGTH", "HTTPS"] {
        assert_eq!(environ.get(key), None, "{key}");
    }
    assert!(environ["wsgi.input"][1].as_str().unwrap().contains("EmptyInput"));
}

#[test]
fn paths_are_decoded_once_and_texts_are_latin_1() {
    let server = app_with_threads(ENVIRON, 1).start();
    for (target, path) in [
        ("/caf%C3%A9", "/caf\u{c3}\u{a9}"),
        ("/caf%E9", "/caf\u{e9}"),
        ("/a%2Fb%252F", "/a/b%2F"),
        ("/a%20b+c", "/a b+c"),
        ("/%zz%4", "/%zz%4"),
        ("/a%00b", "/a\0b"),
        ("//double//slash/", "//double//slash/"),
        ("/.././x", "/.././x"),
    ] {
        let environ = get(&server, target, &[]);
        assert_str(&environ, "PATH_INFO", path);
        assert_str(&environ, "REQUEST_URI", target);
    }
    assert_str(&get(&server, "/?a=%C3%A9&b=c%20d", &[]), "QUERY_STRING", "a=%C3%A9&b=c%20d");
    let environ = told(&server, b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: \xe9\xc3\xa9\r\n\r\n");
    assert_str(&environ, "HTTP_X_NAME", "\u{e9}\u{c3}\u{a9}");
}

#[test]
fn fields_that_are_repeated_become_one_and_deceptive_ones_are_dropped() {
    let server = app_with_threads(ENVIRON, 1).start();
    let environ = get(
        &server,
        "/",
        &[
            ("X-List", "a"),
            ("Cookie", "a=1"),
            ("X-List", "b, c"),
            ("Cookie", "b=2"),
            ("X_List", "deceptive"),
            ("Proxy", "http://evil"),
            ("X-Empty", ""),
            ("Content-Type", "text/x"),
            ("Content_Length", "7"),
        ],
    );
    assert_str(&environ, "HTTP_X_LIST", "a, b, c");
    assert_str(&environ, "HTTP_COOKIE", "a=1; b=2");
    assert_str(&environ, "HTTP_X_EMPTY", "");
    assert_str(&environ, "CONTENT_TYPE", "text/x");
    for key in ["HTTP_PROXY", "HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH", "CONTENT_LENGTH"] {
        assert_eq!(environ.get(key), None, "{key}");
    }
}

#[test]
fn more_names_than_are_kept_are_still_told() {
    let server = app_with_threads(ENVIRON, 1).start();
    for round in 0..5 {
        let names: Vec<String> = (0..90).map(|number| format!("X-{round}-{number}")).collect();
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        let environ = get(&server, "/", &headers);
        for name in &names {
            assert_str(&environ, &format!("HTTP_{}", name.replace('-', "_")), name);
        }
    }
}

#[test]
fn the_length_of_the_body_is_told_however_it_came() {
    let server = app_with_threads(ENVIRON, 1).start();
    assert_str(&told(&server, &request("POST", "/", &[], b"12345")), "CONTENT_LENGTH", "5");
    let zero = told(&server, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_str(&zero, "CONTENT_LENGTH", "0");
    let chunked =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
    let environ = told(&server, chunked);
    assert_str(&environ, "CONTENT_LENGTH", "7");
    assert_eq!(environ.get("HTTP_TRANSFER_ENCODING"), None, "the application sees no framing");
    let empty = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    assert_str(&told(&server, empty), "CONTENT_LENGTH", "0");
    assert_eq!(told(&server, b"POST / HTTP/1.1\r\nHost: a\r\n\r\n").get("CONTENT_LENGTH"), None);
}

#[test]
fn unusual_targets_and_versions_are_told() {
    let server = app_with_threads(ENVIRON, 1).start();
    let environ = told(&server, b"GET / HTTP/1.0\r\n\r\n");
    assert_str(&environ, "SERVER_PROTOCOL", "HTTP/1.0");
    assert_eq!(environ.get("HTTP_HOST"), None);
    let absolute = b"GET http://user@example.com:81/x%20y?z HTTP/1.1\r\nHost: other\r\n\r\n";
    let environ = told(&server, absolute);
    assert_str(&environ, "PATH_INFO", "/x y");
    assert_str(&environ, "QUERY_STRING", "z");
    assert_str(&environ, "REQUEST_URI", "/x%20y?z");
    assert_str(&environ, "HTTP_HOST", "example.com:81");
    let environ = told(&server, b"GET http://example.com HTTP/1.1\r\nHost: example.com\r\n\r\n");
    assert_str(&environ, "PATH_INFO", "/");
    let environ = told(&server, b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_str(&environ, "PATH_INFO", "");
    assert_str(&environ, "REQUEST_URI", "*");
    assert_str(&environ, "REQUEST_METHOD", "OPTIONS");
    assert_str(&told(&server, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"), "REQUEST_METHOD", "BREW");
}

#[test]
fn a_proxy_on_this_machine_may_say_that_it_was_https() {
    let server = app_with_threads(ENVIRON, 1).start();
    let environ = get(&server, "/", &[("X-Forwarded-Proto", "https")]);
    assert_str(&environ, "wsgi.url_scheme", "https");
    assert_str(&environ, "HTTPS", "on");
    for other in ["http", "ftp", ""] {
        let environ = get(&server, "/", &[("X-Forwarded-Proto", other)]);
        assert_str(&environ, "wsgi.url_scheme", "http");
        assert_eq!(environ.get("HTTPS"), None);
    }
}

#[test]
fn clients_on_a_unix_socket_have_no_address() {
    let server = app(ENVIRON).on_unix_socket("app.sock").args(["--master", "--processes=1"]).start();
    let environ = get(&server, "/x", &[]);
    assert_str(&environ, "PATH_INFO", "/x");
    assert_str(&environ, "REMOTE_ADDR", "");
    assert_eq!(environ.get("REMOTE_PORT"), None);
    assert_str(&environ, "SERVER_PORT", "80");
    // Who can open the socket is a proxy that the operator put there.
    let environ = get(&server, "/x", &[("X-Forwarded-Proto", "https")]);
    assert_str(&environ, "wsgi.url_scheme", "https");
}

#[test]
fn addresses_of_ipv6_are_plain_text() {
    if TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: no IPv6 on this machine");
        return;
    }
    let mut server = app(ENVIRON).without_listener().arg("--http=[::1]:0").start();
    let address = server.addresses()[0].parse().unwrap();
    server.set_address(address);
    let environ = get(&server, "/", &[]);
    assert_str(&environ, "REMOTE_ADDR", "::1");
    assert_str(&environ, "SERVER_PORT", &address.port().to_string());
}
