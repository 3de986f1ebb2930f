//! Processes that are there and do nothing, as on a frozen disk or in a debugger.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::faults::stop;
use crate::support::processes::{is_alive, kill};
use crate::support::server::Builder;
use crate::support::{LIMIT, Load, LoadSpec, Server, eventually};

fn two_workers() -> Builder {
    Server::app().args(["--master", "--processes=2", "--threads=2"])
}

fn served_twenty_times(server: &Server, version: &str) {
    for _ in 0..20 {
        assert_eq!(server.get("/").text(), format!("hello {version}\n"));
    }
}

#[test]
fn a_stopped_worker_leaves_new_clients_to_the_others_and_a_reload_ends_it_after_the_mercy() {
    let server = two_workers().arg("--worker-reload-mercy=1").start();
    let stopped = server.workers()[0];
    stop(stopped.pid);
    served_twenty_times(&server, "v1");
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    served_twenty_times(&server, "v2");
    let line = server.wait_for_log("NO MERCY !!!");
    assert!(line.contains(&stopped.pid.to_string()), "{line}");
    eventually("it is gone", LIMIT, || (!is_alive(stopped.pid)).then_some(()));
    server.reload();
}

#[test]
fn a_zygote_that_stops_while_it_loads_is_given_up_at_the_boot_deadline() {
    let server = two_workers().arg("--boot-timeout=2s").start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "load_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    let visitor = gate.wait();
    stop(visitor.pid);
    let stopped = visitor.pid;
    drop(visitor);
    let line = server.wait_for_log(" refused: ");
    assert!(line.contains("not loaded within 2 s (boot-timeout)"), "{line}");
    assert_eq!(server.get("/").text(), "hello v1\n");
    eventually("it is gone", LIMIT, || (!is_alive(stopped)).then_some(()));
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    assert_eq!(server.get("/").text(), "hello v2\n");
    load.stop().assert_nothing_lost();
}

#[test]
fn a_zygote_that_stops_later_is_replaced_when_it_does_not_fork() {
    let server = two_workers().arg("--boot-timeout=2s").start();
    let (zygote, workers) = (server.zygote(), server.workers());
    stop(zygote);
    let mark = server.log().mark();
    kill(workers[0].pid, Signal::SIGKILL);
    server.wait_for_log_after(mark, "worker 1 (pid: ");
    served_twenty_times(&server, "v1");
    server.wait_for_log_after(mark, "the zygote of generation 1 does not fork workers");
    server.wait_workers("the worker is replaced", |now| now.len() == 2 && now[0] != workers[0]);
    assert!(!is_alive(zygote));
    server.reload();
}

#[test]
fn workers_of_a_stopped_master_serve_on() {
    let server = two_workers().start();
    let workers = server.workers();
    stop(server.pid());
    kill(workers[0].pid, Signal::SIGKILL);
    eventually("one is dead", LIMIT, || (!is_alive(workers[0].pid)).then_some(()));
    served_twenty_times(&server, "v1");
    server.signal(Signal::SIGHUP);
    server.set_settings(json!({ "version": "v2" }));
    served_twenty_times(&server, "v1");
    // All that it has missed is done.
    server.signal(Signal::SIGCONT);
    server.wait_reloaded(2);
    served_twenty_times(&server, "v2");
}
