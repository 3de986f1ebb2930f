//! System calls that fail: the service goes on, waits without spinning, and recovers by itself.

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::faults::{Group, Injection, count};
use crate::support::log::Mark;
use crate::support::processes::kill;
use crate::support::server::Builder;
use crate::support::{LIMIT, Server, eventually, python_app};

/// What a fork is made with, by any C library.
const FORKS: &str = "clone,clone3,fork,vfork";

fn workers(count: u32) -> Builder {
    Server::app().args(["--master", "--threads=1"]).arg(format!("--processes={count}"))
}

/// Waits for the second line after `mark` that contains `text`: it was tried again.
fn wait_twice(server: &Server, mark: Mark, text: &str) {
    let said = || server.log().lines()[mark.line()..].iter().filter(|line| line.contains(text)).count();
    eventually(&format!("twice: {text}"), LIMIT, || (said() >= 2).then_some(()));
}

/// The server replaces a worker and reloads.
fn is_as_before(server: &Server) {
    server.wait_workers("two workers", |workers| workers.len() == 2);
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    assert_eq!(server.get("/").text(), "hello v2\n");
}

#[test]
fn a_zygote_that_cannot_fork_is_asked_again_until_it_can() {
    let server = workers(2).start();
    let fault = format!("{FORKS}:error=EAGAIN");
    let Some(injection) = Injection::attach(server.zygote(), FORKS, &fault) else { return };
    let mark = server.log().mark();
    kill(server.workers()[0].pid, Signal::SIGKILL);
    wait_twice(&server, mark, "worker 1 could not be forked: Resource temporarily unavailable");
    assert_eq!(server.get("/").text(), "hello v1\n", "the other one serves");
    injection.end();
    is_as_before(&server);
}

#[test]
fn a_worker_that_finds_nothing_to_wait_with_is_started_again_until_it_does() {
    for (call, error, told) in
        [("epoll_create1", "EMFILE", "Too many open files"), ("eventfd2", "ENFILE", "Too many open files in")]
    {
        let server = workers(2).start();
        let fault = format!("{call}:error={error}");
        let Some(injection) = Injection::attach_family(server.zygote(), call, &fault) else { return };
        let mark = server.log().mark();
        kill(server.workers()[0].pid, Signal::SIGKILL);
        wait_twice(&server, mark, &format!("worker cannot start: {told}"));
        assert_eq!(server.get("/").text(), "hello v1\n", "the other one serves");
        injection.end();
        is_as_before(&server);
    }
}

#[test]
fn a_limit_on_processes_leaves_the_other_workers_at_work() {
    let Some(group) = Group::new("pids", "forks") else { return };
    let server = workers(2).through(group.launcher()).start();
    // Room for the process in the middle of the double fork, and not for the worker.
    group.set("pids.max", &group.read("pids.current"));
    let mark = server.log().mark();
    kill(server.workers()[0].pid, Signal::SIGKILL);
    wait_twice(&server, mark, "worker 1 could not be forked: Resource temporarily unavailable");
    assert_eq!(server.get("/").text(), "hello v1\n", "the other one serves");
    group.set("pids.max", "max");
    is_as_before(&server);
}

#[test]
fn a_master_that_cannot_fork_refuses_to_reload_and_goes_on() {
    let server = workers(2).start();
    let (zygote, before) = (server.zygote(), server.workers());
    let fault = format!("{FORKS}:error=ENOMEM");
    let Some(injection) = Injection::attach(server.pid(), FORKS, &fault) else { return };
    server.signal(Signal::SIGHUP);
    let line = server.wait_for_log(" refused: ");
    assert!(line.contains("no zygote could be started: Cannot allocate memory"), "{line}");
    assert_eq!((server.get("/").text().as_str(), server.workers()), ("hello v1\n", before));
    // The one it has is lost, too, and there is none to be had in its place.
    let mark = server.log().mark();
    kill(zygote, Signal::SIGKILL);
    wait_twice(&server, mark, "zygote of generation 1 lost: no zygote could be started");
    assert_eq!(server.get("/").text(), "hello v1\n");
    injection.end();
    eventually("there is one again", LIMIT, || (server.zygotes().len() == 1).then_some(()));
    is_as_before(&server);
}

