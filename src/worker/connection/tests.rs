//! The connection layer over real sockets.

use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use http_body::Frame;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::*;
use crate::app::slots::Slots;
use crate::app::{App, BodyError, Peer, Reply, Request, Response, ResponseBody};
use crate::protocol::accounting::{Accounting, RequestRecord};
use crate::protocol::http::{Front, HttpLimits};
use crate::scoreboard::{Scoreboard, WorkerState};
use crate::sys::seqpacket;
use crate::worker::handover::{self, Giver};

const LIMITS: HttpLimits = HttpLimits {
    keepalive: Duration::from_secs(60),
    headers_timeout: Duration::from_secs(10),
    io_timeout: Duration::from_secs(30),
    limit_post: 1000,
    buffer_size: 1024,
};

/// Answers by path, see the arms.
struct Echo {
    called: Rc<Notify>,
    go_on: Rc<Notify>,
}

/// A body of unknown length, the last piece first.
struct Pieces(Vec<&'static str>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = BodyError;
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Poll::Ready(self.0.pop().map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    }
}

fn full(text: &'static str) -> Response {
    Response::new(ResponseBody::Full(Bytes::from_static(text.as_bytes())))
}

impl App for Echo {
    fn call(&self, request: Request) -> Reply {
        self.called.notify_one();
        match request.head.uri.path() {
            "/echo" => Reply::Later(Box::pin(async move {
                match request.body.collect().await {
                    Ok(body) => Response::new(ResponseBody::Full(body.to_bytes())),
                    Err(_) => full("the body was bad"),
                }
            })),
            "/wait" => {
                let go_on = Rc::clone(&self.go_on);
                Reply::Later(Box::pin(async move {
                    go_on.notified().await;
                    full("waited")
                }))
            }
            "/pieces" => Reply::Now(Response::new(ResponseBody::Stream(Box::pin(Pieces(vec!["bc", "a"]))))),
            "/large" => Reply::Now(Response::new(ResponseBody::Full(Bytes::from(vec![b'x'; 16 << 20])))),
            "/none" => {
                let mut response = full("not to be sent");
                *response.status_mut() = http::StatusCode::NO_CONTENT;
                Reply::Now(response)
            }
            _ => Reply::Now(full("hello")),
        }
    }
}

/// A worker's connection layer behind a listener of its own.
struct Server {
    address: std::net::SocketAddr,
    set: Rc<ConnectionSet>,
    scoreboard: Arc<Scoreboard>,
    /// Where connections go that it gives away.
    queue: OwnedFd,
    records: Rc<RefCell<Vec<RequestRecord>>>,
    called: Rc<Notify>,
    go_on: Rc<Notify>,
}

impl Server {
    async fn start(limits: HttpLimits) -> Server {
        let scoreboard = Arc::new(Scoreboard::create().expect("scoreboard"));
        let records = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&records);
        let hook = Rc::new(move |record: &RequestRecord| log.borrow_mut().push(record.clone()));
        let accounting = Accounting::new(Arc::clone(&scoreboard), 0, Some(hook));
        let (called, go_on) = (Rc::new(Notify::new()), Rc::new(Notify::new()));
        let app = Rc::new(Echo { called: Rc::clone(&called), go_on: Rc::clone(&go_on) });
        let (queue, give) = seqpacket::pair().expect("descriptors are left");
        let set =
            ConnectionSet::new(Front::new(limits, app, Slots::new(1), accounting), Giver::new(give), None);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let accepting = Rc::clone(&set);
        tokio::task::spawn_local(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                let info = ConnectionInfo::new(Peer::Tcp(peer), "test".into());
                let stream = Stream::new(stream.into_std().expect("ours").into());
                let parcel = Parcel { stream, unread: Bytes::new(), known: false, info };
                tokio::task::spawn_local(Connection::new(&accepting, parcel));
            }
        });
        Server { address, set, scoreboard, queue, records, called, go_on }
    }

    async fn client(&self) -> Client {
        Client(TcpStream::connect(self.address).await.expect("connect"))
    }

    /// Sends `input` and returns all that comes until the server closes.
    async fn exchange(&self, input: impl AsRef<[u8]>) -> String {
        let mut client = self.client().await;
        client.send(input).await;
        client.rest().await
    }

    /// What the sweeper does when `after` has passed since the connections last moved.
    fn sweep_after(&self, after: Duration) {
        let now = Instant::now();
        self.set.sweep(now);
        self.set.sweep(now + after + Duration::from_millis(1));
    }

    /// Sweeps like that until the connection is closed; returns what the client got.
    async fn sweep_away(&self, client: &mut Client, after: Duration) -> String {
        let sweeping = async {
            loop {
                self.sweep_after(after);
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            rest = client.rest() => rest,
            () = sweeping => unreachable!("sweeping never ends"),
        }
    }

    /// Lets tasks run until `condition` holds.
    async fn eventually(&self, condition: impl Fn(&ConnectionSet) -> bool) {
        while !condition(&self.set) {
            tokio::task::yield_now().await;
        }
    }
}

