//! A real systemd of the test's own, which takes 0.4 s to start and leaves nothing behind.
//!
//! ```ignore
//! let Some(systemd) = Systemd::start() else { return };
//! let app = systemd.install_app();
//! systemd.unit("app.service", &format!("[Service]\nType=notify\nExecStart={app} --http={}/sock", systemd.shared()));
//! systemd.systemctl(["start", "app"]).succeeds();
//! assert_eq!(systemd.show("app", "ActiveState"), "active");
//! systemd.wait_journal("app", "ready: ");
//! ```
//!
//! `scripts/with-systemd` makes it: process 1 of namespaces of its own, for processes, mounts and network
//! among them. The test stays outside and looks in:
//!
//! - [`Systemd::command`] prepares a program that runs inside, [`Systemd::systemctl`] one of them.
//! - [`Systemd::shared`] is a directory under `/tmp` that has the same path on both sides: settings of the
//!   test application, gates and Unix sockets work across the border ([`Systemd::target`]), unless the unit
//!   has `PrivateTmp=`.
//! - [`Systemd::within`] runs a closure, and the threads it starts, in the private network: there TCP clients
//!   reach the services, and every port is free.
//! - `/etc`, `/usr` and `/var` are overlays ([`Systemd::file`], [`Systemd::install`]); programs and their
//!   files belong below `/usr/local`, because `PrivateTmp=` hides `/tmp` and `ProtectHome=` hides `/root`.
//! - Pids are not the same inside: kill by `systemctl kill --kill-whom=main`, or with a `kill` that
//!   [`Systemd::command`] runs, and never with a `MainPID` that may be 0.
//!
//! Where there is no systemd to be had (it takes root, overlays and the package), `start` says so on the
//! terminal, whatever the test harness captures, and the test returns. `scripts/test` finds out first and
//! names in `APPSERVER_TEST_SYSTEMD` what must not be skipped.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};

use nix::sched::{CloneFlags, setns};
use tempfile::TempDir;

use super::http::Target;
use super::server::{Server, copy_program, set_mode};
use super::{LIMIT, eventually};

/// Names the systemds that the tests may not do without: `installed`, `backports`.
const REQUIRED: &str = "APPSERVER_TEST_SYSTEMD";
/// `with-systemd` ends so when it could not start one.
const NO_SYSTEMD: i32 = 125;
/// What the application under test reads at each load.
const SETTINGS: &str = "testapp.json";

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    Installed,
    Backports,
}

/// A running systemd; dropped, it is gone with all its services.
pub struct Systemd {
    /// `with-systemd`, which ends when its input does.
    keeper: Child,
    input: Option<ChildStdin>,
    /// Process 1, as it is called outside.
    init: u32,
    shared: TempDir,
    /// The units the test wrote, whose journal is shown when it fails.
    units: RefCell<Vec<String>>,
}

/// What a program said that ran inside.
#[derive(Debug)]
pub struct Said {
    /// Its exit status; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

impl Said {
    /// Insists on exit status 0; the output.
    pub fn succeeds(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.output
    }

    /// Insists on another exit status than 0; standard error.
    pub fn fails(self) -> String {
        assert!(self.code.is_some_and(|code| code != 0), "{self:?}");
        self.errors
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        Said { code: output.status.code(), output: text(&output.stdout), errors: text(&output.stderr) }
    }
}

impl Systemd {
    /// The distribution's; `None` when there is none to be had, and the test has to be skipped.
    pub fn start() -> Option<Systemd> {
        Self::of_version(Version::Installed)
    }

    /// The newer one that `scripts/test` has fetched from the distribution's backports: at least 253, which
    /// knows `Type=notify-reload`, and 254 for `FileDescriptorStorePreserve=`.
    pub fn start_newer() -> Option<Systemd> {
        Self::of_version(Version::Backports)
    }

    fn of_version(version: Version) -> Option<Systemd> {
        Self::try_start(version).map_err(|reason| skip(version, &reason)).ok()
    }

