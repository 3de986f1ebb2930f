//! The log: uWSGI's request line, which requests get one, who writes where after a rotation.

use std::fs;
use std::path::Path;

use crate::support::daemon::wait_for_text;
use crate::support::processes::descriptors;
use crate::support::server::Builder;
use crate::support::{LIMIT, Server, eventually};

/// A line that comes after all request lines of before: the log is complete up to here.
fn fence(server: &Server, client: &mut crate::support::Client) -> Vec<String> {
    // Of the same connection, thus of the same worker, which writes its lines in order.
    let asked = client.get("/sleep?fence").unwrap();
    assert_eq!(asked.status, 200);
    server.wait_for_log("fence");
    server.log().lines()
}

fn has(lines: &[String], text: &str) -> bool {
    lines.iter().any(|line| line.contains(text))
}

/// Takes `text` off the front of `rest`.
fn expect<'a>(rest: &'a str, text: &str, line: &str) -> &'a str {
    rest.strip_prefix(text).unwrap_or_else(|| panic!("expected {text:?} before {rest:?} in {line:?}"))
}

/// Takes a number off the front of `rest`.
fn number<'a>(rest: &'a str, line: &str) -> (u64, &'a str) {
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let value =
        rest[..end].parse().unwrap_or_else(|_| panic!("expected a number before {rest:?} in {line:?}"));
    (value, &rest[end..])
}

/// Reads uWSGI's line from its first to its last character; its numbers in order.
fn parse_request_line(line: &str) -> Vec<u64> {
    let mut numbers = Vec::new();
    let mut rest = line;
    // What stands between two numbers; `T` is the date, 24 characters as in ctime(3).
    for text in [
        "[pid: ",
        "|app: ",
        "|req: ",
        "/",
        "] 127.0.0.1 () {",
        " vars in ",
        " bytes] T GET /sleep?line => generated ",
        " bytes in ",
        " msecs (HTTP/1.1 ",
        ") ",
        " headers in ",
        " bytes (1 switches on core ",
    ] {
        match text.split_once('T') {
            Some((before, after)) if before.ends_with("] ") => {
                rest = expect(rest, " bytes} [", line);
                assert!(
                    rest.is_char_boundary(24) && rest[..24].split_ascii_whitespace().count() == 5,
                    "{line}"
                );
                rest = expect(expect(&rest[24..], "]", line), after, line);
            }
            _ => rest = expect(rest, text, line),
        }
        let (value, behind) = number(rest, line);
        numbers.push(value);
        rest = behind;
    }
    assert_eq!(rest, ")", "{line}");
    numbers
}

#[test]
fn the_request_line_is_uwsgis() {
    let server = Server::app().start();
    server.get("/sleep?line");
    server.get("/sleep?line");
    let pid = u64::from(server.workers()[0].pid);
    server.wait_for_log("|req: 2/2] ");
    let lines = server.log().lines();
    let lines: Vec<_> = lines.iter().filter(|line| line.contains("GET /sleep?line")).collect();
    for (line, count) in lines.iter().zip(1..) {
        let numbers = parse_request_line(line);
        let [its_pid, app, of_worker, of_all, vars, size, body, _msecs, status, headers, head, core] =
            numbers[..]
        else {
            unreachable!("one for each text before it")
        };
        assert_eq!([its_pid, app, of_worker, of_all], [pid, 0, count, count], "{line}");
        // `Host` and `Connection`, in the request as the test sent it.
        assert_eq!(
            (vars, size),
            (2, "GET /sleep?line HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".len() as u64)
        );
        assert_eq!([body, status, core], [6, 200, 0], "{line}");
        assert!(headers >= 1 && head > 30, "{line}");
    }
    assert_eq!(lines.len(), 2);
}

