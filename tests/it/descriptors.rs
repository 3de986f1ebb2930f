//! Children and successors get the descriptors they need and no others.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;

use crate::support::{LIMIT, Server, eventually, processes};

/// Low, within the usual range, and above what `FD_SETSIZE` and a usual soft limit allow.
const INHERITED: [i32; 3] = [5, 77, 2000];

fn start() -> Server {
    processes::allow_high_descriptors();
    Server::app().args(["--master", "--processes=2", "--threads=2"]).start()
}

/// Where `pid` can reach `file`, whatever the number.
fn holds(pid: u32, file: &PathBuf) -> bool {
    processes::descriptors(pid).values().any(|target| target == file)
}

fn everybody(server: &Server) -> Vec<u32> {
    server.children().into_iter().chain([server.pid()]).collect()
}

#[test]
fn what_the_master_inherits_by_accident_reaches_no_child_and_no_successor() {
    processes::allow_high_descriptors();
    let builder = Server::app().args(["--master", "--processes=2"]);
    let secret = builder.path("secret");
    std::fs::write(&secret, "not for others").unwrap();
    let builder =
        INHERITED.iter().fold(builder, |it, number| it.descriptor(*number, File::open(&secret).unwrap()));
    let server = builder.start();
    let master = processes::descriptors(server.pid());
    let arrived = INHERITED.iter().filter(|number| master.get(&(**number as u32)) == Some(&secret)).count();
    assert_eq!(arrived, INHERITED.len(), "the test passes them on: {master:?}");
    for child in server.children() {
        assert!(!holds(child, &secret), "{} got it", processes::title(child));
    }
    server.reload();
    for process in everybody(&server) {
        assert!(!holds(process, &secret), "{} got it", processes::title(process));
    }
    assert_eq!(server.get("/").text(), "hello v1\n", "but the listener did arrive");
}

#[test]
fn what_the_application_opens_stays_in_its_worker() {
    let server = start();
    for number in INHERITED {
        let leaked: u32 = server.get(&format!("/openfd?n={number}")).text().trim().parse().unwrap();
        let has = |pid: u32| processes::descriptors(pid).get(&leaked) == Some(&PathBuf::from("/dev/null"));
        let before: BTreeSet<u32> = everybody(&server).into_iter().collect();
        assert_eq!(before.iter().filter(|pid| has(**pid)).count(), 1, "one worker has it");
        server.reload();
        eventually("the old workers are gone", LIMIT, || {
            everybody(&server).iter().all(|pid| *pid == server.pid() || !before.contains(pid)).then_some(())
        });
        for process in everybody(&server) {
            assert!(!has(process), "{leaked} reached {}", processes::title(process));
        }
    }
}

#[test]
fn what_the_application_opens_while_it_loads_stays_in_its_generation() {
    processes::allow_high_descriptors();
    let server = Server::app()
        .args(["--master", "--processes=1"])
        .settings(serde_json::json!({ "open_fds": INHERITED }))
        .start();
    let leaked = |pid: u32| {
        // The lower ones may be taken already, and used for something else in another process.
        let leaked = |(number, target): &(&u32, &PathBuf)| **number > 2 && target.ends_with("null");
        processes::descriptors(pid).iter().filter(leaked).count()
    };
    assert_eq!(leaked(server.zygote()), INHERITED.len());
    assert_eq!(leaked(server.workers()[0].pid), INHERITED.len(), "a fork inherits what was loaded");
    server.set_settings(serde_json::json!({}));
    server.reload();
    for process in [server.pid(), server.zygote()] {
        assert_eq!(leaked(process), 0, "{}", processes::title(process));
    }
}

#[test]
fn a_zygote_and_a_worker_hold_no_descriptor_of_the_masters_control() {
    let server = Server::app().args(["--master", "--processes=2", "--pidfile=pid"]).with_fifo().start();
    for round in 0..2 {
        for name in ["fifo", "pid"] {
            let path = server.path(name);
            assert!(holds(server.pid(), &path), "the master has its {name} open");
            for child in server.children() {
                assert!(!holds(child, &path), "{} has the {name} (round {round})", processes::title(child));
            }
        }
        server.reload();
    }
}
