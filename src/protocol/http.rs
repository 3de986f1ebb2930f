//! From hyper's requests to the application's, and back.

use std::cell::{Cell, OnceCell};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;

use super::Refusal;
use super::accounting::{Accounting, InFlight};
use super::body::{CountedBody, IncomingBody};
use super::gate::{Gate, Limits};
use super::io::{Io, Scratch};
use super::outgoing;
use super::state::ConnectionState;
use super::stream::Stream;
use crate::app::slots::{Acquire, Permit, Slots};
use crate::app::{App, ConnectionInfo, Reply, Request, RequestBody, Response, ResponseBody};
use crate::config::Config;

/// Header fields of a request; hyper's own limit is the same.
const MAX_FIELDS: usize = 100;
/// hyper's read and write buffers may grow to this, or to the largest head.
const BUFFER: usize = 64 * 1024;

/// The part of the configuration that concerns HTTP.
#[derive(Debug, Clone, Copy)]
pub struct HttpLimits {
    /// `http-keepalive`: how long an idle connection may wait; zero closes after each response.
    pub keepalive: Duration,
    /// `http-headers-timeout`: how long a request head may take.
    pub headers_timeout: Duration,
    /// `http-timeout`: how long a transfer may stand still.
    pub io_timeout: Duration,
    /// `limit-post`: bytes of a request body; zero is no limit.
    pub limit_post: u64,
    /// `buffer-size`: bytes of a request head.
    pub buffer_size: usize,
}

impl From<&Config> for HttpLimits {
    fn from(config: &Config) -> Self {
        HttpLimits {
            keepalive: config.keepalive,
            headers_timeout: config.headers_timeout,
            io_timeout: config.io_timeout,
            limit_post: config.limit_post,
            buffer_size: config.buffer_size,
        }
    }
}

/// What all connections of a worker share.
pub struct Front {
    app: Rc<dyn App>,
    slots: Option<Rc<Slots>>,
    accounting: Rc<Accounting>,
    limits: HttpLimits,
    builder: http1::Builder,
    scratch: Scratch,
    closing: Cell<bool>,
    /// Asked by load balancers.
    ready_path: OnceCell<Box<str>>,
    /// The server goes away: see [`Front::farewell`].
    leaving: Cell<bool>,
}

impl Front {
    /// A front door for `app`. Its requests take a slot each if it asks for that.
    pub fn new(
        limits: HttpLimits,
        app: Rc<dyn App>,
        slots: Rc<Slots>,
        accounting: Rc<Accounting>,
    ) -> Rc<Self> {
        let mut builder = http1::Builder::new();
        builder
            // The time limits are the sweeper's: one timer for the worker, none per connection.
            .header_read_timeout(None)
            .keep_alive(!limits.keepalive.is_zero())
            // A client that has sent all its requests may close its side and wait.
            .half_close(true)
            // One buffer and one plain write beat a vectored one; large bodies come in pieces.
            .writev(false)
            // Flushing at once is what makes `ConnectionState::idle` true as soon as it is.
            .pipeline_flush(false)
            .max_buf_size(BUFFER.max(limits.buffer_size.saturating_add(1)));
        Rc::new(Front {
            slots: app.occupies_slot().then_some(slots),
            app,
            accounting,
            limits,
            builder,
            scratch: Scratch::default(),
            closing: Cell::new(false),
            ready_path: OnceCell::new(),
            leaving: Cell::new(false),
        })
    }

    /// Has requests for `path` answered here: 200 until [`Front::farewell`], 503 from then on.
    pub fn tell_readiness_at(&self, path: &str) {
        // Said once, before the first request.
        let _ = self.ready_path.set(path.into());
    }

    /// The server is about to go away: clients should look for another one. Every response says
    /// `Connection: close`.
    pub fn farewell(&self) {
        self.leaving.set(true);
        self.close_after_response();
    }

