//! `uwsgi.lock`: all workers of all generations exclude each other, and nobody takes a lock to the grave.

use serde_json::json;

use crate::support::uwsgi_app::{call, noted, server};
use crate::support::{LIMIT, Server, eventually};

/// Requests that hold lock 1 until the test opens the gate.
const FUNCTIONS: &str = r#"
import socket

def hold():
    uwsgi.lock(1)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("gate")
        note("held")
        connection.recv(1)
    uwsgi.unlock(1)
    return uwsgi.worker_id()

wait = hold

def held():
    return [uwsgi.is_locked(0), uwsgi.is_locked(1)]

def die():
    uwsgi.lock(1)
    os._exit(9)

def twice():
    uwsgi.lock(0)
    try:
        uwsgi.lock(0)
    finally:
        uwsgi.unlock(0)

def loose():
    uwsgi.unlock(0)

def none():
    uwsgi.lock(2)

def counted():
    # Threads of one worker exclude each other, and run Python while one of them waits.
    total = 0
    def work():
        nonlocal total
        for _ in range(200):
            uwsgi.lock()
            value = total
            threading.Event().wait(0.00001)
            total = value + 1
            uwsgi.unlock()
    threads = [threading.Thread(target=work) for _ in range(4)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return total
"#;

fn start() -> Server {
    server(FUNCTIONS).arg("--locks=1").start()
}

#[test]
fn a_lock_is_had_by_one_thread_at_a_time_and_errors_say_what_is_wrong() {
    let server = start();
    assert_eq!(call(&server, "held"), json!([false, false]));
    assert_eq!(call(&server, "counted"), 800);
    let deadlock = "RuntimeError: uwsgi.lock(0): this thread has it already and would wait for itself";
    assert_eq!(call(&server, "twice"), deadlock);
    assert_eq!(call(&server, "loose"), "RuntimeError: uwsgi.unlock(0): this thread does not have it");
    assert_eq!(call(&server, "none"), "ValueError: there is no lock 2; the option locks = 2 makes it");
}

#[test]
fn old_and_new_workers_exclude_each_other_during_a_reload() {
    let server = start();
    let gate = server.gate();
    let old = server.client();
    std::thread::scope(|scope| {
        let holder = scope.spawn(|| {
            let mut old = old;
            old.get("/hold").expect("an answer").text()
        });
        let first = gate.wait();
        server.reload();
        assert_eq!(call(&server, "held"), json!([false, true]), "held by a worker of the generation before");
        let waiter = scope.spawn(|| call(&server, "wait"));
        server.wait_begun("/wait");
        assert_eq!(noted(&server, "held"), 1);
        drop(first);
        holder.join().expect("no panic");
        drop(gate.wait());
        waiter.join().expect("no panic");
    });
    assert_eq!(call(&server, "held"), json!([false, false]));
}

#[test]
fn the_lock_of_a_worker_that_died_is_free() {
    let server = start();
    assert!(server.client().get("/die").is_err());
    eventually("the lock is free", LIMIT, || (call(&server, "held") == json!([false, false])).then_some(()));
}
