//! `appserver torture`: serves real load while the server is reloaded, killed and broken, and counts what
//! is lost.
//!
//! It is a client like any other: nothing of it runs in the server.
//!
//! - [`account`] (with [`histogram`]): the books. What was lost, and what a `kill -9` excuses.
//! - [`clients`]: a thread for each client; [`wire`] and [`websocket`] are what it speaks, [`mod@probe`] finds
//!   out what the server serves.
//! - [`blows`]: every way to hit a server; [`server`] starts one of our own, [`held`] looks at its
//!   processes, [`broken`] breaks a file of its application.
//! - [`report`]: the table at the end.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{EXIT_ERROR, EXIT_OK};
use crate::sys::process::Signal;
use crate::sys::sched::ComingFirst;
use crate::sys::{fd, signal};

pub mod account;
pub mod blows;
pub mod broken;
pub mod clients;
pub mod held;
pub mod histogram;
pub mod probe;
pub mod random;
pub mod report;
pub mod server;
pub mod websocket;
pub mod wire;

use account::Kind;
use blows::{Blow, Striker};
use clients::{Load, Stage};
use probe::{Findings, Paths, probe};
use random::{Deck, Random};
use report::Report;
use server::Server;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The order of blows and the pauses of clients follow from it.
    pub seed: u64,
    /// No new blow after this time; `None` with a number of reloads only.
    pub seconds: Option<Duration>,
    /// No new blow after so many reloads.
    pub reloads: Option<u64>,
    /// Clients, over all groups that have no number of their own.
    pub connections: usize,
    /// What a client waits between two requests, on average.
    pub think: Duration,
    /// What there is between two blows, on average.
    pub pause: Duration,
    /// How long a client waits for an answer.
    pub patience: Duration,
    /// Who they are.
    pub groups: Vec<Group>,
    /// They come before all else on this machine.
    pub clients_first: bool,
    /// What they ask for.
    pub paths: Paths,
    /// The report is JSON.
    pub json: bool,
    /// Tell each blow on standard error.
    pub verbose: bool,
    /// Whom to torture.
    pub subject: Subject,
}

/// Clients of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// What they do.
    pub kind: Kind,
    /// How many; `None` for an equal share of [`Plan::connections`].
    pub clients: Option<usize>,
}

/// Whom to torture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A server of our own.
    Own {
        /// Its options.
        options: Vec<OsString>,
        /// What is done to it.
        blows: Vec<Blow>,
        /// What [`Blow::Break`] breaks.
        breakable: Option<PathBuf>,
        /// Where it keeps log, pidfile and FIFO; a temporary directory if not given.
        directory: Option<PathBuf>,
    },
    /// Any server that runs already.
    Running {
        /// Where it listens.
        address: SocketAddr,
        /// The Host field.
        host: String,
        /// What `sh` is to run in place of a blow, if anything.
        command: Option<String>,
    },
}

/// Carries out the plan; the exit code is 1 when something was lost that had not to be.
pub fn run(plan: &Plan) -> u8 {
    match torture(plan) {
        Ok(report) => {
            match plan.json {
                true => println!("{:#}", report.json()),
                false => print!("{}", report.table()),
            }
            if report.is_clean() { EXIT_OK } else { EXIT_ERROR }
        }
        Err(why) => {
            eprintln!("torture: {why}");
            EXIT_ERROR
        }
    }
}

fn torture(plan: &Plan) -> Result<Report, String> {
    let interrupt = catch_interrupts().map_err(|error| format!("signals: {error}"))?;
    match &plan.subject {
        Subject::Running { address, host, command } => {
            let course = Course { plan, interrupt, stage: Arc::new(Stage::new(*address, plan.patience)) };
            let findings = probe(&course.stage, host, &plan.paths, &plan.groups)?;
            let commands: Vec<&str> = command.iter().map(String::as_str).collect();
            let named = |_| ("command", true);
            let strike = |command, _: &mut Random| {
                run_command(command).map_err(|why| Failure { why, is_the_end: false })
            };
            course.run(&findings, commands, named, strike)
        }
        Subject::Own { options, blows, breakable, directory } => {
            let place = Place::new(directory.as_deref())?;
            let report = torture_own(plan, interrupt, options, blows, breakable.as_deref(), place.path())?;
            if !report.is_clean() {
                place.keep();
            }
            Ok(report)
        }
    }
}

