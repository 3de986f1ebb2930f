//! Files: what HTTP promises about them, and nothing from outside of their directory.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::time::{Duration, SystemTime};

use crate::support::server::Builder;
use crate::support::{Client, Server, eventually};

/// 16 bytes to cut ranges from, and a secret beside the served directory.
fn files() -> Builder {
    Server::builtin()
        .file("public/hello.txt", "0123456789abcdef")
        .file("public/empty", "")
        .file("public/sub/index.html", "<h1>index</h1>")
        .file("public/bare/other.html", "no index here")
        .file("public/with space & ü.txt", "odd name")
        .file("secret/secret.txt", "secret")
}

fn serving() -> Server {
    files().arg("--static-dir=public").start()
}

fn get(client: &mut Client, path: &str, headers: &[(&str, &str)]) -> crate::support::http::Response {
    client.call("GET", path, headers, b"").unwrap()
}

#[test]
fn a_file_comes_with_all_a_cache_needs() {
    let server = serving();
    let mut client = server.client();
    let file = get(&mut client, "/hello.txt", &[]);
    assert_eq!((file.status, file.text().as_str()), (200, "0123456789abcdef"));
    assert_eq!(file.header("content-length"), Some("16"));
    assert_eq!(file.header("accept-ranges"), Some("bytes"));
    assert!(file.header("etag").unwrap().starts_with('"'));
    assert!(file.header("last-modified").unwrap().ends_with(" GMT"));
    let head = client.call("HEAD", "/hello.txt", &[], b"").unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    for name in ["content-length", "content-type", "etag", "last-modified", "accept-ranges"] {
        assert_eq!(head.header(name), file.header(name), "{name}");
    }
    let empty = get(&mut client, "/empty", &[]);
    assert_eq!((empty.status, empty.header("content-length")), (200, Some("0")));
    assert_eq!(get(&mut client, "/with%20space%20%26%20%C3%BC.txt?query=ignored", &[]).text(), "odd name");
}

#[test]
fn ranges_give_the_part_that_was_asked_for() {
    let server = serving();
    let mut client = server.client();
    for (range, status, part, content_range) in [
        ("bytes=0-3", 206, "0123", "bytes 0-3/16"),
        ("bytes=10-", 206, "abcdef", "bytes 10-15/16"),
        ("bytes=-2", 206, "ef", "bytes 14-15/16"),
        ("bytes=12-99", 206, "cdef", "bytes 12-15/16"),
        ("bytes=-99", 206, "0123456789abcdef", "bytes 0-15/16"),
        ("bytes=16-", 416, "", "bytes */16"),
        ("bytes=99-100", 416, "", "bytes */16"),
    ] {
        let answer = get(&mut client, "/hello.txt", &[("Range", range)]);
        assert_eq!(answer.status, status, "{range}");
        assert_eq!(answer.header("content-range"), Some(content_range), "{range}");
        if status == 206 {
            assert_eq!(answer.text(), part, "{range}");
        }
    }
    // What is no range of bytes is ignored, see RFC 9110 section 14.2.
    for range in ["bytes=x-y", "lines=1-2", "bytes=", "0-3"] {
        let answer = get(&mut client, "/hello.txt", &[("Range", range)]);
        assert_eq!((answer.status, answer.body.len()), (200, 16), "{range}");
    }
    // Of a file large enough for the parts to be worth their frames.
    fs::write(server.path("public/long.txt"), "0123456789".repeat(1000)).unwrap();
    let several = get(&mut client, "/long.txt", &[("Range", "bytes=0-1,-2,5000-5001")]);
    let text = several.text();
    assert_eq!(several.status, 206, "{text}");
    assert!(several.header("content-type").unwrap().starts_with("multipart/byteranges; boundary="));
    for range in ["bytes 0-1/10000", "bytes 9998-9999/10000", "bytes 5000-5001/10000"] {
        assert!(text.contains(range), "{text}");
    }

    let etag = get(&mut client, "/hello.txt", &[]).header("etag").unwrap().to_owned();
    let unchanged = get(&mut client, "/hello.txt", &[("Range", "bytes=0-3"), ("If-Range", &etag)]);
    assert_eq!((unchanged.status, unchanged.text().as_str()), (206, "0123"));
    let changed = get(&mut client, "/hello.txt", &[("Range", "bytes=0-3"), ("If-Range", "\"other\"")]);
    assert_eq!((changed.status, changed.body.len()), (200, 16));
}

