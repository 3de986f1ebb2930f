//! Files below configured directories, in front of another application.
//!
//! Finding and opening the file is done here, because that is where a server can be tricked.
//! Conditional requests and ranges are http-serve's.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use percent_encoding::percent_decode_str;

use self::entity::Entity;
use self::types::MediaTypes;
use super::{App, Reply, Request, Response, Side, WaitHooks, WorkerInfo, text};
use crate::config::{Config, StaticMap};
use crate::signals;
use crate::sys::beneath;
use crate::sys::process::ThreadsPrepared;

mod entity;
#[cfg(test)]
mod tests;
mod types;

/// Serves `static-map` and `static-dir`; everything else goes to the application behind.
pub struct StaticFiles {
    rules: Rules,
    behind: Box<dyn App>,
    /// Requests for files that do not exist go to the application too.
    fall_through: bool,
}

/// Which files may be served, and where they are.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// First match first.
    pub(crate) maps: Vec<StaticMap>,
    /// File names tried for a directory.
    pub(crate) index: Vec<String>,
    /// Directories that links may lead to.
    pub(crate) safe: Vec<PathBuf>,
    /// Links may lead anywhere.
    pub(crate) follow: bool,
    /// What files are.
    pub(crate) types: MediaTypes,
}

/// What a path turned out to be.
#[expect(clippy::large_enum_variant, reason = "lives on the stack for the length of one call")]
enum Found {
    File(File, Metadata, PathBuf),
    /// A directory with an index, named without a slash.
    Redirect,
    Missing,
}

impl StaticFiles {
    /// Puts the static maps of `config` in front of `behind`. With `fall_through`, requests below a
    /// map that no file answers go on to `behind`, as in uWSGI; without, they get an error.
    pub fn new(config: &Config, behind: Box<dyn App>, fall_through: bool) -> Self {
        let rules = Rules {
            maps: config.static_maps.clone(),
            index: config.static_index.clone(),
            safe: config.static_safe.clone(),
            follow: config.static_follow_symlinks,
            types: MediaTypes::read(&config.mime_files),
        };
        Self::with_rules(rules, behind, fall_through)
    }

    pub(crate) fn with_rules(mut rules: Rules, behind: Box<dyn App>, fall_through: bool) -> Self {
        // Compared with real paths later. A directory that does not exist is compared as it is.
        for safe in &mut rules.safe {
            *safe = safe.canonicalize().unwrap_or_else(|_| safe.clone());
        }
        StaticFiles { rules, behind, fall_through }
    }

    /// The answer from the files, or that of the application if the request is for it.
    fn answer(&self, request: Request) -> Reply {
        let Some(segments) = segments(request.head.uri.path()) else {
            return self.missing(request, StatusCode::NOT_FOUND);
        };
        let mut maps = self.rules.maps.iter().filter_map(|map| Some((map, below(&map.prefix, &segments)?)));
        let Some(first) = maps.next() else { return self.behind.call(request) };
        if !matches!(request.head.method, Method::GET | Method::HEAD) {
            return self.missing(request, StatusCode::METHOD_NOT_ALLOWED);
        }
        for (map, rest) in std::iter::once(first).chain(maps) {
            match self.rules.find(&map.target, rest) {
                Ok(Found::File(file, metadata, name)) => {
                    let media_type = self.rules.types.of(&name);
                    return Reply::Now(serve(file, &metadata, &media_type, request));
                }
                Ok(Found::Redirect) => return Reply::Now(redirect(&request)),
                Ok(Found::Missing) => {}
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    return Reply::Now(text(StatusCode::FORBIDDEN, "forbidden\n"));
                }
                Err(error) => {
                    log::error!("static files of {}: {error}", map.target.display());
                    return Reply::Now(text(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be read\n"));
                }
            }
        }
        self.missing(request, StatusCode::NOT_FOUND)
    }

    fn missing(&self, request: Request, status: StatusCode) -> Reply {
        if self.fall_through {
            return self.behind.call(request);
        }
        if status != StatusCode::METHOD_NOT_ALLOWED {
            return Reply::Now(text(status, "not found\n"));
        }
        let mut response = text(status, "only GET and HEAD are served here\n");
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        Reply::Now(response)
    }
}

impl App for StaticFiles {
    fn call(&self, request: Request) -> Reply {
        self.answer(request)
    }

