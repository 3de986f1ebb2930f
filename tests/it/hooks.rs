//! Hooks: run where they say, as often as they say, by the process they say.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::server::{Builder, Worker};
use crate::support::{LIMIT, Server, eventually};

/// Appends the point and the process that runs the hook to a file.
fn trace(point: &str) -> String {
    format!("--hook-{point}=exec:echo {point} $PPID >> trace")
}

/// What [`trace`] has written: points with processes, in order.
fn traced(server: &Server) -> Vec<(String, u32)> {
    let text = fs::read_to_string(server.path("trace")).unwrap_or_default();
    let pair = |line: &str| line.split_once(' ').map(|(point, pid)| (point.to_owned(), pid.parse().unwrap()));
    text.lines().filter_map(pair).collect()
}

fn count(server: &Server, point: &str) -> usize {
    traced(server).iter().filter(|(name, _)| name == point).count()
}

fn wait_counts<const N: usize>(server: &Server, counts: [(&str, usize); N]) {
    eventually(&format!("hooks have run {counts:?}"), LIMIT, || {
        counts.iter().all(|(point, times)| count(server, point) >= *times).then_some(())
    });
    for (point, times) in counts {
        assert_eq!(count(server, point), times, "{point}: {:?}", traced(server));
    }
}

fn start(points: &[&str]) -> Server {
    two_workers().args(points.iter().map(|point| trace(point))).start()
}

fn two_workers() -> Builder {
    Server::app().args(["--master", "--processes=2"]).with_fifo()
}

fn send(worker: Worker, signal: Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(worker.pid.cast_signed()), signal).unwrap();
}

#[test]
fn each_point_is_run_by_its_process_and_in_order() {
    let points = [
        "asap",
        "as-user",
        "master-start",
        "pre-app",
        "post-app",
        "post-fork",
        "accepting",
        "accepting-once",
        "accepting1",
        "accepting1-once",
        "as-user-atexit",
    ];
    let mut server = start(&points);
    wait_counts(
        &server,
        [("accepting", 2), ("accepting-once", 2), ("accepting1", 1), ("accepting1-once", 1)],
    );
    let (master, zygote, workers) = (server.pid(), server.zygote(), server.workers());
    server.signal(Signal::SIGINT);
    server.wait_exit(LIMIT);
    let traced = traced(&server);
    let mut runs: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    traced.iter().for_each(|(point, pid)| runs.entry(point).or_default().push(*pid));
    runs.values_mut().for_each(|pids| pids.sort_unstable());
    let mut both: Vec<u32> = workers.iter().map(|worker| worker.pid).collect();
    both.sort_unstable();
    let first = workers.iter().find(|worker| worker.slot == 1).unwrap().pid;
    for point in ["asap", "as-user", "master-start", "as-user-atexit"] {
        assert_eq!(runs[point], [master], "{point}");
    }
    for point in ["pre-app", "post-app"] {
        assert_eq!(runs[point], [zygote], "{point}");
    }
    for point in ["post-fork", "accepting", "accepting-once"] {
        assert_eq!(runs[point], both, "{point}");
    }
    for point in ["accepting1", "accepting1-once"] {
        assert_eq!(runs[point], [first], "{point}");
    }
    let at = |point: &str| traced.iter().position(|(name, _)| name == point).unwrap();
    let order = ["asap", "as-user", "pre-app", "post-app", "post-fork", "accepting", "as-user-atexit"];
    assert!(order.windows(2).all(|pair| at(pair[0]) < at(pair[1])), "{traced:?}");
}

#[test]
fn once_is_once_per_generation_and_not_for_those_who_take_a_place() {
    let server = start(&["accepting1", "accepting1-once", "accepting-once"]);
    wait_counts(&server, [("accepting1", 1), ("accepting1-once", 1), ("accepting-once", 2)]);
    let before = server.workers();
    send(before[0], Signal::SIGKILL);
    server.wait_workers("worker 1 is replaced", |now| now.len() == 2 && now[0].pid != before[0].pid);
    wait_counts(&server, [("accepting1", 2), ("accepting1-once", 1), ("accepting-once", 2)]);
    let mark = server.log().mark();
    server.fifo("w");
    server.wait_for_log_after(mark, "workers reload complete");
    wait_counts(&server, [("accepting1", 3), ("accepting1-once", 1), ("accepting-once", 2)]);
    server.reload();
    wait_counts(&server, [("accepting1", 4), ("accepting1-once", 2), ("accepting-once", 4)]);
}

#[test]
fn a_reload_runs_the_points_of_the_new_generation_and_not_those_of_the_server() {
    let server =
        start(&["asap", "as-user", "master-start", "pre-app", "post-app", "as-user-atexit", "accepting1"]);
    wait_counts(&server, [("accepting1", 1)]);
    server.reload();
    wait_counts(&server, [("accepting1", 2), ("asap", 2), ("pre-app", 2), ("post-app", 2)]);
    wait_counts(&server, [("as-user", 1), ("master-start", 1), ("as-user-atexit", 0)]);
    let zygote = server.zygote();
    let of = |point: &str| traced(&server).into_iter().rfind(|(name, _)| name == point).unwrap().1;
    assert_eq!((of("asap"), of("pre-app")), (zygote, zygote));
}

