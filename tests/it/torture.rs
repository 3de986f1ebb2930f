//! `appserver torture`: what it does to a server of its own, and that it notices what is lost.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{LIMIT, Server, Target, eventually, processes};

fn torture(directory: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_appserver"));
    command.current_dir(directory).arg("torture").args(["--json", "--seed=1"]).args(args);
    command.env("TMPDIR", directory).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Exit status, report, what it said.
fn result(output: &Output) -> (Option<i32>, Value, String) {
    let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    (output.status.code(), report, String::from_utf8_lossy(&output.stderr).into_owned())
}

fn run(directory: &Path, args: &[&str]) -> (Option<i32>, Value, String) {
    result(&torture(directory, args).output().unwrap())
}

/// Processes of a run that are left: all of them have its directory in their environment.
fn left(directory: &Path) -> Vec<processes::Stat> {
    let here = directory.display().to_string();
    processes::list(|stat| {
        let environment = std::fs::read(format!("/proc/{}/environ", stat.pid)).unwrap_or_default();
        String::from_utf8_lossy(&environment).contains(&here)
    })
}

/// No process is left, and no file but those the test made.
fn assert_nothing_left(directory: &Path, files: usize) {
    assert_eq!(left(directory), []);
    let found: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().map(|it| it.file_name()).collect();
    assert_eq!(found.len(), files, "{found:?}");
}

#[test]
fn a_server_survives_every_blow() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("long.bin"), vec![b'x'; 6_000_000]).unwrap();
    let ini = "[appserver]\nprocesses = 2\nsnapshots = 1\nstatic-map = /long.bin=long.bin\ndisable-logging\n";
    std::fs::write(directory.path().join("app.ini"), ini).unwrap();
    // The nine ways to reload, and one more: by then every blow has fallen once.
    let words = ["--reloads=10", "--pause=20ms", "--stream=/long.bin", "--break=app.ini", "--", "app.ini"];
    let (code, report, errors) = run(directory.path(), &words);
    assert_eq!(code, Some(0), "{report:#} {errors}");
    assert_eq!(report["clean"], true);
    let blows = report["blows"].as_object().unwrap();
    assert_eq!(blows.len(), 13, "{report:#}");
    for kind in ["keep-alive", "fresh", "pipelined", "stream", "backlog"] {
        let load = &report["loads"][kind];
        assert!(load["answered"].as_u64() > Some(0) && load["lost"] == serde_json::json!({}), "{report:#}");
    }
    let left_out = report["left_out"].to_string();
    assert!(
        left_out.contains("post: POST / is answered with 4xx") && left_out.contains("upgrade: "),
        "{left_out}"
    );
    assert_eq!(std::fs::read_to_string(directory.path().join("app.ini")).unwrap(), ini);
    assert_nothing_left(directory.path(), 2);
}

#[test]
fn a_rollback_needs_a_server_that_keeps_snapshots() {
    let directory = tempfile::tempdir().unwrap();
    let words =
        ["--blow=rollback,hup", "--reloads=4", "--pause=20ms", "--connections=8", "--load=keep-alive"];
    let with =
        |snapshots: &'static str| words.into_iter().chain(["--", "-p2", snapshots]).collect::<Vec<_>>();
    let (code, report, errors) = run(directory.path(), &with("--snapshots=1"));
    assert_eq!(code, Some(0), "{report:#} {errors}");
    assert_eq!(
        (&report["blows"]["rollback"]["times"], &report["blows"]["hup"]["times"]),
        (&2.into(), &2.into())
    );
    assert_eq!(report["loads"]["keep-alive"]["reconnects"], 0, "{report:#}");

    let (code, report, errors) = run(directory.path(), &with("--snapshots=0"));
    assert_eq!(code, Some(0), "{report:#} {errors}");
    assert_eq!(report["blows"]["rollback"], Value::Null);
    assert!(report["left_out"].to_string().contains("rollback: the server keeps no snapshots"), "{report:#}");
    let (code, _, errors) = run(directory.path(), &["--blow=rollback", "--", "-p2"]);
    assert!(code == Some(1) && errors.contains("keeps no snapshots"), "{errors}");
    assert_nothing_left(directory.path(), 0);
}

