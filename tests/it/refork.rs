//! FIFO `f`: a second master on the same sockets, and what becomes of files and commands.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::load::{Load, LoadSpec};
use crate::support::{LIMIT, Server, eventually, processes};

/// Asks for a copy and waits until it serves; its pid.
fn fork(server: &Server) -> u32 {
    let mark = server.log().mark();
    server.fifo("f");
    let line = server.wait_for_log_after(mark, "new master copy spawned with pid ");
    let copy: u32 = line.rsplit(' ').next().unwrap().parse().unwrap();
    server.wait_for_log_after(mark, &format!("pid {copy}] INFO ready: "));
    copy
}

fn stop(copy: u32) {
    kill(Pid::from_raw(copy.cast_signed()), Signal::SIGINT).unwrap();
    eventually("the copy is gone", LIMIT, || {
        processes::stat(copy).is_none_or(|stat| stat.zombie).then_some(())
    });
}

#[test]
fn the_copy_takes_over_under_load_with_its_files() {
    let server = Server::app()
        .on_unix_socket("sock")
        .with_fifo()
        .args(["--master", "--processes=2", "--pidfile=pid", "--safe-pidfile=safe"])
        .start();
    let first = server.pid();
    let load = Load::start(server.target(), &LoadSpec::all_kinds());
    load.wait_for(50);
    server.set_settings(serde_json::json!({ "version": "v2" }));
    let copy = fork(&server);
    for name in ["pid", "safe"] {
        assert_eq!(fs::read_to_string(server.path(name)).unwrap().trim(), first.to_string(), "{name}");
    }
    load.wait_for(50);
    server.signal(Signal::SIGINT);
    server.wait_for_log(&format!("pid {first}] INFO goodbye to appserver."));
    server.fifo("P");
    for name in ["pid", "safe"] {
        eventually("the copy has the pidfile", LIMIT, || {
            (fs::read_to_string(server.path(name)).ok()?.trim() == copy.to_string()).then_some(())
        });
    }
    assert!(server.command(["--status", "pid"]).status.success());
    let output = server.command(["--reload", "pid", "--wait=60"]);
    assert!(output.status.success(), "{output:?}");
    load.wait_for(50);
    load.stop().assert_nothing_lost();
    assert_eq!(server.get("/").text(), "hello v2\n");
    let errors: Vec<_> = server.log().lines().into_iter().filter(|line| line.contains(" ERROR ")).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    stop(copy);
    assert!(!server.path("pid").exists() && !server.path("safe").exists());
}

#[test]
fn a_copy_of_a_copy_serves_on_and_every_one_can_be_paused() {
    let server = Server::app().args(["--master", "--processes=1"]).with_fifo().start();
    let second = fork(&server);
    server.signal(Signal::SIGINT);
    server.wait_for_log("goodbye to appserver.");
    let third = fork(&server);
    for pid in [second, third] {
        let mark = server.log().mark();
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTSTP).unwrap();
        server.wait_for_log_after(mark, &format!("pid {pid}] INFO *** PAUSE"));
        kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTSTP).unwrap();
        server.wait_for_log_after(mark, &format!("pid {pid}] INFO *** resuming"));
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
    stop(second);
    assert_eq!(server.get("/").text(), "hello v1\n");
    stop(third);
}
