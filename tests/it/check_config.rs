//! `--check-config` tells everything that is wrong and starts nothing; `--show-config` what is in force.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::Server;

const BINARY: &str = env!("CARGO_BIN_EXE_appserver");

/// Runs a program to its end in a directory that holds `app.ini` with this text.
fn inspect(program: &Path, directory: &Path, ini: &str, args: &[&str]) -> Output {
    fs::write(directory.join("app.ini"), format!("[uwsgi]\n{ini}")).expect("a directory of ours");
    let mut command = Command::new(program);
    command.args(args).arg("app.ini").current_dir(directory).stdin(Stdio::null()).env_clear();
    command.env("TESTAPP_CONFIG", directory.join("testapp.json"));
    command.output().expect("it runs")
}

fn check(ini: &str) -> (bool, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let output = inspect(Path::new(BINARY), directory.path(), ini, &["--check-config"]);
    let text = String::from_utf8(output.stdout).expect("text");
    (output.status.success(), text.lines().map(str::to_owned).collect())
}

#[test]
fn every_problem_is_told_in_the_order_of_the_file() {
    let (valid, lines) = check(
        "http = 127.0.0.1:0\nprocesses = many\nstats = :1717\nuid = no-such-user\n\
         pidfile = missing/app.pid\nstatic-map = /s=/no/such/directory\nproceses = 4\nhttp = 8080\n\
         psgi = app.psgi\ndie-on-term = true\n",
    );
    let expected = [
        "app.ini:3: error: processes = \"many\" is not a whole number",
        "app.ini:4: warning: stats = \":1717\" is not supported yet: ",
        "app.ini:5: error: uid: there is no user named \"no-such-user\"",
        "app.ini:6: error: pidfile: cannot make ",
        "app.ini:7: warning: static-map: cannot read /no/such/directory: ",
        "app.ini:8: warning: proceses = \"4\" is not an option; did you mean processes?",
        "app.ini:9: error: http = \"8080\" is not an address: a port needs a colon",
        "app.ini:10: error: psgi = \"app.psgi\" is not supported yet: ",
        "the configuration is not valid: 5 errors, 3 warnings",
    ];
    assert!(!valid);
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}\n{expected}");
    }
}

#[test]
fn a_valid_configuration_is_called_valid() {
    let (valid, lines) = check("http = app.sock\nuid = 65534\ngid = 65534\ndie-on-term = true\n");
    // Without root the identity cannot be taken on.
    if nix::unistd::geteuid().is_root() {
        assert_eq!((valid, lines), (true, vec!["the configuration is valid".to_owned()]));
    }
}

#[test]
fn json_says_the_same() {
    let directory = tempfile::tempdir().expect("a directory");
    let ini = "http = app.sock\nstats = :1717\nthreads = 0\n";
    let output = inspect(Path::new(BINARY), directory.path(), ini, &["--check-config", "--json"]);
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((output.status.code(), &report["valid"]), (Some(1), &Value::Bool(false)));
    let about = |line: u64| {
        let problems = report["problems"].as_array().expect("a list");
        problems.iter().find(|problem| problem["line"] == line).unwrap_or_else(|| panic!("{report:#}"))
    };
    assert_eq!(about(3)["severity"], "warning");
    assert_eq!(about(3)["option"], "stats");
    assert_eq!(about(4)["severity"], "error");
    assert_eq!(about(4)["file"], "app.ini");
}

#[test]
fn an_address_in_use_is_an_error_unless_our_own_server_uses_it() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let (valid, lines) = check(&format!("http = {address}\ndie-on-term = true\n"));
    assert!(!valid && lines.iter().any(|line| line.contains("app.ini:2: error: cannot bind")), "{lines:?}");

    let server = Server::builtin().on_unix_socket("app.sock").arg("--pidfile=app.pid").start();
    server.wait_ready();
    let output = server.command(["--check-config", "--http=app.sock", "--pidfile=app.pid"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("by the running server it seems"), "{text}");
    // Looking has harmed nobody.
    assert_eq!(server.get("/").status, 200);
    assert!(server.path("app.pid").exists());
}

#[test]
fn nothing_is_made_and_nobody_is_left_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let ini = "http = app.sock\npidfile = app.pid\nmaster-fifo = fifo\nlogto = app.log\nmaster = true\n";
    let output = inspect(Path::new(BINARY), directory.path(), ini, &["--check-config"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let names: Vec<_> =
        fs::read_dir(directory.path()).expect("ours").map(|it| it.unwrap().file_name()).collect();
    assert_eq!(names, ["app.ini"]);
}

#[test]
fn show_config_tells_what_is_in_force_and_where_it_comes_from() {
    let directory = tempfile::tempdir().expect("a directory");
    let ini = "processes = 2\nbase = /srv\nenv = A=%(base)\nprocesses = 3\nharakiri = 20\n";
    let output =
        inspect(Path::new(BINARY), directory.path(), ini, &["--show-config", "--json", "--threads", "4"]);
    assert!(output.status.success());
    let options: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let origin = |name: &str, value: &str| {
        let options = options.as_array().expect("a list");
        let found = options.iter().find(|it| it["name"] == name && it["value"] == value);
        found.unwrap_or_else(|| panic!("{name}: {options:#?}"))["origin"].clone()
    };
    assert_eq!(origin("processes", "3"), "app.ini:5");
    assert_eq!(origin("env", "A=/srv"), "app.ini:4");
    assert_eq!(origin("threads", "4"), "command line");
    assert_eq!(origin("harakiri", "20"), "app.ini:6");
    assert_eq!(origin("buffer-size", "32768"), "default");

    let output = inspect(Path::new(BINARY), directory.path(), ini, &["--show-config"]);
    let text = String::from_utf8(output.stdout).expect("text");
    let line =
        text.lines().find(|line| line.starts_with("processes = 3 ")).unwrap_or_else(|| panic!("{text}"));
    assert!(line.ends_with("; app.ini:5"), "{line}");
}

#[test]
fn a_descriptor_must_be_a_listening_socket() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = Server::builtin().descriptor(9, listener).args(["--http=fd://9", "--check-config"]);
    let mut server = server.without_listener().spawn();
    assert_eq!(server.wait_exit(crate::support::LIMIT).code(), Some(0));
    server.wait_for_log("the configuration is valid");
    let (valid, lines) = check("http = fd://9\n");
    assert!(!valid, "{lines:?}");
    assert!(
        lines.iter().any(|it| it.starts_with("app.ini:2: error: ") && it.contains("is not open")),
        "{lines:?}"
    );
}
