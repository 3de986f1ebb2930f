//! Workers are replaced for their limits: one at a time, the successor first, and nobody notices.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::http::request;
use crate::support::log::Mark;
use crate::support::server::{Builder, Worker};
use crate::support::{Connection, LIMIT, Load, LoadSpec, Server, eventually, python_app};

/// A server of so many workers that may be replaced at any age.
pub fn builder(processes: usize) -> Builder {
    Server::app().args(["--master", "--threads=8", "--min-worker-lifetime=0"]).arg(format!("-p{processes}"))
}

/// One more request on a connection that has to stay.
fn go_on(connection: &mut Connection) {
    connection.send(&request("GET", "/pid", &[], b"")).expect("the connection is open");
    let answer = connection.receive(false).expect("there is an answer");
    assert!(answer.status == 200 && !answer.closes(), "{answer:?}");
}

/// Watches until each worker has been replaced `times` times. There are never more than one too many.
fn watch_replacements(server: &Server, processes: usize, times: u32) {
    let mut kept = server.connect();
    let is_last = |slot: usize| {
        let (respawned, count) =
            (format!("Respawned appserver worker {slot} "), format!("respawned {times} times)"));
        server.log().lines().iter().any(|line| line.contains(&respawned) && line.ends_with(&count))
    };
    eventually("each worker has been replaced", LIMIT, || {
        go_on(&mut kept);
        let workers = server.workers();
        assert!(workers.len() <= processes + 1, "{workers:?}");
        (1..=processes).all(is_last).then_some(())
    });
    go_on(&mut kept);
}

/// What the log says that a worker has asked for.
fn wish(server: &Server, mark: Mark) -> String {
    server.wait_for_log_after(mark, " asks to be replaced: ")
}

/// The worker of that number is another one than before, the others are the same, and the old one is gone.
pub fn wait_replaced(server: &Server, before: &[Worker], slot: u32) {
    let is_right = |(new, old): (&Worker, &Worker)| (new == old) == (new.slot != slot);
    server.wait_workers("this worker is another one", |now| {
        now.len() == before.len() && now.iter().zip(before).all(is_right)
    });
}

#[test]
fn under_load_workers_are_replaced_by_count_and_no_client_notices() {
    let server = builder(3).arg("--max-requests=40").start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    watch_replacements(&server, 3, 3);
    load.stop().assert_nothing_lost();
    let line = wish(&server, Mark::START);
    assert!(line.contains(" requests (max-requests = 40)"), "{line}");
    server.wait_for_log("buried after ");
    let is_death = |line: &&String| line.contains("DAMN");
    assert_eq!(server.log().lines().iter().find(is_death), None);
}

#[test]
fn python_workers_are_replaced_by_count_and_no_client_notices() {
    for threads in ["1", "4"] {
        let server = python_app::server("")
            .arg(format!("--threads={threads}"))
            .args(["--min-worker-lifetime=0", "--max-requests=30", "--max-requests-delta=5"])
            .start();
        let load = Load::start(server.target(), &LoadSpec::gets());
        watch_replacements(&server, 2, 2);
        load.stop().assert_nothing_lost();
    }
}

#[test]
fn a_delta_tells_the_limits_of_neighbours_apart() {
    let server = builder(2).args(["--max-requests=5", "--max-requests-delta=7"]).start();
    let load =
        Load::start(server.target(), &LoadSpec { pause: Duration::from_millis(20), ..LoadSpec::gets() });
    let asks = |slot: u32| {
        let line = server.wait_for_log(&format!("worker {slot} asks to be replaced: "));
        let (_, rest) = line.split_once("replaced: ").unwrap();
        rest.split(' ').next().and_then(|figure| figure.parse::<u32>().ok()).unwrap()
    };
    assert_eq!((asks(1), asks(2)), (5, 12));
    load.stop().assert_nothing_lost();
}

#[test]
fn a_worker_that_asks_early_is_replaced_when_it_is_old_enough() {
    let begin = Instant::now();
    let server = Server::app().args(["--master", "--max-requests=1", "--min-worker-lifetime=2s"]).start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    wish(&server, Mark::START);
    server.wait_for_log("respawned 1 times)");
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    load.stop().assert_nothing_lost();
}

#[test]
fn workers_that_have_served_long_enough_are_replaced_under_load() {
    let server = builder(2).args(["--max-worker-lifetime=1s", "--max-worker-lifetime-delta=500ms"]).start();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    watch_replacements(&server, 2, 2);
    server.wait_for_log("worker 1 lifetime reached, it was running for ");
    load.stop().assert_nothing_lost();
}

#[test]
fn lifetimes_that_contradict_each_other_are_refused() {
    for (options, named) in [
        (vec!["--max-worker-lifetime=5"], "min-worker-lifetime, which is 10 s (its default)"),
        (
            vec!["--min-worker-lifetime=1m", "--max-worker-lifetime=1m"],
            "min-worker-lifetime, which is 60 s (command line)",
        ),
    ] {
        let mut server = Server::app().args(options).spawn();
        assert_ne!(server.wait_exit(LIMIT).code(), Some(0));
        let line = server.wait_for_log("max-worker-lifetime = ");
        assert!(line.contains(named), "{line}");
    }
}

