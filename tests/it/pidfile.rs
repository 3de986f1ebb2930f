//! Pidfiles: one live owner, and only the owner removes its file.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use nix::sys::signal::Signal;

use crate::support::server::mode;
use crate::support::{LIMIT, Server, eventually};

fn start() -> Server {
    Server::app().args(["--master", "--pidfile=pid", "--vacuum"]).start()
}

fn content(server: &Server) -> String {
    fs::read_to_string(server.path("pid")).unwrap()
}

#[test]
fn the_pidfile_names_the_master_through_every_reload() {
    let server = start();
    assert_eq!(content(&server), format!("{}\n", server.pid()));
    server.reload();
    assert_eq!(content(&server), format!("{}\n", server.pid()));
}

#[test]
fn a_second_server_is_refused_the_pidfile_of_a_live_one() {
    let server = start();
    let path = server.path("pid").display().to_string();
    let mut second = Server::app().args(["--master", &format!("--pidfile={path}"), "--vacuum"]).spawn();
    assert_eq!(second.wait_exit(LIMIT).code(), Some(1));
    second.wait_for_log(&server.pid().to_string());
    assert_eq!(content(&server), format!("{}\n", server.pid()));
}

#[test]
fn a_stale_pidfile_is_replaced() {
    let mut first = start();
    let stale = first.pid();
    first.signal(Signal::SIGKILL);
    first.wait_exit(LIMIT);
    let second = Server::app().file("pid", format!("{stale}\n")).args(["--master", "--pidfile=pid"]).start();
    assert_eq!(content(&second), format!("{}\n", second.pid()));
}

#[test]
fn vacuum_removes_the_pidfile_unless_it_is_another_servers() {
    let mut server = start();
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    assert!(!server.path("pid").exists());

    let mut server = start();
    fs::write(server.path("pid"), "1\n").unwrap();
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    assert_eq!(content(&server), "1\n");
}

#[test]
fn a_running_server_is_commanded_by_its_pidfile() {
    let mut server = start();
    assert_eq!(server.command(["--status", "pid"]).status.code(), Some(0));
    assert_eq!(server.command(["--reload", "pid"]).status.code(), Some(0));
    server.wait_reloaded(2);
    assert_eq!(server.command(["--stop", "pid"]).status.code(), Some(0));
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn commands_to_a_server_that_does_not_run_say_so() {
    let mut server = start();
    server.signal(Signal::SIGKILL);
    server.wait_exit(LIMIT);
    for (option, code) in [("--status", 3), ("--reload", 1), ("--stop", 1)] {
        for pidfile in ["pid", "no-such-file"] {
            let output = server.command([option, pidfile]);
            assert_eq!(output.status.code(), Some(code), "{option} {pidfile}: {output:?}");
            assert!(
                String::from_utf8_lossy(&output.stderr).contains(pidfile),
                "{option} {pidfile}: {output:?}"
            );
        }
    }
}

/// Exit code and words of a command, to whichever stream they went.
fn command(server: &Server, option: &str, pidfile: &str) -> (i32, String) {
    let output = server.command([option, pidfile]);
    let words = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap(), String::from_utf8_lossy(&words).into_owned())
}

