//! Python applications that misbehave in a request: the service goes on and the log tells.

use std::io::Read;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::http::{Connection, request};
use crate::support::{Client, LIMIT, Load, LoadSpec, Server, eventually, processes, python_app};

/// Sends a request whose connection the server may cut.
fn provoke(server: &Server, path: &str) -> Option<u16> {
    Client::new(server.target(), LIMIT).get(path).ok().map(|response| response.status)
}

/// Both workers are there and serve.
fn all_is_well(server: &Server) {
    server.wait_workers("there are two workers", |workers| workers.len() == 2);
    eventually("eight answers in a row", LIMIT, || {
        (0..8).all(|_| provoke(server, "/hello") == Some(200)).then_some(())
    });
}

#[test]
fn a_worker_that_dies_in_a_request_is_replaced_and_the_log_says_how() {
    let code = "
import ctypes, resource, signal
def segfault(): ctypes.string_at(0)
def leave(): os._exit(7)
def kill(): os.kill(os.getpid(), signal.SIGKILL)
def abort(): os.abort()
";
    for threads in ["1", "3"] {
        let server = python_app::server(code).arg(format!("--threads={threads}")).start();
        for (path, how) in [
            ("/segfault", "died, killed by signal 11 :( trying respawn ... (crash (SIGSEGV"),
            ("/leave", "died :( trying respawn ... (exit (code 7)"),
            ("/kill", "died, killed by signal 9 :( trying respawn ... (signal (SIGKILL)"),
            ("/abort", "died, killed by signal 6 :( trying respawn ... (crash (SIGABRT"),
        ] {
            let mark = server.log().mark();
            assert_eq!(provoke(&server, path), None, "{path}");
            let line = server.wait_for_log_after(mark, "DAMN ! worker ");
            assert!(line.contains(how) && line.contains(&format!("GET {path}")), "{path}: {line}");
            all_is_well(&server);
        }
        server.wait_for_log(" in segfault");
    }
}

#[test]
fn what_python_reports_becomes_an_error_of_one_request() {
    let code = "
import resource, json
def recursion(): return recursion()
def nested():
    def parse(): return json.loads('[' * 200000)
    return parse()
def memory():
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, resource.RLIM_INFINITY))
    return len(bytearray(16 << 30))
def leave(): sys.exit(3)
def interrupt(): raise KeyboardInterrupt('stop')
class Stop(BaseException): pass
def stop(): raise Stop('everything')
";
    for threads in ["1", "2"] {
        let server = python_app::server(code).arg(format!("--threads={threads}")).start();
        let before = server.workers();
        for (path, expected) in [
            ("/recursion", "RecursionError: "),
            ("/nested", "RecursionError: "),
            ("/memory", "MemoryError"),
            ("/leave", "SystemExit: 3"),
            ("/interrupt", "KeyboardInterrupt: stop"),
            ("/stop", "Stop: everything"),
        ] {
            let mark = server.log().mark();
            assert_eq!(provoke(&server, path), Some(500), "{path}");
            server.wait_for_log_after(mark, expected);
        }
        all_is_well(&server);
        assert_eq!(server.workers(), before, "a worker was lost");
    }
}

#[test]
fn a_worker_that_dies_under_load_takes_at_most_its_own_connections_along() {
    const DEATHS: u64 = 5;
    let server = python_app::server("def leave(): os._exit(1)").arg("--processes=3").start();
    let spec = LoadSpec { keep_alive: 0, fresh: 2, ..LoadSpec::gets() };
    let load = Load::start(server.target(), &spec);
    for _ in 0..DEATHS {
        load.wait_for(50);
        let mark = server.log().mark();
        assert_eq!(provoke(&server, "/leave"), None);
        server.wait_for_log_after(mark, "Respawned appserver worker ");
    }
    load.wait_for(50);
    let report = load.stop();
    // Each of the two clients has one connection at a time, which the dying worker may have taken.
    let lost: u64 = report.failed.values().sum();
    assert!(lost <= 2 * DEATHS && report.ok > 50 * DEATHS, "{report:#?}");
}

