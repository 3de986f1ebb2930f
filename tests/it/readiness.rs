//! `notify-fd`: how supervisors without sd_notify(3) learn that the start is over.

use std::io::Read;

use serde_json::json;

use crate::support::gate::Gate;
use crate::support::processes::{self, descriptors};
use crate::support::{LIMIT, Server};

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
    let server = Server::app().args(["--master", "--notify-fd=7"]).descriptor(7, writer).start();
    server.reload();
    let mut said = String::new();
    reader.read_to_string(&mut said).expect("a pipe");
    assert_eq!(said, "\n");
}
