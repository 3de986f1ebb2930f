//! As process 1 of a container: every signal has its meaning, orphans are collected and change nothing.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::container::{Container, LAUNCHER, possible};
use crate::support::server::Builder;
use crate::support::{Failure, LIMIT, Load, LoadSpec, Server, eventually};

fn builder() -> Builder {
    Server::app().args(["--master", "--processes=2", "--threads=4", "--pidfile=pid"])
}

#[test]
fn each_of_the_stop_signals_stops_it_and_requests_are_finished() {
    if !possible() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut container = Container::start(builder());
        container.server.wait_for_log("process 1 of a container: SIGTERM and SIGQUIT stop it");
        container.server.wait_for_log("stop: kill -INT 1 or kill -TERM");
        let mut slow = container.server.in_flight(300);
        container.signal(signal);
        let body = slow.receive_chunks().unwrap();
        assert!(body.ends_with(b"end\n"), "{signal}: cut: {}", body.escape_ascii());
        assert_eq!(container.server.wait_exit(LIMIT).code(), Some(0), "{signal}");
        container.server.wait_for_log("goodbye to appserver.");
    }
}

#[test]
fn die_on_term_has_the_last_word() {
    if !possible() {
        return;
    }
    let cases = [
        ("--die-on-term=false", "SIGTERM reloads it (die-on-term = false)", Signal::SIGTERM),
        ("--die-on-term", "SIGTERM stops it (die-on-term)", Signal::SIGQUIT),
    ];
    for (option, words, brutal) in cases {
        let container = Container::start(builder().arg(option));
        container.server.wait_for_log(&format!("process 1 of a container: {words}"));
        let mut slow = container.server.in_flight(60_000);
        container.signal(brutal);
        container.server.wait_reloaded(2);
        let cut = slow.receive_chunks().unwrap_err();
        assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{cut:?}");
    }
}

#[test]
fn a_reload_keeps_number_1_and_its_signals_and_loses_nothing() {
    if !possible() {
        return;
    }
    let mut container = Container::start(builder());
    let load = Load::start(container.server.target(), &LoadSpec::all_kinds());
    for _ in 0..3 {
        load.wait_for(50);
        container.reload();
    }
    load.wait_for(50);
    load.stop().assert_nothing_lost();
    assert!(container.status("NSpid:").ends_with("\t1"), "{}", container.status("NSpid:"));
    container.server.wait_for_log("gracefully (RE)spawned appserver master process (pid: 1)");
    let program = container.server.program().to_str().unwrap();
    let pidfile = container.server.path("pid");
    let asked = container.execute(&[program, "--status", pidfile.to_str().unwrap()]);
    assert!(
        String::from_utf8_lossy(&asked.stdout).starts_with("appserver 1 is running: generation 4"),
        "{asked:?}"
    );
    container.signal(Signal::SIGTERM);
    assert_eq!(container.server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_stop_while_the_application_is_loaded_ends_it() {
    if !possible() {
        return;
    }
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let mut container = Container::spawn(builder().settings(json!({ "load": "hang" })));
        eventually("there is a zygote", LIMIT, || (!container.children().is_empty()).then_some(()));
        container.signal(signal);
        assert_eq!(container.server.wait_exit(LIMIT).code(), Some(0), "{signal}");
    }
}

#[test]
fn a_stop_from_its_first_moments_on_ends_it() {
    if !possible() {
        return;
    }
    for _ in 0..10 {
        // As soon as it catches signals, wherever it is by then.
        let mut container = Container::spawn(builder());
        container.signal(Signal::SIGTERM);
        assert_eq!(container.server.wait_exit(LIMIT).code(), Some(0));
    }
}

#[test]
fn orphans_are_collected_whatever_they_end_with_and_change_nothing() {
    if !possible() {
        return;
    }
    let mut container = Container::start(builder());
    let serving = || container.children().iter().map(|stat| stat.pid).collect::<Vec<_>>();
    let before = serving();
    assert_eq!(before.len(), 3, "a zygote and two workers");
    // Each has no parent but process 1 by the time it ends: with every exit code there is, and by signals.
    let script = "i=0; while [ $i -lt 256 ]; do (sh -c \"exit $i\" &); i=$((i+1)); done; \
                  for s in KILL TERM SEGV HUP; do (sh -c \"kill -$s \\$\\$\" &); done";
    let load = Load::start(container.server.target(), &LoadSpec::all_kinds());
    for _ in 0..2 {
        let done = container.execute(&["sh", "-c", script]);
        assert!(done.status.success(), "{done:?}");
    }
    eventually("all orphans are collected", LIMIT, || (serving() == before).then_some(()));
    load.stop().assert_nothing_lost();
    let lines = container.server.log().lines();
    let disturbed = |line: &&String| {
        ["DAMN", "WARN", "ERROR"].iter().any(|it| line.contains(it))
            && !line.contains("running appserver as root")
    };
    assert_eq!(lines.iter().find(disturbed), None);
    container.reload();
    container.signal(Signal::SIGTERM);
    assert_eq!(container.server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_pidfile_of_the_container_before_says_1_too_and_is_taken_over() {
    if !possible() {
        return;
    }
    let container = Container::start(builder().file("pid", "1\n"));
    assert_eq!(std::fs::read_to_string(container.server.path("pid")).unwrap(), "1\n");
    assert_eq!(container.server.get("/").text(), "hello v1\n");
}

#[test]
fn process_1_does_not_go_to_the_background() {
    if !possible() {
        return;
    }
    let mut server = builder().arg("--daemonize=log").through(LAUNCHER).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("cannot start: process 1 has to stay");
}
