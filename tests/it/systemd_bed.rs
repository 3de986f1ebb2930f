//! The bed of the tests under a real systemd: what they rely on, apart from the server.

use std::io::Read;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::support::processes;
use crate::support::systemd::Systemd;

const ECHO: &str = "[Socket]\nListenStream=127.0.0.1:80\nAccept=yes\n";
const HELLO: &str = "[Service]\nExecStart=/bin/echo hello\nStandardOutput=socket\n";

#[test]
fn units_run_and_clients_reach_them() {
    let Some(systemd) = Systemd::start() else { return };
    systemd.units(&[("hello.socket", ECHO), ("hello@.service", HELLO)]);
    systemd.systemctl(["start", "hello.socket"]).succeeds();
    assert_eq!(systemd.show("hello.socket", "ActiveState"), "active");
    let mut text = String::new();
    let mut client = systemd.within(|| TcpStream::connect("127.0.0.1:80")).expect("it listens inside");
    client.read_to_string(&mut text).expect("it answers");
    assert_eq!(text, "hello\n");
    let errors = systemd.systemctl(["start", "no-such-unit"]).fails();
    assert!(errors.contains("no-such-unit.service not found"), "{errors}");
}

#[test]
fn nothing_is_left_of_a_systemd() {
    let Some(systemd) = Systemd::start() else { return };
    systemd.unit("rest.service", "[Service]\nExecStart=/bin/sleep 1000\n");
    systemd.systemctl(["start", "rest"]).succeeds();
    let pid = systemd.show("rest", "MainPID");
    assert!(systemd.read(&format!("/proc/{pid}/comm")).expect("it runs").contains("sleep"));
    let inside = systemd.run("readlink", ["/proc/1/ns/pid"]).succeeds();
    assert!(!processes_in(&inside).is_empty());
    drop(systemd);
    assert_eq!(processes_in(&inside), Vec::<u32>::new());
}

#[test]
fn the_script_says_what_it_is_and_passes_the_exit_status_on() {
    let Some(_systemd) = Systemd::start() else { return };
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/with-systemd");
    let status = Command::new(&script).args(["--", "sh", "-c", "exit 7"]).status().expect("a script");
    assert_eq!(status.code(), Some(7));
    let help = Command::new(&script).arg("--help").output().expect("a script");
    assert!(String::from_utf8_lossy(&help.stdout).contains("$SYSTEMD_PID"), "{help:?}");
}

/// Processes of a PID namespace.
fn processes_in(namespace: &str) -> Vec<u32> {
    let all = processes::list(|_| true).into_iter().map(|stat| stat.pid);
    all.filter(|pid| {
        std::fs::read_link(format!("/proc/{pid}/ns/pid")).is_ok_and(|it| it == Path::new(namespace))
    })
    .collect()
}
