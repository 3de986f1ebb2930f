//! The load: a thread for each client, which does one thing over and over and keeps its own books.

use std::iter;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::account::{Incident, Kind, Loss, Tally, What};
use super::probe::{Findings, Target, Targets};
use super::random::Random;
use super::websocket;
use super::wire::{Answer, Connection};

/// Requests that a pipelining client sends at once.
const DEPTH: u64 = 8;
/// Most bytes of a POST: several socket buffers.
const POSTED: usize = 300_000;
/// Pieces of a slow upload, and the wait before each.
const PIECES: usize = 8;
const PIECE_PAUSE: Duration = Duration::from_millis(50);
const PIECE: usize = 4096;
/// After each read of a slow reader.
const READING_PAUSE: Duration = Duration::from_millis(5);
/// Pings of a WebSocket before it says good-bye.
const PINGS: usize = 20;
/// What a client thread needs of stack: its buffers are on the heap but for one piece.
const STACK: usize = 256 * 1024;

/// What the clients and who hits the server know in common.
#[derive(Debug)]
pub struct Stage {
    begin: Instant,
    /// The server.
    pub address: SocketAddr,
    /// How long a client waits for an answer.
    pub patience: Duration,
    /// Odd while the server was told to accept nobody.
    pauses: AtomicU64,
    stopped: Mutex<bool>,
    stop: Condvar,
}

impl Stage {
    /// Time begins.
    pub fn new(address: SocketAddr, patience: Duration) -> Self {
        let (pauses, stopped, stop) = <(AtomicU64, Mutex<bool>, Condvar)>::default();
        Stage { begin: Instant::now(), address, patience, pauses, stopped, stop }
    }

    /// Since the beginning.
    pub fn now(&self) -> Duration {
        self.begin.elapsed()
    }

    /// From now on until the next call, nobody is accepted because we said so.
    pub fn toggle_pause(&self) {
        self.pauses.fetch_add(1, SeqCst);
    }

    fn pauses(&self) -> u64 {
        self.pauses.load(SeqCst)
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.lock().expect("invariant: nothing panics while it holds this lock")
    }

    /// Waits for `patience`, or for the end of the load.
    fn rest(&self, patience: Duration) {
        let stopped = self.stopped.lock().expect("invariant: nothing panics while it holds this lock");
        let waited = self.stop.wait_timeout_while(stopped, patience, |stopped| !*stopped);
        drop(waited.expect("invariant: nothing panics while it holds this lock"));
    }
}

/// All clients at work.
#[derive(Debug)]
pub struct Load {
    stage: Arc<Stage>,
    clients: Vec<(Kind, JoinHandle<Tally>)>,
}

impl Load {
    /// Starts the clients that are served; those without a number share `count` among them.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(
        stage: &Arc<Stage>,
        findings: &Findings,
        count: usize,
        think: Duration,
        seed: u64,
    ) -> std::io::Result<Self> {
        let mut load = Load { stage: Arc::clone(stage), clients: Vec::new() };
        let numbered = findings.groups.iter().flat_map(|it| iter::repeat_n(it.kind, it.clients.unwrap_or(0)));
        let others = findings.groups.iter().filter(|it| it.clients.is_none()).map(|it| it.kind);
        let kinds = numbered.chain(others.cycle().take(count));
        for (number, kind) in kinds.enumerate() {
            let mut client = Client {
                kind,
                stage: Arc::clone(stage),
                targets: Arc::clone(&findings.targets),
                think,
                random: Random::new(seed, number as u64 + 1),
                kept: None,
                tally: Tally { clients: 1, ..Tally::default() },
            };
            let work = move || {
                while !client.stage.is_stopped() {
                    // First, so that they do not all begin at once.
                    client.idle();
                    client.turn();
                }
                client.tally
            };
            let thread = thread::Builder::new().name(kind.name().to_owned()).stack_size(STACK);
            load.clients.push((kind, thread.spawn(work)?));
        }
        Ok(load)
    }

    /// Ends the load after the requests in flight; the books by kind.
    pub fn stop(mut self) -> Vec<(Kind, Tally)> {
        let mut books: Vec<(Kind, Tally)> = Vec::new();
        self.say_stop();
        for (kind, client) in std::mem::take(&mut self.clients) {
            let tally = client.join().expect("invariant: clients do not panic");
            match books.iter_mut().find(|(it, _)| *it == kind) {
                Some((_, sum)) => sum.merge(tally),
                None => books.push((kind, tally)),
            }
        }
        books
    }

    fn say_stop(&self) {
        *self.stage.stopped.lock().expect("invariant: nothing panics while it holds this lock") = true;
        self.stage.stop.notify_all();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.say_stop();
    }
}

