//! Touch files: what is touched reloads, once, and nothing else does.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::daemon::wait_for_text;
use crate::support::log::Mark;
use crate::support::processes::descriptors;
use crate::support::{LIMIT, Server, eventually};

const COMPLETE: &str = " complete: generation ";
const BEGINS: &str = " begins: preparing generation ";

/// Gives a file a time of its own, in nanoseconds since the epoch, in one step; also a new one.
fn touch(path: &Path, nanos: u64) {
    let is_new = !path.exists();
    let draft = path.with_extension("touch");
    let file = File::options().create(true).append(true).open(if is_new { &draft } else { path }).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos)).unwrap();
    if is_new {
        fs::rename(&draft, path).unwrap();
    }
}

fn reloads(server: &Server) -> usize {
    server.log().lines().iter().filter(|line| line.contains(BEGINS)).count()
}

/// A command that comes after all events of before: what was to happen by them has begun.
fn fence(server: &Server) {
    let mark = server.log().mark();
    server.signal(Signal::SIGUSR1);
    server.wait_for_log_after(mark, "workers total requests");
}

/// Runs `change` and waits until one reload is complete.
fn reloads_once(server: &Server, change: impl FnOnce()) {
    let (mark, before) = (server.log().mark(), reloads(server));
    change();
    server.wait_for_log_after(mark, COMPLETE);
    fence(server);
    assert_eq!(reloads(server), before + 1);
}

fn watching<const N: usize>(paths: [&str; N]) -> Server {
    let args = paths.map(|path| format!("--touch-reload={path}"));
    Server::app().file("there", "").args(args).args(["--processes=2"]).start()
}

#[test]
fn a_touched_file_reloads() {
    let server = watching(["there"]);
    for times in 1..=2 {
        reloads_once(&server, || touch(&server.path("there"), times * 1_000_000_000));
    }
    // The same second again, and an earlier time, as after unpacking an archive.
    reloads_once(&server, || touch(&server.path("there"), 2_000_000_001));
    reloads_once(&server, || touch(&server.path("there"), 1));
    assert_eq!(server.get("/info").json()["generation"], 5);
}

#[test]
fn a_touch_says_which_file_it_was() {
    let server = watching(["there", "later"]);
    touch(&server.path("later"), 1);
    let line = server.wait_for_log("has been touched... grace them all !!!");
    assert!(line.contains("later") && !line.contains("there"), "{line}");
}

#[test]
fn appearing_counts_vanishing_does_not() {
    let server = watching(["later"]);
    let path = server.path("later");
    reloads_once(&server, || touch(&path, 1_000_000_000));
    fs::remove_file(&path).unwrap();
    fence(&server);
    // Back with the very time it had: it was gone, so it is new.
    reloads_once(&server, || touch(&path, 1_000_000_000));
    assert_eq!(reloads(&server), 2);
}

#[test]
fn a_file_replaced_by_rename_reloads_once() {
    let server = watching(["there"]);
    touch(&server.path("there"), 1_000_000_000);
    server.wait_for_log(COMPLETE);
    // Written elsewhere and with an old time, as a deployment would.
    touch(&server.path("draft"), 1_000_000_000);
    reloads_once(&server, || fs::rename(server.path("draft"), server.path("there")).unwrap());
}

#[test]
fn each_of_several_files_counts_and_other_files_do_not() {
    let server = watching(["there", "sub/deep", "second"]);
    fs::create_dir(server.path("sub")).unwrap();
    touch(&server.path("other"), 1);
    touch(&server.path("sub/other"), 1);
    fence(&server);
    assert_eq!(reloads(&server), 0);
    for name in ["sub/deep", "second", "there"] {
        reloads_once(&server, || touch(&server.path(name), 7_000_000_000));
    }
}

#[test]
fn a_directory_that_goes_and_comes_back_is_watched_anew() {
    let server = watching(["sub/file"]);
    for times in 1..=2 {
        fs::create_dir(server.path("sub")).unwrap();
        reloads_once(&server, || touch(&server.path("sub/file"), times * 1_000_000_000));
        fs::remove_dir_all(server.path("sub")).unwrap();
        fence(&server);
    }
}

#[test]
fn a_link_counts_by_what_it_leads_to() {
    let builder = Server::app().file("releases/1/stamp", "").file("releases/2/stamp", "");
    symlink("releases/1", builder.path("current")).unwrap();
    let server = builder.arg("--touch-reload=current/stamp").start();
    // The file behind the link.
    reloads_once(&server, || touch(&server.path("releases/1/stamp"), 5_000_000_000));
    // Another target for the link, in one step.
    symlink("releases/2", server.path("next")).unwrap();
    reloads_once(&server, || fs::rename(server.path("next"), server.path("current")).unwrap());
    // And the file behind the new target.
    reloads_once(&server, || touch(&server.path("releases/2/stamp"), 6_000_000_000));
}

