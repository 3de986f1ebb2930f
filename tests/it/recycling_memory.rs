//! Workers with too much memory are replaced or killed, and an instance keeps its budget.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::recycling::{self, wait_replaced};
use crate::support::faults::Group;
use crate::support::http::request;
use crate::support::server::{Builder, Worker};
use crate::support::{Exchange, Failure, LIMIT, Load, LoadSpec, Server, eventually, python_app};

/// A server of so many workers that may be replaced at any age, and looks often.
fn builder(processes: usize) -> Builder {
    recycling::builder(processes).arg("--mem-collector-freq=200ms")
}

/// Lets one worker grow; its number.
fn grow(server: &Server, workers: &[Worker], query: &str) -> u32 {
    let answer = server.get(&format!("/grow?{query}"));
    let pid = answer.header("x-pid").and_then(|pid| pid.parse().ok());
    workers.iter().find(|worker| Some(worker.pid) == pid).expect("the application tells its pid").slot
}

#[test]
fn a_worker_that_grows_and_then_idles_is_replaced_and_no_request_is_lost() {
    for (option, query, words) in [
        ("--reload-on-rss=150", "mb=160", " MiB of resident memory in 2 looks (reload-on-rss = 150)"),
        (
            "--reload-on-as=6000",
            "mb=6000&untouched=1",
            " MiB of address space in 2 looks (reload-on-as = 6000)",
        ),
        ("--reload-on-uss=120.5", "mb=130", " MiB of memory of its own in 2 looks (reload-on-uss = 120.5)"),
        ("--reload-on-pss=120.5", "mb=130", " MiB of proportional memory in 2 looks (reload-on-pss = 120.5)"),
    ] {
        let server = builder(2).args(["--memory-samples=2", option]).start();
        let before = server.workers();
        let load = Load::start(server.target(), &LoadSpec::gets());
        load.wait_for(10);
        load.stop().assert_nothing_lost();
        let slot = grow(&server, &before, query);
        let line = server.wait_for_log(&format!("worker {slot} asks to be replaced: "));
        assert!(line.ends_with(words), "{line}");
        wait_replaced(&server, &before, slot);
        server.wait_for_log("exit code 0 (memory)");
    }
}

#[test]
fn a_python_worker_that_leaks_is_replaced_again_and_again_under_load() {
    let code = "
kept = []
def hello():
    kept.append(bytearray(b'x' * (1 << 20)))
    return 'hello'
";
    let server = python_app::server(code)
        .args([
            "--min-worker-lifetime=0",
            "--memory-samples=1",
            "--reload-on-uss=60",
            "--mem-collector-freq=100ms",
        ])
        .start();
    let load =
        Load::start(server.target(), &LoadSpec { pause: Duration::from_millis(10), ..LoadSpec::gets() });
    for slot in [1, 2] {
        for times in [1, 2] {
            let line = format!("respawned {times} times)");
            let respawned = format!("Respawned appserver worker {slot} ");
            eventually("it is replaced", LIMIT, || {
                assert!(server.workers().len() <= 3);
                server
                    .log()
                    .lines()
                    .iter()
                    .any(|it| it.contains(&respawned) && it.ends_with(&line))
                    .then_some(())
            });
        }
    }
    load.stop().assert_nothing_lost();
}

#[test]
fn an_evil_worker_is_killed_in_the_middle_of_a_request_and_the_log_says_which() {
    for (option, query, what) in [
        ("--evil-reload-on-rss=150", "mb=160", "RSS"),
        ("--evil-reload-on-as=6000", "mb=6000&untouched=1", "ADDRESS SPACE"),
    ] {
        let server = builder(1).arg(option).start();
        let before = server.workers();
        let exchange = Exchange::stream(server.target());
        // It may not live to answer.
        let mut growing = server.connect();
        growing.send(&request("GET", &format!("/grow?{query}"), &[], b"")).unwrap();
        let line = server.wait_for_log(&format!("*** EVIL RELOAD ON WORKER 1 {what}: "));
        assert!(line.contains(&format!(" (pid: {}) ***", before[0].pid)), "{line}");
        assert!(line.contains(" requests were in flight, busy for "), "{line}");
        server.wait_for_log(&format!("EVIL RELOAD: process {}: state ", before[0].pid));
        server.wait_for_log("died, killed by signal 9");
        let failure = exchange.finish().err();
        assert!(matches!(failure, Some(Failure::Reset | Failure::Truncated)), "{failure:?}");
        wait_replaced(&server, &before, 1);
        server.signal(Signal::SIGUSR1);
        server.wait_for_log("workers ended: evil-memory 1");
        assert_eq!(server.get("/").status, 200);
    }
}

#[test]
fn over_the_budget_the_largest_worker_alone_is_replaced() {
    let server = builder(3).arg("--memory-budget=400m").start();
    let before = server.workers();
    let load = Load::start(server.target(), &LoadSpec::gets());
    let slot = grow(&server, &before, "mb=450");
    let line = server.wait_for_log(&format!("worker {slot} asks to be replaced: "));
    assert!(line.contains("the most of all") && line.ends_with("(memory-budget = 400.0 MiB)"), "{line}");
    wait_replaced(&server, &before, slot);
    load.wait_for(100);
    load.stop().assert_nothing_lost();
    server.wait_for_log("exit code 0 (memory-budget)");
}

#[test]
fn a_budget_that_cannot_be_kept_is_told_and_then_nobody_is_replaced() {
    let server = builder(2).arg("--memory-budget=1m").start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    let line = server.wait_for_log("memory-budget: ");
    assert!(line.contains("to replace workers does not help"), "{line}");
    assert!(line.contains("the next attempt is in 10 minutes"), "{line}");
    load.stop().assert_nothing_lost();
    let asked = || server.log().lines().iter().filter(|it| it.contains("asks to be replaced")).count();
    let before = asked();
    assert!(before >= 1);
    // Whoever was on the way out has left by the time the log says so.
    let workers = server.wait_workers("two workers", |workers| workers.len() == 2);
    // Requests enough for many more looks of the master.
    let load = Load::start(server.target(), &LoadSpec::gets());
    load.wait_for(500);
    load.stop().assert_nothing_lost();
    assert_eq!((asked(), server.workers()), (before, workers));
}

#[test]
fn a_part_of_the_control_group_is_a_budget() {
    let Some(group) = Group::new("memory", "budget") else { return };
    group.set("memory.limit_in_bytes", "600M");
    let server = builder(2).arg("--memory-budget=50%").through(group.launcher()).start();
    server.wait_for_log("memory limit of the control group: 600 MiB");
    let before = server.workers();
    let load = Load::start(server.target(), &LoadSpec::gets());
    let slot = grow(&server, &before, "mb=350");
    let line = server.wait_for_log(&format!("worker {slot} asks to be replaced: "));
    assert!(line.ends_with("(memory-budget = 300.0 MiB)"), "{line}");
    wait_replaced(&server, &before, slot);
    load.stop().assert_nothing_lost();
}
