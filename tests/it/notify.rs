//! What the server tells its service manager, datagram by datagram. The file systemd_notify
//! has a real one.

use std::collections::BTreeSet;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::notify::{Datagram, NotifySocket, value};
use crate::support::processes::{self, kill};
use crate::support::server::Builder;
use crate::support::{LIMIT, Server, eventually};

/// The variables that are between the master and its manager.
const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// A socket and a server that is told of it. The directory has to outlive the server.
fn notified(builder: Builder) -> (TempDir, NotifySocket, Builder) {
    let directory = tempfile::tempdir().expect("a directory");
    let socket = NotifySocket::at(&directory.path().join("notify"));
    let builder = builder.env("NOTIFY_SOCKET", &socket.name);
    (directory, socket, builder)
}

fn two_workers() -> Builder {
    Server::app().args(["--master", "--processes=2", "--pidfile=pid"])
}

/// The seconds that are asked for.
fn extension(datagram: &Datagram) -> Option<u64> {
    let microseconds: u64 = value(datagram, "EXTEND_TIMEOUT_USEC")?.parse().expect("a number");
    Some(microseconds.div_ceil(1_000_000))
}

/// The texts of the status, each once.
fn statuses(datagrams: &[Datagram]) -> Vec<&str> {
    datagrams.iter().filter_map(|datagram| value(datagram, "STATUS")).collect()
}

fn has(datagrams: &[Datagram], line: &str) -> bool {
    datagrams.iter().flatten().any(|it| it == line)
}