fn torture_own(
    plan: &Plan,
    interrupt: OwnedFd,
    options: &[OsString],
    blows: &[Blow],
    breakable: Option<&Path>,
    directory: &Path,
) -> Result<Report, String> {
    let server = Server::start(options, directory)?;
    let course = Course { plan, interrupt, stage: Arc::new(Stage::new(server.address, plan.patience)) };
    let mut findings = probe(&course.stage, "localhost", &plan.paths, &plan.groups)?;
    let mut blows = blows.to_vec();
    if server.snapshots == 0 && blows.contains(&Blow::Rollback) {
        blows.retain(|blow| *blow != Blow::Rollback);
        let why = "rollback: the server keeps no snapshots (snapshots)";
        if blows.is_empty() {
            return Err(why.to_owned());
        }
        findings.left_out.push(why.to_owned());
    }
    let targets = Arc::clone(&findings.targets);
    let mut striker = Striker::new(&server, &course.stage, &targets, breakable);
    let named = |blow: Blow| (blow.name(), blow.is_reload());
    let strike = |blow, random: &mut Random| {
        striker.strike(blow, random).map_err(|why| Failure { why, is_the_end: server.has_ended() })
    };
    let mut report = course.run(&findings, blows, named, strike)?;
    let Striker { excuses, queued, .. } = striker;
    report.excuses = excuses;
    if queued.sent > 0 {
        report.books.push((Kind::Backlog, queued));
    }
    if let Err(why) = server.stop() {
        report.failures.push(format!("stop: {why}"));
    }
    Ok(report)
}

/// A blow that did not end as it must.
struct Failure {
    why: String,
    /// There is nobody left to hit.
    is_the_end: bool,
}

/// The load, and blow after blow meanwhile.
struct Course<'a> {
    plan: &'a Plan,
    /// Readable once the user has had enough.
    interrupt: OwnedFd,
    stage: Arc<Stage>,
}

impl Course<'_> {
    fn run<B: Copy>(
        &self,
        findings: &Findings,
        blows: Vec<B>,
        named: impl Fn(B) -> (&'static str, bool),
        mut strike: impl FnMut(B, &mut Random) -> Result<(), Failure>,
    ) -> Result<Report, String> {
        let plan = self.plan;
        let mut report = Report { seed: plan.seed, left_out: findings.left_out.clone(), ..Report::default() };
        let mut random = Random::new(plan.seed, 0);
        let mut deck = Deck::new(blows);
        let first = plan.clients_first.then(ComingFirst::begin).transpose();
        let first = first.map_err(|error| format!("--clients-first: {error}; it needs root"))?;
        let load = Load::start(&self.stage, findings, plan.connections, plan.think, plan.seed)
            .map_err(|error| format!("clients: {error}"))?;
        drop(first);
        let begin = Instant::now();
        let mut reloads = 0;
        loop {
            let left = plan.seconds.map(|limit| limit.saturating_sub(begin.elapsed()));
            let pause = random.around(plan.pause).min(left.unwrap_or(Duration::MAX));
            let interrupted = fd::await_readable(self.interrupt.as_fd(), pause).unwrap_or(true);
            let over = plan.seconds.is_some_and(|limit| begin.elapsed() >= limit);
            if interrupted || over || plan.reloads.is_some_and(|limit| reloads >= limit) {
                break;
            }
            // Without any blow there is only the load.
            let Some(blow) = deck.deal(&mut random) else { continue };
            let (name, is_reload) = named(blow);
            let from = Instant::now();
            let outcome = strike(blow, &mut random);
            let took = from.elapsed();
            report.struck(name, took);
            reloads += u64::from(is_reload);
            if plan.verbose {
                let (at, took) = (begin.elapsed().as_secs_f64(), took.as_secs_f64());
                eprintln!("{at:8.3} s  {name}, {took:.3} s");
            }
            if let Err(Failure { why, is_the_end }) = outcome {
                report.failures.push(format!("{name} at {:.3} s: {why}", begin.elapsed().as_secs_f64()));
                if is_the_end {
                    break;
                }
            }
        }
        report.books = load.stop();
        report.elapsed = begin.elapsed();
        Ok(report)
    }
}

/// The directory of one run.
enum Place {
    Given(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Place {
    fn new(given: Option<&Path>) -> Result<Self, String> {
        match given {
            Some(path) => std::fs::create_dir_all(path)
                .and_then(|()| path.canonicalize())
                .map(Place::Given)
                .map_err(|error| format!("{}: {error}", path.display())),
            None => tempfile::Builder::new()
                .prefix("torture-")
                .tempdir()
                .map(Place::Temporary)
                .map_err(|error| format!("a temporary directory: {error}")),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Place::Given(path) => path,
            Place::Temporary(directory) => directory.path(),
        }
    }

    /// It has something to tell.
    fn keep(self) {
        let path = match self {
            Place::Given(path) => path,
            Place::Temporary(directory) => directory.keep(),
        };
        eprintln!("torture: the log of the server is {}", path.join("log").display());
    }
}

/// A pipe that is readable after SIGINT or SIGTERM, which then end the run in order.
fn catch_interrupts() -> std::io::Result<OwnedFd> {
    let (read, write) = fd::pipe()?;
    signal::write_on(Signal::SIGINT, write.try_clone()?)?;
    signal::write_on(Signal::SIGTERM, write)?;
    Ok(read)
}

fn run_command(command: &str) -> Result<(), String> {
    let mut shell = Command::new("sh");
    // Standard output is for the report.
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(std::io::stderr());
    match shell.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{command}: {status}")),
        Err(error) => Err(format!("sh: {error}")),
    }
}
