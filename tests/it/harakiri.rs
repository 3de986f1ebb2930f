//! `harakiri`: a request may take so long, and no worker is killed before the log knows what it was doing.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::http::{Connection, request};
use crate::support::log::Mark;
use crate::support::processes::{is_alive, kill};
use crate::support::{Exchange, LIMIT, Server, eventually, python_app};

/// What hangs, in ways of its own each.
const HANGS: &str = "
import ctypes, faulthandler, signal
lock = threading.Lock()
lock.acquire()
def nap(): time.sleep(1000)
def deadlock(): lock.acquire()
def compute():
    while True: pass
# Nobody else gets to run Python code meanwhile.
def greedy():
    mutex = ctypes.create_string_buffer(64)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
def fickle():
    faulthandler.disable()
    faulthandler.enable()
    time.sleep(1000)
def deaf():
    signal.signal(60, signal.SIG_DFL)
    time.sleep(1000)
def short(): time.sleep(0.3)
";

fn send(server: &Server, path: &str) -> Connection {
    let mut connection = server.connect();
    connection.send(&request("GET", path, &[], b"")).expect("a connection");
    connection
}

/// Sends a request whose worker is killed for it, and waits until its successor serves; what the log got
/// before the kill.
fn killed_for(server: &Server, path: &str) -> Vec<String> {
    let mark = server.log().mark();
    assert!(send(server, path).receive(false).is_err(), "{path} is cut");
    evidence(server, mark)
}

/// The lines from the headline to the death of the worker, once it is replaced.
fn evidence(server: &Server, mark: Mark) -> Vec<String> {
    server.wait_for_log_after(mark, "Respawned appserver worker ");
    let lines = server.log().lines();
    let from = lines.iter().rposition(|line| line.contains("*** HARAKIRI ON WORKER ")).expect("a headline");
    let to = lines.iter().rposition(|line| line.contains("DAMN ! worker ")).expect("it died");
    assert!(lines[to].contains("(harakiri: a request on core "), "{}", lines[to]);
    lines[from..to].to_vec()
}

#[track_caller]
fn has(lines: &[String], words: &[&str]) {
    let fits = |line: &String| words.iter().all(|word| line.contains(word));
    assert!(lines.iter().any(fits), "no {words:?} in {lines:#?}");
}

#[test]
fn a_request_that_takes_too_long_is_cut_with_evidence_and_others_are_served() {
    for arguments in [&["--threads=1"][..], &["--threads=3", "--harakiri-verbose"], &["--lazy-apps"]] {
        let server = python_app::server(HANGS).args(arguments.iter().copied()).arg("--harakiri=1").start();
        for function in ["nap", "deadlock", "compute", "greedy", "fickle"] {
            let path = format!("/{function}");
            let mark = server.log().mark();
            let mut cut = send(&server, &path);
            if function != "greedy" || !arguments.contains(&"--threads=3") {
                // Another thread of its own worker would wait for it.
                assert_eq!(server.get("/hello").text(), "hello", "others are served");
            }
            assert!(cut.receive(false).is_err(), "{path} is cut");
            let lines = evidence(&server, mark);
            has(&lines, &["*** HARAKIRI ON WORKER ", ", try: 1, graceful: no) ***"]);
            has(&lines, &["HARAKIRI: process ", " state ", " KiB of memory (rss)"]);
            has(&lines, &["HARAKIRI: -- syscall> "]);
            has(&lines, &["HARAKIRI: -- wchan> "]);
            let whose = format!(" 127.0.0.1 - GET {path} since ");
            has(&lines, &["HARAKIRI [core ", &whose, "(port ", " over its limit)"]);
            has(&lines, &["HARAKIRI: -- stack> ", "app.py\", line ", &format!(" in {function}")]);
            has(&lines, &["HARAKIRI: -- stack> ", "app.py\", line ", " in application"]);
            has(&lines, &[" is killed with 1 requests in flight, 1 of them over their limit"]);
            has(&lines, &["HARAKIRI triggered by worker ", " core "]);
            if arguments.contains(&"--harakiri-verbose") {
                has(&lines, &["HARAKIRI: -- thread ", " (app-1): state "]);
            }
            assert_eq!(server.get("/hello").text(), "hello");
        }
        server.signal(Signal::SIGUSR1);
        let counted = server.wait_for_log("workers ended: ");
        assert!(counted.contains("workers ended: harakiri 5;"), "{counted}");
    }
}

