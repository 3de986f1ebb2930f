//! Signals to the master, as uWSGI's operators send them.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Failure, LIMIT, Load, LoadSpec, Server, eventually, processes};

fn start() -> Server {
    Server::app().args(["--master", "--processes=2"]).start()
}

#[test]
fn no_signal_kills_the_master_by_default_action() {
    let server = start();
    for signal in
        [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGALRM, Signal::SIGPIPE, Signal::SIGWINCH, Signal::SIGURG]
    {
        server.signal(signal);
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
    // A reload comes after them in the queue: the master has survived all.
    server.reload();
}

#[test]
fn hup_reloads() {
    let server = start();
    server.signal(Signal::SIGHUP);
    server.wait_for_log("...gracefully killing workers...");
    server.wait_for_log("binary reloading appserver...");
    server.wait_reloaded(2);
    assert_eq!(server.get("/info").json()["generation"], 2);
}

#[test]
fn term_reloads_without_waiting_for_requests() {
    let server = start();
    let mut stuck = server.connect();
    stuck.send(b"GET /stream?chunks=1000&ms=100 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    stuck.receive_status().unwrap();
    server.signal(Signal::SIGTERM);
    server.wait_reloaded(2);
    let cut = stuck.receive_chunks().unwrap_err();
    assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{cut:?}");
}

#[test]
fn quit_takes_over_from_term_when_term_stops() {
    let server = Server::app().args(["--master", "--die-on-term"]).start();
    server.signal(Signal::SIGQUIT);
    server.wait_reloaded(2);
}

#[test]
fn usr1_and_usr2_write_to_the_log() {
    let server = start();
    server.get("/");
    let mark = server.log().mark();
    server.signal(Signal::SIGUSR1);
    server.wait_for_log_after(mark, "requests");
    let mark = server.log().mark();
    server.signal(Signal::SIGUSR2);
    server.wait_for_log_after(mark, "worker 1");
}

#[test]
fn tstp_pauses_and_resumes() {
    let server = start();
    let mark = server.log().mark();
    server.signal(Signal::SIGTSTP);
    server.wait_for_log_after(mark, "PAUSE");
    // The master tells its workers; only the silence that follows shows that they obey.
    let mut waiting = eventually("a request stays unanswered", LIMIT, || {
        let mut connection = server.connect();
        connection.set_timeout(Duration::from_millis(300)).unwrap();
        connection.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        (connection.receive(false).err() == Some(Failure::Timeout)).then_some(connection)
    });
    server.signal(Signal::SIGTSTP);
    waiting.set_timeout(LIMIT).unwrap();
    assert_eq!(waiting.receive(false).unwrap().text(), "hello v1\n");
}

#[test]
fn a_second_hup_during_a_reload_is_not_lost() {
    let server = start();
    let gate = server.gate();
    server.set_settings(serde_json::json!({ "version": "v2", "load_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    let loading = gate.wait();
    server.set_settings(serde_json::json!({ "version": "v3" }));
    server.signal(Signal::SIGHUP);
    drop(loading);
    eventually("the last code serves", LIMIT, || (server.get("/").text() == "hello v3\n").then_some(()));
}

/// A server that takes a while to load its application, at the moment when it does.
fn starting(args: &[&str]) -> Server {
    let builder = Server::app().args(["--master", "--processes=2"]).args(args);
    let server = builder.settings(serde_json::json!({ "load_ms": 400 })).spawn();
    eventually("the zygote is there", LIMIT, || (!server.children().is_empty()).then_some(()));
    server
}

#[test]
fn a_reload_asked_for_during_the_start_comes_after_it() {
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let server = starting(&[]);
        server.signal(signal);
        server.wait_ready();
        server.wait_reloaded(2);
        assert_eq!(server.get("/info").json()["generation"], 2, "{signal}");
    }
}

#[test]
fn a_stop_asked_for_during_the_start_stops_it() {
    for (signal, args) in
        [(Signal::SIGINT, &[] as &[&str]), (Signal::SIGQUIT, &[]), (Signal::SIGTERM, &["--die-on-term"])]
    {
        let mut server = starting(args);
        server.signal(signal);
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0), "{signal}");
        server.wait_for_log("goodbye to appserver.");
    }
}

#[test]
fn signals_during_the_start_do_no_harm() {
    let server = starting(&[]);
    for signal in
        [Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGURG, Signal::SIGWINCH, Signal::SIGALRM, Signal::SIGPIPE]
    {
        server.signal(signal);
    }
    server.wait_ready();
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn no_signal_is_fatal_in_the_first_moments() {
    // Whenever it comes, a signal has its own meaning, never the kernel's: not even between exec and
    // the first line of the log. Before the server has begun at all the kernel's meaning holds.
    for _ in 0..20 {
        let mut server = Server::app().arg("--master").spawn();
        // SIGCHLD is the last one that is caught.
        let caught = || processes::catches(server.pid(), Signal::SIGCHLD).then_some(());
        eventually("the program catches signals", LIMIT, caught);
        for signal in [Signal::SIGALRM, Signal::SIGUSR2, Signal::SIGPIPE, Signal::SIGINT] {
            server.signal(signal);
        }
        let status = server.wait_exit(LIMIT);
        assert_eq!(status.code(), Some(0), "{status}");
    }
}

#[test]
fn a_pause_lasts_over_a_reload_and_ends_when_asked() {
    let server = start();
    server.signal(Signal::SIGTSTP);
    server.wait_for_log("PAUSE");
    server.reload();
    eventually("the new workers are paused, too", LIMIT, || {
        let mut connection = server.connect();
        connection.set_timeout(Duration::from_millis(200)).unwrap();
        connection.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        (connection.receive(false).err() == Some(Failure::Timeout)).then_some(())
    });
    server.signal(Signal::SIGTSTP);
    assert_eq!(server.get("/").text(), "hello v1\n");
}

fn send(worker: crate::support::server::Worker, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker.pid.cast_signed()), signal).unwrap();
}

#[test]
fn a_workers_hup_replaces_it_and_no_request_is_lost() {
    let server = start();
    let victim = server.workers()[0];
    let load = Load::start(server.target(), &LoadSpec::gets());
    load.wait_for(50);
    send(victim, Signal::SIGHUP);
    server.wait_workers("the worker is replaced", |now| now.len() == 2 && !now.contains(&victim));
    load.wait_for(50);
    let report = load.stop();
    assert!(report.failed.is_empty(), "{report:?}");
    let lines = server.log().lines();
    let at = |text: &str| lines.iter().position(|line| line.contains(text));
    // The new one first: there is no moment with a worker less.
    assert!(at("spawned appserver worker 1 (new pid") < at("buried after"), "{lines:#?}");
}

#[test]
fn signals_of_a_terminal_do_not_harm_a_worker() {
    let server = start();
    let workers = server.workers();
    for signal in [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
        Signal::SIGTSTP,
        Signal::SIGALRM,
        Signal::SIGPIPE,
        Signal::SIGWINCH,
    ] {
        workers.iter().for_each(|&worker| send(worker, signal));
    }
    for _ in 0..8 {
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
    assert_eq!(server.workers(), workers);
}

#[test]
fn a_workers_term_lets_it_finish_and_it_is_replaced() {
    let server = Server::app().args(["--master", "--processes=1"]).start();
    let victim = server.workers()[0];
    let mut slow = server.connect();
    slow.send(b"GET /stream?chunks=4&ms=100 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    slow.receive_status().unwrap();
    send(victim, Signal::SIGTERM);
    let body = slow.receive_chunks().unwrap();
    assert!(body.ends_with(b"end\n"), "cut: {}", body.escape_ascii());
    server.wait_workers("the worker is replaced", |now| now.len() == 1 && !now.contains(&victim));
    assert_eq!(server.get("/").text(), "hello v1\n");
}