    fn before_fork(&self) -> Option<ThreadsPrepared> {
        self.behind.before_fork()
    }

    fn after_fork(&self, side: Side) {
        self.behind.after_fork(side);
    }

    fn worker_started(&mut self, worker: &WorkerInfo) {
        self.behind.worker_started(worker);
    }

    fn wait_hooks(&self) -> Option<WaitHooks> {
        self.behind.wait_hooks()
    }

    fn requests_to_master(&self) -> Vec<signals::Request> {
        self.behind.requests_to_master()
    }

    fn signal(&self, number: u8) -> Pin<Box<dyn Future<Output = ()>>> {
        self.behind.signal(number)
    }

    fn worker_stops(&self) {
        self.behind.worker_stops();
    }

    fn fork_obstacle(&self, server_threads: u32) -> Option<String> {
        self.behind.fork_obstacle(server_threads)
    }

    fn become_zygote(&mut self) -> Result<(), String> {
        self.behind.become_zygote()
    }

    fn occupies_slot(&self) -> bool {
        self.behind.occupies_slot()
    }
}

/// The decoded segments of a URL path; the last one is empty when the path ends in a slash.
/// `None` for paths that name no file: with dot segments, or with an encoded slash, backslash or NUL.
fn segments(path: &str) -> Option<Vec<Vec<u8>>> {
    let mut segments = Vec::new();
    let mut rest = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = rest.next() {
        let segment: Vec<u8> = percent_decode_str(segment).collect();
        let forbidden = segment.iter().any(|byte| matches!(byte, b'/' | b'\\' | 0));
        if forbidden || segment == b"." || segment == b".." {
            return None;
        }
        // Repeated slashes count as one.
        if !segment.is_empty() || rest.peek().is_none() {
            segments.push(segment);
        }
    }
    Some(segments)
}

/// The segments behind `prefix`, if the path is below it.
fn below<'a>(prefix: &str, segments: &'a [Vec<u8>]) -> Option<&'a [Vec<u8>]> {
    let mut rest = segments;
    for part in prefix.split('/').filter(|part| !part.is_empty()) {
        let (first, behind) = rest.split_first()?;
        if first != part.as_bytes() {
            return None;
        }
        rest = behind;
    }
    Some(rest)
}

