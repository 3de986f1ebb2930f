//! `wsgi.input`: the body, whole, however it came and however it is read.

use std::fs;

use crate::support::http::request;
use crate::support::server::Builder;
use crate::support::wsgi::{app_with_threads, with_and_without_threads};
use crate::support::{LIMIT, Server, eventually};

const MIB: usize = 1024 * 1024;

/// Reads the body as the path says and answers with what it got: pieces, one a line, as hex of their
/// checksum and length.
const READER: &str = r#"
import zlib

def shown(piece):
    return f"{len(piece)}:{zlib.crc32(piece):08x}"

def read_until_empty(read):
    while piece := read():
        yield piece

def application(environ, start_response):
    body = environ["wsgi.input"]
    how = environ["QUERY_STRING"]
    if how == "read":
        pieces = [body.read(), body.read()]
    elif how == "negative":
        pieces = [body.read(-1)]
    elif how == "length":
        pieces = [body.read(int(environ["CONTENT_LENGTH"])), body.read(10)]
    elif how == "more":
        pieces = [body.read(10 ** 9)]
    elif how == "small":
        pieces = [b"".join(read_until_empty(lambda: body.read(1000)))]
    elif how == "readline":
        pieces = list(read_until_empty(body.readline))
    elif how == "readline5":
        pieces = list(read_until_empty(lambda: body.readline(5)))
    elif how == "readlines":
        pieces = body.readlines() + [body.readline()]
    elif how == "hint":
        pieces = body.readlines(3)
    elif how == "iterate":
        pieces = list(body)
    elif how == "seek":
        first = body.read(3)
        at = body.tell()
        body.seek(0)
        pieces = [first, str(at).encode(), body.read()]
    elif how == "nothing":
        pieces = []
    elif how == "close":
        body.close()
        pieces = []
    elif how == "text":
        import io
        pieces = [io.TextIOWrapper(body, "latin-1", newline="").read().encode("latin-1")]
    return answer(start_response, "\n".join(map(shown, pieces)))
"#;

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1));
        }
    }
    !crc
}

