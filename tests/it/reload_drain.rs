//! `reload-mode = drain`: two releases never serve at once, and nothing is lost in between.

use std::process::Output;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::processes::is_alive;
use crate::support::server::Builder;
use crate::support::{Connection, Exchange, Failure, LIMIT, Load, LoadSpec, Server, eventually};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn builder() -> Builder {
    Server::app().copied().args([
        "--master",
        "--processes=2",
        "--threads=8",
        "--reload-mode=drain",
        "--pidfile=pid",
    ])
}

fn wait_draining(server: &Server) {
    server.wait_for_log("its workers start when the old ones have left (reload-mode = drain)");
}

#[test]
fn the_new_release_starts_when_the_last_request_of_the_old_one_is_finished() {
    let server = builder().start();
    let exchange = Exchange::stream(server.target());
    let old = server.workers();
    server.set_settings(json!({ "version": "v2" }));
    server.signal(Signal::SIGHUP);
    wait_draining(&server);
    server.wait_workers("the worker without a request has left", |workers| workers.len() == 1);
    eventually("the other one has heard it, too", LIMIT, || {
        let status = server.command(["--status", "pid"]).stdout;
        String::from_utf8_lossy(&status).contains(") draining, ").then_some(())
    });
    // Accepted by nobody yet, lost by nobody either.
    let mut early = server.connect();
    early.send(GET).unwrap();
    assert!(server.workers().iter().all(|it| old.contains(it)), "a new one runs beside an old one");
    exchange.finish().unwrap();
    assert_eq!(early.receive(false).unwrap().text(), "hello v2\n");
    server.wait_reloaded(2);
    let lines = server.log().lines();
    let at = |text: &str| lines.iter().position(|line| line.contains(text)).expect(text);
    let old_is_gone = lines.iter().rposition(|line| line.contains("generation 1) buried")).unwrap();
    let first_new = lines.iter().rposition(|line| line.contains("spawned appserver worker 1")).unwrap();
    assert!(at("gracefully killing") < old_is_gone && old_is_gone < first_new, "{lines:#?}");
    assert_eq!(server.get("/info").json()["reloads"], 1);
}

#[test]
fn nothing_is_lost_in_reload_after_reload() {
    let server = builder().start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    for generation in 2..=11 {
        load.wait_for(20);
        server.reload();
        server.wait_reloaded(generation);
    }
    load.stop().assert_nothing_lost();
}

#[test]
fn who_comes_between_two_releases_does_not_wait_for_the_application_to_load() {
    let server = builder().start();
    // Long enough to tell waiting for it from waiting on a busy machine.
    let loading = Duration::from_secs(4);
    server.set_settings(json!({ "version": "v2", "load_ms": 4000 }));
    let load = Load::start(server.target(), &LoadSpec::gets());
    load.wait_for(20);
    server.reload();
    load.wait_for(20);
    let report = load.stop();
    report.assert_nothing_lost();
    assert!(report.longest < loading, "{report:#?}");
}

/// Connections between two requests, some with half a head.
fn idle_connections(server: &Server, count: usize) -> Vec<(Connection, &'static [u8])> {
    let half = GET.split_at(GET.len() / 2);
    let open = |number: usize| {
        let mut connection = server.connect();
        connection.send(GET).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n");
        match number % 2 {
            0 => (connection, GET),
            _ => {
                connection.send(half.0).unwrap();
                (connection, half.1)
            }
        }
    };
    (0..count).map(open).collect()
}

