//! `wsgi.file_wrapper`: the bytes that reading the file would give, whatever sends them.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::support::http::{Response, request};
use crate::support::server::Builder;
use crate::support::wsgi::{app_with_threads, with_and_without_threads};
use crate::support::{LIMIT, Server, eventually, processes};

const MIB: usize = 1024 * 1024;

const FILES: &str = r#"
import gzip, io, tempfile, urllib.parse

class Upper(io.FileIO):
    def read(self, size=-1):
        return super().read(size).upper()

class Wrapping:
    def __init__(self, file):
        self.file = file
    def fileno(self):
        return self.file.fileno()
    def read(self, size=-1):
        return self.file.read(size).upper()

class Plain:
    """Nothing but read."""
    def __init__(self, pieces):
        self.pieces = iter(pieces)
    def read(self, size):
        return next(self.pieces, b"")

def temporary(content):
    file = tempfile.TemporaryFile()
    file.write(content)
    file.seek(0)
    return file

def named(content):
    file = tempfile.NamedTemporaryFile()
    file.write(content)
    file.seek(2)
    return file

def pipe():
    reader, writer = os.pipe()
    os.write(writer, b"piped")
    os.close(writer)
    return open(reader, "rb")

def positioned(offset, buffering=-1):
    file = open("data", "rb", buffering=buffering)
    file.seek(offset)
    return file

def after_reading(count):
    file = open("data", "rb")
    file.read(count)
    return file

def zipped():
    with gzip.open("data.gz", "wb") as file:
        file.write(b"unpacked")
    return gzip.open("data.gz")

def application(environ, start_response):
    code = urllib.parse.unquote(environ["QUERY_STRING"]).split(";")
    headers = eval(code[1]) if len(code) > 1 else []
    size = eval(code[2]) if len(code) > 2 else 8192
    write = start_response("200 OK", headers)
    file = eval(code[0])
    return environ["wsgi.file_wrapper"](file, size)
"#;

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn target(code: &str) -> String {
    let mut target = String::from("/?");
    code.bytes().for_each(|byte| target.push_str(&format!("%{byte:02x}")));
    target
}

fn run(server: &Server, code: &str) -> Response {
    server.get(&target(code))
}

fn with_data(threads: u32) -> Builder {
    app_with_threads(FILES, threads).file("data", content(100_000))
}

#[test]
fn every_kind_of_file_gives_what_reading_it_gives() {
    let data = content(100_000);
    let upper = data.to_ascii_uppercase();
    for threads in [1, 4] {
        let server = with_data(threads).start();
        for (code, expected) in [
            ("open('data', 'rb')", &data[..]),
            ("open('data', 'rb', buffering=0)", &data),
            ("open('data', 'r+b')", &data),
            ("positioned(5)", &data[5..]),
            ("positioned(99_999)", &data[99_999..]),
            ("positioned(100_000)", b""),
            ("positioned(200_000)", b""),
            ("positioned(70_000, 0)", &data[70_000..]),
            ("after_reading(10)", &data[10..]),
            ("Upper('data')", &upper),
            ("Wrapping(open('data', 'rb'))", &upper),
            ("io.BytesIO(b'bytes')", b"bytes"),
            ("Plain([b'pl', b'ain'])", b"plain"),
            ("temporary(b'temporary')", b"temporary"),
            ("named(b'named')", b"med"),
            ("zipped()", b"unpacked"),
            ("pipe()", b"piped"),
            ("tempfile.SpooledTemporaryFile()", b""),
            ("open('data', 'rb');[];1000", &data),
            ("io.BytesIO(b'all');[];0", b"all"),
            ("open('data', 'rb');[('Content-Length', '100000')]", &data),
            ("open('data', 'rb');[('Content-Length', '10')]", &data[..10]),
            ("open('data', 'rb');[('Content-Length', '0')]", b""),
            ("positioned(90_000);[('Content-Length', '50')]", &data[90_000..90_050]),
            ("open('data', 'rb') if not write(b'') else 0", &data),
        ] {
            let answer = run(&server, code);
            assert_eq!(answer.status, 200, "{code}");
            assert!(answer.body == expected, "{code}: {} of {} bytes", answer.body.len(), expected.len());
        }
        let answer = run(&server, "open('data', 'rb')");
        assert_eq!(answer.header("content-length"), Some("100000"));
        let written = run(&server, "write(b'before ') or open('data', 'rb')");
        assert!(written.body == [b"before ", &data[..]].concat());
    }
}