#[test]
fn lazy_workers_run_the_hooks_of_the_application() {
    let server = two_workers().args(["--lazy-apps".to_owned(), trace("pre-app"), trace("post-app")]).start();
    wait_counts(&server, [("pre-app", 2), ("post-app", 2)]);
    assert!(traced(&server).iter().all(|(_, pid)| server.workers().iter().any(|worker| worker.pid == *pid)));
}

#[test]
fn a_hook_that_fails_ends_the_start() {
    for point in ["asap", "as-user", "pre-app", "post-app", "post-fork"] {
        let mut server =
            Server::app().arg(format!("--hook-{point}=exec:echo no $(( 3 + 4 )); exit 3")).spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{point}");
        server.wait_for_log("no 7");
        server.wait_for_log(&format!(
            "hook-{point}: command \"echo no $(( 3 + 4 )); exit 3\" ended with exit status: 3"
        ));
    }
}

#[test]
fn a_hook_that_fails_refuses_the_reload() {
    for point in ["asap", "pre-app", "post-app", "post-fork"] {
        let server = two_workers().arg(format!("--hook-{point}=exec:test ! -e forbidden")).start();
        server.set_settings(json!({ "version": "v2" }));
        server.file("forbidden", "");
        server.signal(Signal::SIGHUP);
        server.wait_for_log("reload 1 refused");
        assert_eq!(server.get("/").text(), "hello v1\n", "{point}");
        fs::remove_file(server.path("forbidden")).unwrap();
        server.reload();
        assert_eq!(server.get("/").text(), "hello v2\n", "{point}");
    }
}

#[test]
fn a_reload_that_is_refused_runs_nothing_that_says_it_serves() {
    // Worker 1 is ready, worker 2 never is.
    let points = ["accepting", "accepting1-once"].map(trace);
    let fork = "--hook-post-fork=exec:test ! -e forbidden || { mkdir first && exit 0; exit 3; }";
    let server = two_workers().args(points).arg(fork).start();
    wait_counts(&server, [("accepting", 2), ("accepting1-once", 1)]);
    server.file("forbidden", "");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reload 1 refused");
    assert_eq!(server.get("/").text(), "hello v1\n");
    wait_counts(&server, [("accepting", 2), ("accepting1-once", 1)]);
}

#[test]
fn a_hook_may_ask_the_worker_that_runs_it() {
    // The only worker answers while its hook waits for the answer.
    let server = Server::app()
        .on_unix_socket("sock")
        .args(["--processes=1", "--hook-accepting=exec:curl -s --unix-socket sock http://a/ > answer"])
        .start();
    eventually("the hook has its answer", LIMIT, || {
        (fs::read_to_string(server.path("answer")).ok()? == "hello v1\n").then_some(())
    });
}

#[test]
fn what_fails_while_serving_is_told_and_the_next_is_run() {
    let server = two_workers()
        .args([
            "--hook-accepting1=unlink:nothing",
            "--hook-accepting1=print:and on",
            "--hook-master-start=cd:/nowhere",
        ])
        .args(["--hook-as-user-atexit=exec:false", "--hook-as-user-atexit=write:left yes"])
        .start();
    server.wait_for_log("ERROR hook-accepting1: nothing: No such file");
    server.wait_for_log("and on");
    server.wait_for_log("ERROR hook-master-start: /nowhere: No such file");
    let mut server = server;
    server.fifo("q");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    assert_eq!(fs::read_to_string(server.path("left")).unwrap(), "yes");
}

#[test]
fn the_master_does_not_wait_for_its_commands() {
    let server = two_workers().arg("--hook-master-start=exec:read word < gate; exit 5").start();
    assert_eq!(server.get("/").text(), "hello v1\n");
    nix::unistd::mkfifo(&server.path("gate"), nix::sys::stat::Mode::S_IRWXU).ok();
    // It has failed for want of the gate, or waits at it.
    server.wait_for_log("ended with exit code");
}

#[test]
fn an_action_that_does_not_exist_is_named_with_its_place() {
    let mut server = Server::app().file("a.ini", "[uwsgi]\nhook-accepting1 = call:f\n").arg("a.ini").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log(
        "a.ini:2: hook-accepting1 = \"call:f\" begins with an action that does not exist; there are exec",
    );
}

#[test]
fn a_pause_runs_no_hooks_of_those_that_serve() {
    let server = start(&["accepting", "accepting1-once"]);
    wait_counts(&server, [("accepting", 2), ("accepting1-once", 1)]);
    server.fifo("p");
    server.wait_for_log("PAUSE");
    server.reload();
    server.fifo("p");
    assert_eq!(server.get("/").text(), "hello v1\n");
    wait_counts(&server, [("accepting", 2), ("accepting1-once", 1)]);
}
