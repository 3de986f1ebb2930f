//! A server under test: one process group, one directory, one log, and nothing left afterwards.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::gate::Gate;
use super::http::{Client, Response, Target};
use super::log::{CapturedLog, Mark};
use super::{LIMIT, eventually, http, processes};

/// The descriptor on which the server gets the listener that the test opened for it.
const LISTENER_FD: i32 = 10;
/// Begins the line that says workers accept.
const READY: &str = "ready: ";
/// Files in the server's directory.
const FIFO: &str = "fifo";
const SETTINGS: &str = "testapp.json";
/// What no server may ever log.
const NEVER: [&str; 1] = ["panicked at"];

/// How a server is to be started.
pub struct Builder {
    program: PathBuf,
    /// Started in its place.
    wrapper: Option<PathBuf>,
    /// A command in front of it, which executes it in its own place.
    launcher: Vec<OsString>,
    directory: TempDir,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    descriptors: Vec<FdMapping>,
    target: Option<Target>,
    listener_given: bool,
}

/// A worker, as the log and `/proc` agree on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worker {
    /// Its number.
    pub slot: u32,
    /// Its process.
    pub pid: u32,
}

/// A started server; dropped, it is gone with all its processes.
pub struct Server {
    child: Child,
    program: PathBuf,
    directory: TempDir,
    target: Option<Target>,
    log: CapturedLog,
    exited: Option<ExitStatus>,
}

impl Server {
    /// The `appserver` binary, with its built-in applications.
    pub fn builtin() -> Builder {
        Builder::new(PathBuf::from(env!("CARGO_BIN_EXE_appserver")))
    }

    /// The test application, a server like any other that runs [`Server::settings`].
    pub fn app() -> Builder {
        let target = Path::new(env!("CARGO_BIN_EXE_appserver")).parent().expect("a binary is in a directory");
        let program = target.join("examples/testapp");
        assert!(program.exists(), "{} is not built: cargo build --example testapp", program.display());
        Builder::new(program)
    }
}

impl Builder {
    fn new(program: PathBuf) -> Self {
        let directory = tempfile::Builder::new().prefix("it-").tempdir().expect("a temporary directory");
        let mut builder = Builder {
            program,
            wrapper: None,
            launcher: Vec::new(),
            directory,
            args: Vec::new(),
            env: BTreeMap::new(),
            descriptors: Vec::new(),
            target: None,
            listener_given: false,
        };
        // Nothing of the environment in which the tests run may leak in, such as LISTEN_FDS.
        for name in ["PATH", "LLVM_PROFILE_FILE"] {
            if let Some(value) = std::env::var_os(name) {
                builder.env.insert(name.into(), value);
            }
        }
        let settings = builder.path(SETTINGS);
        builder.env("TESTAPP_CONFIG", settings)
    }

    /// A file in the server's directory, which is also where it is started.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the server's directory.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        write_file(&self.path(name), content.as_ref());
        self
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<OsString>>(self, args: impl IntoIterator<Item = A>) -> Self {
        args.into_iter().fold(self, Builder::arg)
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }

    /// Lets the server inherit a descriptor under this number.
    pub fn descriptor(mut self, number: i32, fd: impl Into<OwnedFd>) -> Self {
        self.descriptors.push(FdMapping { parent_fd: fd.into(), child_fd: number });
        self
    }

    /// Starts a script in place of the program, which it finds as `$PROGRAM` and is to execute.
    pub fn wrapped_by(self, script: &str) -> Self {
        let (mut builder, wrapper) = self.script("wrapper", script);
        builder.wrapper = Some(wrapper);
        builder
    }

    /// Lets reloads execute this script, which finds the program in `PROGRAM`.
    pub fn program_for_reloads(self, script: &str) -> Self {
        let (builder, path) = self.script("successor", script);
        builder.arg(format!("--binary-path={}", path.display()))
    }

    fn script(self, name: &str, text: &str) -> (Self, PathBuf) {
        let path = self.path(name);
        let program = self.program.clone();
        let builder = self.file(name, text).env("PROGRAM", program);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("the file is ours");
        (builder, path)
    }

    /// Gives it a master FIFO, for [`Server::fifo`].
    pub fn with_fifo(self) -> Self {
        self.arg(format!("--master-fifo={FIFO}"))
    }

    /// Lets it listen on a Unix socket in its directory.
    pub fn on_unix_socket(mut self, name: &str) -> Self {
        self.target = Some(Target::Unix(self.path(name)));
        self.listener_given = true;
        self.arg(format!("--http={name}"))
    }