fn all_answer(connections: Vec<(Connection, &'static [u8])>, text: &str) {
    for (at, (mut connection, rest)) in connections.into_iter().enumerate() {
        connection.send(rest).unwrap_or_else(|failure| panic!("connection {at}: {failure:?}"));
        let answer = connection.receive(false);
        let answer = answer.unwrap_or_else(|failure| panic!("connection {at}: {failure:?}"));
        assert_eq!(answer.text(), text, "connection {at}");
    }
}

#[test]
fn more_idle_connections_than_the_queue_holds_stay_open() {
    let server = builder().start();
    // The queue holds some 280 with the kernel's usual buffer (net.core.wmem_default).
    let connections = idle_connections(&server, 900);
    let old = server.workers();
    server.set_settings(json!({ "version": "v2" }));
    let begin = Instant::now();
    server.reload();
    assert!(begin.elapsed() < Duration::from_secs(20), "it waited for their patience: {:?}", begin.elapsed());
    server.wait_workers("the old workers are gone", |workers| !workers.iter().any(|it| old.contains(it)));
    all_answer(connections, "hello v2\n");
}

#[test]
fn code_that_does_not_load_is_refused_while_the_old_serves() {
    let server = builder().start();
    let before = server.workers();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    server.set_settings(json!({ "load": "fail" }));
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reload 1 refused: ");
    assert_eq!(server.workers(), before);
    load.stop().assert_nothing_lost();
}

fn reload_and_wait(server: &Server) -> (Output, String) {
    let output = server.command(["--reload", "pid", "--wait=25s"]);
    let told = [&output.stdout[..], &output.stderr[..]].concat();
    (output, String::from_utf8(told).unwrap())
}

#[test]
fn who_waits_hears_what_is_waited_for_and_how_it_ends() {
    let server = builder().start();
    let (output, told) = reload_and_wait(&server);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("reload 1: generation 2 is prepared, "), "{told}");
    assert!(told.contains("reload 1 complete: generation 2 serves, draining "), "{told}");
}

#[test]
fn new_workers_that_do_not_start_are_tried_again_until_a_reload_mends_it() {
    let server = builder().start();
    let connections = idle_connections(&server, 20);
    server.set_settings(json!({ "worker_start": "crash" }));
    let (output, told) = reload_and_wait(&server);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("the old workers have left and the new ones do not start: worker "), "{told}");
    assert!(told.contains("signal 6 (SIGABRT)"), "{told}");
    server.wait_for_log("trying on, until they do or another reload replaces this one");
    let mut early = server.connect();
    early.send(GET).unwrap();
    server.set_settings(json!({ "version": "v3" }));
    let (output, told) = reload_and_wait(&server);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert_eq!(early.receive(false).unwrap().text(), "hello v3\n");
    all_answer(connections, "hello v3\n");
}

#[test]
fn a_master_that_cannot_be_replaced_serves_on_with_the_new_release() {
    let server = builder().start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "load_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    let zygote = gate.wait();
    std::fs::rename(server.program(), server.path("elsewhere")).unwrap();
    drop(zygote);
    server.wait_for_log("the old master supervises generation 2");
    server.wait_reloaded(2);
    assert_eq!(server.get("/").text(), "hello v2\n");
    std::fs::rename(server.path("elsewhere"), server.program()).unwrap();
    server.set_settings(json!({ "version": "v3" }));
    server.reload();
    server.wait_reloaded(3);
    assert_eq!(server.get("/").text(), "hello v3\n");
    load.stop().assert_nothing_lost();
}

#[test]
fn the_new_release_waits_for_the_whole_mercy_of_the_old_one() {
    let server = builder().arg("--worker-reload-mercy=1s").start();
    let exchange = Exchange::stream(server.target());
    server.set_settings(json!({ "version": "v2" }));
    let begin = Instant::now();
    server.reload();
    assert!(begin.elapsed() >= Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(server.get("/").text(), "hello v2\n");
    let pid = exchange.pid();
    let cut = exchange.finish().err();
    assert!(matches!(cut, Some(Failure::Truncated | Failure::Reset)), "{cut:?}");
    eventually("the old worker is gone", LIMIT, || (!is_alive(pid)).then_some(()));
}

#[test]
fn a_stop_while_the_old_workers_leave_starts_nobody_and_cuts_nobody() {
    let mut server = builder().start();
    let exchange = Exchange::stream(server.target());
    server.signal(Signal::SIGHUP);
    wait_draining(&server);
    server.wait_for_log("gracefully (RE)spawned appserver master process");
    let mark = server.log().mark();
    server.signal(Signal::SIGINT);
    server.wait_for_log_after(mark, "graceful shutdown triggered");
    exchange.finish().unwrap();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    let spawned = |line: &&String| line.contains("spawned appserver worker");
    assert_eq!(server.log().lines().iter().filter(spawned).count(), 2);
}
