//! Giving root away: everything that needs root comes before, everything else works without it.
//!
//! Most of this can only be shown when the tests themselves run as root, as they do in containers;
//! elsewhere these tests say that they were skipped.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};

use nix::sys::signal::Signal;

use crate::support::daemon::wait_for_text;
use crate::support::server::{Builder, mode};
use crate::support::{LIMIT, Server, eventually};

mod answers;
mod capabilities;
mod chroot;
mod ports;
mod rights;
mod root_master;

const NOBODY: u32 = 65534;

/// False, with a line that says so, when the tests cannot become another user.
fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// A server whose files any user can reach, with its own program: the build directory may be closed.
fn open_to_all() -> Builder {
    let builder = Server::app().copied().directory_mode(0o755);
    let program = builder.path("server-under-test");
    crate::support::server::set_mode(&program, 0o755);
    builder.settings(serde_json::json!({})).args(["--master", "--processes=2"])
}

/// A directory in the server's directory that belongs to nobody, as `RuntimeDirectory=` would make.
fn with_run(builder: Builder) -> Builder {
    let builder = builder.file("run/.keep", "");
    chown(builder.path("run"), Some(NOBODY), Some(NOBODY)).unwrap();
    builder
}

/// The ids in a line of `/proc/PID/status`: real, effective, saved, file system; or all groups.
fn ids(pid: u32, field: &str) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.split_ascii_whitespace().map(|id| id.parse().unwrap()).collect()
}

/// The master and its children: once those of an older generation have gone, a zygote and two workers.
fn everyone(server: &Server) -> Vec<u32> {
    let children = eventually("a zygote and two workers", LIMIT, || {
        Some(server.children()).filter(|children| children.len() == 3)
    });
    children.into_iter().chain([server.pid()]).collect()
}

fn assert_run_as(server: &Server, uid: u32, gid: u32, groups: &[u32]) {
    for pid in everyone(server) {
        let title = crate::support::processes::title(pid);
        assert_eq!(ids(pid, "Uid:"), [uid; 4], "{title}");
        assert_eq!(ids(pid, "Gid:"), [gid; 4], "{title}");
        let found: BTreeSet<_> = ids(pid, "Groups:").into_iter().collect();
        assert_eq!(found, groups.iter().copied().collect(), "{title}");
    }
}

#[test]
fn users_and_groups_are_named_or_numbered() {
    if !is_root() {
        return;
    }
    let cases: [(&[&str], u32, u32, &[u32]); 6] = [
        (&["--uid=nobody"], NOBODY, NOBODY, &[NOBODY]),
        (&["--uid=65534", "--gid=65534"], NOBODY, NOBODY, &[NOBODY]),
        (&["--uid=nobody", "--gid=daemon"], NOBODY, 1, &[1]),
        (&["--uid=12345", "--gid=54321"], 12345, 54321, &[54321]),
        (&["--uid=nobody", "--add-gid=daemon", "--add-gid=2"], NOBODY, NOBODY, &[1, 2]),
        (&["--gid=nogroup"], 0, NOBODY, &[NOBODY]),
    ];
    for (args, uid, gid, groups) in cases {
        let builder = Server::app().copied().directory_mode(0o755).settings(serde_json::json!({}));
        let server = builder.args(["--master", "--processes=2"]).args(args).start();
        assert_run_as(&server, uid, gid, groups);
        assert_eq!(server.get("/").text(), "hello v1\n", "{args:?}");
    }
}

#[test]
fn a_user_that_does_not_exist_is_an_error() {
    if !is_root() {
        return;
    }
    for (arg, text) in [
        ("--uid=no-such-user", "there is no user named \"no-such-user\""),
        ("--gid=no-such-group", "there is no group named \"no-such-group\""),
        ("--add-gid=no-such-group", "there is no group named \"no-such-group\""),
    ] {
        let mut server = Server::app().args([arg, "--pidfile=pid"]).spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{arg}");
        server.wait_for_log(text);
        assert!(!server.path("pid").exists());
    }
    // What is noticed only after sockets are bound takes them down again.
    let arguments = ["--uid=nobody", "--pidfile=pid", "--hook-as-user=exec:exit 3"];
    let mut server = Server::app().on_unix_socket("app.sock").args(arguments).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("hook-as-user");
    server.wait_for_log("app.sock stays behind: ");
}