#[test]
fn a_server_that_runs_is_reloaded_by_a_command() {
    let server = Server::builtin().args(["--master", "--processes=2"]).start();
    let Target::Tcp(address) = server.target() else { unreachable!("it listens on a port") };
    let (url, command) =
        (format!("--against=http://{address}/"), format!("--reload-command=kill -HUP {}", server.pid()));
    let directory = tempfile::tempdir().unwrap();
    let words =
        [&url, &command, "--reloads=3", "--pause=300ms", "--connections=8", "--load=keep-alive,fresh"];
    let (code, report, errors) = run(directory.path(), &words);
    assert_eq!(code, Some(0), "{report:#} {errors}");
    assert_eq!(report["blows"]["command"]["times"], 3);
    assert_eq!(report["loads"]["keep-alive"]["reconnects"], 0, "{report:#}");
    // On a busy machine one may give way to the next.
    server.wait_for_log(" complete: generation ");
    let (code, report, _) =
        run(directory.path(), &[&url, "--reload-command=exit 3", "--reloads=1", "--load=fresh"]);
    assert_eq!(code, Some(1));
    assert!(report["failures"][0].as_str().unwrap().contains("exit 3"), "{report:#}");
}

/// Answers a number of requests, each on a connection of its own, and every one after them only in part.
fn lossy(whole: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|length| length > 2) {
                line.clear();
            }
            let body = if number < whole { "ok" } else { "o" };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{body}");
            // A client that has gone is none of this test's business.
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    format!("--against=http://{address}/")
}

#[test]
fn a_loss_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let words = [&lossy(20), "--seconds=1", "--connections=2", "--load=fresh"];
    let (code, report, _) = run(directory.path(), &words);
    assert_eq!(code, Some(1), "{report:#}");
    let load = &report["loads"]["fresh"];
    // The first of the twenty is the probe.
    assert_eq!(load["answered"], 19);
    let lost = load["lost"]["cut within the answer"].as_u64().unwrap();
    assert_eq!(load["sent"].as_u64(), Some(19 + lost));
    assert!(report["examples"][0].as_str().unwrap().contains("fresh: cut within the answer at "));
}

fn interrupted(signal: Signal) {
    let directory = tempfile::tempdir().unwrap();
    let words = ["--verbose", "--blow=hup", "--seconds=600", "--pause=10ms", "--connections=4", "--", "-p2"];
    let mut child: Child = torture(directory.path(), &words).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.contains(" s  hup, "), "{line}");
    processes::kill(child.id(), signal);
    // What it says from now on shall not block it.
    let rest = thread::spawn(move || errors.read_to_string(&mut String::new()));
    let output = child.wait_with_output().unwrap();
    rest.join().unwrap().unwrap();
    if signal == Signal::SIGINT {
        let (code, report, _) = result(&output);
        assert_eq!((code, &report["clean"]), (Some(0), &Value::Bool(true)), "{report:#}");
        assert_nothing_left(directory.path(), 0);
    } else {
        eventually("the server has ended", LIMIT, || left(directory.path()).is_empty().then_some(()));
    }
}

#[test]
fn an_interrupt_ends_it_in_order() {
    interrupted(Signal::SIGINT);
}

#[test]
fn nothing_survives_one_that_is_killed() {
    interrupted(Signal::SIGKILL);
}

#[test]
fn what_cannot_be_tortured_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let cases: [(&[&str], i32, &str); 5] = [
        (&["--", "--processes=many"], 1, "whole number"),
        (&["--", "--daemonize=log"], 1, "leave out daemonize"),
        (&["--", "--version"], 1, "start no server"),
        (&["--load=telepathy", "--", "-M"], 2, "there are keep-alive, fresh"),
        (&["--load=post", "--", "-M"], 1, "POST / is answered with 4xx"),
    ];
    for (words, expected, text) in cases {
        let (code, _, errors) = run(directory.path(), words);
        assert!(code == Some(expected) && errors.contains(text), "{words:?}: {code:?} {errors}");
    }
    let (code, _, errors) = run(directory.path(), &["--", "--need-app", "--wsgi-file=missing.py"]);
    assert!(code == Some(1) && errors.contains("missing.py"), "{errors}");
}