#[test]
fn the_two_pidfiles_are_there_from_the_start_and_the_safe_ones_when_the_server_is_up() {
    let builder = Server::app().file("gate/.keep", "").args(["--master", "--pidfile=pid", "--pidfile2=pid2"]);
    let builder = builder.args(["--safe-pidfile=safe", "--safe-pidfile2=safe2", "--vacuum", "--umask=077"]);
    let mut server = builder.settings(serde_json::json!({ "load_ms": 300 })).spawn();
    let pid = format!("{}\n", server.pid());
    let read = |name: &str| fs::read_to_string(server.path(name)).ok();
    for name in ["pid", "pid2"] {
        eventually(name, LIMIT, || read(name).filter(|content| *content == pid));
    }
    // Nothing is ever seen under the name but the whole number, and then the server is ready.
    for name in ["safe2", "safe"] {
        assert_eq!(eventually(name, LIMIT, || read(name)), pid);
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
    server.wait_ready();
    let files = ["pid", "pid2", "safe", "safe2"];
    for name in files {
        assert_eq!(mode(&server.path(name)), 0o644, "{name}: whatever the umask");
    }
    server.reload();
    for name in files {
        assert_eq!(read(name).as_ref(), Some(&pid), "{name}");
        assert_eq!(command(&server, "--status", name).0, 0, "{name}");
    }
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    for name in files {
        assert!(!server.path(name).exists(), "{name} stays");
    }
}

#[test]
fn no_safe_pidfile_tells_of_a_server_that_did_not_start() {
    let mut server = Server::app()
        .settings(serde_json::json!({ "load": "fail" }))
        .args(["--master", "--safe-pidfile=safe", "--pidfile=pid"])
        .spawn();
    server.wait_exit(LIMIT);
    assert!(!server.path("safe").exists() && !server.path("pid").exists());
}

#[test]
fn a_pidfile_is_never_written_through_a_link() {
    for option in ["pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2"] {
        let builder =
            Server::app().file("precious", "precious").args(["--master", &format!("--{option}=pid")]);
        symlink(builder.path("precious"), builder.path("pid")).unwrap();
        let mut server = builder.spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{option}");
        server.wait_for_log("is not a regular file; remove it or choose another path");
        assert_eq!(content(&server), "precious", "{option}");
    }
}

#[test]
fn one_file_may_have_several_names() {
    let mut server =
        Server::app().args(["--master", "--pidfile=pid", "--safe-pidfile=pid", "--vacuum"]).start();
    assert_eq!(content(&server), format!("{}\n", server.pid()));
    assert_eq!(command(&server, "--stop", "pid").0, 0);
    server.wait_exit(LIMIT);
    assert!(!server.path("pid").exists());
}

#[test]
fn commands_tell_what_they_found() {
    let mut server = start();
    let (code, words) = command(&server, "--status", "pid");
    assert_eq!(code, 0);
    let line = words.lines().next().unwrap();
    assert!(
        line.starts_with(&format!("appserver {} is running: generation 1, 0 reloads, up ", server.pid())),
        "{words}"
    );
    assert!(words.lines().nth(1).is_some_and(|line| line.starts_with("generation 1 serves: ")), "{words}");
    assert!(words.lines().nth(2).is_some_and(|line| line.starts_with("listen queue of socket ")), "{words}");
    assert!(words.lines().nth(3).is_some_and(|line| line.starts_with("worker 1 (pid: ")), "{words}");
    assert_eq!(
        command(&server, "--reload", "pid"),
        (0, format!("asked appserver {} to reload\n", server.pid()))
    );
    server.wait_reloaded(2);
    assert!(command(&server, "--status", "pid").1.contains("generation 2, 1 reloads"));
    let pid = server.pid();
    assert_eq!(command(&server, "--stop", "pid"), (0, format!("asked appserver {pid} to stop\n")));
    server.wait_exit(LIMIT);
    assert_eq!(command(&server, "--status", "pid").0, 3);
}

#[test]
fn a_stranger_with_the_servers_number_is_never_signalled() {
    let server = Server::app().start();
    // A process that any of the signals would end: it is this test's own.
    let mut stranger = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    fs::write(server.path("stale"), format!("{}\n", stranger.id())).unwrap();
    for (option, expected) in [("--reload", 1), ("--stop", 1), ("--status", 4)] {
        let (code, words) = command(&server, option, "stale");
        assert_eq!(code, expected, "{option}: {words}");
        assert!(words.contains("does not own the file; nothing was done to it"), "{option}: {words}");
        assert!(words.contains(&stranger.id().to_string()), "{option}: {words}");
    }
    assert_eq!(stranger.try_wait().unwrap(), None, "the stranger was signalled");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    let (code, words) = command(&server, "--status", "stale");
    assert!(code == 3 && words.contains("has ended"), "{code} {words}");
}

#[test]
fn what_is_no_pidfile_is_said_to_be_none() {
    let server = Server::app().file("empty", "").file("text", "hello\n").file("many", "1\n2\n").start();
    fs::create_dir(server.path("directory")).unwrap();
    for (pidfile, words, status) in [
        ("empty", "does not hold a process id", 4),
        ("text", "does not hold a process id", 4),
        ("many", "does not hold a process id", 4),
        ("directory", "cannot read pidfile directory", 4),
        ("missing", "there is no pidfile missing", 3),
    ] {
        for (option, code) in [("--reload", 1), ("--stop", 1), ("--status", status)] {
            let (found, said) = command(&server, option, pidfile);
            assert_eq!(found, code, "{option} {pidfile}: {said}");
            assert!(said.contains(words), "{option} {pidfile}: {said}");
        }
    }
}

#[test]
fn a_pidfile_that_may_not_be_read_leaves_the_question_open() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let server = Server::app().copied().directory_mode(0o755).file("secret", "1\n").start();
    crate::support::server::set_mode(&server.path("secret"), 0o600);
    assert_eq!(fs::metadata(server.path("secret")).unwrap().uid(), 0);
    for (option, code) in [("--reload", 1), ("--stop", 1), ("--status", 4)] {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .args([server.program(), option.as_ref(), &server.path("secret")])
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{option}: {words}");
        assert!(words.contains("Permission denied"), "{option}: {words}");
    }
}

#[test]
fn a_user_who_may_not_signal_the_server_is_told_so() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let server = Server::app().copied().directory_mode(0o755).args(["--master", "--pidfile=pid"]).start();
    for option in ["--reload", "--stop"] {
        let output = std::process::Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .args([server.program(), option.as_ref(), &server.path("pid")])
            .output()
            .unwrap();
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{option}: {words}");
        assert!(words.contains("not permitted"), "{option}: {words}");
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
}