#[test]
fn every_other_line_has_a_time_a_process_and_a_severity() {
    let server = Server::app().args(["--master", "--processes=2"]).with_fifo().start();
    server.fifo("z");
    server.wait_for_log("unknown master FIFO command 'z' (byte 122)");
    server.set_settings(serde_json::json!({ "load": "fail" }));
    server.fifo("r");
    server.wait_for_log("; generation 1 serves on");
    for line in server.log().lines() {
        let (head, text) = line.split_once("] ").unwrap_or_else(|| panic!("no head: {line}"));
        assert!(head.starts_with("[20") && head.contains(" pid "), "{line}");
        let severity = text.split(' ').next().unwrap_or_default();
        assert!(["ERROR", "WARN", "INFO"].contains(&severity), "{line}");
    }
    let severity = |text: &str| {
        let line = server.wait_for_log(text);
        line.split("] ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
    };
    assert_eq!(severity("unknown master FIFO command"), "WARN");
    assert_eq!(severity("the test application was told to fail"), "ERROR");
    assert_eq!(severity("ready: "), "INFO");
}

#[test]
fn disable_logging_keeps_the_requests_that_are_asked_for() {
    // Which of a good, a bad, a failed and a slow request get a line.
    for (args, expected) in [
        (&["--disable-logging"] as &[&str], [false, false, false, false]),
        (&["-L", "--log-4xx"], [false, true, false, false]),
        (&["--disable-logging", "--log-5xx"], [false, false, true, false]),
        (&["--disable-logging", "--log-slow=50"], [false, false, false, true]),
        (&["--disable-logging", "--log-4xx", "--log-5xx", "--log-slow=50"], [false, true, true, true]),
        (&["--disable-logging=false"], [true, true, true, true]),
        (&[], [true, true, true, true]),
    ] {
        let server = Server::app().args(args).start();
        let mut client = server.client();
        for path in ["/?good", "/bad", "/fail", "/sleep?ms=60"] {
            client.get(path).unwrap();
        }
        // A request whose line is written in any case would be no proof where none is: the worker's
        // death is told with its last request, after all lines it had still to write.
        let _ = client.get("/exit?code=1");
        server.wait_for_log("DAMN ! worker");
        let lines = server.log().lines();
        let lines: Vec<_> = lines.into_iter().filter(|line| !line.contains("DAMN")).collect();
        let logged = ["GET /?good", "GET /bad", "GET /fail", "GET /sleep"].map(|text| has(&lines, text));
        assert_eq!(logged, expected, "{args:?}");
    }
}

#[test]
fn log_format_is_the_operators_own() {
    let format = "%(method)|%(uri)|%(status)|%(addr)|%(pid)|%(wid)|%(uagent)|%(rsize)|end";
    let server = Server::app().arg(format!("--log-format={format}")).start();
    let mut client = server.client();
    client.call("GET", "/?own", &[("User-Agent", "a \"b\"")], b"").unwrap();
    let line = server.wait_for_log("/?own");
    let pid = server.workers()[0].pid;
    assert_eq!(line, format!(r"GET|/?own|200|127.0.0.1|{pid}|1|a \x22b\x22|9|end"));
}

#[test]
fn durations_and_clients_can_be_told_another_way() {
    let server = Server::app().args(["--log-micros", "--log-x-forwarded-for"]).start();
    let mut client = server.client();
    client.call("GET", "/?far", &[("X-Forwarded-For", "203.0.113.7")], b"").unwrap();
    let lines = fence(&server, &mut client);
    let line = lines.iter().find(|line| line.contains("GET /?far")).unwrap();
    assert!(line.contains("] 203.0.113.7 () {") && line.contains(" micros (HTTP/1.1 200)"), "{line}");
}

#[test]
fn a_client_cannot_write_lines_of_its_own() {
    let server = Server::app().start();
    let mut client = server.client();
    assert_eq!(client.get("/?quote\"and\u{7f}").unwrap().status, 400);
    client.call("GET", "/?x", &[("Referer", "a\tb\u{e9}")], b"").unwrap();
    let lines = fence(&server, &mut client);
    assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:#?}");
}

#[test]
fn logto_is_relative_to_the_start_and_logto2_to_chdir() {
    for (option, path) in [("logto", "log"), ("logto2", "sub/log")] {
        let builder = Server::app().file("sub/.keep", "").args(["--chdir=sub", &format!("--{option}=log")]);
        let server = builder.spawn();
        wait_for_text(&server.path(path), "ready: ");
        server.get("/?hello");
        wait_for_text(&server.path(path), "GET /?hello");
    }
}

/// Two workers that log to a file, each known to have served.
fn logging_to_a_file() -> (Server, Vec<crate::support::Client>) {
    let server = start(Server::app().args(["--master", "--processes=2", "--logto=log"]).with_fifo());
    let clients = one_client_each(&server, 2);
    (server, clients)
}

fn start(builder: Builder) -> Server {
    let server = builder.spawn();
    wait_for_text(&server.path("log"), "ready: ");
    server
}

/// Kept connections to `count` different workers.
fn one_client_each(server: &Server, count: usize) -> Vec<crate::support::Client> {
    let mut clients = std::collections::BTreeMap::<String, crate::support::Client>::new();
    eventually("each worker has a connection", LIMIT, || {
        let mut client = server.client();
        // Who is busy leaves new clients to the others; who is not may take all of them.
        let pid = std::thread::scope(|scope| {
            for busy in clients.values_mut() {
                scope.spawn(|| busy.get("/sleep?ms=100").unwrap());
            }
            client.get("/pid").unwrap().text()
        });
        clients.entry(pid).or_insert(client);
        (clients.len() == count).then_some(())
    });
    clients.into_values().collect()
}

/// True when a process of the server has the file open.
fn is_written(server: &Server, file: &Path) -> bool {
    let everyone = server.children().into_iter().chain([server.pid()]);
    everyone.into_iter().any(|pid| descriptors(pid).values().any(|target| target == file))
}

fn assert_all_write_to(server: &Server, clients: &mut [crate::support::Client], old: &Path) {
    let log = server.path("log");
    eventually("nobody has the old file open", LIMIT, || (!is_written(server, old)).then_some(()));
    for (index, client) in clients.iter_mut().enumerate() {
        client.get(&format!("/?worker={index}")).unwrap();
    }
    for index in 0..clients.len() {
        wait_for_text(&log, &format!("GET /?worker={index}"));
    }
    assert!(!fs::read_to_string(old).unwrap().contains("GET /?worker="), "a line went to the old file");
}

#[test]
fn after_a_rotation_by_others_l_brings_every_process_to_the_new_file() {
    let (server, mut clients) = logging_to_a_file();
    let (log, old) = (server.path("log"), server.path("log.1"));
    fs::rename(&log, &old).unwrap();
    server.fifo("l");
    wait_for_text(&log, "log reopened.");
    assert_all_write_to(&server, &mut clients, &old);
    // Also the workers that are forked from now on, and the next image.
    server.fifo("r");
    wait_for_text(&log, "complete: generation 2 serves");
    let mut clients = one_client_each(&server, 2);
    assert_all_write_to(&server, &mut clients, &old);
    // And the next image still knows where its log is.
    let second = server.path("log.2");
    fs::rename(&log, &second).unwrap();
    server.fifo("l");
    wait_for_text(&log, "log reopened.");
    assert!(!is_written(&server, &old));
}

#[test]
fn capital_l_rotates_by_itself() {
    let (server, mut clients) = logging_to_a_file();
    server.fifo("L");
    let old = eventually("the log is renamed", LIMIT, || {
        let names = fs::read_dir(server.path(".")).unwrap().flatten().map(|entry| entry.file_name());
        names.into_iter().find_map(|name| {
            let name = name.to_str()?.to_owned();
            name.strip_prefix("log.")?.parse::<u64>().ok()?;
            Some(server.path(&name))
        })
    });
    let text = fs::read_to_string(&old).unwrap();
    assert!(text.contains("ready: ") && text.contains("triggering rotation to "), "{text}");
    eventually("the new log is there", LIMIT, || server.path("log").exists().then_some(()));
    assert_all_write_to(&server, &mut clients, &old);
}

#[test]
fn without_a_log_file_l_is_answered_with_what_to_do() {
    let server = Server::app().arg("--master").with_fifo().start();
    server.fifo("l");
    server.wait_for_log("no log file to reopen: logging goes to standard error (use logto)");
}

#[test]
fn with_log_reopen_a_reload_brings_every_process_to_the_new_file() {
    let server = start(Server::app().args(["--master", "--processes=2", "--logto=log", "--log-reopen"]));
    let (log, old) = (server.path("log"), server.path("log.1"));
    fs::rename(&log, &old).unwrap();
    server.signal(nix::sys::signal::Signal::SIGHUP);
    wait_for_text(&old, "reload 1 complete");
    assert_all_write_to(&server, &mut one_client_each(&server, 2), &old);
}
