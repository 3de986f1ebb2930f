//! What Python applications find in a worker, which is a copy of the process that loaded them.

use std::collections::BTreeSet;
use std::fs;

use crate::support::{LIMIT, Server, eventually, processes, python_app};

/// Asks until as many workers have answered differently.
fn ask_all(server: &Server, path: &str, workers: usize) -> BTreeSet<String> {
    let mut answers = BTreeSet::new();
    eventually("every worker answers", LIMIT, || {
        // Connections at the same time reach different workers.
        let mut connections: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for connection in &mut connections {
            let request = crate::support::http::request("GET", path, &[], b"");
            connection.send(&request).expect("the server listens");
        }
        answers.extend(connections.iter_mut().map(|it| it.receive(false).expect("an answer").text()));
        (answers.len() >= workers).then_some(())
    });
    answers
}

#[test]
fn fork_handlers_run_once_for_each_worker() {
    let code = "
record = []
def note(what):
    return lambda: record.append(f'{what} in {os.getpid()}')
os.register_at_fork(before=note('before'), after_in_parent=note('parent'), after_in_child=note('child'))
loaded_by = os.getpid()
def story(): return [os.getpid(), loaded_by, record]
";
    let server = python_app::server(code).arg("--processes=3").start();
    let zygote = server.zygote();
    let stories = ask_all(&server, "/story", 3);
    let mut lengths = BTreeSet::new();
    for story in &stories {
        let story: serde_json::Value = serde_json::from_str(&story.replace('\'', "\"")).expect("a list");
        assert_eq!(story[1], zygote);
        let record: Vec<&str> =
            story[2].as_array().expect("a list").iter().map(|it| it.as_str().expect("text")).collect();
        // The n-th worker saw n-1 forks of others, as the zygote did.
        let mut expected = Vec::new();
        let others = (record.len() - 2) / 2;
        for _ in 0..others {
            expected.extend([format!("before in {zygote}"), format!("parent in {zygote}")]);
        }
        expected.extend([format!("before in {zygote}"), format!("child in {}", story[0])]);
        assert_eq!(record, expected);
        lengths.insert(others);
    }
    assert_eq!(lengths, BTreeSet::from([0, 1, 2]));
}

#[test]
fn the_standard_library_works_in_a_worker() {
    let code = r#"
import asyncio, concurrent.futures, logging, multiprocessing, random, sqlite3, ssl, subprocess, uuid
logging.basicConfig(level="INFO")
log = logging.getLogger("application")
context = ssl.create_default_context()
pool_of_the_import = concurrent.futures.ThreadPoolExecutor(2)

def double(number): return 2 * number
async def wait():
    await asyncio.sleep(0.001)
    return await asyncio.to_thread(double, 21)

def logs(): log.info("said by %d", os.getpid()); return "ok"
def futures():
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        return sum(pool.map(double, range(10)))
def old_pool(): return sum(pool_of_the_import.map(double, range(10)))
def program(): return subprocess.run(["echo", "42"], capture_output=True, text=True, check=True).stdout.strip()
def shell(): return subprocess.check_output("exit 0; echo no", shell=True, preexec_fn=os.setsid).decode()
def aio(): return asyncio.run(wait())
def tls(): return len(context.get_ciphers()) > 0 and len(ssl.RAND_bytes(8))
def unique(): return f"{random.random()} {uuid.uuid4()} {ssl.RAND_bytes(8).hex()}"
def processes(method):
    pool = multiprocessing.get_context(method).Pool(2)
    with pool:
        return sum(pool.map(double, range(10)))
def forked(): return processes("fork")
def spawned(): return processes("spawn")
def server(): return processes("forkserver")
def executor():
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        return sum(pool.map(double, range(10)))
def terminated():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode
def executable():
    return subprocess.check_output([sys.executable, "-c", "import sys; print(sys.prefix)"], text=True).strip() == sys.prefix
"#;
    for threads in ["1", "3"] {
        // As a module: a process that is spawned imports it by its name.
        let server = python_app::bare()
            .file("app.py", python_app::source(code))
            .args(["--module=app", &format!("--threads={threads}")])
            .start();
        let before = server.workers();
        for _ in 0..3 {
            for (path, expected) in [
                ("/logs", "ok"),
                ("/futures", "90"),
                ("/old_pool", "90"),
                ("/program", "42"),
                ("/shell", ""),
                ("/aio", "42"),
                ("/tls", "8"),
                ("/forked", "90"),
                ("/spawned", "90"),
                ("/executor", "90"),
                ("/terminated", "-15"),
                ("/executable", "True"),
            ] {
                assert_eq!(server.get(path).text(), expected, "{path} with {threads} threads");
            }
        }
        assert_eq!(server.get("/server").text(), "90");
        let mut unique = BTreeSet::new();
        for _ in 0..10 {
            for words in ask_all(&server, "/unique", 1) {
                for word in words.split(' ') {
                    assert!(unique.insert(word.to_owned()), "{word} comes again");
                }
            }
        }
        server.wait_for_log("INFO:application:said by ");
        assert_eq!(server.workers(), before, "a worker was lost");
    }
}

