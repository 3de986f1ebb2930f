//! Whatever is wrong with the new code, the old code serves on and the next reload works.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::processes::kill;
use crate::support::server::{Builder, copy_program};
use crate::support::{LIMIT, Load, LoadSpec, Server, eventually};

/// Too short for the reason to be anything but the time-out, where one is not to be waited for.
const SHORT: &str = "--boot-timeout=2s";

fn builder() -> Builder {
    Server::app().copied().args(["--master", "--processes=2", "--threads=8"])
}

/// Starts a reload under load that `break_it` dooms: it must be refused for `reason`, without losing
/// a request; afterwards `mend` must be enough for the next one to work.
fn is_refused(builder: Builder, reason: &str, break_it: impl FnOnce(&Server), mend: impl FnOnce(&Server)) {
    let server = builder.start();
    let before = server.workers();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    load.wait_for(20);
    let mark = server.log().mark();
    break_it(&server);
    let line = server.wait_for_log_after(mark, " refused: ");
    assert!(line.contains("reload 1 refused: ") && line.contains(reason), "another reason: {line}");
    load.wait_for(20);
    server.wait_workers("only the old generation is left, and serves on", |workers| workers == before);
    assert_eq!(server.get("/").text(), "hello v1\n");
    mend(&server);
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/").text(), "hello v2\n");
}

/// The same, for a breakage that is there before the reload begins.
fn is_refused_from_the_start(reason: &str, break_it: impl FnOnce(&Server), mend: impl FnOnce(&Server)) {
    let reload = |server: &Server| {
        break_it(server);
        server.signal(Signal::SIGHUP);
    };
    is_refused(builder(), reason, reload, mend);
}

fn settings_are_refused(settings: Value, reason: &str) {
    is_refused_from_the_start(reason, |server| server.set_settings(settings), |_| {});
}

#[test]
fn code_that_does_not_load() {
    settings_are_refused(json!({ "load": "fail" }), "the test application was told to fail");
}

#[test]
fn code_that_crashes_while_loading() {
    settings_are_refused(json!({ "load": "crash" }), "the zygote ended with signal 6");
}

#[test]
fn code_that_exits_while_loading() {
    settings_are_refused(json!({ "load": "exit" }), "the zygote ended with exit code 3");
}

#[test]
fn workers_that_crash_when_they_start() {
    settings_are_refused(json!({ "worker_start": "crash" }), "signal 6");
}

#[test]
fn code_that_hangs_while_loading() {
    let hang = |server: &Server| {
        server.set_settings(json!({ "load": "hang" }));
        server.signal(Signal::SIGHUP);
    };
    is_refused(builder().arg(SHORT), "not loaded within 2 s (boot-timeout)", hang, |_| {});
}

#[test]
fn workers_that_hang_when_they_start() {
    let hang = |server: &Server| {
        server.set_settings(json!({ "worker_start": "hang" }));
        server.signal(Signal::SIGHUP);
    };
    is_refused(builder().arg(SHORT), "not ready within 2 s (boot-timeout)", hang, |_| {});
}

/// Begins a reload and kills whoever comes to the gate first.
fn killed_at(gate: &'static str, reason: &str) {
    let kill_at_gate = |server: &Server| {
        let keeper = server.gate();
        server.set_settings(json!({ gate: keeper.path() }));
        server.signal(Signal::SIGHUP);
        kill(keeper.wait().pid, Signal::SIGKILL);
    };
    is_refused(builder(), reason, kill_at_gate, |_| {});
}

#[test]
fn a_zygote_that_is_killed_while_loading() {
    killed_at("load_gate", "the zygote ended with signal 9");
}

#[test]
fn a_worker_that_is_killed_during_the_surge() {
    killed_at("worker_gate", "ended with signal 9");
}

