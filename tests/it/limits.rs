//! `limit-as`, `limit-nproc`, `max-fd`, `prio`, `cpu-affinity`: who has them, and what a reload can change.
//!
//! What needs root is skipped elsewhere.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::support::faults::skip;
use crate::support::server::{Builder, set_mode};
use crate::support::{LIMIT, Server, python_app};

const UNLIMITED: u64 = u64::MAX;
const NOBODY: &str = "65534";

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Soft and hard limit, as `/proc/PID/limits` calls it.
fn limit(pid: u32, name: &str) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).expect("there is such a limit");
    let mut values = rest.split_whitespace().map(|value| value.parse().unwrap_or(UNLIMITED));
    (values.next().expect("soft"), values.next().expect("hard"))
}

fn nice(pid: u32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    // Field 19; the first behind the name is 3.
    rest.split_whitespace().nth(16).expect("enough fields").parse().expect("a number")
}

/// Address space in megabytes, descriptors and nice value; soft and hard limits are the same.
fn of(pid: u32) -> (u64, u64, i32) {
    let same = |(soft, hard): (u64, u64)| {
        assert_eq!(soft, hard);
        soft
    };
    let space = same(limit(pid, "Max address space"));
    (if space == UNLIMITED { 0 } else { space >> 20 }, limit(pid, "Max open files").0, nice(pid))
}

fn with_file(text: &str) -> Builder {
    Server::app().args(["--master", "--processes=2", "app.ini"]).file("app.ini", format!("[uwsgi]\n{text}"))
}

fn reload_to(server: &Server, text: &str) {
    server.file("app.ini", format!("[uwsgi]\n{text}"));
    server.reload();
}

/// The zygote and the workers of the generation that serves have these; the others are gone.
fn assert_all(server: &Server, expected: (u64, u64, i32)) {
    let workers = server.wait_workers("two workers", |workers| workers.len() == 2);
    for worker in workers {
        assert_eq!(of(worker.pid), expected, "worker {}", worker.slot);
    }
}

