//! Going to the background: the shell gets its prompt back, and the verdict.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nix::unistd::{Pid, getsid};
use serde_json::json;

use crate::support::daemon::{Daemon, wait_for_text};
use crate::support::gate::Gate;
use crate::support::processes::{self, descriptors};
use crate::support::{LIMIT, Server, eventually, get};

/// What the daemon's processes have open as their standard streams.
fn streams(pid: u32) -> [String; 3] {
    let open = descriptors(pid);
    [0, 1, 2].map(|number| open.get(&number).map(|path| path.display().to_string()).unwrap_or_default())
}

#[test]
fn daemonize_gives_the_shell_back_and_logs_to_the_file() {
    for option in ["daemonize", "daemonize2"] {
        let args = [&format!("--{option}=log"), "--master", "--processes=2", "--pidfile=pid", "--vacuum"];
        let mut shell = Server::app().args(args).with_fifo().spawn();
        // The shell's pipe ends too: no process of the daemon keeps a terminal or an ssh session open.
        assert_eq!(shell.wait_exit(LIMIT).code(), Some(0), "{option}");
        let daemon = Daemon::of(&shell, "pid");
        assert_ne!(daemon.pid(), shell.pid());
        let session = getsid(Some(Pid::from_raw(daemon.pid().cast_signed()))).unwrap();
        assert_ne!(session, getsid(None).unwrap(), "{option}: still in the session of the shell");
        let log = shell.path("log");
        if option == "daemonize" {
            wait_for_text(&log, "ready: ");
        }
        let expected = ["/dev/null".to_owned(), log.display().to_string(), log.display().to_string()];
        // With daemonize2 the children were there before the log was.
        eventually("all processes have the log and nothing else", LIMIT, || {
            let everyone = daemon.children().into_iter().chain([daemon.pid()]);
            everyone.into_iter().all(|pid| streams(pid) == expected).then_some(())
        });
        assert_eq!(get(shell.target(), "/info?one").status, 200);
        wait_for_text(&log, "GET /info?one");

        daemon.signal(Signal::SIGHUP);
        wait_for_text(&log, "complete: generation 2 serves");
        assert_eq!(get(shell.target(), "/info?two").status, 200);
        wait_for_text(&log, "GET /info?two");
        shell.fifo("q");
        daemon.wait_exit();
        wait_for_text(&log, "goodbye to appserver.");
        assert!(!shell.path("pid").exists() && !shell.path("fifo").exists());
    }
}

#[test]
fn the_shell_sees_what_keeps_a_daemon_from_starting() {
    let cases: [(&[&str], &str); 4] = [
        (&["--http=no/such/directory/app.sock"], "cannot bind "),
        (&["--chdir=no/such/directory"], "cannot enter "),
        (&["--pidfile=no/such/directory/pid"], "pidfile"),
        (&["--uid=no-such-user"], "there is no user named \"no-such-user\""),
    ];
    for (args, text) in cases {
        for option in ["daemonize", "daemonize2"] {
            let mut shell = Server::app().arg(format!("--{option}=log")).args(args).spawn();
            assert_eq!(shell.wait_exit(LIMIT).code(), Some(1), "{option} {args:?}");
            if option == "daemonize2" {
                shell.wait_for_log(text);
            } else {
                wait_for_text(&shell.path("log"), text);
            }
        }
    }
}

#[test]
fn a_log_that_cannot_be_opened_is_the_shells_to_know() {
    let mut shell = Server::app().arg("--daemonize=no/such/directory/log").spawn();
    assert_eq!(shell.wait_exit(LIMIT).code(), Some(1));
    shell.wait_for_log("daemonize: cannot open the log file ");
}

#[test]
fn a_log_that_cannot_be_opened_is_told_with_its_line() {
    for option in ["logto", "logto2", "daemonize"] {
        let text = format!("[uwsgi]\nmaster = true\n{option} = no/such/directory/log\n");
        let mut shell = Server::app().file("app.ini", text).arg("app.ini").spawn();
        assert_eq!(shell.wait_exit(LIMIT).code(), Some(1), "{option}");
        let line = shell.wait_for_log(&format!("{option}: cannot open the log file "));
        assert!(line.ends_with("(app.ini:3)"), "{line}");
    }
}

#[test]
fn daemonize2_waits_for_the_application() {
    let failing = json!({ "load": "fail", "load_ms": 100 });
    for (args, code) in [(vec![], 1), (vec!["--need-app"], 22)] {
        let builder = Server::app().args(["--daemonize2=log", "--pidfile=pid"]).args(&args);
        let mut shell = builder.settings(failing.clone()).spawn();
        assert_eq!(shell.wait_exit(LIMIT).code(), Some(code), "{args:?}");
        shell.wait_for_log("the test application was told to fail");
        assert!(!shell.path("pid").exists(), "a pidfile of nobody stays behind");
    }
}

#[test]
fn daemonize_does_not_wait_for_the_application() {
    let failing = json!({ "load": "fail", "load_ms": 300 });
    let mut shell = Server::app().args(["--daemonize=log", "--pidfile=pid"]).settings(failing).spawn();
    assert_eq!(shell.wait_exit(LIMIT).code(), Some(0));
    wait_for_text(&shell.path("log"), "the test application was told to fail");
    wait_for_text(&shell.path("log"), "goodbye to appserver.");
}

#[test]
fn a_daemons_umask_is_cleared_only_if_none_was_asked_for() {
    for (umask, expected) in [("", 0o755), ("--umask=077", 0o700)] {
        let mut shell = Server::app()
            .on_unix_socket("app.sock")
            .args(["--daemonize=log", "--pidfile=pid"])
            .args((!umask.is_empty()).then_some(umask))
            .through(["sh", "-c", "umask 0027; exec \"$@\"", "sh"])
            .spawn();
        assert_eq!(shell.wait_exit(LIMIT).code(), Some(0));
        let _daemon = Daemon::of(&shell, "pid");
        assert_eq!(crate::support::server::mode(&shell.path("app.sock")), expected, "{umask:?}");
    }
}

#[test]
fn control_c_ends_the_wait_for_a_daemon_but_not_the_daemon() {
    let builder = Server::app().args(["--daemonize2=log", "--pidfile=pid"]);
    let gate = Gate::new(builder.path("gate"));
    let mut shell = builder.settings(json!({ "load_gate": gate.path() })).spawn();
    let loading = gate.wait();
    let daemon = Daemon::of(&shell, "pid");
    let waits = || (!processes::catches(shell.pid(), Signal::SIGINT)).then_some(());
    eventually("the shell's process only waits", LIMIT, waits);
    shell.signal(Signal::SIGINT);
    // The daemon holds the log for as long as it starts.
    drop(loading);
    assert_eq!(shell.wait_exit(LIMIT).signal(), Some(Signal::SIGINT as i32));
    assert_eq!(get(shell.target(), "/").text(), "hello v1\n");
    daemon.signal(Signal::SIGINT);
    daemon.wait_exit();
}
