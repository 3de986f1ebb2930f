//! `start_response`: what it takes, what it refuses, and when (PEP 3333).

use crate::support::http::request;
use crate::support::wsgi::{EVAL, app_with_threads, assert_raises, evaluating, run, target};

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
            ("'200 OK', [('a', 'b')] * 40000", "ValueError: these 40000 headers are too many"),
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
fn buffers_are_pieces_where_the_operator_says_so() {
    let shapes = ["[bytearray(b'ab'), memoryview(b'cd')]", "iter([memoryview(b'abcd')[::1]])"];
    for threads in [1, 4] {
        let (strict, lax) =
            (evaluating(threads), app_with_threads(EVAL, threads).arg("--wsgi-accept-buffer").start());
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
    let server = app_with_threads(EVAL, 1).arg("--wsgi-strict").start();
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