#[test]
fn what_a_client_has_already_is_not_sent_again() {
    let server = serving();
    let mut client = server.client();
    let file = get(&mut client, "/hello.txt", &[]);
    let (etag, modified) = (file.header("etag").unwrap(), file.header("last-modified").unwrap());
    let past = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (header, value, status) in [
        ("If-None-Match", etag, 304),
        ("If-None-Match", "\"a\", \"b\"", 200),
        ("If-None-Match", "*", 304),
        ("If-Modified-Since", modified, 304),
        ("If-Modified-Since", past, 200),
        ("If-Modified-Since", "no date", 200),
        ("If-Match", etag, 200),
        ("If-Match", "\"other\"", 412),
        ("If-Unmodified-Since", past, 412),
        ("If-Unmodified-Since", modified, 200),
    ] {
        let answer = get(&mut client, "/hello.txt", &[(header, value)]);
        assert_eq!(answer.status, status, "{header}: {value}");
        if status == 304 {
            assert!(answer.body.is_empty() && answer.header("etag") == Some(etag));
        }
    }
    // An etag outweighs a date, see RFC 9110 section 13.2.2.
    let both =
        get(&mut client, "/hello.txt", &[("If-None-Match", "\"other\""), ("If-Modified-Since", modified)]);
    assert_eq!(both.status, 200);

    // Another content of the same length in the same second is another file.
    fs::write(server.path("public/hello.txt"), "fedcba9876543210").unwrap();
    let changed = get(&mut client, "/hello.txt", &[("If-None-Match", etag)]);
    assert_eq!((changed.status, changed.text().as_str()), (200, "fedcba9876543210"));
}

#[test]
fn directories_have_an_index_or_nothing() {
    let server = serving();
    let mut client = server.client();
    assert_eq!(get(&mut client, "/sub/", &[]).text(), "<h1>index</h1>");
    let redirect = get(&mut client, "/sub?a=b", &[]);
    assert_eq!((redirect.status, redirect.header("location")), (301, Some("/sub/?a=b")));
    assert_eq!(get(&mut client, "/bare/", &[]).status, 404);
    assert_eq!(get(&mut client, "/hello.txt/", &[]).status, 404);
    // Never to another server: a browser reads //host as one.
    let location = get(&mut client, "//sub", &[]).header("location").map(str::to_owned);
    assert!(location.is_none_or(|location| !location.starts_with("//")));

    let args = ["--static-dir=public", "--static-index=home.html", "--static-index=other.html"];
    let server = files().args(args).start();
    assert_eq!(server.get("/bare/").text(), "no index here");
    assert_eq!(server.get("/sub/").status, 404, "an index given replaces the default one");
}

#[test]
fn maps_are_tried_in_order_and_end_at_segments() {
    let server = files()
        .file("second/only-here.txt", "second")
        .args([
            "--static-map=/files=public",
            "--static-map=/files=second",
            "--static-map=/one=public/hello.txt",
        ])
        .start();
    let mut client = server.client();
    assert_eq!(get(&mut client, "/files/hello.txt", &[]).text(), "0123456789abcdef");
    assert_eq!(get(&mut client, "/files/only-here.txt", &[]).text(), "second");
    assert_eq!(get(&mut client, "/one", &[]).text(), "0123456789abcdef", "a map may be of one file");
    // Not below a map: the page of the application.
    for path in ["/", "/filesystem/hello.txt", "/hello.txt"] {
        assert!(get(&mut client, path, &[("Accept", "text/plain")]).text().contains("appserver"), "{path}");
    }
}

