//! The real inetd, which passes its listening socket as standard input, output and error.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

use crate::support::{LIMIT, Server, Target, eventually, get};

const INETD: &str = "/usr/sbin/inetd";

/// inetd with one service; dropped, both are gone.
struct Inetd {
    daemon: Child,
    address: SocketAddr,
    directory: TempDir,
}

impl Inetd {
    /// Starts it with the server in this mode; `None` where there is none.
    fn start(mode: &str) -> Option<Inetd> {
        if !Path::new(INETD).exists() {
            // Not eprintln!, which the test harness keeps to itself.
            let _ = writeln!(std::io::stderr(), "*** SKIPPED: no {INETD} (openbsd-inetd)");
            return None;
        }
        let directory = tempfile::Builder::new().prefix("it-inetd-").tempdir().unwrap();
        // An address of this process, for inetd cannot be asked for a free port.
        let [_, high, middle, low] = std::process::id().to_be_bytes();
        let address =
            SocketAddr::from(([127, 128 | high, middle, low], if mode == "wait" { 18083 } else { 18084 }));
        let user = User::from_uid(geteuid()).unwrap().expect("every user has a name").name;
        let program = Server::builtin().program().display().to_string();
        let path = directory.path().display();
        let service = format!(
            "{address} stream tcp {mode} {user} {program} appserver --master --logto={path}/log --pidfile={path}/pid\n"
        );
        let config = directory.path().join("inetd.conf");
        std::fs::write(&config, service).unwrap();
        let mut command = Command::new(INETD);
        command.arg("-i").arg(&config).stdin(Stdio::null());
        Some(Inetd { daemon: command.spawn().unwrap(), address, directory })
    }

    fn connect(&self) -> TcpStream {
        let stream = eventually("inetd listens", LIMIT, || TcpStream::connect(self.address).ok());
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.directory.path().join("pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    /// Stops the server; inetd listens on its own again.
    fn stop_server(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGINT);
            eventually("the server ends", LIMIT, || self.pid().is_none().then_some(()));
        }
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        self.stop_server();
    }
}

#[test]
fn the_first_client_starts_the_server_and_reads_http_only() {
    let Some(inetd) = Inetd::start("wait") else { return };
    for generation in 1..=2 {
        let mut client = inetd.connect();
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(!answer.contains("INFO"), "{answer}");
        assert_eq!(get(&Target::Tcp(inetd.address), "/").status, 200);
        // A worker may have answered before the master has said that it is ready.
        let said = || inetd.log().matches(&format!("accept on {}", inetd.address)).count();
        eventually("the server says that it is ready", LIMIT, || (said() >= generation).then_some(()));
        assert_eq!(said(), generation, "{}", inetd.log());
        inetd.stop_server();
    }
}

#[test]
fn a_connection_in_place_of_a_socket_is_refused_without_a_word_to_the_client() {
    let Some(inetd) = Inetd::start("nowait") else { return };
    let mut client = inetd.connect();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(String::from_utf8_lossy(&answer), "");
    let log = inetd.log();
    assert!(log.contains("standard input is a connection and not a socket that listens; inetd has to start the server with \"wait\""), "{log}");
}
