//! A log that takes no lines: nobody waits for it, and it says afterwards how much is missing.

use std::fs;
use std::io::{BufRead, BufReader, PipeReader, pipe};
use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::support::container;
use crate::support::faults::{fill, skip};
use crate::support::log::CapturedLog;
use crate::support::processes::kill;
use crate::support::server::Builder;
use crate::support::{LIMIT, Server, eventually};

/// Tells of lines that are missing, of requests and of the rest.
const REQUESTS_LOST: &str = " lines of the request log were lost: the log took no more";
const LINES_LOST: &str = " lines of this process were lost: the log took no more";

fn builder() -> Builder {
    Server::app().args(["--master", "--processes=2", "--pidfile=pid"])
}

/// Reloads without looking into the log.
fn reload(server: &Server) {
    let output = server.command(["--reload", "pid", "--wait"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Enough of them to fill a pipe twice with their lines.
fn many_requests(server: &Server) {
    let mut client = server.client();
    let path = format!("/?{}", "x".repeat(1000));
    for _ in 0..200 {
        assert_eq!(client.get(&path).expect("an answer").status, 200);
    }
}

#[test]
fn a_full_disk_under_the_log_stops_nobody_and_lines_come_again_when_there_is_room() {
    if !container::possible() {
        return skip("no namespaces for a disk of its own");
    }
    let script =
        "#!/bin/sh\nmkdir disk && mount -t tmpfs -o size=256k none disk && exec \"$PROGRAM\" \"$@\"\n";
    let server =
        builder().wrapped_by(script).through(["unshare", "--mount"]).args(["--logto=disk/log"]).spawn();
    assert_eq!(server.get("/").text(), "hello v1\n");
    let inside = |name: &str| -> PathBuf {
        format!("/proc/{}/root{}", server.pid(), server.path(name).display()).into()
    };
    let log = || String::from_utf8_lossy(&fs::read(inside("disk/log")).expect("the log")).into_owned();
    let workers = server.children();
    fill(&inside("disk/ballast"));
    many_requests(&server);
    reload(&server);
    many_requests(&server);
    assert!(!log().contains("complete: generation 2"), "the disk is not full");
    assert!(server.children().iter().all(|pid| !workers.contains(pid)), "nobody was replaced");
    fs::remove_file(inside("disk/ballast")).expect("the file is ours");
    eventually("lines that are missing are told of", LIMIT, || {
        assert_eq!(server.get("/").text(), "hello v1\n");
        server.signal(Signal::SIGUSR1);
        let log = log();
        (log.contains(REQUESTS_LOST) && log.contains(LINES_LOST)).then_some(())
    });
}

/// A server whose standard error leads to a pipe of the test's own.
fn with_pipe(builder: Builder) -> (Server, PipeReader) {
    let (reader, writer) = pipe().expect("a pipe");
    let server =
        builder.descriptor(9, writer).wrapped_by("#!/bin/sh\nexec \"$PROGRAM\" \"$@\" 2>&9 9>&-\n").spawn();
    (server, reader)
}

#[test]
fn a_reader_of_the_log_that_does_not_read_stops_nobody() {
    // One worker: the one that has lost lines is the one that can tell.
    let (server, reader) = with_pipe(builder().arg("--processes=1"));
    for _ in 0..2 {
        many_requests(&server);
        reload(&server);
    }
    let before = server.children();
    // Whoever dies is replaced.
    kill(before[0], Signal::SIGKILL);
    eventually("it is replaced", LIMIT, || {
        let now = server.children();
        (now.len() == before.len() && !now.contains(&before[0])).then_some(())
    });
    many_requests(&server);
    let log = CapturedLog::capture(reader);
    many_requests(&server);
    reload(&server);
    let told = |text: &str| log.wait_for(crate::support::log::Mark::START, LIMIT, |line| line.contains(text));
    assert!(told(REQUESTS_LOST).is_some() && told(LINES_LOST).is_some(), "{:#?}", log.lines());
    many_requests(&server);
}

#[test]
fn a_reader_of_the_log_that_has_gone_stops_nobody() {
    let (mut server, reader) = with_pipe(builder());
    let mut first = String::new();
    let mut reader = BufReader::new(reader);
    while !first.contains("ready: ") {
        first.clear();
        reader.read_line(&mut first).expect("a line");
    }
    drop(reader);
    for _ in 0..2 {
        many_requests(&server);
        reload(&server);
    }
    server.signal(Signal::SIGINT);
    assert!(server.wait_exit(LIMIT).success());
}