/// One client.
struct Client {
    kind: Kind,
    stage: Arc<Stage>,
    targets: Arc<Targets>,
    think: Duration,
    random: Random,
    kept: Option<Connection>,
    tally: Tally,
}

impl Client {
    /// Thinks about the last answer, and notices when the server ends the connection meanwhile.
    fn idle(&mut self) {
        let pause = self.random.around(self.think);
        let begun = Instant::now();
        match self.kept.take() {
            Some(connection) if connection.stirs(pause) => self.closed(&connection, false),
            kept => self.kept = kept,
        }
        // A connection that ends does not make anybody think faster.
        self.stage.rest(pause.saturating_sub(begun.elapsed()));
    }

    fn turn(&mut self) {
        let targets = Arc::clone(&self.targets);
        let get = || &targets.get[0];
        match self.kind {
            // Whoever fills the listen queue has no client of its own.
            Kind::KeepAlive | Kind::Backlog => {
                let target = &targets.get[self.random.below(targets.get.len())];
                self.exchange(target, 1, true, |it| it.send(&targets.request("GET", target, "", b"")));
            }
            Kind::Fresh => {
                let target = &targets.get[self.random.below(targets.get.len())];
                let request = targets.request("GET", target, "Connection: close\r\n", b"");
                self.exchange(target, 1, false, |it| it.send(&request));
            }
            Kind::Pipelined => {
                let request = targets.request("GET", get(), "", b"").repeat(DEPTH as usize);
                self.exchange(get(), DEPTH, true, |it| it.send(&request));
            }
            Kind::Post => {
                let target = targets.post.as_ref().unwrap_or_else(get);
                let body = vec![b'x'; 1 + self.random.below(POSTED)];
                let request = targets.request("POST", target, "", &body);
                self.exchange(target, 1, true, |it| it.send(&request));
            }
            Kind::Upload => {
                let target = targets.post.as_ref().unwrap_or_else(get);
                let request = targets.request("POST", target, "", &[b'x'; PIECES * PIECE]);
                // Not kept: one that was answered early has sent half a body.
                self.exchange(target, 1, false, |it| upload(it, &request));
            }
            Kind::Stream => {
                let target = targets.stream.as_ref().unwrap_or_else(get);
                self.exchange(target, 1, true, |it| {
                    (it.reading_pause, it.longest_read) = (READING_PAUSE, Duration::ZERO);
                    it.send(&targets.request("GET", target, "", b""))
                });
            }
            Kind::Upgrade => {
                let target = targets.upgrade.as_ref().unwrap_or_else(get);
                self.upgraded(target, &targets);
            }
        }
    }

