//! Processes that die are replaced, and what did not depend on them goes on.

use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::log::Mark;
use crate::support::processes::{is_alive, kill};
use crate::support::server::{Builder, Worker};
use crate::support::{Exchange, Failure, LIMIT, Load, LoadSpec, Server, Target, eventually};

fn single_slots(processes: u32) -> Builder {
    Server::app().args(["--master".to_owned(), format!("--processes={processes}")])
}

fn wait_respawned(server: &Server, mark: Mark, slot: u32) -> Worker {
    server.wait_for_log_after(mark, &format!("Respawned appserver worker {slot} (new pid: "));
    let is_it = |worker: &&Worker| worker.slot == slot;
    *server.wait_workers("it runs", |all| all.iter().filter(is_it).count() == 1).iter().find(is_it).unwrap()
}

#[test]
fn a_killed_worker_is_replaced_and_only_its_own_request_fails() {
    let server = single_slots(2).start();
    let victim = Exchange::stream(server.target());
    let survivor = eventually("the other worker runs a request", LIMIT, || {
        Some(Exchange::stream(server.target())).filter(|other| other.pid() != victim.pid())
    });
    let pid = victim.pid();
    let slot = server.workers().iter().find(|worker| worker.pid == pid).unwrap().slot;
    let mark = server.log().mark();
    kill(pid, Signal::SIGKILL);
    let fresh = wait_respawned(&server, mark, slot);
    assert_ne!(fresh.pid, pid);
    let failure = victim.finish().err();
    assert!(matches!(failure, Some(Failure::Reset | Failure::Truncated)), "{failure:?}");
    survivor.finish().unwrap();
    server.wait_for_log_after(mark, &format!("worker {slot} (pid: {pid}) died, killed by signal 9 :("));
    server.wait_for_log_after(mark, " in flight, the last one begun is POST /echo");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_worker_killed_while_it_serves_is_replaced_at_once() {
    let server = single_slots(2).start();
    let before = server.workers();
    let mark = server.log().mark();
    kill(before[0].pid, Signal::SIGKILL);
    server.wait_for_log_after(mark, "Respawned appserver worker 1 ");
    // A pause would have been told; the bench measures the time.
    assert!(!server.log().lines().iter().any(|line| line.contains("next try in")));
    server.wait_workers("the other is untouched", |all| all.len() == 2 && all[1] == before[1]);
}

#[test]
fn a_worker_killed_while_it_drains_is_not_replaced_and_the_next_reload_works() {
    let server = single_slots(2).start();
    let exchange = Exchange::stream(server.target());
    server.reload();
    server.wait_workers("only the busy old one is left", |workers| workers.len() == 3);
    let load = Load::start(server.target(), &LoadSpec::gets());
    let mark = server.log().mark();
    kill(exchange.pid(), Signal::SIGKILL);
    let buried = format!("(pid: {}, generation 1) buried after ", exchange.pid());
    let buried = server.wait_for_log_after(mark, &buried);
    assert!(buried.ends_with("signal 9 (SIGKILL) (reload)"), "{buried}");
    assert!(exchange.finish().is_err());
    load.wait_for(20);
    server.wait_workers("nobody took its place", |workers| workers.len() == 2);
    server.reload();
    server.wait_reloaded(3);
    load.stop().assert_nothing_lost();
}

#[test]
fn a_killed_zygote_is_replaced_while_its_workers_serve() {
    let server = single_slots(2).start();
    let (zygote, workers) = (server.zygote(), server.workers());
    let load = Load::start(server.target(), &LoadSpec::gets());
    load.wait_for(20);
    kill(zygote, Signal::SIGKILL);
    server.wait_for_log(
        "zygote of generation 1 lost: the zygote ended with signal 9 (SIGKILL); its workers serve on",
    );
    let fresh = eventually("a new zygote", LIMIT, || server.zygotes().into_iter().find(|pid| *pid != zygote));
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    assert_eq!(server.workers(), workers, "the workers are the same");
    let mark = server.log().mark();
    kill(workers[1].pid, Signal::SIGKILL);
    wait_respawned(&server, mark, 2);
    assert_eq!(server.zygotes(), [fresh]);
    server.reload();
    server.wait_reloaded(2);
}

#[test]
fn a_worker_that_dies_while_there_is_no_zygote_is_replaced_by_the_next_one() {
    let server = single_slots(2).start();
    let (zygote, workers) = (server.zygote(), server.workers());
    let gate = server.gate();
    server.set_settings(json!({ "load_gate": gate.path() }));
    kill(zygote, Signal::SIGKILL);
    let loading = gate.wait();
    assert_ne!(loading.pid, zygote);
    let mark = server.log().mark();
    kill(workers[0].pid, Signal::SIGKILL);
    server.wait_for_log_after(mark, "worker 1 ");
    assert_eq!(server.get("/").text(), "hello v1\n", "the other one serves");
    drop(loading);
    wait_respawned(&server, mark, 1);
}

#[test]
fn a_worker_asked_of_a_zygote_that_dies_first_is_asked_of_the_next_one() {
    let server = single_slots(2).start();
    let (zygote, workers) = (server.zygote(), server.workers());
    // Stopped, it takes the order to fork and never carries it out.
    kill(zygote, Signal::SIGSTOP);
    let mark = server.log().mark();
    kill(workers[0].pid, Signal::SIGKILL);
    server.wait_for_log_after(mark, "worker 1 ");
    // What the death asked for is done before the next signal is answered.
    server.signal(Signal::SIGUSR1);
    server.wait_for_log_after(mark, "workers total requests: ");
    kill(zygote, Signal::SIGKILL);
    wait_respawned(&server, mark, 1);
    assert_eq!(server.get("/").text(), "hello v1\n");
    // And it stays: the order that was lost is not held against the new zygote.
    server.reload();
    server.wait_reloaded(2);
}

/// Kills the master with a worker stuck in a request, and starts the next one on the same port.
fn killed_master_leaves_the_port(path: &str) {
    let mut server = single_slots(2).arg("--worker-reload-mercy=1s").start();
    let Target::Tcp(address) = server.target().clone() else { unreachable!("a port") };
    let exchange = Exchange::upload(server.target());
    let mut stuck = server.connect();
    stuck.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
    server.wait_begun(path);
    server.signal(Signal::SIGKILL);
    // Mercy, the second by which the kernel's timer comes after it, and time for a busy machine.
    let status = server.wait_exit(Duration::from_secs(10));
    assert_eq!(status.signal(), Some(9));
    drop((exchange, stuck));
    let mut next = single_slots(1).without_listener().arg(format!("--http={address}")).start();
    next.set_address(address);
    assert_eq!(next.get("/").text(), "hello v1\n");
}

#[test]
fn a_killed_master_takes_a_worker_along_that_computes() {
    killed_master_leaves_the_port("/spin?ms=60000");
}

#[test]
fn a_killed_master_takes_a_worker_along_that_waits() {
    killed_master_leaves_the_port("/sleep?ms=60000");
}

#[test]
fn a_killed_master_takes_everybody_along_in_the_middle_of_a_reload() {
    for stage in ["load_gate", "worker_gate"] {
        let mut server = single_slots(2).arg("--worker-reload-mercy=1s").start();
        let gate = server.gate();
        server.set_settings(json!({ stage: gate.path() }));
        server.signal(Signal::SIGHUP);
        let visitor = gate.wait();
        let children = server.children();
        assert!(children.contains(&visitor.pid) && children.len() >= 4, "{children:?}");
        server.signal(Signal::SIGKILL);
        server.wait_exit(Duration::from_secs(10));
        for child in children {
            assert!(!is_alive(child), "{child} outlived its master ({stage})");
        }
    }
}

#[test]
fn requests_in_flight_are_finished_after_the_master_was_killed() {
    let mut server = single_slots(2).start();
    let (stream, upload) = (Exchange::stream(server.target()), Exchange::upload(server.target()));
    server.signal(Signal::SIGKILL);
    for slot in 1..=2 {
        // By the end of its channel or by the signal that the kernel sends, whichever comes first.
        let worker = format!("worker {slot} pid ");
        let leaves = |line: &str| line.contains(&worker) && line.contains("master") && line.contains("leav");
        assert!(server.log().wait_for(Mark::START, LIMIT, leaves).is_some(), "worker {slot} stays");
    }
    stream.finish().unwrap();
    upload.finish().unwrap();
    server.wait_exit(LIMIT);
}

#[test]
fn workers_that_always_crash_end_the_first_start_after_three_tries() {
    let mut server = single_slots(2).settings(json!({ "worker_start": "crash" })).spawn();
    let code = server.wait_exit(LIMIT).code();
    assert!(code.is_some_and(|code| code != 0), "{code:?}");
    let deaths = |slot: u32| {
        let died = format!("DAMN ! worker {slot} (pid: ");
        server.log().lines().iter().filter(|line| line.contains(&died)).count()
    };
    let worst = deaths(1).max(deaths(2));
    assert_eq!(worst, 3, "tries of the worker that was given up");
    server.wait_for_log("cannot start: worker ");
}

#[test]
fn a_worker_that_keeps_dying_is_throttled_while_the_others_serve() {
    let server = single_slots(2).start();
    let load = Load::start(server.target(), &LoadSpec { post: 1, ..LoadSpec::gets() });
    // Only those that never serve: nothing of the load is ever theirs.
    server.set_settings(json!({ "worker_start": "crash" }));
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    let zygote = server.zygote();
    kill(zygote, Signal::SIGKILL);
    eventually("a zygote whose workers crash", LIMIT, || {
        let zygotes = server.zygotes();
        (zygotes.len() == 1 && zygotes[0] != zygote).then_some(())
    });
    let survivor = server.workers()[1];
    let load = Load::start(server.target(), &LoadSpec { post: 1, ..LoadSpec::gets() });
    kill(server.workers()[0].pid, Signal::SIGKILL);
    for (deaths, most) in [(2, 100), (3, 200), (4, 400), (5, 800)] {
        let line = server.wait_for_log(&format!(
            "worker respawning too fast !!! worker 1 died {deaths} times in a row, next try in "
        ));
        let pause = line.rsplit_once(" in ").and_then(|(_, rest)| rest.strip_suffix(" ms")?.parse().ok());
        assert!(pause.is_some_and(|pause: u64| (most * 3 / 4..=most).contains(&pause)), "{line}");
    }
    load.wait_for(20);
    let report = load.stop();
    // The first victim may have been serving; after it, the crashes touched nobody.
    let lost: u64 = report.failed.values().sum();
    assert!(lost <= 5, "{report:#?}");
    assert_eq!(server.workers(), [survivor]);
    // The new code is mended: the next reload brings the number back.
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    server.wait_workers("two workers", |workers| workers.len() == 2);
    assert_eq!(server.get("/").text(), "hello v2\n");
}

#[test]
fn nobody_is_left_as_a_zombie() {
    let server = single_slots(2).start();
    for _ in 0..3 {
        let workers = server.wait_workers("two workers", |workers| workers.len() == 2);
        let mark = server.log().mark();
        kill(workers[1].pid, Signal::SIGKILL);
        wait_respawned(&server, mark, 2);
        let mark = server.log().mark();
        kill(server.zygote(), Signal::SIGKILL);
        server.wait_for_log_after(mark, "zygote of generation 1 lost");
        eventually("the next zygote", LIMIT, || (server.zygotes().len() == 1).then_some(()));
    }
    eventually("no zombie", LIMIT, || {
        let children = crate::support::processes::list_all(|stat| stat.parent == server.pid());
        (children.len() == 3 && children.iter().all(|stat| !stat.zombie)).then_some(())
    });
}
