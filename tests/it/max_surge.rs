//! `max-surge`: workers are replaced in steps, and brought back when a later step fails.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::gate::Gate;
use crate::support::processes::kill;
use crate::support::server::Builder;
use crate::support::{Exchange, LIMIT, Load, LoadSpec, Server, eventually};

const PROCESSES: usize = 4;

fn builder(surge: &str) -> Builder {
    let surge = format!("--max-surge={surge}");
    Server::app().args(["--master", "--processes=4", "--threads=8", "--pidfile=pid", &surge]).with_fifo()
}

/// Lets workers through the gate one by one; the server never has more than `most`.
fn count_at_the_gate(server: &Server, gate: &Gate, most: usize) {
    for _ in 0..PROCESSES {
        let visitor = gate.wait();
        let living = server.workers().len();
        assert!(living <= most, "{living} workers live");
        drop(visitor);
    }
}

#[test]
fn a_reload_goes_in_steps_and_loses_nothing() {
    for (surge, extra) in [("1", 1), ("50%", 2)] {
        let server = builder(surge).start();
        let load = Load::start(server.target(), &LoadSpec::all_kinds());
        let gate = server.gate();
        server.set_settings(json!({ "version": "v2", "worker_gate": gate.path() }));
        server.signal(Signal::SIGHUP);
        count_at_the_gate(&server, &gate, PROCESSES + extra);
        server.wait_reloaded(2);
        assert_eq!(server.get("/").text(), "hello v2\n");
        load.stop().assert_nothing_lost();
    }
}

#[test]
fn a_worker_that_takes_its_time_to_leave_takes_room() {
    let server = builder("1").start();
    let exchange = Exchange::stream(server.target());
    server.set_settings(json!({ "version": "v2" }));
    server.signal(Signal::SIGHUP);
    let slot = server.workers().iter().find(|it| it.pid == exchange.pid()).unwrap().slot as usize;
    // Its slot has a new worker; the next one has no room.
    let spawned = || {
        let lines = server.log().lines();
        lines.iter().filter(|line| line.contains("spawned appserver worker")).count()
    };
    eventually("it holds up the rest", LIMIT, || {
        (spawned() == PROCESSES + slot && server.workers().len() == PROCESSES + 1).then_some(())
    });
    exchange.finish().unwrap();
    server.wait_reloaded(2);
}

#[test]
fn a_later_worker_that_fails_brings_the_old_ones_back() {
    let server = builder("1").start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "worker_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    drop(gate.wait());
    drop(gate.wait());
    let third = gate.wait();
    kill(third.pid, Signal::SIGKILL);
    server.wait_for_log("bringing back the workers of generation 1 that have left");
    server.wait_for_log("reload 1 refused: worker 3 ended with signal 9 (SIGKILL) before it was ready");
    // Those that were told to leave may take a client before they hear of it.
    server.wait_workers("four workers are left", |workers| workers.len() == PROCESSES);
    for _ in 0..3 * PROCESSES {
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
    load.wait_for(20);
    server.set_settings(json!({ "version": "v3" }));
    let output = server.command(["--reload", "pid", "--wait=25s"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(server.get("/").text(), "hello v3\n");
    load.stop().assert_nothing_lost();
}

#[test]
fn a_workers_reload_goes_in_steps_too() {
    let server = builder("1").arg("--lazy-apps").start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "worker_gate": gate.path() }));
    server.fifo("w");
    count_at_the_gate(&server, &gate, PROCESSES + 1);
    server.wait_for_log("workers reload complete");
    // The last one may take another client before it hears that it is replaced.
    server.wait_workers("the old ones have left", |workers| workers.len() == PROCESSES);
    assert_eq!(server.get("/").text(), "hello v2\n");
    load.stop().assert_nothing_lost();
}

#[test]
fn a_chain_into_broken_code_stops_and_every_worker_is_kept() {
    let server = Server::app().args(["--master", "--processes=2", "--lazy-apps"]).with_fifo().start();
    let before = server.workers();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    server.set_settings(json!({ "load": "fail" }));
    server.fifo("c");
    let line = server.wait_for_log("chain reload aborted: ");
    assert!(line.contains("the test application was told to fail"), "{line}");
    server.wait_workers("the victim and the rest are kept", |workers| workers == before);
    server.set_settings(json!({ "version": "v2" }));
    server.fifo("c");
    for slot in 1..=2 {
        server.wait_for_log(&format!("chain next victim is worker {slot}"));
    }
    server.wait_for_log("chain reloading complete");
    server.wait_workers("the old ones have left", |workers| workers.len() == 2);
    assert_eq!(server.get("/").text(), "hello v2\n");
    load.stop().assert_nothing_lost();
}
