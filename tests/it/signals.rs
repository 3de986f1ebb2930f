//! Signals to the master, as uWSGI's operators send them.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{Failure, LIMIT, Server, eventually};

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
    server.set_settings(serde_json::json!({ "version": "v2", "load_ms": 500 }));
    let children = server.children().len();
    server.signal(Signal::SIGHUP);
    eventually("the next zygote is there", LIMIT, || (server.children().len() > children).then_some(()));
    server.set_settings(serde_json::json!({ "version": "v3" }));
    server.signal(Signal::SIGHUP);
    eventually("the last code serves", LIMIT, || (server.get("/").text() == "hello v3\n").then_some(()));
}
