//! Interpreters whose code is in their executable: the zygote, and so the workers, are that executable.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;

use crate::support::server::Builder;
use crate::support::{LIMIT, Server, python_app};

const CODE: &str = r#"
import subprocess
def environment(): return os.environ.get("LD_PRELOAD")
def executable(): return sys.executable
def child():
    script = "import os; print(os.environ.get('LD_PRELOAD'), 'appserver' in open('/proc/self/maps').read())"
    return subprocess.check_output([sys.executable, "-c", script], text=True).strip()
def user(): return os.getuid()
"#;

/// Debian's interpreter, when it is one of this kind.
fn whole_interpreter() -> Option<PathBuf> {
    let python = PathBuf::from("/usr/bin/python3");
    let script = "print('libpython' in open('/proc/self/maps').read())";
    let output = Command::new(&python).args(["-I", "-c", script]).output().ok()?;
    if output.stdout != b"False\n" {
        eprintln!("skipped: {} has its code in a library", python.display());
        return None;
    }
    Some(python)
}

fn with(python: &Path) -> Builder {
    Server::builtin()
        .args(["--master", "--processes=2"])
        .arg(format!("--python={}", python.display()))
        .file("app.py", python_app::source(CODE))
        .arg("--wsgi-file=app.py")
}

/// What the zygote and the workers of a server are.
fn programs(server: &Server) -> Vec<PathBuf> {
    let workers = server.workers().into_iter().map(|worker| worker.pid);
    let pids = server.zygotes().into_iter().chain(workers);
    pids.map(|pid| fs::read_link(format!("/proc/{pid}/exe")).expect("it lives")).collect()
}

fn assert_runs_as(server: &Server, program: &Path) {
    let program = fs::canonicalize(program).expect("a program");
    let programs = programs(server);
    assert!(programs.len() >= 3 && programs.iter().all(|it| *it == program), "{programs:?}");
}

#[test]
fn the_zygote_becomes_the_interpreter_and_nobody_else_hears_of_it() {
    let Some(python) = whole_interpreter() else { return };
    for theirs in [None, Some("libm.so.6")] {
        let builder = with(&python);
        let builder = match theirs {
            Some(library) => builder.env("LD_PRELOAD", library),
            None => builder,
        };
        let mut server = builder.start();
        for _ in 0..2 {
            assert_runs_as(&server, &python);
            let preload = theirs.unwrap_or("None");
            assert_eq!(server.get("/environment").text(), preload);
            assert_eq!(server.get("/executable").text(), python.to_str().expect("text"));
            assert_eq!(server.get("/child").text(), format!("{preload} False"));
            server.reload();
        }
        let names: Vec<String> = server
            .zygotes()
            .into_iter()
            .map(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("it lives"))
            .collect();
        assert!(names.iter().all(|name| name.starts_with("appserver zygote (")), "{names:?}");
        server.signal(Signal::SIGINT);
        assert!(server.wait_exit(LIMIT).success());
    }
}

#[test]
fn a_release_that_does_not_load_is_refused_with_its_traceback() {
    let Some(python) = whole_interpreter() else { return };
    let server = with(&python).start();
    let zygote = server.zygote();
    server.file("app.py", "import no_such_module\n");
    let mark = server.log().mark();
    server.signal(Signal::SIGHUP);
    server.wait_for_log_after(mark, "ModuleNotFoundError: No module named 'no_such_module'");
    server.wait_for_log_after(mark, "generation 1 serves on");
    assert_eq!(server.zygotes(), [zygote]);
    assert_eq!(server.get("/").text(), "hello");
}

#[test]
fn applications_that_each_worker_loads_find_the_same_interpreter() {
    let Some(python) = whole_interpreter() else { return };
    let server = with(&python).arg("--lazy-apps").start();
    assert_eq!(server.get("/executable").text(), python.to_str().expect("text"));
    assert_runs_as(&server, &python);
}

