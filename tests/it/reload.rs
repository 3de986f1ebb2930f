//! A reload loses nothing and stops nothing.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::server::copy_program;
use crate::support::{Connection, Exchange, Failure, LIMIT, Load, LoadSpec, Server, Target};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn start(processes: u32) -> Server {
    let processes = format!("--processes={processes}");
    Server::app().args(["--master", &processes, "--threads=8"]).with_fifo().start()
}

fn start_on_unix_socket() -> Server {
    Server::app().on_unix_socket("app.sock").args(["--master", "--processes=2", "--threads=8"]).start()
}

#[test]
fn a_reload_takes_up_the_new_code() {
    let server = start(2);
    let mut kept = server.client();
    assert_eq!(kept.get("/").unwrap().text(), "hello v1\n");
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    assert_eq!(server.get("/").text(), "hello v2\n");
    let info = server.get("/info").json();
    assert_eq!((&info["generation"], &info["reloads"]), (&json!(2), &json!(1)));
    assert_eq!(kept.get("/").unwrap().text(), "hello v2\n", "an idle connection goes on as well");
}

#[test]
fn a_brutal_reload_cuts_requests_and_keeps_connections_that_rest() {
    for blow in ["TERM", "R", "W"] {
        let server = start(2);
        let mut clients: Vec<_> = (0..20).map(|_| server.client()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(client.get("/").unwrap().text(), "hello v1\n"));
        let mut half = server.connect();
        half.send(&GET[..GET.len() / 2]).unwrap();
        // Both are read by then.
        let mut slow = server.in_flight(60_000);
        let before = server.workers();
        match blow {
            "TERM" => server.signal(Signal::SIGTERM),
            letter => server.fifo(letter),
        }
        let cut = slow.receive_chunks().unwrap_err();
        assert!(matches!(cut, Failure::Truncated | Failure::Reset), "{blow}: {cut:?}");
        server.wait_workers("none of the old ones is left", |now| {
            now.len() == 2 && !now.iter().any(|it| before.iter().any(|old| old.pid == it.pid))
        });
        for client in &mut clients {
            assert!(!client.is_closed(), "{blow}");
            assert_eq!(client.get("/").unwrap().text(), "hello v1\n", "{blow}");
        }
        half.send(&GET[GET.len() / 2..]).unwrap();
        assert_eq!(half.receive(false).unwrap().text(), "hello v1\n", "{blow}");
    }
}

/// One with time limits of a kept connection, not those of one whose first request is due.
#[test]
fn a_kept_connection_that_was_handed_over_may_rest_as_long_as_any() {
    let server = Server::app().args(["--master", "--http-headers-timeout=1"]).start();
    let mut kept = server.client();
    kept.get("/").unwrap();
    let mut silent = server.connect();
    silent.set_timeout(LIMIT).unwrap();
    server.reload();
    assert_eq!(silent.receive(false).err(), Some(Failure::EofBeforeAnswer), "its time was over");
    assert!(!kept.is_closed());
    assert_eq!(kept.get("/").unwrap().text(), "hello v1\n");
}

#[test]
fn a_request_in_flight_is_finished_by_the_worker_that_began_it() {
    let server = start(1);
    let mut slow = server.connect();
    slow.send(b"GET /stream?chunks=20&ms=100&size=10 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    slow.receive_status().unwrap();
    server.set_settings(json!({ "version": "v2" }));
    server.signal(Signal::SIGHUP);
    crate::support::eventually("new code serves next to the slow request", LIMIT, || {
        (server.get("/").text() == "hello v2\n").then_some(())
    });
    let rest = slow.receive_chunks().unwrap();
    assert!(rest.ends_with(b"end\n"), "cut: {}", rest.escape_ascii());
    server.wait_reloaded(2);
}

#[test]
fn the_application_may_ask_for_a_reload() {
    let server = start(1);
    assert_eq!(server.get("/reload").text(), "asked\n");
    server.wait_reloaded(2);
    assert_eq!(server.get("/info").json()["generation"], 2);
}

#[test]
fn no_request_waits_for_the_start_of_the_application() {
    for stage in ["load_gate", "worker_gate"] {
        let server = start(1);
        let gate = server.gate();
        let mut kept = server.client();
        assert_eq!(kept.get("/").unwrap().text(), "hello v1\n");
        let stream = Exchange::stream(server.target());
        let upload = Exchange::upload(server.target());
        server.set_settings(json!({ "version": "v2", stage: gate.path() }));
        server.signal(Signal::SIGHUP);
        let visitor = gate.wait();
        // The new application cannot answer before it is let through the gate.
        assert_eq!(kept.get("/").unwrap().text(), "hello v1\n", "{stage}");
        assert_eq!(server.get("/").text(), "hello v1\n", "{stage}");
        stream.finish().unwrap();
        upload.finish().unwrap();
        drop(visitor);
        server.wait_reloaded(2);
        assert_eq!(server.get("/").text(), "hello v2\n");
    }
}

#[test]
fn unix_sockets_survive_reloads_too() {
    let server = start_on_unix_socket();
    let Target::Unix(path) = server.target().clone() else { unreachable!("it listens on a Unix socket") };
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    for generation in 2..=4 {
        server.reload();
        server.wait_reloaded(generation);
    }
    load.stop().assert_nothing_lost();
    assert!(path.exists());
}

/// Connections in every state in which no request is in flight.
fn waiting_connections(server: &Server, of_each: usize) -> Vec<(Connection, &'static [u8])> {
    let half = GET.split_at(GET.len() / 2);
    let open = |sent: &[u8], answers: usize, rest: &'static [u8]| {
        let mut connection = server.connect();
        connection.send(sent).unwrap();
        for _ in 0..answers {
            assert_eq!(connection.receive(false).unwrap().text(), "hello v1\n");
        }
        (connection, rest)
    };
    let one_of_each = || {
        [
            // Silent so far.
            open(b"", 0, GET),
            // Idle after an answer.
            open(GET, 1, GET),
            // Half a head, the first or a later one.
            open(half.0, 0, half.1),
            open(&[GET, half.0].concat(), 1, half.1),
            // Half a head behind two requests in one packet.
            open(&[GET, GET, half.0].concat(), 2, half.1),
        ]
    };
    (0..of_each).flat_map(|_| one_of_each()).collect()
}

