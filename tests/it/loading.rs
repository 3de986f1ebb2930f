//! Loading the application: once or in each worker, and what happens when it cannot be loaded.

use std::thread::available_parallelism;
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{LIMIT, Server};

/// The exit code of a server whose application fails to load in this way.
fn exit_code(how: &str, args: &[&str]) -> Option<i32> {
    let builder = Server::app().args(["--master", "--processes=2"]).args(args);
    builder.settings(json!({ "load": how })).spawn().wait_exit(LIMIT).code()
}

#[test]
fn an_application_that_does_not_load_ends_the_start() {
    for how in ["fail", "crash", "exit"] {
        for arg in ["--lazy-apps=false", "--lazy-apps"] {
            assert_eq!(exit_code(how, &[arg]), Some(1), "{how} {arg}");
        }
    }
    assert_eq!(exit_code("fail", &["--need-app"]), Some(22));
}

#[test]
fn need_app_counts_for_every_way_not_to_load() {
    for how in ["fail", "crash", "exit"] {
        for arg in ["--lazy-apps=false", "--lazy-apps"] {
            assert_eq!(exit_code(how, &["--need-app", arg]), Some(22), "{how} {arg}");
        }
    }
}

#[test]
fn an_application_that_never_loads_is_given_up_at_the_boot_deadline() {
    for lazy in [false, true] {
        let args = ["--master", "--boot-timeout=300ms", &format!("--lazy-apps={lazy}")];
        let begin = Instant::now();
        let mut server = Server::app().args(args).settings(json!({ "load": "hang" })).spawn();
        let code = server.wait_exit(LIMIT).code();
        assert_eq!(code, Some(1), "lazy: {lazy}");
        assert!(begin.elapsed().as_secs() < 10, "lazy: {lazy}: {:?}", begin.elapsed());
    }
}

#[test]
fn lazy_workers_load_each_for_themselves() {
    let server = Server::app().args(["--master", "--processes=2", "--lazy-apps"]).start();
    assert_eq!(server.get("/").text(), "hello v1\n");
    // Workers that are replaced read the settings anew: nobody has loaded them for them.
    server.set_settings(json!({ "version": "v2" }));
    let before = server.workers();
    for worker in &before {
        kill(Pid::from_raw(worker.pid.cast_signed()), Signal::SIGHUP).unwrap();
    }
    server
        .wait_workers("both are replaced", |now| now.len() == 2 && !before.iter().any(|it| now.contains(it)));
    assert_eq!(server.get("/").text(), "hello v2\n");
    server.reload();
    for _ in 0..4 {
        assert_eq!(server.get("/").text(), "hello v2\n");
    }
}

#[test]
fn preloaded_workers_share_what_was_loaded() {
    let server = Server::app().args(["--master", "--processes=2"]).start();
    server.set_settings(json!({ "version": "v2" }));
    let before = server.workers();
    kill(Pid::from_raw(before[0].pid.cast_signed()), Signal::SIGKILL).unwrap();
    server.wait_workers("the worker is replaced", |now| now.len() == 2 && !now.contains(&before[0]));
    for _ in 0..8 {
        assert_eq!(server.get("/").text(), "hello v1\n", "the new worker has loaded another release");
    }
}

#[test]
fn a_lazy_reload_to_code_that_does_not_load_is_refused() {
    let server = Server::app().args(["--master", "--processes=2", "--lazy-apps"]).start();
    for how in ["fail", "crash"] {
        server.set_settings(json!({ "load": how }));
        let mark = server.log().mark();
        server.signal(Signal::SIGHUP);
        server.wait_for_log_after(mark, "generation 1 serves on");
        assert_eq!(server.get("/info").json()["generation"], 1, "{how}");
    }
    server.set_settings(json!({ "version": "v2" }));
    server.reload();
    assert_eq!(server.get("/").text(), "hello v2\n");
}

#[test]
fn auto_starts_a_worker_for_each_processor() {
    let expected = available_parallelism().unwrap().get();
    for args in [["-p", "auto"], ["--workers", "auto"]] {
        let server = Server::app().arg("--master").args(args).start();
        assert_eq!(server.workers().len(), expected, "{args:?}");
    }
}

#[test]
fn a_server_without_master_option_supervises_all_the_same() {
    let server = Server::app().arg("--workers=2").start();
    let before = server.workers();
    assert_eq!(before.len(), 2);
    kill(Pid::from_raw(before[0].pid.cast_signed()), Signal::SIGKILL).unwrap();
    server.wait_workers("the worker is replaced", |now| now.len() == 2 && !now.contains(&before[0]));
    server.reload();
    assert_eq!(server.get("/info").json()["generation"], 2);
}
