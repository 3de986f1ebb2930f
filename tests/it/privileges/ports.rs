//! Ports below 1024: bound before privileges are dropped; at a reload, by those that may.

use super::{NOBODY, is_root, open_to_all};
use crate::support::http::{Target, get};
use crate::support::server::Builder;
use crate::support::{LIMIT, Server};

/// A server with this configuration, which listens on port 80 of a loopback address of its own.
fn on_port_80(address: &str, lines: &str) -> Server {
    let mut server = builder(address, lines).start();
    server.set_address(format!("{address}:80").parse().unwrap());
    server
}

fn builder(address: &str, lines: &str) -> Builder {
    let ini = configuration(address, lines);
    open_to_all().without_listener().file("app.ini", ini).arg("--ini=app.ini")
}

fn configuration(address: &str, lines: &str) -> String {
    format!("[uwsgi]\nhttp = {address}:80\nuid = nobody\n{lines}\n")
}

fn second(address: &str) -> Target {
    Target::Tcp(format!("{address}:81").parse().unwrap())
}

#[test]
fn they_are_bound_before_and_stay_bound_over_reloads() {
    if !is_root() {
        return;
    }
    let server = on_port_80("127.71.0.1", "");
    for _ in 0..2 {
        assert_eq!(server.get("/").text(), "hello v1\n");
        super::assert_run_as(&server, NOBODY, NOBODY, &[NOBODY]);
        server.reload();
    }
}

#[test]
fn a_reload_without_privileges_cannot_bind_another_one_and_says_so() {
    if !is_root() {
        return;
    }
    let address = "127.71.0.2";
    let server = on_port_80(address, "");
    server.file("app.ini", configuration(address, &format!("http = {address}:81")));
    server.signal(nix::sys::signal::Signal::SIGHUP);
    let line = server.wait_for_log("cannot bind 127.71.0.2:81");
    assert!(line.contains("needs root or CAP_NET_BIND_SERVICE"), "{line}");
    assert!(line.contains("cap = net_bind_service") && line.contains("app.ini:4"), "{line}");
    assert_eq!(server.get("/info").json()["generation"], 1);
}

#[test]
fn a_reload_binds_another_one_with_the_capability_or_a_master_that_is_root() {
    if !is_root() {
        return;
    }
    for (address, lines) in [
        ("127.71.0.3", "cap = net_bind_service"),
        ("127.71.0.4", "master-as-root = true"),
        ("127.71.0.5", "drop-after-apps = true"),
    ] {
        let server = on_port_80(address, lines);
        server.file("app.ini", configuration(address, &format!("{lines}\nhttp = {address}:81")));
        server.reload();
        assert_eq!(get(&second(address), "/").text(), "hello v1\n", "{lines}");
        assert_eq!(server.get("/become?uid=0").text(), "EPERM: Operation not permitted\n", "{lines}");
    }
}

#[test]
fn a_service_manager_may_give_the_capability_to_another_user() {
    if !is_root() {
        return;
    }
    // As User= and AmbientCapabilities= do.
    let given = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+net_bind_service"];
    let launcher = ["setpriv"].into_iter().chain(given).chain(["--ambient-caps=+net_bind_service"]);
    let address = "127.71.0.6";
    let mut server = builder(address, "no-new-privs = true").through(launcher).start();
    server.set_address(format!("{address}:80").parse().unwrap());
    server.file("app.ini", configuration(address, &format!("http = {address}:81")));
    server.reload();
    assert_eq!(server.get("/").text(), "hello v1\n");
    assert_eq!(get(&second(address), "/").text(), "hello v1\n");
}

#[test]
fn without_root_or_capability_the_start_says_what_is_missing() {
    if !is_root() {
        return;
    }
    let launcher = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut server = builder("127.71.0.7", "").through(launcher).spawn();
    assert_eq!(server.wait_exit(LIMIT).code(), Some(1));
    server.wait_for_log("a port below 1024 needs root or CAP_NET_BIND_SERVICE");
}
