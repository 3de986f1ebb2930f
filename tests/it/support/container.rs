//! A server as process 1 of a PID namespace, as in a container. Needs root.

use std::fs;
use std::process::{Command, Output};

use nix::sys::signal::Signal;

use super::server::Builder;
use super::{LIMIT, Server, eventually, processes};

/// Executes what follows as process 1 of a new namespace, with its own `/proc`; killed, it takes all along.
pub const LAUNCHER: [&str; 5] = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"];

/// A server in a namespace of its own.
pub struct Container {
    /// Its child is the server: what it knows of pids is true inside only.
    pub server: Server,
    /// The server's pid outside.
    pub init: u32,
}

/// False, with a line that says so, where namespaces cannot be had.
pub fn possible() -> bool {
    let mut trial = Command::new(LAUNCHER[0]);
    let possible = trial.args(&LAUNCHER[1..]).arg("true").status().is_ok_and(|status| status.success());
    if !possible {
        eprintln!("skipped: no PID namespaces; needs root and unshare");
    }
    possible
}

impl Container {
    /// Starts the server and waits until it catches signals.
    pub fn spawn(builder: Builder) -> Self {
        let server = builder.through(LAUNCHER).spawn();
        let init = eventually("process 1 catches signals", LIMIT, || {
            let child = *server.children().first()?;
            processes::catches(child, Signal::SIGTERM).then_some(child)
        });
        Container { server, init }
    }

    /// Starts the server and waits until it is ready.
    pub fn start(builder: Builder) -> Self {
        let container = Self::spawn(builder);
        container.server.wait_ready();
        container
    }

    /// Sends a signal from outside, as those do who run containers.
    pub fn signal(&self, signal: Signal) {
        processes::kill(self.init, signal);
    }

    /// Reloads and waits until the next generation serves.
    pub fn reload(&self) {
        let mark = self.server.log().mark();
        self.signal(Signal::SIGHUP);
        self.server.wait_for_log_after(mark, " complete: generation ");
    }

    /// Runs a command inside, beside the server, as `docker exec` does.
    pub fn execute(&self, command: &[&str]) -> Output {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--target={}", self.init)).args(["--pid", "--mount", "--wd", "--"]).args(command);
        nsenter.output().expect("nsenter can be run")
    }

    /// Children of process 1, by their pids outside.
    pub fn children(&self) -> Vec<processes::Stat> {
        processes::list_all(|stat| stat.parent == self.init)
    }

    /// A line of `/proc/PID/status` of process 1, without its name.
    pub fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.init)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.unwrap_or_default().trim().to_owned()
    }
}
