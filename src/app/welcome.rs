//! The built-in page: shows which worker of which generation answered.
//!
//! Everything but two counters is rendered once per worker, so that an answer is one buffer and
//! two numbers. Nothing a client sends appears in it.

use std::cell::RefCell;

use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode};

use super::{App, Reply, Request, Response, ResponseBody, WorkerInfo, text};

const HTML: &str = include_str!("welcome.html");
const TEXT: &str = "appserver @version@ is running\n\nrelease: @release@\nworker: @worker@\npid: @pid@\n\
    generation: @generation@\nreloads: @reloads@\nrequests of this worker: @served@\n\
    requests of all workers: @total@\n\nTo serve files: --static-dir DIR, --static-map /PREFIX=DIR\n";
const JSON: &str = "{\"server\":\"appserver\",\"version\":\"@version@\",\"release\":@release@,\
    \"worker\":@worker@,\"pid\":@pid@,\"generation\":@generation@,\"reloads\":@reloads@,\
    \"worker_requests\":@served@,\"requests\":@total@}\n";

/// The media types on offer, the preferred one first.
const TYPES: [(&str, &str); 3] = [("text", "html"), ("text", "plain"), ("application", "json")];

/// A dozen pages.
const BUFFER: usize = 16 * 1024;

/// The built-in application.
pub struct Welcome {
    /// Memory of the pages on their way.
    buffer: RefCell<BytesMut>,
    release: Option<String>,
    worker: Option<WorkerInfo>,
    /// In the order of [`TYPES`].
    pages: [Page; 3],
}

/// A page, but for the two counters.
struct Page {
    media_type: HeaderValue,
    parts: [Box<str>; 3],
}

impl Welcome {
    /// The page of this release; `release` is the operator's label for it.
    pub fn new(release: Option<&str>) -> Self {
        let release = release.map(str::to_owned);
        Welcome { pages: render(release.as_deref(), None), release, worker: None, buffer: RefCell::default() }
    }

