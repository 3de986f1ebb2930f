//! Commands for a server that has dropped its privileges: by root, with and without `CAP_SYS_PTRACE`, and by
//! the user it runs as.

use std::process::{Command, Output};

use super::{is_root, open_to_all, with_run};
use crate::support::Server;

fn asked(server: &Server, launcher: &[&str], args: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(launcher).arg("--").arg(server.program()).args(args);
    command.current_dir(server.path("")).output().unwrap()
}

fn assert_answers(server: &Server, launcher: &[&str]) {
    let status = asked(server, launcher, &["--status", "run/pid"]);
    let text = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        text.contains("is running: generation ") && text.contains("worker 2 "),
        "{launcher:?}: {status:?}"
    );
    let reload = asked(server, launcher, &["--reload", "run/pid", "--wait=60"]);
    let text = String::from_utf8_lossy(&reload.stdout).into_owned();
    assert_eq!(reload.status.code(), Some(0), "{launcher:?}: {reload:?}");
    assert!(text.contains("asked appserver ") && text.contains(" complete"), "{launcher:?}: {text}");
}

#[test]
fn root_without_ptrace_reads_them_in_the_place_of_the_user() {
    if !is_root() {
        return;
    }
    for args in [&["--uid=nobody"][..], &["--uid=nobody", "--cap=net_bind_service"]] {
        let server = with_run(open_to_all()).args(args).arg("--pidfile=run/pid").start();
        assert_answers(&server, &["--bounding-set=-sys_ptrace,-perfmon"]);
        assert_answers(&server, &["--bounding-set=+all"]);
    }
}

#[test]
fn the_user_reads_them() {
    if !is_root() {
        return;
    }
    let server = with_run(open_to_all()).args(["--uid=nobody", "--pidfile=run/pid"]).start();
    assert_answers(&server, &["--reuid=65534", "--regid=65534", "--clear-groups"]);
}

#[test]
fn whoever_may_not_read_them_is_told_before_anything_is_asked() {
    if !is_root() {
        return;
    }
    // What the server may do, its user may not see without it (ptrace(2)).
    let args = ["--uid=nobody", "--pidfile=run/pid", "--cap=net_bind_service"];
    let server = with_run(open_to_all()).args(args).start();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let refused = asked(&server, &user, &["--reload", "run/pid", "--wait=60"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text.contains("cannot be read") && text.contains("be root"), "{text}");
    assert_eq!(server.get("/info").json()["generation"], 1);
    // Without --wait it works all the same.
    assert_eq!(asked(&server, &user, &["--reload", "run/pid"]).status.code(), Some(0));
    server.wait_reloaded(2);
}
