use std::os::unix::fs::symlink;

use bytes::Bytes;
use http_body_util::BodyExt;

use super::*;
use crate::app::{ResponseBody, test_request};

/// A directory of its own for one test.
struct Site(PathBuf);

impl Site {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("appserver-static-{}-{name}", std::process::id()));
        std::fs::create_dir_all(path.join("public/docs/empty")).expect("directories");
        std::fs::create_dir_all(path.join("other")).expect("directories");
        let site = Site(path.canonicalize().expect("path"));
        for (file, content) in [
            ("public/a.txt", "0123456789"),
            ("public/b c.html", "<p>"),
            ("public/docs/index.html", "index"),
            ("secret", "secret"),
            ("other/file", "other"),
        ] {
            std::fs::write(site.0.join(file), content).expect("file");
        }
        symlink("a.txt", site.0.join("public/inside")).expect("link");
        symlink(site.0.join("public/a.txt"), site.0.join("public/inside-absolute")).expect("link");
        symlink("../secret", site.0.join("public/outside")).expect("link");
        symlink(site.0.join("other"), site.0.join("public/other")).expect("link");
        site
    }

    fn rules(&self, prefix: &str) -> Rules {
        let map = StaticMap { prefix: prefix.into(), target: self.0.join("public") };
        Rules { maps: vec![map], index: vec!["index.html".into()], ..Rules::default() }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Stands for an application behind the files.
struct Behind;

impl App for Behind {
    fn call(&self, _request: Request) -> Reply {
        Reply::Now(text(StatusCode::IM_A_TEAPOT, "behind"))
    }
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    fn field(&self, name: HeaderName) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }
}

fn ask(files: &StaticFiles, method: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
    let Reply::Now(response) = files.call(test_request(method, path, fields)) else { panic!("at once") };
    let (parts, body) = response.into_parts();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    let body = match body {
        ResponseBody::Empty => Bytes::new(),
        ResponseBody::Full(bytes) => bytes,
        ResponseBody::Stream(stream) | ResponseBody::Produced(stream) => {
            runtime.block_on(stream.collect()).expect("body").to_bytes()
        }
        ResponseBody::File { file, offset, length } => {
            let mut bytes = vec![0; length as usize];
            std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, offset).expect("file");
            Bytes::from(bytes)
        }
    };
    let body = String::from_utf8_lossy(&body).into_owned();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn get(files: &StaticFiles, path: &str) -> (u16, String) {
    let answer = ask(files, "GET", path, &[]);
    (answer.status, answer.body)
}

fn at_root(site: &Site) -> StaticFiles {
    StaticFiles::with_rules(site.rules("/"), Box::new(Behind), false)
}

#[test]
fn a_file_is_served_with_its_type_and_validators() {
    let site = Site::new("plain");
    let answer = ask(&at_root(&site), "GET", "/a.txt", &[]);
    assert_eq!((answer.status, answer.body.as_str()), (200, "0123456789"));
    assert_eq!(answer.field(header::CONTENT_TYPE), "text/plain; charset=utf-8");
    assert_eq!(answer.field(header::CONTENT_LENGTH), "10");
    let (tag, date) = (answer.field(header::ETAG), answer.field(header::LAST_MODIFIED));
    for (name, value, status) in [
        ("if-none-match", tag, 304),
        ("if-none-match", "\"x\"", 200),
        ("if-modified-since", date, 304),
        ("if-modified-since", "never", 200),
        ("if-unmodified-since", "never", 200),
        ("if-match", "\"x\"", 412),
    ] {
        assert_eq!(ask(&at_root(&site), "GET", "/a.txt", &[(name, value)]).status, status, "{name}: {value}");
    }
    let answer = ask(&at_root(&site), "HEAD", "/a.txt", &[]);
    assert_eq!((answer.status, answer.body.as_str(), answer.field(header::CONTENT_LENGTH)), (200, "", "10"));
}

#[test]
fn ranges_are_served() {
    let site = Site::new("ranges");
    let files = at_root(&site);
    for (range, status, body) in [
        ("bytes=2-4", 206, "234"),
        ("bytes=-3", 206, "789"),
        ("bytes=8-", 206, "89"),
        ("bytes=10-", 416, ""),
        ("lines=1-2", 200, "0123456789"),
    ] {
        let answer = ask(&files, "GET", "/a.txt", &[("range", range)]);
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{range}");
    }
    let answer = ask(&files, "GET", "/a.txt", &[("range", "bytes=2-4")]);
    assert_eq!(answer.field(header::CONTENT_RANGE), "bytes 2-4/10");
    let stale = [("range", "bytes=2-4"), ("if-range", "\"x\"")];
    assert_eq!(ask(&files, "GET", "/a.txt", &stale).status, 200);
}

#[test]
fn a_large_file_comes_whole() {
    let site = Site::new("large");
    let content = "0123456789abcdef".repeat(20_000);
    std::fs::write(site.0.join("public/large"), &content).expect("file");
    assert!(get(&at_root(&site), "/large") == (200, content));
}