#[test]
fn a_file_that_is_shorter_than_promised_cuts_the_connection() {
    for threads in [1, 4] {
        let server = with_data(threads).start();
        let mut connection = server.connect();
        let code = "open('data', 'rb');[('Content-Length', '100001')]";
        connection.send(&request("GET", &target(code), &[], b"")).unwrap();
        assert_eq!(connection.receive_status(), Ok(200));
        assert!(content(100_000).starts_with(&connection.receive_until_cut()));
        server.wait_for_log("promised a body of 100001 bytes and gave 100000");
    }
}

#[test]
fn head_of_a_file_tells_its_length() {
    let server = with_data(1).start();
    let mut client = server.client();
    for (code, length) in [
        ("open('data', 'rb')", Some("100000")),
        ("open('data', 'rb');[('Content-Length', '10')]", Some("10")),
        ("io.BytesIO(b'bytes')", None),
    ] {
        let answer = client.call("HEAD", &target(code), &[], b"").unwrap();
        assert_eq!((answer.status, answer.header("content-length")), (200, length), "{code}");
    }
    assert!(client.get(&target("open('data', 'rb')")).unwrap().body == content(100_000));
}

#[test]
fn a_file_is_closed_once_it_is_with_the_server() {
    for threads in [1, 4] {
        let server = with_data(threads).start();
        let pid = server.workers()[0].pid;
        let mut client = server.client();
        client.get(&target("io.BytesIO(b'x')")).unwrap();
        let before = processes::descriptor_kinds(pid);
        for (file, headers) in [
            ("open('data', 'rb')", ""),
            ("zipped()", ""),
            ("pipe()", ""),
            ("open('data', 'rb')", ";[('Content-Length', '5')]"),
        ] {
            client.get(&target(&format!("setattr(sys, 'given', {file}) or sys.given{headers}"))).unwrap();
            // By a thread of its own, which may be slower than the client.
            eventually(&format!("{file}{headers} is closed"), LIMIT, || {
                let answer = run(&server, "io.BytesIO(str(sys.given.closed).encode())");
                (answer.text() == "True").then_some(())
            });
        }
        eventually("all are closed", LIMIT, || (processes::descriptor_kinds(pid) == before).then_some(()));
    }
}

#[test]
fn a_file_that_is_closed_or_no_file_is_an_error() {
    let server = with_data(1).start();
    for (code, error) in [
        ("(lambda file: file.close() or file)(open('data', 'rb'))", "ValueError: "),
        ("open('app.py')", "TypeError: a piece of the response must be bytes, not str"),
        ("5", "AttributeError: "),
    ] {
        let mark = server.log().mark();
        assert_eq!(run(&server, code).status, 500, "{code}");
        server.wait_for_log_after(mark, error);
    }
}

#[test]
fn a_huge_file_arrives_and_holds_up_nobody() {
    with_and_without_threads(FILES, |server| {
        let size = 200 * MIB;
        let file = File::create(server.path("huge")).unwrap();
        file.set_len(size as u64).unwrap();
        file.write_all_at(b"the end", size as u64 - 7).unwrap();
        let mut slow = server.connect();
        slow.send(&request("GET", &target("open('huge', 'rb')"), &[], b"")).unwrap();
        let head = slow.receive_begin().unwrap();
        assert_eq!(head.header("content-length"), Some(size.to_string().as_str()));
        for _ in 0..10 {
            assert_eq!(run(server, "io.BytesIO(b'meanwhile')").text(), "meanwhile");
        }
        let body = slow.receive_body(&head).unwrap();
        assert!(body.len() == size && body.ends_with(b"the end"));
    });
}

#[test]
fn the_wrapper_can_be_withheld() {
    let source = r#"
def application(environ, start_response):
    return answer(start_response, "wsgi.file_wrapper" in environ)
"#;
    assert_eq!(app_with_threads(source, 1).start().get("/").text(), "True");
    let server = app_with_threads(source, 1).arg("--wsgi-disable-file-wrapper").start();
    assert_eq!(server.get("/").text(), "False");
}
