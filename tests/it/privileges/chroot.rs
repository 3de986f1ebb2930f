//! `chroot`: everything but the first pidfile and log is inside, reloads included.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use super::{everyone, ids, is_root, open_to_all};
use crate::support::server::{Builder, copy_program, set_mode};
use crate::support::{LIMIT, Server};

/// Gives the jail what `docs/privileges.md` says, in a mount namespace of the server.
const MOUNTS: &str = "mount --make-rprivate / && mount --rbind /proc jail/proc && \
                      mount --bind /dev/null jail/dev/null && exec \"$@\"";

/// A server with a root directory of its own, which has the binary with its libraries.
fn jailed() -> Builder {
    let builder = open_to_all().file("jail/dev/null", "").file("jail/proc/.keep", "");
    let builder = builder
        .file("jail/run/.keep", "")
        .file("jail/testapp.json", "{}")
        .env("TESTAPP_CONFIG", "/testapp.json");
    let binary = builder.path("jail/app");
    copy_program(builder.program(), &binary);
    set_mode(&binary, 0o755);
    for library in libraries(&builder) {
        let inside = builder.path("jail").join(library.strip_prefix("/").unwrap());
        fs::create_dir_all(inside.parent().unwrap()).unwrap();
        fs::copy(&library, &inside).unwrap();
    }
    let passwd = "nobody:x:65534:65534::/:/bin/false\ninsider:x:12345:54321::/:/bin/false\n";
    let builder = builder.file("jail/etc/passwd", passwd).file("jail/etc/nsswitch.conf", "passwd: files\n");
    builder.args([format!("--chroot={}", binary.parent().unwrap().display())])
}

fn mounted(builder: Builder) -> Builder {
    builder.run_from("jail/app").through(["unshare", "--mount", "sh", "-c", MOUNTS, "sh"])
}

fn libraries(builder: &Builder) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(builder.program()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

fn root_of(pid: u32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/root")).unwrap()
}

#[test]
fn all_processes_are_inside_and_stay_there() {
    if !is_root() {
        return;
    }
    let builder = mounted(jailed());
    std::os::unix::fs::chown(builder.path("jail/run"), Some(12345), None).unwrap();
    let outside = builder.path("pid");
    let args =
        ["--uid=insider", "--http=/run/app.sock", "--safe-pidfile=/run/safe", "--master-fifo=/run/fifo"];
    let mut server = builder.args(args).arg(format!("--pidfile={}", outside.display())).start();
    for _ in 0..2 {
        for pid in everyone(&server) {
            assert_eq!(root_of(pid), server.path("jail"));
            // The name is of the passwd inside.
            assert_eq!(ids(pid, "Uid:"), [12345; 4]);
            assert_eq!(ids(pid, "Gid:"), [54321; 4]);
        }
        assert_eq!(server.get("/").text(), "hello v1\n");
        for name in ["app.sock", "fifo", "safe"] {
            assert!(server.path("jail/run").join(name).exists(), "{name}");
        }
        let reload = server.command(["--reload", "pid", "--wait=60"]);
        assert_eq!(reload.status.code(), Some(0), "{reload:?}");
    }
    let lines = server.log().lines();
    let complaint = lines.iter().find(|line| line.contains("] WARN ") || line.contains("] ERROR "));
    assert_eq!(complaint, None);
    assert_eq!(fs::metadata(&outside).unwrap().uid(), 0);
    server.command(["--stop", "pid"]);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn what_is_missing_inside_is_told_before_anything_is_bound() {
    if !is_root() {
        return;
    }
    let refused = |builder: Builder, texts: &[&str]| {
        let mut server = builder.arg("--uid=nobody").spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{texts:?}");
        let line = server.wait_for_log("cannot start: chroot: ");
        for text in texts {
            assert!(line.contains(text), "{text:?} is not in {line}");
        }
    };
    refused(jailed().run_from("jail/app"), &["has no /proc/self/fd", "mount --bind /proc "]);
    let outside =
        jailed().run_from("server-under-test").through(["unshare", "--mount", "sh", "-c", MOUNTS, "sh"]);
    refused(outside, &["has no binary for the start and reloads", "copy it there"]);
    let builder = open_to_all().arg("--chroot=/no/such/directory");
    refused(builder, &["cannot make /no/such/directory the root: No such file or directory"]);
}

#[test]
fn relative_paths_that_would_change_their_meaning_are_refused() {
    if !is_root() {
        return;
    }
    let mut server = mounted(jailed()).args(["--uid=nobody", "--pidfile=pid"]).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("pidfile: pid is relative, and would be another file from inside the chroot");
}

#[test]
fn only_root_may() {
    if !is_root() {
        return;
    }
    let user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut server: Server = open_to_all().arg("--chroot=/tmp").through(user).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log(
        "chroot: cannot make /tmp the root: Operation not permitted (os error 1); only root may",
    );
}
