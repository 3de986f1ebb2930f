//! A pause: nothing new is accepted, nothing is lost, and who is connected is served.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::load::{Load, LoadSpec};
use crate::support::{Connection, LIMIT, Server, eventually};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn start() -> Server {
    Server::app().args(["--master", "--processes=2", "--pidfile=pid"]).with_fifo().start()
}

/// What `--status` says.
fn status(server: &Server) -> String {
    String::from_utf8(server.command(["--status", "pid"]).stdout).unwrap()
}

/// Waits until every worker says that it is paused, or none.
fn wait_paused(server: &Server, paused: bool) {
    eventually(&format!("all workers are paused: {paused}"), LIMIT, || {
        let status = status(server);
        let workers: Vec<&str> = status.lines().filter(|line| line.starts_with("worker ")).collect();
        (workers.len() == 2 && workers.iter().all(|line| line.contains("paused") == paused)).then_some(())
    });
}

fn pause(server: &Server) {
    assert!(server.command(["--pause", "pid"]).status.success());
    wait_paused(server, true);
}

/// Requests that wait in the listen queue.
fn queued(server: &Server, count: usize) -> Vec<Connection> {
    let request = |_| {
        let mut connection = server.connect();
        connection.send(GET).unwrap();
        connection
    };
    (0..count).map(request).collect()
}

/// They are answered, each of them and now.
fn assert_answered(waiting: Vec<Connection>, text: &str) {
    for mut connection in waiting {
        assert_eq!(connection.receive(false).unwrap().text(), text);
    }
}

#[test]
fn what_is_queued_waits_and_who_is_connected_is_served() {
    let server = start();
    let mut client = server.client();
    client.get("/").unwrap();
    pause(&server);
    let mut waiting = queued(&server, 20);
    for _ in 0..20 {
        assert_eq!(client.get("/").unwrap().text(), "hello v1\n");
    }
    for connection in &mut waiting {
        connection.set_timeout(Duration::from_millis(1)).unwrap();
        assert!(connection.receive(false).is_err(), "it was accepted");
        connection.set_timeout(LIMIT).unwrap();
    }
    server.fifo("p");
    wait_paused(&server, false);
    assert_answered(waiting, "hello v1\n");
}

#[test]
fn a_reload_in_a_pause_keeps_the_queue_and_the_connections() {
    let server = start();
    let mut connection = server.connect();
    let mut ask = move |version: &str| {
        connection.send(GET).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), format!("hello {version}\n"));
    };
    ask("v1");
    pause(&server);
    let waiting = queued(&server, 10);
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    wait_paused(&server, true);
    // The very same connection, handed over to a worker that accepts nobody.
    eventually("the old workers are gone", LIMIT, || (server.workers().len() == 2).then_some(()));
    ask("v2");
    assert!(server.command(["--resume", "pid"]).status.success());
    assert_answered(waiting, "hello v2\n");
    wait_paused(&server, false);
}

#[test]
fn workers_that_take_the_place_of_others_are_paused_too() {
    let server = start();
    pause(&server);
    let waiting = queued(&server, 10);
    for letter in ["w", "c", "W"] {
        let (before, mark) = (server.workers(), server.log().mark());
        server.fifo(letter);
        server.wait_for_log_after(mark, " complete");
        server.wait_workers("all workers are new", |workers| {
            workers.len() == 2 && workers.iter().all(|worker| !before.contains(worker))
        });
        wait_paused(&server, true);
    }
    let victim = server.workers()[0];
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(victim.pid.cast_signed()), Signal::SIGKILL).unwrap();
    server.wait_workers("the killed one is replaced", |workers| workers.len() == 2 && workers[0] != victim);
    wait_paused(&server, true);
    server.signal(Signal::SIGTSTP);
    assert_answered(waiting, "hello v1\n");
}

#[test]
fn a_stop_in_a_pause_answers_what_is_queued() {
    let mut server = start();
    pause(&server);
    let waiting = queued(&server, 10);
    server.fifo("q");
    assert_answered(waiting, "hello v1\n");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn orders_say_what_is_to_be_and_not_what_is_to_change() {
    let server = start();
    for (command, paused) in [
        ("--resume", false),
        ("--pause", true),
        ("--suspend", true),
        ("--resume", false),
        ("--resume", false),
    ] {
        let output = server.command([command, "pid"]);
        assert!(output.status.success(), "{command}: {output:?}");
        wait_paused(&server, paused);
    }
    // The toggle goes on from where the orders have left it.
    server.fifo("p");
    wait_paused(&server, true);
    assert!(server.command(["--pause", "pid"]).status.success());
    wait_paused(&server, true);
    let output = server.command(["--pause", "nothing"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("cannot pause: "), "{output:?}");
}

#[test]
fn orders_of_many_at_once_and_around_reloads_end_with_the_last() {
    let server = start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            for command in ["--pause", "--resume"] {
                let server = &server;
                scope.spawn(move || {
                    for _ in 0..10 {
                        assert!(server.command([command, "pid"]).status.success());
                    }
                });
            }
        }
        for _ in 0..3 {
            server.reload();
        }
    });
    pause(&server);
    assert!(server.command(["--resume", "pid"]).status.success());
    wait_paused(&server, false);
    load.wait_for(50);
    load.stop().assert_nothing_lost();
}
