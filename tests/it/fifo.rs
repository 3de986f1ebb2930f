//! The master FIFO: one letter, one command.

use std::io::Write;

use nix::sys::signal::Signal;

use crate::support::daemon::wait_for_text;
use crate::support::server::mode;
use crate::support::{LIMIT, Server, eventually};

fn start() -> Server {
    Server::app().args(["--master", "--processes=2"]).with_fifo().start()
}

#[test]
fn the_fifo_is_for_its_owner_only() {
    let server = start();
    assert_eq!(mode(&server.path("fifo")), 0o600);
}

#[test]
fn r_reloads_and_the_fifo_survives() {
    let server = start();
    for generation in 2..=4 {
        server.fifo("r");
        server.wait_reloaded(generation);
    }
}

#[test]
fn a_letter_that_means_nothing_is_warned_about() {
    let server = start();
    let mark = server.log().mark();
    server.fifo("z");
    let line = server.wait_for_log_after(mark, "WARN");
    assert!(line.contains('z'), "{line}");
    server.fifo("r");
    server.wait_reloaded(2);
}

#[test]
fn s_writes_statistics() {
    let server = start();
    let mark = server.log().mark();
    server.fifo("s");
    server.wait_for_log_after(mark, "requests");
}

#[test]
fn w_and_c_replace_the_workers_but_not_the_application() {
    for letter in ["w", "c"] {
        let server = start();
        let before = server.workers();
        server.set_settings(serde_json::json!({ "version": "v2" }));
        server.fifo(letter);
        server.wait_workers("all workers are new", |workers| {
            workers.len() == 2 && workers.iter().all(|worker| !before.contains(worker))
        });
        assert_eq!(server.get("/").text(), "hello v1\n", "{letter}");
    }
}