#[test]
fn no_path_leads_out_of_the_directory() {
    let site = Site::new("escape");
    let files = at_root(&site);
    for path in [
        "/../secret",
        "/docs/../../secret",
        "/%2e%2e/secret",
        "/.%2E/secret",
        "/docs/%2e%2e/%2e%2e/secret",
        "/..%2fsecret",
        "/%2e%2e%2fsecret",
        "/..%5csecret",
        "/a.txt%00",
        "/%00",
        "/outside",
        "/other/file",
        "/a.txt/",
        "/none",
        "/docs/empty/",
    ] {
        assert_eq!(get(&files, path), (404, "not found\n".into()), "{path}");
    }
    let absolute = format!("/{}/secret", site.0.display());
    assert_eq!(get(&files, &absolute).0, 404);
}

#[test]
fn links_are_followed_as_far_as_allowed() {
    let site = Site::new("links");
    let files = at_root(&site);
    assert_eq!(get(&files, "/inside"), (200, "0123456789".into()));
    assert_eq!(get(&files, "/inside-absolute"), (200, "0123456789".into()));
    let safe = Rules { safe: vec![site.0.join("other")], ..site.rules("/") };
    let files = StaticFiles::with_rules(safe, Box::new(Behind), false);
    assert_eq!(get(&files, "/other/file"), (200, "other".into()));
    assert_eq!(get(&files, "/outside").0, 404);
    let follow = Rules { follow: true, ..site.rules("/") };
    let files = StaticFiles::with_rules(follow, Box::new(Behind), false);
    assert_eq!(get(&files, "/outside"), (200, "secret".into()));
}

#[test]
fn directories_have_an_index_and_a_slash() {
    let site = Site::new("index");
    let files = at_root(&site);
    assert_eq!(get(&files, "/docs/"), (200, "index".into()));
    assert_eq!(get(&files, "//docs//"), (200, "index".into()));
    for (path, location) in [("/docs", "/docs/"), ("/docs?a=b", "/docs/?a=b"), ("//docs", "/docs/")] {
        let answer = ask(&files, "GET", path, &[]);
        assert_eq!((answer.status, answer.field(header::LOCATION)), (301, location));
    }
    assert_eq!(get(&files, "/").0, 404);
    let map = StaticMap { prefix: "/static".into(), target: site.0.join("public/docs") };
    let rules = Rules { maps: vec![map], ..site.rules("/") };
    let files = StaticFiles::with_rules(rules, Box::new(Behind), false);
    assert_eq!(ask(&files, "GET", "/static", &[]).field(header::LOCATION), "/static/");
}

#[test]
fn a_directory_without_an_index_is_not_there_with_or_without_a_slash() {
    let site = Site::new("no-index");
    for (fall_through, status) in [(false, 404), (true, 418)] {
        let files = StaticFiles::with_rules(site.rules("/"), Box::new(Behind), fall_through);
        for path in ["/", "/other", "/docs/empty", "/docs/empty/"] {
            assert_eq!(get(&files, path).0, status, "{path}");
        }
    }
}

#[test]
fn a_prefix_matches_whole_segments() {
    let site = Site::new("prefix");
    for prefix in ["/static", "/static/"] {
        let files = StaticFiles::with_rules(site.rules(prefix), Box::new(Behind), false);
        assert_eq!(get(&files, "/static/a.txt").0, 200);
        assert_eq!(get(&files, "/static/b%20c.html"), (200, "<p>".into()));
        assert_eq!(get(&files, "/st%61tic/a.txt").0, 200);
        assert_eq!(get(&files, "/static/none").0, 404);
        assert_eq!(get(&files, "/staticfoo/a.txt").0, 418);
        assert_eq!(get(&files, "/").0, 418);
    }
}

#[test]
fn what_is_no_file_goes_to_the_application_behind() {
    let site = Site::new("behind");
    let files = StaticFiles::with_rules(site.rules("/"), Box::new(Behind), true);
    assert_eq!(get(&files, "/a.txt").0, 200);
    assert_eq!(get(&files, "/none").0, 418);
    assert_eq!(get(&files, "/../secret").0, 418);
    assert_eq!(ask(&files, "POST", "/a.txt", &[]).status, 418);
    let answer = ask(&at_root(&site), "POST", "/a.txt", &[]);
    assert_eq!((answer.status, answer.field(header::ALLOW)), (405, "GET, HEAD"));
}

#[test]
fn a_single_file_and_several_maps_can_be_served() {
    let site = Site::new("maps");
    let map = |prefix: &str, target: &str| StaticMap { prefix: prefix.into(), target: site.0.join(target) };
    let maps =
        vec![map("/robots.txt", "secret"), map("/x", "missing"), map("/x", "other"), map("/x", "public")];
    let files = StaticFiles::with_rules(Rules { maps, ..Rules::default() }, Box::new(Behind), false);
    assert_eq!(get(&files, "/robots.txt"), (200, "secret".into()));
    assert_eq!(get(&files, "/robots.txt/a").0, 404);
    assert_eq!(get(&files, "/x/file"), (200, "other".into()));
    assert_eq!(get(&files, "/x/a.txt").0, 200);
}