#[test]
fn where_no_stack_can_be_had_the_evidence_says_why() {
    let server = python_app::server(HANGS).arg("--harakiri=1").start();
    has(&killed_for(&server, "/deaf"), &["HARAKIRI: -- stack> none: it does not heed signal 60"]);

    let mark = server.log().mark();
    let mut cut = send(&server, "/nap");
    server.wait_begun("/nap");
    // Of the two workers nobody knows which it is.
    server.workers().iter().for_each(|worker| kill(worker.pid, Signal::SIGSTOP));
    assert!(cut.receive(false).is_err());
    let lines = evidence(&server, mark);
    has(&lines, &["HARAKIRI: process ", " state T (stopped)"]);
    has(&lines, &["HARAKIRI: -- stack> none: the process is stopped"]);
    assert_eq!(server.get("/hello").text(), "hello", "the new one serves");

    let server = Server::app().args(["--master", "--processes=2", "--harakiri=1"]).start();
    let lines = killed_for(&server, "/spin?ms=60000");
    has(&lines, &["HARAKIRI [core 0] 127.0.0.1 - GET /spin?ms=60000 since "]);
    has(&lines, &["HARAKIRI: -- stack> none: the application has none to tell"]);
}

#[test]
fn requests_of_other_threads_neither_put_a_deadline_off_nor_clear_it() {
    let server = python_app::server(HANGS).args(["--processes=1", "--threads=2", "--harakiri=2"]).start();
    let mark = server.log().mark();
    let mut cut = send(&server, "/nap");
    server.wait_begun("/nap");
    let before = server.workers();
    let mut served = 0;
    while server.log().wait_for(mark, Duration::ZERO, |line| line.contains("*** HARAKIRI ON")).is_none() {
        // The last one may be cut as well.
        match send(&server, "/short").receive(false) {
            Ok(response) => served += u32::from(response.status == 200),
            Err(_) => break,
        }
    }
    assert!(cut.receive(false).is_err());
    has(&evidence(&server, mark), &[" - GET /nap since ", " over its limit)"]);
    assert!(served >= 2, "they were served meanwhile: {served}");
    assert_ne!(server.workers(), before);
    assert_eq!(server.get("/hello").text(), "hello");
}

#[test]
fn the_time_in_which_a_client_is_waited_for_does_not_count() {
    let server = Server::app().args(["--master", "--processes=1", "--threads=4", "--harakiri=1"]).start();
    let (stream, upload) = (Exchange::stream(server.target()), Exchange::upload(server.target()));
    let mut head = server.connect();
    head.send(b"GET / HTTP/1.1\r\nHo").expect("a connection");
    // A body that the client does not take: more than sockets keep.
    let mut lazy = send(&server, "/stream?chunks=400&size=100000");
    lazy.receive_status().expect("an answer");
    for _ in 0..5 {
        assert_eq!(server.get("/sleep?ms=300").text(), "slept\n", "more time passes than a request may take");
    }
    head.send(b"st: test\r\n\r\n").expect("a connection");
    assert_eq!(head.receive(false).expect("an answer").text(), "hello v1\n");
    stream.finish().expect("the stream goes on");
    upload.finish().expect("and the upload");
    let mut total = 0;
    while let Ok(piece) = lazy.receive_chunk()
        && !piece.is_empty()
    {
        total += piece.len();
    }
    assert!(total >= 40_000_000, "{total}");
    assert!(!server.log().lines().iter().any(|line| line.contains("HARAKIRI")));
}

