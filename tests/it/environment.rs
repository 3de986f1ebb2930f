//! What the application finds around it: environment, directory, titles of the processes.

use std::collections::BTreeMap;

use nix::sys::signal::Signal;

use crate::support::server::Builder;
use crate::support::{LIMIT, Server, eventually, processes};

fn env_of(server: &Server) -> BTreeMap<String, String> {
    serde_json::from_value(server.get("/info").json()["env"].clone()).unwrap()
}

#[test]
fn the_application_sees_the_environment_as_configured_also_after_reloads() {
    let server = Server::app()
        .args(["--env=ADDED=1", "--env=CHANGED=new", "--unenv=REMOVED", "--env=TWICE=1", "--env=TWICE=2"])
        .args([
            "--env=BACK=1",
            "--unenv=BACK",
            "--unenv=AGAIN",
            "--env=AGAIN=1",
            "--env=EMPTY=",
            "--env=EQ=a=b",
        ])
        .env("CHANGED", "old")
        .env("REMOVED", "1")
        .env("UNTOUCHED", "as it was")
        .start();
    let first = env_of(&server);
    for (name, value) in [
        ("ADDED", Some("1")),
        ("CHANGED", Some("new")),
        ("REMOVED", None),
        ("TWICE", Some("2")),
        ("BACK", None),
        ("AGAIN", Some("1")),
        ("EMPTY", Some("")),
        ("EQ", Some("a=b")),
        ("UNTOUCHED", Some("as it was")),
    ] {
        assert_eq!(first.get(name).map(String::as_str), value, "{name}");
    }
    for _ in 0..2 {
        server.reload();
        assert_eq!(env_of(&server), first, "the environment changed with a reload");
    }
    let foreign: Vec<_> = first.keys().filter(|name| name.to_lowercase().contains("appserver")).collect();
    assert!(foreign.is_empty(), "variables of the server's own reach the application: {foreign:?}");
}

#[test]
fn an_environment_option_without_a_name_is_refused() {
    for arg in ["--env=NOVALUE", "--env==x", "--unenv=A=B"] {
        let mut server = Server::app().arg(arg).spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{arg}");
        server.wait_for_log("command line: ");
    }
}

#[test]
fn chdir_is_where_the_application_loads_and_chdir2_where_it_runs() {
    let cwd = |server: &Server| server.get("/info").json()["cwd"].as_str().unwrap().to_owned();
    for (args, expected) in [
        (&["--chdir=a"] as &[&str], "a"),
        (&["--chdir=a", "--chdir2=b"], "a/b"),
        (&["--chdir2=a"], "a"),
        (&["--chdir=a", "--chdir2=b", "--lazy-apps"], "a/b"),
    ] {
        let builder = Server::app().file("a/b/.keep", "").args(args);
        let server = builder.start();
        let expected = server.path(expected).canonicalize().unwrap().display().to_string();
        assert_eq!(cwd(&server), expected, "{args:?}");
        server.reload();
        assert_eq!(cwd(&server), expected, "{args:?} after a reload");
    }
}

#[test]
fn a_directory_that_is_not_there_ends_the_start() {
    for (arg, text) in [("--chdir=missing", "cannot enter "), ("--chdir2=missing", "chdir2: missing")] {
        let mut server = Server::app().arg(arg).arg("--need-app").spawn();
        assert_ne!(server.wait_exit(LIMIT).code(), Some(0), "{arg}");
        server.wait_for_log(text);
    }
}

/// Titles of master, zygotes and workers, sorted.
fn titles(server: &Server) -> Vec<String> {
    let everyone = server.children().into_iter().chain([server.pid()]);
    let mut titles: Vec<_> = everyone.map(processes::title).collect();
    titles.sort();
    titles
}

fn with_two_workers() -> Builder {
    Server::app().args(["--master", "--processes=2", "--release=v7"])
}

#[test]
fn titles_tell_role_number_generation_and_release() {
    for arg in [None, Some("--auto-procname")] {
        let server = with_two_workers().args(arg).start();
        for generation in 1..=2 {
            let expected = [
                format!("appserver master (generation {generation}, release v7)"),
                format!("appserver worker 1 (generation {generation}, release v7)"),
                format!("appserver worker 2 (generation {generation}, release v7)"),
                format!("appserver zygote (generation {generation}, release v7)"),
            ];
            eventually("the titles are right", LIMIT, || (titles(&server) == expected).then_some(()));
            if generation == 1 {
                server.signal(Signal::SIGHUP);
                server.wait_reloaded(2);
            }
        }
    }
}

#[test]
fn procname_options_change_the_titles() {
    for (args, master, worker) in [
        (&["--procname=web"] as &[&str], "appserver master (generation 1, release v7)", "web"),
        (&["--procname-master=boss"], "boss", "appserver worker 1 (generation 1, release v7)"),
        (&["--procname-master=boss", "--procname=web", "--procname-prefix=x-"], "x-boss", "x-web"),
        (&["--procname-master=boss", "--procname=web", "--procname-prefix-spaced=x"], "x boss", "x web"),
        (
            &["--procname-master=boss", "--procname=web", "--procname-append= (live)"],
            "boss (live)",
            "web (live)",
        ),
    ] {
        let server = with_two_workers().args(args).start();
        for _ in 0..2 {
            assert_eq!(processes::title(server.pid()), master, "{args:?}");
            let worker_1 = server.workers()[0].pid;
            assert_eq!(processes::title(worker_1), worker, "{args:?}");
            server.reload();
            // The next image has its number one, too.
            eventually("the old workers are gone", LIMIT, || (server.workers().len() == 2).then_some(()));
            if master.contains("generation") || worker.contains("generation") {
                break;
            }
        }
    }
}

#[test]
fn a_long_title_leaves_the_environment_in_proc_intact() {
    let long = "t".repeat(4000);
    let server =
        Server::app().args(["--master", &format!("--procname={long}")]).env("MARKER", "intact").start();
    let everyone = server.children().into_iter().chain([server.pid()]);
    for pid in everyone {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(
            environ.split(|&byte| byte == 0).any(|pair| pair == b"MARKER=intact"),
            "{}: {}",
            processes::title(pid),
            environ.escape_ascii()
        );
    }
    let worker = server.workers()[0].pid;
    let title = processes::title(worker);
    assert!(title.starts_with("ttt") && long.starts_with(&title), "{title}");
}