fn shown(pieces: &[&[u8]]) -> String {
    let shown: Vec<String> =
        pieces.iter().map(|piece| format!("{}:{:08x}", piece.len(), crc32(piece))).collect();
    shown.join("\n")
}

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn chunked(path: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes =
        format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for chunk in body.chunks(size) {
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes
}

/// Sends the same body with a length and in chunks.
#[track_caller]
fn assert_reads(server: &Server, how: &str, body: &[u8], expected: &[&[u8]]) {
    let path = format!("/?{how}");
    let mut connection = server.connect();
    for bytes in [request("POST", &path, &[], body), chunked(&path, body, 60_000)] {
        connection.send(&bytes).unwrap();
        let answer = connection.receive(false).unwrap();
        assert_eq!((answer.status, answer.text()), (200, shown(expected)), "{how} {}", body.len());
    }
}

#[test]
fn every_way_to_read_gets_the_same_bytes() {
    let lines: &[u8] = b"one\ntwo and more\n\nfour";
    let split: Vec<&[u8]> = vec![b"one\n", b"two and more\n", b"\n", b"four"];
    with_and_without_threads(READER, |server| {
        for how in ["negative", "more", "small", "text"] {
            assert_reads(server, how, lines, &[lines]);
        }
        assert_reads(server, "read", lines, &[lines, b""]);
        assert_reads(server, "length", lines, &[lines, b""]);
        assert_reads(server, "readline", lines, &split);
        assert_reads(server, "iterate", lines, &split);
        assert_reads(server, "readlines", lines, &[&split[..], &[b""]].concat());
        assert_reads(server, "hint", lines, &split[..1]);
        let fives: &[&[u8]] = &[b"one\n", b"two a", b"nd mo", b"re\n", b"\n", b"four"];
        assert_reads(server, "readline5", lines, fives);
        assert_reads(server, "seek", lines, &[b"one", b"3", lines]);
        assert_reads(server, "nothing", lines, &[]);
        assert_reads(server, "close", lines, &[]);
    });
}

#[test]
fn bodies_at_the_border_of_memory_and_file_arrive_whole() {
    with_and_without_threads(READER, |server| {
        for size in [1, 65_535, 65_536, MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 3] {
            let body = content(size);
            assert_reads(server, "small", &body, &[&body]);
            assert_reads(
                server,
                "seek",
                &body,
                &[&body[..size.min(3)], size.min(3).to_string().as_bytes(), &body],
            );
        }
    });
}

#[test]
fn what_stays_in_memory_can_be_chosen() {
    let server = app_with_threads(READER, 1).arg("--post-buffering=4096").start();
    for size in [4095, 4096, 4097, 100_000] {
        let body = content(size);
        assert_reads(&server, "read", &body, &[&body, b""]);
    }
}

#[test]
fn requests_without_a_body_read_nothing() {
    let server = app_with_threads(READER, 1).start();
    let mut client = server.client();
    let empty: &[u8] = b"";
    for (how, expected) in [
        ("read", shown(&[empty, empty])),
        ("small", shown(&[empty])),
        ("readline", String::new()),
        ("readlines", shown(&[empty])),
        ("iterate", String::new()),
        ("seek", shown(&[empty, b"0", empty])),
        ("text", shown(&[empty])),
        // Nobody else's input is closed by that.
        ("close", String::new()),
        ("read", shown(&[empty, empty])),
    ] {
        let path = format!("/?{how}");
        for (method, headers) in [("GET", &[][..]), ("POST", &[]), ("POST", &[("Content-Length", "0")])] {
            let answer = client.call(method, &path, headers, b"").unwrap();
            assert_eq!((answer.status, answer.text()), (200, expected.clone()), "{method} {how}");
        }
    }
    let mut connection = server.connect();
    connection.send(&chunked("/?read", b"", 1)).unwrap();
    assert_eq!(connection.receive(false).unwrap().text(), shown(&[empty, empty]));
}

#[test]
fn a_body_that_is_not_read_does_not_disturb_the_next_request() {
    with_and_without_threads(READER, |server| {
        let mut connection = server.connect();
        for size in [10, 100_000, 3 * MIB] {
            let body = content(size);
            connection.send(&request("POST", "/?nothing", &[], &body)).unwrap();
            connection.send(&request("POST", "/?read", &[], &body)).unwrap();
            assert_eq!(connection.receive(false).unwrap().status, 200);
            assert_eq!(connection.receive(false).unwrap().text(), shown(&[&body, b""]));
        }
    });
}

#[test]
fn a_client_may_ask_whether_its_body_is_wanted() {
    let server = app_with_threads(READER, 1).start();
    let mut connection = server.connect();
    let head = "POST /?read HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    connection.send(head.as_bytes()).unwrap();
    assert_eq!(connection.receive_status(), Ok(100));
    connection.send(b"abc").unwrap();
    assert_eq!(connection.receive(false).unwrap().text(), shown(&[b"abc", b""]));
}

/// Private memory of a process, in KiB.
fn private_memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    private.map(|line| line.split_ascii_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_large_upload_takes_no_memory() {
    let server = app_with_threads(READER, 1).start();
    let pid = server.workers()[0].pid;
    server.get("/?read");
    let before = private_memory(pid);
    let block = content(MIB);
    let mut connection = server.connect();
    let head = format!("POST /?small HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 200 * MIB);
    connection.send(head.as_bytes()).unwrap();
    let mut most = 0;
    for number in 0..200 {
        connection.send(&block).unwrap();
        if number % 20 == 0 {
            most = most.max(private_memory(pid));
        }
    }
    most = most.max(private_memory(pid));
    assert!(most < before + 8 * 1024, "{before} KiB before, {most} KiB while it came");
    // The application reads it whole: what it makes of it is its own.
    assert!(connection.receive(false).unwrap().text().starts_with(&format!("{}:", 200 * MIB)));
}

/// Logs requests that reached the application.
const NOTED: &str = r#"
def application(environ, start_response):
    note("called", environ["PATH_INFO"])
    return answer(start_response, len(environ["wsgi.input"].read()))
"#;

#[test]
fn a_client_that_leaves_within_its_body_never_reaches_the_application() {
    for size in [100, 10 * MIB] {
        let server = app_with_threads(NOTED, 1).start();
        for framing in ["Content-Length: 20000000", "Transfer-Encoding: chunked"] {
            let mut connection = server.connect();
            let head = format!("POST /left HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n");
            connection.send(head.as_bytes()).unwrap();
            let part = content(size);
            let part = match framing.starts_with('C') {
                true => part,
                false => [format!("{:x}\r\n", size + 1).as_bytes(), &part].concat(),
            };
            connection.send(&part).unwrap();
            drop(connection);
        }
        eventually("both are given up", LIMIT, || {
            let lines = server.log().lines();
            (lines.iter().filter(|line| line.contains("POST /left =>")).count() == 2).then_some(())
        });
        assert_eq!(server.get("/stays").text(), "0");
        server.wait_for_log("note: called /stays");
        assert!(!server.log().lines().iter().any(|line| line.contains("note: called /left")));
        // Nothing of it is left behind.
        let held = || crate::support::processes::descriptors(server.workers()[0].pid);
        eventually("its file is gone", LIMIT, || {
            let is_temporary = |path: &std::path::PathBuf| path.starts_with(std::env::temp_dir());
            (!held().values().any(is_temporary)).then_some(())
        });
    }
}

#[test]
fn a_body_that_cannot_be_kept_is_the_servers_fault() {
    let builder: Builder = app_with_threads(READER, 1);
    let missing = builder.path("missing");
    let server = builder.env("TMPDIR", &missing).start();
    let mut client = server.client();
    assert_eq!(client.call("POST", "/?read", &[], &content(1000)).unwrap().status, 200);
    let answer = client.call("POST", "/?read", &[], &content(3 * MIB)).unwrap();
    assert_eq!(answer.status, 500);
    let line = server.wait_for_log("cannot be kept in ");
    assert!(line.contains("(TMPDIR)") && line.contains("POST /?read"), "{line}");
    assert_eq!(server.get("/?read").status, 200);
}

#[test]
fn a_full_file_of_a_body_is_closed_with_the_request() {
    let server = app_with_threads(READER, 1).start();
    let pid = server.workers()[0].pid;
    let mut client = server.client();
    client.get("/?read").unwrap();
    let before = crate::support::processes::descriptors(pid).len();
    for how in ["read", "nothing", "close"] {
        assert_eq!(client.call("POST", &format!("/?{how}"), &[], &content(2 * MIB)).unwrap().status, 200);
    }
    assert_eq!(crate::support::processes::descriptors(pid).len(), before);
}