#[test]
fn without_root_only_the_own_identity_can_be_asked_for() {
    if !is_root() {
        return;
    }
    let demoted = || {
        open_to_all().directory_mode(0o777).through([
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
    };
    let mut server = demoted().arg("--uid=daemon").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server
        .wait_for_log("cannot drop privileges: without root this process cannot become uid 1 (it is 65534)");
    let server = demoted().args(["--uid=nobody", "--gid=nogroup"]).start();
    assert_run_as(&server, NOBODY, NOBODY, &[]);
    server.reload();
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn what_is_made_before_and_after_the_drop_has_its_owner_and_mode() {
    if !is_root() {
        return;
    }
    let builder = with_run(open_to_all().on_unix_socket("run/app.sock").arg("--chown-socket=nobody:nogroup"));
    let server = builder
        .args(["--uid=nobody", "--gid=nogroup", "--chmod-socket=660", "--umask=077"])
        .args(["--pidfile=run/pid", "--pidfile2=run/pid2", "--safe-pidfile=run/safe", "--logto2=run/log"])
        .arg("--master-fifo=run/fifo")
        .spawn();
    wait_for_text(&server.path("run/log"), "ready: ");
    for (name, bits) in [("app.sock", 0o660), ("fifo", 0o600), ("pid2", 0o644), ("safe", 0o644)] {
        let path = server.path("run").join(name);
        let found = fs::symlink_metadata(&path).unwrap();
        assert_eq!((found.uid(), found.gid(), mode(&path)), (NOBODY, NOBODY, bits), "{name}");
    }
    assert_eq!(mode(&server.path("run/pid")), 0o644);
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn reloads_commands_and_vacuum_work_after_the_drop() {
    if !is_root() {
        return;
    }
    let builder = with_run(open_to_all()).on_unix_socket("run/app.sock");
    let builder = builder.args(["--uid=nobody", "--chown-socket=nobody", "--vacuum"]);
    let mut server =
        builder.args(["--pidfile=run/pid", "--safe-pidfile=run/safe", "--master-fifo=run/fifo"]).start();
    for generation in 2..=4 {
        server.signal(Signal::SIGHUP);
        server.wait_reloaded(generation);
        assert_run_as(&server, NOBODY, NOBODY, &[NOBODY]);
        assert_eq!(server.get("/info").json()["generation"], generation);
        let status = server.command(["--status", "run/pid"]);
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        assert_eq!(status.status.code(), Some(0), "{text}");
        assert!(
            text.contains(&format!("is running: generation {generation}")) && text.contains("worker 2 "),
            "{text}"
        );
    }
    let stop = server.command(["--stop", "run/pid"]);
    assert_eq!(stop.status.code(), Some(0), "{stop:?}");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    for name in ["run/pid", "run/safe", "run/app.sock", "run/fifo"] {
        assert!(!server.path(name).exists(), "{name} stays");
    }
}

#[test]
fn what_vacuum_may_not_remove_it_names() {
    if !is_root() {
        return;
    }
    let builder = with_run(open_to_all()).on_unix_socket("app.sock").args(["--uid=nobody", "--vacuum"]);
    let mut server = builder.arg("--pidfile=pid").start();
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    for (name, line) in [("pid", "pidfile "), ("app.sock", "VACUUM: unix socket app.sock: ")] {
        assert!(server.path(name).exists());
        let line = server.wait_for_log(line);
        assert!(line.contains("Permission denied") && line.contains("] WARN "), "{line}");
    }
    // The stale pidfile misleads nobody.
    assert_eq!(server.command(["--status", "pid"]).status.code(), Some(3));
}

#[test]
fn the_status_of_another_users_server_is_seen_by_root_and_by_itself() {
    if !is_root() {
        return;
    }
    let server = with_run(open_to_all()).args(["--uid=nobody", "--pidfile=pid"]).start();
    let as_user = |user: &str| {
        // Another primary group would be as good as another user to the kernel, see proc(5).
        let ids = [format!("--reuid={user}"), format!("--regid={user}")];
        let output = std::process::Command::new("setpriv")
            .args(ids)
            .args(["--clear-groups", "--"])
            .arg(server.program())
            .arg("--status")
            .arg(server.path("pid"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{user}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    for user in ["0", "65534"] {
        let text = as_user(user);
        assert!(text.contains("is running: generation 1") && text.contains("worker 1 "), "{user}: {text}");
    }
    let text = as_user("1");
    assert!(text.contains("is running") && !text.contains("worker 1 "), "{text}");
}

#[test]
fn root_without_uid_is_warned() {
    if !is_root() {
        return;
    }
    let server = Server::app().start();
    let line = server.wait_for_log("you are running appserver as root !!!");
    assert!(line.contains("] WARN ") && line.contains("uid and gid"), "{line}");
}
