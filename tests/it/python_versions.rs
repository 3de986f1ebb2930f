//! One build of the plugin serves every Python that is there.
//!
//! The interpreters are those in `APPSERVER_TEST_PYTHONS` (paths, separated by colons), Debian's
//! `/usr/bin/python3`, `python3.N` in `PATH`, the versions of pyenv, and what `scripts/test-pythons`
//! has fetched of other Debian releases.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::server::Builder;
use crate::support::{LIMIT, Server, python_app};

/// An interpreter that ought to work.
struct Python {
    executable: PathBuf,
    version: (u32, u32),
}

/// All interpreters to be found, each installation once; those that are too old are left out.
fn pythons() -> Vec<Python> {
    let mut candidates: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("APPSERVER_TEST_PYTHONS").unwrap_or_default()).collect();
    candidates.push("/usr/bin/python3".into());
    candidates.extend((9..=15).map(|minor| format!("python3.{minor}").into()));
    let home = std::env::home_dir().unwrap_or_default();
    let root = std::env::var_os("PYENV_ROOT").map_or_else(|| home.join(".pyenv"), PathBuf::from);
    let versions = fs::read_dir(root.join("versions")).into_iter().flatten().flatten();
    candidates.extend(versions.map(|version| version.path().join("bin/python3")));
    let fetched = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/pythons"));
    candidates.extend(
        fetched.into_iter().flatten().flatten().flat_map(|suite| {
            (9..=15).map(move |minor| suite.path().join(format!("usr/bin/python3.{minor}")))
        }),
    );
    candidates.push(python_app::usual().clone());
    let mut found: Vec<Python> = candidates.iter().filter_map(|it| look_at(it)).collect();
    found.sort_by(|a, b| a.executable.cmp(&b.executable));
    found.dedup_by(|a, b| a.executable == b.executable);
    assert!(!found.is_empty(), "the tests need a Python with a shared library");
    found
}

