//! Bodies that are files: every byte of them and no other, whatever happens meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::support::http::{Response, request};
use crate::support::server::Builder;
use crate::support::{Client, Connection, LIMIT, Server, eventually};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Sizes at the borders of what is read, copied or sent at once.
const SIZES: [usize; 12] = [
    0,
    1,
    16 * KIB,
    32 * KIB - 1,
    32 * KIB,
    32 * KIB + 1,
    64 * KIB - 1,
    64 * KIB,
    64 * KIB + 1,
    MIB,
    MIB + 1,
    5 * MIB,
];
/// More than the buffers of both sides take.
const HUGE: usize = 128 * MIB;
const GET_SMALL: &[u8] = b"GET /small HTTP/1.1\r\nHost: test\r\n\r\n";

/// Bytes that differ between any two nearby places, and between files of different size.
fn content(size: usize) -> Vec<u8> {
    let mut state = size as u32 | 1;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(size).collect()
}

/// A file of zeroes with some marks in it, which takes no room on the disk.
fn write_sparse(path: &Path, size: usize) -> Vec<u8> {
    let mut expected = vec![0; size];
    let file = File::create(path).unwrap();
    file.set_len(size as u64).unwrap();
    for at in (0..size).step_by(3 * MIB + 7) {
        let mark = at.to_le_bytes();
        let mark = &mark[..mark.len().min(size - at)];
        file.write_all_at(mark, at as u64).unwrap();
        expected[at..at + mark.len()].copy_from_slice(mark);
    }
    expected
}

fn site() -> Builder {
    let site = Server::builtin().file("public/small", "small\n").arg("--static-dir=public");
    SIZES.iter().fold(site, |site, size| site.file(&format!("public/{size}"), content(*size)))
}

fn one_worker() -> Builder {
    site().args(["--master", "--processes=1"])
}

/// Without the flood of bytes that `assert_eq!` prints.
#[track_caller]
fn assert_same(received: &[u8], expected: &[u8], what: &str) {
    if received != expected {
        let at = received.iter().zip(expected).position(|(a, b)| a != b);
        let (got, want) = (received.len(), expected.len());
        panic!("{what}: {got} bytes instead of {want}, the first difference is at {at:?}");
    }
}

fn begin(server: &Server, path: &str) -> (Connection, Response) {
    let mut connection = server.connect();
    connection.send(&request("GET", path, &[], b"")).unwrap();
    let head = connection.receive_begin().unwrap();
    assert_eq!(head.status, 200);
    (connection, head)
}

fn assert_all_sizes(client: &mut Client) {
    for size in SIZES {
        let answer = client.get(&format!("/{size}")).unwrap();
        assert_eq!(answer.header("content-length"), Some(size.to_string().as_str()));
        assert_same(&answer.body, &content(size), &size.to_string());
        // On the same connection.
        assert!(!client.is_closed());
    }
}

#[test]
fn files_of_every_size_arrive_as_they_are() {
    let server = site().start();
    assert_all_sizes(&mut server.client());
    let expected = write_sparse(&server.path("public/sparse"), 100 * MIB);
    let mut client = server.client();
    assert_same(&client.get("/sparse").unwrap().body, &expected, "100 MiB");
    assert_eq!(client.get("/small").unwrap().text(), "small\n");
}

#[test]
fn a_unix_socket_takes_files_too() {
    let server = site().on_unix_socket("app.sock").start();
    assert_all_sizes(&mut server.client());
}

#[test]
fn pipelined_answers_keep_their_order_and_their_ends() {
    let server = site().start();
    let paths: Vec<String> = (0..5)
        .flat_map(|_| SIZES)
        .flat_map(|size| [format!("/{size}"), "/small".to_owned(), "/missing".to_owned(), format!("/{size}")])
        .collect();
    let requests: Vec<u8> = paths.iter().flat_map(|path| request("GET", path, &[], b"")).collect();
    let mut connection = server.connect();
    connection.send(&requests).unwrap();
    for path in &paths {
        let answer = connection.receive(false).unwrap();
        match path[1..].parse() {
            Ok(size) => assert_same(&answer.body, &content(size), path),
            Err(_) if path == "/small" => assert_eq!(answer.text(), "small\n"),
            Err(_) => assert_eq!(answer.status, 404),
        }
    }
}

