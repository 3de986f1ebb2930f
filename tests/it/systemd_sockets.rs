//! `.socket` units under a real systemd: the first connection starts the service, and no change of it refuses
//! a client.

use std::time::Duration;

use serde_json::json;

use crate::support::load::{Load, LoadReport, LoadSpec};
use crate::support::systemd::Systemd;
use crate::support::{LIMIT, Target, eventually, get};

const ADDRESS: &str = "127.0.0.1:80";

/// The test application with a socket unit of these lines.
fn install(systemd: &Systemd, socket: &str, options: &str, service: &str) {
    let app = systemd.install_app();
    let variable = systemd.settings_variable();
    let socket = format!("[Socket]\n{socket}\n");
    let service = format!(
        "[Unit]\nStartLimitIntervalSec=0\n[Service]\nType=notify\nEnvironment={variable}\nRuntimeDirectory=app\n\
         ExecStart={app} --master --processes=2 --pidfile=/run/app/pid {options}\n\
         ExecReload={app} --reload /run/app/pid --wait\n\
         KillSignal=SIGINT\nKillMode=mixed\nRestart=always\nRestartSec=500ms\n{service}\n"
    );
    systemd.units(&[("app.socket", &socket), ("app.service", &service)]);
}

fn target() -> Target {
    Target::Tcp(ADDRESS.parse().unwrap())
}

fn answer(systemd: &Systemd) -> String {
    systemd.within(|| get(&target(), "/").text())
}

/// Clients that connect anew for each request.
fn load(systemd: &Systemd, target: &Target) -> Load {
    let spec = LoadSpec { keep_alive: 0, fresh: 4, timeout: LIMIT, ..LoadSpec::gets() };
    systemd.within(|| Load::start(target, &spec))
}

/// What clients see all over the time that `change` takes, and until some were answered after it.
pub fn under_load(systemd: &Systemd, target: &Target, change: impl FnOnce()) -> LoadReport {
    let load = load(systemd, target);
    load.wait_for(50);
    change();
    load.wait_for(50);
    load.stop()
}

/// Kills the main process; clients come once nobody is there any more, for a request that is being served
/// then is lost. They wait for the next start. The service is `app`, and is started again after a while.
pub fn crash(systemd: &Systemd, target: &Target) {
    systemd.systemctl(["kill", "--kill-whom=main", "--signal=KILL", "app"]).succeeds();
    systemd.wait_show("app", "SubState", |state| state.starts_with("auto-restart"));
    let load = load(systemd, target);
    load.wait_for(50);
    load.stop().assert_nothing_lost();
    systemd.wait_show("app", "SubState", |state| state == "running");
}

fn nothing_is_refused(systemd: &Systemd) {
    install(systemd, &format!("ListenStream={ADDRESS}"), "", "");
    systemd.systemctl(["start", "app.socket"]).succeeds();
    assert_eq!(systemd.show("app", "ActiveState"), "inactive");
    assert_eq!(answer(systemd), "hello v1\n", "the first connection starts it");
    systemd.wait_show("app", "ActiveState", |state| state == "active");

    let main = systemd.show("app", "MainPID");
    systemd.set_settings(json!({ "version": "v2", "load_ms": 300 }));
    under_load(systemd, &target(), || {
        drop(systemd.systemctl(["kill", "--kill-whom=main", "--signal=HUP", "app"]).succeeds())
    })
    .assert_nothing_lost();
    eventually("the reload is over", LIMIT, || (answer(systemd) == "hello v2\n").then_some(()));
    systemd.set_settings(json!({ "version": "v3", "load_ms": 300 }));
    under_load(systemd, &target(), || drop(systemd.systemctl(["reload", "app"]).succeeds()))
        .assert_nothing_lost();
    assert_eq!(systemd.show("app", "MainPID"), main);

    let report = under_load(systemd, &target(), || drop(systemd.systemctl(["restart", "app"]).succeeds()));
    report.assert_nothing_lost();
    assert!(report.longest > Duration::from_millis(300), "they waited for the start: {report:?}");
    assert_ne!(systemd.show("app", "MainPID"), main);

    crash(systemd, &target());
    crash(systemd, &target());
    systemd.systemctl(["stop", "app.socket", "app.service"]).succeeds();
    assert_eq!(systemd.show("app", "Result"), "success");
}

#[test]
fn no_client_is_refused_by_reload_restart_and_crash() {
    let Some(systemd) = Systemd::start() else { return };
    nothing_is_refused(&systemd);
}

#[test]
fn no_client_is_refused_under_a_newer_systemd_either() {
    let Some(systemd) = Systemd::start_newer() else { return };
    nothing_is_refused(&systemd);
}

