//! Later than usual: `master-as-root`, `drop-after-apps`, `drop-after-init`; and at once: `immediate-uid`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::signal::Signal;

use super::{NOBODY, everyone, ids, is_root, open_to_all, with_run};
use crate::support::LIMIT;
use crate::support::Server;
use crate::support::daemon::wait_for_text;
use crate::support::server::{Worker, set_mode};

/// The master is root, everybody else is nobody.
fn assert_only_master_is_root(server: &Server) {
    assert_eq!(ids(server.pid(), "Uid:"), [0; 4]);
    for pid in everyone(server).into_iter().filter(|pid| *pid != server.pid()) {
        assert_eq!(ids(pid, "Uid:"), [NOBODY; 4]);
        assert_eq!(ids(pid, "Gid:"), [NOBODY; 4]);
        assert_eq!(ids(pid, "Groups:"), [NOBODY]);
    }
    assert_eq!(server.get("/become?uid=0").text(), "EPERM: Operation not permitted\n");
}

#[test]
fn a_master_that_stays_root_reloads_repairs_and_cleans_up() {
    if !is_root() {
        return;
    }
    let builder = open_to_all().on_unix_socket("app.sock").args(["--uid=nobody", "--master-as-root"]);
    let builder = builder.args(["--chown-socket=nobody", "--pidfile=pid", "--safe-pidfile=safe"]);
    // Nothing of this directory is nobody's: all of it needs root.
    let mut server = builder.args(["--master-fifo=fifo", "--vacuum"]).start();
    for _ in 0..2 {
        assert_only_master_is_root(&server);
        let asked = server.command(["--reload", "pid", "--wait=60"]);
        assert_eq!(asked.status.code(), Some(0), "{asked:?}");
    }
    let before = server.workers();
    crate::support::processes::kill(before[0].pid, nix::sys::signal::Signal::SIGKILL);
    let is_whole = |workers: &[Worker]| workers.len() == 2 && workers != before;
    server.wait_workers("the worker is replaced", is_whole);
    crate::support::processes::kill(server.zygote(), Signal::SIGKILL);
    server.reload();
    assert_only_master_is_root(&server);

    let stop = server.command(["--stop", "pid", "--wait=60"]);
    assert_eq!(stop.status.code(), Some(0), "{stop:?}");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    for name in ["pid", "safe", "app.sock", "fifo"] {
        assert!(!server.path(name).exists(), "{name} stays");
    }
    assert!(!server.log().lines().iter().any(|line| line.contains("you are running appserver as root")));
}

#[test]
fn a_zygote_dies_with_a_root_master_that_is_killed() {
    if !is_root() {
        return;
    }
    let mut server = open_to_all().args(["--uid=nobody", "--master-as-root"]).start();
    server.signal(Signal::SIGKILL);
    // Everybody who has the log.
    server.wait_exit(LIMIT);
}

#[test]
fn an_application_that_only_root_can_load_is_loaded_before_the_drop() {
    if !is_root() {
        return;
    }
    let secret = || {
        let builder = open_to_all().arg("--uid=nobody");
        set_mode(&builder.path("testapp.json"), 0o600);
        builder
    };
    for args in [&[][..], &["--master-as-root"], &["--drop-after-init"]] {
        let mut server = secret().args(args).spawn();
        assert_ne!(server.wait_exit(LIMIT).code(), Some(0), "{args:?}");
        server.wait_for_log("no application: ");
    }
    let server = secret().arg("--drop-after-apps").start();
    for _ in 0..2 {
        assert_only_master_is_root(&server);
        server.reload();
    }
}

#[test]
fn a_hook_of_the_user_runs_as_the_user_whoever_the_master_is() {
    if !is_root() {
        return;
    }
    for arg in ["--master-as-root", "--drop-after-apps", "--drop-after-init"] {
        let builder = with_run(open_to_all()).args(["--uid=nobody", arg]);
        let server = builder.args(["--hook-as-root=write:root x", "--hook-as-user=write:run/user x"]).start();
        let owner = |name: &str| fs::metadata(server.path(name)).unwrap().uid();
        assert_eq!((owner("root"), owner("run/user")), (0, NOBODY), "{arg}");
    }
}

#[test]
fn log_and_pidfile_can_be_opened_by_root_with_drop_after_init() {
    if !is_root() {
        return;
    }
    let files = ["--pidfile2=pid2", "--logto2=log"];
    let mut server = open_to_all().args(["--uid=nobody"]).args(files).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    let server = open_to_all().args(["--uid=nobody", "--drop-after-init"]).args(files).spawn();
    wait_for_text(&server.path("log"), "ready: ");
    for name in ["pid2", "log"] {
        assert_eq!(fs::metadata(server.path(name)).unwrap().uid(), 0, "{name}");
    }
    super::assert_run_as(&server, NOBODY, NOBODY, &[NOBODY]);
}

#[test]
fn at_once_means_before_anything_is_opened() {
    if !is_root() {
        return;
    }
    let builder = with_run(open_to_all()).on_unix_socket("run/app.sock");
    let builder = builder.args(["--immediate-uid=nobody", "--immediate-gid=nogroup", "--logto=run/log"]);
    let server = builder.args(["--pidfile=run/pid", "--no-initgroups"]).spawn();
    wait_for_text(&server.path("run/log"), "ready: ");
    for name in ["app.sock", "log", "pid"] {
        assert_eq!(fs::metadata(server.path("run").join(name)).unwrap().uid(), NOBODY, "{name}");
    }
    super::assert_run_as(&server, NOBODY, NOBODY, &[]);
    server.signal(Signal::SIGHUP);
    wait_for_text(&server.path("run/log"), "complete: generation 2 serves");
    super::assert_run_as(&server, NOBODY, NOBODY, &[]);
}
