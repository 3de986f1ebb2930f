use super::*;

const LIMITS: Limits = Limits { head: 256, fields: 8, body: 64 };

/// What the gate says about a whole input: the statuses by themselves, `None` when all of it passed.
fn status(input: &[u8]) -> Option<u16> {
    Gate::new(LIMITS).advance(input).refusal.map(|refusal| refusal.status)
}

fn get(fields: &str) -> Vec<u8> {
    format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").into_bytes()
}

fn chunked(body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}").into_bytes()
}

fn accepted() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n",
        "GET http://a/b?c HTTP/1.1\r\nHost: other\r\n\r\n",
        "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:  5\t\r\n\r\nhello",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 64\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .into();
    all.push(get("A: b\r\nB:\tc d\t\r\nC:\r\nD: \u{e9}\r\n"));
    all.push(chunked("5\r\nhello\r\n0\r\n\r\n"));
    all.push(chunked("A;x=y\r\n0123456789\r\n1 ;z\r\n!\r\n00\r\nTrailer: x\r\n\r\nGET / HTTP/1.0\r\n\r\n"));
    all.push([get(""), get("Connection: close\r\n")].concat());
    all
}

fn refused() -> Vec<(Vec<u8>, u16)> {
    let mut all: Vec<(Vec<u8>, u16)> = [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\rx HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\r\nHost: a\r\n\r\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET /\tHTTP/1.1\r\n\r\n", 400),
        ("GET / x HTTP/1.1\r\n\r\n", 400),
        ("GET /\r\n\r\n", 400),
        ("GET\r\n\r\n", 400),
        (" GET / HTTP/1.1\r\n\r\n", 400),
        ("G(T / HTTP/1.1\r\n\r\n", 400),
        ("GET  HTTP/1.1\r\n\r\n", 400),
        ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / http/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/11\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", 400),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ]
    .map(|(text, status)| (text.as_bytes().to_vec(), status))
    .into();
    for (fields, status) in [
        (" folded: x\r\n", 400),
        ("A: b\r\n c\r\n", 400),
        ("A: b\r\n\tc\r\n", 400),
        ("A : b\r\n", 400),
        ("A\t: b\r\n", 400),
        (": b\r\n", 400),
        ("A b\r\n", 400),
        ("A(: b\r\n", 400),
        ("A: b\rc\r\n", 400),
        ("A: b\0\r\n", 400),
        ("A\0: b\r\n", 400),
        ("A: \x7f\r\n", 400),
        ("A: \x1b\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 1\r\n", 400),
        ("Content-Length: 1\r\nContent-Length: 2\r\n", 400),
        ("Content-Length: 1, 1\r\n", 400),
        ("Content-Length: +1\r\n", 400),
        ("Content-Length: -1\r\n", 400),
        ("Content-Length: 0x1\r\n", 400),
        ("Content-Length:\r\n", 400),
        ("Content-Length: 1 1\r\n", 400),
        ("Content-Length: 18446744073709551616\r\n", 400),
        ("Content-Length: 9223372036854775808\r\n", 400),
        ("Content-Length: 65\r\n", 413),
        ("Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
        ("Transfer-Encoding: gzip\r\nContent-Length: 1\r\n", 400),
        ("Transfer-Encoding: identity\r\n", 501),
        ("Transfer-Encoding: xchunked\r\n", 501),
        ("Transfer-Encoding: gzip, chunked\r\n", 501),
        ("Transfer-Encoding: chunked;q=1\r\n", 501),
        ("Transfer-Encoding: chunked, gzip\r\n", 400),
        ("Transfer-Encoding: chunked, chunked\r\n", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400),
        ("Transfer-Encoding:\r\n", 400),
        ("A: 1\r\nB: 2\r\nC: 3\r\nD: 4\r\nE: 5\r\nF: 6\r\nG: 7\r\nH: 8\r\n", 431),
    ] {
        all.push((get(fields), status));
    }
    for (body, status) in [
        ("5\nhello\r\n0\r\n\r\n", 400),
        ("5\r\nhello\n0\r\n\r\n", 400),
        ("5\r\nhello!\r\n0\r\n\r\n", 400),
        ("5\r\nhello\r\r\n0\r\n\r\n", 400),
        ("\r\n", 400),
        ("x\r\n", 400),
        ("5 \r\nhello\r\n0\r\n\r\n", 400),
        (" 5\r\nhello\r\n0\r\n\r\n", 400),
        ("5x\r\nhello\r\n0\r\n\r\n", 400),
        ("-5\r\nhello\r\n0\r\n\r\n", 400),
        ("0x5\r\nhello\r\n0\r\n\r\n", 400),
        ("5;a\0\r\nhello\r\n0\r\n\r\n", 400),
        ("5;a\rb\r\nhello\r\n0\r\n\r\n", 400),
        ("10000000000000000\r\n", 400),
        ("41\r\n", 413),
        ("40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n1\r\n", 413),
        ("0\r\nA: b\n\r\n", 400),
        ("0\r\nA : b\r\n\r\n", 400),
        ("0\r\nA\r\n\r\n", 400),
    ] {
        all.push((chunked(body), status));
    }
    let long = "x".repeat(LIMITS.head);
    all.push((format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(), 414));
    all.push((format!("GET /{long}").into_bytes(), 414));
    all.push((get(&format!("A: {long}\r\n")), 431));
    all.push((format!("GET / HTTP/1.1\r\nA: {long}").into_bytes(), 431));
    all.push((chunked(&format!("0\r\nA: {long}\r\n\r\n")), 431));
    all.push((chunked(&format!("1;{}\r\n", "x".repeat(CHUNK_LINE))), 400));
    all.push(("\r\n".repeat(LIMITS.head).into_bytes(), 414));
    all
}

#[test]
fn well_framed_messages_pass_whole() {
    for input in accepted() {
        let verdict = Gate::new(LIMITS).advance(&input);
        assert_eq!(verdict, Verdict { pass: input.len(), refusal: None }, "{}", input.escape_ascii());
    }
}

#[test]
fn each_kind_of_bad_framing_is_refused_with_its_status() {
    for (input, expected) in refused() {
        assert_eq!(status(&input), Some(expected), "{}", input.escape_ascii());
    }
}

#[test]
fn the_verdict_does_not_depend_on_how_the_bytes_are_split() {
    let inputs = accepted().into_iter().chain(refused().into_iter().map(|(input, _)| input));
    for input in inputs {
        let mut whole = Gate::new(LIMITS);
        let expected = whole.advance(&input);
        for at in 0..=input.len() {
            let mut gate = Gate::new(LIMITS);
            let first = gate.advance(&input[..at]);
            let second = gate.advance(&input[at..]);
            let shown = input.escape_ascii();
            assert_eq!(first.refusal.or(second.refusal), expected.refusal, "split at {at}: {shown}");
            assert_eq!(gate.state, whole.state, "split at {at}: {shown}");
            assert_eq!(gate.heads(), whole.heads(), "split at {at}: {shown}");
            assert!(first.pass + second.pass >= expected.pass, "split at {at}: {shown}");
        }
        let mut gate = Gate::new(LIMITS);
        let last = input.iter().map(|byte| gate.advance(&[*byte])).last();
        assert_eq!(last.and_then(|verdict| verdict.refusal), expected.refusal);
    }
}

#[test]
fn good_messages_before_a_bad_one_pass() {
    let good = get("");
    let mut gate = Gate::new(LIMITS);
    let verdict = gate.advance(&[good.clone(), good.clone(), b"GET / HTTP/9\r\n".to_vec()].concat());
    assert_eq!(verdict.pass, 2 * good.len());
    assert_eq!(verdict.refusal.map(|refusal| refusal.status), Some(400));
    assert_eq!(gate.heads(), 2);
    assert!(!gate.in_body());
}

#[test]
fn nothing_passes_after_a_refusal() {
    let mut gate = Gate::new(LIMITS);
    let refusal = gate.advance(b"x\n").refusal;
    assert_eq!(gate.advance(&get("")), Verdict { pass: 0, refusal });
}

#[test]
fn a_refusal_in_a_body_says_so() {
    let mut gate = Gate::new(LIMITS);
    let input = chunked("5\r\nhello\r\nx");
    assert_eq!(gate.advance(&input).pass, input.len());
    assert!(gate.advance(b"\r\n").refusal.is_some());
    assert!(gate.in_body());
}

#[test]
fn the_gate_knows_whether_a_head_or_a_body_is_incomplete() {
    let mut gate = Gate::new(LIMITS);
    gate.advance(b"\r\n\r");
    assert!(!gate.in_head() && !gate.in_body());
    gate.advance(b"\nP");
    assert!(gate.in_head());
    gate.advance(b"OST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r");
    assert!(gate.in_head() && gate.heads() == 0);
    gate.advance(b"\nx");
    assert!(!gate.in_head() && gate.in_body() && gate.heads() == 1);
    gate.advance(b"y");
    assert!(!gate.in_head() && !gate.in_body());
}

#[test]
fn the_last_request_of_a_client_is_known() {
    for (input, last) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false),
    ] {
        let mut gate = Gate::new(LIMITS);
        gate.advance(input.as_bytes());
        assert_eq!(gate.last_request(), last, "{input:?}");
    }
}

#[test]
fn a_tunnel_lets_everything_pass() {
    let mut gate = Gate::new(LIMITS);
    gate.open_tunnel();
    assert_eq!(gate.advance(b"\0\n\r"), Verdict { pass: 3, refusal: None });
}
