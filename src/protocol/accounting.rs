//! Counts what a worker does: the figures of its scoreboard cell, and one record per logged request.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::sync::Notify;

use super::state::ConnectionState;
use crate::app::logvars::LogVars;
use crate::app::slots::Permit;
use crate::app::{ConnectionInfo, Request};
use crate::scoreboard::share::Share;
use crate::scoreboard::{Cell as BoardCell, Scoreboard, WorkerState};
use crate::sys::clock::whole_micros;

/// One finished request, for the request log.
#[derive(Debug, Clone)]
pub struct RequestRecord {
    /// Request method.
    pub method: Method,
    /// Request target as sent.
    pub uri: Uri,
    /// Request version.
    pub version: Version,
    /// Client and listener.
    pub connection: Rc<ConnectionInfo>,
    /// Status of the response.
    pub status: u16,
    /// Bytes of the response body handed to the client's connection, before chunking.
    pub body_bytes: u64,
    /// Bytes of the response head; an estimate, because hyper adds fields of its own.
    pub head_bytes: u64,
    /// Header fields of the response, without those hyper adds.
    pub header_count: usize,
    /// Header fields of the request.
    pub request_header_count: usize,
    /// Bytes of the request head; an estimate, because white space is gone by then.
    pub request_bytes: u64,
    /// Declared length of the request body.
    pub content_length: Option<u64>,
    /// When the application was called.
    pub started: SystemTime,
    /// From the call until the end of the response body.
    pub duration: Duration,
    /// `Host` of the request.
    pub host: Option<HeaderValue>,
    /// `User-Agent` of the request.
    pub user_agent: Option<HeaderValue>,
    /// `Referer` of the request.
    pub referer: Option<HeaderValue>,
    /// `X-Forwarded-For` of the request.
    pub x_forwarded_for: Option<HeaderValue>,
    /// Number of the thread that the request ran in, or of its slot; 0 for applications that need none.
    pub core: u32,
    /// The response was not finished: the client left, or its body failed.
    pub aborted: bool,
    /// What the application adds to the line.
    pub vars: Option<LogVars>,
}

/// What receives the records.
pub type LogHook = Rc<dyn Fn(&RequestRecord)>;

/// The figures of one worker.
pub struct Accounting {
    scoreboard: Arc<Scoreboard>,
    cell: usize,
    log: Option<LogHook>,
    resting: Cell<WorkerState>,
    in_flight: Cell<u64>,
    starts: RefCell<Starts>,
    anchor: Cell<Anchor>,
    /// How long the last request took.
    last: Cell<Duration>,
    /// Requests after which somebody is told.
    milestone: Cell<u64>,
    reached: Notify,
    when_finished: OnceCell<Box<dyn Fn(u64)>>,
    /// Tells the master that a request has begun.
    herald: OnceCell<Box<dyn Fn()>>,
}

/// Start times of the requests in flight, the oldest first; [`Starts::DONE`] for finished ones
/// that an older request keeps in the queue.
#[derive(Debug, Default)]
struct Starts {
    micros: VecDeque<u64>,
    first: u64,
}

impl Starts {
    const DONE: u64 = 0;

    fn push(&mut self, micros: u64) -> u64 {
        self.micros.push_back(micros);
        self.first + self.micros.len() as u64 - 1
    }

    /// The start of the oldest request that is left, or zero.
    fn remove(&mut self, number: u64) -> u64 {
        self.micros[(number - self.first) as usize] = Self::DONE;
        while self.micros.front() == Some(&Self::DONE) {
            self.micros.pop_front();
            self.first += 1;
        }
        self.micros.front().copied().unwrap_or(0)
    }
}

/// The same moment on both clocks: a request reads the monotonic one only.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    instant: Instant,
    time: SystemTime,
    /// The same as microseconds since the epoch.
    micros: u64,
}

impl Anchor {
    fn now() -> Self {
        let time = SystemTime::now();
        let micros = whole_micros(time.duration_since(UNIX_EPOCH).unwrap_or_default());
        Anchor { instant: Instant::now(), time, micros }
    }

    fn micros_of(self, instant: Instant) -> u64 {
        self.micros + whole_micros(instant.saturating_duration_since(self.instant))
    }

    fn time_of(self, instant: Instant) -> SystemTime {
        self.time + instant.saturating_duration_since(self.instant)
    }
}

impl std::fmt::Debug for Accounting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Accounting").field("cell", &self.cell).finish_non_exhaustive()
    }
}