struct Client(TcpStream);

impl Client {
    async fn send(&mut self, input: impl AsRef<[u8]>) {
        self.0.write_all(input.as_ref()).await.expect("send");
    }

    async fn rest(&mut self) -> String {
        let mut all = Vec::new();
        self.0.read_to_end(&mut all).await.expect("orderly end of the connection");
        String::from_utf8(all).expect("text")
    }

    /// One response with a Content-Length, or none.
    async fn response(&mut self) -> String {
        let mut all = self.head().await;
        let length = all.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().expect("length"))];
        self.0.read_exact(&mut body).await.expect("body");
        all.push_str(&String::from_utf8_lossy(&body));
        all
    }

    async fn head(&mut self) -> String {
        let mut all = Vec::new();
        while !all.ends_with(b"\r\n\r\n") {
            all.push(self.0.read_u8().await.expect("head"));
        }
        String::from_utf8(all).expect("text")
    }
}

/// Runs a test on the kind of runtime that a worker has.
fn with_server<F: Future<Output = ()>>(limits: HttpLimits, test: impl FnOnce(Server) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let test = async { test(Server::start(limits).await).await };
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("test takes too long");
    });
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[track_caller]
fn assert_status(response: &str, status: u16) {
    assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "expected {status}: {response:?}");
}

#[test]
fn a_connection_serves_one_request_after_another() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        for _ in 0..3 {
            client.send(GET).await;
            let response = client.response().await;
            assert_status(&response, 200);
            assert!(response.contains("\r\ndate: ") && response.ends_with("\r\n\r\nhello"), "{response:?}");
        }
        assert_eq!((server.set.len(), server.set.busy()), (1, 0));
        drop(client);
        server.set.emptied().await;
        assert_eq!(server.scoreboard.cell(0).requests(), 3);
        assert_eq!(server.scoreboard.cell(0).connections(), 0);
        assert!(server.scoreboard.cell(0).tx_bytes() > 100);
    });
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\ntwo";
        client.send([GET, post, GET].concat()).await;
        assert!(client.response().await.ends_with("hello"));
        assert!(client.response().await.ends_with("two"));
        assert!(client.response().await.ends_with("hello"));
    });
}

#[test]
fn chunks_are_understood_both_ways() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.send([head, "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: t\r\n\r\n"].concat()).await;
        assert!(client.response().await.ends_with("\r\n\r\nabcde"));
        client.send("GET /pieces HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        let response = client.rest().await;
        assert!(response.contains("transfer-encoding: chunked"), "{response:?}");
        assert!(response.ends_with("\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"), "{response:?}");
    });
}