    /// Leaves listening to the arguments.
    pub fn without_listener(mut self) -> Self {
        self.listener_given = true;
        self
    }

    /// Runs a copy of the binary, which the test may take away: [`Server::program`].
    pub fn copied(mut self) -> Self {
        let copy = self.path("server-under-test");
        copy_program(&self.program, &copy);
        self.program = copy;
        self
    }

    /// The binary that will run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a file in the server's directory.
    pub fn run_from(mut self, name: &str) -> Self {
        self.program = self.path(name);
        self
    }

    /// Starts it through a command that executes it in its own place, such as `setpriv`.
    pub fn through<A: Into<OsString>>(mut self, launcher: impl IntoIterator<Item = A>) -> Self {
        self.launcher.extend(launcher.into_iter().map(Into::into));
        self
    }

    /// Lets every user into the server's directory, or to write there: a temporary directory is
    /// closed to others.
    pub fn directory_mode(self, mode: u32) -> Self {
        set_mode(self.directory.path(), mode);
        self
    }

    /// How the test application behaves; see `tests/app/settings.rs`.
    pub fn settings(self, settings: serde_json::Value) -> Self {
        self.file(SETTINGS, settings.to_string())
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Server {
        let server = self.spawn();
        server.wait_ready();
        server
    }

    /// Starts it.
    pub fn spawn(mut self) -> Server {
        if !self.path(SETTINGS).exists() {
            write_file(&self.path(SETTINGS), b"{}");
        }
        if !self.listener_given {
            // Opened here and passed on: no port is ever guessed.
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
            self.target = Some(Target::Tcp(listener.local_addr().expect("a bound socket has an address")));
            self = self.descriptor(LISTENER_FD, listener).arg(format!("--http=fd://{LISTENER_FD}"));
        }
        processes::keep_own_descriptors();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let program = self.wrapper.as_ref().unwrap_or(&self.program);
        let mut words = std::mem::take(&mut self.launcher);
        words.push(program.into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .args(&self.args)
            .env_clear()
            .envs(&self.env)
            .current_dir(self.directory.path());
        command.stdin(Stdio::null()).process_group(0);
        command.stdout(writer.try_clone().expect("a pipe end can be duplicated")).stderr(writer);
        command.fd_mappings(std::mem::take(&mut self.descriptors)).expect("each number is used once");
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        // The command still owns our copies of the pipe and the listener; the log would never end.
        drop(command);
        let log = CapturedLog::capture(reader);
        Server {
            child,
            program: self.program,
            directory: self.directory,
            target: self.target,
            log,
            exited: None,
        }
    }
}

impl Server {
    /// The master's pid, which no reload changes.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The binary it runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Identity (device, inode) of the file the master executes now.
    pub fn executable(&self) -> (u64, u64) {
        let file = fs::metadata(format!("/proc/{}/exe", self.pid())).expect("the master is there");
        (file.dev(), file.ino())
    }

    /// A file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where it listens.
    pub fn target(&self) -> &Target {
        self.target.as_ref().expect("the test started it without a known address")
    }

    /// The addresses it listens on, as the log names them.
    pub fn addresses(&self) -> Vec<String> {
        let line = self.wait_for_log(" accept on ");
        let (_, addresses) = line.split_once(" accept on ").expect("the line was just chosen for it");
        addresses.split(", ").map(str::to_owned).collect()
    }

    /// For servers that bound a port of their own choice.
    pub fn set_address(&mut self, address: SocketAddr) {
        self.target = Some(Target::Tcp(address));
    }

    /// One GET on a connection of its own.
    pub fn get(&self, path: &str) -> Response {
        http::get(self.target(), path)
    }

    /// A client with a kept connection.
    pub fn client(&self) -> Client {
        Client::new(self.target(), LIMIT)
    }

    /// A bare connection.
    pub fn connect(&self) -> http::Connection {
        http::Connection::open(self.target(), LIMIT).expect("the server listens")
    }

    /// Replaces a file in its directory.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        write_file(&self.path(name), content.as_ref());
    }

    /// Changes how the test application behaves when it is loaded next.
    pub fn set_settings(&self, settings: serde_json::Value) {
        write_file(&self.path(SETTINGS), settings.to_string().as_bytes());
    }

    /// What it logged so far.
    pub fn log(&self) -> &CapturedLog {
        &self.log
    }

    /// Waits for a line that contains `text`, from the beginning of the log.
    pub fn wait_for_log(&self, text: &str) -> String {
        self.wait_for_log_after(Mark::START, text)
    }

    /// Waits for a line after `mark` that contains `text`.
    pub fn wait_for_log_after(&self, mark: Mark, text: &str) -> String {
        let line = self.log.wait_for(mark, LIMIT, |line| line.contains(text));
        line.unwrap_or_else(|| panic!("the server did not log {text:?}"))
    }

    /// Waits until workers accept.
    pub fn wait_ready(&self) {
        self.wait_for_log(READY);
    }

    /// Waits until a reload has made `generation` the one that serves.
    pub fn wait_reloaded(&self, generation: u64) {
        self.wait_for_log(&format!("complete: generation {generation} serves"));
    }

    /// Reloads by SIGHUP and waits until it is complete.
    pub fn reload(&self) {
        let mark = self.log.mark();
        self.signal(Signal::SIGHUP);
        // Not the line of a rollback before it, which may arrive late.
        let is_it = |line: &str| line.contains(" INFO reload ") && line.contains(" complete: generation ");
        assert!(
            self.log.wait_for(mark, LIMIT, is_it).is_some(),
            "the server did not log the end of a reload"
        );
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: Signal) {
        kill(pid(self.pid()), signal).expect("the master is there");
    }

    /// Writes to the master FIFO.
    pub fn fifo(&self, letters: &str) {
        // Non-blocking: without a reader this fails at once instead of waiting for one.
        let mut options = fs::OpenOptions::new();
        options.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
        let opened = options.open(self.path(FIFO));
        opened.and_then(|mut fifo| fifo.write_all(letters.as_bytes())).expect("the master reads its FIFO");
    }

    /// Runs the same program with other arguments, such as `--reload PIDFILE`, to its end.
    pub fn command<const N: usize>(&self, args: [&str; N]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.directory.path()).stdin(Stdio::null());
        command.output().expect("the program can be run")
    }

