//! A service of `Type=notify`, `notify-reload` and `forking` under a real systemd: started, reloaded, stopped,
//! crashed and watched as an operator sees it.

use std::process::Child;
use std::time::Instant;

use serde_json::json;

use crate::support::gate::Gate;
use crate::support::systemd::{Said, Systemd};
use crate::support::{LIMIT, eventually, get};

/// The test application as a service with these lines; it listens on `sock` in the shared directory.
fn service(systemd: &Systemd, options: &str, lines: &str) {
    let app = systemd.install_app();
    let (shared, variable) = (systemd.shared(), systemd.settings_variable());
    systemd.unit(
        "app.service",
        &format!(
            "[Service]\nEnvironment={variable}\nRuntimeDirectory=app\n\
             ExecStart={app} --http={shared}/sock --master --processes=2 --pidfile=/run/app/pid {options}\n\
             ExecReload={app} --reload /run/app/pid --wait\n\
             KillSignal=SIGINT\nKillMode=mixed\n{lines}\n"
        ),
    );
}

fn said(child: Child) -> Said {
    child.wait_with_output().expect("it ends").into()
}

/// What a client gets from the service.
fn answer(systemd: &Systemd) -> String {
    get(&systemd.target("sock"), "/").text()
}

/// Waits until a worker is busy with `/sleep`, as the master knows it.
fn wait_begun(systemd: &Systemd) {
    eventually("the request has begun", LIMIT, || {
        systemd.systemctl(["kill", "--kill-whom=main", "--signal=USR2", "app"]).succeeds();
        systemd.journal("app").iter().any(|line| line.contains("with GET /sleep")).then_some(())
    });
}

#[test]
fn active_means_that_a_slow_application_serves_though_it_takes_longer_than_systemd_waits() {
    let Some(systemd) = Systemd::start() else { return };
    service(&systemd, "", "Type=notify\nTimeoutStartSec=1");
    let gate = Gate::new(systemd.shared_path("gate"));
    systemd.set_settings(json!({ "load_gate": gate.path(), "load_ms": 2500 }));
    let begun = Instant::now();
    let starting = systemd.begin_systemctl(["start", "app"]);
    systemd.wait_show("app", "StatusText", |text| text == "starting: loading the application");
    assert_eq!(systemd.show("app", "ActiveState"), "activating");
    let visitor = gate.wait();
    assert!(begun.elapsed().as_secs_f32() > 2.0, "longer than TimeoutStartSec");
    assert_eq!(systemd.show("app", "ActiveState"), "activating");
    drop(visitor);
    said(starting).succeeds();
    assert_eq!(systemd.show("app", "ActiveState"), "active");
    assert_eq!(systemd.show("app", "StatusText"), "generation 1 serves with 2 workers");
    assert_eq!(answer(&systemd), "hello v1\n");
}

#[test]
fn an_application_that_never_loads_is_given_up_when_boot_timeout_is_over() {
    let Some(systemd) = Systemd::start() else { return };
    service(&systemd, "--boot-timeout=3", "Type=notify\nTimeoutStartSec=1");
    systemd.set_settings(json!({ "load": "hang" }));
    let begun = Instant::now();
    systemd.systemctl(["start", "app"]).fails();
    assert!(begun.elapsed().as_secs() >= 3, "not before");
    // It was the server that gave up, with its own word, and not systemd.
    assert_eq!(systemd.show("app", "Result"), "exit-code");
    let text = systemd.show("app", "StatusText");
    assert!(text.contains("the application was not loaded within 3 s (boot-timeout)"), "{text}");
}

#[test]
fn a_start_that_fails_shows_reason_and_error_number() {
    let Some(systemd) = Systemd::start() else { return };
    service(&systemd, "--http=/no/such/directory/sock", "Type=notify");
    systemd.systemctl(["start", "app"]).fails();
    assert_eq!(systemd.show("app", "StatusErrno"), "2");
    let text = systemd.show("app", "StatusText");
    assert!(text.starts_with("cannot start: cannot bind /no/such/directory/sock"), "{text}");
}

/// `systemctl reload` of a service that is up, with code that loads and with code that does not.
fn reload_waits_and_fails(systemd: &Systemd) {
    systemd.systemctl(["start", "app"]).succeeds();
    let main = systemd.show("app", "MainPID");

    systemd.set_settings(json!({ "version": "v2", "load_ms": 500 }));
    systemd.systemctl(["reload", "app"]).succeeds();
    assert_eq!(answer(systemd), "hello v2\n", "the command waits for the new code");
    systemd.wait_show("app", "StatusText", |text| text == "generation 2 serves with 2 workers");
    assert_eq!(systemd.show("app", "ActiveState"), "active");

    systemd.set_settings(json!({ "load": "fail" }));
    systemd.systemctl(["reload", "app"]).fails();
    assert_eq!(answer(systemd), "hello v2\n");
    assert_eq!(systemd.show("app", "ActiveState"), "active");
    let text = systemd.show("app", "StatusText");
    assert!(
        text.starts_with("reload 2 refused: no application: the test application was told to fail"),
        "{text}"
    );
    assert!(text.ends_with("; generation 2 serves on with 2 workers"), "{text}");
    systemd.wait_journal("app", "reload 2 refused: ");

    systemd.set_settings(json!({ "version": "v4" }));
    systemd.systemctl(["reload", "app"]).succeeds();
    assert_eq!(answer(systemd), "hello v4\n");
    assert_eq!(systemd.show("app", "MainPID"), main, "the process is the same all the time");
    assert_eq!(systemd.show("app", "NRestarts"), "0");
}