#[test]
fn a_file_is_relative_to_chdir() {
    let server = Server::app().file("sub/stamp", "").args(["--chdir=sub", "--touch-reload=stamp"]).start();
    reloads_once(&server, || touch(&server.path("sub/stamp"), 1_000_000_000));
}

#[test]
fn a_touch_during_a_reload_is_not_missed() {
    let server = watching(["there"]);
    server.set_settings(json!({ "version": "v2", "load_ms": 300 }));
    touch(&server.path("there"), 1_000_000_000);
    server.wait_for_log(" 1 begins: ");
    server.set_settings(json!({ "version": "v3" }));
    touch(&server.path("there"), 2_000_000_000);
    eventually("the last code serves", LIMIT, || (server.get("/").text() == "hello v3\n").then_some(()));
}

#[test]
fn touches_around_every_reload_all_have_an_effect() {
    // The re-exec closes and opens the watches: wherever a touch falls, the last version must win.
    let server = watching(["there"]);
    for version in 1..=20 {
        let name = format!("v{version}.0");
        server.set_settings(json!({ "version": name }));
        let mark = server.log().mark();
        touch(&server.path("there"), version * 1_000_000_000);
        // Not at a fixed point of the reload: the words come at different moments of it.
        let words = [BEGINS, "is loaded", "...gracefully killing", "binary reloading", COMPLETE];
        server.wait_for_log_after(mark, words[usize::try_from(version).unwrap() % words.len()]);
    }
    eventually("the last version serves", LIMIT, || {
        (server.get("/").text() == "hello v20.0\n").then_some(())
    });
}

#[test]
fn a_touch_while_starting_is_not_missed() {
    let builder = Server::app().file("there", "").arg("--touch-reload=there");
    let server = builder.settings(json!({ "version": "v1", "load_ms": 300 })).spawn();
    server.wait_for_log("spawned appserver master process");
    // The master watches by the time it says so; the application is still loading.
    server.set_settings(json!({ "version": "v2" }));
    touch(&server.path("there"), 1_000_000_000);
    server.wait_for_log_after(Mark::START, COMPLETE);
    assert_eq!(server.get("/").text(), "hello v2\n");
}

#[test]
fn touching_for_the_workers_replaces_them_and_not_the_code() {
    for (option, begins) in [("workers", "workers reload starting"), ("chain", "chain reload starting")] {
        let server =
            Server::app().args([format!("--touch-{option}-reload=stamp"), "--processes=2".into()]).start();
        let before = server.workers();
        server.set_settings(json!({ "version": "v2" }));
        touch(&server.path("stamp"), 1);
        let line = server.wait_for_log("has been touched...");
        assert!(line.contains(&format!("{option} reload !!!")), "{line}");
        server.wait_for_log(begins);
        server.wait_workers("all workers are new", |workers| {
            workers.len() == 2 && workers.iter().all(|worker| !before.contains(worker))
        });
        assert_eq!(server.get("/").text(), "hello v1\n");
    }
}