    /// The answer to a load balancer; `None` for other requests.
    fn readiness(&self, head: &http::request::Parts) -> Option<Response> {
        let path = self.ready_path.get()?;
        if head.uri.path() != &**path || !matches!(head.method, Method::GET | Method::HEAD) {
            return None;
        }
        let (status, text) = match self.leaving.get() {
            false => (StatusCode::OK, "ready\n"),
            true => (StatusCode::SERVICE_UNAVAILABLE, "leaving\n"),
        };
        let mut response = plain_text(status, Bytes::from_static(text.as_bytes()));
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Some(response)
    }

    /// From now on every response says `Connection: close`.
    pub fn close_after_response(&self) {
        self.closing.set(true);
    }

    /// [`Front::close_after_response`] was called.
    pub fn closing(&self) -> bool {
        self.closing.get()
    }

    /// The figures of the worker.
    pub fn accounting(&self) -> &Rc<Accounting> {
        &self.accounting
    }

    /// The limits of its connections.
    pub fn limits(&self) -> &HttpLimits {
        &self.limits
    }

    pub(crate) fn scratch(&self) -> &Scratch {
        &self.scratch
    }

    /// Puts hyper behind a gate on `stream`. `replay` comes before what the socket will deliver.
    pub(crate) fn serve(
        self: &Rc<Self>,
        stream: Stream,
        replay: Bytes,
        info: Rc<ConnectionInfo>,
        state: Rc<ConnectionState>,
    ) -> http1::Connection<Io, Service> {
        let HttpLimits { buffer_size: head, limit_post: body, .. } = self.limits;
        let gate = Gate::new(Limits { head, fields: MAX_FIELDS, body });
        let (scratch, accounting) = (self.scratch.clone(), Rc::clone(&self.accounting));
        let io = Io::new(stream, replay, gate, scratch, Rc::clone(&state), accounting);
        self.builder.serve_connection(io, Service { front: Rc::clone(self), info, state })
    }
}

/// The service of one connection.
pub struct Service {
    front: Rc<Front>,
    info: Rc<ConnectionInfo>,
    state: Rc<ConnectionState>,
}

impl hyper::service::Service<http::Request<Incoming>> for Service {
    type Response = http::Response<CountedBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        let (head, incoming) = request.into_parts();
        let body = match incoming.is_end_stream() {
            true => RequestBody::empty(),
            false => RequestBody::new(IncomingBody::new(incoming, Rc::clone(&self.state))),
        };
        let keep_alive_10 = head.version == Version::HTTP_10 && asks_keep_alive(&head.headers);
        let connection = Rc::clone(&self.info);
        let request = Request { head, body, connection, claim: Rc::clone(&self.state.claim) };
        let mut answer = Answer {
            front: Rc::clone(&self.front),
            state: Rc::clone(&self.state),
            keep_alive_10,
            stage: Stage::Done,
        };
        if let Some(response) = self.front.readiness(&request.head) {
            // Takes no slot: a server that is busy is ready all the same.
            let in_flight = self.front.accounting.begin(&request, &self.state, None);
            answer.stage = Stage::Running(Reply::Now(response), in_flight);
            return answer;
        }
        match &self.front.slots {
            None => answer.start(request, None),
            Some(slots) => match slots.try_acquire() {
                Some(permit) => answer.start(request, Some(permit)),
                None => answer.stage = Stage::Queued(Box::new((request, slots.acquire()))),
            },
        }
        answer
    }
}

/// A request on its way to its response.
pub struct Answer {
    front: Rc<Front>,
    state: Rc<ConnectionState>,
    /// The client speaks HTTP/1.0 and asked to keep the connection.
    keep_alive_10: bool,
    stage: Stage,
}

#[expect(
    clippy::large_enum_variant,
    reason = "lives in hyper's box of the connection, not on the heap by itself"
)]
enum Stage {
    /// All slots are taken.
    Queued(Box<(Request, Acquire)>),
    /// The application is at work.
    Running(Reply, InFlight),
    Done,
}