#[test]
fn a_service_on_demand_stops_when_idle_and_comes_back_with_the_next_client() {
    let Some(systemd) = Systemd::start() else { return };
    let idle = "--cheap --idle=200ms --die-on-idle --check-interval=50ms";
    install(&systemd, &format!("ListenStream={ADDRESS}"), idle, "Restart=on-failure");
    systemd.systemctl(["start", "app.socket"]).succeeds();
    for _ in 0..3 {
        assert_eq!(answer(&systemd), "hello v1\n");
        systemd.wait_show("app", "ActiveState", |state| state == "inactive");
        assert_eq!(systemd.show("app", "Result"), "success");
    }
    // Clients that come about when it stops.
    let pause = Duration::from_millis(250);
    let spec = LoadSpec { keep_alive: 0, fresh: 1, pause, timeout: LIMIT, ..LoadSpec::gets() };
    let load = systemd.within(|| Load::start(&target(), &spec));
    load.wait_for(10);
    load.stop().assert_nothing_lost();
}

#[test]
fn a_unit_may_have_many_sockets_of_every_kind() {
    let Some(systemd) = Systemd::start() else { return };
    let lines = format!(
        "ListenStream={ADDRESS}\nListenStream=[::1]:81\nListenStream=82\nListenStream={}/sock\n\
         ListenStream=@app-of-the-test\nNoDelay=yes\nReusePort=yes\nBacklog=1024",
        systemd.shared()
    );
    install(&systemd, &lines, "--vacuum", "");
    systemd.systemctl(["start", "app.socket", "app.service"]).succeeds();
    let all = |text: &str| {
        assert_eq!(answer(&systemd), text);
        for address in ["[::1]:81", "127.0.0.1:82", "[::1]:82"] {
            let target = Target::Tcp(address.parse().unwrap());
            assert_eq!(systemd.within(|| get(&target, "/").text()), text, "{address}");
        }
        assert_eq!(get(&systemd.target("sock"), "/").text(), text);
    };
    all("hello v1\n");
    systemd.wait_journal("app", "listening on @app-of-the-test (http)");
    for version in ["v2", "v3"] {
        systemd.set_settings(json!({ "version": version }));
        systemd.systemctl([if version == "v2" { "reload" } else { "restart" }, "app"]).succeeds();
        all(&format!("hello {version}\n"));
    }
    // Their file stays, and starts the service again.
    systemd.systemctl(["stop", "app.service"]).succeeds();
    assert_eq!(get(&systemd.target("sock"), "/").text(), "hello v3\n");
}

#[test]
fn sockets_of_two_units_are_told_apart_by_name() {
    let Some(systemd) = Systemd::start() else { return };
    let named = |address: &str, name: &str| {
        format!("ListenStream={address}\nFileDescriptorName={name}\nService=app.service")
    };
    install(
        &systemd,
        &named(ADDRESS, "web"),
        "--http=fd:admin --http=fd:web",
        "Sockets=app.socket other.socket",
    );
    systemd.unit("other.socket", &format!("[Socket]\n{}\n", named("127.0.0.1:81", "admin")));
    systemd.systemctl(["start", "app.socket", "other.socket", "app.service"]).succeeds();
    assert_eq!(answer(&systemd), "hello v1\n");
    systemd.wait_journal("app", "accept on 127.0.0.1:81, 127.0.0.1:80");
}

#[test]
fn a_socket_that_no_option_claims_keeps_the_service_from_starting() {
    let Some(systemd) = Systemd::start() else { return };
    install(&systemd, &format!("ListenStream={ADDRESS}"), "--http=127.0.0.1:8080", "Restart=no");
    systemd.systemctl(["start", "app.socket"]).succeeds();
    systemd.systemctl(["start", "app.service"]).fails();
    let text = systemd.show("app", "StatusText");
    assert!(text.contains("the socket 127.0.0.1:80 was passed by systemd as descriptor 3"), "{text}");
    systemd.wait_journal("app", "write http = 127.0.0.1:80 or http = fd:app.socket");
}

#[test]
fn a_unit_that_accepts_itself_is_refused() {
    let Some(systemd) = Systemd::start() else { return };
    let app = systemd.install_app();
    systemd.units(&[
        ("app.socket", &format!("[Socket]\nListenStream={ADDRESS}\nAccept=yes\n")),
        ("app@.service", &format!("[Service]\nExecStart={app} --master\n")),
    ]);
    systemd.systemctl(["start", "app.socket"]).succeeds();
    let client = systemd.within(|| std::net::TcpStream::connect(ADDRESS)).expect("systemd listens");
    eventually("it is refused", LIMIT, || {
        let said = systemd.run("journalctl", ["--no-pager", "--output=cat"]).succeeds();
        said.contains("is a connection and not a socket that listens; the .socket unit needs").then_some(())
    });
    drop(client);
}