#[test]
fn minus_and_plus_change_the_number_of_workers() {
    let server = start();
    server.fifo("-");
    server.wait_workers("one worker runs", |workers| workers.len() == 1);
    assert_eq!(server.get("/").text(), "hello v1\n");
    server.fifo("-");
    server.wait_for_log("1 of 2 workers wanted: cannot change");
    server.fifo("+");
    server.wait_workers("two workers run", |workers| workers.len() == 2);
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn capital_p_writes_the_pidfile_again() {
    let server = Server::app().args(["--master", "--pidfile=pid"]).with_fifo().start();
    std::fs::remove_file(server.path("pid")).unwrap();
    server.fifo("P");
    eventually("the pidfile is back", LIMIT, || {
        let text = std::fs::read_to_string(server.path("pid")).ok()?;
        (text.trim() == server.pid().to_string()).then_some(())
    });
}

#[test]
fn l_reopens_the_log_in_every_process() {
    let server = Server::app().args(["--master", "--processes=2", "--logto=log"]).with_fifo().spawn();
    let log = server.path("log");
    let wait_for = |what: &str| {
        eventually(what, LIMIT, || std::fs::read_to_string(&log).ok()?.contains(what).then_some(()));
    };
    wait_for("ready: ");
    std::fs::rename(&log, server.path("log.1")).unwrap();
    server.fifo("l");
    eventually("the log is there again", LIMIT, || log.exists().then_some(()));
    let is_old = |pid: u32| {
        let descriptors = crate::support::processes::descriptors(pid);
        descriptors.values().any(|target| target.ends_with("log.1"))
    };
    eventually("nobody writes to the old file", LIMIT, || {
        let everyone = server.children().into_iter().chain([server.pid()]);
        (!everyone.into_iter().any(is_old)).then_some(())
    });
    server.get("/pid");
    wait_for("GET /pid");
}

#[test]
fn vacuum_removes_the_fifo() {
    for (vacuum, there) in [(true, false), (false, true)] {
        let builder = Server::app().arg("--master").with_fifo();
        let mut server = if vacuum { builder.arg("--vacuum").start() } else { builder.start() };
        server.fifo("q");
        server.wait_exit(LIMIT);
        assert_eq!(server.path("fifo").exists(), there, "vacuum: {vacuum}");
    }
}

#[test]
fn a_writer_that_comes_and_goes_does_not_wake_the_master_for_ever() {
    let server = start();
    server.fifo("");
    server.fifo("s");
    server.wait_for_log("requests");
    assert_eq!(server.get("/").text(), "hello v1\n");
}

#[test]
fn every_letter_of_the_table_is_known_and_others_are_warned_about() {
    let server = Server::app()
        .args([
            "--master",
            "--processes=2",
            "--pidfile=pid",
            "--logto=log",
            "--master-fifo=fifo",
            "--master-fifo=other",
        ])
        .spawn();
    let log = server.path("log");
    wait_for_text(&log, "ready: ");
    // Those that start or stop nothing, all in one write.
    server.fifo("sPlp p\r\n-+10x!");
    let text = wait_for_text(&log, "command '!' (byte 33): ignored");
    assert!(text.contains("command 'x' (byte 120): ignored"), "{text}");
    assert_eq!(text.matches(": ignored").count(), 2, "{text}");
    // A letter is told when it is read and obeyed thereafter: only now is this FIFO the active one.
    wait_for_text(&log, &format!("active master fifo is now {}\n", server.path("fifo").display()));
    server.fifo("s");
    eventually("it serves", LIMIT, || (server.get("/").text() == "hello v1\n").then_some(()));
}

#[test]
fn letters_of_many_writers_are_all_obeyed() {
    let server = start();
    let mark = server.log().mark();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let path = server.path("fifo");
            std::thread::spawn(move || {
                for _ in 0..20 {
                    // Opened for each letter, as `echo s > fifo` does.
                    std::fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(b"s\n").unwrap();
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let received = || {
        let lines = server.log().lines();
        lines.iter().filter(|line| line.contains("master fifo 's' received")).count()
    };
    eventually("each letter is read", LIMIT, || (received() == 160).then_some(()));
    server.wait_for_log_after(mark, "workers total requests");
}

#[test]
fn a_reload_loses_no_letter() {
    let server = start();
    for generation in 2..=4 {
        // The second one is read by whichever image is there by then.
        server.fifo("r");
        server.fifo("s");
        server.wait_reloaded(generation);
    }
    eventually("the letters are read", LIMIT, || {
        let lines = server.log().lines();
        (lines.iter().filter(|line| line.contains("workers total requests")).count() == 3).then_some(())
    });
}

#[test]
fn what_is_in_the_fifos_place_is_never_removed() {
    for (content, text) in [("file", "something that is not a FIFO is in the way"), ("link", "is not a FIFO")]
    {
        let builder = Server::app().args(["--master", "--vacuum"]).with_fifo().file("precious", "precious");
        if content == "link" {
            std::os::unix::fs::symlink("precious", builder.path("fifo")).unwrap();
        } else {
            std::fs::write(builder.path("fifo"), "precious").unwrap();
        }
        let mut server = builder.spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
        server.wait_for_log(text);
        assert_eq!(std::fs::read_to_string(server.path("fifo")).unwrap(), "precious");
    }
}

#[test]
fn a_fifo_that_somebody_removed_is_made_again() {
    let server = start();
    std::fs::remove_file(server.path("fifo")).unwrap();
    server.wait_for_log("was removed by somebody: made anew");
    let mark = server.log().mark();
    server.fifo("s");
    server.wait_for_log_after(mark, "workers total requests");
    assert_eq!(mode(&server.path("fifo")), 0o600);
}

#[test]
fn capital_c_sends_the_workers_home_until_somebody_comes() {
    let server = start();
    server.fifo("C");
    server.wait_workers("no worker runs", |workers| workers.is_empty());
    assert_eq!(server.get("/").text(), "hello v1\n");
    server.wait_workers("the workers are back", |workers| workers.len() == 2);
}

#[test]
fn f_starts_a_second_master_on_the_same_sockets() {
    let mut server = start();
    server.fifo("f");
    let line = server.wait_for_log("new master copy spawned with pid ");
    let copy: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    let copy_is_ready = format!("pid {copy}] INFO ready: ");
    server.wait_for_log(&copy_is_ready);
    server.signal(Signal::SIGINT);
    eventually("the first one is gone", LIMIT, || {
        server.log().lines().iter().any(|line| line.contains("goodbye to appserver")).then_some(())
    });
    assert_eq!(server.get("/").text(), "hello v1\n", "the copy serves on");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(copy.cast_signed()), Signal::SIGINT).unwrap();
    server.wait_exit(LIMIT);
}

#[test]
fn a_copy_made_by_f_serves_on_when_its_original_stops() {
    let mut server = Server::app()
        .on_unix_socket("app.sock")
        .with_fifo()
        .args(["--master", "--processes=1", "--vacuum"])
        .start();
    let mark = server.log().mark();
    server.fifo("f");
    server.wait_for_log_after(mark, "new master copy spawned with pid");
    server.wait_for_log_after(mark, "ready: ");

    let mark = server.log().mark();
    server.signal(Signal::SIGINT);
    server.wait_for_log_after(mark, "goodbye to appserver.");
    assert_eq!(server.get("/").text(), "hello v1\n", "the socket file is the copy's by now");

    // The copy reads the same FIFO, and is in a session of its own.
    server.fifo("q");
    assert_eq!(server.wait_exit(LIMIT).code(), Some(0));
    assert!(!server.path("app.sock").exists() && !server.path("fifo").exists());
}

#[test]
fn a_reload_that_names_another_fifo_removes_the_one_before() {
    let ini = |fifos: &[&str]| {
        let lines: String = fifos.iter().map(|name| format!("master-fifo = {name}\n")).collect();
        format!("[uwsgi]\nmaster = 1\nsnapshots = 1\n{lines}")
    };
    let server = Server::app().file("a.ini", ini(&["first", "fifo"])).arg("a.ini").spawn();
    server.wait_ready();
    let write = |name: &str, letter: &[u8]| {
        let fifo = std::fs::OpenOptions::new().write(true).open(server.path(name));
        fifo.and_then(|mut fifo| fifo.write_all(letter)).unwrap();
    };
    // The file of a slot is made when the slot is chosen.
    write("first", b"1");
    server.wait_for_log(&format!("active master fifo is now {}", server.path("fifo").display()));
    let gone = |name: &str| {
        eventually(name, LIMIT, || (!server.path(name).exists()).then_some(()));
    };

    server.file("a.ini", ini(&["other"]));
    server.reload();
    gone("first");
    gone("fifo");
    server.wait_for_log(&format!("active master fifo is now {}", server.path("other").display()));
    // Back again, without a new image.
    server.signal(Signal::SIGURG);
    server.wait_for_log(" complete: generation 1 serves");
    gone("other");
    write("first", b"s");
    server.wait_for_log("master fifo 's' received");

    server.file("a.ini", ini(&[]));
    server.reload();
    gone("first");
}
