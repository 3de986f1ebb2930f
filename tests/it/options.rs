//! Configurations written for uWSGI start, or say why not.

use std::process::{Command, Output};

use crate::support::Server;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_appserver")).args(args).output().expect("it runs")
}

/// What guides to uWSGI in production agree on, without the application.
const PRODUCTION: &str = "\
[uwsgi]
strict = false
master = true
enable-threads = true
vacuum = true
single-interpreter = true
die-on-term = true
need-app = true
disable-logging = true
log-4xx = true
log-5xx = true
harakiri = 60
max-requests = 1000
max-worker-lifetime = 3600
reload-on-rss = 2048
worker-reload-mercy = 60
cheaper-algo = busyness
processes = 2
cheaper = 1
cheaper-initial = 2
cheaper-overload = 1
cheaper-step = 1
cheaper-busyness-multiplier = 30
cheaper-busyness-min = 20
cheaper-busyness-max = 70
cheaper-busyness-backlog-alert = 16
cheaper-busyness-backlog-step = 2
auto-procname = true
py-call-osafterfork = true
buffer-size = 65535
post-buffering = 4096
listen = 100
virtualenv = /srv/venv
chmod-socket = 660
safe-pidfile = app.pid
touch-reload = reload
master-fifo = fifo
stats = 127.0.0.1:1717
log-master = true
log-maxsize = 1000000
log-reopen = true
plugins = python3, http
http-socket = app.sock
";

#[test]
fn a_production_ini_starts_the_server_and_is_told_what_is_missing() {
    let server = Server::app().file("app.ini", PRODUCTION).without_listener().arg("app.ini").start();
    server.wait_ready();
    server.wait_for_log("app.ini:38: stats = ");
    let lines = server.log().lines();
    let warnings: Vec<_> = lines.iter().filter(|line| line.contains(" is not supported yet: ")).collect();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    for harmless in ["harakiri", "enable-threads", "plugin", "auto-procname", "log-master", "post-buffering"]
    {
        assert!(!warnings.iter().any(|line| line.contains(&format!(": {harmless} = "))), "{harmless}");
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_all_reasons() {
    let output = run(&["--rack", "config.ru", "--socket", ":3031", "--harakiri", "30"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    assert!(
        lines[0].contains("rack = \"config.ru\" is not supported yet: there is no Ruby plugin"),
        "{text}"
    );
    assert!(
        lines[1].contains("socket = \":3031\" is not supported yet: ")
            && lines[1].contains("no other address"),
        "{text}"
    );
}

#[test]
fn a_socket_that_speaks_http_is_served() {
    let file = "[uwsgi]\nprotocol = http\nsocket = app.sock\nstrict = true\n";
    let server = Server::builtin().file("app.ini", file).without_listener().arg("app.ini").start();
    server.wait_ready();
    assert!(server.path("app.sock").exists());
}

#[test]
fn man_page_and_completions_can_be_printed() {
    let page = String::from_utf8(run(&["--man"]).stdout).expect("text");
    assert!(page.contains(".TH APPSERVER 8") && page.contains("harakiri"), "{}", &page[..200]);
    for (shell, mark) in
        [("bash", "complete -F"), ("zsh", "#compdef appserver"), ("fish", "complete -c appserver")]
    {
        let script = String::from_utf8(run(&["--completions", shell]).stdout).expect("text");
        assert!(script.contains(mark), "{shell}");
    }
}