#[test]
fn spawned_processes_are_python_and_import_what_they_run() {
    let tasks = "
import os, sys
def double(number): return 2 * number
def tell(pipe):
    # The server's modules are not there, nor has anything been run as the main program.
    pipe.send([os.path.samefile(sys.executable, '/proc/self/exe'), 'uwsgi' in sys.modules, hasattr(sys.modules['__main__'], '__file__')])
";
    let code = "
import concurrent.futures, multiprocessing, tasks
from tasks import *
spawn = multiprocessing.get_context('spawn')
def process():
    ours, its = spawn.Pipe()
    child = spawn.Process(target=tell, args=(its,))
    child.start()
    facts = ours.recv() if ours.poll(60) else 'nothing'
    child.join()
    return [facts, child.exitcode]
def executor():
    with concurrent.futures.ProcessPoolExecutor(2, spawn) as pool:
        return sum(pool.map(double, range(10)))
def own(): return 'own'
def of_the_file():
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
        return pool.submit(own).result()
";
    for source in ["--wsgi-file=app.py", "--module=app"] {
        let builder = python_app::bare().file("app.py", python_app::source(code)).file("tasks.py", tasks);
        let server = builder.arg(source).start();
        let before = server.workers();
        assert_eq!(server.get("/process").text(), "[[True, False, False], 0]", "{source}");
        assert_eq!(server.get("/executor").text(), "90", "{source}");
        let of_the_file = server.get("/of_the_file");
        if source == "--module=app" {
            assert_eq!(of_the_file.text(), "own");
        } else {
            // docs/python.md says so: such a file is no module that another process could import.
            assert_eq!(of_the_file.status, 500);
            server.wait_for_log("No module named 'uwsgi_file_app'");
        }
        assert_eq!(server.workers(), before, "{source}: a worker was lost");
    }
}

#[test]
fn threads_of_an_import_are_reported_with_their_names() {
    let code = "
for name in ('beat', 'collector'):
    threading.Thread(target=threading.Event().wait, name=name, daemon=True).start()
";
    let server = python_app::server(code).start();
    server.wait_for_log(
        "the application started threads that will be missing in the workers: beat, collector; ",
    );
    assert_eq!(server.get("/").text(), "hello");
    server.reload();

    let native = "
import ctypes
@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def wait(_):
    time.sleep(1000)
thread = ctypes.c_ulong()
libc = ctypes.CDLL(None)
getattr(libc, 'pthread_create')(ctypes.byref(thread), None, libc.pause, None)
";
    let server = python_app::server(native).start();
    server.wait_for_log("a library started 1 threads of its own that will be missing in the workers");
    assert_eq!(server.get("/").text(), "hello");

    let lazy = python_app::server(code).arg("--lazy-apps").start();
    assert_eq!(lazy.get("/").text(), "hello");
    assert!(!lazy.log().lines().iter().any(|line| line.contains("missing in the workers")));
}

#[test]
fn with_lazy_apps_each_worker_loads_for_itself() {
    let code = "
loaded_by = os.getpid()
beat = threading.Thread(target=threading.Event().wait, name='beat', daemon=True)
beat.start()
def own(): return [os.getpid(), os.getpid() == loaded_by, beat.is_alive()]
";
    let server = python_app::server(code).arg("--lazy-apps").start();
    for answer in ask_all(&server, "/own", 2) {
        assert!(answer.ends_with(", True, True]"), "{answer}");
    }
}