#[test]
fn nothing_leads_out_of_the_directory() {
    let builder = files();
    symlink("../secret/secret.txt", builder.path("public/link.txt")).unwrap();
    symlink("../secret", builder.path("public/linkdir")).unwrap();
    symlink(builder.path("secret/secret.txt"), builder.path("public/absolute.txt")).unwrap();
    symlink("hello.txt", builder.path("public/inside.txt")).unwrap();
    symlink("loop", builder.path("public/loop")).unwrap();
    let server = builder.arg("--static-dir=public").start();
    let mut client = server.client();
    for path in [
        "/../secret/secret.txt",
        "/sub/../../secret/secret.txt",
        "/%2e%2e/secret/secret.txt",
        "/%2E%2E/secret/secret.txt",
        "/.%2e/secret/secret.txt",
        "/..%2fsecret%2fsecret.txt",
        "/%2e%2e%2fsecret%2fsecret.txt",
        "/..%5csecret%5csecret.txt",
        "/..\\secret\\secret.txt",
        "/%252e%252e/secret/secret.txt",
        "//../secret/secret.txt",
        "/./../secret/secret.txt",
        "/hello.txt%00.html",
        "/%00",
        "/link.txt",
        "/linkdir/secret.txt",
        "/absolute.txt",
        "/loop",
        "/proc/self/environ",
        "//etc/passwd",
        "/etc/passwd",
    ] {
        let answer = get(&mut client, path, &[]);
        assert_eq!(answer.status, 404, "{path}: {}", answer.text());
    }
    assert_eq!(get(&mut client, "/inside.txt", &[]).text(), "0123456789abcdef", "a link within is fine");
    assert_eq!(get(&mut client, "//hello.txt", &[]).text(), "0123456789abcdef");
}

#[test]
fn links_are_followed_where_they_are_allowed_to() {
    for (args, link, elsewhere) in [
        (&["--static-safe=secret"] as &[&str], 200, 404),
        (&["--static-follow-symlinks"], 200, 200),
        (&["--static-follow-symlinks=false"], 404, 404),
    ] {
        let builder = files().file("elsewhere/file.txt", "elsewhere");
        symlink("../secret/secret.txt", builder.path("public/link.txt")).unwrap();
        symlink("../elsewhere", builder.path("public/elsewhere")).unwrap();
        let server = builder.arg("--static-dir=public").args(args).start();
        assert_eq!(server.get("/link.txt").status, link, "{args:?}");
        assert_eq!(server.get("/elsewhere/file.txt").status, elsewhere, "{args:?}");
        if link == 404 {
            server.wait_for_log("refused (see static-safe)");
        }
    }
}

#[test]
fn methods_other_than_get_and_head_are_refused() {
    let server = serving();
    let mut client = server.client();
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = client.call(method, "/hello.txt", &[], b"").unwrap();
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD")), "{method}");
    }
    assert_eq!(fs::read_to_string(server.path("public/hello.txt")).unwrap(), "0123456789abcdef");
}

#[test]
fn media_types_follow_from_the_names() {
    let cases = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.png", "image/png"),
        ("A.JPG", "image/jpeg"),
        ("a.woff2", "font/woff2"),
        ("a.wasm", "application/wasm"),
        ("a.pdf", "application/pdf"),
        ("a.unheard-of", "application/octet-stream"),
        ("noname", "application/octet-stream"),
    ];
    let builder = cases
        .iter()
        .fold(Server::builtin(), |builder, (name, _)| builder.file(&format!("public/{name}"), "x"));
    let server = builder.arg("--static-dir=public").start();
    let mut client = server.client();
    for (name, expected) in cases {
        assert_eq!(
            get(&mut client, &format!("/{name}"), &[]).header("content-type"),
            Some(expected),
            "{name}"
        );
    }
}