#[test]
fn head_and_204_have_no_body() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = client.head().await;
        assert!(head.contains("content-length: 5\r\n"), "{head:?}");
        client.send("GET /none HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_status(&client.head().await, 204);
        client.send(GET).await;
        assert!(client.response().await.ends_with("hello"));
        assert!(server.records.borrow().iter().all(|record| !record.aborted));
    });
}

#[test]
fn http_10_closes_unless_asked_to_keep_the_connection() {
    with_server(LIMITS, async |server| {
        let response = server.exchange("GET / HTTP/1.0\r\n\r\n").await;
        assert!(response.starts_with("HTTP/1.0 200") && response.ends_with("hello"), "{response:?}");
        let response = server.exchange("GET /pieces HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert!(response.ends_with("\r\n\r\nabc"), "{response:?}");
        let mut client = server.client().await;
        for _ in 0..2 {
            client.send("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").await;
            assert!(client.response().await.contains("connection: keep-alive\r\n"));
        }
    });
}

#[test]
fn continue_is_sent_when_the_application_reads() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        let fields = "Host: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n";
        client.send(format!("POST /echo HTTP/1.1\r\n{fields}")).await;
        assert_status(&client.head().await, 100);
        client.send("ok").await;
        assert!(client.response().await.ends_with("ok"));
        // An application that does not read gets no body, and the connection is not reused.
        client.send(format!("POST / HTTP/1.1\r\n{fields}")).await;
        assert_status(&client.rest().await, 200);
    });
}

#[test]
fn bad_requests_are_refused_and_the_connection_closed() {
    with_server(LIMITS, async |server| {
        let long = "x".repeat(2000);
        let fields: String = (0..101).map(|_| "A:\r\n").collect();
        for (request, status) in [
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", 413),
            (&format!("GET /{long} HTTP/1.1\r\n\r\n"), 414),
            (&format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n"), 431),
            (&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"), 431),
            ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
            ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        ] {
            let response = server.exchange(request).await;
            assert_status(&response, status);
            assert!(response.contains("\r\nConnection: close\r\n"), "{response:?}");
            assert_eq!(response.matches("\r\nDate: ").count(), 1, "{response:?}");
        }
        server.set.emptied().await;
        assert!(server.records.borrow().is_empty());
    });
}

#[test]
fn what_only_hyper_dislikes_is_a_client_error_too() {
    with_server(LIMITS, async |server| {
        let response = server.exchange("GET /a\"<> HTTP/1.1\r\nHost: a\r\n\r\nGET").await;
        assert!(response.starts_with("HTTP/1.1 4") || response.starts_with("HTTP/1.1 200"), "{response:?}");
        let response = server.exchange("GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_status(&response, 400);
    });
}

#[test]
fn a_good_request_is_answered_before_a_bad_one_is_refused() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n bad\r\n\r\n").await;
        server.called.notified().await;
        server.go_on.notify_one();
        assert!(client.response().await.ends_with("waited"));
        assert_status(&client.rest().await, 400);
    });
}

#[test]
fn a_refused_client_that_goes_on_sending_still_gets_its_answer() {
    with_server(LIMITS, async |server| {
        let client = TcpStream::connect(server.address).await.expect("connect");
        let (mut reader, mut writer) = client.into_split();
        let upload = async move {
            let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n";
            writer.write_all(head.as_bytes()).await.expect("head");
            writer.write_all(&vec![b'x'; 4_000_000]).await.expect("body is discarded, not reset");
            writer.shutdown().await.expect("shutdown");
        };
        let mut response = String::new();
        let (_, read) = tokio::join!(upload, reader.read_to_string(&mut response));
        read.expect("answer");
        assert_status(&response, 413);
    });
}

