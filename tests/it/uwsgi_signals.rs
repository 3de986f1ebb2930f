//! Signals of the application: raised by it, by timers, by the clock, by changes of files.

use std::fs;
use std::time::Duration;

use serde_json::json;

use crate::support::log::Mark;
use crate::support::uwsgi_app::{call, noted, server, source};
use crate::support::{LIMIT, Server, eventually};

fn wait_noted(server: &Server, what: &str, times: usize) {
    eventually(&format!("{times} times {what:?}"), LIMIT, || (noted(server, what) >= times).then_some(()));
}

const RAISE: &str = r#"
def handler(number):
    note("signal", number, "worker", uwsgi.worker_id())

uwsgi.register_signal(1, "workers", handler)
uwsgi.register_signal(2, "worker2", handler)
uwsgi.register_signal(3, "", lambda number: note("one", number))
uwsgi.register_signal(4, "worker", lambda number: 1 / 0)
uwsgi.register_signal(5, "mules", handler)

def everyone():
    uwsgi.signal(1)

def second():
    uwsgi.signal(2)

def one():
    for _ in range(10):
        uwsgi.signal(3)

def broken():
    uwsgi.signal(4)

def registered():
    return [uwsgi.signal_registered(1), uwsgi.signal_registered(9)]

def errors():
    found = []
    for attempt in (
        lambda: uwsgi.register_signal(256, "", handler),
        lambda: uwsgi.register_signal(6, "everybody", handler),
        lambda: uwsgi.register_signal(6, "", None),
        lambda: uwsgi.signal(-1),
        lambda: uwsgi.add_timer(6, 0),
        lambda: uwsgi.add_cron(6, 61, -1, -1, -1, -1),
        lambda: uwsgi.add_file_monitor(6, "nowhere"),
    ):
        try:
            attempt()
        except ValueError as error:
            found.append(str(error))
    return len(found)

def handled():
    return sum(worker["signals"] for worker in uwsgi.workers())
"#;

#[test]
fn a_signal_is_handled_by_whom_it_is_for() {
    for threads in [1, 2] {
        let server = server(RAISE).arg(format!("--threads={threads}")).start();
        server.wait_for_log("signal 5 is for \"mules\", which do not exist yet");
        assert_eq!(call(&server, "registered"), json!([true, false]));
        call(&server, "everyone");
        wait_noted(&server, "signal 1 worker 1", 1);
        wait_noted(&server, "signal 1 worker 2", 1);
        call(&server, "second");
        wait_noted(&server, "signal 2 worker 2", 1);
        call(&server, "one");
        wait_noted(&server, "one 3", 10);
        // What it raises is told, and no reason to stop.
        call(&server, "broken");
        server.wait_for_log("ZeroDivisionError: division by zero");
        eventually("all signals are counted", LIMIT, || (call(&server, "handled") == 14).then_some(()));
        assert_eq!(noted(&server, "signal 2 worker 1"), 0);
        assert_eq!(noted(&server, "one 3"), 10);
        assert_eq!(call(&server, "errors"), 7);
    }
}

#[test]
fn a_worker_handles_a_signal_between_two_requests() {
    let functions = r#"
import socket

uwsgi.register_signal(1, "worker1", lambda number: note("handled"))

def wait():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("gate")
        uwsgi.signal(1)
        connection.recv(1)
    note("finished")
"#;
    let server = server(functions).arg("--processes=1").start();
    let gate = server.gate();
    std::thread::scope(|scope| {
        let request = scope.spawn(|| call(&server, "wait"));
        drop(gate.wait());
        request.join().expect("no panic");
    });
    wait_noted(&server, "handled", 1);
    let lines = server.log().lines();
    let position = |what: &str| lines.iter().position(|line| line == what);
    assert!(position("note: finished") < position("note: handled"));
}

#[test]
fn timers_come_again_and_again_or_as_often_as_they_are_asked_for() {
    let functions = r#"
uwsgi.register_signal(1, "", lambda number: note("often"))
uwsgi.register_signal(2, "", lambda number: note("twice"))
uwsgi.add_ms_timer(1, 20)
uwsgi.add_rb_timer(2, 0.02, 2)

def later():
    uwsgi.register_signal(3, "", lambda number: note("later"))
    uwsgi.add_rb_timer(3, 0.02, 1)
"#;
    // Workers that load the application themselves all ask for the same: it counts once.
    for lazy in [false, true] {
        let server = server(functions).arg(format!("--lazy-apps={lazy}")).start();
        wait_noted(&server, "twice", 2);
        call(&server, "later");
        wait_noted(&server, "later", 1);
        wait_noted(&server, "often", noted(&server, "often") + 10);
        assert_eq!((noted(&server, "twice"), noted(&server, "later")), (2, 1));
    }
}

#[test]
fn a_changed_file_raises_its_signal_also_when_another_takes_its_place() {
    let functions = r#"
uwsgi.register_signal(1, "worker1", lambda number: note("changed"))
uwsgi.add_file_monitor(1, "watched")
"#;
    let server = server(functions).file("watched", "").start();
    fs::write(server.path("watched"), "one").expect("a file of ours");
    wait_noted(&server, "changed", 1);
    for round in 0..3 {
        let before = noted(&server, "changed");
        fs::write(server.path("next"), round.to_string()).expect("a file of ours");
        fs::rename(server.path("next"), server.path("watched")).expect("a file of ours");
        wait_noted(&server, "changed", before + 1);
    }
}

