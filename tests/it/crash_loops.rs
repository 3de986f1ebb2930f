//! Workers that keep dying: those that live serve on, the others are tried ever more slowly and one at a time.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::faults::Injection;
use crate::support::notify::{NotifySocket, value};
use crate::support::processes::kill;
use crate::support::server::Builder;
use crate::support::{LIMIT, Load, LoadSpec, Server, eventually};

fn workers(count: u32) -> Builder {
    Server::app().args(["--master", "--pidfile=pid"]).arg(format!("--processes={count}"))
}

fn status(server: &Server) -> String {
    String::from_utf8(server.command(["--status", "pid"]).stdout).expect("text")
}

fn wait_status(server: &Server, check: impl Fn(&str) -> bool) -> String {
    eventually("the status says so", LIMIT, || Some(status(server)).filter(|text| check(text)))
}

/// A server of three whose workers load the application themselves, and from now on crash when they do. Two have
/// crashed so often that the breaker is open; the third serves.
fn broken(builder: Builder) -> Server {
    let server = builder.arg("--lazy-apps").start();
    server.set_settings(json!({ "load": "crash" }));
    for worker in &server.workers()[..2] {
        kill(worker.pid, Signal::SIGKILL);
    }
    server.wait_for_log("2 of 3 workers keep dying: from now on they are tried one at a time");
    server
}

#[test]
fn two_that_keep_dying_are_tried_one_at_a_time_while_the_third_serves() {
    let server = broken(workers(3));
    let load = Load::start(server.target(), &LoadSpec::gets());
    server.wait_for_log("worker 2 is tried next, in ");
    server.wait_for_log("worker 1 is tried next, in ");
    let text = wait_status(&server, |text| text.contains("others come first"));
    for slot in [1, 2] {
        let line = text.lines().find(|line| line.starts_with(&format!("worker {slot} is degraded: ")));
        let line = line.unwrap_or_else(|| panic!("{text}"));
        assert!(line.contains(" times in a row, last by crash (SIGABRT"), "{line}");
    }
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    assert_eq!(server.workers().last().map(|it| it.slot), Some(3));
}

#[test]
fn when_the_reason_is_gone_the_next_trial_brings_all_back() {
    let server = broken(workers(3).arg("--forkbomb-delay=1"));
    server.set_settings(json!({ "version": "v2" }));
    server.wait_for_log(" stays alive: the others are started again");
    server.wait_workers("all three", |workers| workers.len() == 3);
    wait_status(&server, |text| !text.contains("degraded"));
}

#[test]
fn a_reload_to_mended_code_waits_for_nothing() {
    let server = broken(workers(3));
    server.set_settings(json!({ "version": "v2" }));
    let mark = server.log().mark();
    server.signal(Signal::SIGHUP);
    server.wait_for_log_after(mark, "workers that kept dying are tried again, all at once");
    server.wait_for_log_after(mark, "complete: generation 2 serves with 3 workers");
    assert_eq!(server.get("/").text(), "hello v2\n");
    wait_status(&server, |text| !text.contains("degraded"));
}

#[test]
fn pauses_grow_up_to_the_longest_that_is_wanted() {
    let server = broken(workers(3).arg("--forkbomb-delay=200ms"));
    let longest = |line: &str| {
        let pause =
            line.rsplit_once(" in ").and_then(|(_, rest)| rest.strip_suffix(" ms")?.parse::<u64>().ok());
        line.contains("too fast !!!").then_some(pause).flatten()
    };
    eventually("many tries", LIMIT, || {
        let pauses: Vec<u64> = server.log().lines().iter().filter_map(|line| longest(line)).collect();
        assert!(pauses.iter().all(|pause| *pause <= 200), "{pauses:?}");
        (pauses.len() >= 10).then_some(())
    });
    server.set_settings(json!({}));
    server.wait_workers("all three", |workers| workers.len() == 3);
}

#[test]
fn the_service_manager_is_told_what_is_degraded() {
    let directory = tempfile::tempdir().unwrap();
    let manager = NotifySocket::at(&directory.path().join("notify"));
    let server = broken(workers(3).env("NOTIFY_SOCKET", &manager.name));
    let told = manager.until("STATUS=generation 1 serves with 1 of 3 workers; degraded: ");
    let text = told.last().and_then(|datagram| value(datagram, "STATUS")).unwrap();
    assert!(
        text.contains("degraded: worker ") && text.contains("cannot be kept up (crash (SIGABRT"),
        "{text}"
    );
    server.set_settings(json!({}));
    server.signal(Signal::SIGHUP);
    manager.until("STATUS=generation 2 serves with 3 workers");
    drop(server);
}

#[test]
fn a_slot_whose_worker_cannot_be_forked_is_degraded_until_it_can() {
    let server = workers(2).start();
    let forks = "clone,clone3,fork,vfork";
    let Some(injection) = Injection::attach(server.zygote(), forks, &format!("{forks}:error=ENOMEM")) else {
        return;
    };
    kill(server.workers()[0].pid, Signal::SIGKILL);
    let text = wait_status(&server, |text| text.contains("worker 1 is degraded: it failed "));
    let reason = "last by fork-failed: it could not be forked: Cannot allocate memory (os error 12); ";
    assert!(text.contains(reason), "{text}");
    assert!(text.contains("fork-failed "), "{text}");
    assert_eq!(server.get("/").text(), "hello v1\n", "the other one serves");
    injection.end();
    server.wait_workers("both", |workers| workers.len() == 2);
    wait_status(&server, |text| !text.contains("degraded"));
}

#[test]
fn a_server_that_is_to_die_without_workers_does() {
    let mut server = workers(1).args(["--lazy-apps", "--die-on-no-workers"]).start();
    server.set_settings(json!({ "load": "crash" }));
    kill(server.workers()[0].pid, Signal::SIGKILL);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("no worker is left, and those that are started keep dying (die-on-no-workers)");
}

#[test]
fn workers_that_are_killed_from_outside_all_come_back() {
    let server = workers(4).start();
    for _ in 0..4 {
        // Whoever has just been forked included; a pid of one that is gone meanwhile is no error here.
        for worker in server.workers() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(worker.pid).unwrap());
            let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
        }
    }
    let back = |workers: &[_]| workers.len() == 4;
    server.wait_workers("all four", back);
    wait_status(&server, |text| !text.contains("degraded"));
    assert!(server.client().get("/").is_ok());
}