    fn try_start(version: Version) -> Result<Systemd, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let shared = tempfile::Builder::new().prefix("it-systemd-").tempdir().expect("a temporary directory");
        // Services may run as users of their own.
        set_mode(shared.path(), 0o777);
        let script = root.join("scripts/with-systemd");
        let mut command = Command::new(&script);
        if version == Version::Backports {
            command.arg("--systemd").arg(root.join("target/systemd-backports"));
        }
        // A file and not a pipe, which would fill up while nobody reads it.
        let complaints = shared.path().join("with-systemd.log");
        let log = fs::File::create(&complaints).expect("a directory of ours");
        // The end of our process, however it ends, is the end of its input.
        command.args(["--", "sh", "-c", "echo $SYSTEMD_PID; exec cat"]).current_dir(root);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut keeper = command.spawn().map_err(|error| format!("{}: {error}", script.display()))?;
        let mut line = String::new();
        let output = keeper.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("a pipe");
        if let Ok(init) = line.trim().parse() {
            let input = keeper.stdin.take();
            return Ok(Systemd { keeper, input, init, shared, units: Default::default() });
        }
        let status = keeper.wait().expect("it is our child");
        let reason = fs::read_to_string(&complaints).unwrap_or_default();
        assert_eq!(status.code(), Some(NO_SYSTEMD), "{reason}");
        Err(reason.lines().last().unwrap_or("no reason given").to_owned())
    }

    /// The directory that inside and outside share, under the same path; everybody may write there.
    pub fn shared(&self) -> &str {
        self.shared.path().to_str().expect("a plain name")
    }

    /// A file in [`Systemd::shared`].
    pub fn shared_path(&self, name: &str) -> PathBuf {
        self.shared.path().join(name)
    }

    /// A Unix socket of a service in [`Systemd::shared`], for a client outside.
    pub fn target(&self, socket: &str) -> Target {
        Target::Unix(self.shared_path(socket))
    }

    /// Where a file of the private root is found from outside.
    fn outside(&self, path: &str) -> PathBuf {
        assert!(path.starts_with('/'), "{path} is not absolute");
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }

    /// Writes a file inside, with the directories that lead to it.
    pub fn file(&self, path: &str, content: impl AsRef<[u8]>) {
        let outside = self.outside(path);
        fs::create_dir_all(outside.parent().expect("a file is in a directory")).expect("root may");
        fs::write(outside, content).expect("root may");
    }

    /// Reads a file inside.
    pub fn read(&self, path: &str) -> io::Result<String> {
        fs::read_to_string(self.outside(path))
    }

    /// Copies a program to `/usr/local/bin` inside, in place of one that is there; its path.
    pub fn install(&self, program: &Path, name: &str) -> String {
        let path = format!("/usr/local/bin/{name}");
        let (outside, draft) = (self.outside(&path), self.outside(&format!("{path}.new")));
        copy_program(program, &draft);
        fs::rename(draft, outside).expect("root may");
        path
    }

    /// Installs the server with its built-in applications as `/usr/local/bin/appserver`.
    pub fn install_server(&self) -> String {
        self.install(Server::builtin().program(), "appserver")
    }

    /// Installs the test application, a server like any other. Its units need
    /// `Environment=`[`Systemd::settings_variable`] for [`Systemd::set_settings`].
    pub fn install_app(&self) -> String {
        self.set_settings(serde_json::json!({}));
        self.install(Server::app().program(), "app")
    }

    /// For `Environment=` of a unit that runs the test application.
    pub fn settings_variable(&self) -> String {
        format!("TESTAPP_CONFIG={}", self.shared_path(SETTINGS).display())
    }

    /// How the test application behaves when it is loaded next; see `tests/app/settings.rs`.
    pub fn set_settings(&self, settings: serde_json::Value) {
        let draft = self.shared_path("testapp.draft");
        fs::write(&draft, settings.to_string())
            .and_then(|()| fs::rename(&draft, self.shared_path(SETTINGS)))
            .expect("a directory of ours");
    }

    /// Writes a unit and lets systemd read it.
    pub fn unit(&self, name: &str, text: &str) {
        self.units(&[(name, text)]);
    }

