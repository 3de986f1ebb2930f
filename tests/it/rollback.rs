//! Rollback: the generation before comes back from memory, and nothing is lost.

use std::fs;
use std::process::Output;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::reload::{another_release, versions_on_the_page};
use crate::support::processes::{self, kill};
use crate::support::server::Builder;
use crate::support::{Client, Exchange, LIMIT, Load, LoadSpec, Server, eventually, python_app, uwsgi_app};

/// The test application with two workers and up to two snapshots.
pub fn builder() -> Builder {
    Server::app()
        .args(["--master", "--processes=2", "--threads=8", "--pidfile=pid", "--snapshots=2"])
        .with_fifo()
}

/// Loads the test application anew, as this version.
pub fn deploy(server: &Server, version: &str) {
    server.set_settings(json!({ "version": version }));
    server.reload();
    assert_eq!(server.get("/").text(), format!("hello {version}\n"));
}

/// Rolls back and waits for the outcome: exit status, lines of progress, and what is wrong.
pub fn rollback(server: &Server) -> (Option<i32>, Vec<String>, String) {
    told(&server.command(["--rollback", "pid", "--wait=60"]))
}

/// Exit status, lines of progress, and what is wrong.
fn told(output: &Output) -> (Option<i32>, Vec<String>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout).lines().map(str::to_owned).collect(), text(&output.stderr))
}

fn status(server: &Server) -> Vec<String> {
    let (code, lines, errors) = told(&server.command(["--status", "pid"]));
    assert_eq!(code, Some(0), "{errors}");
    lines
}

/// Waits for the line of `--status` that begins so.
fn status_line(server: &Server, begin: &str) -> String {
    eventually(begin, LIMIT, || status(server).into_iter().find(|line| line.starts_with(begin)))
}

/// Number of the generation that answers, as the worker and as the master know it.
fn generation(server: &Server) -> u64 {
    let number = server.get("/info").json()["generation"].as_u64().unwrap();
    assert!(status(server)[0].contains(&format!(": generation {number}, ")), "{:?}", status(server));
    number
}

/// The zygote with this generation in its title.
pub fn zygote(server: &Server, generation: u64) -> u32 {
    let text = format!("zygote (generation {generation},");
    let is_it = |pid: &u32| processes::title(*pid).contains(&text);
    eventually(&text, LIMIT, || server.zygotes().into_iter().find(is_it))
}

/// Waits until there are so many zygotes, those that sleep included.
pub fn wait_zygotes(server: &Server, count: usize) -> Vec<u32> {
    eventually("the other zygotes are gone", LIMIT, || {
        Some(server.zygotes()).filter(|all| all.len() == count)
    })
}

#[test]
fn each_road_leads_one_generation_back_and_the_next_reload_goes_on_counting() {
    let server = builder().start();
    deploy(&server, "v2");
    deploy(&server, "v3");
    server.signal(Signal::SIGURG);
    server.wait_for_log("rollback 3 complete: generation 2 serves with 2 workers");
    assert_eq!((server.get("/").text(), generation(&server)), ("hello v2\n".to_owned(), 2));
    wait_zygotes(&server, 2);
    let mark = server.log().mark();
    server.fifo("u");
    server.wait_for_log_after(mark, "rollback 4 complete: generation 1 serves");
    assert_eq!((server.get("/").text(), generation(&server)), ("hello v1\n".to_owned(), 1));
    assert!(processes::title(server.pid()).contains("(generation 1,"), "{}", processes::title(server.pid()));
    wait_zygotes(&server, 1);

    let (code, lines, errors) = rollback(&server);
    assert_eq!(code, Some(1), "{lines:?}");
    assert!(
        errors.starts_with("rollback 5 refused: no snapshot is left")
            && errors.contains("generation 1 serves on")
    );
    server.wait_for_log("rollback 5 refused: ");

    // What was on disk all the time.
    server.reload();
    assert_eq!((server.get("/").text(), generation(&server)), ("hello v3\n".to_owned(), 4));
    let (code, lines, errors) = rollback(&server);
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(lines[0], format!("asked appserver {} to roll back", server.pid()));
    let last = lines.last().unwrap();
    assert!(last.starts_with("rollback 7 complete: generation 1 serves, draining "), "{lines:?}");
    assert_eq!((server.get("/").text(), generation(&server)), ("hello v1\n".to_owned(), 1));
    assert!(status(&server)[1].starts_with("rollback 7 complete: "), "{:?}", status(&server));
}

