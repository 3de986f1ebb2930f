//! A configuration file is read as uWSGI reads it, and a reload reads all of it again.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::server::Builder;
use crate::support::{LIMIT, Load, LoadSpec, Server, Target, get};

/// A server on `app.sock` in its directory, with the rest of its options in files.
fn on_socket(builder: Builder) -> Server {
    builder.on_unix_socket("app.sock").start()
}

fn write(server: &Server, name: &str, text: &str) {
    fs::write(server.path(name), text).expect("a file in a directory of ours");
}

/// Reloads and waits for the reason why not.
fn refused(server: &Server) -> String {
    let mark = server.log().mark();
    server.signal(Signal::SIGHUP);
    server.wait_for_log_after(mark, " refused: ")
}

fn workers(server: &Server, count: usize) {
    server.wait_workers(&format!("{count} workers"), |workers| workers.len() == count);
}

#[test]
fn every_format_starts_a_server() {
    let files = [
        ("a.ini", "[uwsgi]\nmaster = true\nprocesses = 2\nstrict = true\n"),
        ("a.yaml", "uwsgi:\n  master: true\n  processes: 2\n  strict: true\n"),
        ("a.yml", "appserver:\n  master: true\n  processes: 2\n"),
        ("a.json", r#"{"uwsgi": {"master": true, "processes": 2}}"#),
        ("a.toml", "[appserver]\nmaster = true\nprocesses = 2\n"),
        ("a.xml", "<uwsgi><master/><processes>2</processes></uwsgi>"),
    ];
    for (name, text) in files {
        let server = on_socket(Server::app().file(name, text).arg(name));
        workers(&server, 2);
        assert_eq!(server.get("/").text(), "hello v1\n", "{name}");
    }
}

#[test]
fn the_order_of_precedence_is_that_of_uwsgi() {
    let file = "[uwsgi]\nprocesses = 2\n";
    let cases: [(&[&str], Option<&str>, usize); 5] = [
        (&["--ini", "f.ini", "--processes", "3"], None, 3),
        (&["--processes", "3", "--ini", "f.ini"], None, 2),
        (&["f.ini", "--processes", "3"], None, 2),
        (&["--ini", "f.ini"], Some("4"), 2),
        (&["--master"], Some("1"), 1),
    ];
    for (args, env, expected) in cases {
        let mut builder = Server::app().file("f.ini", file).args(args.iter().copied());
        if let Some(processes) = env {
            builder = builder.env("UWSGI_PROCESSES", processes);
        }
        workers(&on_socket(builder), expected);
    }
}

#[test]
fn a_reload_reads_all_of_it_again() {
    let include = "[uwsgi]\nprocesses = 1\nenv = COLOUR=red\n";
    let main = "[uwsgi]\nmaster = true\ninclude = part.ini\nprint = reading %n\nprocname = $(WORD)-app\n";
    let server = on_socket(
        Server::app().file("main.ini", main).file("part.ini", include).env("WORD", "w").arg("main.ini"),
    );
    workers(&server, 1);
    write(&server, "part.ini", "[uwsgi]\nprocesses = 3\n");
    server.reload();
    workers(&server, 3);
    write(&server, "part.ini", "[uwsgi]\nprocesses = 1\nif-reload = 1\nrelease = again\nendif = 1\n");
    server.reload();
    workers(&server, 1);
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_reload_adds_and_removes_listeners_and_keeps_the_others() {
    let server = on_socket(
        Server::app().file("a.ini", "[uwsgi]\nmaster = 1\nhttp = one.sock\nvacuum = 1\n").arg("a.ini"),
    );
    let inode = |name: &str| fs::symlink_metadata(server.path(name)).map(|it| it.ino()).ok();
    let (kept, one) = (inode("app.sock"), inode("one.sock"));
    assert!(kept.is_some() && one.is_some());
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    load.wait_for(20);

    write(&server, "a.ini", "[uwsgi]\nmaster = 1\nhttp = two.sock\nhttp = one.sock\nvacuum = 1\n");
    server.reload();
    assert_eq!(get(&Target::Unix(server.path("two.sock")), "/").text(), "hello v1\n");
    assert_eq!((inode("app.sock"), inode("one.sock")), (kept, one), "bound sockets stay");

    write(&server, "a.ini", "[uwsgi]\nmaster = 1\nhttp = two.sock\nvacuum = 1\n");
    server.reload();
    crate::support::eventually("a socket that is configured no more is gone", LIMIT, || {
        inode("one.sock").is_none().then_some(())
    });
    load.wait_for(20);
    load.stop().assert_nothing_lost();
    assert_eq!(inode("app.sock"), kept);
}

#[test]
fn a_listener_that_cannot_be_bound_refuses_the_reload() {
    let server = on_socket(Server::app().file("a.ini", "[uwsgi]\nmaster = 1\n").arg("a.ini"));
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
    let address = taken.local_addr().expect("a bound socket has an address");
    write(&server, "a.ini", &format!("[uwsgi]\nmaster = 1\nhttp = new.sock\nhttp = {address}\n"));
    let line = refused(&server);
    assert!(line.contains(&address.to_string()) && line.contains("a.ini:4"), "{line}");
    assert!(!server.path("new.sock").exists(), "the socket made for the refused reload is gone");
    drop(taken);
    server.reload();
    assert_eq!(get(&Target::Tcp(address), "/").text(), "hello v1\n");
}

#[test]
fn a_broken_file_refuses_the_reload_and_the_old_one_serves_on() {
    let server = on_socket(
        Server::app()
            .file("a.ini", "[uwsgi]\nmaster = 1\ninclude = b.yaml\n")
            .file("b.yaml", "uwsgi:\n  threads: 2\n")
            .arg("a.ini"),
    );
    let before = server.workers();
    for (text, part) in [
        ("uwsgi:\n  threads: [", "b.yaml:"),
        ("uwsgi:\n  threads: many\n", "b.yaml:2: threads = \"many\" is not a whole number"),
        ("uwsgi:\n  include: a.ini\n", "does it include itself?"),
        ("uwsgi:\n  \0", "NUL"),
    ] {
        write(&server, "b.yaml", text);
        let line = refused(&server);
        assert!(line.contains(part), "{text}: {line}");
    }
    fs::remove_file(server.path("b.yaml")).expect("it is ours");
    assert!(refused(&server).contains("a.ini:3: include = \"b.yaml\" cannot be read"));
    assert_eq!(server.workers(), before);
    assert_eq!(server.get("/").text(), "hello v1\n");
}

/// A configuration with two workers that can be read only once is there after each reload.
fn survives_reloads(builder: Builder) {
    let server = on_socket(builder);
    workers(&server, 2);
    for generation in 2..=4 {
        server.reload();
        server.wait_reloaded(generation);
        workers(&server, 2);
    }
}

#[test]
fn standard_input_is_remembered_for_reloads() {
    let piped = "#!/bin/sh\nexec \"$PROGRAM\" \"$@\" <<EOF\n[uwsgi]\nmaster = 1\nprocesses = 2\nEOF\n";
    survives_reloads(Server::app().wrapped_by(piped).args(["--ini", "-"]));
}

#[test]
fn a_descriptor_is_remembered_for_reloads() {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    std::io::Write::write_all(&mut writer, b"[uwsgi]\nmaster = 1\nprocesses = 2\n")
        .expect("room in the pipe");
    drop(writer);
    survives_reloads(Server::app().descriptor(12, reader).args(["--ini", "fd://12"]));
}

#[test]
fn warnings_name_file_and_line_and_what_was_meant() {
    let text = "[uwsgi]\nmaster = 1\nbase = %d\nproceses = 2\npidfile = %(base)/app.pid\n";
    let server = on_socket(Server::app().file("a.ini", text).arg("a.ini"));
    server.wait_for_log("a.ini:4: proceses = \"2\" is not an option; did you mean processes?");
    assert!(server.path("app.pid").exists());
    assert!(
        !server.log().lines().iter().any(|line| line.contains("a.ini:3")),
        "a used placeholder is silent"
    );
}

#[test]
fn with_strict_an_unknown_name_is_an_error() {
    let text = "[uwsgi]\nstrict = true\nproceses = 2\nthreads = none\n";
    let mut server = Server::app().file("a.ini", text).arg("a.ini").on_unix_socket("app.sock").spawn();
    let status = server.wait_exit(LIMIT);
    assert_eq!(status.code(), Some(1));
    server.wait_for_log("a.ini:3: proceses = \"2\" is not an option; did you mean processes?");
    server.wait_for_log("a.ini:4: threads = \"none\" is not a whole number");
}

#[test]
fn the_environment_of_the_application_follows_the_file() {
    let server = on_socket(
        Server::app()
            .file("a.ini", "[uwsgi]\nmaster = 1\nenv = TESTAPP_CONFIG=%done.json\n")
            .file("one.json", json!({ "version": "one" }).to_string())
            .file("two.json", json!({ "version": "two" }).to_string())
            .arg("a.ini"),
    );
    assert_eq!(server.get("/").text(), "hello one\n");
    write(&server, "a.ini", "[uwsgi]\nmaster = 1\nenv = TESTAPP_CONFIG=%dtwo.json\n");
    server.reload();
    assert_eq!(server.get("/").text(), "hello two\n");
}

#[test]
fn exit_ends_the_start_where_it_stands() {
    let text = "[uwsgi]\niprint = not on %h\nif-not-env = MEANT\nexit = 7\nendif =\nprocesses = none\n";
    let mut server = Server::app().file("a.ini", text).arg("a.ini").on_unix_socket("app.sock").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(7));
    server.wait_for_log("a.ini:4: exit ends the start with status 7");

    let text = text.replace("none", "2");
    let server = on_socket(Server::app().file("a.ini", text).arg("a.ini").env("MEANT", "1"));
    write(&server, "a.ini", "[uwsgi]\nif-reload = 1\nexit = 3\nendif =\n");
    assert!(refused(&server).contains("a.ini:3: exit ends the start with status 3"));
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_start_that_fails_goes_on_with_the_fallback() {
    for reason in ["processes = many", "http = /no/such/directory/app.sock", "exit = 1"] {
        let broken = format!("[uwsgi]\nfallback-config = b.ini\n{reason}\npidfile = a.pid\n");
        let fallback = "[uwsgi]\nhttp = app.sock\nmaster = true\nprocesses = 2\n";
        let server = Server::app().file("a.ini", broken).file("b.ini", fallback).arg("a.ini");
        let server = server.without_listener().start();
        server.wait_for_log("trying the fallback configuration b.ini");
        server.wait_ready();
        assert_eq!(get(&Target::Unix(server.path("app.sock")), "/").text(), "hello v1\n", "{reason}");
        server.reload();
        server.wait_reloaded(2);
        assert!(!server.path("a.pid").exists());
    }
}

#[test]
fn a_fallback_that_fails_is_the_end() {
    let text = "[uwsgi]\nfallback-config = a.ini\nprocesses = many\n";
    let mut server = Server::app().file("a.ini", text).arg("a.ini").on_unix_socket("app.sock").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("names itself as fallback-config");
}

#[test]
fn magic_variables_know_who_started_the_server_after_the_drop() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let text = "[uwsgi]\nmaster = true\nuid = 65534\ngid = 65534\nrelease = %u-%U-%g-%G\n";
    let builder = Server::app().copied().directory_mode(0o755).settings(json!({}));
    let server = builder.file("a.ini", text).arg("a.ini").start();
    for generation in 1..=3 {
        let master = crate::support::processes::title(server.pid());
        assert!(master.contains("0-root-0-root"), "generation {generation}: {master}");
        server.reload();
        server.wait_reloaded(generation + 1);
    }
}

#[test]
fn a_command_that_fails_is_named_with_its_line() {
    let text = "[uwsgi]\nmaster = true\ninclude = exec://cat part.ini; exit 3\n";
    let mut server = Server::app().file("a.ini", text).arg("a.ini").on_unix_socket("app.sock").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("a.ini:3: include = \"exec://cat part.ini; exit 3\"");
}

#[test]
fn what_the_machine_refuses_is_told_with_its_line() {
    for (line, text) in [
        ("uid = no-such-user", "uid: there is no user named \"no-such-user\" (a.ini:2)"),
        ("gid = no-such-group", "gid: there is no group named \"no-such-group\" (a.ini:2)"),
        ("chown-socket = no-such-user", "chown-socket: there is no user named \"no-such-user\" (a.ini:2)"),
        (
            "chdir = /no/such",
            "chdir: cannot enter /no/such: No such file or directory (os error 2) (a.ini:2)",
        ),
        ("pidfile = /no/such/pid", "No such file or directory (os error 2) (a.ini:2)"),
        ("http = /no/such/app.sock", "(a.ini:2)"),
    ] {
        let server = Server::app().file("a.ini", format!("[uwsgi]\n{line}\n")).arg("a.ini");
        let mut server = server.on_unix_socket("app.sock").spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{line}");
        server.wait_for_log(text);
    }
}