#[test]
fn a_request_that_never_ends_is_cut_when_patience_ends_at_a_reload() {
    let code = "
import ctypes
lock = threading.Lock()
lock.acquire()
def deadlock(): lock.acquire()
# Nobody else gets to run Python code meanwhile.
def greedy():
    mutex = ctypes.create_string_buffer(64)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    ctypes.PyDLL(None).pthread_mutex_lock(mutex)
";
    for (threads, path) in [("1", "/deadlock"), ("2", "/deadlock"), ("1", "/greedy"), ("2", "/greedy")] {
        let arguments = [format!("--threads={threads}"), "--worker-reload-mercy=1".to_owned()];
        let server = python_app::server(code).args(arguments).start();
        let old = server.workers();
        let mut stuck = server.connect();
        stuck.send(&request("GET", path, &[], b"")).expect("a connection");
        server.wait_begun(path);
        let mark = server.log().mark();
        server.reload();
        assert!(stuck.receive(false).is_err(), "threads: {threads}");
        eventually("the old workers are gone", LIMIT, || {
            old.iter().all(|worker| !processes::is_alive(worker.pid)).then_some(())
        });
        // The worker tells it where it still can, unless the master, whose patience ends at the same time, is
        // faster.
        let by_master = |line: &str| line.contains("NO MERCY !!!");
        let by_worker = |line: &str| threads == "2" && line.contains("requests in flight, which are cut");
        let line = server.log().wait_for(mark, LIMIT, |line| by_master(line) || by_worker(line));
        let line = line.expect("the log tells of the request that was cut");
        assert!(line.contains(&format!("GET {path}")), "{line}");
        all_is_well(&server);
    }
}

#[test]
fn a_child_that_comes_back_from_a_request_does_not_serve() {
    let code = "
def fork():
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return 'parent' if child else 'child'
def exits():
    child = os.fork()
    if not child:
        sys.exit(0)
    os.waitpid(child, 0)
    return 'parent'
";
    for threads in ["1", "2"] {
        let server = python_app::server(code).arg(format!("--threads={threads}")).start();
        let before = server.workers();
        let mut client = server.client();
        for path in ["/fork", "/exits", "/fork"] {
            let mark = server.log().mark();
            assert_eq!(client.get(path).expect("an answer").text(), "parent");
            server.wait_for_log_after(
                mark,
                "a process that the application forked in a request came back from it",
            );
            assert_eq!(client.get("/hello").expect("an answer").text(), "hello");
        }
        all_is_well(&server);
        assert_eq!(server.workers(), before, "a worker was lost");
    }
}

#[test]
fn a_child_that_a_thread_forks_while_others_log_can_log_itself() {
    let code = "
def fork():
    child = os.fork()
    if not child:
        return 'child'
    os.waitpid(child, 0)
    return 'parent'
";
    let server = python_app::server(code).args(["--processes=1", "--threads=4"]).start();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..60 {
                    assert_eq!(client.get("/fork").expect("an answer").text(), "parent");
                    assert_eq!(client.get("/hello").expect("an answer").text(), "hello");
                }
            });
        }
    });
}