impl Accounting {
    /// Accounts into cell `cell`; with `log`, a record is made of every request.
    pub fn new(scoreboard: Arc<Scoreboard>, cell: usize, log: Option<LogHook>) -> Rc<Self> {
        scoreboard.note_use(cell);
        Rc::new(Accounting {
            scoreboard,
            cell,
            log,
            resting: Cell::new(WorkerState::Idle),
            in_flight: Cell::new(0),
            starts: RefCell::default(),
            anchor: Cell::new(Anchor::now()),
            last: Cell::default(),
            milestone: Cell::new(u64::MAX),
            reached: Notify::new(),
            when_finished: OnceCell::new(),
            herald: OnceCell::new(),
        })
    }

    /// Has `call` called after each request, with the number of those that have ended. Once only.
    pub fn when_finished(&self, call: impl Fn(u64) + 'static) {
        let set = self.when_finished.set(Box::new(call));
        debug_assert!(set.is_ok(), "invariant: the worker says it once");
    }

    fn board(&self) -> BoardCell<'_> {
        self.scoreboard.cell(self.cell)
    }

    /// What the worker shows when no request is in flight. Any other state than `Idle`
    /// (draining, paused) is also shown while requests are.
    pub fn set_resting_state(&self, state: WorkerState) {
        self.resting.set(state);
        self.show_state();
    }

    /// What tells the master that a request has begun, when it wants to know.
    pub fn set_herald(&self, herald: impl Fn() + 'static) {
        self.herald.get_or_init(|| Box::new(herald));
    }

    fn show_state(&self) {
        let state = match self.resting.get() {
            WorkerState::Idle if self.in_flight.get() > 0 => WorkerState::Busy,
            resting => resting,
        };
        self.board().set_state(state);
    }

    /// How this worker's connections compare with those of the others.
    pub fn share(&self) -> Share {
        Share::of(&self.scoreboard, self.cell)
    }

    /// How long the last request took that ended since this was asked.
    pub(crate) fn take_last(&self) -> Duration {
        self.last.take()
    }

    /// Waits until this worker has served so many requests. Only one may wait.
    pub async fn served(&self, requests: u64) {
        self.milestone.set(requests);
        self.reached.notified().await;
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> u64 {
        self.in_flight.get()
    }

    /// The last request that has begun: method and path.
    pub fn last_request(&self) -> String {
        self.board().last_request()
    }

    /// Reads the wall clock again, which may have been set. Called by the sweeper.
    pub(crate) fn synchronise_clock(&self) {
        self.anchor.set(Anchor::now());
    }

    /// Bytes went out.
    pub(crate) fn sent(&self, bytes: u64) {
        let board = self.board();
        board.set_tx_bytes(board.tx_bytes() + bytes);
    }

    /// The number of open connections changed.
    pub(crate) fn connections(&self, count: usize) {
        self.board().set_connections(count as u64);
    }

    /// A request was begun. It ends when the returned value is dropped.
    pub(crate) fn begin(
        self: &Rc<Self>,
        request: &Request,
        state: &Rc<ConnectionState>,
        permit: Option<Permit>,
    ) -> InFlight {
        let started = Instant::now();
        let anchor = self.anchor.get();
        let micros = anchor.micros_of(started);
        let number = self.starts.borrow_mut().push(micros.max(1));
        self.in_flight.set(self.in_flight.get() + 1);
        let board = self.board();
        board.set_in_flight(self.in_flight.get());
        let target = request.head.uri.path_and_query().map_or("*", |target| target.as_str());
        board.set_last_request(request.head.method.as_str(), target);
        if self.in_flight.get() == 1 {
            board.set_request_start(micros);
            self.show_state();
            if self.scoreboard.take_awaited()
                && let Some(herald) = self.herald.get()
            {
                herald();
            }
        }
        if let Some((permit, sheet)) = permit.as_ref().and_then(|it| Some((it, it.sheet()?))) {
            let peer = request.connection.peer.address();
            sheet.begin(permit.core(), started, peer, request.head.method.as_str(), target);
        }
        let record = self.log.as_ref().map(|_| record(request, anchor.time_of(started), permit.as_ref()));
        state.claim.begin(permit);
        InFlight {
            accounting: Rc::clone(self),
            state: Rc::clone(state),
            record,
            bodiless: request.head.method == Method::HEAD,
            started,
            number,
            body_bytes: 0,
            complete: false,
        }
    }

    fn finish(&self, request: &mut InFlight) {
        let duration = request.started.elapsed();
        self.last.set(duration);
        let micros = whole_micros(duration);
        let oldest = self.starts.borrow_mut().remove(request.number);
        self.in_flight.set(self.in_flight.get() - 1);
        let board = self.board();
        board.set_in_flight(self.in_flight.get());
        board.set_request_start(oldest);
        let served = board.requests() + 1;
        board.set_requests(served);
        if served == self.milestone.get() {
            self.reached.notify_one();
        }
        board.set_running_micros(board.running_micros() + micros);
        board.set_average_micros((board.average_micros() + micros) / 2);
        if self.in_flight.get() == 0 {
            self.show_state();
        }
        if let (Some(log), Some(mut record)) = (&self.log, request.record.take()) {
            record.duration = duration;
            record.body_bytes = request.body_bytes;
            record.aborted = !request.complete;
            log(&record);
        }
        if let Some(call) = self.when_finished.get() {
            call(self.board().requests());
        }
    }
}