    fn page(&self, headers: &HeaderMap) -> Response {
        let page = &self.pages[preferred(headers)];
        let (served, total) = self.worker.as_ref().map_or((0, 0), |worker| {
            let board = &worker.scoreboard;
            (board.cell(worker.cell).requests(), board.total_requests())
        });
        let [before, between, behind] = &page.parts;
        let (mut buffer_served, mut buffer_total) = (itoa::Buffer::new(), itoa::Buffer::new());
        let pieces = [before, buffer_served.format(served), between, buffer_total.format(total), behind];
        let mut buffer = self.buffer.borrow_mut();
        // Takes the memory of earlier pages again once they have been sent.
        buffer.reserve(pieces.iter().map(|piece| piece.len()).sum());
        pieces.iter().for_each(|piece| buffer.extend_from_slice(piece.as_bytes()));
        let mut response = Response::new(ResponseBody::Full(buffer.split().freeze()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, page.media_type.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::VARY, HeaderValue::from_static("accept"));
        response
    }
}

impl App for Welcome {
    fn call(&self, request: Request) -> Reply {
        Reply::Now(match (&request.head.method, request.head.uri.path()) {
            (&Method::GET | &Method::HEAD, "/favicon.ico") => text(StatusCode::NOT_FOUND, "not found\n"),
            (&Method::GET | &Method::HEAD, _) => self.page(&request.head.headers),
            _ => {
                let mut response =
                    text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are served here\n");
                response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        })
    }

    fn worker_started(&mut self, worker: &WorkerInfo) {
        self.pages = render(self.release.as_deref(), Some(worker));
        self.worker = Some(worker.clone());
        self.buffer = RefCell::new(BytesMut::with_capacity(BUFFER));
    }

    fn occupies_slot(&self) -> bool {
        false
    }
}

fn render(release: Option<&str>, worker: Option<&WorkerInfo>) -> [Page; 3] {
    let label = release.unwrap_or("unnamed");
    let json_label = serde_json::to_string(&release).unwrap_or_else(|_| "null".into());
    [
        Page::new("text/html; charset=utf-8", HTML, &escape(label), worker),
        Page::new("text/plain; charset=utf-8", TEXT, label, worker),
        Page::new("application/json", JSON, &json_label, worker),
    ]
}

impl Page {
    fn new(media_type: &'static str, template: &str, release: &str, worker: Option<&WorkerInfo>) -> Self {
        let number = |figure: fn(&WorkerInfo) -> u64| worker.map_or(0, figure).to_string();
        // The counters are cut out first: a label may contain anything.
        let (before, rest) = template.split_once("@served@").expect("invariant: in each template");
        let (between, behind) = rest.split_once("@total@").expect("invariant: in each template");
        let fill = |part: &str| -> Box<str> {
            part.replace("@version@", env!("CARGO_PKG_VERSION"))
                .replace("@worker@", &number(|worker| u64::from(worker.slot)))
                .replace("@pid@", &std::process::id().to_string())
                .replace("@generation@", &number(|worker| worker.generation))
                .replace("@reloads@", &number(|worker| worker.reloads))
                .replace("@release@", release)
                .into()
        };
        Page {
            media_type: HeaderValue::from_static(media_type),
            parts: [fill(before), fill(between), fill(behind)],
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The index of the media type that the client likes best; the first one when it has no opinion.
fn preferred(headers: &HeaderMap) -> usize {
    let mut best = (0, 0);
    for (index, media_type) in TYPES.iter().enumerate() {
        let quality = quality(headers, media_type);
        if quality > best.1 {
            best = (index, quality);
        }
    }
    best.0
}

/// The weight, in thousandths, that the client gives to a media type: that of the most specific
/// range that matches it (RFC 9110 §12.5.1).
fn quality(headers: &HeaderMap, (kind, subtype): &(&str, &str)) -> u32 {
    let mut found = None;
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in ranges.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let Some((range_kind, range_subtype)) = parts.next().and_then(|range| range.split_once('/')) else {
            continue;
        };
        let specificity = match (range_kind, range_subtype) {
            ("*", "*") => 0,
            (range, "*") if range.eq_ignore_ascii_case(kind) => 1,
            (range, sub) if range.eq_ignore_ascii_case(kind) && sub.eq_ignore_ascii_case(subtype) => 2,
            _ => continue,
        };
        let weight = parts.find_map(|parameter| parameter.strip_prefix("q=")?.parse::<f32>().ok());
        let weight = (weight.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32;
        if found.is_none_or(|(best, _)| specificity >= best) {
            found = Some((specificity, weight));
        }
    }
    found.map_or(0, |(_, weight)| weight)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::app::test_request;
    use crate::scoreboard::Scoreboard;
    use crate::scoreboard::sheet::{Sheet, SheetFile};

    fn started() -> Welcome {
        let scoreboard = Arc::new(Scoreboard::create().expect("scoreboard"));
        for (cell, requests) in [(0, 5), (2, 7)] {
            scoreboard.note_use(cell);
            scoreboard.cell(cell).set_requests(requests);
        }
        let mut welcome = Welcome::new(Some("<v1> @served@"));
        welcome.worker_started(&WorkerInfo {
            slot: 3,
            scoreboard,
            cell: 2,
            generation: 4,
            reloads: 9,
            sheet: Arc::new(
                SheetFile::create().and_then(|it| Sheet::adopt(it.into(), 1, None)).expect("a sheet"),
            ),
            master: Arc::new(|_| {}),
            set_title: Arc::new(|_| {}),
            requests_logged: true,
            replaced_after: Arc::default(),
        });
        welcome
    }

    fn answer(method: &str, path: &str, accept: &str) -> (u16, String, String) {
        let Reply::Now(response) = started().call(test_request(method, path, &[("accept", accept)])) else {
            panic!("the page is ready at once");
        };
        let ResponseBody::Full(body) = response.body() else { panic!("one buffer") };
        let media_type = response.headers()[header::CONTENT_TYPE].to_str().expect("text").to_owned();
        (response.status().as_u16(), media_type, String::from_utf8_lossy(body).into_owned())
    }

    #[test]
    fn the_page_comes_in_the_form_the_client_prefers() {
        for (accept, expected) in [
            ("", "text/html; charset=utf-8"),
            ("*/*", "text/html; charset=utf-8"),
            ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
            ("text/plain", "text/plain; charset=utf-8"),
            ("application/json", "application/json"),
            ("application/json;q=0.5, text/*;q=0.7", "text/html; charset=utf-8"),
            ("text/html;q=0, text/*", "text/plain; charset=utf-8"),
            ("text/html;q=0.2, application/json; q=0.3", "application/json"),
            ("image/png", "text/html; charset=utf-8"),
        ] {
            assert_eq!(answer("GET", "/", accept).1, expected, "{accept}");
        }
    }

    #[test]
    fn the_json_form_tells_all_figures() {
        let (status, _, body) = answer("GET", "/any/path", "application/json");
        assert_eq!(status, 200);
        let page: serde_json::Value = serde_json::from_str(&body).expect("json");
        let figures =
            ["worker", "generation", "reloads", "worker_requests", "requests"].map(|key| &page[key]);
        assert_eq!(figures.map(|figure| figure.as_u64()), [3, 4, 9, 7, 12].map(Some));
        assert_eq!(page["pid"], std::process::id());
        assert_eq!(page["release"], "<v1> @served@");
    }

    #[test]
    fn the_html_form_has_no_hole_and_escapes_the_label() {
        let (_, _, body) = answer("GET", "/", "text/html");
        assert!(body.contains("release &lt;v1&gt; @served@") && body.contains("<dd>12</dd>"), "{body}");
        assert_eq!(body.matches('@').count(), 2, "only those of the label");
    }

    #[test]
    fn other_methods_and_the_icon_are_not_served() {
        assert_eq!(answer("POST", "/", "").0, 405);
        assert_eq!(answer("HEAD", "/", "").0, 200);
        assert_eq!(answer("GET", "/favicon.ico", "").0, 404);
    }
}
