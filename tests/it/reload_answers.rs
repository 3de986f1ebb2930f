//! `--reload PIDFILE --wait` and `--stop PIDFILE --wait`: who asks hears what became of it.

use std::io::Read;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::processes::kill;
use crate::support::server::Builder;
use crate::support::{LIMIT, Server, python_app};

/// Exit status when the time is up.
const TIMED_OUT: Option<i32> = Some(124);

fn builder() -> Builder {
    Server::app().args(["--master", "--processes=2", "--pidfile=pid"])
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect()
}

fn reload(server: &Server) -> (Option<i32>, Vec<String>, String) {
    told(&server.command(["--reload", "pid", "--wait=60"]))
}

/// Exit status, lines of progress, and what is wrong.
fn told(output: &Output) -> (Option<i32>, Vec<String>, String) {
    (output.status.code(), lines(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The same command, while the test goes on.
fn asking(server: &Server, what: &str) -> Child {
    let mut command = Command::new(server.program());
    command.args([what, "pid", "--wait"]).current_dir(server.path(""));
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    piped.spawn().expect("the program can be run")
}

/// Reads the progress up to a line that contains this.
fn hear(child: &mut Child, text: &str) -> String {
    let output = child.stdout.as_mut().expect("it is piped");
    let mut heard = Vec::new();
    loop {
        let mut byte = [0];
        assert_eq!(output.read(&mut byte).expect("a pipe"), 1, "ended without {text:?}");
        if byte == *b"\n" {
            let line = String::from_utf8_lossy(&heard).into_owned();
            if line.contains(text) {
                return line;
            }
            heard.clear();
        } else {
            heard.push(byte[0]);
        }
    }
}

#[test]
fn a_reload_that_works_tells_each_step_and_ends_with_0() {
    let server = builder().start();
    for id in 1..=3 {
        let next = id + 1;
        server.set_settings(json!({ "version": format!("v{next}") }));
        let (code, told, errors) = reload(&server);
        assert_eq!(code, Some(0), "{told:?} {errors}");
        assert_eq!(told[0], format!("asked appserver {} to reload", server.pid()));
        let last = told.last().unwrap();
        assert!(last.starts_with(&format!("reload {id} complete: generation {next} serves, ")), "{told:?}");
        // The same number everywhere, and nothing of the old code is left for a new client.
        assert_eq!(server.get("/").text(), format!("hello v{next}\n"));
        server.wait_for_log(&format!(" reload {id} complete: "));
        let status = server.command(["--status", "pid"]);
        assert!(lines(&status.stdout)[1].starts_with(&format!("reload {id} complete: ")), "{status:?}");
    }
}

#[test]
fn the_steps_are_told_while_they_happen() {
    let server = builder().start();
    let (gate, old) = (server.gate(), server.workers());
    server.set_settings(json!({ "load_gate": gate.path() }));
    let mut child = asking(&server, "--reload");
    let zygote = gate.wait();
    hear(&mut child, "reload 1: preparing generation 2");
    server.set_settings(json!({ "worker_gate": gate.path() }));
    assert_eq!(child.try_wait().unwrap(), None);
    assert_eq!(server.workers(), old);
    drop(zygote);
    hear(&mut child, "reload 1: generation 2 is prepared, new workers ");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn code_that_does_not_load_is_told_with_its_reason() {
    let server = builder().start();
    server.set_settings(json!({ "load": "fail" }));
    let (code, told, errors) = reload(&server);
    assert_eq!(code, Some(1), "{told:?}");
    assert!(errors.starts_with("reload 1 refused: ") && errors.contains("told to fail"), "{errors}");
    assert!(errors.contains("generation 1 serves on"), "{errors}");
    let status = server.command(["--status", "pid"]);
    assert!(lines(&status.stdout)[1].starts_with("reload 1 refused: "), "{status:?}");
    assert_eq!(server.get("/").text(), "hello v1\n");
    server.set_settings(json!({ "version": "v2" }));
    assert_eq!(reload(&server).0, Some(0));
    assert_eq!(server.get("/").text(), "hello v2\n");
}

#[test]
fn a_mistake_in_the_configuration_is_told_with_its_line() {
    let server = Server::builtin()
        .file("app.ini", "[uwsgi]\nprocesses = 1\npidfile = pid\n")
        .args(["--ini", "app.ini"])
        .start();
    server.file("app.ini", "[uwsgi]\nprocesses = x\npidfile = pid\n");
    let (code, _, errors) = reload(&server);
    assert_eq!(code, Some(1));
    assert!(errors.contains("refused: ") && errors.contains("app.ini:2: processes = \"x\""), "{errors}");
}

#[test]
fn a_python_application_that_fails_to_import_is_told_with_its_traceback() {
    let server = python_app::server("").arg("--pidfile=pid").start();
    server.file("app.py", "def load():\n    import nosuchmodule\n\nload()\n");
    let (code, _, errors) = reload(&server);
    assert_eq!(code, Some(1));
    assert!(errors.contains("No module named 'nosuchmodule'"), "{errors}");
    for line in ["Traceback (most recent call last):", "line 4, in <module>", "line 2, in load"] {
        assert!(errors.contains(line), "{line} is not in {errors}");
    }
    // The log has it once, as before.
    let tracebacks = server.log().lines().iter().filter(|it| it.contains("Traceback")).count();
    assert_eq!(tracebacks, 1);
    let refused = server.wait_for_log(" refused: ");
    assert!(refused.contains("generation 1 serves on"), "{refused}");
}

#[test]
fn who_is_replaced_hears_of_the_reload_that_replaced_it() {
    let server = builder().start();
    let gate = server.gate();
    server.set_settings(json!({ "load_gate": gate.path() }));
    let mut first = asking(&server, "--reload");
    let _waiting = gate.wait();
    hear(&mut first, "reload 1: preparing generation 2");
    server.set_settings(json!({ "version": "v3" }));
    let (code, told, errors) = reload(&server);
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.last().unwrap().starts_with("reload 2 complete: generation 3 serves"), "{told:?}");
    hear(&mut first, "reload 1 gives way to a newer one");
    let output = first.wait_with_output().unwrap();
    let (code, told, errors) = self::told(&output);
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.last().unwrap().starts_with("reload 2 complete: generation 3 serves"), "{told:?}");
    assert_eq!(server.get("/").text(), "hello v3\n");
}

#[test]
fn a_reload_past_its_loading_is_not_the_answer_to_a_later_request() {
    let server = builder().start();
    let gate = server.gate();
    server.set_settings(json!({ "worker_gate": gate.path() }));
    let mut first = asking(&server, "--reload");
    let waiting = (gate.wait(), gate.wait());
    hear(&mut first, "is prepared, new workers 0/2");
    server.set_settings(json!({ "version": "v3" }));
    let mut second = asking(&server, "--reload");
    hear(&mut second, "reload 1 is under way: the next one begins when it is over");
    drop(waiting);
    assert_eq!(first.wait().unwrap().code(), Some(0));
    hear(&mut second, "reload 2 complete: generation 3 serves");
    assert_eq!(second.wait().unwrap().code(), Some(0));
    assert_eq!(server.get("/").text(), "hello v3\n");
}

#[test]
fn who_does_not_want_to_wait_longer_is_told_and_the_reload_goes_on() {
    let server = builder().start();
    let gate = server.gate();
    server.set_settings(json!({ "load_gate": gate.path(), "version": "v2" }));
    let (code, told, errors) = told(&server.command(["--reload", "pid", "--wait=300ms"]));
    assert_eq!(code, TIMED_OUT, "{told:?} {errors}");
    assert!(errors.starts_with("reload: the time is up"), "{errors}");
    drop(gate.wait());
    server.wait_reloaded(2);
    assert_eq!(server.get("/").text(), "hello v2\n");
}

#[test]
fn a_reload_asked_for_during_the_start_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let gate = crate::support::gate::Gate::new(directory.path().join("gate"));
    let server = builder().settings(json!({ "load_gate": gate.path() })).spawn();
    let waiting = gate.wait();
    let mut child = asking(&server, "--reload");
    hear(&mut child, "the server is starting: the reload begins when it serves");
    server.set_settings(json!({ "version": "v2" }));
    drop(waiting);
    hear(&mut child, "reload 1 complete: generation 2 serves");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(server.get("/").text(), "hello v2\n");
}

#[test]
fn a_master_that_dies_is_told() {
    let mut server = builder().start();
    let gate = server.gate();
    server.set_settings(json!({ "load_gate": gate.path() }));
    let mut child = asking(&server, "--reload");
    let waiting = gate.wait();
    hear(&mut child, "reload 1: preparing generation 2");
    kill(server.pid(), Signal::SIGKILL);
    let (code, _, errors) = told(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(1));
    assert!(errors.contains("has ended before the reload was complete"), "{errors}");
    drop(waiting);
    server.wait_exit(LIMIT);
}

/// As zygote the program; as master a release that knows nothing of the descriptors that it inherits.
const RELEASE_WITHOUT_ANSWERS: &str = r#"#!/usr/bin/python3
import os, signal, sys
if open("pid").read().strip() != str(os.getpid()):
    os.execv(os.environ["PROGRAM"], sys.argv)
signal.pthread_sigmask(signal.SIG_SETMASK, [])
signal.pause()
"#;

#[test]
fn who_waits_hears_of_a_new_master_that_gives_no_answers() {
    let mut server = builder().program_for_reloads(RELEASE_WITHOUT_ANSWERS).start();
    let (code, told, errors) = reload(&server);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        told.last().unwrap().ends_with("its new master is of a release that gives no answers"),
        "{told:?}"
    );
    assert_eq!(server.get("/").text(), "hello v1\n");
    kill(server.pid(), Signal::SIGKILL);
    server.wait_exit(LIMIT);
}