#[test]
fn a_child_that_outlives_the_server_does_not_keep_its_address() {
    let code = "
def background():
    child = os.fork()
    if child:
        return child
    os.setsid()
    null = os.open('/dev/null', os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    threading.Event().wait(60)
    os._exit(0)
";
    let mut server = python_app::server(code).start();
    let child: u32 = server.get("/background").text().parse().expect("a pid");
    let child = ChildOfTheApplication(child);
    // It is given away by the worker's death, and the master has not minded it.
    server.reload();
    assert_eq!(server.get("/hello").text(), "hello");
    server.signal(Signal::SIGINT);
    assert!(server.wait_exit(LIMIT).success());
    assert!(processes::is_alive(child.0));
    assert!(Connection::open(server.target(), LIMIT).is_err(), "something still listens");
}

/// Ended when the test is.
struct ChildOfTheApplication(u32);

impl Drop for ChildOfTheApplication {
    fn drop(&mut self) {
        if processes::is_alive(self.0) {
            processes::kill(self.0, Signal::SIGKILL);
        }
    }
}

#[test]
fn a_program_that_outlives_its_request_holds_nothing_of_the_server() {
    let code = "
import subprocess
def program():
    null = subprocess.DEVNULL
    return subprocess.Popen(['sleep', '60'], stdin=null, stdout=null, stderr=null, close_fds=False, start_new_session=True).pid
";
    let mut server = python_app::server(code).start();
    let child = ChildOfTheApplication(server.get("/program").text().parse().expect("a pid"));
    let held = processes::descriptors(child.0);
    assert!(held.keys().all(|&number| number <= 2), "{held:?}");
    server.signal(Signal::SIGINT);
    assert!(server.wait_exit(LIMIT).success());
    assert!(processes::is_alive(child.0));
    assert!(Connection::open(server.target(), LIMIT).is_err(), "something still listens");
}

#[test]
fn a_signal_to_a_child_of_the_application_is_not_one_to_the_worker() {
    let code = "
import signal
def terminate():
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, b'.')
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    os.kill(child, signal.SIGTERM)
    return os.WTERMSIG(os.waitpid(child, 0)[1])
";
    let server = python_app::server(code).start();
    let before = server.workers();
    for _ in 0..4 {
        assert_eq!(server.get("/terminate").text(), "15");
    }
    all_is_well(&server);
    assert_eq!(server.workers(), before, "a worker has left");
}

#[test]
fn descriptors_closed_in_a_request_cost_a_worker_at_most() {
    let code = "
def low(): os.closerange(0, 21)
def streams(): os.closerange(0, 3)
def all(): os.closerange(3, 1000)
def most(): os.closerange(64, 1000)
";
    for threads in ["1", "2"] {
        let server = python_app::server(code).arg(format!("--threads={threads}")).start();
        for path in ["/streams", "/low", "/most", "/all"] {
            provoke(&server, path);
            all_is_well(&server);
        }
        server.wait_for_log("the application has closed standard streams; they lead to the log again");
        server.reload();
        all_is_well(&server);
    }
}

#[test]
fn signal_handlers_of_the_application_do_not_keep_it_from_stopping() {
    let code = "
import signal
def change(action):
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, action)
        except (OSError, ValueError):
            pass
def default(): change(signal.SIG_DFL)
def ignore(): change(signal.SIG_IGN)
def handle(): change(lambda number, frame: None)
def alarm():
    def ring(number, frame): raise TimeoutError('too slow')
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    threading.Event().wait()
";
    for path in ["/default", "/ignore", "/handle"] {
        let mut server = python_app::server(code).start();
        for _ in 0..6 {
            assert_eq!(provoke(&server, path), Some(200));
        }
        // Clients that leave while they are written to.
        for _ in 0..6 {
            let mut leaving = server.connect();
            leaving.send(&request("GET", "/hello", &[], b"").repeat(20)).expect("a connection");
            drop(leaving);
        }
        all_is_well(&server);
        server.reload();
        all_is_well(&server);
        assert_eq!(provoke(&server, path), Some(200));
        server.signal(Signal::SIGINT);
        assert!(server.wait_exit(LIMIT).success(), "{path}");
    }
    let server = python_app::server(code).start();
    assert_eq!(provoke(&server, "/alarm"), Some(500));
    server.wait_for_log("TimeoutError: too slow");
    all_is_well(&server);
}