#[test]
fn a_zygote_that_is_killed_during_the_surge() {
    let kill_zygote = |server: &Server| {
        let gate = server.gate();
        server.set_settings(json!({ "worker_gate": gate.path() }));
        let old = server.zygote();
        server.signal(Signal::SIGHUP);
        // Both workers have titles of their own by then.
        let _waiting = (gate.wait(), gate.wait());
        let new = server.zygotes().into_iter().find(|pid| *pid != old);
        kill(new.expect("it has forked the workers"), Signal::SIGKILL);
        server.wait_for_log(" refused: ");
    };
    is_refused(builder(), "the zygote ended with signal 9", kill_zygote, |_| {});
}

#[test]
fn a_configuration_that_does_not_hold_any_more() {
    let builder = builder().file("current/keep", "").arg("--chdir=current");
    let take_away = |server: &Server| {
        fs::rename(server.path("current"), server.path("aside")).unwrap();
        server.signal(Signal::SIGHUP);
    };
    let put_back = |server: &Server| fs::rename(server.path("aside"), server.path("current")).unwrap();
    is_refused(builder, "chdir: cannot enter ", take_away, put_back);
}

#[test]
fn a_binary_that_is_missing() {
    is_refused_from_the_start(
        "cannot execute ",
        |server| fs::rename(server.program(), server.path("aside")).unwrap(),
        |server| fs::rename(server.path("aside"), server.program()).unwrap(),
    );
}

#[test]
fn a_binary_that_is_none() {
    is_refused_from_the_start(
        "cannot execute ",
        |server| {
            fs::rename(server.program(), server.path("aside")).unwrap();
            fs::write(server.program(), "not a program\n").unwrap();
            fs::set_permissions(server.program(), Permissions::from_mode(0o755)).unwrap();
        },
        |server| fs::rename(server.path("aside"), server.program()).unwrap(),
    );
}

#[test]
fn a_binary_that_may_not_be_executed() {
    let allow =
        |server: &Server, mode| fs::set_permissions(server.program(), Permissions::from_mode(mode)).unwrap();
    is_refused_from_the_start(
        "cannot execute ",
        |server| allow(server, 0o644),
        |server| allow(server, 0o755),
    );
}

#[test]
fn a_binary_that_is_another_program() {
    is_refused_from_the_start(
        "the zygote ended with exit code 0",
        |server| {
            fs::rename(server.program(), server.path("aside")).unwrap();
            copy_program("/bin/true".as_ref(), server.program());
        },
        |server| fs::rename(server.path("aside"), server.program()).unwrap(),
    );
}

#[test]
fn a_master_that_cannot_be_replaced_supervises_the_new_workers() {
    let server = builder().start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "load_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    let visitor = gate.wait();
    // The zygote runs by now; only the execve of the master is still to come.
    fs::rename(server.program(), server.path("aside")).unwrap();
    drop(visitor);
    let line = server.wait_for_log("the master could not be replaced: ");
    assert!(line.contains("reload 1") && line.contains("No such file or directory"), "{line}");
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/").text(), "hello v2\n");
    let before = server.wait_workers("the old workers are gone", |workers| workers.len() == 2);
    // It still is a master: it replaces workers and reads signals.
    kill(before[0].pid, Signal::SIGKILL);
    server.wait_for_log("Respawned appserver worker ");
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    fs::rename(server.path("aside"), server.program()).unwrap();
    server.set_settings(json!({ "version": "v3" }));
    server.reload();
    assert_eq!(server.get("/").text(), "hello v3\n");
    load.stop().assert_nothing_lost();
}

#[test]
fn refused_reloads_leave_no_process_and_no_descriptor() {
    let server = builder().arg(SHORT).start();
    let (descriptors, children) = (server.descriptor_kinds(), server.children().len());
    let broken = [
        json!({ "load": "fail" }),
        json!({ "load": "crash" }),
        json!({ "load": "exit" }),
        json!({ "load": "hang" }),
        json!({ "worker_start": "crash" }),
    ];
    for settings in broken {
        server.set_settings(settings);
        let mark = server.log().mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_after(mark, " refused: ");
    }
    eventually("as many children as before", LIMIT, || (server.children().len() == children).then_some(()));
    eventually("the same descriptors", LIMIT, || (server.descriptor_kinds() == descriptors).then_some(()));
}
