//! `refork-after`: a warmed worker becomes the zygote, and later workers share its memory.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::signal::Signal;

use crate::support::log::Mark;
use crate::support::server::{Builder, promoted_worker};
use crate::support::{Connection, LIMIT, Load, LoadSpec, Server, eventually, processes, python_app};

/// Notes in its memory which process has served the first request of all, and prints who leaves.
const APP: &str = r#"
import random, sqlite3, uwsgi, uwsgidecorators
memory = {}
connection = None

def hello():
    memory.setdefault("filled by", os.getpid())
    return "hello"

def leave():
    print(f"{os.getpid()} has left in good order", flush=True)
uwsgi.atexit = leave

@uwsgidecorators.postfork
def connect():
    global connection
    assert connection is None, "the connection of another worker"
    connection = sqlite3.connect(":memory:", check_same_thread=False)

@uwsgidecorators.prepromotion
def disconnect():
    global connection
    connection.close()
    connection = None
    print(f"{os.getpid()} closes its connection as worker {uwsgi.worker_id()}", flush=True)

def story():
    return [os.getpid(), memory.get("filled by", 0), uwsgi.worker_id(), int(os.getppid() == uwsgi.masterpid()), random.getrandbits(60),
            connection.execute("select 1").fetchone()[0]]
"#;

fn server(functions: &str) -> Builder {
    python_app::server(functions).args(["--refork-after=40", "--disable-logging"])
}

/// What each worker tells of itself, by number.
fn stories(server: &Server) -> BTreeMap<u64, Vec<u64>> {
    // One that has been replaced may not have left yet.
    let numbers: BTreeSet<u32> = server.workers().iter().map(|worker| worker.slot).collect();
    let mut stories = BTreeMap::new();
    eventually("every worker tells its story", LIMIT, || {
        // Connections at the same time reach different workers.
        let mut connections: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for connection in &mut connections {
            connection.send(b"GET /story HTTP/1.1\r\nHost: test\r\n\r\n").expect("the server listens");
        }
        for connection in &mut connections {
            let story: Vec<u64> =
                serde_json::from_slice(&connection.receive(false).expect("an answer").body).expect("numbers");
            stories.insert(story[2], story);
        }
        (stories.len() == numbers.len()).then_some(())
    });
    stories
}

/// Waits until a worker is the zygote and the others have been replaced; its pid.
fn promoted(server: &Server, mark: Mark) -> u32 {
    let line = server.wait_for_log_after(mark, "is the zygote of generation ");
    server.wait_for_log_after(mark, "warm roll complete");
    let zygote = promoted_worker(&line).expect("the line names it");
    assert_eq!(server.zygote(), zygote);
    zygote
}

