//! An image that cannot read what its predecessor left keeps the sockets and starts anew.

use crate::support::server::Server;
use crate::support::{LIMIT, eventually, processes};

/// Plays the previous image of another release: a listener, a worker on a control channel, and a
/// state that nobody else understands. Then executes the server in its own pid.
const PREDECESSOR: &str = r#"#!/usr/bin/python3
import json, os, socket, sys
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
worker = os.fork()
if worker == 0:
    ours.close()
    os.close(10)
    theirs.recv(1)
    os._exit(0)
theirs.close()
open("old-worker", "w").write(str(worker))
state = {"version": 1, "role": "master", "master": os.getpid(),
         "listeners": [{"name": "fd://10", "fd": 10, "local": "the kept socket", "owned": None}],
         "body": {"a field": "of the year 2099"}}
boot = os.memfd_create("appserver-boot", 0)
os.write(boot, json.dumps(state).encode())
if "fd://11" in sys.argv:
    text = os.memfd_create("appserver-config", 0)
    os.write(text, b"[uwsgi]\nprocesses = 2\nmaster = true\n")
    os.dup2(text, 11)
for fd in (boot, ours.fileno(), 10):
    os.set_inheritable(fd, True)
os.execv(os.environ["PROGRAM"], [os.environ["PROGRAM"]] + sys.argv[1:])
"#;

#[test]
fn a_state_of_another_release_costs_neither_the_sockets_nor_the_pidfile() {
    let server =
        Server::app().wrapped_by(PREDECESSOR).args(["--master", "--processes=2", "--pidfile=pid"]).start();
    server.wait_for_log("of another release");
    assert_eq!(server.get("/").text(), "hello v1\n");
    assert_eq!(server.workers().len(), 2);

    let old: u32 = std::fs::read_to_string(server.path("old-worker")).unwrap().parse().unwrap();
    eventually("the old worker has left", LIMIT, || (!processes::is_alive(old)).then_some(()));
    assert_eq!(server.get("/").text(), "hello v1\n", "and nobody misses it");

    assert_eq!(server.command(["--status", "pid"]).status.code(), Some(0));
}

#[test]
fn what_the_configuration_is_read_from_stays() {
    let server = Server::app().wrapped_by(PREDECESSOR).args(["--ini", "fd://11"]).start();
    server.wait_for_log("of another release");
    for generation in 2..=3 {
        assert_eq!(server.workers().len(), 2);
        server.reload();
        server.wait_reloaded(generation);
    }
    assert_eq!(server.get("/").text(), "hello v1\n");
}