#[test]
fn a_touched_file_runs_a_command_that_has_nothing_of_ours() {
    let command = "echo in $PWD; ls /proc/$$/fd; echo listed; cat; readlink /proc/$$/fd/0; \
                   cut -d' ' -f1,6 /proc/$$/stat; echo done";
    let server = Server::app()
        .file("sub/there", "")
        .args(["--chdir=sub".to_owned(), format!("--touch-exec=stamp {command}")])
        .start();
    touch(&server.path("sub/stamp"), 1);
    server.wait_for_log("[uwsgi-touch-exec] running echo in");
    server.wait_for_log("is done");
    let lines = server.log().lines();
    let at = lines.iter().position(|line| line.starts_with("in ") && line.ends_with("/sub")).unwrap();
    assert_eq!(lines[at + 1..at + 5], ["0", "1", "2", "listed"], "standard streams only");
    assert!(lines.iter().any(|line| line == "/dev/null"), "nothing to read");
    let at = lines.iter().position(|line| line == "done").unwrap();
    let (pid, session) = lines[at - 1].split_once(' ').unwrap();
    assert_eq!(pid, session, "it leads a session of its own");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_command_that_fails_is_told_also_if_a_reload_comes_between() {
    let server = Server::app().arg("--touch-exec=stamp read word < gate; exit 3").with_fifo().start();
    nix::unistd::mkfifo(&server.path("gate"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    touch(&server.path("stamp"), 1);
    server.wait_for_log("[uwsgi-touch-exec] running");
    // The master has other things to do meanwhile.
    server.reload();
    fs::write(server.path("gate"), "go\n").unwrap();
    server.wait_for_log("ended with exit code 3");
    fence(&server);
    assert_eq!(reloads(&server), 1);
}

#[test]
fn the_log_follows_its_touch_files() {
    let args = ["--logto=log", "--touch-logreopen=reopen", "--touch-logrotate=rotate"];
    let server = Server::app().args(args).with_fifo().spawn();
    let log = server.path("log");
    wait_for_text(&log, "ready: ");
    fs::rename(&log, server.path("moved")).unwrap();
    touch(&server.path("reopen"), 1);
    wait_for_text(&log, "reopened.");
    touch(&server.path("rotate"), 1);
    let rotated = || {
        let names = fs::read_dir(server.path("")).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("log.")).count()
    };
    eventually("the log is renamed", LIMIT, || (rotated() == 1).then_some(()));
    wait_for_text(&log, "reopened.");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn one_file_may_stand_for_several_things() {
    let server = Server::app()
        .args(["--touch-exec=stamp echo one", "--hook-touch=stamp print:two", "--touch-reload=stamp"])
        .args(["--touch-exec=stamp echo three"])
        .start();
    reloads_once(&server, || touch(&server.path("stamp"), 1));
    server.wait_for_log("two");
    eventually("both commands have run", LIMIT, || {
        let lines = server.log().lines();
        ["one", "three"].iter().all(|word| lines.iter().any(|line| line == word)).then_some(())
    });
}

#[test]
fn a_hook_runs_when_its_file_is_touched() {
    let server = Server::app()
        .args(["--hook-touch=a write:answer yes", "--hook-touch=b unlink:nothing-there"])
        .start();
    touch(&server.path("a"), 1);
    wait_for_text(&server.path("answer"), "yes");
    touch(&server.path("b"), 1);
    server.wait_for_log("ERROR hook-touch: nothing-there: No such file");
}

#[test]
fn a_signal_is_raised_when_its_file_is_touched() {
    let server = Server::app().arg("--touch-signal=stamp 17").start();
    let mark = server.log().mark();
    touch(&server.path("stamp"), 1);
    server.wait_for_log_after(mark, "[uwsgi-touch-signal] raising 17");
    // The test application has no function for it.
    server.wait_for_log_after(mark, "signal 17");
}

#[test]
fn a_changed_directory_reloads() {
    let server = Server::app().file("code/app", "1").arg("--fs-reload=code").start();
    server.set_settings(json!({ "version": "v2" }));
    // Not truncated and then written, which would be two changes.
    let file = || File::options().append(true).open(server.path("code/app")).unwrap();
    reloads_once(&server, || file().write_all(b"2").unwrap());
    server.wait_for_log(&format!("detected event on \"{}\"", server.path("code").display()));
    assert_eq!(server.get("/").text(), "hello v2\n");
    reloads_once(&server, || fs::remove_file(server.path("code/app")).unwrap());
}

#[test]
fn a_changed_file_reloads_brutally_also_after_it_was_away() {
    let server = Server::app().file("code", "1").arg("--fs-brutal-reload=code").start();
    let mark = server.log().mark();
    fs::remove_file(server.path("code")).unwrap();
    fence(&server);
    assert_eq!(reloads(&server), 0, "the next release may be on its way");
    reloads_once(&server, || server.file("code", "2"));
    server.wait_for_log_after(mark, "brutal");
}

#[test]
fn a_change_during_a_reload_is_not_missed() {
    let server = Server::app().file("code/app", "0").arg("--fs-reload=code").start();
    for version in 1..=8 {
        let name = format!("v{version}.0");
        server.set_settings(json!({ "version": name }));
        let mark = server.log().mark();
        server.file("code/app", &name);
        let words = [BEGINS, "is loaded", "binary reloading", COMPLETE];
        server.wait_for_log_after(mark, words[version % words.len()]);
    }
    eventually("the last version serves", LIMIT, || (server.get("/").text() == "hello v8.0\n").then_some(()));
}

#[test]
fn what_arrives_on_a_descriptor_reloads() {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let server = Server::app().descriptor(7, reader).arg("--reload-on-fd=7:2 memory is short").start();
    for _ in 0..2 {
        let mark = server.log().mark();
        reloads_once(&server, || writer.write_all(b"!!").unwrap());
        server.wait_for_log_after(mark, "*** fd 7 ready: memory is short ***");
    }
    let ours = descriptors(server.pid())[&7].clone();
    for child in server.children() {
        assert!(!descriptors(child).values().any(|it| *it == ours), "a child has it");
    }
    drop(writer);
    server.wait_for_log("the other side has closed descriptor 7");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn a_descriptor_that_is_not_there_is_named() {
    let mut server = Server::app().arg("--reload-on-fd=77").spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("reload-on-fd: descriptor 77 is not open (command line)");
}
