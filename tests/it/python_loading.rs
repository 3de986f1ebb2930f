//! Loading Python applications: how they are named, and what the operator reads when it fails.

use nix::sys::signal::Signal;

use crate::support::python_app::{self, source};
use crate::support::server::Builder;
use crate::support::{LIMIT, Server};

/// An application that cannot be loaded, and the words that say why.
const BROKEN: [(&str, &str); 9] = [
    ("def application(:\n", "app.py:1)"),
    ("import no_such_module\n", "No module named 'no_such_module' ("),
    ("def app(environ, start_response): pass\n", r#"it has "app": name it with callable = app"#),
    ("application = 7\n", r#""application" of file app.py is not callable but a int"#),
    ("import sys; sys.exit(3)\n", "SystemExit: 3 ("),
    ("import os; os._exit(3)\n", "ended with exit code 3 before the application was loaded"),
    ("import ctypes; ctypes.string_at(0)\n", "ended with signal 11 (SIGSEGV)"),
    ("class Stop(BaseException): pass\nraise Stop('enough')\n", "Stop: enough ("),
    (
        "import os; os.closerange(3, 1000)\ndef application(e, s): pass\n",
        "the application has closed descriptors of the server",
    ),
];

fn broken(code: &str) -> Builder {
    python_app::bare().file("app.py", code).arg("--wsgi-file=app.py")
}

fn hello(server: &Server) {
    assert_eq!(server.get("/").text(), "hello");
}

/// Starts an application that answers `hello`, and ends it.
fn serves(builder: Builder) {
    hello(&builder.start());
}

#[test]
fn a_first_start_that_fails_says_why() {
    for (code, reason) in BROKEN {
        for (argument, expected) in [("--need-app=false", 1), ("--need-app", 22)] {
            let mut server = broken(code).arg(argument).spawn();
            let exit = server.wait_exit(LIMIT).code();
            assert!(server.log().lines().iter().any(|line| line.contains(reason)), "{code}: no {reason}");
            assert_eq!(exit, Some(expected), "{code} {argument}");
        }
    }
}

#[test]
fn an_application_that_is_needed_has_to_be_named() {
    for lazy in ["--lazy-apps=false", "--lazy-apps"] {
        let mut server = Server::builtin().args(["--master", "--need-app", lazy, "--import=json"]).spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(22), "{lazy}");
        server.wait_for_log("no application: need-app is set and none is named: module, wsgi-file,");
    }
}

#[test]
fn a_worker_that_has_to_load_it_says_the_same() {
    for (code, reason) in [BROKEN[0], BROKEN[1], BROKEN[2], BROKEN[4]] {
        let mut server = broken(code).args(["--lazy-apps", "--need-app"]).spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(22), "{code}");
        assert!(server.log().lines().iter().any(|line| line.contains(reason)), "{code}: no {reason}");
    }
}

#[test]
fn a_reload_that_fails_leaves_the_old_code_serving_and_says_why() {
    let server = python_app::server("").start();
    for (code, reason) in BROKEN {
        let mark = server.log().mark();
        server.file("app.py", code);
        server.signal(Signal::SIGHUP);
        server.wait_for_log_after(mark, reason);
        server.wait_for_log_after(mark, "generation 1 serves on");
        hello(&server);
    }
    server.file("app.py", source("def hello(): return 'hello again'"));
    server.reload();
    assert_eq!(server.get("/").text(), "hello again");
}

#[test]
fn a_traceback_begins_in_the_application() {
    let code = "def deep():\n    import no_such_module\ndeep()\n";
    let mut server = broken(code).spawn();
    server.wait_exit(LIMIT);
    let lines = server.log().lines();
    let begin = lines.iter().position(|line| line.starts_with("Traceback")).expect("a traceback");
    assert!(lines[begin + 1].ends_with("app.py\", line 3, in <module>"), "{lines:#?}");
    assert!(lines.iter().any(|line| line.starts_with("ModuleNotFoundError: ")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("<appserver>")), "{lines:#?}");
}

#[test]
fn an_import_that_crashes_shows_where_it_was() {
    let mut server = broken("import ctypes\ndef crash():\n    ctypes.string_at(0)\ncrash()\n").spawn();
    server.wait_exit(LIMIT);
    server.wait_for_log("Fatal Python error: Segmentation fault");
    server.wait_for_log("app.py\", line 3 in crash");
}