#[test]
fn a_rollback_under_load_loses_nothing_and_closes_no_idle_connection() {
    let server = builder().start();
    deploy(&server, "v2");
    let mut idle: Vec<Client> = (0..32).map(|_| server.client()).collect();
    idle.iter_mut().for_each(|client| assert_eq!(client.get("/").unwrap().text(), "hello v2\n"));
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    let mut held = None;
    for id in (2..12).step_by(2) {
        load.wait_for(50);
        let mark = server.log().mark();
        server.signal(Signal::SIGURG);
        server.wait_for_log_after(mark, &format!("rollback {id} complete: generation 1 serves"));
        load.wait_for(50);
        server.reload();
        server.wait_workers("the others are gone", |workers| workers.len() == 2);
        wait_zygotes(&server, 2);
        // Once they are reaped, a master that answers has let go of all that was theirs.
        eventually("the dead are reaped", LIMIT, || {
            (processes::list_all(|stat| stat.parent == server.pid()).len() == 4).then_some(())
        });
        let mark = server.log().mark();
        server.signal(Signal::SIGUSR2);
        server.wait_for_log_after(mark, &format!("master {} generation ", server.pid()));
        let now = server.descriptor_kinds();
        assert_eq!(*held.get_or_insert_with(|| now.clone()), now, "the master keeps more each time");
    }
    server.signal(Signal::SIGURG);
    server.wait_for_log("rollback 12 complete: ");
    load.stop().assert_nothing_lost();
    server.wait_workers("the others are gone", |workers| workers.len() == 2);
    for client in &mut idle {
        assert!(!client.is_closed());
        assert_eq!(client.get("/").unwrap().text(), "hello v1\n");
    }
}

#[test]
fn a_request_in_flight_is_finished_by_the_generation_that_is_left() {
    let server = builder().start();
    deploy(&server, "v2");
    let slow = Exchange::stream(server.target());
    assert_eq!(rollback(&server).0, Some(0));
    assert_eq!(server.get("/").text(), "hello v1\n");
    status_line(&server, "generation 2 drains: ");
    slow.finish().unwrap();
}