#[test]
fn a_reload_that_a_stop_ends_is_told() {
    let mut server = builder().start();
    let gate = server.gate();
    server.set_settings(json!({ "load_gate": gate.path() }));
    let mut child = asking(&server, "--reload");
    let _waiting = gate.wait();
    hear(&mut child, "reload 1: preparing generation 2");
    let (code, told, errors) = told(&server.command(["--stop", "pid", "--wait"]));
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(told.last().unwrap(), &format!("appserver {} has ended", server.pid()));
    let (code, _, errors) = self::told(&child.wait_with_output().unwrap());
    assert_eq!(code, Some(1));
    assert!(errors.contains("reload 1 has ended: the server is stopping"), "{errors}");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn a_stop_is_over_when_the_last_request_is() {
    let mut server = builder().start();
    let target = server.target().clone();
    let request = std::thread::spawn(move || crate::support::get(&target, "/sleep?ms=3000"));
    server.wait_begun("/sleep?ms=3000");
    let (code, _, errors) = told(&server.command(["--stop", "pid", "--wait=100ms"]));
    assert_eq!(code, TIMED_OUT, "{errors}");
    assert!(errors.starts_with("stop: the time is up"), "{errors}");
    // Not asked again, for that would cut the request.
    assert_eq!(request.join().unwrap().status, 200);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    let (code, _, errors) = told(&server.command(["--stop", "pid", "--wait"]));
    assert_eq!(code, Some(1));
    assert!(errors.contains("is not running"), "{errors}");
}

#[test]
fn a_dead_pidfile_and_a_wait_for_nothing_are_refused() {
    let mut server = builder().start();
    kill(server.pid(), Signal::SIGKILL);
    server.wait_exit(LIMIT);
    let (code, _, errors) = reload(&server);
    assert_eq!(code, Some(1));
    assert!(errors.starts_with("cannot reload: ") && errors.contains("has ended"), "{errors}");
    for args in [["--wait", "--status=pid", "--wait"], ["--wait", "--master", "--processes=1"]] {
        assert_eq!(server.command(args).status.code(), Some(2), "{args:?}");
    }
    assert_eq!(server.command(["--reload", "pid", "--wait=soon"]).status.code(), Some(2));
}

#[test]
fn a_root_started_server_that_dropped_its_privileges_answers() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("skipped: needs root");
    }
    let server = builder().directory_mode(0o777).copied().args(["--uid=65534", "--gid=65534"]).start();
    for id in 1..=2 {
        let (code, told, errors) = reload(&server);
        assert_eq!(code, Some(0), "{errors}");
        assert!(told.last().unwrap().starts_with(&format!("reload {id} complete")), "{told:?}");
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(server.program());
        let output = command.args(["--status", "pid"]).current_dir(server.path("")).output().unwrap();
        let status = lines(&output.stdout);
        assert!(status[1].starts_with(&format!("reload {id} complete: ")), "{status:?}");
    }
}
