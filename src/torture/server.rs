//! The server under torture: this binary with the user's options, and the roads to it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::{self, Invocation};
use crate::config::{Config, ConfigErrors};
use crate::control::answers::Answers;
use crate::control::narrator::{Narrator, Verdict};
use crate::master::answer::{Doing, Kind};
use crate::scoreboard::{Scoreboard, WorkerState};
use crate::sys::fd;
use crate::sys::process::{self, Pid, Signal};

/// Nothing that is waited for takes longer; a bound, not a pace.
pub const LIMIT: Duration = Duration::from_secs(120);
/// How often to look at what gives no sign: shared memory of workers, `/proc`.
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// How often to look whether the server has ended, while waiting for something that does give a sign.
const END_INTERVAL: Duration = Duration::from_millis(500);
/// Lines of its log that are shown when something went wrong.
const LOG_LINES: usize = 15;

/// Where the server of one run keeps its files.
#[derive(Debug)]
pub struct Files {
    log: PathBuf,
    pidfile: PathBuf,
    fifo: PathBuf,
    touch: PathBuf,
}

/// A server that we have started; dropped, it is gone.
#[derive(Debug)]
pub struct Server {
    child: Child,
    /// Its number may be another's from then on.
    reaped: bool,
    /// Readable when the master has ended.
    end: OwnedFd,
    answers: Answers,
    board: Scoreboard,
    files: Files,
    binary: PathBuf,
    die_on_term: bool,
    /// Zygotes it keeps for a rollback.
    pub snapshots: u32,
    /// Where it listens for the load.
    pub address: SocketAddr,
}

/// A worker that accepts, or would if it were not busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    /// Its process.
    pub pid: Pid,
    /// Its generation.
    pub generation: u64,
}