impl Answer {
    fn start(&mut self, request: Request, permit: Option<Permit>) {
        let in_flight = self.front.accounting.begin(&request, &self.state, permit);
        self.stage = Stage::Running(self.front.app.call(request), in_flight);
    }

    /// Adds what the server has to say about the connection.
    fn finish(&self, response: Response, in_flight: Option<InFlight>) -> http::Response<CountedBody> {
        let (mut parts, body) = response.into_parts();
        let mut in_flight = in_flight;
        if let Some(in_flight) = &mut in_flight {
            in_flight.answered(&mut parts);
        }
        if let ResponseBody::File { length, .. } = &body {
            outgoing::frame(&mut parts, *length);
        }
        let body = CountedBody::new(body, in_flight);
        if self.front.closing() || self.state.refused.get().is_some_and(|refused| refused.in_body) {
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        } else if self.keep_alive_10
            && body.size_hint().exact().is_some()
            && !parts.headers.contains_key(header::CONNECTION)
        {
            // hyper keeps an HTTP/1.0 connection only if the response says so.
            parts.headers.insert(header::CONNECTION, HeaderValue::from_static("keep-alive"));
        }
        http::Response::from_parts(parts, body)
    }
}

impl Future for Answer {
    type Output = Result<http::Response<CountedBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Some(refusal) = this.state.refused_in_body() {
            // The request has turned out to be bad: its answer is the server's, not the app's.
            let in_flight = match std::mem::replace(&mut this.stage, Stage::Done) {
                Stage::Running(_, in_flight) => Some(in_flight),
                Stage::Queued(_) | Stage::Done => {
                    this.state.finished.set(this.state.finished.get() + 1);
                    None
                }
            };
            return Poll::Ready(Ok(this.finish(error_response(refusal), in_flight)));
        }
        if let Stage::Queued(queued) = &mut this.stage {
            let permit = ready!(Pin::new(&mut queued.1).poll(cx));
            let Stage::Queued(queued) = std::mem::replace(&mut this.stage, Stage::Done) else {
                unreachable!("invariant: matched above")
            };
            this.start(queued.0, Some(permit));
        }
        if let Stage::Running(Reply::Later(later), _) = &mut this.stage {
            let response = ready!(later.as_mut().poll(cx));
            let Stage::Running(reply, _) = &mut this.stage else { unreachable!("invariant: matched above") };
            *reply = Reply::Now(response);
        }
        match std::mem::replace(&mut this.stage, Stage::Done) {
            Stage::Running(Reply::Now(response), in_flight) => {
                Poll::Ready(Ok(this.finish(response, Some(in_flight))))
            }
            _ => unreachable!("invariant: hyper does not poll a finished answer"),
        }
    }
}

fn asks_keep_alive(headers: &HeaderMap) -> bool {
    headers.get_all(header::CONNECTION).iter().any(|value| {
        let options = value.as_bytes().split(|&byte| byte == b',');
        options.map(<[u8]>::trim_ascii).any(|option| option.eq_ignore_ascii_case(b"keep-alive"))
    })
}

/// The response to a refused request that takes the place of the application's.
fn error_response(refusal: Refusal) -> Response {
    plain_text(status(refusal), Bytes::from(format!("{}\n", refusal.reason)))
}

fn plain_text(status: StatusCode, text: Bytes) -> Response {
    let mut response = Response::new(ResponseBody::Full(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

/// The same as bytes, for when hyper is out of the way.
pub(crate) fn error_bytes(refusal: Refusal) -> Bytes {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let body = format!("{}\n", refusal.reason);
    Bytes::from(format!(
        "HTTP/1.1 {}\r\nDate: {date}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        status(refusal),
        body.len(),
    ))
}

fn status(refusal: Refusal) -> StatusCode {
    StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::BAD_REQUEST)
}
