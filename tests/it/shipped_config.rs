//! The files in `config/` start, reload and stop a server as they say.

use std::fs;
use std::path::Path;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::support::{LIMIT, Server};

/// Where the files put what exists only while the server runs.
const RUNTIME_DIRECTORY: &str = "/run/appserver/";

/// The value of `key` in a file of `key=value` lines.
fn setting(file: &str, key: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{file} has no {key}")).to_owned()
}

/// Runs a command line, but in the directory and on the address of the test bed.
fn start(command: &str) -> Server {
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/appserver"));
    let words = words.filter(|word| !word.starts_with("--http="));
    let server = Server::builtin().args(words.map(|word| word.replace(RUNTIME_DIRECTORY, ""))).start();
    assert!(server.command(["--status", "pid"]).status.success());
    server
}

fn reload_and_stop(mut server: Server, stop: &str) {
    server.reload();
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::from_str(stop).unwrap());
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    assert!(!server.path("pid").exists() && !server.path("fifo").exists());
}

#[test]
fn the_systemd_unit_works() {
    let file = "systemd/appserver.service";
    assert_eq!(setting(file, "ExecReload"), "/bin/kill -HUP $MAINPID");
    reload_and_stop(start(&setting(file, "ExecStart")), &setting(file, "KillSignal"));
}

#[test]
fn the_supervisor_program_works() {
    let file = "supervisor/appserver.conf";
    let stop = format!("SIG{}", setting(file, "stopsignal"));
    reload_and_stop(start(&setting(file, "command")), &stop);
}