#[test]
fn systemctl_reload_waits_for_the_new_code_and_fails_when_it_is_refused() {
    let Some(systemd) = Systemd::start() else { return };
    service(&systemd, "", "Type=notify");
    reload_waits_and_fails(&systemd);
}

#[test]
fn a_notify_reload_service_fails_to_reload_too_when_its_signal_does_nothing() {
    let Some(systemd) = Systemd::start_newer() else { return };
    service(&systemd, "", "Type=notify-reload\nReloadSignal=SIGCONT");
    reload_waits_and_fails(&systemd);
    // One reload each: the signal has not asked for a second one.
    let begun = systemd.journal("app").iter().filter(|line| line.contains(" begins: preparing")).count();
    assert_eq!(begun, 3);
}

#[test]
fn without_a_command_notify_reload_waits_and_the_status_tells_of_a_refusal() {
    let Some(systemd) = Systemd::start_newer() else { return };
    service(&systemd, "", "Type=notify-reload\nExecReload=\nTimeoutStartSec=10");
    systemd.systemctl(["start", "app"]).succeeds();
    systemd.set_settings(json!({ "version": "v2", "load_ms": 500 }));
    systemd.systemctl(["reload", "app"]).succeeds();
    assert_eq!(answer(&systemd), "hello v2\n");
    systemd.set_settings(json!({ "load": "fail" }));
    systemd.systemctl(["reload", "app"]).succeeds();
    assert!(systemd.show("app", "StatusText").starts_with("reload 2 refused: "));
    assert_eq!(answer(&systemd), "hello v2\n");
}

#[test]
fn a_reload_by_another_road_shows_as_reloading_and_may_take_longer_than_systemd_waits() {
    let Some(systemd) = Systemd::start() else { return };
    service(&systemd, "", "Type=notify\nTimeoutStartSec=1");
    systemd.systemctl(["start", "app"]).succeeds();
    let gate = Gate::new(systemd.shared_path("gate"));
    systemd.set_settings(json!({ "load_gate": gate.path(), "load_ms": 2500, "version": "v2" }));
    systemd.systemctl(["kill", "--kill-whom=main", "--signal=HUP", "app"]).succeeds();
    systemd.wait_show("app", "ActiveState", |state| state == "reloading");
    let visitor = gate.wait();
    assert_eq!(systemd.show("app", "ActiveState"), "reloading");
    drop(visitor);
    systemd.wait_show("app", "ActiveState", |state| state == "active");
    assert_eq!(answer(&systemd), "hello v2\n");

    // The same for a reload that systemctl waits for.
    systemd.set_settings(json!({ "load_ms": 2500, "version": "v3" }));
    systemd.systemctl(["reload", "app"]).succeeds();
    assert_eq!(answer(&systemd), "hello v3\n");
}

#[test]
fn a_stop_is_announced_and_waits_for_the_last_request() {
    let Some(systemd) = Systemd::start() else { return };
    // Less than the request takes: the server asks for more.
    service(&systemd, "", "Type=notify\nTimeoutStopSec=1");
    systemd.systemctl(["start", "app"]).succeeds();
    let target = systemd.target("sock");
    let request = std::thread::spawn(move || get(&target, "/sleep?ms=3000"));
    wait_begun(&systemd);
    let stopping = systemd.begin_systemctl(["stop", "app"]);
    systemd.wait_show("app", "StatusText", |text| text.starts_with("stopping: "));
    assert_eq!(systemd.show("app", "ActiveState"), "deactivating");
    assert_eq!(request.join().unwrap().status, 200);
    said(stopping).succeeds();
    assert_eq!(systemd.show("app", "ActiveState"), "inactive");
    assert_eq!(systemd.show("app", "Result"), "success");
}

#[test]
fn a_master_that_is_killed_is_started_again() {
    let Some(systemd) = Systemd::start() else { return };
    service(&systemd, "", "Type=notify\nRestart=on-failure\nRestartSec=100ms");
    systemd.systemctl(["start", "app"]).succeeds();
    let main = systemd.show("app", "MainPID");
    systemd.systemctl(["kill", "--kill-whom=main", "--signal=KILL", "app"]).succeeds();
    systemd.wait_show("app", "NRestarts", |times| times == "1");
    systemd.wait_show("app", "ActiveState", |state| state == "active");
    assert_ne!(systemd.show("app", "MainPID"), main);
    assert_eq!(answer(&systemd), "hello v1\n");
}