#[test]
fn an_image_that_cannot_be_replaced_goes_on_with_the_new_workers() {
    for (error, told) in [("ENOMEM", "Cannot allocate memory"), ("ETXTBSY", "Text file busy")] {
        let server = workers(2).start();
        // Its own calls only: zygotes are executed by processes that it forks.
        let fault = format!("execve:error={error}:when=1");
        let Some(injection) = Injection::attach(server.pid(), "execve", &fault) else { return };
        server.set_settings(json!({ "version": "v1, but another" }));
        server.signal(Signal::SIGHUP);
        let line = server.wait_for_log("the master could not be replaced: ");
        assert!(line.contains(told), "{line}");
        assert_eq!(server.get("/").text(), "hello v1, but another\n");
        injection.end();
        is_as_before(&server);
    }
}

#[test]
fn accepting_without_descriptors_or_memory_does_not_spin_and_the_client_is_served_afterwards() {
    for error in ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM"] {
        let server = workers(1).start();
        let mut kept = server.client();
        assert_eq!(kept.get("/").unwrap().status, 200);
        let fault = format!("accept4:error={error}");
        let worker = server.workers()[0].pid;
        let Some(injection) = Injection::attach(worker, "accept4,epoll_wait", &fault) else { return };
        let mut waiting = server.connect();
        waiting.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
        let complaints = || {
            let lines = server.log().lines();
            lines.iter().filter(|line| line.contains("accept: ") && line.contains("trying again in")).count()
        };
        eventually("it has tried five times", LIMIT, || (complaints() >= 5).then_some(()));
        assert_eq!(kept.get("/").unwrap().status, 200, "those who are in are served on");
        let calls = injection.end();
        let (tries, failed) = count(&calls, "accept4");
        let waits = count(&calls, "epoll_wait").0;
        assert!(tries == failed && failed <= complaints() + 1, "{tries}, {failed}, {}", complaints());
        assert!(waits <= 20 * failed, "it spins: {waits} waits for {failed} tries");
        assert_eq!(waiting.receive(false).unwrap().status, 200);
        assert_eq!(server.workers()[0].pid, worker);
    }
}

#[test]
fn a_client_that_gave_up_before_it_was_accepted_is_no_error() {
    let server = workers(1).start();
    let worker = server.workers()[0].pid;
    let fault = "accept4:error=ECONNABORTED:when=1..3";
    let Some(injection) = Injection::attach(worker, "accept4,epoll_wait", fault) else { return };
    let mark = server.log().mark();
    for _ in 0..3 {
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
    let calls = injection.end();
    assert_eq!(count(&calls, "accept4").1, 3);
    assert!(count(&calls, "epoll_wait").0 <= 60, "it spins: {calls:#?}");
    let lines = server.log().lines().split_off(mark.line());
    assert!(!lines.iter().any(|line| line.contains("WARN") || line.contains("ERROR")), "{lines:#?}");
}

#[test]
fn an_application_that_takes_all_descriptors_keeps_new_clients_waiting_and_nobody_else() {
    let code = "
taken = []
def exhaust():
    try:
        while True:
            taken.append(os.open('/dev/null', os.O_RDONLY))
    except OSError as error:
        return error.strerror
def release():
    while taken:
        os.close(taken.pop())
";
    for threads in ["1", "2"] {
        let server = python_app::server(code)
            .args(["--processes=1".to_owned(), format!("--threads={threads}")])
            .through(["prlimit", "--nofile=200:200"])
            .start();
        let worker = server.workers();
        let mut kept = server.client();
        assert_eq!(kept.get("/exhaust").unwrap().text(), "Too many open files");
        let mut waiting = server.connect();
        waiting.send(b"GET /hello HTTP/1.0\r\n\r\n").unwrap();
        server.wait_for_log("accept: Too many open files (os error 24); trying again in 100 ms");
        assert_eq!(kept.get("/hello").unwrap().text(), "hello");
        assert_eq!(kept.get("/release").unwrap().text(), "None");
        assert_eq!(waiting.receive(false).unwrap().text(), "hello");
        assert_eq!(server.workers(), worker);
    }
}

#[test]
fn a_server_that_cannot_ask_who_has_connected_waits_for_whoever_there_may_be() {
    let mut server = workers(1).start();
    let fault = "socket:error=EAFNOSUPPORT";
    let Some(injection) = Injection::attach(server.workers()[0].pid, "socket", fault) else { return };
    let mut late = server.connect();
    server.signal(Signal::SIGINT);
    server.wait_for_log("the kernel does not tell whether there is anybody (Address family not supported");
    late.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!(late.receive(false).unwrap().text(), "hello v1\n");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    drop(injection);
}