#[test]
fn an_upload_may_go_on_while_a_file_is_sent() {
    let server = Server::app().file("5m", content(5 * MIB)).start();
    let mut connection = server.connect();
    connection.send(b"POST /file?5m HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nabc").unwrap();
    let head = connection.receive_begin().unwrap();
    connection.send(b"defghijGET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let answer = connection.receive_rest(head).unwrap();
    assert_same(&answer.body, &content(5 * MIB), "an upload beside it");
}

#[test]
fn a_slow_reader_loses_nothing_and_holds_up_nobody() {
    let server = one_worker().start();
    let expected = write_sparse(&server.path("public/huge"), HUGE);
    let (mut connection, head) = begin(&server, "/huge");
    for _ in 0..10 {
        assert_eq!(server.get("/small").text(), "small\n");
    }
    let answer = connection.receive_body(&head).unwrap();
    assert_same(&answer, &expected, "read late");
}

#[test]
fn a_client_that_does_not_read_its_file_occupies_no_slot() {
    let server = Server::app().args(["--master", "--processes=1", "--threads=1"]).start();
    let expected = write_sparse(&server.path("huge"), HUGE);
    let (mut connection, head) = begin(&server, "/file?huge");
    for _ in 0..10 {
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
    let answer = connection.receive_body(&head).unwrap();
    assert_same(&answer, &expected, "read late");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_file_that_becomes_shorter_ends_its_connection() {
    let server = one_worker().start();
    let path = server.path("public/huge");
    let expected = write_sparse(&path, HUGE);
    let (mut connection, _) = begin(&server, "/huge");
    // Behind what can be on its way by now, and not at the border of a page.
    let left = HUGE / 2 + 12345;
    File::options().write(true).open(&path).unwrap().set_len(left as u64).unwrap();
    assert_same(&connection.receive_to_end().unwrap(), &expected[..left], "up to the new end");
    let line = server.wait_for_log("became shorter");
    assert!(line.contains("public/huge: "), "{line}");
    assert_eq!(server.get("/small").text(), "small\n");
}

#[test]
fn a_file_that_becomes_longer_is_sent_as_long_as_it_was() {
    let server = one_worker().start();
    let path = server.path("public/huge");
    let expected = write_sparse(&path, HUGE);
    let (mut connection, head) = begin(&server, "/huge");
    File::options().write(true).open(&path).unwrap().set_len(HUGE as u64 + 1000).unwrap();
    connection.send(GET_SMALL).unwrap();
    let answer = connection.receive_body(&head).unwrap();
    assert_same(&answer, &expected, "the length of the head");
    assert_eq!(connection.receive(false).unwrap().text(), "small\n");
}

#[test]
fn a_client_that_leaves_harms_nobody() {
    let server = one_worker().start();
    write_sparse(&server.path("public/huge"), HUGE);
    let workers = server.workers();
    for _ in 0..5 {
        drop(begin(&server, "/huge"));
    }
    // Its request ends when its worker has noticed; the bytes are those that went out.
    eventually("all five are logged", LIMIT, || {
        let lines = server.log().lines();
        let generated = |line: &String| {
            line.split_once("GET /huge => generated ")?.1.split(' ').next()?.parse::<usize>().ok()
        };
        let sent: Vec<usize> = lines.iter().filter_map(generated).collect();
        assert!(sent.iter().all(|sent| *sent < HUGE), "{sent:?}");
        (sent.len() == 5).then_some(())
    });
    assert_eq!(server.get("/small").text(), "small\n");
    assert_eq!(server.workers(), workers, "no worker died of SIGPIPE");
}

#[test]
fn a_client_that_stops_reading_is_cut_off() {
    let server = one_worker().arg("--http-timeout=1").start();
    let expected = write_sparse(&server.path("public/huge"), HUGE);
    let (mut connection, _) = begin(&server, "/huge");
    // Logged when the request is given up; nobody has read anything by then.
    server.wait_for_log("GET /huge => generated ");
    let part = connection.receive_until_cut();
    assert!(part.len() < HUGE, "all of it fits into the buffers");
    assert_same(&part, &expected[..part.len()], "what was sent before");
}

#[test]
fn the_log_tells_the_length_of_a_file() {
    let server = one_worker().start();
    server.get("/5242880");
    server.wait_for_log("GET /5242880 => generated 5242880 bytes");
}

#[test]
fn ranges_of_a_large_file_begin_and_end_where_they_should() {
    let server = site().start();
    let mut client = server.client();
    let (size, whole) = (5 * MIB, content(5 * MIB));
    for (range, part) in [
        ("bytes=0-0", 0..1),
        ("bytes=1-32768", 1..32769),
        ("bytes=0-32768", 0..32769),
        ("bytes=4095-69632", 4095..69633),
        ("bytes=12345-", 12345..size),
        ("bytes=-100000", size - 100_000..size),
        ("bytes=5242879-9999999", size - 1..size),
    ] {
        let answer = client.call("GET", "/5242880", &[("Range", range)], b"").unwrap();
        assert_eq!(answer.status, 206, "{range}");
        let told = format!("bytes {}-{}/{size}", part.start, part.end - 1);
        assert_eq!(answer.header("content-range"), Some(told.as_str()));
        assert_same(&answer.body, &whole[part], range);
    }
    let several =
        client.call("GET", "/5242880", &[("Range", "bytes=7-100006,2000000-2099999")], b"").unwrap();
    assert!(several.header("content-type").unwrap().starts_with("multipart/byteranges"));
    for part in [7..100_007, 2_000_000..2_100_000] {
        assert!(memchr::memmem::find(&several.body, &whole[part.clone()]).is_some(), "{part:?}");
    }
    assert_eq!(client.get("/small").unwrap().text(), "small\n");
}

#[test]
fn offsets_may_need_more_than_32_bits() {
    let server = site().start();
    let size: u64 = 5 << 30;
    let file = File::create(server.path("public/5g")).unwrap();
    file.set_len(size).unwrap();
    let end = content(MIB);
    file.write_all_at(&end, size - MIB as u64).unwrap();
    let range = format!("bytes={}-", size - MIB as u64 + 1);
    let answer = server.client().call("GET", "/5g", &[("Range", &range)], b"").unwrap();
    assert_same(&answer.body, &end[1..], &range);
    let head = server.client().call("HEAD", "/5g", &[], b"").unwrap();
    assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
}

#[test]
fn what_asks_for_no_body_gets_none() {
    for (server, path) in
        [(site().start(), "/5242880"), (Server::app().file("5m", content(5 * MIB)).start(), "/file?5m")]
    {
        let mut client = server.client();
        let head = client.call("HEAD", path, &[], b"").unwrap();
        assert_eq!((head.status, head.header("content-length")), (200, Some("5242880")));
        let file = client.get(path).unwrap();
        assert_same(&file.body, &content(5 * MIB), "after HEAD");
        if let Some(etag) = file.header("etag") {
            let same = client.call("GET", path, &[("If-None-Match", etag)], b"").unwrap();
            assert_eq!((same.status, same.body.len()), (304, 0));
        }
        assert_same(&client.get(path).unwrap().body, &content(5 * MIB), "at the end");
    }
}

#[test]
fn http_10_gets_the_file_and_the_close() {
    let server = site().start();
    let mut connection = server.connect();
    connection.send(b"GET /5242880 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").unwrap();
    assert_same(&connection.receive(false).unwrap().body, &content(5 * MIB), "kept");
    connection.send(b"GET /5242880 HTTP/1.0\r\n\r\n").unwrap();
    let head = connection.receive_begin().unwrap();
    assert_eq!(head.header("content-length"), Some("5242880"));
    assert_same(&connection.receive_to_end().unwrap(), &content(5 * MIB), "to the end");
}

#[test]
fn files_that_the_kernel_cannot_send_are_copied() {
    let server = Server::app().start();
    let mut client = server.client();
    for _ in 0..2 {
        // Memory of the application, through a file that sendfile(2) refuses.
        let answer = client.get("/memory").unwrap();
        let expected: Vec<u8> = (0..3 * MIB + 1).map(|at| (at % 251) as u8).collect();
        assert_same(&answer.body, &expected, "copied");
    }
}

#[test]
fn a_file_is_framed_by_its_length_whatever_the_application_says() {
    let server = Server::app().file("64k", content(64 * KIB)).start();
    let mut client = server.client();
    for path in ["/file?64k", "/file-as-chunks?64k"] {
        let answer = client.get(path).unwrap();
        assert_eq!(answer.header("transfer-encoding"), None);
        assert_eq!(answer.header("content-length"), Some("65536"));
        assert_same(&answer.body, &content(64 * KIB), path);
    }
}

#[test]
fn a_download_outlives_a_reload() {
    let server = site().args(["--master", "--processes=2"]).start();
    let expected = write_sparse(&server.path("public/huge"), HUGE);
    let downloads: Vec<_> = (0..4).map(|_| begin(&server, "/huge")).collect();
    server.signal(Signal::SIGHUP);
    eventually("the new generation serves", LIMIT, || {
        let text = String::from_utf8(fs::read(server.path("public/small")).unwrap()).unwrap();
        assert_eq!(server.get("/small").text(), text);
        server.log().lines().iter().any(|line| line.contains("generation 2")).then_some(())
    });
    for (mut connection, head) in downloads {
        let answer = connection.receive_body(&head).unwrap();
        assert_same(&answer, &expected, "over a reload");
        // The client notices nothing: its connection goes on in a worker of the new generation.
        connection.send(GET_SMALL).unwrap();
        assert_eq!(connection.receive(false).map(|answer| answer.text()), Ok("small\n".to_owned()));
    }
    server.wait_reloaded(2);
}
