//! `notify-fd` and `notify-stop`: how supervisors without sd_notify(3) learn that the start is over.

use std::io::Read;

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

use crate::shipped_config::shipped;
use crate::support::gate::Gate;
use crate::support::processes::{self, descriptors};
use crate::support::{LIMIT, Server, get};

/// Waits as Upstart does, until the child has stopped itself.
fn wait_stopped(server: &Server) {
    let pid = Pid::from_raw(server.pid().cast_signed());
    // In front of the wait: it would end for a death, too, which the bed has to see.
    server.wait_ready();
    let status = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it is our child");
    assert_eq!(status, WaitStatus::Stopped(pid, Signal::SIGSTOP));
}

#[test]
fn a_newline_comes_when_the_first_generation_serves_and_then_the_end() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let builder = Server::app().args(["--master", "--processes=2", "--notify-fd=7"]).descriptor(7, writer);
    let gate = Gate::new(builder.path("gate"));
    let server = builder.settings(json!({ "worker_gate": gate.path() })).spawn();
    // One worker is not there yet, so neither is the service; nor has the zygote the descriptor.
    let visitors = [gate.wait(), gate.wait()];
    for pid in server.children() {
        assert!(!descriptors(pid).contains_key(&7), "{}", processes::title(pid));
    }
    assert!(descriptors(server.pid()).contains_key(&7));
    drop(visitors);
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("a pipe");
    assert_eq!(said, "\n");
    assert_eq!(server.get("/").status, 200);
}

#[test]
fn a_start_that_fails_is_the_end_without_a_newline() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let builder = Server::app().args(["--notify-fd=7"]).descriptor(7, writer);
    let mut server = builder.settings(json!({ "load": "fail" })).spawn();
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("a pipe");
    assert_eq!(said, "");
    assert_ne!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_descriptor_that_was_not_given_is_an_error() {
    let mut server = Server::app().arg("--notify-fd=7").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("notify-fd: descriptor 7 ");
}

#[test]
fn a_reload_says_nothing_more() {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    let server = Server::app().args(["--master", "--notify-fd=7", "--notify-stop"]).descriptor(7, writer);
    let server = server.spawn();
    wait_stopped(&server);
    server.signal(Signal::SIGCONT);
    server.reload();
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("a pipe");
    assert_eq!(said, "\n");
    let stops = server.log().lines().iter().filter(|line| line.contains("waiting for SIGCONT")).count();
    assert_eq!(stops, 1);
}

/// What Upstart runs: the `exec` of a job.
fn job(file: &str) -> String {
    let text = shipped(file);
    assert!(text.contains("\nexpect stop\n"), "{file}");
    let line = text.lines().find_map(|line| line.strip_prefix("exec ")).expect("a job runs something");
    let line = line.replace("/usr/local/bin/appserver", "exec \"$PROGRAM\"");
    format!("#!/bin/sh -e\n{}\n", line.replace(" --uid=www-data --gid=www-data", ""))
}

/// Upstart waits for the stop, lets the process go on, reloads with SIGHUP, ends it with SIGTERM.
fn supervise_as_upstart(mut server: Server) {
    wait_stopped(&server);
    // The workers do not wait with the master.
    assert_eq!(get(server.target(), "/").text(), "hello v1\n");
    server.signal(Signal::SIGCONT);
    server.set_settings(json!({ "version": "v2" }));
    server.signal(Signal::SIGHUP);
    server.wait_reloaded(2);
    assert_eq!(get(server.target(), "/").text(), "hello v2\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn the_upstart_job_starts_reloads_and_stops() {
    let script = job("upstart/appserver.conf").replace(" --http=127.0.0.1:8080", " \"$@\"");
    supervise_as_upstart(Server::app().wrapped_by(&script).spawn());
}

#[test]
fn the_upstart_job_takes_the_socket_of_the_bridge() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = listener.local_addr().expect("a bound socket has an address");
    let builder = Server::app().without_listener().descriptor(9, listener);
    let builder = builder.env("UPSTART_FDS", "9").env("UPSTART_EVENTS", "socket");
    let mut server = builder.wrapped_by(&job("upstart/appserver-socket.conf")).spawn();
    server.set_address(address);
    supervise_as_upstart(server);
}
