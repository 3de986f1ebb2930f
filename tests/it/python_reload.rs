//! Reloads of Python applications: by edits, by touched files, under load.

use std::fs;

use nix::sys::signal::Signal;

use crate::support::log::Mark;
use crate::support::{LIMIT, Load, LoadSpec, Server, eventually, python_app};

const WATCH: &str = "--py-autoreload=50ms";

fn answering(text: &str) -> String {
    python_app::source(&format!("def hello(): return '{text}'"))
}

/// Edits the application and waits until the reload by that is complete.
fn edit(server: &Server, text: &str) {
    let mark = server.log().mark();
    server.file("app.py", answering(text));
    server.wait_for_log_after(mark, "app.py has changed: asking for a reload");
    server.wait_for_log_after(mark, " complete: generation ");
    assert_eq!(server.get("/").text(), text);
}

/// Waits for a reload that was refused, and checks that the code before serves on.
fn refused(server: &Server, mark: Mark, reason: &str, text: &str) {
    server.wait_for_log_after(mark, reason);
    server.wait_for_log_after(mark, "serves on");
    assert_eq!(server.get("/").text(), text);
}

#[test]
fn an_edit_reloads_and_a_broken_one_waits_for_the_next() {
    for lazy in ["--lazy-apps=false", "--lazy-apps"] {
        let server = python_app::server("").args([WATCH, lazy]).start();
        edit(&server, "one");

        let mark = server.log().mark();
        server.file("app.py", "def application(:");
        refused(&server, mark, "SyntaxError: ", "one");
        edit(&server, "two");

        // The new code imports a file that is broken: only mending that one helps.
        let mark = server.log().mark();
        server.file("helper/__init__.py", "import no_such_module");
        server.file("app.py", format!("import helper\n{}", answering("three")));
        refused(&server, mark, "No module named 'no_such_module' (", "two");
        let mark = server.log().mark();
        server.file("helper/__init__.py", "");
        server.wait_for_log_after(mark, " complete: generation ");
        assert_eq!(server.get("/").text(), "three");

        // And is watched as the others are.
        let mark = server.log().mark();
        server.file("helper/__init__.py", "changed = True");
        server.wait_for_log_after(mark, "helper/__init__.py has changed: asking for a reload");
        server.wait_for_log_after(mark, " complete: generation ");
        assert_eq!(server.get("/").text(), "three");
    }
}

#[test]
fn files_that_a_request_imports_are_watched_and_ignored_modules_are_not() {
    let server = python_app::server("def late():\n    import late\n    return late.text")
        .file("late.py", "text = 'old'")
        .file("other.py", "")
        .args([WATCH, "--py-autoreload-ignore=ignored", "--processes=1", "--import=ignored"])
        .file("ignored.py", "")
        .start();
    assert_eq!(server.get("/late").text(), "old");
    server.file("ignored.py", "changed = True");
    eventually("the edit of a file imported late is seen", LIMIT, || {
        // Until the watcher has seen the file for the first time, an edit is no change to it.
        server.file("late.py", "text = 'newer'");
        let lines = server.log().lines();
        lines.iter().any(|line| line.contains("late.py has changed")).then_some(())
    });
    eventually("the new text", LIMIT, || (server.get("/late").text() == "newer").then_some(()));
    assert!(!server.log().lines().iter().any(|line| line.contains("ignored.py has changed")));
}

#[test]
fn an_edit_while_the_rest_is_loaded_is_seen() {
    let slow = "\nopen('loading', 'w').close()\nwhile os.path.exists('loading'): time.sleep(0.01)\n";
    let server = python_app::server("").args([WATCH]).file("first.py", "text = 'old'").start();
    let mark = server.log().mark();
    server.file(
        "app.py",
        python_app::source(&format!("from first import text\n{slow}\ndef hello(): return text")),
    );
    let loading = server.path("loading");
    eventually("the new code is being loaded", LIMIT, || loading.exists().then_some(()));
    // Of another length: a cached .pyc knows no more of its source than length and second.
    server.file("first.py", "text = 'newer'");
    fs::remove_file(&loading).expect("ours");
    server.wait_for_log_after(mark, "first.py has changed: asking for a reload");
    eventually("the new text", LIMIT, || {
        let _ = fs::remove_file(&loading);
        (server.get("/").text() == "newer").then_some(())
    });
}

#[test]
fn a_worker_that_is_replaced_keeps_watching() {
    let server = python_app::server("").args([WATCH, "--processes=1"]).start();
    for round in 0..3 {
        let before = server.workers();
        crate::support::processes::kill(before[0].pid, Signal::SIGKILL);
        // While there is none that could look.
        edit(&server, &format!("round {round}"));
    }
}

#[test]
fn a_touched_file_reloads() {
    let server = python_app::server("").file("touched", "").arg("--touch-reload=touched").start();
    server.file("app.py", answering("new"));
    let mark = server.log().mark();
    fs::write(server.path("touched"), "").expect("ours");
    server.wait_for_log_after(mark, " complete: generation ");
    assert_eq!(server.get("/").text(), "new");

    let mark = server.log().mark();
    server.file("app.py", "raise ValueError('not today')");
    fs::write(server.path("touched"), "").expect("ours");
    refused(&server, mark, "ValueError: not today (", "new");
}

#[test]
fn an_application_may_ask_for_its_reload_or_its_end() {
    let code = "
import uwsgi
def reload(): return uwsgi.reload()
def stop(): return uwsgi.stop()
";
    for threads in ["1", "2"] {
        let mut server = python_app::server(code).arg(format!("--threads={threads}")).start();
        let mark = server.log().mark();
        assert_eq!(server.get("/reload").text(), "True");
        server.wait_for_log_after(mark, " complete: generation ");
        assert_eq!(server.get("/").text(), "hello");
        assert_eq!(server.get("/stop").text(), "True");
        assert!(server.wait_exit(LIMIT).success());
    }
}

#[test]
fn reloads_of_an_application_that_loads_slowly_lose_no_request() {
    // Time to import modules, and time that a worker needs to connect to its database.
    let code = "
import uwsgi
time.sleep(0.3)
uwsgi.post_fork_hook = lambda: time.sleep(0.05)
def hello():
    time.sleep(0.002)
    return 'hello'
";
    for arguments in [
        ["--threads=1", "--lazy-apps=false"],
        ["--threads=3", "--lazy-apps=false"],
        ["--threads=1", "--lazy-apps"],
    ] {
        let server = python_app::server(code).args(arguments).start();
        let load = Load::start(server.target(), &LoadSpec::gets());
        for round in 0..3 {
            load.wait_for(20);
            if round == 1 {
                // A release that does not load in between.
                let mark = server.log().mark();
                server.file("app.py", format!("import time; time.sleep(0.1)\nraise ValueError('{round}')"));
                server.signal(Signal::SIGHUP);
                server.wait_for_log_after(mark, "serves on");
                server.file("app.py", python_app::source(code));
            }
            server.reload();
        }
        load.wait_for(20);
        load.stop().assert_nothing_lost();
    }
}

#[test]
fn workers_that_are_replaced_one_by_one_lose_no_request() {
    let server = python_app::server("").args(["--processes=4", "--threads=2"]).start();
    let load = Load::start(server.target(), &LoadSpec::gets());
    for _ in 0..4 {
        // One worker after the other.
        let mark = server.log().mark();
        for worker in server.workers() {
            crate::support::processes::kill(worker.pid, Signal::SIGHUP);
        }
        server.wait_for_log_after(mark, "Respawned appserver worker ");
        load.wait_for(50);
    }
    load.stop().assert_nothing_lost();
}