#[test]
fn an_application_is_back_without_being_loaded() {
    let server = builder().start();
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    // The time that it takes is measured by benches/figures rollback.
    server.set_settings(json!({ "load": "hang" }));
    server.signal(Signal::SIGURG);
    server.wait_for_log("rollback 2 complete: ");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_python_application_comes_back_from_memory() {
    let answering = |text: &str| python_app::source(&format!("def hello(): return '{text}'"));
    let server = python_app::server("").args(["--pidfile=pid", "--snapshots=1"]).start();
    server.file("app.py", answering("new"));
    server.reload();
    assert_eq!(server.get("/").text(), "new");
    let load = Load::start(server.target(), &LoadSpec::gets());
    load.wait_for(20);
    let (code, _, errors) = rollback(&server);
    assert_eq!(code, Some(0), "{errors}");
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/").text(), "hello");
    // And so does a worker that dies: the file has other code.
    let victim = server.workers()[0];
    kill(victim.pid, Signal::SIGKILL);
    server.wait_workers("it is replaced", |workers| workers.len() == 2 && !workers.contains(&victim));
    for _ in 0..8 {
        assert_eq!(server.get("/").text(), "hello");
    }
}

#[test]
fn a_reload_gives_way_to_a_rollback() {
    for stage in ["load_gate", "worker_gate"] {
        let server = builder().start();
        deploy(&server, "v2");
        let gate = server.gate();
        server.set_settings(json!({ "version": "v3", stage: gate.path() }));
        let mut waiting = std::process::Command::new(server.program());
        waiting.args(["--reload", "pid", "--wait"]).current_dir(server.path(""));
        let waiting =
            waiting.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        let visitor = gate.wait();
        let (code, lines, errors) = rollback(&server);
        assert_eq!(code, Some(0), "{errors}");
        assert!(lines.last().unwrap().contains("generation 1 serves"), "{lines:?}");
        let (code, _, errors) = told(&waiting.wait_with_output().unwrap());
        assert!(
            code == Some(1) && errors.contains("reload 2 refused: it gave way to a rollback"),
            "{errors}"
        );
        assert_eq!(server.get("/").text(), "hello v1\n", "{stage}");
        drop(visitor);
        deploy(&server, "v4");
    }
}

#[test]
fn a_rollback_whose_workers_do_not_become_ready_changes_nothing() {
    let server = builder().settings(json!({ "version": "v1", "worker_gate": null })).start();
    // A generation that can start its first workers, and none later.
    let gate = server.gate();
    server.set_settings(json!({ "version": "v2", "worker_gate": gate.path() }));
    server.signal(Signal::SIGHUP);
    for _ in 0..2 {
        drop(gate.wait());
    }
    server.wait_reloaded(2);
    deploy(&server, "v3");
    server.signal(Signal::SIGURG);
    let workers = (gate.wait(), gate.wait());
    let standing = status_line(&server, "generation 2 is being prepared: ");
    assert!(standing.contains("2 workers"), "{standing}");
    let begun = server.log().lines();
    let pid = begun.iter().rev().find_map(|line| crate::support::server::spawned_worker(line)).unwrap().pid;
    kill(pid, Signal::SIGKILL);
    server.wait_for_log("rollback 3 refused: worker ");
    drop(workers);
    assert_eq!((server.get("/").text(), generation(&server)), ("hello v3\n".to_owned(), 3));
    status_line(&server, "generation 2 sleeps: ");
}

#[test]
fn a_restored_generation_without_its_zygote_is_not_loaded_from_disk() {
    let server = builder().arg("--snapshots=1").start();
    deploy(&server, "v2");
    assert_eq!(rollback(&server).0, Some(0));
    let workers = server.wait_workers("the others are gone", |workers| workers.len() == 2);
    kill(zygote(&server, 1), Signal::SIGKILL);
    server.wait_for_log("one that dies cannot be replaced");
    kill(workers[0].pid, Signal::SIGKILL);
    server.wait_for_log("DAMN ! worker");
    for _ in 0..8 {
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
    assert!(server.zygotes().is_empty(), "nothing was loaded");
    // With nobody left, what is on disk is better than nothing; under a number of its own.
    kill(workers[1].pid, Signal::SIGKILL);
    server.wait_for_log("nothing is left of generation 1: loading what is on disk");
    server.wait_reloaded(3);
    assert_eq!((server.get("/").text(), generation(&server)), ("hello v2\n".to_owned(), 3));
}

/// A configuration file whose lines a test changes between reloads.
pub fn configured(lines: &str) -> String {
    format!("[uwsgi]\nmaster = true\nprocesses = 1\npidfile = pid\nsnapshots = 3\n{lines}")
}

#[test]
fn the_configuration_of_the_generation_comes_back_with_it() {
    let server = Server::builtin()
        .without_listener()
        .file("app.ini", configured("http = a.sock\nrelease = one\nmaster-fifo = one\n"))
        .args(["--ini", "app.ini"])
        .start();
    let lines =
        "http = a.sock\nhttp = b.sock\nrelease = two\nprocesses = 2\nmaster-fifo = two\npidfile2 = other\n";
    server.file("app.ini", configured(lines));
    server.reload();
    server.wait_for_log("pidfile2 ");
    assert!(server.path("b.sock").exists() && server.path("other").exists());
    let page = |name: &str| {
        let target = crate::support::Target::Unix(server.path(name));
        let answer = Client::new(&target, LIMIT).call("GET", "/", &[("Accept", "application/json")], b"");
        answer.unwrap().json()
    };
    assert_eq!((&page("b.sock")["release"], &page("b.sock")["generation"]), (&"two".into(), &2.into()));
    let asleep = status_line(&server, "generation 1 sleeps: release one, loaded ");
    assert!(asleep.contains(" MiB of its own)"), "{asleep}");
    let serving = status_line(&server, "generation 2 serves: release two, loaded ");
    assert!(serving.contains("2 workers"), "{serving}");

    let (code, _, errors) = rollback(&server);
    assert_eq!(code, Some(0), "{errors}");
    server.wait_for_log("no longer listening on ");
    assert!(!server.path("b.sock").exists() && !server.path("other").exists());
    let answer = page("a.sock");
    assert_eq!(
        (&answer["release"], &answer["generation"], &answer["reloads"]),
        (&"one".into(), &1.into(), &1.into())
    );
    assert!(processes::title(server.pid()).contains("generation 1, release one"));
    server.wait_workers("it has one worker", |workers| workers.len() == 1);
    // The FIFO it knows is read, and a reload takes up the disk's configuration again.
    fs::write(server.path("one"), "r").unwrap();
    server.wait_reloaded(3);
    assert_eq!(page("b.sock")["generation"], 3);
}

#[test]
fn a_binary_that_is_gone_or_broken_does_not_stand_in_the_way() {
    let server = builder().copied().start();
    deploy(&server, "v2");
    fs::remove_file(server.program()).unwrap();
    server.signal(Signal::SIGURG);
    server.wait_for_log("rollback 2 complete: generation 1 serves");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_pause_lasts_over_a_rollback() {
    let server = builder().start();
    deploy(&server, "v2");
    server.signal(Signal::SIGTSTP);
    server.wait_for_log("PAUSE");
    assert_eq!(rollback(&server).0, Some(0));
    let mut waiting = server.connect();
    waiting.set_timeout(Duration::from_millis(300)).unwrap();
    waiting.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(waiting.receive(false).is_err());
    server.signal(Signal::SIGTSTP);
    waiting.set_timeout(LIMIT).unwrap();
    assert_eq!(waiting.receive(false).unwrap().text(), "hello v1\n");
}

#[test]
fn timers_of_the_application_come_back_with_it() {
    let ticking = |number: u8, name: &str| {
        let register = format!("uwsgi.register_signal({number}, '', lambda number: note('{name}'))");
        uwsgi_app::source(&format!("{register}\nuwsgi.add_timer({number}, 1)"))
    };
    let server = uwsgi_app::server("").file("app.py", ticking(1, "old")).arg("--snapshots=1").start();
    server.file("app.py", ticking(2, "new"));
    server.reload();
    eventually("the timer of the new code", LIMIT, || (uwsgi_app::noted(&server, "new") > 0).then_some(()));
    server.signal(Signal::SIGURG);
    server.wait_for_log("rollback 2 complete: ");
    let before = (uwsgi_app::noted(&server, "old"), uwsgi_app::noted(&server, "new"));
    eventually("that of the old code", LIMIT, || {
        (uwsgi_app::noted(&server, "old") > before.0 + 1).then_some(())
    });
    assert!(uwsgi_app::noted(&server, "new") <= before.1 + 1, "one may have been on its way");
}

#[test]
fn the_release_before_comes_back_under_the_master_of_the_next() {
    let server = Server::builtin().copied().args(["--master", "--processes=2", "--snapshots=1"]).start();
    let another = another_release(&server, "9.8.7");
    fs::rename(another, server.program()).unwrap();
    server.reload();
    assert_eq!(versions_on_the_page(&server), "9.8.7");
    let executable = server.executable();
    server.signal(Signal::SIGURG);
    server.wait_for_log("rollback 2 complete: generation 1 serves with 2 workers");
    assert_eq!(versions_on_the_page(&server), env!("CARGO_PKG_VERSION"));
    assert_eq!(server.executable(), executable, "the master stays");
    server.reload();
    assert_eq!(versions_on_the_page(&server), "9.8.7");
}
