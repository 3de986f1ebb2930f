//! A server that left its shell: not a child of the test, in a session of its own.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpgid};

use super::{LIMIT, Server, eventually, processes};

/// The daemon that a finished [`Server`] has left behind; dropped, it is gone with all its processes.
pub struct Daemon {
    pid: Pid,
    group: Pid,
}

impl Daemon {
    /// Reads its pid from the file `pidfile` in the directory of the server that started it.
    pub fn of(shell: &Server, pidfile: &str) -> Daemon {
        let text = fs::read_to_string(shell.path(pidfile)).expect("the daemon has written its pidfile");
        let pid = Pid::from_raw(text.trim().parse().expect("a pidfile holds a number"));
        let group = getpgid(Some(pid)).expect("the daemon runs");
        assert_ne!(
            group,
            Pid::from_raw(shell.pid().cast_signed()),
            "the daemon is in the shell's process group"
        );
        Daemon { pid, group }
    }

    /// The master's pid.
    pub fn pid(&self) -> u32 {
        self.pid.as_raw().cast_unsigned()
    }

    /// Sends a signal to the master.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the daemon is there");
    }

    /// Waits until the master is gone.
    pub fn wait_exit(&self) {
        eventually("the daemon exits", LIMIT, || (!processes::is_alive(self.pid())).then_some(()));
    }

    /// Pids of the master's children.
    pub fn children(&self) -> Vec<u32> {
        processes::list(|stat| stat.parent == self.pid()).iter().map(|stat| stat.pid).collect()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // The group's number is not given away while one of its processes lives.
        if !processes::list(|stat| stat.group == self.group.as_raw().cast_unsigned()).is_empty() {
            let _ = killpg(self.group, Signal::SIGKILL);
        }
    }
}

/// Waits until a file contains `text`; its content.
pub fn wait_for_text(path: &Path, text: &str) -> String {
    let what = format!("{} contains {text:?}", path.display());
    eventually(&what, LIMIT, || fs::read_to_string(path).ok().filter(|content| content.contains(text)))
}
