//! `cap`, `cap-ambient`, `no-new-privs`: exactly what was asked for, in every process and after reloads.

use std::fs;

use super::{NOBODY, everyone, is_root, open_to_all};
use crate::support::server::Worker;
use crate::support::{LIMIT, Server};

const SETUID: u64 = 1 << 7;
const NET_BIND_SERVICE: u64 = 1 << 10;

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().to_owned()
}

fn status(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap()
}

/// A set of capabilities as the kernel shows it.
fn set(status: &str, name: &str) -> u64 {
    u64::from_str_radix(&field(status, name), 16).unwrap()
}

/// The four sets of the master, the zygote and the workers, with ambient ones of the latter two.
fn assert_capabilities(server: &Server, held: u64, ambient: u64) {
    for pid in everyone(server) {
        let (found, title) = (status(pid), crate::support::processes::title(pid));
        for name in ["CapEff:", "CapPrm:", "CapInh:"] {
            assert_eq!(set(&found, name), held, "{name} of {title}");
        }
        let expected = if pid == server.pid() { held } else { ambient };
        assert_eq!(set(&found, "CapAmb:"), expected, "{title}");
    }
}

#[test]
fn nothing_is_left_without_them_and_root_cannot_be_regained() {
    if !is_root() {
        return;
    }
    let server = open_to_all().args(["--uid=nobody", "--no-new-privs"]).start();
    for _ in 0..2 {
        assert_capabilities(&server, 0, 0);
        assert!(everyone(&server).iter().all(|pid| field(&status(*pid), "NoNewPrivs:") == "1"));
        assert_eq!(server.get("/become?uid=0").text(), "EPERM: Operation not permitted\n");
        server.reload();
    }
    let server = open_to_all().args(["--uid=nobody"]).start();
    assert!(everyone(&server).iter().all(|pid| field(&status(*pid), "NoNewPrivs:") == "0"));
}

#[test]
fn those_that_are_named_are_kept_and_reach_programs_only_when_ambient() {
    if !is_root() {
        return;
    }
    for (args, held, ambient) in [
        (&["--cap=net_bind_service"][..], NET_BIND_SERVICE, 0),
        (&["--cap-ambient=CAP_NET_BIND_SERVICE", "--no-new-privs"], NET_BIND_SERVICE, NET_BIND_SERVICE),
        (
            &["--cap=setuid,net_bind_service", "--cap-ambient=net_bind_service"],
            SETUID | NET_BIND_SERVICE,
            NET_BIND_SERVICE,
        ),
    ] {
        let server = open_to_all().arg("--uid=nobody").args(args).start();
        for _ in 0..2 {
            super::assert_run_as(&server, NOBODY, NOBODY, &[NOBODY]);
            assert_capabilities(&server, held, ambient);
            let program = server.get("/program").text();
            assert_eq!(set(&program, "CapEff:"), ambient, "{args:?}");
            server.reload();
        }
        let expected = if held & SETUID != 0 { "now 0\n" } else { "EPERM: Operation not permitted\n" };
        assert_eq!(server.get("/become?uid=0").text(), expected, "{args:?}");
    }
}

#[test]
fn a_worker_that_is_replaced_has_the_same() {
    if !is_root() {
        return;
    }
    let server = open_to_all().args(["--uid=nobody", "--cap=net_bind_service"]).start();
    let before = server.workers();
    crate::support::processes::kill(before[0].pid, nix::sys::signal::Signal::SIGKILL);
    let is_whole = |workers: &[Worker]| workers.len() == 2 && workers != before;
    server.wait_workers("the worker is replaced", is_whole);
    server.reload();
    assert_capabilities(&server, NET_BIND_SERVICE, 0);
}

#[test]
fn without_a_user_they_are_all_that_is_left_of_root() {
    if !is_root() {
        return;
    }
    let server = open_to_all().arg("--cap=net_bind_service").start();
    for _ in 0..2 {
        for pid in everyone(&server) {
            let found = status(pid);
            for name in ["CapEff:", "CapPrm:", "CapBnd:"] {
                assert_eq!(set(&found, name), NET_BIND_SERVICE, "{name}");
            }
        }
        // Not even a program that root executes.
        assert_eq!(set(&server.get("/program").text(), "CapEff:"), NET_BIND_SERVICE);
        server.reload();
    }
}

#[test]
fn one_that_does_not_exist_or_cannot_be_kept_is_an_error() {
    if !is_root() {
        return;
    }
    let mut server = Server::app().arg("--cap=setuid,sudo").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("contains \"sudo\", which is no capability");

    let without = ["setpriv", "--bounding-set=-net_raw", "--"];
    let arguments = ["--uid=nobody", "--cap=net_raw,setuid"];
    let mut server = open_to_all().through(without).on_unix_socket("app.sock").args(arguments).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("cannot drop privileges: this process does not have net_raw itself");
    assert!(!server.path("app.sock").exists());
}