#[test]
fn a_successor_that_cannot_start_leaves_the_old_worker_serving() {
    let server = builder(2).args(["--lazy-apps", "--max-requests=10"]).start();
    let before = server.workers();
    server.set_settings(json!({ "load": "fail" }));
    let load = Load::start(server.target(), &LoadSpec::gets());
    let mark = server.log().mark();
    // Several attempts, each later.
    for longest in [0, 100, 200] {
        let is_it = |line: &str| {
            let (_, rest) = line.split_once("the old worker serves on, next try in ").unwrap_or_default();
            let pause = rest.strip_suffix(" ms").and_then(|digits| digits.parse::<u64>().ok());
            pause.is_some_and(|pause| (longest * 3 / 4..=longest).contains(&pause))
        };
        assert!(server.log().wait_for(mark, LIMIT, is_it).is_some(), "no pause of up to {longest} ms");
    }
    let serving = server.workers();
    assert!(before.iter().all(|worker| serving.contains(worker)), "{serving:?}");
    server.set_settings(json!({}));
    let is_old = |worker: &Worker| before.contains(worker);
    server.wait_workers("both are replaced at last", |now| now.len() == 2 && !now.iter().any(is_old));
    load.stop().assert_nothing_lost();
}

const FAILING: &str = r#"
class Gone(Exception):
    class Inner(Exception): pass
Gone.__module__ = Gone.Inner.__module__ = "shop.errors"
def gone(): raise Gone("no such table")
def inner(): raise Gone.Inner("no such\ntable \udc80")
def key(): raise KeyError("colour")
def value(): raise ValueError()
"#;

/// A Python server with these options, and which of the four requests have each of them replaced a worker.
fn replaced_after(options: &[&str]) -> Vec<&'static str> {
    let replaces = |path: &&str| {
        let server = python_app::server(FAILING)
            .args(["--processes=1", "--min-worker-lifetime=0"])
            .args(options.iter().copied())
            .start();
        let before = server.workers();
        assert_eq!(server.get(path).status, 500, "the client has its answer");
        // What the worker asks for comes before what it answers next.
        assert_eq!(server.get("/hello").status, 200);
        server.signal(Signal::SIGUSR1);
        let counters = server.wait_for_log("worker 1 generation 1 requests: ");
        let asked = server.log().lines().iter().any(|line| line.contains(" asks to be replaced: "));
        assert!(asked || counters.contains("exceptions: 1 "), "{counters}");
        if asked {
            wait_replaced(&server, &before, 1);
            assert_eq!(server.get("/hello").status, 200);
        }
        asked
    };
    ["/gone", "/inner", "/key", "/value"].into_iter().filter(replaces).collect()
}

#[test]
fn a_worker_is_replaced_after_the_exceptions_that_are_named() {
    for (options, expected) in [
        (vec![], vec![]),
        (vec!["--reload-on-exception"], vec!["/gone", "/inner", "/key", "/value"]),
        (
            vec!["--reload-on-exception-type=Gone", "--reload-on-exception-type=builtins.ValueError"],
            vec!["/gone", "/value"],
        ),
        (vec!["--reload-on-exception-type=shop.errors.Gone.Inner"], vec!["/inner"]),
        (vec!["--reload-on-exception-value=no such table"], vec!["/gone"]),
        (vec!["--reload-on-exception-value="], vec!["/value"]),
        (
            vec![
                "--reload-on-exception-repr=KeyError('colour')",
                "--reload-on-exception-repr=Gone: no such table",
            ],
            vec!["/gone", "/key"],
        ),
    ] {
        assert_eq!(replaced_after(&options), expected, "{options:?}");
    }
}

#[test]
fn exceptions_of_threads_and_in_the_middle_of_a_response_count_too() {
    let code = r#"
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    def pieces():
        yield b"x" * 100000
        raise KeyError("late")
    return pieces()
"#;
    for threads in ["1", "4"] {
        let server = python_app::server(code)
            .arg(format!("--threads={threads}"))
            .args(["--min-worker-lifetime=0", "--reload-on-exception-type=KeyError"])
            .start();
        let before = server.workers();
        let mark = server.log().mark();
        let mut connection = server.connect();
        connection.send(&request("GET", "/", &[], b"")).unwrap();
        connection.receive_until_cut();
        let line = wish(&server, mark);
        assert!(line.contains("builtins.KeyError (reload-on-exception-type)"), "{line}");
        let slot = before.iter().find(|it| line.contains(&format!("worker {} asks", it.slot))).unwrap().slot;
        wait_replaced(&server, &before, slot);
    }
}

#[test]
fn a_limit_reached_during_a_reload_does_not_hold_it_up() {
    let server = builder(2).arg("--max-requests=10").start();
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "load_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    let zygote = gate.wait();
    let load = Load::start(server.target(), &LoadSpec::gets());
    for slot in [1, 2] {
        server.wait_for_log(&format!("worker {slot} asks to be replaced: "));
    }
    drop(zygote);
    server.wait_reloaded(2);
    watch_replacements(&server, 2, 1);
    load.stop().assert_nothing_lost();
}