#[test]
fn a_body_that_turns_out_bad_is_answered_by_the_server() {
    with_server(LIMITS, async |server| {
        let head = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let too_large = [head, "3e9\r\n", &"x".repeat(1001)].concat();
        for (request, status) in [([head, "3\r\nabc\r\nz\r\n"].concat(), 400), (too_large, 413)] {
            let mut client = server.client().await;
            client.send(head.as_bytes()).await;
            server.called.notified().await;
            client.send(&request[head.len()..]).await;
            let response = client.rest().await;
            assert_status(&response, status);
            assert!(response.contains("connection: close\r\n"), "{response:?}");
        }
        server.set.emptied().await;
        assert_eq!(server.scoreboard.cell(0).in_flight(), 0);
    });
}

#[test]
fn a_slow_head_is_answered_with_408() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("GET / HTTP/1.1\r\n").await;
        server.eventually(|set| set.busy() == 1).await;
        server.sweep_after(LIMITS.headers_timeout);
        assert_status(&client.rest().await, 408);
    });
}

#[test]
fn a_dripping_head_does_not_gain_time() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("GET / HTTP/1.1\r\n").await;
        server.eventually(|set| set.busy() == 1).await;
        let now = Instant::now();
        server.set.sweep(now);
        client.send("A: b\r\n").await;
        tokio::task::yield_now().await;
        server.set.sweep(now + LIMITS.headers_timeout + Duration::from_millis(1));
        assert_status(&client.rest().await, 408);
    });
}

#[test]
fn a_silent_connection_is_closed_without_a_word() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        server.eventually(|set| set.len() == 1).await;
        server.sweep_after(LIMITS.headers_timeout);
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn an_idle_connection_is_closed_after_the_keepalive_time() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send(GET).await;
        client.response().await;
        server.sweep_after(LIMITS.headers_timeout);
        client.send(GET).await;
        client.response().await;
        server.sweep_after(LIMITS.keepalive);
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn a_stalled_upload_is_answered_with_408() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc").await;
        server.called.notified().await;
        assert_status(&server.sweep_away(&mut client, LIMITS.io_timeout).await, 408);
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_off() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.called.notified().await;
        while !server.set.is_empty() {
            server.sweep_after(LIMITS.io_timeout);
            tokio::task::yield_now().await;
        }
        assert!(server.records.borrow()[0].aborted);
    });
}

#[test]
fn a_slow_application_has_no_limit_here() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.called.notified().await;
        let now = Instant::now();
        server.set.sweep(now);
        server.set.sweep(now + Duration::from_secs(600));
        server.go_on.notify_one();
        assert!(client.response().await.ends_with("waited"));
    });
}

#[test]
fn draining_closes_after_the_next_response() {
    with_server(LIMITS, async |server| {
        let mut idle = server.client().await;
        idle.send(GET).await;
        idle.response().await;
        let mut busy = server.client().await;
        busy.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.called.notified().await;
        server.called.notified().await;
        server.set.drain(Instant::now() + Duration::from_secs(60));
        server.go_on.notify_one();
        for client in [&mut busy, &mut idle] {
            if server.set.len() == 1 {
                client.send(GET).await;
            }
            let response = client.response().await;
            assert!(response.contains("connection: close\r\n"), "{response:?}");
            assert_eq!(client.rest().await, "");
            client.0.shutdown().await.expect("shutdown");
            server.eventually(|set| set.len() < 2).await;
        }
    });
}

#[test]
fn draining_closes_idle_connections_at_the_deadline() {
    with_server(LIMITS, async |server| {
        let mut idle = server.client().await;
        idle.send(GET).await;
        idle.response().await;
        let now = Instant::now();
        server.set.drain(now + Duration::from_secs(3));
        server.set.sweep(now);
        server.set.sweep(now + Duration::from_secs(2));
        tokio::task::yield_now().await;
        assert_eq!(server.set.len(), 1);
        server.set.sweep(now + Duration::from_secs(3));
        assert_eq!(idle.rest().await, "");
    });
}