impl Rules {
    /// Looks for the file that `segments` name below `target`. A target that is itself a file is
    /// found under the bare prefix.
    ///
    /// The directory is opened anew each time: a deployment may replace it.
    fn find(&self, target: &Path, segments: &[Vec<u8>]) -> io::Result<Found> {
        let root = match beneath::open_directory(target) {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory && segments.is_empty() => {
                let file = File::open(target)?;
                let metadata = file.metadata()?;
                return Ok(Found::File(file, metadata, target.to_owned()));
            }
            Err(error) => return missing(error),
        };
        let slash = segments.last().is_some_and(Vec::is_empty);
        let path = match &segments.join(&b'/')[..] {
            [] => PathBuf::from("."),
            path => PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())),
        };
        let file = match self.open(&root, &path) {
            Ok(file) => file,
            Err(error) => return missing(error),
        };
        let metadata = file.metadata()?;
        if metadata.is_file() {
            return Ok(Found::File(file, metadata, path));
        }
        if !metadata.is_dir() {
            return Ok(Found::Missing);
        }
        for name in &self.index {
            let path = path.join(name);
            match self.open(&root, &path) {
                Ok(file) => {
                    let metadata = file.metadata()?;
                    if metadata.is_file() && !slash {
                        // Also for a prefix alone: relative links in the index would miss a level.
                        return Ok(Found::Redirect);
                    }
                    if metadata.is_file() {
                        return Ok(Found::File(file, metadata, path));
                    }
                }
                Err(error) => {
                    missing(error)?;
                }
            }
        }
        Ok(Found::Missing)
    }

    /// Opens a file below `root`, or where links from there may lead.
    fn open(&self, root: &impl AsFd, path: &Path) -> io::Result<File> {
        let refused = match beneath::open_beneath(root.as_fd(), path) {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported) =>
            {
                error
            }
            result => return result,
        };
        let file = beneath::open_from(root.as_fd(), path)?;
        if self.follow {
            return Ok(file);
        }
        // The file is open by now: its real path can be judged without a race.
        let place = beneath::path_of(&file)?;
        let inside = place.starts_with(beneath::path_of(root)?);
        if inside || self.safe.iter().any(|safe| place.starts_with(safe)) {
            return Ok(file);
        }
        log::warn!(
            "static file {} is a link to {}, refused (see static-safe)",
            path.display(),
            place.display()
        );
        Err(refused)
    }
}

/// Tells "there is no such file" from trouble.
fn missing(error: io::Error) -> io::Result<Found> {
    use io::ErrorKind::{CrossesDevices, InvalidFilename, NotADirectory, NotFound};
    match error.kind() {
        NotFound | NotADirectory | InvalidFilename | CrossesDevices => Ok(Found::Missing),
        _ if beneath::is_link_loop(&error) => Ok(Found::Missing),
        _ => Err(error),
    }
}

/// 301 to the same path with a slash.
fn redirect(request: &Request) -> Response {
    let uri = &request.head.uri;
    // `//host` at the beginning would send the client to another server.
    let path = uri.path().trim_start_matches('/');
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = text(StatusCode::MOVED_PERMANENTLY, "moved permanently\n");
    if let Ok(location) = HeaderValue::try_from(format!("/{path}/{query}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn serve(file: File, metadata: &Metadata, media_type: &str, request: Request) -> Response {
    let mut head = request.head;
    // RFC 9110 §13.1.3: a date that is none is as good as no condition; http-serve answers 400.
    for name in [header::IF_MODIFIED_SINCE, header::IF_UNMODIFIED_SINCE] {
        remove_unless_date(&mut head.headers, &name);
    }
    if let Some(range) = head.headers.get_mut(header::RANGE) {
        widen_suffixes(range, metadata.len());
    }
    entity::serve(Entity::new(file, metadata, media_type), &http::Request::from_parts(head, ()))
}

/// RFC 9110 §14.1.2: as many last bytes as there are, or more, mean all of them; http-serve answers
/// 416.
fn widen_suffixes(range: &mut HeaderValue, length: u64) {
    let Some(ranges) = range.to_str().ok().and_then(|text| text.strip_prefix("bytes=")) else { return };
    let is_whole = |range: &str| {
        let last = range.trim().strip_prefix('-').and_then(|last| last.parse::<u64>().ok());
        length > 0 && last.is_some_and(|last| last >= length)
    };
    if !ranges.split(',').any(is_whole) {
        return;
    }
    let ranges: Vec<_> = ranges.split(',').map(|range| if is_whole(range) { "0-" } else { range }).collect();
    if let Ok(widened) = HeaderValue::try_from(format!("bytes={}", ranges.join(","))) {
        *range = widened;
    }
}

fn remove_unless_date(headers: &mut HeaderMap, name: &HeaderName) {
    let is_date =
        |value: &HeaderValue| value.to_str().is_ok_and(|text| httpdate::parse_http_date(text).is_ok());
    if headers.get(name).is_some_and(|value| !is_date(value)) {
        headers.remove(name);
    }
}