#[test]
fn later_workers_share_what_a_warm_one_has_in_memory_and_no_request_is_lost() {
    for threads in [1, 3] {
        let mut server = server(APP).arg("--processes=3").arg(format!("--threads={threads}")).start();
        let (cold, first) = (server.zygote(), server.workers());
        let descriptors = processes::descriptor_kinds(cold);
        let load = Load::start(server.target(), &LoadSpec { keep_alive: 4, ..LoadSpec::gets() });
        let warm = promoted(&server, Mark::START);
        load.wait_for(50);
        load.stop().assert_nothing_lost();
        assert!(first.iter().any(|worker| worker.pid == warm), "it was a worker");
        let workers = server.wait_workers("the old ones are gone", |workers| workers.len() == 3);
        assert!(workers.iter().all(|worker| !first.contains(worker)));

        let stories = stories(&server);
        assert_eq!(stories.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
        let values = |index: usize| stories.values().map(move |story| story[index]);
        assert_eq!(values(0).collect::<BTreeSet<_>>(), workers.iter().map(|it| it.pid.into()).collect());
        assert!(values(1).all(|pid| pid == u64::from(warm)), "{stories:?}: {warm}");
        assert!(values(3).all(|one| one == 1), "the master is the parent of all");
        assert_eq!(values(4).collect::<BTreeSet<_>>().len(), 3, "random numbers are seeded anew");
        assert!(values(5).all(|one| one == 1), "each has a connection of its own");

        assert!(!processes::is_alive(cold));
        assert_eq!(processes::descriptor_kinds(warm), descriptors, "with {threads} threads");
        assert!(processes::title(warm).contains("zygote"), "{}", processes::title(warm));
        let said = |words: String| server.log().lines().iter().any(|line| line.ends_with(&words));
        let heir = first.iter().find(|worker| worker.pid == warm).expect("seen above").slot;
        assert!(said(format!("{warm} closes its connection as worker {heir}")));
        assert!(!said(format!("{warm} has left in good order")), "it has not left");
        assert!(first.iter().all(|it| it.pid == warm || said(format!("{} has left in good order", it.pid))));

        // A worker asks for its successor by SIGHUP, as ever.
        let mark = server.log().mark();
        processes::kill(workers[0].pid, Signal::SIGHUP);
        server.wait_for_log_after(mark, "worker 1 asks to be replaced: SIGHUP");
        server.wait_workers("another one has its place", |now| now.len() == 3 && now[0] != workers[0]);
        server.signal(Signal::SIGINT);
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    }
}

#[test]
fn a_promoted_zygote_lives_through_reloads_as_a_snapshot_and_comes_back() {
    let server = server(APP).args(["--processes=2", "--snapshots=1"]).start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    let warm = promoted(&server, Mark::START);
    server.file("app.py", python_app::source("def hello(): return 'hello again'\n"));
    let mark = server.log().mark();
    server.reload();
    server.wait_reloaded(2);
    assert_eq!(server.get("/").text(), "hello again");
    assert!(processes::is_alive(warm));
    // The new generation has one of its own by now, or soon.
    server.wait_for_log_after(mark, "is the zygote of generation 2");
    server.wait_for_log_after(mark, "warm roll complete");
    load.stop().assert_nothing_lost();
    let mark = server.log().mark();
    server.signal(Signal::SIGURG);
    server.wait_for_log_after(mark, "rollback 2 complete: generation 1 serves");
    assert_eq!(server.zygote(), warm);
    server.wait_workers("the others are gone", |workers| workers.len() == 2);
    assert!(stories(&server).values().all(|story| story[1] == u64::from(warm)));
    server.reload();
}

#[test]
fn a_promoted_zygote_that_is_killed_is_replaced_from_disk() {
    let server = server(APP).arg("--processes=2").start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    let warm = promoted(&server, Mark::START);
    let mark = server.log().mark();
    processes::kill(warm, Signal::SIGKILL);
    server.wait_for_log_after(mark, "zygote of generation 1 lost");
    // One that is cold, which a worker follows at once or soon: those that serve on count their requests.
    let next = promoted(&server, mark);
    load.stop().assert_nothing_lost();
    assert_ne!(next, warm);
    let stories = stories(&server);
    assert!(stories.values().all(|story| story[1] == u64::from(warm)), "{stories:?}: inherited once more");
}

#[test]
fn a_hook_that_fails_leaves_the_zygote_as_it_is() {
    let code = format!("{APP}\n@uwsgidecorators.prepromotion\ndef refuse(): raise RuntimeError('not now')\n");
    let server = server(&code).arg("--processes=2").start();
    let zygote = server.zygote();
    let load = Load::start(server.target(), &LoadSpec::gets());
    server.wait_for_log("does not become the zygote of generation 1: RuntimeError: not now");
    let last = server.wait_for_log("the generation goes on with the zygote it has (refork-after)");
    assert!(last.contains("RuntimeError: not now"), "{last}");
    load.stop().assert_nothing_lost();
    assert_eq!(server.zygote(), zygote);
    // It leaves in good order, after its application.
    server.wait_for_log(" has left in good order");
    let stories = stories(&server);
    assert!(stories.values().all(|story| story[1] != u64::from(zygote)));
}

#[test]
fn threads_of_the_application_keep_it_from_being_forked_unless_a_hook_ends_them() {
    let code = "
import uwsgi, uwsgidecorators
@uwsgidecorators.postfork
def begin():
    global ending, beat
    ending = threading.Event()
    beat = threading.Thread(target=ending.wait, name='beat')
    beat.start()
def beats(): return beat.is_alive()
";
    for threads in ["--threads=1", "--threads=2"] {
        let server = server(code).arg(threads).start();
        let before = server.workers();
        let load = Load::start(server.target(), &LoadSpec::gets());
        server.wait_for_log(
            "does not become the zygote of generation 1: the application has started threads: beat; end them in \
             uwsgi.pre_promotion_hook; another worker may (refork-after)",
        );
        load.wait_for(50);
        load.stop().assert_nothing_lost();
        assert_eq!(server.workers(), before, "nothing has changed");
    }
    let code = format!(
        "{code}
@uwsgidecorators.prepromotion
def end():
    ending.set()
    beat.join()
"
    );
    let server = server(&code).start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    promoted(&server, Mark::START);
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/beats").text(), "True");
}

#[test]
fn threads_of_a_library_are_found_in_the_end() {
    let code = "
import ctypes
def hello():
    global thread
    if 'thread' not in globals():
        thread = ctypes.c_ulong()
        libc = ctypes.CDLL(None)
        libc.pthread_create(ctypes.byref(thread), None, libc.pause, None)
    return 'hello'
";
    for (hook, words) in [
        ("", "a library has started 1 threads of its own"),
        (
            "import uwsgi; uwsgi.pre_promotion_hook = lambda: None\n",
            "the application has 1 threads of its own",
        ),
    ] {
        let server = server(&format!("{hook}{code}")).start();
        let zygote = server.zygote();
        let load = Load::start(server.target(), &LoadSpec::gets());
        server.wait_for_log(&format!("does not become the zygote of generation 1: {words}"));
        load.wait_for(50);
        load.stop().assert_nothing_lost();
        assert_eq!(server.zygote(), zygote);
    }
}

/// The test application: its only worker is to become the zygote, and at work on a response of some seconds.
fn with_a_busy_heir() -> (Server, Connection) {
    let server =
        Server::app().args(["--master", "--processes=1", "--threads=8", "--refork-after=20"]).start();
    let busy = server.in_flight(4000);
    for _ in 0..20 {
        server.get("/");
    }
    server.wait_for_log("about to become the zygote (refork-after): finishing requests");
    (server, busy)
}

#[test]
fn a_reload_during_a_promotion_loses_nothing() {
    let (server, mut busy) = with_a_busy_heir();
    server.reload();
    server.wait_reloaded(2);
    let rest = busy.receive_chunks().expect("nothing is cut");
    assert!(rest.ends_with(b"end\n"), "cut: {}", rest.escape_ascii());
    server.wait_workers("the old ones are gone", |workers| workers.len() == 1);
    server.zygote();
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_stop_during_a_promotion_ends_everybody_in_good_order() {
    let (mut server, mut busy) = with_a_busy_heir();
    server.signal(Signal::SIGINT);
    let rest = busy.receive_to_end();
    assert!(rest.is_ok(), "{rest:?}");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn an_heir_that_is_killed_is_not_missed() {
    let (server, busy) = with_a_busy_heir();
    let zygote = server.zygote();
    let line = server.wait_for_log("about to become the zygote");
    let pid = line.split(" pid ").nth(1).and_then(|rest| rest.split(']').next()).expect("lines name the pid");
    processes::kill(pid.parse().expect("a number"), Signal::SIGKILL);
    server.wait_for_log("does not become the zygote of generation 1: it has ended, or has to leave at once");
    drop(busy);
    assert_eq!(server.zygote(), zygote);
    assert_eq!(server.get("/").text(), "hello v1\n");
    // The next one makes it.
    let load = Load::start(server.target(), &LoadSpec::gets());
    promoted(&server, Mark::START);
    load.stop().assert_nothing_lost();
}
