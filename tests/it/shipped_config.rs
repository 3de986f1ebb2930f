//! The files in `config/` start, reload and stop a server as they say.
//!
//! Their paths are those of a production machine; the tests put directories of their own in place.
//! [`django`](crate::django) and [`flask`](crate::flask) start the inis for Python.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::support::nginx::Nginx;
use crate::support::server::Builder;
use crate::support::{Client, LIMIT, Load, LoadSpec, Server, Target, get};

/// Where the files put what exists only while the server runs.
const RUNTIME_DIRECTORY: &str = "/run/appserver/";

/// A file in `config/`.
pub fn shipped(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Lets a server run a shipped ini, with other paths and addresses in it. `/run/appserver` is the
/// directory of the server.
pub fn with_ini(builder: Builder, file: &str, replaced: &[(&str, &str)]) -> Builder {
    // Absolute: an ini may enter another directory.
    let here = builder.path("").to_str().expect("a plain name").to_owned();
    let mut text = shipped(file).replace(RUNTIME_DIRECTORY, &here);
    for (from, to) in replaced {
        assert!(text.contains(from), "{file} has no {from}");
        text = text.replace(from, to);
    }
    builder.file(file, text).arg(file).without_listener()
}

/// Takes up the port that the server chose.
pub fn find_address(server: &mut Server) {
    let address: SocketAddr = server.addresses()[0].parse().expect("an address and a port");
    server.set_address(SocketAddr::from(([127, 0, 0, 1], address.port())));
}

/// The value of `key` in a file of `key=value` lines.
pub fn setting(file: &str, key: &str) -> String {
    let text = shipped(file);
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{file} has no {key}")).to_owned()
}

/// Runs a command line, but in the directory and on the address of the test bed.
fn start(command: &str) -> Server {
    let mut words = command.split_whitespace();
    assert_eq!(words.next(), Some("/usr/local/bin/appserver"));
    let words = words.filter(|word| !word.starts_with("--http="));
    let server = Server::builtin().args(words.map(|word| word.replace(RUNTIME_DIRECTORY, ""))).start();
    assert!(server.command(["--status", "pid"]).status.success());
    server
}

/// Reloads as systemd does: by a command that ends well when the new generation serves.
pub fn exec_reload(server: &Server, command: &str) {
    let words: Vec<String> =
        command.split_whitespace().map(|word| word.replace(RUNTIME_DIRECTORY, "")).collect();
    let [program, option, pidfile, wait] = &words[..] else { panic!("other words: {command}") };
    assert_eq!(program, "/usr/local/bin/appserver");
    let output = server.command([option.as_str(), pidfile.as_str(), wait.as_str()]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(" complete: generation 2 serves"), "{output:?}");
}

fn reload_and_stop(mut server: Server, stop: &str) {
    server.reload();
    assert_eq!(server.get("/").status, 200);
    server.signal(Signal::from_str(stop).unwrap());
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    assert!(!server.path("pid").exists() && !server.path("fifo").exists());
}

#[test]
fn the_systemd_unit_works() {
    let file = "systemd/appserver.service";
    let server = start(&setting(file, "ExecStart"));
    exec_reload(&server, &setting(file, "ExecReload"));
    reload_and_stop(server, &setting(file, "KillSignal"));
}

#[test]
fn the_supervisor_program_works() {
    let file = "supervisor/appserver.conf";
    let stop = format!("SIG{}", setting(file, "stopsignal"));
    reload_and_stop(start(&setting(file, "command")), &stop);
}

#[test]
fn the_ini_for_files_serves_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name);
    for (name, text) in [("www/index.html", "front page"), ("downloads/a.txt", "a file")] {
        fs::create_dir_all(at(name).parent().expect("in a directory")).expect("a directory of ours");
        fs::write(at(name), text).expect("a directory of ours");
    }
    let srv = directory.path().to_str().expect("a plain name");
    let mut server = with_ini(
        Server::builtin(),
        "static.ini",
        &[("/srv", srv), ("http-socket = 127.0.0.1:8080", "http-socket = 127.0.0.1:0")],
    )
    .start();
    find_address(&mut server);
    assert_eq!(server.get("/").text(), "front page");
    assert_eq!(server.get("/downloads/a.txt").text(), "a file");
    assert_eq!(server.get("/none").status, 404);
    reload_and_stop(server, "SIGTERM");
}

#[test]
fn behind_nginx_a_reload_loses_nothing() {
    let server = with_ini(Server::app(), "behind-nginx.ini", &[]).start();
    let site = tempfile::tempdir().expect("a directory");
    fs::create_dir(site.path().join("static")).expect("a directory of ours");
    fs::write(site.path().join("static/site.css"), "p {}").expect("a directory of ours");
    let block = shipped("nginx/appserver.conf")
        .replace("/run/appserver/app.sock", server.path("app.sock").to_str().expect("a plain name"))
        .replace("/srv/shop", site.path().to_str().expect("a plain name"));
    let nginx = Nginx::start(&block);

    assert_eq!(get(&nginx.target(), "/").text(), "hello v1\n");
    let css = get(&nginx.target(), "/static/site.css");
    assert_eq!((css.text().as_str(), css.header("content-type")), ("p {}", Some("text/css")));

    // A client cannot choose the address that is logged: nginx calls those on its socket `unix:`.
    let forged = [("X-Forwarded-For", "192.0.2.1")];
    let answer = Client::new(&nginx.target(), LIMIT).call("GET", "/?forged", &forged, b"");
    assert_eq!(answer.expect("an answer").status, 200);
    let line = server.wait_for_log(" GET /?forged ");
    assert!(line.contains("] unix: () "), "{line}");

    let load = Load::start(&nginx.target(), &LoadSpec::all_kinds());
    for generation in 2..=3 {
        load.wait_for(50);
        server.reload();
        server.wait_reloaded(generation);
    }
    load.wait_for(50);
    load.stop().assert_nothing_lost();
    assert_eq!(nginx.errors(), "");
    assert_eq!(get(&Target::Unix(server.path("app.sock")), "/").status, 200);
}

#[test]
fn the_ini_for_containers_follows_the_platform_and_stops_with_sigterm() {
    let builder = Server::app().env("PORT", "0").env("WEB_CONCURRENCY", "3");
    let mut server = with_ini(builder, "container.ini", &[]).start();
    find_address(&mut server);
    server.wait_workers("three workers", |workers| workers.len() == 3);
    assert_eq!(server.get("/").text(), "hello v1\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    let log = server.log().lines();
    assert!(!log.iter().any(|line| line.contains("GET / =>")), "{log:#?}");
}

#[test]
fn without_a_platform_the_ini_for_containers_has_defaults() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("container.ini"), shipped("container.ini")).expect("a directory of ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_appserver"));
    command.args(["--show-config", "container.ini"]).current_dir(directory.path()).env_clear();
    let output = command.output().expect("it runs");
    let shown = String::from_utf8(output.stdout).expect("text");
    assert!(shown.contains("http-socket = :8080 ") && shown.contains("processes = auto "), "{shown}");
}
