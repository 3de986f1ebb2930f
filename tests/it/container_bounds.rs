//! What a container allows: as many workers as processors, no table for descriptors that are never opened, no
//! place to write, no user that anybody knows.

use std::fs;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;

use crate::support::container::{Container, LAUNCHER, possible};
use crate::support::faults::Group;
use crate::support::server::{Builder, set_mode};
use crate::support::{LIMIT, Server};

fn processors() -> usize {
    nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).map_or(1, |set| {
        (0..nix::sched::CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).count()
    })
}

#[test]
fn auto_is_what_the_affinity_allows() {
    let server = Server::app().args(["--master", "--processes=auto"]).through(["taskset", "-c", "0"]).start();
    assert_eq!(server.workers().len(), 1);
    server.wait_for_log("1 workers with 1 slot each");
}

#[test]
fn auto_is_the_quota_of_the_control_group_rounded_up_and_read_anew_by_a_reload() {
    let Some(group) = Group::new("cpu", "quota") else { return };
    group.set("cpu.cfs_period_us", "100000");
    group.set("cpu.cfs_quota_us", "90000");
    let server =
        Server::app().args(["--master", "-p", "auto", "--threads=3"]).through(group.launcher()).start();
    assert_eq!(server.workers().len(), 1);
    server.wait_for_log("1 workers with 3 slots each");

    group.set("cpu.cfs_quota_us", "110000");
    server.reload();
    let wanted = processors().min(2);
    server.wait_workers("the quota, rounded up", |workers| workers.len() == wanted);

    group.set("cpu.cfs_quota_us", "90000");
    server.reload();
    server.wait_workers("the quota, rounded up", |workers| workers.len() == 1);
}

#[test]
fn the_memory_limit_is_in_the_log() {
    let Some(group) = Group::new("memory", "limit") else { return };
    group.set("memory.limit_in_bytes", "536870912");
    let server = Server::app().arg("--master").through(group.launcher()).start();
    server.wait_for_log("memory limit of the control group: 512 MiB");
}

/// Kilobytes of a line in `/proc/PID/status`.
fn kilobytes(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("there is such a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// The highest limit on descriptors that a server can be given here. Container engines set what the kernel
/// allows, a thousand million at times.
fn highest_limit() -> u64 {
    let allowed = fs::read_to_string("/proc/sys/fs/nr_open").expect("there is such a limit");
    let allowed = allowed.trim().parse().expect("a number");
    let possible = Command::new("prlimit").arg(format!("--nofile={allowed}:{allowed}")).arg("true").output();
    match possible.is_ok_and(|output| output.status.success()) {
        true => allowed,
        false => getrlimit(Resource::RLIMIT_NOFILE).expect("there is such a limit").1,
    }
}

#[test]
fn no_table_has_the_size_of_the_limit_on_descriptors() {
    let memory = |limit: u64| {
        let limit = format!("--nofile={limit}:{limit}");
        let server = Server::app().args(["--master", "--processes=2"]).through(["prlimit", &limit]).spawn();
        server.wait_ready();
        server.reload();
        let all: Vec<u32> = server.children().into_iter().chain([server.pid()]).collect();
        all.iter().map(|pid| kilobytes(*pid, "VmSize:")).max().expect("they run")
    };
    let most = highest_limit();
    let (small, large) = (memory(1024), memory(most));
    // Address space, so that pages count that nobody has touched; it moves by some, whatever the limit.
    let pointers = most * 8 / 1024;
    assert!(large < small + pointers.max(128), "{small} kB with 1024, {large} kB with {most}");
}

/// Mounts all read-only, hides `/tmp` and the homes, and becomes a user that nobody knows, without
/// capabilities and variables. The server's directory is `/mnt` then.
pub const BARE: &str = "#!/bin/sh
set -e
mount --make-rprivate /
mkdir -p run
mount --bind \"$PWD\" /mnt
cd /mnt
mount -o remount,bind,ro /mnt
[ -z \"$WRITABLE\" ] || mount -t tmpfs -o mode=1777 none \"/mnt/$WRITABLE\"
for hidden in /tmp /root /home; do mount -t tmpfs -o ro,mode=555 none $hidden; done
mount -o remount,bind,ro /
exec setpriv --reuid=1000660000 --regid=0 --clear-groups --inh-caps=-all --bounding-set=-all --no-new-privs \\
    env -i TESTAPP_CONFIG=/mnt/testapp.json $VARIABLES /mnt/server-under-test \"$@\"
";

/// A server whose files the user that nobody knows can read.
fn bare() -> Builder {
    let builder = Server::app().copied().directory_mode(0o755).wrapped_by(BARE);
    set_mode(&builder.path("server-under-test"), 0o755);
    builder.args(["--master", "--processes=2"])
}

#[test]
fn it_needs_no_place_to_write_no_home_and_no_entry_in_passwd() {
    if !possible() {
        return;
    }
    let mut container = Container::start(bare());
    let server = &container.server;
    assert_eq!(container.status("Uid:").split_whitespace().next(), Some("1000660000"));
    assert_eq!(container.status("CapEff:"), "0000000000000000");
    assert!(!container.execute(&["touch", "/mnt/x", "/tmp/x", "/var/x"]).status.success());
    assert_eq!(server.get("/").text(), "hello v1\n");
    container.reload();
    assert_eq!(server.get("/").text(), "hello v1\n");
    let complaint = |line: &&String| line.contains("WARN") || line.contains("ERROR");
    assert_eq!(server.log().lines().iter().find(complaint), None);
    container.signal(Signal::SIGTERM);
    assert_eq!(container.server.wait_exit(LIMIT).code(), Some(0));
}

#[test]
fn what_it_cannot_write_is_named() {
    if !possible() {
        return;
    }
    let cases = [
        ("--pidfile=/mnt/pid", "pidfile: "),
        ("--master-fifo=/mnt/fifo", "master-fifo: "),
        ("--http=/mnt/app.sock", "/mnt/app.sock"),
        ("--logto=/mnt/log", "logto: "),
    ];
    for (option, named) in cases {
        let mut server = bare().arg(option).through(LAUNCHER).spawn();
        assert_eq!(server.wait_exit(LIMIT).code(), Some(1), "{option}");
        let line = server.wait_for_log("cannot start: ");
        // The kernel may find first that the directory is not this user's.
        let why = ["Read-only file system", "Permission denied"];
        assert!(line.contains(named) && why.iter().any(|it| line.contains(it)), "{line}");
    }
}