    /// Sends `count` requests by one `send` and reads their answers; keeps the connection if asked to.
    fn exchange(
        &mut self,
        target: &Target,
        count: u64,
        keep: bool,
        send: impl FnOnce(&mut Connection) -> Result<(), Loss>,
    ) {
        let (begun, pauses) = (self.stage.now(), self.stage.pauses());
        self.tally.sent += count;
        let Some(mut connection) = self.connect(begun, count) else { return };
        let sent = send(&mut connection);
        // What counts is how long the server takes, not how long this client took to ask.
        let asked = if self.kind == Kind::Upload { self.stage.now() } else { begun };
        for answered in 0..count {
            let received = match &sent {
                // Who refuses a body may answer and close before it has all been sent.
                Ok(()) | Err(Loss::Reset) => connection.receive(),
                Err(loss) => Err(loss.clone()),
            };
            match received.and_then(|answer| target.accept(answer)) {
                Ok(Answer { closes, .. }) => {
                    let paused = pauses % 2 == 1 || pauses != self.stage.pauses();
                    let took = match self.kind {
                        Kind::Stream => connection.longest_read,
                        _ => self.stage.now().saturating_sub(asked),
                    };
                    self.tally.answer(asked, took, paused);
                    if closes {
                        // RFC 9112 §9.6: nobody has read what came behind.
                        let given_back = count - answered - 1;
                        self.tally.given_back += given_back;
                        self.tally.sent -= given_back;
                        if keep {
                            self.closed(&connection, true);
                        }
                        return;
                    }
                }
                Err(loss) => return self.lost(&loss, count - answered, &connection),
            }
        }
        if keep {
            self.kept = Some(connection);
        }
    }

    /// A WebSocket from its handshake to its end; each ping counts as a request.
    fn upgraded(&mut self, target: &Target, targets: &Targets) {
        let begun = self.stage.now();
        self.tally.sent += 1;
        let Some(mut connection) = self.connect(begun, 1) else { return };
        let handshake = connection
            .send(&targets.request("GET", target, websocket::FIELDS, b""))
            .and_then(|()| target.accept(connection.receive()?));
        if let Err(loss) = handshake {
            return self.lost(&loss, 1, &connection);
        }
        self.tally.answer(begun, self.stage.now() - begun, false);
        for _ in 0..PINGS {
            self.stage.rest(self.random.around(self.think));
            if self.stage.is_stopped() {
                break;
            }
            let begun = self.stage.now();
            self.tally.sent += 1;
            match websocket::ping(&mut connection) {
                Ok(true) => self.tally.answer(begun, self.stage.now() - begun, false),
                Ok(false) => {
                    // It said good-bye as the protocol wants it: the ping was not to be answered.
                    self.tally.sent -= 1;
                    return self.closed(&connection, true);
                }
                Err(loss) => return self.lost(&loss, 1, &connection),
            }
        }
    }

    /// The kept connection, or a new one.
    fn connect(&mut self, begun: Duration, requests: u64) -> Option<Connection> {
        if let Some(kept) = self.kept.take() {
            return Some(kept);
        }
        match Connection::open(self.stage.address, self.stage.patience, begun) {
            Ok(connection) => Some(connection),
            Err(loss) => {
                let at = self.stage.now();
                let incident =
                    Incident { kind: self.kind, what: What::Lost(loss), at, opened: begun, port: 0 };
                self.tally.incidents.extend(iter::repeat_n(incident, requests as usize));
                None
            }
        }
    }

    fn lost(&mut self, loss: &Loss, requests: u64, connection: &Connection) {
        let incident = connection.incident(self.kind, What::Lost(loss.clone()), self.stage.now());
        self.tally.incidents.extend(iter::repeat_n(incident, requests as usize));
    }

    fn closed(&mut self, connection: &Connection, announced: bool) {
        self.tally.incidents.push(connection.incident(
            self.kind,
            What::Closed { announced },
            self.stage.now(),
        ));
    }
}

/// Sends a request in pieces, with a wait before each; stops when the server has something to say.
fn upload(connection: &mut Connection, request: &[u8]) -> Result<(), Loss> {
    for piece in request.chunks(request.len().div_ceil(PIECES)) {
        if connection.stirs(PIECE_PAUSE) {
            break;
        }
        connection.send(piece)?;
    }
    Ok(())
}