#[test]
fn an_import_that_hangs_is_given_up() {
    let mut server = broken("import time; time.sleep(1000)\n").arg("--boot-timeout=500ms").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("the application was not loaded within 0.5 s (boot-timeout)");

    let server = python_app::server("").arg("--boot-timeout=5").start();
    server.file("app.py", "import threading; threading.Event().wait()\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("the application was not loaded within 5 s (boot-timeout)");
    server.wait_for_log("generation 1 serves on");
    hello(&server);
}

#[test]
fn an_import_that_talks_a_lot_is_heard_and_does_not_block() {
    let code = r#"
for stream in (sys.stdout, sys.stderr):
    for number in range(50000):
        stream.write(f"{stream.name} {number} {'x' * 80}\n")
"#;
    let server = python_app::server(code).start();
    server.wait_for_log("<stdout> 49999 xxx");
    server.wait_for_log("<stderr> 49999 xxx");
    hello(&server);
}

#[test]
fn an_import_that_closes_low_descriptors_does_no_harm() {
    for lazy in ["--lazy-apps=false", "--lazy-apps"] {
        let mut server = python_app::server("os.closerange(0, 21)").arg(lazy).start();
        server.wait_for_log("the application has closed standard streams; they lead to the log again");
        for _ in 0..8 {
            hello(&server);
        }
        server.reload();
        hello(&server);
        server.signal(Signal::SIGINT);
        assert!(server.wait_exit(LIMIT).success());
    }
}

#[test]
fn an_import_that_changes_every_signal_does_no_harm() {
    let change = |action: &str| {
        format!(
            "import signal\nfor number in range(1, signal.NSIG):\n    try:\n        \
             signal.signal(number, {action})\n    except (OSError, ValueError):\n        pass\n\
             signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))"
        )
    };
    let actions = ["signal.SIG_DFL", "signal.SIG_IGN", "lambda number, frame: print('caught', number)"];
    for (action, lazy) in actions.iter().flat_map(|action| [(action, false), (action, true)]) {
        let mut server = python_app::server(&change(action)).arg(format!("--lazy-apps={lazy}")).start();
        hello(&server);
        let zygote = server.zygote();
        for signal in [Signal::SIGHUP, Signal::SIGUSR1] {
            crate::support::processes::kill(zygote, signal);
        }
        // The zygote has survived it: it forks the successor.
        let before = server.workers();
        crate::support::processes::kill(before[0].pid, Signal::SIGKILL);
        server.wait_workers("the worker is replaced", |now| now.len() == 2 && !now.contains(&before[0]));
        server.reload();
        hello(&server);
        server.signal(Signal::SIGINT);
        assert_eq!(server.wait_exit(LIMIT).code(), Some(0), "{action}");
    }
}

#[test]
fn an_import_that_changes_the_directory_keeps_it_and_the_server_finds_its_files() {
    let server = python_app::server("os.chdir('/tmp')\ndef here(): return os.getcwd()").start();
    assert_eq!(server.get("/here").text(), "/tmp");
    server.reload();
    assert_eq!(server.get("/here").text(), "/tmp");
}

#[test]
fn an_import_that_forks_loads_once() {
    let code = "
if os.fork() == 0:
    pass
";
    let server = python_app::server(code).start();
    server.wait_for_log("a process that the application forked while it was loaded came back from it");
    assert_eq!(server.workers().len(), 2);
    hello(&server);
    server.reload();
    hello(&server);
}

#[test]
fn an_import_may_ask_for_a_reload_and_is_told_that_it_is_too_early() {
    let mut server = broken("import uwsgi; uwsgi.reload()\n").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("reload: only a worker can do that; the application is still being loaded (");
}

#[test]
fn an_import_that_signals_a_reload_is_loaded_again_and_not_for_ever() {
    let code = "
import signal
if not os.path.exists('asked'):
    open('asked', 'w').close()
    os.kill(os.getppid(), signal.SIGHUP)
";
    let server = python_app::server(code).start();
    hello(&server);
    std::fs::remove_file(server.path("asked")).expect("the first load made it");
    let mark = server.log().mark();
    server.signal(Signal::SIGHUP);
    server.wait_for_log_after(mark, " complete: generation ");
    hello(&server);
}

#[test]
fn modules_are_found_in_the_directory_and_the_path() {
    let app = source("");
    let bare = python_app::bare;
    serves(bare().file("site.d/one/project/wsgi.py", &app).args(["--pp=site.d/*", "--module=project.wsgi"]));
    serves(bare().file("wsgi.py", &app).arg("--module=wsgi:application"));
    serves(
        bare().file("wsgi.py", format!("{app}\ndef make(): return application")).arg("--module=wsgi:make()"),
    );
    serves(
        bare()
            .file("wsgi.py", format!("{app}\nmain = application; del application"))
            .args(["--module=wsgi", "--callable=main"]),
    );
    serves(bare().args(["--eval", &app]));
    let elsewhere = tempfile::tempdir().expect("a directory");
    let file = elsewhere.path().join("outside.wsgi");
    std::fs::write(&file, &app).expect("a directory of ours");
    serves(bare().arg(format!("--wsgi-file={}", file.display())));
    serves(bare().file("in/app.py", &app).args(["--chdir=in", "--wsgi-file=app.py"]));
}

#[test]
fn later_paths_come_first() {
    let which = |name: &str| format!("{}\ndef which(): return '{name}'", source(""));
    let server = python_app::bare().file("a/app.py", which("a")).file("b/app.py", which("b")).args([
        "--pythonpath=a",
        "--pythonpath=b",
        "--module=app",
    ]);
    assert_eq!(server.start().get("/which").text(), "b");
}

#[test]
fn interpreter_options_reach_the_interpreter() {
    let code = "
sys.path.append('.')
def facts(): return [sys.argv, sys.flags.optimize, sys.flags.no_site, __debug__, sys.executable]
";
    let server = python_app::server(code)
        .args(["--pyargv=--name value", "--optimize=1", "--no-site", "--py-executable=/opt/python"])
        .start();
    assert_eq!(server.get("/facts").text(), "[['uwsgi', '--name', 'value'], 1, 1, False, '/opt/python']");
}

#[test]
fn imports_and_aliases_come_before_the_application() {
    let server =
        python_app::server("import record, virtual\ndef order(): return record.order + [virtual.name]")
            .file("record.py", "order = []")
            .file("first.py", "import record; record.order.append('shared')")
            .file("second.py", "import record; record.order.append('import')")
            .file("broken.py", "import nothing_of_the_kind")
            .file("real.py", "name = 'real'")
            .args([
                "--import=second",
                "--import=broken",
                "--shared-import=first.py",
                "--pymodule-alias=virtual=real",
            ])
            .start();
    assert_eq!(server.get("/order").text(), "['shared', 'import', 'real']");
    server.wait_for_log("cannot import broken");
}

#[test]
fn several_applications_may_have_files_of_one_name() {
    let which = |name: &str| {
        format!(
            "def application(environ, start_response):\n    start_response('200 OK', [])\n    \
             return [('{name} ' + environ['SCRIPT_NAME'] + ' ' + environ['PATH_INFO']).encode()]\n"
        )
    };
    let server = python_app::bare()
        .file("one/app.py", which("one"))
        .file("two/app.py", which("two"))
        .file("three.py", which("three"))
        .file("app.py", which("root"))
        .args([
            "--wsgi-file=app.py",
            "--mount=/one=one/app.py",
            "--mount=/two=two/app.py",
            "--mount=/three=three:application",
        ])
        .arg("--manage-script-name")
        .start();
    for (path, expected) in [
        ("/one/x", "one /one /x"),
        ("/two/x", "two /two /x"),
        ("/three", "three /three "),
        ("/onex", "root  /onex"),
        ("/", "root  /"),
    ] {
        assert_eq!(server.get(path).text(), expected);
    }
}

#[test]
fn check_config_loads_the_application_and_says_what_is_wrong() {
    let check = |code: &str| {
        let builder = broken(code);
        let mut command = std::process::Command::new(builder.program());
        command.arg("--check-config").arg("--wsgi-file=app.py").arg("--http=app.sock");
        command.arg(format!("--python={}", python_app::usual().display()));
        let output = command.current_dir(builder.path("")).output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for odd in ["", "os.closerange(0, 21)", "os.fork()"] {
        let (code, text) = check(&source(odd));
        assert_eq!(code, Some(0), "{odd}: {text}");
    }
    for (code, reason) in &BROKEN[..5] {
        let (exit, text) = check(code);
        assert_eq!(exit, Some(1), "{text}");
        assert!(text.contains(reason), "{text}");
    }
    for (code, reason) in [(BROKEN[5].0, "ended with exit code 3"), (BROKEN[6].0, "ended with signal 11")] {
        let (exit, text) = check(code);
        assert!(exit == Some(1) && text.contains(reason), "{text}");
    }
}