fn waiting_connections_survive(server: &Server) {
    let connections = waiting_connections(server, 8);
    server.set_settings(json!({ "version": "v2" }));
    for generation in 2..=6 {
        server.reload();
        server.wait_reloaded(generation);
    }
    // The workers that opened them are gone, not merely about to leave.
    server.wait_workers("the old workers are gone", |workers| workers.len() == 2);
    for (at, (mut connection, rest)) in connections.into_iter().enumerate() {
        assert!(!connection.is_closed(), "connection {at} was closed");
        for request in [rest, GET] {
            connection.send(request).unwrap();
            let answer = connection.receive(false);
            let text = answer.unwrap_or_else(|failure| panic!("connection {at}: {failure:?}")).text();
            assert_eq!(text, "hello v2\n", "connection {at}");
        }
    }
}

#[test]
fn idle_and_half_sent_connections_stay_open_through_reloads() {
    waiting_connections_survive(&start(2));
}

#[test]
fn idle_and_half_sent_unix_connections_stay_open_through_reloads() {
    waiting_connections_survive(&start_on_unix_socket());
}

#[test]
fn requests_pipelined_behind_one_in_flight_are_answered_on_the_same_connection() {
    for begin in [Exchange::stream, Exchange::upload] {
        let server = start(1);
        let exchange = begin(server.target());
        server.set_settings(json!({ "version": "v2" }));
        server.reload();
        let mut connection = exchange.finish_with(&[GET, GET].concat()).unwrap();
        for _ in 0..2 {
            let answer = connection.receive(false).unwrap();
            assert_eq!((answer.status, answer.closes()), (200, false), "{}", answer.text());
        }
        connection.send(GET).unwrap();
        assert_eq!(connection.receive(false).unwrap().text(), "hello v2\n");
    }
}

#[test]
fn a_request_may_span_many_reloads() {
    let server = start(1);
    let worker = server.workers()[0];
    let (stream, upload) = (Exchange::stream(server.target()), Exchange::upload(server.target()));
    for generation in 2..=6 {
        server.reload();
        server.wait_reloaded(generation);
    }
    assert!(server.workers().contains(&worker), "the worker that began them still runs them");
    stream.finish().unwrap();
    upload.finish().unwrap();
    server.wait_workers("it leaves when they are done", |workers| !workers.contains(&worker));
}

/// A copy of the program that says that it is another release, and nothing else.
pub fn another_release(server: &Server, version: &str) -> PathBuf {
    let ours = env!("CARGO_PKG_VERSION");
    assert_eq!(ours.len(), version.len(), "replaced in place, it has to be as long");
    let mut program = fs::read(server.program()).unwrap();
    let places: Vec<usize> = memchr::memmem::find_iter(&program, ours).collect();
    for at in places {
        program[at..at + version.len()].copy_from_slice(version.as_bytes());
    }
    fs::write(server.path("draft"), program).unwrap();
    // Copied once more, because a file that was just written cannot always be executed.
    copy_program(&server.path("draft"), &server.path("another"));
    fs::set_permissions(server.path("another"), fs::metadata(server.program()).unwrap().permissions())
        .unwrap();
    server.path("another")
}

/// The release whose worker answers, as the built-in page says.
pub fn versions_on_the_page(server: &Server) -> String {
    let page = server.client().call("GET", "/", &[("Accept", "application/json")], b"");
    page.unwrap().json()["version"].as_str().unwrap().to_owned()
}

#[test]
fn a_replaced_binary_is_what_runs_afterwards() {
    let server = Server::builtin().copied().args(["--master", "--processes=2"]).start();
    assert_eq!(versions_on_the_page(&server), env!("CARGO_PKG_VERSION"));
    let another = another_release(&server, "9.8.7");
    let told = Command::new(&another).arg("--version").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&told.stdout), "appserver 9.8.7\n");
    let (before, new) = (server.executable(), file_id(&another));
    fs::rename(another, server.program()).unwrap();
    assert_eq!(versions_on_the_page(&server), env!("CARGO_PKG_VERSION"));
    server.reload();
    assert_eq!(versions_on_the_page(&server), "9.8.7");
    assert!(server.executable() == new && new != before, "the master runs the new file, too");
}

#[test]
fn a_release_directory_switched_by_a_link_is_followed() {
    let builder = Server::app();
    for release in ["one", "two"] {
        fs::create_dir(builder.path(release)).unwrap();
        copy_program(builder.program(), &builder.path(release).join("server"));
    }
    symlink("one", builder.path("current")).unwrap();
    let server = builder.run_from("current/server").args(["--master", "--processes=1"]).start();
    assert_eq!(server.executable(), file_id(&server.path("one/server")));
    symlink("two", server.path("next")).unwrap();
    fs::rename(server.path("next"), server.path("current")).unwrap();
    server.reload();
    assert_eq!(server.executable(), file_id(&server.path("two/server")));
    assert_eq!(server.get("/").text(), "hello v1\n");
}

fn file_id(path: &Path) -> (u64, u64) {
    let file = fs::metadata(path).unwrap();
    (file.dev(), file.ino())
}