#[test]
fn post_fork_hooks_see_their_worker_and_may_fail() {
    let code = "
import uwsgi
seen = []
def after_fork():
    seen.append((uwsgi.worker_id(), os.getpid()))
    threading.Thread(target=threading.Event().wait, name='beat', daemon=True).start()
    if uwsgi.worker_id() == 2:
        raise RuntimeError('not in the second')
uwsgi.post_fork_hook = after_fork
at_import = uwsgi.worker_id()
def hook(): return [at_import, seen == [(uwsgi.worker_id(), os.getpid())], threading.active_count() > 1]
";
    let server = python_app::server(code).start();
    for answer in ask_all(&server, "/hook", 1) {
        assert_eq!(answer, "[0, True, True]");
    }
    server.wait_for_log("a hook of the application for new workers failed: RuntimeError: not in the second");
}

#[test]
fn the_environment_is_the_one_that_was_given() {
    let code = r#"
import json, subprocess
def facts():
    output = subprocess.check_output(["env", "-0"]).decode("utf-8", "surrogateescape")
    child = dict(line.split("=", 1) for line in output.split("\0") if line)
    return json.dumps({
        "own": dict(os.environ), "child": child, "utf8": sys.flags.utf8_mode, "files": sys.getfilesystemencoding(),
        "umlaut": os.path.exists("ä.txt"), "cache": sys.dont_write_bytecode, "path": "/nowhere" in sys.path,
    })
"#;
    for (locale, mode) in [(None, "1"), (Some(("LC_ALL", "C")), "1"), (Some(("LC_ALL", "C.UTF-8")), "0")] {
        let mut builder = python_app::server("import other\nfrom other import facts")
            .file("other.py", format!("import os, sys\n{code}"))
            .file("ä.txt", "")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONPATH", "/nowhere")
            .env("COLOUR", "blue");
        if let Some((name, value)) = locale {
            builder = builder.env(name, value);
        }
        let server = builder.start();
        for _ in 0..2 {
            let facts = server.get("/facts").json();
            for side in ["own", "child"] {
                assert_eq!(facts[side]["COLOUR"], "blue");
                assert_eq!(facts[side].get("LC_CTYPE"), None, "{locale:?} {side}");
                assert_eq!(facts[side].get("LC_ALL").is_some(), locale.is_some(), "{locale:?} {side}");
            }
            assert_eq!(facts["files"], "utf-8");
            assert_eq!(facts["umlaut"], true);
            assert_eq!(facts["cache"], true);
            assert_eq!(facts["path"], true);
            assert_eq!(facts["utf8"].to_string(), mode, "{locale:?}");
            // The same again after the master has executed itself.
            server.reload();
        }
        assert!(!server.path("__pycache__").exists());
        let environment = fs::read(format!("/proc/{}/environ", server.pid())).expect("it runs");
        let environment = String::from_utf8_lossy(&environment).into_owned();
        assert!(environment.contains("COLOUR=blue") && !environment.contains("LC_CTYPE"), "{environment:?}");
    }
}

/// Kibibytes that a process shares with no other one.
fn private(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it runs");
    let lines = rollup.lines().filter(|line| line.starts_with("Private_"));
    lines
        .map(|line| line.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok()).expect("a number"))
        .sum()
}

#[test]
fn what_was_loaded_stays_shared_when_garbage_is_collected() {
    let code = "
import gc
heap = [[number] for number in range(1_000_000)]
def collect():
    gc.collect()
    return gc.get_freeze_count() > 1_000_000
";
    let server = python_app::server(code).start();
    for _ in 0..4 {
        assert_eq!(ask_all(&server, "/collect", 1), BTreeSet::from(["True".to_owned()]));
    }
    let total = fs::read_to_string(format!("/proc/{}/statm", server.zygote())).expect("it runs");
    let total = total.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok()).expect("a number") * 4;
    for worker in server.workers() {
        let own = private(worker.pid);
        assert!(own * 4 < total, "worker {}: {own} of {total} KiB are its own", worker.slot);
    }
    assert!(processes::is_alive(server.pid()));
}

#[test]
fn what_a_worker_allocates_makes_no_holes_of_the_heap_its_own() {
    // One piece of ten is freed: each hole is in a page of its own. Python leaves pieces of that size to malloc.
    let code = "
pieces = [bytes(600) for _ in range(50_000)]
del pieces[::10]
def allocate():
    global own
    own = [bytes(600) for _ in range(5_000)]
";
    let server = python_app::server(code).arg("--processes=1").start();
    let worker = server.workers()[0].pid;
    let before = private(worker);
    assert_eq!(server.get("/allocate").text(), "None");
    let grown = private(worker) - before;
    assert!((3_000..6_000).contains(&grown), "{grown} KiB for 3,000");
}