#[test]
fn stopping_closes_idle_connections_and_finishes_a_half_read_request() {
    with_server(LIMITS, async |server| {
        let mut idle = server.client().await;
        idle.send(GET).await;
        idle.response().await;
        let mut partial = server.client().await;
        partial.send("GET / HTTP/1.1\r\n").await;
        let silent = server.client().await;
        server.eventually(|set| set.len() == 3 && set.busy() == 1).await;
        server.set.stop();
        assert_eq!(idle.rest().await, "");
        drop(idle);
        partial.send("Host: a\r\n\r\n").await;
        let response = partial.rest().await;
        assert!(response.contains("connection: close\r\n") && response.ends_with("hello"), "{response:?}");
        drop((partial, silent));
        server.set.emptied().await;
    });
}

#[test]
fn requests_above_the_number_of_slots_wait_their_turn() {
    with_server(LIMITS, async |server| {
        let (mut first, mut second) = (server.client().await, server.client().await);
        first.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
        server.called.notified().await;
        second.send(GET).await;
        server.eventually(|set| set.busy() == 2).await;
        assert_eq!(server.scoreboard.cell(0).in_flight(), 1);
        assert_eq!(server.scoreboard.cell(0).state(), WorkerState::Busy);
        server.go_on.notify_one();
        assert!(first.response().await.ends_with("waited"));
        assert!(second.response().await.ends_with("hello"));
        server.eventually(|set| set.busy() == 0).await;
        assert_eq!(server.scoreboard.cell(0).state(), WorkerState::Idle);
        assert_eq!(server.scoreboard.cell(0).request_start(), 0);
    });
}

#[test]
fn a_client_may_close_its_side_and_wait() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.0.shutdown().await.expect("shutdown");
        server.called.notified().await;
        server.go_on.notify_one();
        assert!(client.rest().await.ends_with("waited"));
    });
}

#[test]
fn the_log_hook_gets_a_record_of_each_request() {
    with_server(LIMITS, async |server| {
        let mut client = server.client().await;
        client.send("POST /echo?q HTTP/1.1\r\nHost: a\r\nUser-Agent: t\r\nContent-Length: 2\r\n\r\nok").await;
        client.response().await;
        let records = server.records.borrow();
        let record = records.first().expect("one record");
        assert_eq!((record.method.as_str(), record.uri.to_string().as_str()), ("POST", "/echo?q"));
        assert_eq!((record.status, record.body_bytes, record.content_length), (200, 2, Some(2)));
        assert_eq!(record.user_agent.as_ref().map(|value| value.as_bytes()), Some(&b"t"[..]));
        assert_eq!(record.request_header_count, 3);
        assert!(!record.aborted);
    });
}

#[test]
fn a_half_read_head_goes_on_in_another_worker() {
    with_server(LIMITS, async |server| {
        let (near, far) = tokio::net::UnixStream::pair().expect("pair");
        let info = ConnectionInfo::new(Peer::Unix, "test".into());
        let parcel = Parcel {
            stream: Stream::new(far.into_std().expect("ours").into()),
            unread: Bytes::new(),
            known: false,
            info,
        };
        let mut near = near;
        near.write_all(b"GET / HTTP/1.1\r\nHo").await.expect("half a head");
        let mut connection = Connection::new(&server.set, parcel);
        let mut polled = std::pin::pin!(std::future::poll_fn(|cx| {
            let _ = Pin::new(&mut connection).poll(cx);
            if connection.state.in_head.get() { Poll::Ready(()) } else { Poll::Pending }
        }));
        polled.as_mut().await;
        server.set.hand_over();
        connection.await;
        let parcel = handover::take(server.queue.as_fd()).expect("it was put there");
        assert_eq!(&parcel.unread[..], b"GET / HTTP/1.1\r\nHo");
        assert_eq!((&parcel.info.peer, &*parcel.info.listener), (&Peer::Unix, "test"));
        let other = Server::start(LIMITS).await;
        tokio::task::spawn_local(Connection::new(&other.set, parcel));
        near.write_all(b"st: a\r\nConnection: close\r\n\r\n").await.expect("the rest");
        let mut response = String::new();
        near.read_to_string(&mut response).await.expect("response");
        assert!(response.ends_with("hello"), "{response:?}");
    });
}