/// One request between the call of the application and the end of its response.
#[derive(Debug)]
pub struct InFlight {
    accounting: Rc<Accounting>,
    state: Rc<ConnectionState>,
    record: Option<Box<RequestRecord>>,
    started: Instant,
    number: u64,
    body_bytes: u64,
    bodiless: bool,
    complete: bool,
}

impl InFlight {
    /// The application has answered; the body is still to come.
    pub(crate) fn answered(&mut self, response: &mut http::response::Parts) {
        let (status, headers) = (response.status, &response.headers);
        self.state.responding.set(true);
        // The figures are of the time that the application takes.
        self.started += self.state.claim.waited();
        self.bodiless |= matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.complete = self.bodiless;
        if let Some(record) = &mut self.record {
            record.vars = response.extensions.remove();
            record.status = status.as_u16();
            // Which thread it would be was not known when it began.
            record.core = self.state.claim.thread().unwrap_or(record.core);
            record.header_count = headers.len();
            // "HTTP/1.1 200 ", the reason, CRLF, and the empty line.
            let reason = status.canonical_reason().map_or(0, str::len);
            record.head_bytes = (17 + reason) as u64 + field_bytes(headers);
        }
    }

    /// Ready once the request has its slot, which it left to others while the client was slow.
    pub(crate) fn poll_slot(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.state.reading.get() {
            // It waits for the request body, which returns to the slot as soon as there is some.
            // To return for nothing would take it from requests that can go on.
            return Poll::Ready(());
        }
        self.state.claim.poll_return(cx)
    }

    /// Whether the application is at work on the next part of the response body.
    pub(crate) fn producing(&self, yes: bool) {
        self.state.producing.set(yes);
    }

    /// The connection it came in on.
    pub(crate) fn connection(&self) -> &ConnectionState {
        &self.state
    }

    /// Part of the response body was handed over.
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
    }

    /// The response body ended as it should.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.state.responding.set(false);
        self.state.finished.set(self.state.finished.get() + 1);
        let accounting = Rc::clone(&self.accounting);
        accounting.finish(self);
        self.state.producing.set(false);
        self.state.claim.end();
    }
}

fn record(request: &Request, started: SystemTime, permit: Option<&Permit>) -> Box<RequestRecord> {
    let head = &request.head;
    let field = |name: HeaderName| head.headers.get(name).cloned();
    let target = head.uri.path_and_query().map_or(0, |target| target.as_str().len());
    Box::new(RequestRecord {
        method: head.method.clone(),
        uri: head.uri.clone(),
        version: head.version,
        connection: Rc::clone(&request.connection),
        status: 0,
        body_bytes: 0,
        head_bytes: 0,
        header_count: 0,
        request_header_count: head.headers.len(),
        // Two spaces, "HTTP/1.1", CRLF, and the empty line.
        request_bytes: (head.method.as_str().len() + target + 14) as u64 + field_bytes(&head.headers),
        content_length: field(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok()),
        started,
        duration: Duration::ZERO,
        host: field(header::HOST),
        user_agent: field(header::USER_AGENT),
        referer: field(header::REFERER),
        x_forwarded_for: field(HeaderName::from_static("x-forwarded-for")),
        core: permit.map_or(0, Permit::core),
        aborted: false,
        vars: None,
    })
}

/// `name: value` and CRLF for each field.
fn field_bytes(headers: &HeaderMap) -> u64 {
    headers.iter().map(|(name, value)| (name.as_str().len() + value.len() + 4) as u64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_request_in_flight_is_known_whatever_order_they_end_in() {
        let mut starts = Starts::default();
        let (first, second, third) = (starts.push(10), starts.push(20), starts.push(30));
        assert_eq!(starts.remove(second), 10);
        assert_eq!(starts.remove(first), 30);
        assert_eq!(starts.remove(third), 0);
        let fourth = starts.push(40);
        assert_eq!(starts.remove(fourth), 0);
    }
}
