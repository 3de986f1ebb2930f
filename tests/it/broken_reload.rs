//! Whatever is wrong with the new code, the old code serves on and the next reload works.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Load, LoadSpec, Server};

/// A server whose zygotes and workers have two seconds to become ready.
fn start() -> Server {
    Server::app().copied().args(["--master", "--processes=2", "--threads=8", "--boot-timeout=2s"]).start()
}

/// Reloads under load while `break_it` holds: the reload must be refused, without losing a
/// request; afterwards `mend` must be enough for the next one to work.
fn is_refused(break_it: impl FnOnce(&Server), mend: impl FnOnce(&Server)) {
    let server = start();
    let before = server.workers();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    load.wait_for(20);
    break_it(&server);
    let mark = server.log().mark();
    server.signal(Signal::SIGHUP);
    let line = server.wait_for_log_after(mark, " refused: ");
    assert!(line.contains("reload ") && !line.ends_with(" refused: "), "no reason: {line}");
    load.wait_for(20);
    assert_eq!(server.workers(), before, "the old generation serves on");
    assert_eq!(server.get("/").text(), "hello v1\n");
    mend(&server);
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/").text(), "hello v2\n");
}

fn settings_are_refused(settings: Value) {
    is_refused(|server| server.set_settings(settings), |_| {});
}

#[test]
fn code_that_does_not_load() {
    settings_are_refused(json!({ "load": "fail" }));
}

#[test]
fn code_that_hangs_while_loading() {
    settings_are_refused(json!({ "load": "hang" }));
}

#[test]
fn code_that_crashes_while_loading() {
    settings_are_refused(json!({ "load": "crash" }));
}

#[test]
fn code_that_exits_while_loading() {
    settings_are_refused(json!({ "load": "exit" }));
}

#[test]
fn workers_that_crash_when_they_start() {
    settings_are_refused(json!({ "worker_start": "crash" }));
}

#[test]
fn workers_that_hang_when_they_start() {
    settings_are_refused(json!({ "worker_start": "hang" }));
}

#[test]
fn a_binary_that_is_missing() {
    is_refused(
        |server| fs::rename(server.program(), server.path("aside")).unwrap(),
        |server| fs::rename(server.path("aside"), server.program()).unwrap(),
    );
}

#[test]
fn a_binary_that_is_none() {
    is_refused(
        |server| {
            fs::rename(server.program(), server.path("aside")).unwrap();
            fs::write(server.program(), "not a program\n").unwrap();
        },
        |server| fs::rename(server.path("aside"), server.program()).unwrap(),
    );
}

#[test]
fn the_reason_of_the_application_reaches_the_log() {
    let server = start();
    server.set_settings(json!({ "load": "fail" }));
    server.signal(Signal::SIGHUP);
    server.wait_for_log("the test application was told to fail");
}

#[test]
fn a_refused_reload_leaves_no_process_and_no_descriptor() {
    let server = start();
    let (descriptors, children) = (server.descriptor_kinds(), server.children().len());
    for broken in ["fail", "crash", "exit", "hang"] {
        server.set_settings(json!({ "load": broken }));
        let mark = server.log().mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_after(mark, " refused: ");
    }
    crate::support::eventually("as many children as before", crate::support::LIMIT, || {
        (server.children().len() == children).then_some(())
    });
    assert_eq!(server.descriptor_kinds(), descriptors);
}
