//! WsgiDAV, a WebDAV server on WSGI, judged by litmus, the test-suite for WebDAV servers.

use std::process::Command;
use std::thread;

use crate::support::python::Project;
use crate::support::{Server, Target};

/// All that litmus has.
const SUITES: [&str; 5] = ["basic", "copymove", "props", "locks", "http"];
/// Those that need nothing but the files; locks and properties are in the memory of one worker.
const STATELESS: [&str; 3] = ["basic", "copymove", "http"];

/// A server that shares an empty directory.
fn share(project: &Project, processes: u32, threads: u32) -> Server {
    Server::builtin()
        .args(["--master", "--module=share", "--need-app"])
        .args([format!("--processes={processes}"), format!("--threads={threads}")])
        .arg(format!("--chdir={}", project.root().display()))
        .arg(format!("--virtualenv={}", project.environment().display()))
        .env("DAV_ROOT", project.data(""))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .start()
}

/// A run of litmus, which writes its traces into the directory of the server.
fn litmus(server: &Server, suites: &[&str]) -> Command {
    let Target::Tcp(address) = server.target() else { panic!("litmus speaks TCP") };
    let mut command = Command::new("litmus");
    command.arg(format!("http://{address}/")).env("TESTS", suites.join(" ")).current_dir(server.path(""));
    command
}

/// litmus ends with the first suite that fails, and says so in its exit status.
#[track_caller]
fn assert_passes(mut litmus: Command, suites: &[&str]) {
    let output = litmus.output().expect("litmus is installed: scripts/test does that");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let passed = said.lines().filter(|line| line.starts_with("<- summary for ") && line.ends_with(" 100.0%"));
    assert_eq!(passed.count(), suites.len(), "{said}");
}

#[test]
fn litmus_passes_on_one_thread_and_on_four() {
    for threads in [1, 4] {
        let project = Project::new("wsgidav");
        let server = share(&project, 1, threads);
        assert_passes(litmus(&server, &SUITES), &SUITES);
        assert!(!server.log().lines().iter().any(|line| line.contains("Traceback")));
    }
}

#[test]
fn litmus_passes_on_two_workers_while_they_are_reloaded() {
    for threads in [1, 4] {
        let project = Project::new("wsgidav");
        let server = share(&project, 2, threads);
        let rounds = STATELESS.repeat(4);
        let run = litmus(&server, &rounds);
        thread::scope(|scope| {
            let verdict = scope.spawn(|| assert_passes(run, &rounds));
            server.reload();
            while !verdict.is_finished() {
                server.reload();
            }
            verdict.join().expect("litmus passes");
        });
    }
}