#[test]
fn zygote_and_workers_are_limited_and_the_master_keeps_its_room() {
    let arguments = ["--limit-as=4096.5", "--limit-nproc=5000", "--max-fd=512", "--prio=3"];
    let server = Server::app().args(["--master", "--processes=2"]).args(arguments).start();
    let (own, own_files) = (nice(server.pid()), limit(server.pid(), "Max open files"));
    for pid in server.workers().iter().map(|it| it.pid).chain([server.zygote()]) {
        assert_eq!(limit(pid, "Max address space"), (8193 << 19, 8193 << 19), "{pid}");
        assert_eq!(limit(pid, "Max processes"), (5000, 5000));
        assert_eq!(limit(pid, "Max open files"), (512, 512));
        assert_eq!(nice(pid), 3);
    }
    assert_eq!(own_files.0, 512, "max-fd is for the whole tree");
    assert!(own_files.1 >= 512);
    assert_eq!(own, nice(std::process::id()));
    assert_eq!(limit(server.pid(), "Max address space"), limit(std::process::id(), "Max address space"));
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_reload_changes_limits_either_way_and_a_rollback_brings_them_back() {
    let builder = with_file("limit-as = 4096\nmax-fd = 300\nprio = 7\nsnapshots = 2\n");
    // As somebody who could not undo it: a lowered hard limit, a raised nice value.
    let server = builder.start();
    let usual = limit(std::process::id(), "Max open files").0;
    assert_all(&server, (4096, 300, 7));
    reload_to(&server, "limit-as = 8192\nmax-fd = 400\nprio = 2\nsnapshots = 2\n");
    assert_all(&server, (8192, 400, 2));
    assert_eq!(limit(server.pid(), "Max open files").0, 400);
    reload_to(&server, "snapshots = 2\n");
    assert_all(&server, (0, usual, nice(std::process::id())));
    assert_eq!(limit(server.pid(), "Max open files").0, usual);
    let mark = server.log().mark();
    server.signal(Signal::SIGURG);
    server.wait_for_log_after(mark, " complete: generation 2 serves");
    assert_all(&server, (8192, 400, 2));
    assert_eq!(limit(server.pid(), "Max open files").0, 400);
    // And onwards, as if nothing had been.
    reload_to(&server, "max-fd = 500\nprio = 1\n");
    assert_all(&server, (0, 500, 1));
}

/// A server that anybody can execute, started as nobody with at most 256 descriptors.
fn as_nobody(text: &str) -> Builder {
    let builder = with_file(text).copied().directory_mode(0o755);
    set_mode(&builder.path("server-under-test"), 0o755);
    let user =
        [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".into(), "--".into()];
    builder.settings(serde_json::json!({})).through(["prlimit", "--nofile=256:256", "setpriv"]).through(user)
}

#[test]
fn without_root_nothing_beyond_the_start_can_be_had_and_that_is_said_at_once() {
    if !is_root() {
        return;
    }
    for (text, line) in [
        (
            "max-fd = 512\n",
            "max-fd: 512 is above the hard limit of 256, which only root (CAP_SYS_RESOURCE) may raise",
        ),
        (
            "prio = -5\n",
            "prio: -5 is served before 0, the nice value it has now; only root (CAP_SYS_NICE) may do that",
        ),
    ] {
        let mut server = as_nobody(text).spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{text}");
        let line = server.wait_for_log(&format!("cannot start: {line}: start the server as root"));
        assert!(line.ends_with("app.ini:2)"), "{line}");
    }
    let server = as_nobody("max-fd = 200\nprio = 4\nsnapshots = 1\n").start();
    for text in ["max-fd = 257\n", "prio = -1\n"] {
        server.file("app.ini", format!("[uwsgi]\n{text}"));
        let mark = server.log().mark();
        server.signal(Signal::SIGHUP);
        let line = server.wait_for_log_after(mark, " refused: ");
        assert!(line.contains("a reload does not bring root back: restart the server"), "{line}");
        assert!(line.contains("(app.ini:2)") && line.ends_with("generation 1 serves on"), "{line}");
        assert_all(&server, (0, 200, 4));
    }
    // What was lowered can be raised again as far as it was, and a nice value given back.
    reload_to(&server, "max-fd = 256\nprio = 1\n");
    assert_all(&server, (0, 256, 1));
    reload_to(&server, "");
    assert_all(&server, (0, 256, 0));
}

#[test]
fn root_takes_what_the_user_could_not_before_it_becomes_that_user() {
    if !is_root() {
        return;
    }
    // Root of a container may lack the right to raise hard limits.
    let raised =
        Command::new("prlimit").args(["--nofile=256:256", "prlimit", "--nofile=512:512", "true"]).output();
    let most = if raised.is_ok_and(|output| output.status.success()) { 512 } else { 200 };
    let wishes = format!("uid = 65534\nmax-fd = {most}\nprio = -3\n");
    let builder = with_file(&wishes).copied().directory_mode(0o755);
    set_mode(&builder.path("server-under-test"), 0o755);
    let builder = builder.settings(serde_json::json!({}));
    let server = builder.through(["prlimit", "--nofile=256:256"]).start();
    for _ in 0..2 {
        assert_all(&server, (0, most, -3));
        let hard = most.max(256);
        assert_eq!((limit(server.pid(), "Max open files"), nice(server.pid())), ((most, hard), -3));
        assert_eq!(fs::metadata(format!("/proc/{}", server.pid())).expect("it runs").uid(), 65534);
        server.reload();
    }
    reload_to(&server, "uid = 65534\nprio = 5\n");
    assert_all(&server, (0, 256, 5));
    reload_to(&server, &wishes);
    assert_all(&server, (0, most, -3));
}

#[test]
fn memory_that_is_refused_is_an_error_of_one_request() {
    let code = "def grow(): return len(bytearray(4 << 30))";
    let server = python_app::server(code).arg("--limit-as=3072").start();
    let before = server.workers();
    assert_eq!(server.get("/grow").status, 500);
    assert_eq!(server.get("/hello").text(), "hello");
    assert_eq!(server.workers(), before);
    server.wait_for_log("MemoryError");
}

#[test]
fn a_limit_that_leaves_no_room_for_the_server_is_refused() {
    let mut server = with_file("limit-as = 2\n").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    let line =
        server.wait_for_log("cannot start: limit-as: 2 MB is no more than the server itself takes before");
    assert!(line.ends_with("(app.ini:2)"), "{line}");
}

#[test]
fn with_too_few_processes_workers_cannot_be_forked_and_the_start_says_why() {
    if !is_root() {
        return;
    }
    // A user that has no other processes.
    let builder = with_file("uid = 54321\ngid = 54321\nlimit-nproc = 2\n").copied().directory_mode(0o755);
    set_mode(&builder.path("server-under-test"), 0o755);
    let mut server = builder.settings(serde_json::json!({})).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    let line = server.wait_for_log("limit-nproc = \"2\" counts all processes and threads of the user");
    assert!(line.contains(" WARN ") && line.contains("up to 5 (2 workers"), "{line}");
    server.wait_for_log("worker respawning too fast !!! worker 1 failed 2 times in a row");
    server.wait_for_log("cannot start: it could not be forked: Resource temporarily unavailable");
}

fn usable() -> Vec<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("few processors");
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

fn allowed(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.expect("there is such a line").trim().to_owned()
}

#[test]
fn workers_take_turns_on_the_processors_that_there_are() {
    let server = Server::app().args(["--master", "--processes=3", "--cpu-affinity=1"]).start();
    let usable = usable();
    let check = || {
        for worker in server.wait_workers("three", |workers| workers.len() == 3) {
            let own = usable[(worker.slot as usize - 1) % usable.len()];
            assert_eq!(allowed(worker.pid), own.to_string(), "worker {}", worker.slot);
            server.wait_for_log(&format!("mapping worker {} to CPUs: {own}", worker.slot));
        }
    };
    check();
    assert_eq!(allowed(server.zygote()), allowed(std::process::id()), "only workers are bound");
    server.reload();
    check();
}

#[test]
fn in_a_narrower_place_the_processors_of_the_machine_do_not_count() {
    let Some(last) = usable().last().copied() else { return };
    let builder = Server::app().args(["--master", "--processes=2", "--cpu-affinity=4"]);
    let server = builder.through(["taskset".into(), "-c".into(), last.to_string()]).start();
    for worker in server.workers() {
        assert_eq!(allowed(worker.pid), last.to_string());
    }
    server.wait_for_log(&format!("mapping worker 2 to CPUs: {last}"));
}

#[test]
fn a_check_of_the_configuration_tells_what_this_user_cannot_have() {
    if !is_root() {
        return;
    }
    let server = as_nobody("").start();
    server.file("app.ini", "[uwsgi]\nhttp = 127.0.0.1:0\nmax-fd = 512\nprio = -2\nlimit-as = 4096\n");
    let output = Command::new("prlimit")
        .args(["--nofile=256:256", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"])
        .arg(server.program())
        .args(["--check-config", "app.ini"])
        .env("TESTAPP_CONFIG", server.path("testapp.json"))
        .current_dir(server.path(""))
        .output()
        .expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("app.ini:3: error: max-fd: 512 is above the hard limit of 256"), "{text}");
    assert!(text.contains("app.ini:4: error: prio: -2 is served before 0"), "{text}");
    assert!(!text.contains("limit-as"), "{text}");
}