#[test]
fn start_reload_and_stop_are_told_in_their_order() {
    let (_directory, manager, builder) = notified(two_workers().arg("--release=blue"));
    let mut server = builder.spawn();
    let started = manager.until("READY=");
    assert_eq!(statuses(&started)[0], "starting: loading the application");
    assert_eq!(extension(&started[0]), Some(65), "{started:?}");
    let (ready, before) = started.split_last().unwrap();
    assert!(
        before.iter().all(|it| it
            .iter()
            .all(|line| line.starts_with("STATUS=starting: ") || line.starts_with("EXTEND_"))),
        "{before:?}"
    );
    let main = format!("MAINPID={}", server.pid());
    assert_eq!(*ready, ["READY=1", &main, "STATUS=generation 1 serves with 2 workers, release blue"]);
    // Ready means that a client is answered.
    assert_eq!(server.get("/").status, 200);

    let asked = Instant::now();
    server.signal(Signal::SIGHUP);
    let reload = manager.until("READY=");
    let [first, ..] = &reload[..] else { panic!("nothing") };
    assert_eq!(first[0], "RELOADING=1");
    assert!(first[1].starts_with("MONOTONIC_USEC="), "{first:?}");
    assert_eq!(
        first[2],
        "STATUS=reload 1: preparing generation 2; generation 1 serves with 2 workers, release blue"
    );
    assert_eq!(extension(first), Some(65));
    // The clock that `Instant` reads, too: not of an earlier request.
    let uptime: f64 = fs::read_to_string("/proc/uptime").unwrap().split(' ').next().unwrap().parse().unwrap();
    let told: f64 = value(first, "MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((uptime - told / 1e6) < asked.elapsed().as_secs_f64() + 1.0, "{uptime} {told}");
    let texts = statuses(&reload);
    assert!(
        texts.iter().any(|it| it.starts_with("reload 1: generation 2 is prepared, new workers 1/2")),
        "{texts:?}"
    );
    let last = reload.last().unwrap();
    assert_eq!(last[..2], ["READY=1".to_owned(), main]);
    assert!(last[2].starts_with("STATUS=generation 2 serves with 2 workers, release blue"), "{last:?}");
    assert!(!has(&reload[1..], "RELOADING=1"), "{reload:?}");

    server.signal(Signal::SIGINT);
    let stop = manager.until("STOPPING=");
    assert_eq!(stop.last().unwrap()[1], "STATUS=stopping", "before anybody is told");
    let told = manager.until("STATUS=stopping: 2 workers finish their requests");
    assert_eq!(extension(told.last().unwrap()), Some(65), "worker-reload-mercy and a margin");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    let rest: Vec<Datagram> = std::iter::from_fn(|| manager.within(Duration::from_millis(1))).collect();
    assert!(!has(&rest, "STOPPING=1") && !has(&rest, "READY=1"), "{rest:?}");
}

#[test]
fn a_refused_reload_ends_with_readiness_and_its_reason() {
    let (_directory, manager, builder) = notified(two_workers());
    let server = builder.start();
    manager.until("READY=");
    server.set_settings(json!({ "load": "fail" }));
    let output = server.command(["--reload", "pid", "--wait=60"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let told = manager.until("READY=");
    assert_eq!(told[0][0], "RELOADING=1");
    let status = statuses(&told).last().copied().unwrap().to_owned();
    assert!(status.starts_with("reload 1 refused: no application: "), "{status}");
    assert!(status.ends_with("generation 1 serves on with 2 workers"), "{status}");
    server.set_settings(json!({}));
    server.reload();
    let told = manager.until("READY=");
    assert!(!statuses(&told).last().unwrap().contains("refused"), "{told:?}");
}

#[test]
fn a_reload_that_replaces_another_is_announced_again() {
    let (_directory, manager, builder) = notified(two_workers());
    let server = builder.start();
    manager.until("READY=");
    let gate = server.gate();
    server.set_settings(json!({ "load_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    manager.until("RELOADING=");
    let _waiting = gate.wait();
    server.set_settings(json!({}));
    server.signal(Signal::SIGHUP);
    let again = manager.until("RELOADING=");
    assert!(statuses(&again).last().unwrap().starts_with("reload 2: "), "{again:?}");
    let done = manager.until("READY=");
    assert!(statuses(&done).last().unwrap().starts_with("generation 3 serves"), "{done:?}");
}

#[test]
fn no_other_process_knows_of_the_manager() {
    let name = format!("appserver-test-notify-{}", std::process::id());
    let manager = NotifySocket::abstract_name(&name);
    let builder = two_workers().env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", "30000000");
    let server = builder.start();
    for generation in 1..=3 {
        manager.until("READY=");
        for child in server.children() {
            let environment = fs::read(format!("/proc/{child}/environ")).expect("it runs");
            let text = String::from_utf8_lossy(&environment);
            assert!(VARIABLES.iter().all(|name| !text.contains(&format!("{name}="))), "{child}: {text}");
        }
        let known = server.get("/info").json()["env"].to_string();
        assert!(VARIABLES.iter().all(|name| !known.contains(name)), "{known}");
        if generation < 3 {
            server.reload();
        }
    }
}

#[test]
fn a_second_master_on_the_same_sockets_does_not_speak_for_the_service() {
    let (_directory, manager, builder) = notified(two_workers().with_fifo());
    let server = builder.start();
    manager.until("READY=");
    server.fifo("f");
    let line = server.wait_for_log("new master copy spawned with pid ");
    let copy: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    server.wait_for_log(&format!("pid {copy}] INFO ready: "));
    assert_eq!(manager.within(Duration::from_millis(1)), None);
    kill(copy, Signal::SIGINT);
    eventually("the copy is gone", LIMIT, || (!processes::is_alive(copy)).then_some(()));
    assert_eq!(manager.within(Duration::from_millis(1)), None);
}

#[test]
fn without_a_manager_or_with_an_impossible_one_the_server_serves() {
    for name in ["relative", "/no/such/directory/socket", "vsock:2:1"] {
        let server = two_workers().env("NOTIFY_SOCKET", name).start();
        server.wait_for_log("the service manager cannot be told anything");
        assert_eq!(server.get("/").status, 200);
    }
}

#[test]
fn an_idle_server_says_nothing_and_does_not_wake_up() {
    let (_directory, manager, builder) = notified(two_workers());
    let server = builder.start();
    manager.until("READY=");
    let wakes = || {
        let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.expect("the kernel counts them").to_owned()
    };
    // What comes with the start may take a while on a busy machine; something regular never ends.
    eventually("the master sleeps for a second", LIMIT, || {
        let before = wakes();
        (manager.within(Duration::from_secs(1)).is_none() && wakes() == before).then_some(())
    });
}

#[test]
fn signs_of_life_come_with_readiness_and_go_on_through_a_reload() {
    let (_directory, manager, builder) = notified(two_workers().env("WATCHDOG_USEC", "1500000"));
    let server = builder.start();
    manager.until("READY=");
    assert_eq!(manager.next(), ["WATCHDOG=1"], "at once");
    // Longest silence of the master, in which it reloads an application that takes longer than the period.
    let mut longest = Duration::ZERO;
    let mut last = Instant::now();
    let mut hear = |manager: &NotifySocket| {
        let datagram = manager.next();
        if has(std::slice::from_ref(&datagram), "WATCHDOG=1") {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
        datagram
    };
    server.set_settings(json!({ "load_ms": 2500 }));
    server.signal(Signal::SIGHUP);
    while !has(&[hear(&manager)], "READY=1") {}
    for _ in 0..3 {
        while !has(&[hear(&manager)], "WATCHDOG=1") {}
    }
    assert!(longest < Duration::from_millis(1500), "{longest:?}");
}

#[test]
fn workers_that_are_all_stuck_give_no_sign_of_life_and_one_that_is_not_suffices() {
    let (_directory, manager, builder) = notified(two_workers().env("WATCHDOG_USEC", "1500000"));
    let server = builder.start();
    manager.until("READY=");
    let workers = server.wait_workers("two workers", |workers| workers.len() == 2);
    kill(workers[0].pid, Signal::SIGSTOP);
    for _ in 0..4 {
        manager.until("WATCHDOG=");
    }
    kill(workers[1].pid, Signal::SIGSTOP);
    server.wait_for_log(" gives no sign of life (watchdog)");
    server.wait_for_log("WATCHDOG: -- stack> none: the process is stopped");
    eventually("the signs end", LIMIT, || {
        manager.within(Duration::from_millis(1600)).is_none().then_some(())
    });
    kill(workers[1].pid, Signal::SIGCONT);
    manager.until("WATCHDOG=");
    kill(workers[0].pid, Signal::SIGCONT);
}

#[test]
fn a_watchdog_of_another_process_is_not_answered() {
    let (_directory, manager, builder) = notified(two_workers());
    let server = builder.env("WATCHDOG_USEC", "300000").env("WATCHDOG_PID", "1").start();
    manager.until("READY=");
    let rest: BTreeSet<String> =
        std::iter::from_fn(|| manager.within(Duration::from_millis(600))).flatten().collect();
    assert!(!rest.contains("WATCHDOG=1"), "{rest:?}");
    drop(server);
}

#[test]
fn a_start_that_fails_tells_why() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = format!("--http={}", taken.local_addr().expect("it is bound"));
    let failing = json!({ "load": "fail" });
    let cases: [(&[&str], _, Option<&str>, &str); 4] = [
        (&[&address], json!({}), Some("98"), "cannot bind "),
        (&["--http=127.0.0.1:0", "--chdir=no/such/directory"], json!({}), Some("2"), "cannot enter "),
        (&["--http=127.0.0.1:0", "--processes=many"], json!({}), None, "processes"),
        (&["--http=127.0.0.1:0"], failing, None, "told to fail"),
    ];
    for (args, settings, errno, text) in cases {
        let (_directory, manager, builder) = notified(Server::app().args(args));
        let mut server = builder.without_listener().settings(settings).spawn();
        assert_ne!(server.wait_exit(LIMIT).code(), Some(0));
        let told = manager.until("STATUS=cannot start: ");
        let last = told.last().unwrap();
        assert!(value(last, "STATUS").unwrap().contains(text), "{last:?}");
        assert_eq!(value(last, "ERRNO"), errno, "{last:?}");
        assert!(!has(&told, "READY=1"), "{told:?}");
    }
}

#[test]
fn a_daemon_tells_who_it_is_and_keeps_the_watchdog() {
    let (_directory, manager, builder) = notified(two_workers());
    // As systemd does it: for the process that is started.
    let mut shell = builder
        .arg("--daemonize2=log")
        .through(["sh", "-c", "WATCHDOG_USEC=1500000 WATCHDOG_PID=$$ exec \"$@\"", "sh"])
        .spawn();
    assert_eq!(shell.wait_exit(LIMIT).signal(), None);
    let daemon = Daemon::of(&shell, "pid");
    let main = format!("MAINPID={}", daemon.pid());
    assert_eq!(manager.next(), std::slice::from_ref(&main), "before anything else");
    for _ in 0..2 {
        let told = manager.until("READY=");
        assert_eq!(told.last().unwrap()[1], main);
        manager.until("WATCHDOG=");
        manager.until("WATCHDOG=");
        daemon.signal(Signal::SIGHUP);
    }
    manager.until("READY=");
    daemon.signal(Signal::SIGINT);
    manager.until("STOPPING=");
    daemon.wait_exit();
}
