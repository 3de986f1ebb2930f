//! Listeners in the descriptor store of a real systemd: a plain service refuses nobody while it is away.

use serde_json::json;

use crate::support::systemd::Systemd;
use crate::support::{LIMIT, Target, eventually, get};
use crate::systemd_sockets::{crash, under_load};

const ADDRESS: &str = "127.0.0.1:80";

/// The test application, which finds its listeners in a file.
fn install(systemd: &Systemd, listeners: &[&str], lines: &str) {
    let app = systemd.install_app();
    let variable = systemd.settings_variable();
    configure(systemd, listeners);
    systemd.unit(
        "app.service",
        &format!(
            "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nEnvironment={variable}\nRuntimeDirectory=app\nRuntimeDirectoryPreserve=restart\n\
             ExecStart={app} --ini /etc/app.ini\n\
             ExecReload={app} --reload /run/app/pid --wait\n\
             KillSignal=SIGINT\nKillMode=mixed\nRestart=always\nRestartSec=500ms\n{lines}\n"
        ),
    );
}

fn configure(systemd: &Systemd, listeners: &[&str]) {
    let lines: String = listeners.iter().map(|it| format!("http = {it}\n")).collect();
    systemd.file(
        "/etc/app.ini",
        format!("[uwsgi]\nprocesses = 2\nvacuum = true\npidfile = /run/app/pid\n{lines}"),
    );
}

fn target() -> Target {
    Target::Tcp(ADDRESS.parse().unwrap())
}

fn restart(systemd: &Systemd) {
    systemd.systemctl(["restart", "app"]).succeeds();
}

fn stored(systemd: &Systemd) -> String {
    systemd.show("app", "NFileDescriptorStore")
}

fn nothing_is_refused(systemd: &Systemd, lines: &str) {
    let path = format!("{}/sock", systemd.shared());
    install(systemd, &[ADDRESS, &path], lines);
    systemd.systemctl(["start", "app"]).succeeds();
    assert_eq!(stored(systemd), "2");
    let (tcp, unix) = (target(), systemd.target("sock"));
    systemd.set_settings(json!({ "load_ms": 300 }));
    for target in [&tcp, &unix] {
        under_load(systemd, target, || restart(systemd)).assert_nothing_lost();
        crash(systemd, target);
    }
    assert_eq!(stored(systemd), "2", "each is stored once");
    systemd.systemctl(["reload", "app"]).succeeds();
    under_load(systemd, &tcp, || restart(systemd)).assert_nothing_lost();
    assert_eq!(stored(systemd), "2");
    systemd.systemctl(["stop", "app"]).succeeds();
    assert_eq!(stored(systemd), "0");
    systemd.systemctl(["start", "app"]).succeeds();
    assert_eq!(systemd.within(|| get(&tcp, "/").status), 200);
    assert_eq!(get(&unix, "/").status, 200);
}

#[test]
fn a_plain_service_refuses_nobody_across_restart_and_crash() {
    let Some(systemd) = Systemd::start_newer() else { return };
    nothing_is_refused(&systemd, "FileDescriptorStoreMax=8");
}

#[test]
fn an_older_systemd_does_not_tell_of_its_store_and_the_unit_does() {
    let Some(systemd) = Systemd::start() else { return };
    nothing_is_refused(&systemd, "FileDescriptorStoreMax=8\nEnvironment=FDSTORE=8");
}

#[test]
fn a_reload_stores_what_is_new_and_takes_out_what_is_gone() {
    let Some(systemd) = Systemd::start_newer() else { return };
    install(&systemd, &[ADDRESS], "FileDescriptorStoreMax=8");
    systemd.systemctl(["start", "app"]).succeeds();
    assert_eq!(stored(&systemd), "1");
    configure(&systemd, &[ADDRESS, "127.0.0.1:81", "@appserver-stored"]);
    systemd.systemctl(["reload", "app"]).succeeds();
    systemd.wait_show("app", "NFileDescriptorStore", |count| count == "3");
    configure(&systemd, &["*:82", "127.0.0.1:81"]);
    systemd.systemctl(["reload", "app"]).succeeds();
    systemd.wait_show("app", "NFileDescriptorStore", |count| count == "2");

    // The same address, written in another way, and one that is configured no more.
    configure(&systemd, &[":82"]);
    restart(&systemd);
    systemd.wait_show("app", "NFileDescriptorStore", |count| count == "1");
    systemd.wait_journal("app", "no longer listening on 127.0.0.1:81");
    let (open, closed) = ("127.0.0.1:82".parse().unwrap(), "127.0.0.1:81");
    assert_eq!(systemd.within(|| get(&Target::Tcp(open), "/").status), 200);
    let refused = systemd.within(|| std::net::TcpStream::connect(closed)).expect_err("nobody listens");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_store_that_is_too_small_is_told_and_one_that_is_not_there_is_not_asked_for() {
    let Some(systemd) = Systemd::start_newer() else { return };
    install(&systemd, &[ADDRESS, "127.0.0.1:81"], "FileDescriptorStoreMax=1");
    systemd.systemctl(["start", "app"]).succeeds();
    systemd
        .wait_journal("app", "127.0.0.1:81 is not stored over a restart: FileDescriptorStoreMax=1 is less");
    assert_eq!(stored(&systemd), "1");
    systemd.systemctl(["stop", "app"]).succeeds();

    install(&systemd, &[ADDRESS], "");
    systemd.systemctl(["start", "app"]).succeeds();
    let said = systemd.journal("app");
    assert!(!said.iter().any(|line| line.contains("Cannot store more fds")), "{said:#?}");
    assert_eq!(stored(&systemd), "0");
}

#[test]
fn a_stored_socket_whose_file_was_removed_is_bound_anew() {
    let Some(systemd) = Systemd::start_newer() else { return };
    install(&systemd, &[&format!("{}/sock", systemd.shared())], "FileDescriptorStoreMax=8");
    systemd.systemctl(["start", "app"]).succeeds();
    std::fs::remove_file(systemd.shared_path("sock")).unwrap();
    restart(&systemd);
    systemd.wait_journal("app", "is given up: its file was removed or replaced");
    assert_eq!(get(&systemd.target("sock"), "/").status, 200);
    eventually("the old one has left the store", LIMIT, || (stored(&systemd) == "1").then_some(()));
    restart(&systemd);
    assert_eq!(get(&systemd.target("sock"), "/").status, 200);
}