    /// Writes units and lets systemd read them.
    pub fn units(&self, units: &[(&str, &str)]) {
        for (name, text) in units {
            self.file(&format!("/etc/systemd/system/{name}"), text);
            self.units.borrow_mut().push((*name).to_owned());
        }
        self.systemctl(["daemon-reload"]).succeeds();
    }

    /// A program that will run inside.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.init));
        command.args(["--mount", "--pid", "--ipc", "--uts", "--net", "--wd=/", "--"]).arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a program inside to its end.
    pub fn run<A: AsRef<OsStr>>(&self, program: &str, args: impl IntoIterator<Item = A>) -> Said {
        self.command(program).args(args).output().expect("nsenter can be run").into()
    }

    /// Runs systemctl to its end.
    pub fn systemctl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Said {
        self.run("systemctl", args)
    }

    /// Starts systemctl, for what waits as long as the test wants.
    pub fn begin_systemctl<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Child {
        let mut command = self.command("systemctl");
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("nsenter can be run")
    }

    /// A property of a unit, such as `ActiveState`, `StatusText`, `MainPID` or `NRestarts`.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.systemctl(["show", "--property", property, "--value", unit]).succeeds()
    }

    /// Waits until a property of a unit satisfies `check`; its value.
    pub fn wait_show(&self, unit: &str, property: &str, check: impl Fn(&str) -> bool) -> String {
        let what = format!("{property} of {unit} is as expected");
        eventually(&what, LIMIT, || Some(self.show(unit, property)).filter(|value| check(value)))
    }

    /// What a unit has logged: the text of the messages.
    pub fn journal(&self, unit: &str) -> Vec<String> {
        let said = self.run("journalctl", ["--no-pager", "--output=cat", "--unit", unit]);
        said.succeeds().lines().map(str::to_owned).collect()
    }

    /// Waits until a unit has logged a line that contains `text`; the first such line.
    pub fn wait_journal(&self, unit: &str, text: &str) -> String {
        eventually(&format!("{unit} logs {text:?}"), LIMIT, || {
            self.journal(unit).into_iter().find(|line| line.contains(text))
        })
    }

    /// Runs a closure on a thread in the private network, where the services' ports are. Threads and sockets
    /// that it makes belong there for good, wherever they are used then.
    pub fn within<T: Send>(&self, run: impl FnOnce() -> T + Send) -> T {
        let network = fs::File::open(format!("/proc/{}/ns/net", self.init)).expect("systemd runs");
        let network = OwnedFd::from(network);
        let entered = std::thread::scope(|scope| {
            // A network namespace is that of a thread (setns(2)), and this one may have other things to do.
            scope
                .spawn(|| {
                    setns(network, CloneFlags::CLONE_NEWNET).expect("root may");
                    run()
                })
                .join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for unit in self.units.borrow().iter() {
                let shown =
                    self.command("systemctl").args(["status", "--no-pager", "--lines=0", unit]).output();
                let logged = self
                    .command("journalctl")
                    .args(["--no-pager", "--output=short-precise", "--unit", unit])
                    .output();
                for output in [shown, logged].into_iter().flatten() {
                    eprintln!("--- {unit}\n{}", String::from_utf8_lossy(&output.stdout));
                }
            }
        }
        // Its end is the end of everything in there.
        drop(self.input.take());
        let ended = self.keeper.wait();
        let complaints = fs::read_to_string(self.shared_path("with-systemd.log")).unwrap_or_default();
        if !std::thread::panicking() {
            assert!(ended.is_ok_and(|status| status.success()), "with-systemd: {complaints}");
        }
    }
}

/// Says that a test is skipped, where it is seen; or fails, when it must not be.
fn skip(version: Version, reason: &str) {
    let name = match version {
        Version::Installed => "installed",
        Version::Backports => "backports",
    };
    let required = std::env::var(REQUIRED).unwrap_or_default();
    assert!(!required.split(' ').any(|it| it == name), "systemd ({name}) is required: {reason}");
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Not eprintln!, which the test harness keeps to itself.
    let _ = writeln!(io::stderr(), "*** SKIPPED {test}: no systemd ({name}): {reason}");
}