/// A service with a watchdog, which serves.
fn watched(systemd: &Systemd) {
    service(
        systemd,
        "",
        "Type=notify\nWatchdogSec=2\nRestart=on-watchdog\nRestartSec=100ms\nTimeoutAbortSec=2",
    );
    systemd.systemctl(["start", "app"]).succeeds();
}

fn killed_by_the_watchdog(systemd: &Systemd) {
    systemd.wait_journal("app", "Watchdog timeout (limit 2s)!");
    systemd.wait_show("app", "NRestarts", |times| times == "1");
    systemd.wait_show("app", "ActiveState", |state| state == "active");
    assert_eq!(answer(systemd), "hello v1\n");
}

#[test]
fn the_watchdog_kills_a_master_that_hangs() {
    let Some(systemd) = Systemd::start() else { return };
    watched(&systemd);
    systemd.systemctl(["kill", "--kill-whom=main", "--signal=STOP", "app"]).succeeds();
    killed_by_the_watchdog(&systemd);
}

#[test]
fn the_watchdog_kills_a_server_whose_workers_all_hang() {
    let Some(systemd) = Systemd::start() else { return };
    watched(&systemd);
    let main = systemd.show("app", "MainPID");
    let children = systemd.read(&format!("/proc/{main}/task/{main}/children")).expect("it runs");
    systemd.run("kill", ["-STOP"].into_iter().chain(children.split_whitespace())).succeeds();
    killed_by_the_watchdog(&systemd);
}

#[test]
fn the_watchdog_lets_an_idle_server_and_a_slow_reload_and_a_slow_stop_live() {
    let Some(systemd) = Systemd::start() else { return };
    watched(&systemd);
    // Longer than the period: nobody asks for anything, then the new code takes its time.
    systemd.set_settings(json!({ "load_ms": 3000, "version": "v2" }));
    systemd.systemctl(["reload", "app"]).succeeds();
    systemd.systemctl(["reload", "app"]).succeeds();
    assert_eq!(answer(&systemd), "hello v2\n");
    let target = systemd.target("sock");
    let request = std::thread::spawn(move || get(&target, "/sleep?ms=3000"));
    wait_begun(&systemd);
    systemd.systemctl(["stop", "app"]).succeeds();
    assert_eq!(request.join().unwrap().status, 200);
    assert_eq!(
        (systemd.show("app", "NRestarts"), systemd.show("app", "Result")),
        ("0".into(), "success".into())
    );
}

#[test]
fn a_daemon_works_as_a_forking_service() {
    let Some(systemd) = Systemd::start() else { return };
    service(
        &systemd,
        "--daemonize2=/run/app/log",
        "Type=forking\nPIDFile=/run/app/pid\nRestart=on-failure\nRestartSec=100ms",
    );
    systemd.systemctl(["start", "app"]).succeeds();
    let main = systemd.show("app", "MainPID");
    assert_eq!(systemd.read("/run/app/pid").expect("a pidfile").trim(), main);
    systemd.set_settings(json!({ "version": "v2" }));
    systemd.systemctl(["reload", "app"]).succeeds();
    assert_eq!(answer(&systemd), "hello v2\n");
    systemd.set_settings(json!({ "load": "fail" }));
    let errors = systemd.systemctl(["reload", "app"]).fails();
    assert!(errors.contains("failed"), "{errors}");
    assert_eq!(systemd.show("app", "MainPID"), main);
    systemd.set_settings(json!({ "version": "v3" }));
    systemd.systemctl(["kill", "--kill-whom=main", "--signal=KILL", "app"]).succeeds();
    systemd.wait_show("app", "NRestarts", |times| times == "1");
    systemd.wait_show("app", "ActiveState", |state| state == "active");
    assert_eq!(answer(&systemd), "hello v3\n");
    systemd.systemctl(["stop", "app"]).succeeds();
    assert_eq!(systemd.show("app", "Result"), "success");

    // The same start that fails: systemd sees the exit status of the process in front.
    systemd.set_settings(json!({ "load": "fail" }));
    systemd.systemctl(["start", "app"]).fails();
}

#[test]
fn a_daemon_works_as_a_notify_service_that_lets_all_its_processes_speak() {
    let Some(systemd) = Systemd::start() else { return };
    service(&systemd, "--daemonize=/run/app/log", "Type=notify\nNotifyAccess=all");
    systemd.systemctl(["start", "app"]).succeeds();
    assert_eq!(systemd.read("/run/app/pid").expect("a pidfile").trim(), systemd.show("app", "MainPID"));
    assert_eq!(systemd.show("app", "StatusText"), "generation 1 serves with 2 workers");
    systemd.systemctl(["reload", "app"]).succeeds();
    systemd.systemctl(["stop", "app"]).succeeds();
}
