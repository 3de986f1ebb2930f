//! A machine that is short of memory or of watches, or whose clock jumps.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use crate::support::faults::{Group, naps, skip};
use crate::support::{Client, LIMIT, Server, eventually, python_app, uwsgi_app};

#[test]
fn a_worker_that_the_kernel_kills_for_its_memory_is_replaced() {
    let Some(group) = Group::new("memory", "oom") else { return };
    group.set("memory.limit_in_bytes", "256M");
    let code = "def grow(): return len(b'x' * (1 << 30))";
    let server = python_app::server(code).through(group.launcher()).start();
    let before = server.workers();
    let mark = server.log().mark();
    assert!(Client::new(server.target(), LIMIT).get("/grow").is_err(), "there is room for that");
    let line = server.wait_for_log_after(mark, "DAMN ! worker ");
    assert!(line.contains("died, killed by signal 9 :(") && line.contains("GET /grow"), "{line}");
    let cause = "(out-of-memory: killed by the kernel, out of memory (oom_kill of the control group: 0, now ";
    assert!(line.contains(cause), "{line}");
    assert_eq!(server.get("/hello").text(), "hello");
    server.wait_workers("the other is untouched", |now| {
        now.len() == 2 && now.iter().filter(|worker| before.contains(worker)).count() == 1
    });
    server.reload();
    assert_eq!(server.get("/hello").text(), "hello");
}

#[test]
fn without_watches_touch_files_are_looked_at_every_second() {
    let launcher = ["unshare", "--user", "--map-root-user", "sh", "-c"];
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances && exec \"$@\"";
    let trial = Command::new(launcher[0]).args(&launcher[1..]).args([limit, "sh", "true"]).output();
    if !trial.is_ok_and(|output| output.status.success()) {
        return skip("no user namespace with limits of its own can be had");
    }
    let launcher = launcher.into_iter().chain([limit, "sh"]);
    let server = Server::app()
        .args(["--master", "--processes=2", "--touch-reload=touched"])
        .with_fifo()
        .through(launcher)
        .start();
    let line = server.wait_for_log("looking once a second instead");
    assert!(line.contains("Too many open files"), "{line}");
    server.file("touched", "");
    server.wait_reloaded(2);
    server.fifo("r");
    server.wait_reloaded(3);
    assert_eq!(server.get("/").text(), "hello v1\n");
}

/// The library that lets the clock of a process run ahead or behind, by what a file says at the moment.
fn faketime() -> Option<PathBuf> {
    let directories = fs::read_dir("/usr/lib").ok()?.flatten();
    directories.map(|it| it.path().join("faketime/libfaketimeMT.so.1")).find(|it| it.exists())
}

#[test]
fn no_timer_minds_a_clock_that_jumps() {
    let Some(faketime) = faketime() else { return skip("libfaketime is not installed") };
    let code = r#"
def handler(number):
    note("signal", number)

uwsgi.register_signal(1, "worker1", handler)
uwsgi.add_timer(1, 3600)
uwsgi.register_signal(2, "worker1", handler)
uwsgi.add_timer(2, 1)

def hello():
    return "hello"
"#;
    let server = uwsgi_app::server(code);
    let clock = server.path("clock");
    let server = server
        .file("clock", "+0\n")
        .arg("--processes=1")
        .env("LD_PRELOAD", faketime)
        .env("FAKETIME_TIMESTAMP_FILE", clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .start();
    let workers = server.workers();
    for (jump, year) in [("+3650d", 10), ("-3650d", -10), ("+0", 0)] {
        server.file("clock", format!("{jump}\n"));
        let (mark, napped) = (server.log().mark(), naps(server.pid()));
        for _ in 0..20 {
            assert_eq!(uwsgi_app::call(&server, "hello"), "hello");
        }
        // Nothing wakes the master but the timer, and what is said about it.
        let ticks = uwsgi_app::noted(&server, "signal 2");
        eventually("the timer goes on", LIMIT, || {
            (uwsgi_app::noted(&server, "signal 2") >= ticks + 3).then_some(())
        });
        let (woken, ticked) = (naps(server.pid()) - napped, uwsgi_app::noted(&server, "signal 2") - ticks);
        assert!(woken <= 20 + 10 * ticked as u64, "it spins: {woken} naps in {ticked} seconds");
        let lines = server.log().lines().split_off(mark.line());
        let lines: Vec<_> = lines.iter().filter(|line| line.contains("GET /hello")).collect();
        for line in &lines {
            let (_, took) = line.split_once(" bytes in ").expect("a request line");
            let took: u64 = took.split(' ').next().and_then(|it| it.parse().ok()).expect("a number");
            assert!(took < 60_000, "{line}");
        }
        // The first one may still be told by the clock as it was before.
        let line = lines.last().expect("twenty, all written while nothing else was to be done");
        let expected = this_year() + year;
        assert!((expected - 1..=expected + 1).any(|year| line.contains(&format!(" {year}] GET"))), "{line}");
    }
    assert_eq!(uwsgi_app::noted(&server, "signal 1"), 0, "an hour has not passed");
    assert_eq!(server.workers(), workers);
    server.reload();
    assert_eq!(uwsgi_app::call(&server, "hello"), "hello");
}

/// The year it is, give or take one.
fn this_year() -> i64 {
    const SECONDS: u64 = 31_556_952;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than that");
    1970 + i64::try_from(now.as_secs() / SECONDS).expect("a small number")
}