    /// Workers that run now, by number.
    pub fn workers(&self) -> Vec<Worker> {
        let lines = self.log.lines();
        let mut workers: Vec<_> = lines.iter().filter_map(|line| spawned_worker(line)).collect();
        let promoted: Vec<u32> = lines.iter().filter_map(|line| promoted_worker(line)).collect();
        workers.retain(|worker| !promoted.contains(&worker.pid));
        workers.retain(|worker| {
            processes::stat(worker.pid).is_some_and(|stat| !stat.zombie && stat.parent == self.pid())
        });
        workers.sort();
        workers.dedup();
        workers
    }

    /// Sends a request that takes `ms`, and returns once a worker runs it.
    pub fn in_flight(&self, ms: u32) -> http::Connection {
        let mut connection = self.connect();
        // The first piece of the body proves that the request is being worked on.
        let request = format!("GET /stream?chunks=2&ms={ms}&size=10 HTTP/1.1\r\nHost: test\r\n\r\n");
        connection.send(request.as_bytes()).unwrap();
        connection.receive_status().unwrap();
        connection
    }

    /// Waits until a worker has begun a GET of this path, as the master knows it.
    pub fn wait_begun(&self, path: &str) {
        let text = format!(" with GET {path}");
        eventually(&format!("a worker is busy{text}"), LIMIT, || {
            let mark = self.log.mark();
            self.signal(Signal::SIGUSR2);
            self.wait_for_log_after(mark, &format!("master {} generation ", self.pid()));
            self.log.lines().iter().any(|line| line.ends_with(&text)).then_some(())
        });
    }

    /// Waits until the running workers satisfy `check`.
    pub fn wait_workers(&self, what: &str, check: impl Fn(&[Worker]) -> bool) -> Vec<Worker> {
        eventually(what, LIMIT, || Some(self.workers()).filter(|workers| check(workers)))
    }

    /// True when the master is not woken for so long.
    pub fn sleeps_for(&self, time: Duration) -> bool {
        let wakes = || processes::wakes(self.pid());
        let before = wakes();
        std::thread::sleep(time);
        wakes() == before
    }

    /// Pids of all children of the master: zygotes and workers.
    pub fn children(&self) -> Vec<u32> {
        processes::list(|stat| stat.parent == self.pid()).iter().map(|stat| stat.pid).collect()
    }

    /// Pids of the zygotes, the dismissed ones too.
    pub fn zygotes(&self) -> Vec<u32> {
        let workers = self.workers();
        let is_zygote = |pid: &u32| {
            // A worker carries the title of its zygote until it has one of its own.
            workers.iter().all(|worker| worker.pid != *pid) && processes::title(*pid).contains("zygote")
        };
        self.children().into_iter().filter(is_zygote).collect()
    }

