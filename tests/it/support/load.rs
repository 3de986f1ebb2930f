//! Many clients at once, to see whether anything is lost while the server changes under them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::checksum::Checksum;
use super::http::{Client, Failure, Response, Target};

/// No load runs longer, whatever the test does: a forgotten one must end by itself.
const LONGEST: Duration = Duration::from_secs(120);
/// Failures of which the circumstances are kept.
const EXAMPLES: usize = 10;

/// How many clients of each kind.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// GET after GET on one connection.
    pub keep_alive: usize,
    /// A connection for each GET.
    pub fresh: usize,
    /// POST with a body; the answer must carry its checksum. Needs the test application.
    pub post: usize,
    /// Reads a body that comes in pieces over 100 ms. Needs the test application.
    pub stream: usize,
    /// Wait of each client between two requests. It shapes the load: without it a few clients
    /// take all processors and the server has none left to reload with.
    pub pause: Duration,
    /// How long a client waits for the server to go on; afterwards the request failed.
    pub timeout: Duration,
}

impl LoadSpec {
    /// GET only: what every server understands.
    pub fn gets() -> Self {
        let (pause, timeout) = (Duration::from_millis(1), Duration::from_secs(20));
        LoadSpec { keep_alive: 2, fresh: 2, post: 0, stream: 0, pause, timeout }
    }

    /// All kinds, for the test application.
    pub fn all_kinds() -> Self {
        LoadSpec { post: 2, stream: 2, ..Self::gets() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    KeepAlive,
    Fresh,
    Post,
    Stream,
}

/// What became of the load.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Requests begun.
    pub sent: u64,
    /// Requests answered as they should be.
    pub ok: u64,
    /// All others, by kind of client and failure.
    pub failed: BTreeMap<String, u64>,
    /// The first failures, with the time since the load began.
    pub examples: Vec<String>,
    /// Longest time from the request to the end of its answer.
    pub longest: Duration,
}

impl LoadReport {
    /// # Panics
    /// When a request failed, or none was sent.
    pub fn assert_nothing_lost(&self) {
        assert!(self.failed.is_empty(), "requests were lost: {self:#?}");
        assert!(self.ok > 0 && self.ok == self.sent, "no load at all: {self:#?}");
    }

    fn merge(mut self, other: LoadReport) -> Self {
        self.sent += other.sent;
        self.ok += other.ok;
        for (failure, count) in other.failed {
            *self.failed.entry(failure).or_default() += count;
        }
        self.examples.extend(other.examples);
        self.examples.truncate(EXAMPLES);
        self.longest = self.longest.max(other.longest);
        self
    }
}

/// A running load.
pub struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<LoadReport>>,
}

impl Load {
    /// Starts all clients.
    pub fn start(target: &Target, spec: &LoadSpec) -> Self {
        let kinds = [
            (Kind::KeepAlive, spec.keep_alive),
            (Kind::Fresh, spec.fresh),
            (Kind::Post, spec.post),
            (Kind::Stream, spec.stream),
        ];
        let (stop, answered) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let begin = Instant::now();
        let clients =
            kinds.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count)).map(|kind| {
                let client = Client::new(target, spec.timeout);
                let (stop, answered, pause) = (stop.clone(), answered.clone(), spec.pause);
                std::thread::spawn(move || {
                    let mut runner = Runner { kind, client, begin, report: LoadReport::default() };
                    while !stop.load(Relaxed) && begin.elapsed() < LONGEST {
                        runner.one_request();
                        answered.fetch_add(1, Relaxed);
                        std::thread::sleep(pause);
                    }
                    runner.report
                })
            });
        let clients = clients.collect();
        Load { stop, answered, clients }
    }

    /// Requests finished so far, well or not.
    pub fn answered(&self) -> u64 {
        self.answered.load(Relaxed)
    }

    /// Waits until `count` more requests were finished.
    pub fn wait_for(&self, count: u64) {
        let goal = self.answered() + count;
        super::eventually("requests of the load finish", super::LIMIT, || {
            (self.answered() >= goal).then_some(())
        });
    }

    /// Ends the load after the requests in flight.
    pub fn stop(mut self) -> LoadReport {
        self.stop.store(true, Relaxed);
        let clients = self.clients.drain(..).map(|client| client.join().expect("clients do not panic"));
        clients.fold(LoadReport::default(), LoadReport::merge)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// One client.
struct Runner {
    kind: Kind,
    client: Client,
    begin: Instant,
    report: LoadReport,
}

impl Runner {
    fn one_request(&mut self) {
        let number = self.report.sent;
        self.report.sent += 1;
        let start = Instant::now();
        let result = self.attempt(number);
        self.report.longest = self.report.longest.max(start.elapsed());
        match result {
            Ok(()) => self.report.ok += 1,
            Err(failure) => {
                let what = format!("{:?}: {failure:?}", self.kind);
                if self.report.examples.len() < EXAMPLES {
                    let (at, took) = (start - self.begin, start.elapsed());
                    self.report.examples.push(format!("{what}, begun at {at:?}, took {took:?}"));
                }
                *self.report.failed.entry(what).or_default() += 1;
            }
        }
    }

    fn attempt(&mut self, number: u64) -> Result<(), Failure> {
        match self.kind {
            Kind::KeepAlive => expect_ok(&self.client.get("/")?),
            Kind::Fresh => expect_ok(&self.client.fresh("GET", "/", &[], b"")?),
            Kind::Post => {
                // From one packet to several socket buffers.
                let size = 1 + (number * 7919) % 300_000;
                let body: Vec<u8> = (0..size).map(|at| (at * 31 + number) as u8).collect();
                let mut checksum = Checksum::default();
                checksum.update(&body);
                let response = self.client.call("POST", "/echo?sum=1", &[], &body)?;
                expect_ok(&response)?;
                expect_body(&response, response.text().contains(&checksum.to_string()))
            }
            Kind::Stream => {
                let response = self.client.get("/stream?chunks=10&ms=10&size=500")?;
                expect_ok(&response)?;
                expect_body(&response, response.body.len() == 5004 && response.body.ends_with(b"end\n"))
            }
        }
    }
}

fn expect_ok(response: &Response) -> Result<(), Failure> {
    match response.status {
        200 => Ok(()),
        status @ 500.. => Err(Failure::ServerError(status)),
        status => Err(Failure::Malformed(format!("status {status}"))),
    }
}

fn expect_body(response: &Response, right: bool) -> Result<(), Failure> {
    if right {
        Ok(())
    } else {
        Err(Failure::Malformed(format!("a wrong body of {} bytes", response.body.len())))
    }
}