/// An installation with this interpreter and without its library.
fn installation(python: &Path, directory: &Path) -> PathBuf {
    let script = "import sys, sysconfig; print(sys.executable, sysconfig.get_path('stdlib'))";
    let output = Command::new(python).args(["-I", "-c", script]).output().expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    let (executable, modules) = text.trim().split_once(' ').expect("two paths");
    let modules = Path::new(modules);
    let copy = directory.join("bin/python3");
    let library = directory.join("lib").join(modules.file_name().expect("a name"));
    for name in [copy.parent().expect("bin"), &library] {
        fs::create_dir_all(name).expect("ours");
    }
    assert!(Command::new("cp").arg("-L").arg(executable).arg(&copy).status().expect("cp").success());
    for module in fs::read_dir(modules).expect("its modules").flatten() {
        let (name, path) = (module.file_name(), module.path());
        if name.to_string_lossy().starts_with("_sysconfigdata_") {
            // Where it would find the library of the interpreter that it was copied from.
            let mut text = fs::read_to_string(&path).expect("a module");
            text.push_str("\nbuild_time_vars['LIBDIR'] = '/no/such/directory'\n");
            fs::write(library.join(name), text).expect("ours");
        } else {
            symlink(path, library.join(name)).expect("ours");
        }
    }
    copy
}

#[test]
fn an_interpreter_without_a_library_serves() {
    let Some(python) = whole_interpreter() else { return };
    let place = tempfile::tempdir().expect("a directory");
    let copy = installation(&python, place.path());
    let server = with(&copy).start();
    assert_eq!(server.get("/executable").text(), copy.to_str().expect("text"));
    assert_runs_as(&server, &copy);
    server.reload();
    assert_eq!(server.get("/child").text(), "None False");
}

#[test]
fn a_configuration_is_checked_with_the_application_in_its_interpreter() {
    let Some(python) = whole_interpreter() else { return };
    let place = tempfile::tempdir().expect("a directory");
    let copy = installation(&python, place.path());
    for (code, words) in [
        ("", None),
        (
            "import no_such_module",
            Some("no application: ModuleNotFoundError: No module named 'no_such_module'"),
        ),
    ] {
        let builder = with(&copy).file("app.py", python_app::source(code));
        let mut check = Command::new(builder.program());
        check.arg("--check-config").arg(format!("--python={}", copy.display()));
        check.arg(format!("--wsgi-file={}", builder.path("app.py").display()));
        let output = check.output().expect("it runs");
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), words.is_none(), "{said}");
        assert!(said.contains(words.unwrap_or_default()), "{said}");
    }
}

/// A server that has the plugin, and not itself as a library.
fn alone(python: &Path) -> Builder {
    let builder = with(python).copied();
    let plugin = "libappserver_python.so";
    fs::create_dir(builder.path("plugins")).expect("ours");
    let built = Server::builtin().program().with_file_name(plugin);
    symlink(built, builder.path("plugins").join(plugin)).expect("ours");
    let directory = builder.path("plugins");
    builder.arg(format!("--plugin-dir={}", directory.display()))
}

#[test]
fn a_server_without_itself_as_a_library_takes_that_of_the_interpreter() {
    let Some(python) = whole_interpreter() else { return };
    let server = alone(&python).start();
    assert_eq!(server.get("/executable").text(), python.to_str().expect("text"));
    assert_runs_as(&server, server.program());

    let place = tempfile::tempdir().expect("a directory");
    let mut server = alone(&installation(&python, place.path())).spawn();
    assert!(!server.wait_exit(LIMIT).success());
    let line = server.wait_for_log("its shared library is not; looked for ");
    assert!(line.contains("libappserver_guest.so"), "{line}");
}

#[test]
fn rights_that_a_program_would_lose_are_kept() {
    let Some(python) = whole_interpreter() else { return };
    if !geteuid().is_root() {
        eprintln!("skipped: only root has rights to keep");
        return;
    }
    let as_nobody = || with(&python).directory_mode(0o755).arg("--uid=nobody");
    let server = as_nobody().start();
    assert_ne!(server.get("/user").text(), "0");
    assert_runs_as(&server, &python);
    server.reload();
    assert_runs_as(&server, &python);

    let server = as_nobody().arg("--cap=net_bind_service").start();
    assert_ne!(server.get("/user").text(), "0");
    assert_runs_as(&server, server.program());
}
