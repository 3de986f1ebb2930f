//! A reload loses nothing and stops nothing.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::server::copy_program;
use crate::support::{LIMIT, Load, LoadSpec, Server, Target, processes};

fn start(processes: u32) -> Server {
    Server::app().args(["--master", &format!("--processes={processes}"), "--threads=8"]).start()
}

#[test]
fn twenty_reloads_under_load_lose_no_request() {
    let server = start(2);
    let master = server.pid();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    load.wait_for(50);
    let mut seen: BTreeSet<u32> = server.workers().iter().map(|worker| worker.pid).collect();
    for generation in 2..=21 {
        server.reload();
        server.wait_reloaded(generation);
        load.wait_for(20);
        let fresh: BTreeSet<u32> = server
            .wait_workers("the old workers are gone", |workers| {
                workers.len() == 2 && workers.iter().all(|worker| !seen.contains(&worker.pid))
            })
            .iter()
            .map(|worker| worker.pid)
            .collect();
        seen.extend(fresh);
    }
    load.stop().assert_nothing_lost();
    assert!(processes::is_alive(master));
}

#[test]
fn a_reload_leaks_no_descriptor_and_no_process() {
    let server = start(2);
    let (before, children) = (server.descriptor_kinds(), server.children().len());
    for generation in 2..=6 {
        server.reload();
        server.wait_reloaded(generation);
    }
    crate::support::eventually("as many children as before", LIMIT, || {
        (server.children().len() == children).then_some(())
    });
    // The channel of the last old worker is closed a moment after its exit.
    crate::support::eventually("the same descriptors as before", LIMIT, || {
        (server.descriptor_kinds() == before).then_some(())
    });
}

#[test]
fn descriptors_leaked_by_the_application_do_not_reach_the_next_generation() {
    let server = start(1);
    let number: u32 = server.get("/openfd?n=77").text().trim().parse().unwrap();
    let worker = server.workers()[0].pid;
    assert!(processes::descriptors(worker).contains_key(&number));
    server.reload();
    let fresh = server.wait_workers("a new worker runs", |all| all.len() == 1 && all[0].pid != worker)[0].pid;
    assert!(!processes::descriptors(fresh).contains_key(&number));
    assert!(!processes::descriptors(server.pid()).contains_key(&number));
}

#[test]
fn a_reload_takes_up_the_new_code() {
    let server = start(2);
    let mut kept = server.client();
    assert_eq!(kept.get("/").unwrap().text(), "hello v1\n");
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    assert_eq!(server.get("/").text(), "hello v2\n");
    let info = server.get("/info").json();
    assert_eq!((&info["generation"], &info["reloads"]), (&json!(2), &json!(1)));
    assert_eq!(kept.get("/").unwrap().text(), "hello v2\n", "an idle connection goes on as well");
}

#[test]
fn a_request_in_flight_is_finished_by_the_worker_that_began_it() {
    let server = start(1);
    let mut slow = server.connect();
    slow.send(b"GET /stream?chunks=20&ms=100&size=10 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    slow.receive_status().unwrap();
    server.set_settings(json!({ "version": "v2" }));
    server.signal(nix::sys::signal::Signal::SIGHUP);
    crate::support::eventually("new code serves next to the slow request", LIMIT, || {
        (server.get("/").text() == "hello v2\n").then_some(())
    });
    let rest = slow.receive_chunks().unwrap();
    assert!(rest.ends_with(b"end\n"), "cut: {}", rest.escape_ascii());
    server.wait_reloaded(2);
}

#[test]
fn the_application_may_ask_for_a_reload() {
    let server = start(1);
    assert_eq!(server.get("/reload").text(), "asked\n");
    server.wait_reloaded(2);
    assert_eq!(server.get("/info").json()["generation"], 2);
}

#[test]
fn a_slow_load_keeps_nobody_waiting() {
    let server = start(1);
    server.set_settings(json!({ "version": "v2", "load_ms": 1500 }));
    let load = Load::start(server.target(), &LoadSpec::gets());
    server.reload();
    let report = load.stop();
    report.assert_nothing_lost();
    assert!(report.longest < Duration::from_millis(1200), "a request waited for the load: {report:?}");
}

#[test]
fn unix_sockets_survive_reloads_too() {
    let server =
        Server::app().on_unix_socket("app.sock").args(["--master", "--processes=2", "--threads=8"]).start();
    let Target::Unix(path) = server.target().clone() else { unreachable!("it listens on a Unix socket") };
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    for generation in 2..=4 {
        server.reload();
        server.wait_reloaded(generation);
    }
    load.stop().assert_nothing_lost();
    assert!(path.exists());
}

#[test]
fn a_new_binary_takes_over_in_the_same_process() {
    let server = Server::app().copied().args(["--master", "--processes=1"]).start();
    let before = server.executable();
    let fresh = server.path("fresh");
    copy_program(server.program(), &fresh);
    std::fs::rename(&fresh, server.program()).unwrap();
    server.reload();
    assert_ne!(server.executable(), before, "the master still runs the old file");
    assert_eq!(server.get("/").text(), "hello v1\n");
}