#[test]
fn an_upload_to_python_has_its_time_from_the_call_on() {
    let code = "
def application(environ, start_response):
    body = environ['wsgi.input'].read()
    if environ['PATH_INFO'] == '/slow': time.sleep(1000)
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [str(len(body)).encode()]
";
    for threads in ["1", "3"] {
        let server = python_app::bare()
            .file("app.py", format!("import time\n{code}"))
            .args(["--wsgi-file=app.py", "--harakiri=1"])
            .arg(format!("--threads={threads}"))
            .start();
        let mut upload = server.connect();
        upload.send(b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345").expect("sent");
        // Time passes: another request has all of its own.
        has(&killed_for(&server, "/slow"), &[" in application"]);
        match upload.send(b"67890").and_then(|()| upload.receive(false)) {
            Ok(response) => assert_eq!(response.text(), "10"),
            // It may have been at the worker that was killed for the other.
            Err(_) => continue,
        }
    }
}

#[test]
fn a_response_that_streams_for_too_long_is_cut() {
    let code = "
import time
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    def pieces():
        while True:
            yield b'piece'
            # The limit falls between two pieces: between two calls no stack has a frame.
            time.sleep(0.3)
    return pieces()
";
    for threads in ["1", "2"] {
        let server = python_app::bare()
            .file("app.py", code)
            .args(["--wsgi-file=app.py", "--harakiri=1"])
            .arg(format!("--threads={threads}"))
            .start();
        let mark = server.log().mark();
        let mut stream = send(&server, "/stream");
        stream.receive_status().expect("it begins");
        while stream.receive_chunk().is_ok_and(|piece| !piece.is_empty()) {}
        has(&evidence(&server, mark), &["HARAKIRI: -- stack> ", " in pieces"]);
    }
    let server = Server::app().args(["--master", "--processes=2", "--harakiri=1"]).start();
    has(&killed_for(&server, "/stream?chunks=1000&ms=100&size=10"), &["GET /stream?chunks=1000"]);
}

#[test]
fn an_application_may_limit_itself_further() {
    let code = "
import uwsgi, uwsgidecorators
def shorter():
    uwsgi.set_user_harakiri(1)
    time.sleep(1000)
def longer():
    uwsgi.set_user_harakiri(1000)
    time.sleep(1000)
@uwsgidecorators.harakiri(1)
def decorated(): time.sleep(1000)
@uwsgidecorators.harakiri(1)
def quick(): pass
def around():
    quick()
    time.sleep(1.5)
    return 'done'
def taken_back():
    uwsgi.set_user_harakiri(1)
    uwsgi.set_user_harakiri(0)
    time.sleep(1.5)
    return 'done'
def elsewhere():
    answers = []
    def limit():
        try: uwsgi.set_user_harakiri(1)
        except ValueError as error: answers.append(error)
    thread = threading.Thread(target=limit)
    thread.start()
    thread.join()
    return answers[0]
";
    for threads in ["1", "2"] {
        // Without a limit of the configuration, and with one that no test waits for.
        for more in [&[][..], &["--harakiri=1000"]] {
            let server =
                python_app::server(code).arg(format!("--threads={threads}")).args(more.iter().copied());
            let server = server.start();
            has(&killed_for(&server, "/shorter"), &[" in shorter"]);
            assert_eq!(server.get("/taken_back").text(), "done");
            assert_eq!(server.get("/around").text(), "done");
            has(&killed_for(&server, "/decorated"), &[" in decorated"]);
            let refused = server.get("/elsewhere").text();
            assert!(refused.contains("there is no request in this thread"), "{refused}");
            has(&killed_for(&server, "/shorter"), &[" in shorter"]);
        }
        let server = python_app::server(code).arg(format!("--threads={threads}")).arg("--harakiri=1").start();
        has(&killed_for(&server, "/longer"), &[" in longer"]);
    }
}

#[test]
fn a_worker_that_is_asked_first_finishes_its_other_requests_while_its_successor_serves() {
    let code = "
import socket
def nap(): time.sleep(1000)
def gate():
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect('gate')
        connection.recv(1)
    return 'through'
";
    let server = python_app::server(code)
        .args(["--processes=1", "--threads=2", "--harakiri=1", "--harakiri-graceful-timeout=4"])
        .start();
    let gate = server.gate();
    let old = server.workers()[0];
    let mut cut = send(&server, "/nap");
    server.wait_begun("/nap");
    let mut other = send(&server, "/gate");
    let visitor = gate.wait();
    assert_eq!(visitor.pid, old.pid);
    server.wait_for_log("*** HARAKIRI ON WORKER 1 (pid: ");
    server.wait_for_log("HARAKIRI: graceful termination attempt on worker 1 with signal 15. Next harakiri: ");
    server.wait_for_log("Respawned appserver worker 1 ");
    assert_eq!(server.get("/hello").text(), "hello", "the successor");
    assert!(is_alive(old.pid), "it has time");
    drop(visitor);
    assert_eq!(other.receive(false).expect("it is finished").text(), "through");
    assert!(cut.receive(false).is_err());
    let line = server.wait_for_log(", try: 2, graceful: no) ***");
    assert!(line.contains(&format!("(pid: {},", old.pid)), "{line}");
    server.wait_for_log("buried after ");
    assert_eq!(server.workers().len(), 1);
}

#[test]
fn a_signal_for_the_application_that_helps_costs_no_worker() {
    let code = "
import signal
def ring(number, frame): raise TimeoutError('asked by signal')
signal.signal(signal.SIGUSR1, ring)
def nap(): time.sleep(1000)
";
    let arguments = ["--harakiri=1", "--harakiri-graceful-timeout=20", "--harakiri-graceful-signal=10"];
    let server = python_app::server(code).args(arguments).start();
    let before = server.workers();
    assert_eq!(send(&server, "/nap").receive(false).expect("an answer").status, 500);
    server.wait_for_log("TimeoutError: asked by signal");
    server.wait_for_log("with signal 10. Next harakiri: ");
    assert_eq!(server.get("/hello").text(), "hello");
    assert_eq!(server.workers(), before);
}

#[test]
fn a_deadline_survives_a_reload() {
    let server = python_app::server(HANGS).arg("--harakiri=3").start();
    let mut cut = send(&server, "/nap");
    server.wait_begun("/nap");
    server.reload();
    assert!(cut.receive(false).is_err());
    server.wait_for_log("*** HARAKIRI ON WORKER ");
    server.wait_for_log(" in nap");
    server.wait_for_log("signal 9 (SIGKILL) (harakiri)");
    server.wait_workers("the new ones", |workers| workers.len() == 2);
    has(&killed_for(&server, "/nap"), &[" in nap"]);
}

#[test]
fn a_hook_after_the_request_may_take_its_time_if_that_is_wanted() {
    let code = "
import uwsgi
def hook(): time.sleep(1.5)
uwsgi.after_req_hook = hook
";
    for threads in ["1", "2"] {
        let server =
            || python_app::server(code).args([format!("--threads={threads}"), "--harakiri=1".into()]);
        let patient = server().args(["--harakiri-no-arh", "--processes=1"]).start();
        let mut client = patient.client();
        for _ in 0..3 {
            assert_eq!(client.get("/hello").expect("an answer").text(), "hello");
        }
        assert!(!patient.log().lines().iter().any(|line| line.contains("HARAKIRI")));
        let strict = server().start();
        // Its client may have the answer already.
        let _ = send(&strict, "/hello").receive(false);
        strict.wait_for_log(" in hook");
        strict.wait_for_log("HARAKIRI triggered by worker ");
    }
}

#[test]
fn what_hangs_when_patience_ends_at_a_reload_is_told_with_its_stack() {
    // With threads the worker hears and leaves by itself, and says what it cuts.
    for threads in ["1", "2"] {
        let arguments = [format!("--threads={threads}"), "--worker-reload-mercy=1".to_owned()];
        let server = python_app::server(HANGS).args(arguments).start();
        let mut cut = send(&server, "/nap");
        server.wait_begun("/nap");
        server.reload();
        assert!(cut.receive(false).is_err());
        server.wait_for_log(" 127.0.0.1 - GET /nap since ");
        let line = server.wait_for_log(" in nap");
        assert!(line.contains("NO MERCY: -- stack> ") && line.contains("app.py\", line "), "{line}");
    }
}

#[test]
fn an_application_that_does_not_load_in_time_is_told_where_it_was() {
    let code = "
import time
def connect(): time.sleep(1000)
connect()
";
    let mut server =
        python_app::bare().file("app.py", code).args(["--wsgi-file=app.py", "--boot-timeout=3"]).spawn();
    assert!(server.wait_exit(LIMIT).code().is_some_and(|code| code != 0));
    let line = server.wait_for_log(" in connect");
    assert!(line.contains("BOOT TIMEOUT: -- stack> ") && line.contains("app.py\", line 3"), "{line}");
}

#[test]
fn a_worker_that_does_not_start_in_time_is_asked_too() {
    let server = Server::app().args(["--master", "--processes=2", "--boot-timeout=2"]).start();
    server.set_settings(json!({ "worker_start": "hang" }));
    server.signal(Signal::SIGHUP);
    server.wait_for_log("was not ready in time (boot-timeout)");
    server.wait_for_log("BOOT TIMEOUT: -- stack> none: ");
    server.wait_for_log(" refused: ");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn two_requests_over_their_limit_cost_two_workers_and_the_server_goes_on() {
    let server = python_app::server(HANGS).args(["--harakiri=1", "--threads=2"]).start();
    let mut cut: Vec<_> = (0..4).map(|_| send(&server, "/nap")).collect();
    for connection in &mut cut {
        assert!(connection.receive(false).is_err());
    }
    eventually("both are replaced", LIMIT, || {
        let replaced = server.log().lines().iter().filter(|line| line.contains("Respawned")).count();
        (replaced >= 2).then_some(())
    });
    assert_eq!(server.get("/hello").text(), "hello");
}

#[test]
fn a_request_that_holds_up_nobody_may_take_its_time() {
    let server = python_app::server(HANGS)
        .args(["--processes=1", "--threads=1", "--harakiri=1", "--harakiri-queue-threshold=3"])
        .start();
    let mark = server.log().mark();
    let mut late = send(&server, "/nap");
    server.wait_for_log_after(
        mark,
        "HARAKIRI: Skipping harakiri on worker 1. Listen queue is smaller than the",
    );
    let mut waiting: Vec<_> = (0..4).map(|_| send(&server, "/hello")).collect();
    assert!(late.receive(false).is_err(), "others wait for it");
    evidence(&server, mark);
    for client in &mut waiting {
        assert_eq!(client.receive(false).expect("the next worker answers").text(), "hello");
    }
}