/// The interpreter that a command starts, if it is one with a shared library and of our time.
fn look_at(command: &Path) -> Option<Python> {
    let script = "import sys, sysconfig
print(sys.executable)
print(*sys.version_info[:2], 'nogil' if sysconfig.get_config_var('Py_GIL_DISABLED') else 'gil')
print(sysconfig.get_config_var('INSTSONAME'))
for directory in sysconfig.get_config_var('LIBDIR'), sys.base_prefix + '/lib':
    print(directory)
    print(directory + '/' + str(sysconfig.get_config_var('MULTIARCH')))
";
    let output = Command::new(command).args(["-I", "-c", script]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut lines = text.lines();
    let executable = fs::canonicalize(lines.next()?).ok()?;
    let mut facts = lines.next()?.split(' ');
    let version = (facts.next()?.parse().ok()?, facts.next()?.parse().ok()?);
    let library = lines.next()?;
    let is_there = lines.any(|directory| Path::new(directory).join(library).exists());
    let usable = version >= (3, 9) && facts.next() == Some("gil") && is_there;
    usable.then_some(Python { executable, version })
}

fn with(python: &Path) -> Builder {
    Server::builtin().args(["--master", "--processes=2"]).arg(format!("--python={}", python.display()))
}

#[test]
fn each_version_loads_serves_reloads_and_fails_alike() {
    let code = "
def version(): return '%d %d' % sys.version_info[:2]
def recursion(): return recursion()
def nested():
    import json
    return json.loads('[' * 200000)
def printed():
    items = []
    for _ in range(200000):
        items = [items]
    return repr(items)
";
    for python in pythons() {
        for threads in ["1", "2"] {
            let name = format!("{} with {threads} threads", python.executable.display());
            let mut server = with(&python.executable)
                .file("app.py", python_app::source(code))
                .args(["--wsgi-file=app.py", &format!("--threads={threads}")])
                .start();
            let (major, minor) = python.version;
            let before = server.workers();
            for _ in 0..4 {
                assert_eq!(server.get("/version").text(), format!("{major} {minor}"), "{name}");
                for path in ["/recursion", "/nested", "/printed"] {
                    assert_eq!(server.get(path).status, 500, "{name}: {path}");
                }
            }
            server.wait_for_log("RecursionError");
            assert_eq!(server.workers(), before, "{name}: a worker was lost");
            server.reload();
            assert_eq!(server.get("/").text(), "hello", "{name}");

            let mark = server.log().mark();
            server.file("app.py", "def fail():\n    import no_such_module\nfail()\n");
            server.signal(nix::sys::signal::Signal::SIGHUP);
            server.wait_for_log_after(mark, "ModuleNotFoundError: No module named 'no_such_module' (");
            server.wait_for_log_after(mark, "generation 2 serves on");
            assert_eq!(server.get("/").text(), "hello", "{name}");
            server.signal(nix::sys::signal::Signal::SIGINT);
            assert!(server.wait_exit(LIMIT).success(), "{name}");
        }
    }
}

/// Makes a virtual environment with a module and a `.pth` file in it.
fn make_venv(python: &Path, venv: &Path) {
    let made =
        Command::new(python).args(["-m", "venv", "--without-pip"]).arg(venv).output().expect("it runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let site = fs::read_dir(venv.join("lib")).expect("made").flatten().next().expect("a version").path();
    let site = site.join("site-packages");
    fs::create_dir_all(site.join("package")).expect("ours");
    fs::write(site.join("package/__init__.py"), "name = 'package'").expect("ours");
    fs::create_dir_all(venv.join("more")).expect("ours");
    fs::write(venv.join("more/added.py"), "name = 'added'").expect("ours");
    fs::write(site.join("more.pth"), venv.join("more").display().to_string()).expect("ours");
}

const IN_VENV: &str = "
import package, added
def names(): return [package.name, added.name, os.path.basename(sys.prefix), sys.prefix != sys.base_prefix]
def program():
    import subprocess
    return subprocess.check_output([sys.executable, '-c', 'import package; print(package.name)'], text=True).strip()
";

#[test]
fn each_version_finds_what_is_in_a_virtual_environment() {
    for python in pythons() {
        if python.executable.starts_with("/usr/bin") && !has_venv(&python.executable) {
            // Debian packages the module apart.
            continue;
        }
        for option in ["virtualenv", "home", "venv"] {
            let builder = Server::builtin().args(["--master", "--processes=1"]);
            make_venv(&python.executable, &builder.path("env"));
            // A relative path, as it stands in many a configuration.
            let server = builder
                .file("app.py", python_app::source(IN_VENV))
                .args([format!("--{option}=env"), "--wsgi-file=app.py".to_owned()])
                .start();
            for _ in 0..2 {
                assert_eq!(server.get("/names").text(), "['package', 'added', 'env', True]", "{option}");
                assert_eq!(server.get("/program").text(), "package");
                server.reload();
            }
        }
    }
}

fn has_venv(python: &Path) -> bool {
    Command::new(python).args(["-c", "import ensurepip"]).output().is_ok_and(|output| output.status.success())
}

#[test]
fn home_may_be_an_installation() {
    let python = python_app::usual();
    let prefix = python.parent().and_then(Path::parent).expect("it is in a bin directory");
    let server = Server::builtin()
        .file("app.py", python_app::source("def where(): return sys.prefix"))
        .args(["--master", "--wsgi-file=app.py"])
        .arg(format!("--home={}", prefix.display()))
        .start();
    assert_eq!(Path::new(&server.get("/where").text()), prefix);
}

#[test]
fn an_interpreter_that_vanishes_costs_a_reload_and_nothing_else() {
    let builder = Server::builtin().args(["--master", "--processes=2"]);
    let venv = builder.path("env");
    make_venv(python_app::usual(), &venv);
    let server = builder
        .file("app.py", python_app::source(IN_VENV))
        .args(["--virtualenv=env", "--wsgi-file=app.py"])
        .start();
    let away = server.path("env.away");
    fs::rename(&venv, &away).expect("ours");
    let mark = server.log().mark();
    server.signal(nix::sys::signal::Signal::SIGHUP);
    let line = server.wait_for_log_after(mark, "generation 2 cannot serve: ");
    assert!(line.contains("no application: ") && line.contains("/env"), "{line}");
    server.wait_for_log_after(mark, "generation 1 serves on");
    // A worker that dies meanwhile is forked from what was loaded.
    let before = server.workers();
    crate::support::processes::kill(before[0].pid, nix::sys::signal::Signal::SIGKILL);
    server.wait_workers("the worker is replaced", |now| now.len() == 2 && !now.contains(&before[0]));
    assert_eq!(server.get("/").text(), "hello");
    fs::rename(&away, &venv).expect("ours");
    server.reload();
    assert_eq!(server.get("/names").text(), "['package', 'added', 'env', True]");
}

#[test]
fn a_reload_may_bring_another_version() {
    let pythons = pythons();
    let builder = Server::builtin().args(["--master", "--processes=2"]);
    let link = builder.path("python");
    let turn_to = |python: &Python| {
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(&python.executable, &link).expect("ours");
    };
    turn_to(&pythons[0]);
    let server = builder
        .file("app.py", python_app::source("def version(): return '%d %d' % sys.version_info[:2]"))
        .args(["--python=./python", "--wsgi-file=app.py"])
        .start();
    for python in &pythons {
        turn_to(python);
        server.reload();
        let (major, minor) = python.version;
        assert_eq!(server.get("/version").text(), format!("{major} {minor}"));
    }
}

#[test]
fn what_cannot_be_driven_is_refused_with_the_reason() {
    // A shell writes it: were it open for writing here while another test forks, it could not be run.
    let write = r#"printf '#!/bin/sh\n%s\n' "$1" > "$2" && chmod +x "$2""#;
    for (facts, reason) in [
        (
            "implementation=cpython\\nversion=3.13.1\\ngil_disabled=1",
            "is a free-threaded build of Python 3.13.1",
        ),
        ("implementation=pypy\\nversion=3.10.14", "is pypy, another implementation"),
        ("implementation=cpython\\nversion=3.8.18", "is Python 3.8.18; the oldest that can be used is 3.9"),
    ] {
        let builder = Server::builtin().file("app.py", python_app::source("")).args([
            "--master",
            "--python=./python",
            "--wsgi-file=app.py",
        ]);
        let script = format!("printf '\\n{facts}\\nend\\n'");
        let mut shell = Command::new("sh");
        shell.args(["-c", write, "sh", &script]).arg(builder.path("python"));
        assert!(shell.status().expect("a shell").success());
        let mut server = builder.spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
        server.wait_for_log(reason);
    }
}
