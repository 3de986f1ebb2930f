//! What makes a machine fail on purpose: system calls that return errors, groups that have limits.
//!
//! Not every machine allows it. Where it does not, the test says so on the terminal and returns.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{LIMIT, eventually, processes};

/// Says that a test is skipped where it is seen, which `eprintln!` is not.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let _ = writeln!(io::stderr(), "*** SKIPPED {}: {reason}", thread.name().unwrap_or("a test"));
}

/// A strace that lets system calls of one process fail, and writes down what it calls; dropped, it lets go.
pub struct Injection {
    strace: Child,
    record: TempDir,
}

impl Injection {
    /// Writes down the system calls `traced` of a process and injects `fault`, both as in strace(1):
    /// `accept4:error=EMFILE:when=1..3`. `None` where processes cannot be traced.
    pub fn attach(pid: u32, traced: &str, fault: &str) -> Option<Injection> {
        Self::start(pid, traced, fault, &[])
    }

    /// The same for those that the process forks, too.
    pub fn attach_family(pid: u32, traced: &str, fault: &str) -> Option<Injection> {
        Self::start(pid, traced, fault, &["-f"])
    }

    fn start(pid: u32, traced: &str, fault: &str, flags: &[&str]) -> Option<Injection> {
        static POSSIBLE: OnceLock<bool> = OnceLock::new();
        let trial = || Command::new("strace").args(["-o", "/dev/null", "true"]).status();
        if !POSSIBLE.get_or_init(|| trial().is_ok_and(|status| status.success())) {
            skip("processes cannot be traced");
            return None;
        }
        let record = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("strace");
        command.args(flags).args(["-p", &pid.to_string(), "-e", &format!("trace={traced}")]);
        command.args(["-e", &format!("inject={fault}")]).arg("-o").arg(record.path().join("calls"));
        let mut strace = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it was tried");
        let mut said = BufReader::new(strace.stderr.take().expect("it is piped"));
        let mut line = String::new();
        while !line.contains("attached") {
            line.clear();
            assert!(said.read_line(&mut line).expect("a pipe") > 0, "strace has not come to {pid}");
        }
        // Its last words must not meet a closed pipe.
        std::thread::spawn(move || io::copy(&mut said, &mut io::sink()));
        Some(Injection { strace, record })
    }

    /// Lets go of the process: what it has called meanwhile, a line each.
    pub fn end(mut self) -> Vec<String> {
        self.release();
        let calls = fs::read(self.record.path().join("calls")).expect("strace makes it");
        String::from_utf8_lossy(&calls).lines().map(str::to_owned).collect()
    }

    fn release(&mut self) {
        if self.strace.try_wait().is_ok_and(|status| status.is_none()) {
            processes::kill(self.strace.id(), Signal::SIGTERM);
        }
        let _ = self.strace.wait();
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        self.release();
    }
}

/// How many of these system calls there are, and how many of them were made to fail.
pub fn count(calls: &[String], name: &str) -> (usize, usize) {
    let these = || calls.iter().filter(|line| line.starts_with(&format!("{name}(")));
    (these().count(), these().filter(|line| line.ends_with("(INJECTED)")).count())
}

/// A control group of version 1; dropped, it is gone. `None`, with a line that says so, where none can be made.
pub struct Group(PathBuf);

impl Group {
    /// Makes one.
    pub fn new(controller: &str, name: &str) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup").join(controller);
        let path = root.join(format!("it-{}-{name}", std::process::id()));
        // Elsewhere than in such a hierarchy this would make an ordinary directory.
        if root.join("cgroup.procs").exists() && fs::create_dir(&path).is_ok() {
            return Some(Group(path));
        }
        skip(&format!("no {controller} group of version 1 can be made"));
        None
    }

    /// Writes one of its files.
    pub fn set(&self, file: &str, value: &str) {
        fs::write(self.0.join(file), value).expect("a group of ours");
    }

    /// Reads one of its files.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.0.join(file)).expect("a group of ours").trim().to_owned()
    }

    /// Executes what follows in this group.
    pub fn launcher(&self) -> [String; 4] {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh".to_owned(), "-c".to_owned(), enter, "sh".to_owned()]
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empty as soon as the last process has been collected.
        eventually("the group can be removed", LIMIT, || fs::remove_dir(&self.0).ok());
    }
}

/// Stops a process; on return it does nothing any more.
pub fn stop(pid: u32) {
    processes::kill(pid, Signal::SIGSTOP);
    eventually("the process has stopped", LIMIT, || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(')')?.1.trim_start().starts_with('T').then_some(())
    });
}

/// How often a process has gone to sleep so far.
pub fn naps(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.expect("there is such a line").trim().parse().expect("a number")
}

/// Fills a file system with this file, to the last byte.
pub fn fill(path: &Path) {
    let mut ballast = File::create(path).expect("a disk of ours");
    for size in [4096, 1] {
        while ballast.write(&[b'x'; 4096][..size]).is_ok_and(|count| count > 0) {}
    }
}