#[test]
fn a_large_file_arrives_whole_also_while_it_is_replaced() {
    let old: Vec<u8> = (0..8_000_000_u32).map(|at| (at % 251) as u8).collect();
    let server = files().file("public/large.bin", &old).arg("--static-dir=public").start();
    let mut connection = server.connect();
    connection.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    // Its head is here, most of its body is not: both sides' buffers are smaller.
    connection.receive_status().unwrap();
    fs::write(server.path("public/new"), vec![b'n'; 9_000_000]).unwrap();
    fs::rename(server.path("public/new"), server.path("public/large.bin")).unwrap();
    assert!(connection.receive_to_end().unwrap() == old, "the answer mixes two files or was cut");
    assert!(server.get("/large.bin").body == vec![b'n'; 9_000_000]);
}

#[test]
fn a_file_that_shrinks_while_it_is_sent_cuts_the_answer() {
    let server = files().file("public/large.bin", vec![b'x'; 16_000_000]).arg("--static-dir=public").start();
    let mut connection = server.connect();
    connection.send(b"GET /large.bin HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    connection.receive_status().unwrap();
    File::options().write(true).open(server.path("public/large.bin")).unwrap().set_len(10).unwrap();
    // Shorter than it was announced, and then closed: nobody takes it for the whole file.
    assert!(connection.receive_to_end().map_or(true, |body| body.len() < 16_000_000));
    assert_eq!(server.get("/hello.txt").status, 200);
}

#[test]
fn files_are_served_as_they_are_now() {
    let server = serving();
    assert_eq!(server.get("/later.txt").status, 404);
    fs::write(server.path("public/later.txt"), "now").unwrap();
    assert_eq!(server.get("/later.txt").text(), "now");
    // Also when the directory itself is another one, as after a deployment.
    fs::rename(server.path("public"), server.path("old")).unwrap();
    assert_eq!(server.get("/later.txt").status, 404);
    fs::create_dir(server.path("public")).unwrap();
    fs::write(server.path("public/later.txt"), "next").unwrap();
    assert_eq!(server.get("/later.txt").text(), "next");
    let old = File::open(server.path("public/later.txt")).unwrap();
    old.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)).unwrap();
    let modified = server.get("/later.txt").header("last-modified").map(str::to_owned);
    assert_eq!(modified.as_deref(), Some("Sun, 06 Nov 1994 08:49:37 GMT"));
}

#[test]
fn relative_directories_begin_at_chdir_and_a_missing_one_may_come_later() {
    let server = files().args(["--chdir=public", "--static-map=/s=sub", "--static-map=/later=later"]).start();
    assert_eq!(server.get("/s/").text(), "<h1>index</h1>");
    assert_eq!(server.get("/later/file").status, 404);
    fs::create_dir(server.path("public/later")).unwrap();
    fs::write(server.path("public/later/file"), "came").unwrap();
    assert_eq!(
        eventually("it is served", crate::support::LIMIT, || Some(server.get("/later/file").text())),
        "came"
    );
}

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let builder = files().file("public/closed", "closed").copied().directory_mode(0o755);
    crate::support::server::set_mode(&builder.path("public/closed"), 0o600);
    let server = builder.args(["--static-dir=public", "--uid=nobody"]).start();
    assert_eq!(server.get("/closed").status, 403);
    assert_eq!(server.get("/hello.txt").status, 200);
}

#[test]
fn a_file_of_media_types_goes_before_those_built_in() {
    let server = files()
        .file("mime.types", "application/x-ours  txt ours\n")
        .args(["--static-dir=public", "--mimefile=mime.types"]);
    let server = server.file("public/a.ours", "a").start();
    let mut client = server.client();
    assert_eq!(get(&mut client, "/a.ours", &[]).header("content-type"), Some("application/x-ours"));
}
