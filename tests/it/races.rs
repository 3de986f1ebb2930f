//! What happens at the same moment as a reload has a defined outcome, too.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Exchange, Failure, LIMIT, Load, LoadSpec, Server, eventually};

fn start() -> Server {
    Server::app().args(["--master", "--processes=2", "--threads=8", "--pidfile=pid"]).with_fifo().start()
}

#[test]
fn a_reload_asked_for_during_the_preparation_of_another_replaces_it() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "load_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    let first = gate.wait();
    server.set_settings(json!({ "version": "v3" }));
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reload 1 gives way to a newer one");
    // Nobody opens the gate: the first zygote is killed there.
    server.wait_for_log("reload 2 complete: generation 3 serves");
    assert!(!crate::support::processes::is_alive(first.pid));
    assert_eq!(server.get("/").text(), "hello v3\n");
    load.stop().assert_nothing_lost();
    assert!(!server.log().lines().iter().any(|line| line.contains(" refused: ")));
}

#[test]
fn a_reload_asked_for_during_the_surge_of_another_follows_it() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "worker_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    let surging = (gate.wait(), gate.wait());
    server.set_settings(json!({ "version": "v3" }));
    let mark = server.log().mark();
    // Asked for twice, it is done once.
    for _ in 0..2 {
        server.fifo("r");
        server.wait_for_log_after(mark, "master fifo 'r' received: Reload");
    }
    drop(surging);
    server.wait_for_log("reload 1 complete: generation 2 serves");
    server.wait_for_log("reload 2 complete: generation 3 serves");
    assert_eq!(server.get("/").text(), "hello v3\n");
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/info").json()["reloads"], 2);
}

#[test]
fn a_flood_of_reloads_ends_with_the_last_code_and_loses_nothing() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    for _ in 0..50 {
        server.signal(Signal::SIGHUP);
        server.fifo("r");
        load.wait_for(1);
    }
    server.set_settings(json!({ "version": "last" }));
    server.signal(Signal::SIGHUP);
    eventually("the last code serves", LIMIT, || (server.get("/").text() == "hello last\n").then_some(()));
    load.stop().assert_nothing_lost();
    eventually("one zygote and two workers are left", LIMIT, || (server.children().len() == 3).then_some(()));
}

#[test]
fn workers_replaced_while_a_reload_begins_lose_nothing() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    for (generation, letters) in (2..=9).zip(["wr", "rw", "cr", "rc"].into_iter().cycle()) {
        let mark = server.log().mark();
        server.fifo(letters);
        server.wait_reloaded(generation);
        if letters.starts_with('r') {
            let line =
                if letters.contains('c') { "chain reloading complete" } else { "workers reload complete" };
            server.wait_for_log_after(mark, line);
        }
        load.wait_for(1);
    }
    load.stop().assert_nothing_lost();
}

#[test]
fn a_stop_asked_for_at_any_stage_of_a_reload_stops_everybody() {
    for stage in ["load_gate", "worker_gate"] {
        let mut server = start();
        let gate = server.gate();
        let exchange = Exchange::stream(server.target());
        server.set_settings(json!({ stage: gate.path() }));
        server.signal(Signal::SIGHUP);
        let _visitor = gate.wait();
        server.signal(Signal::SIGINT);
        server.wait_for_log("graceful shutdown triggered");
        exchange.finish().unwrap_or_else(|failure| panic!("cut at the {stage}: {failure:?}"));
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0), "{stage}");
        assert!(!server.path("pid").exists());
    }
}

#[test]
fn a_stop_waits_for_the_workers_of_every_generation() {
    let mut server = start();
    let first = Exchange::upload(server.target());
    server.reload();
    let second = Exchange::stream(server.target());
    server.reload();
    server.wait_reloaded(3);
    server.signal(Signal::SIGINT);
    server.wait_for_log("graceful shutdown triggered");
    first.finish().unwrap();
    second.finish().unwrap();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_brutal_reload_during_a_graceful_one_cuts_what_that_would_have_waited_for() {
    let server = start();
    let old = Exchange::stream(server.target());
    server.reload();
    server.signal(Signal::SIGTERM);
    server.wait_reloaded(3);
    let cut = old.finish().err();
    assert!(matches!(cut, Some(Failure::Truncated | Failure::Reset)), "{cut:?}");
}

#[test]
fn a_second_master_leaves_the_first_unharmed() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let before = (server.workers(), std::fs::read_to_string(server.path("pid")).unwrap());
    let pidfile = format!("--pidfile={}", server.path("pid").display());
    for _ in 0..3 {
        let mut second = Server::app().args(["--master", &pidfile]).spawn();
        assert_eq!(second.wait_exit(LIMIT).code(), Some(1));
        second.wait_for_log(&server.pid().to_string());
        assert!(!second.log().lines().iter().any(|line| line.contains("spawned")), "it started nothing");
    }
    assert_eq!((server.workers(), std::fs::read_to_string(server.path("pid")).unwrap()), before);
    server.reload();
    let mut second = Server::app().args(["--master", &pidfile]).spawn();
    assert_eq!(second.wait_exit(LIMIT).code(), Some(1), "the claim survives a reload");
    load.stop().assert_nothing_lost();
}
