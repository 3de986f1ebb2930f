//! What serves requests: the neutral request and response, and the trait an application implements.
//!
//! Protocols (HTTP/1.1 today) produce a [`Request`] and consume a [`Response`]; nothing here knows
//! which one it was. Everything runs on one thread of one worker, so nothing needs `Send`.

use std::cell::OnceCell;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;

use crate::config::Config;
use crate::config::recycling::Exceptions;
use crate::hooks::{self, Point};
use crate::scoreboard::Scoreboard;
use crate::scoreboard::sheet::Sheet;
use crate::signals;
use crate::sys::process::ThreadsPrepared;
use origin::Origin;

pub mod logvars;
pub mod origin;
pub mod plugin;
pub mod python;
pub mod slots;
pub mod staticfiles;
pub mod stray;
pub mod welcome;

/// An error that ends a body early.
pub type BodyError = Box<dyn Error + Send + Sync>;

/// Who is at the other end of the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A TCP client.
    Tcp(std::net::SocketAddr),
    /// A client on a Unix socket; it has no address worth telling.
    Unix,
}

impl Peer {
    /// Its address, if it has one.
    pub fn address(&self) -> Option<std::net::SocketAddr> {
        match self {
            Peer::Tcp(address) => Some(*address),
            Peer::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Peer::Tcp(address) => address.fmt(f),
            Peer::Unix => f.write_str("a client on a Unix socket"),
        }
    }
}

/// What the worker knows about a connection; shared by all requests on it.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// The client.
    pub peer: Peer,
    /// The listener's address as bound, with the real port.
    pub listener: Arc<str>,
    origin: OnceCell<Arc<Origin>>,
}

impl ConnectionInfo {
    /// A connection of `peer` to `listener`.
    pub fn new(peer: Peer, listener: Arc<str>) -> Self {
        ConnectionInfo { peer, listener, origin: OnceCell::new() }
    }

    /// Both ends as applications get to see them; written once for the connection.
    pub fn origin(&self) -> &Arc<Origin> {
        self.origin.get_or_init(|| Arc::new(Origin::of(&self.peer, &self.listener)))
    }
}

/// One request whose head is complete. The body is read on demand.
pub struct Request {
    /// Method, URI, version, headers.
    pub head: http::request::Parts,
    /// The body; already dechunked.
    pub body: RequestBody,
    /// The connection it came in on.
    pub connection: Rc<ConnectionInfo>,
    /// Its claim to a slot.
    pub claim: Rc<slots::Claim>,
}

/// What the application answers.
pub type Response = http::Response<ResponseBody>;

/// The answer now, or a future of it. `Now` costs no allocation.
pub enum Reply {
    /// Computed on the spot.
    Now(Response),
    /// The application has to wait for something.
    Later(Pin<Box<dyn Future<Output = Response>>>),
}

/// An application: built once per generation in the zygote, called in the workers.
pub trait App {
    /// Answers one request.
    fn call(&self, request: Request) -> Reply;

    /// Called in the zygote right before it forks a worker. What it returns allows a fork of a process
    /// with threads.
    fn before_fork(&self) -> Option<ThreadsPrepared> {
        None
    }

    /// Called after [`App::before_fork`] and the fork, in both processes.
    fn after_fork(&self, _side: Side) {}

    /// Called once in each worker after the fork, before the first request.
    fn worker_started(&mut self, _worker: &WorkerInfo) {}

    /// What is to be done around each wait for events; asked for after [`App::worker_started`].
    fn wait_hooks(&self) -> Option<WaitHooks> {
        None
    }

    /// What the application has asked of the master since it was asked last: in the zygote while it was
    /// loaded, for every worker.
    fn requests_to_master(&self) -> Vec<signals::Request> {
        Vec::new()
    }

    /// A signal for this worker, which holds a slot for it; the future ends with the application's
    /// function.
    fn signal(&self, _number: u8) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(std::future::ready(()))
    }

    /// Called last thing in a worker that leaves in good order.
    fn worker_stops(&self) {}

    /// What keeps this worker from being forked, were it asked to become the zygote. Beside its own the process
    /// has `server_threads` threads of the server, which will have ended by then.
    fn fork_obstacle(&self, _server_threads: u32) -> Option<String> {
        None
    }

    /// Called in place of [`App::worker_stops`] in a worker that is about to become the zygote: no request is
    /// left, nor the runtime of the server. An error is what keeps it from that; then the worker leaves.
    fn become_zygote(&mut self) -> Result<(), String> {
        Ok(())
    }

    /// Says while the worker is served whether the application may be given more requests than it has slots:
    /// it has threads of its own, which would be done with one before they got the next. Asked for after
    /// [`App::worker_started`]; `None` is never.
    fn takes_more(&self) -> Option<Box<dyn Fn() -> bool>> {
        None
    }

    /// True when a request occupies one of the worker's `threads` slots until its response is
    /// finished. False for applications that never wait (static files, the built-in page): the
    /// worker then always has a free slot.
    fn occupies_slot(&self) -> bool {
        true
    }
}

/// Which process of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The zygote.
    Parent,
    /// The worker.
    Child,
}