#[test]
fn streams_of_the_application_may_be_closed_and_errors_are_told_all_the_same() {
    let code = "
def talk():
    print('words on standard output')
    print('words on standard error', file=sys.stderr)
def close():
    sys.stdout.close()
    sys.stderr.close()
def fail(): raise RuntimeError('after the end')
";
    let mut server = python_app::server(code).arg("--processes=1").start();
    for path in ["/talk", "/close"] {
        assert_eq!(provoke(&server, path), Some(200));
    }
    server.wait_for_log("words on standard output");
    server.wait_for_log("words on standard error");
    assert_eq!(provoke(&server, "/talk"), Some(500));
    assert_eq!(provoke(&server, "/fail"), Some(500));
    server.wait_for_log("RuntimeError: after the end");
    server.signal(Signal::SIGINT);
    assert!(server.wait_exit(LIMIT).success());
}

#[test]
fn hooks_run_when_a_worker_leaves_in_good_order_and_only_then() {
    let code = "
import atexit, uwsgi
atexit.register(lambda: print('atexit of', os.getpid()))
def of_the_server(): print('uwsgi.atexit of', os.getpid())
uwsgi.atexit = of_the_server
def forever():
    while True:
        sum(range(1000))
def spin(): threading.Thread(target=forever, daemon=True).start()
";
    let mut server = python_app::server(code).start();
    let killed = server.workers()[0];
    processes::kill(killed.pid, Signal::SIGKILL);
    let first = server.wait_workers("it is replaced", |now| now.len() == 2 && !now.contains(&killed));
    assert_eq!(provoke(&server, "/spin"), Some(200));
    server.reload();
    for worker in &first {
        for hook in ["atexit", "uwsgi.atexit"] {
            server.wait_for_log(&format!("{hook} of {}", worker.pid));
        }
    }
    let second = server.workers();
    server.signal(Signal::SIGINT);
    assert!(server.wait_exit(LIMIT).success());
    let lines = server.log().lines();
    let count = |text: String| lines.iter().filter(|line| **line == text).count();
    for worker in first.iter().chain(&second) {
        assert_eq!(count(format!("atexit of {}", worker.pid)), 1);
        assert_eq!(count(format!("uwsgi.atexit of {}", worker.pid)), 1);
    }
    assert_eq!(count(format!("atexit of {}", killed.pid)), 0);
}

#[test]
fn an_exit_hook_that_fails_is_told_and_one_that_hangs_is_cut() {
    let fails = "
import atexit
def leave(): raise RuntimeError('cannot leave')
atexit.register(leave)
";
    let mut server = python_app::server(fails).start();
    server.signal(Signal::SIGINT);
    assert!(server.wait_exit(LIMIT).success());
    server.wait_for_log("RuntimeError: cannot leave");

    let hangs = "
import atexit
atexit.register(lambda: threading.Event().wait())
";
    let threads = "threading.Thread(target=threading.Event().wait, name='for ever').start()";
    let late = format!("import uwsgi\ndef start(): {threads}\nuwsgi.post_fork_hook = start");
    for code in [hangs, &late] {
        let server = python_app::server(code).arg("--worker-reload-mercy=1").start();
        let old = server.workers();
        let begin = Instant::now();
        server.reload();
        eventually("the old workers are gone", LIMIT, || {
            old.iter().all(|worker| !processes::is_alive(worker.pid)).then_some(())
        });
        assert!(begin.elapsed().as_secs() < 10, "{:?}", begin.elapsed());
        all_is_well(&server);
    }
}

#[test]
fn a_client_sees_the_end_of_its_connection_although_a_child_holds_it() {
    let code = "
import signal
def hold():
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    return child
";
    let server = python_app::server(code).start();
    let mut connection = server.connect();
    connection.send(b"GET /hold HTTP/1.0\r\n\r\n").expect("a connection");
    let mut text = String::new();
    let answer = connection.receive_to_end().expect("the end");
    answer.as_slice().read_to_string(&mut text).expect("text");
    let child = text.rsplit("\r\n").next().and_then(|pid| pid.parse().ok()).expect("a pid");
    drop(ChildOfTheApplication(child));
}