impl Server {
    /// Starts the server and returns when its first generation serves.
    ///
    /// # Errors
    /// What is wrong with the options, or the end of the server's log.
    pub fn start(options: &[OsString], directory: &Path) -> Result<Self, String> {
        let config = examine(options)?;
        let system = |what: &str, error: std::io::Error| format!("{what}: {error}");
        let binary = std::env::current_exe().map_err(|error| system("the path of this program", error))?;
        let cwd = std::env::current_dir().map_err(|error| system("the current directory", error))?;
        let base = config.base_directory(&cwd);
        let files = Files {
            log: directory.join("log"),
            pidfile: config.pidfile.as_ref().map_or_else(|| directory.join("pid"), |path| cwd.join(path)),
            fifo: config.master_fifos.first().map_or_else(|| directory.join("fifo"), |path| base.join(path)),
            touch: directory.join("touch-reload"),
        };
        let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| system("127.0.0.1", error))?;
        let address = listener.local_addr().map_err(|error| system("127.0.0.1", error))?;
        fd::set_cloexec(listener.as_fd(), false).map_err(|error| system("the listener", error))?;
        let at_log = |error| system(&files.log.display().to_string(), error);
        let log = File::create(&files.log).map_err(at_log)?;
        File::create(&files.touch).map_err(|error| system(&files.touch.display().to_string(), error))?;
        let mut command = Command::new(&binary);
        command.arg(format!("--http=fd://{}", listener.as_raw_fd()));
        command.arg(option("touch-reload", &files.touch));
        if config.pidfile.is_none() {
            command.arg(option("pidfile", &files.pidfile));
        }
        if config.master_fifos.is_empty() {
            command.arg(option("master-fifo", &files.fifo));
        }
        command.args(options).stdin(Stdio::null());
        command.stdout(log.try_clone().map_err(at_log)?).stderr(log);
        // A group of its own: an interrupt at the terminal is for us, who then stop it in order.
        command.process_group(0);
        process::die_with_this_one(&mut command);
        let mut child = command.spawn().map_err(|error| system(&binary.display().to_string(), error))?;
        // It has its own copy; ours would let clients wait for a server that has ended.
        drop(listener);
        match connect(&mut child, &files.log) {
            Ok((end, answers, board)) => {
                // It is a child, so never process 1.
                let die_on_term = config.die_on_term.unwrap_or(false);
                Ok(Server {
                    child,
                    reaped: false,
                    end,
                    answers,
                    board,
                    files,
                    binary,
                    die_on_term,
                    snapshots: config.snapshots,
                    address,
                })
            }
            Err(error) => {
                let _ = end_at_once(&mut child);
                Err(error)
            }
        }
    }

    /// The master.
    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// True when the master has ended.
    pub fn has_ended(&self) -> bool {
        fd::await_readable(self.end.as_fd(), Duration::ZERO).unwrap_or(true)
    }

    /// Signals the master.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), String> {
        process::kill(self.pid(), signal).map_err(|error| format!("the master cannot be signalled: {error}"))
    }

    /// Asks for a brutal reload by signal.
    ///
    /// # Errors
    /// As [`Server::signal`].
    pub fn signal_brutal(&self) -> Result<(), String> {
        self.signal(if self.die_on_term { Signal::SIGQUIT } else { Signal::SIGTERM })
    }

    /// Writes a letter to the FIFO.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn letter(&self, letter: &str) -> Result<(), String> {
        let written = File::options().write(true).open(&self.files.fifo);
        let written = written.and_then(|mut fifo| fifo.write_all(letter.as_bytes()));
        written.map_err(|error| format!("{}: {error}", self.files.fifo.display()))
    }

    /// Touches the file of `touch-reload`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn touch(&self) -> Result<(), String> {
        fs::write(&self.files.touch, "touched\n")
            .map_err(|error| format!("{}: {error}", self.files.touch.display()))
    }

    /// `--reload PIDFILE --wait`, as a command of its own.
    ///
    /// # Errors
    /// What it says when it fails.
    pub fn command_reload(&self) -> Result<(), String> {
        let mut command = Command::new(&self.binary);
        command.arg("--reload").arg(&self.files.pidfile).arg(format!("--wait={}", LIMIT.as_secs()));
        let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())),
        }
    }

    /// Does what asks for a reload or rollback, and returns what the master answers to it.
    ///
    /// # Errors
    /// When asking fails, the server ends, or there is no answer.
    pub fn answer_to(&self, kind: Kind, ask: impl FnOnce() -> Result<(), String>) -> Result<Verdict, String> {
        let mut narrator = Narrator::new(kind, self.answers.take_ticket());
        ask()?;
        let deadline = Instant::now() + LIMIT;
        loop {
            let seen = self.answers.changes();
            let ended = self.has_ended();
            if let Some(answer) = self.answers.read()
                && let (_, Some(verdict)) = narrator.hear(&answer)
            {
                return Ok(verdict);
            }
            if ended {
                return Err(self.ended());
            }
            if Instant::now() >= deadline {
                return Err(format!("no answer to the {kind} within {} s", LIMIT.as_secs()));
            }
            self.answers.await_change(seen, END_INTERVAL);
        }
    }

    /// Looks until there is something.
    ///
    /// # Errors
    /// When the server ends, or there is nothing for too long.
    pub fn until<T>(&self, what: &str, mut check: impl FnMut() -> Option<T>) -> Result<T, String> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if let Some(found) = check() {
                return Ok(found);
            }
            if self.has_ended() {
                return Err(self.ended());
            }
            if Instant::now() >= deadline {
                return Err(format!("not within {} s: {what}", LIMIT.as_secs()));
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Workers that serve.
    pub fn serving(&self) -> Vec<Worker> {
        self.workers(|state| matches!(state, WorkerState::Idle | WorkerState::Busy))
    }

    /// Workers in a state that `wanted` picks.
    pub fn workers(&self, wanted: impl Fn(WorkerState) -> bool) -> Vec<Worker> {
        let cells = self.board.used_cells().map(|index| self.board.cell(index));
        let found = cells.filter(|cell| wanted(cell.state()) && cell.pid() != 0);
        found
            .map(|cell| Worker { pid: Pid::from_raw(cell.pid() as i32), generation: cell.generation() })
            .collect()
    }

    /// Stops it.
    ///
    /// # Errors
    /// When it does not end, or not with status 0.
    pub fn stop(mut self) -> Result<(), String> {
        self.signal(Signal::SIGINT)?;
        if !fd::await_readable(self.end.as_fd(), LIMIT).unwrap_or(true) {
            return Err(format!("it does not stop within {} s; killed", LIMIT.as_secs()));
        }
        self.reaped = true;
        match end_at_once(&mut self.child) {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(format!("it has ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }

    /// That it has ended, and its last words.
    fn ended(&self) -> String {
        format!("the server has ended; the end of {}:\n{}", self.files.log.display(), tail(&self.files.log))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.reaped {
            let _ = end_at_once(&mut self.child);
        }
    }
}

/// What is wrong with the options is told before anything is started.
fn examine(options: &[OsString]) -> Result<Config, String> {
    let words = std::iter::once(OsString::from("appserver")).chain(options.iter().cloned());
    let config = match cli::parse(words).map_err(|error| error.text)? {
        Invocation::Serve(entries) => {
            Config::build(entries).map_err(|errors: ConfigErrors| errors.to_string())?
        }
        _ => return Err("the options behind -- start no server".to_owned()),
    };
    match config.daemonize.is_some() || config.daemonize2.is_some() {
        true => Err("leave out daemonize: the server has to stay where it can be watched".to_owned()),
        false => Ok(config),
    }
}

/// Waits until the server serves.
fn connect(child: &mut Child, log: &Path) -> Result<(OwnedFd, Answers, Scoreboard), String> {
    let pid = pid_of(child);
    let end = process::pidfd_open(pid).map_err(|error| format!("the server cannot be watched: {error}"))?;
    let deadline = Instant::now() + LIMIT;
    loop {
        let answers = Answers::of(pid).ok().flatten();
        if let (Some(answers), Some(board)) = (&answers, Scoreboard::of(pid)) {
            let seen = answers.changes();
            if answers.read().is_some_and(|answer| answer.doing == Doing::Serving) {
                let answers = Answers::of(pid).ok().flatten().ok_or("its answers have gone")?;
                return Ok((end, answers, board));
            }
            answers.await_change(seen, END_INTERVAL);
        }
        // Before that there is nothing to wait for but its end.
        if fd::await_readable(end.as_fd(), LOOK_INTERVAL).unwrap_or(true) {
            return Err(format!("the server does not start:\n{}", tail(log)));
        }
        if Instant::now() >= deadline {
            return Err(format!("the server does not serve within {} s:\n{}", LIMIT.as_secs(), tail(log)));
        }
    }
}

fn option(name: &str, path: &Path) -> OsString {
    let mut option = OsString::from(format!("--{name}="));
    option.push(path);
    option
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().expect("invariant: pids are positive and fit 31 bits"))
}

/// It leads its process group: nothing of it is left.
fn end_at_once(child: &mut Child) -> std::io::Result<ExitStatus> {
    // `NotFound` is what is wanted.
    let _ = process::kill_group(pid_of(child), Signal::SIGKILL);
    child.wait()
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}