#[test]
fn a_cron_that_is_always_due_is_raised_at_the_full_minute() {
    let functions = r#"
import time

def handler(number):
    note("minute", time.localtime().tm_sec < 30)

uwsgi.register_signal(1, "worker1", handler)
uwsgi.add_cron(1, -1, -1, -1, -1, -1)
"#;
    let server = server(functions).start();
    eventually("a minute has ended", Duration::from_secs(90), || {
        (noted(&server, "minute True") == 1).then_some(())
    });
}

#[test]
fn after_a_reload_the_registrations_of_the_new_code_count() {
    let old = r#"
uwsgi.register_signal(1, "workers", lambda number: note("old"))
uwsgi.add_ms_timer(1, 20)
"#;
    let new = r#"
uwsgi.register_signal(1, "worker1", lambda number: note("new"))
uwsgi.register_signal(2, "worker2", lambda number: note("raised"))
uwsgi.add_ms_timer(1, 20)

def second():
    uwsgi.signal(2)
"#;
    let server = server(old).start();
    wait_noted(&server, "old", 4);
    fs::write(server.path("app.py"), source(new)).expect("a file of ours");
    let mark = server.log().mark();
    server.reload();
    for slot in ["1", "2"] {
        server.wait_for_log_after(mark, &format!("worker {slot} (pid: "));
    }
    wait_noted(&server, "new", 1);
    let old_notes = noted(&server, "old");
    call(&server, "second");
    wait_noted(&server, "raised", 1);
    wait_noted(&server, "new", noted(&server, "new") + 5);
    assert_eq!(noted(&server, "old"), old_notes);
}

#[test]
fn a_respawned_worker_handles_signals_as_its_predecessor_did() {
    let functions = r#"
uwsgi.register_signal(1, "workers", lambda number: note("signal", os.getpid()))

def everyone():
    uwsgi.signal(1)

def die():
    os._exit(1)
"#;
    for lazy in [false, true] {
        let server =
            server(functions).args(["--processes=1".to_owned(), format!("--lazy-apps={lazy}")]).start();
        assert!(server.client().get("/die").is_err());
        server.wait_for_log("Respawned appserver worker 1 ");
        call(&server, "everyone");
        let pid = server.workers()[0].pid;
        wait_noted(&server, &format!("signal {pid}"), 1);
    }
}

#[test]
fn a_thread_can_wait_for_a_signal_and_a_lone_one_is_told_that_it_cannot() {
    let functions = r#"
uwsgi.register_signal(1, "workers", lambda number: None)

def wait():
    note("waiting")
    uwsgi.signal_wait(1)
    return uwsgi.signal_received()

def everyone():
    uwsgi.signal(1)
"#;
    let server = server(functions).args(["--processes=1", "--threads=3"]).start();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| call(&server, "wait"));
        wait_noted(&server, "waiting", 1);
        // The note comes before the wait.
        eventually("the signal is received", LIMIT, || {
            call(&server, "everyone");
            waiting.is_finished().then_some(())
        });
        assert_eq!(waiting.join().expect("no panic"), 1);
    });

    let server = crate::support::uwsgi_app::server(functions).start();
    let refused = call(&server, "wait");
    assert!(refused.as_str().is_some_and(|it| it.starts_with("NotImplementedError: uwsgi.signal_wait")));
    server.wait_for_log_after(Mark::START, "note: waiting");
}

#[test]
fn the_configuration_can_raise_signals_too() {
    let functions = r#"
uwsgi.register_signal(1, "worker1", lambda number: note("timer"))
uwsgi.register_signal(2, "worker1", lambda number: note("once"))
uwsgi.register_signal(3, "worker1", lambda number: note("changed"))
"#;
    let server = server(functions)
        .file("watched", "")
        .args(["--timer=1 1", "--signal-rbtimer=2 1 1", "--fs-signal=watched 3"])
        .start();
    wait_noted(&server, "timer", 3);
    assert_eq!(noted(&server, "once"), 1);
    fs::write(server.path("watched"), "new").expect("a file of ours");
    wait_noted(&server, "changed", 1);
}

#[test]
fn a_worker_that_does_not_keep_up_still_hears_that_it_is_to_leave() {
    let functions = r#"
import socket

uwsgi.register_signal(1, "worker1", lambda number: note("handled"))
uwsgi.add_ms_timer(1, 1)

def wait():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("gate")
        connection.recv(1)
    return "finished"
"#;
    let server = server(functions).arg("--processes=1").start();
    let gate = server.gate();
    std::thread::scope(|scope| {
        let request = scope.spawn(|| call(&server, "wait"));
        let visitor = gate.wait();
        server.wait_for_log("worker 1 does not keep up with its signals");
        server.reload();
        drop(visitor);
        assert_eq!(request.join().expect("no panic"), "finished");
    });
    server.wait_for_log("buried after 0 seconds, exit code 0");
    assert!(!server.log().lines().iter().any(|line| line.contains("cannot be told")));
}