/// Functions that the worker's thread calls around its wait for events.
#[derive(Debug, Clone, Copy)]
pub struct WaitHooks {
    /// Before it waits.
    pub before: fn(),
    /// As soon as it has something to do.
    pub after: fn(),
}

/// What an application may know about the worker it runs in.
#[derive(Clone)]
pub struct WorkerInfo {
    /// Worker number, 1-based, stable across respawns.
    pub slot: u32,
    /// The scoreboard, for totals over all workers.
    pub scoreboard: Arc<Scoreboard>,
    /// Index of this worker's own cell in the scoreboard.
    pub cell: usize,
    /// Generation this worker belongs to; the first one is 1.
    pub generation: u64,
    /// Re-execs of the master so far.
    pub reloads: u64,
    /// The requests that it has in hand.
    pub sheet: Arc<Sheet>,
    /// Asks the master for things on behalf of the application.
    pub master: Arc<dyn Fn(AppCommand) + Send + Sync>,
    /// Shows a text in `ps` for this process.
    pub set_title: Arc<dyn Fn(&str) + Send + Sync>,
    /// False when no request is ever logged.
    pub requests_logged: bool,
    /// Exceptions after which this worker is to be replaced.
    pub replaced_after: Arc<Exceptions>,
}

/// What an application may ask of the master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppCommand {
    /// A graceful reload, as on `SIGHUP`.
    Reload,
    /// A graceful stop.
    Stop,
    /// A fresh worker in place of this one, which has raised an exception.
    Replace {
        /// Which, for the log.
        reason: String,
    },
    /// Something about signals.
    Signals(signals::Request),
    /// A request has a deadline before the master would look.
    LookSooner,
}

/// Builds the application. Runs in the zygote (or in each worker with `lazy-apps`), after
/// privileges were dropped; an error is what the operator reads when a reload is refused.
pub type AppFactory = fn(&Config) -> Result<Box<dyn App>, Box<dyn Error>>;

/// Makes the application, with the hooks before and after it.
///
/// # Errors
/// Those of the factory, and those of the hooks.
pub fn load(config: &Config, factory: AppFactory) -> Result<Box<dyn App>, Box<dyn Error>> {
    hooks::run_all(&config.hooks, Point::PreApp)?;
    let app = factory(config)?;
    hooks::run_all(&config.hooks, Point::PostApp)?;
    Ok(app)
}

/// The request body as the application reads it; `None` is no body, which costs no allocation.
pub struct RequestBody(Option<Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>>);

impl RequestBody {
    /// Wraps any body.
    pub fn new(body: impl http_body::Body<Data = Bytes, Error = BodyError> + 'static) -> Self {
        RequestBody(Some(Box::pin(body)))
    }

    /// The body of a request that has none.
    pub fn empty() -> Self {
        RequestBody(None)
    }
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.0 {
            Some(body) => body.as_mut().poll_frame(cx),
            None => Poll::Ready(None),
        }
    }
    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(|body| body.is_end_stream())
    }
    fn size_hint(&self) -> http_body::SizeHint {
        self.0.as_ref().map_or_else(|| http_body::SizeHint::with_exact(0), |body| body.size_hint())
    }
}

/// The response body.
pub enum ResponseBody {
    /// No body.
    Empty,
    /// The whole body at once.
    Full(Bytes),
    /// Produced piece by piece, as the client takes them.
    Stream(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>),
    /// Produced elsewhere, at the application's own pace: taking it from there needs no slot.
    Produced(Pin<Box<dyn http_body::Body<Data = Bytes, Error = BodyError>>>),
    /// Exactly `length` bytes of a file, from `offset` on; its position is left alone. The answer
    /// gets that `Content-Length`, and ends early if the file does.
    File {
        /// Open for reading. Shared, so that whoever opened it may keep it.
        file: Arc<File>,
        /// The first byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
    },
}

const NEEDED_BUT_NOT_NAMED: &str =
    "need-app is set and none is named: module, wsgi-file, eval or mount names one";

/// Builds the application: the one that the configuration names, or else the welcome page; behind the
/// static files if there are any.
///
/// # Errors
/// When the application cannot be loaded, or `need-app` wants one and none is named.
pub fn build(config: &Config) -> Result<Box<dyn App>, Box<dyn Error>> {
    let has_app = config.python.has_app();
    let app: Box<dyn App> = match has_app {
        true => Box::new(python::load(config)?),
        // A page of our own in its place would look like success.
        false if config.need_app => return Err(NEEDED_BUT_NOT_NAMED.into()),
        false => Box::new(welcome::Welcome::new(config.release.as_deref())),
    };
    if config.static_maps.is_empty() {
        return Ok(app);
    }
    // Behind the files of no application is nothing but a page of our own: what is missing is missing.
    Ok(Box::new(staticfiles::StaticFiles::new(config, app, has_app)))
}

/// A short answer for humans.
pub(crate) fn text(status: http::StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(ResponseBody::Full(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let plain = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
pub(crate) fn test_request(method: &str, uri: &str, fields: &[(&str, &str)]) -> Request {
    let mut request = http::Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let (head, ()) = request.body(()).expect("request").into_parts();
    let connection = Rc::new(ConnectionInfo::new(Peer::Unix, "test".into()));
    Request { head, body: RequestBody::empty(), connection, claim: Rc::default() }
}