#[test]
fn a_kept_connection_stays_kept_in_another_worker() {
    with_server(LIMITS, async |server| {
        let (mut kept, _silent) = (server.client().await, server.client().await);
        kept.send(GET).await;
        kept.response().await;
        server.eventually(|set| set.len() == 2).await;
        server.set.hand_over();
        server.set.emptied().await;
        let other = Server::start(LIMITS).await;
        for _ in 0..2 {
            let parcel = handover::take(server.queue.as_fd()).expect("it was put there");
            tokio::task::spawn_local(Connection::new(&other.set, parcel));
        }
        other.eventually(|set| set.len() == 2).await;
        other.sweep_after(LIMITS.headers_timeout);
        other.eventually(|set| set.len() == 1).await;
        kept.send(GET).await;
        kept.response().await;
    });
}

/// All of its connections have a request in flight or waiting whenever it looks.
#[test]
fn a_worker_that_never_rests_gives_away_what_it_has_too_many_of() {
    with_server(LIMITS, async |server| {
        server.scoreboard.note_use(1);
        server.scoreboard.cell(1).set_state(WorkerState::Busy);
        let mut clients = vec![server.client().await, server.client().await, server.client().await];
        for client in &mut clients {
            client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n").await;
        }
        server.called.notified().await;
        server.eventually(|set| set.len() == 3 && set.busy() == 3).await;
        tokio::task::spawn_local(Rc::clone(&server.set).run_sweeper());
        tokio::task::yield_now().await;
        // Each may be the first whose turn it is.
        let answers = clients.into_iter().map(|mut client| {
            tokio::task::spawn_local(async move {
                client.response().await;
                client
            })
        });
        let answers: Vec<_> = answers.collect();
        while !answers.iter().all(tokio::task::JoinHandle::is_finished) {
            server.go_on.notify_one();
            tokio::task::yield_now().await;
        }
        server.eventually(|set| set.len() == 2).await;
        handover::take(server.queue.as_fd()).expect("a difference of one is not worth moving any");
    });
}

#[test]
fn the_sweeper_sleeps_while_there_is_nothing_to_watch() {
    with_server(LIMITS, async |server| {
        let now = Instant::now();
        assert_eq!(server.set.sweep(now), None);
        let mut client = server.client().await;
        client.send(GET).await;
        client.response().await;
        assert_eq!(server.set.sweep(now), Some(now + Duration::from_secs(1)));
        assert_eq!(server.set.sweep(now), Some(now + LIMITS.keepalive));
    });
}

#[test]
fn the_sweeper_enforces_the_limits_by_itself() {
    let limits = HttpLimits { headers_timeout: Duration::from_millis(100), ..LIMITS };
    with_server(limits, async |server| {
        tokio::task::spawn_local(Rc::clone(&server.set).run_sweeper());
        let mut client = server.client().await;
        client.send("GET / HTTP/1.1\r\n").await;
        assert_status(&client.rest().await, 408);
    });
}

#[test]
fn a_stop_hears_out_a_client_that_has_just_come() {
    with_server(LIMITS, async |server| {
        let mut early = server.client().await;
        let mut silent = server.client().await;
        server.eventually(|set| set.len() == 2).await;
        server.set.stop();
        tokio::task::yield_now().await;
        assert_eq!(server.set.len(), 2);
        early.send(GET).await;
        let response = early.rest().await;
        assert!(response.contains("connection: close\r\n") && response.ends_with("hello"), "{response:?}");
        drop(early);
        // Not for long.
        server.set.emptied().await;
        assert_eq!(silent.rest().await, "");
    });
}