    /// The one zygote, once it is alone.
    pub fn zygote(&self) -> u32 {
        eventually("there is one zygote", LIMIT, || match self.zygotes()[..] {
            [zygote] => Some(zygote),
            _ => None,
        })
    }

    /// Opens a gate in its directory.
    pub fn gate(&self) -> Gate {
        Gate::new(self.path("gate"))
    }

    /// Kinds of descriptors the master has open.
    pub fn descriptor_kinds(&self) -> BTreeMap<String, usize> {
        processes::descriptor_kinds(self.pid())
    }

    /// Waits until the server ended: the master and every other process that holds its log.
    ///
    /// # Panics
    /// When one of them is still there after `limit`.
    pub fn wait_exit(&mut self, limit: Duration) -> ExitStatus {
        assert!(self.log.wait_end(limit), "still there after {limit:?}: {:?}", self.survivors());
        // A server that logs to a file of its own lets go of the pipe long before it ends.
        let status =
            eventually("the master exits", limit, || self.child.try_wait().expect("it is our child"));
        self.exited = Some(status);
        // Of two processes in the last moments of their exit, either may have closed the log first.
        eventually("what has let go of everything is gone", limit, || {
            let group = processes::list(|stat| stat.group == self.pid());
            (!group.iter().any(|stat| processes::descriptors(stat.pid).is_empty())).then_some(())
        });
        status
    }

    /// Processes of the server's group that run.
    fn survivors(&self) -> Vec<(u32, String)> {
        let group = processes::list(|stat| stat.group == self.pid());
        group.iter().map(|stat| (stat.pid, processes::title(stat.pid))).collect()
    }

    /// Ends every process of the group, and says what was left of a server that had ended by itself.
    fn clean_up(&mut self) -> Result<(), String> {
        let left = if self.exited.is_some() { self.survivors() } else { Vec::new() };
        if self.exited.is_none() || !left.is_empty() {
            // The number cannot belong to others: the master is not reaped, or the group not empty.
            let _ = killpg(pid(self.pid()), Signal::SIGKILL);
        }
        if self.exited.is_none() {
            self.child.wait().map_err(|error| format!("the master cannot be waited for: {error}"))?;
        }
        if !left.is_empty() {
            return Err(format!("processes outlived their master: {left:?}"));
        }
        if !self.log.wait_end(LIMIT) {
            return Err("a process outside the server's group still holds its log".to_owned());
        }
        match self.log.lines().iter().find(|line| NEVER.iter().any(|text| line.contains(text))) {
            Some(line) => Err(format!("the server has a bug: {line}")),
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let result = self.clean_up();
        let failed = std::thread::panicking();
        if failed || result.is_err() {
            eprintln!("--- log of {}", self.program.display());
            self.log.lines().iter().for_each(|line| eprintln!("{line}"));
            eprintln!("--- end of log");
        }
        match result {
            Err(error) if failed => eprintln!("{error}"),
            Err(error) => panic!("{error}"),
            Ok(()) => {}
        }
    }
}

/// Slot and pid from `spawned appserver worker 1 (pid: 7, cores: 1)` or
/// `Respawned appserver worker 1 (new pid: 7)`.
pub fn spawned_worker(line: &str) -> Option<Worker> {
    let (_, rest) = line.split_once("pawned appserver worker ")?;
    let (slot, rest) = rest.split_once(" (")?;
    let (_, rest) = rest.split_once("pid: ")?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    Some(Worker { slot: slot.parse().ok()?, pid: digits.parse().ok()? })
}

/// Pid from `the worker that was number 1 (pid: 7) is the zygote of generation 1 from now on`.
pub fn promoted_worker(line: &str) -> Option<u32> {
    let (_, rest) = line.split_once("the worker that was number ")?;
    let (_, rest) = rest.split_once("(pid: ")?;
    rest.split(')').next()?.parse().ok()
}

/// Copies a binary with a process of its own. Written from here, the copy could not be executed
/// (`ETXTBSY`) while a child that another test is just forking still holds our descriptor.
pub fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp can be run");
    assert!(status.success(), "cannot copy {} to {}", from.display(), to.display());
}

/// Replaces a file by rename: a server that reads it at this moment sees the old or the new one.
fn write_file(path: &Path, content: &[u8]) {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).expect("a directory in a directory of ours");
    }
    let draft = path.with_extension("draft");
    fs::write(&draft, content)
        .and_then(|()| fs::rename(&draft, path))
        .expect("a file in a directory of ours");
}

/// Permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o7777
}

/// Sets the permission bits of a file.
pub fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a file of ours");
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(number.try_into().expect("pids are positive"))
}
