//! Pidfiles: one live owner, and only the owner removes its file.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::{LIMIT, Server};

fn start() -> Server {
    Server::app().args(["--master", "--pidfile=pid", "--vacuum"]).start()
}

fn content(server: &Server) -> String {
    fs::read_to_string(server.path("pid")).unwrap()
}

#[test]
fn the_pidfile_names_the_master_through_every_reload() {
    let server = start();
    assert_eq!(content(&server), format!("{}\n", server.pid()));
    server.reload();
    assert_eq!(content(&server), format!("{}\n", server.pid()));
}

#[test]
fn a_second_server_is_refused_the_pidfile_of_a_live_one() {
    let server = start();
    let path = server.path("pid").display().to_string();
    let mut second = Server::app().args(["--master", &format!("--pidfile={path}"), "--vacuum"]).spawn();
    assert_eq!(second.wait_exit(LIMIT).code(), Some(1));
    second.wait_for_log(&server.pid().to_string());
    assert_eq!(content(&server), format!("{}\n", server.pid()));
}

#[test]
fn a_stale_pidfile_is_replaced() {
    let mut first = start();
    let stale = first.pid();
    first.signal(Signal::SIGKILL);
    first.wait_exit(LIMIT);
    let second = Server::app().file("pid", format!("{stale}\n")).args(["--master", "--pidfile=pid"]).start();
    assert_eq!(content(&second), format!("{}\n", second.pid()));
}

#[test]
fn vacuum_removes_the_pidfile_unless_it_is_another_servers() {
    let mut server = start();
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    assert!(!server.path("pid").exists());

    let mut server = start();
    fs::write(server.path("pid"), "1\n").unwrap();
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    assert_eq!(content(&server), "1\n");
}

#[test]
fn a_running_server_is_commanded_by_its_pidfile() {
    let mut server = start();
    assert_eq!(server.command(["--status", "pid"]).status.code(), Some(0));
    assert_eq!(server.command(["--reload", "pid"]).status.code(), Some(0));
    server.wait_reloaded(2);
    assert_eq!(server.command(["--stop", "pid"]).status.code(), Some(0));
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn commands_to_a_server_that_does_not_run_say_so() {
    let mut server = start();
    server.signal(Signal::SIGKILL);
    server.wait_exit(LIMIT);
    for (option, code) in [("--status", 3), ("--reload", 1), ("--stop", 1)] {
        for pidfile in ["pid", "no-such-file"] {
            let output = server.command([option, pidfile]);
            assert_eq!(output.status.code(), Some(code), "{option} {pidfile}: {output:?}");
            assert!(
                String::from_utf8_lossy(&output.stderr).contains(pidfile),
                "{option} {pidfile}: {output:?}"
            );
        }
    }
}
