//! The files in `config/` for other supervisors than systemd, each run by the real program: started, reloaded with
//! code that loads and with code that does not, stopped.
//!
//! A private root with a systemd in it ([`Systemd`]) is the machine on which they are installed: paths and
//! ports are those of the files. `scripts/test-supervisors` unpacks the programs.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::shipped_config::shipped;
use crate::support::deploy::Code;
use crate::support::http::Connection;
use crate::support::systemd::Systemd;
use crate::support::{LIMIT, Server, Target, eventually, get};

/// The machine, with a program of another supervisor; `None` when there is none to be had.
fn machine(program: &str) -> Option<Systemd> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/supervisors");
    if !["usr/bin", "usr/sbin", "sbin"].iter().any(|it| tree.join(it).join(program).exists()) {
        // Without the directory nobody has tried; without the package scripts/test has said so.
        assert!(tree.exists(), "{program} is not there: run scripts/test-supervisors");
        return None;
    }
    let systemd = bare_machine()?;
    let script = format!(
        "cp -a {0}/usr/. /usr/ && cp -a {0}/lib/. /usr/lib/ && cp -a {0}/sbin/. /usr/sbin/ && ldconfig",
        tree.display()
    );
    shell(&systemd, &script);
    Some(systemd)
}

/// The machine without anything beyond the server, which is the test application.
fn bare_machine() -> Option<Systemd> {
    let systemd = Systemd::start()?;
    // Nothing below may reach the machine that the tests run on.
    assert_eq!(shell(&systemd, "findmnt -no FSTYPE /usr; findmnt -no FSTYPE /etc"), "overlay\noverlay");
    let app = systemd.install_app();
    // Not every supervisor passes an environment on.
    let script = format!("#!/bin/sh\nexec env {} {app} \"$@\"\n", systemd.settings_variable());
    install(&systemd, "/usr/local/bin/appserver", &script);
    let owned =
        "mkdir -p /run/appserver /var/log/appserver && chown www-data /run/appserver /var/log/appserver";
    shell(&systemd, owned);
    Some(systemd)
}

/// Writes a script.
fn install(systemd: &Systemd, path: &str, text: &str) {
    systemd.file(path, text);
    systemd.run("chmod", ["755", path]).succeeds();
}

/// Runs a command that has to succeed; its output.
#[track_caller]
fn shell(systemd: &Systemd, command: &str) -> String {
    systemd.run("sh", ["-c", command]).succeeds()
}

/// Starts a supervisor in the background; its end is that of the machine.
fn daemon(systemd: &Systemd, command: &str) {
    shell(systemd, &format!("setsid {command} >/run/supervisor.log 2>&1 </dev/null &"));
}

/// The orders of a supervisor.
struct Orders<'a> {
    start: &'a str,
    reload: &'a str,
    stop: &'a str,
    /// Prints the log, where the order to reload does not wait for what comes of it; elsewhere it fails when the
    /// code does not load.
    log: Option<&'a str>,
}

fn target(port: u16) -> Target {
    Target::Tcp(([127, 0, 0, 1], port).into())
}

/// What a client gets; nothing, when nobody listens.
fn answer(systemd: &Systemd, port: u16) -> Option<String> {
    systemd.within(|| Connection::open(&target(port), LIMIT).ok().map(|_| get(&target(port), "/").text()))
}

fn wait_answer(systemd: &Systemd, port: u16, expected: Option<&str>) {
    let what = format!("the service says {expected:?}: {:?}", systemd.read("/run/supervisor.log"));
    eventually(&what, LIMIT, || (answer(systemd, port).as_deref() == expected).then_some(()));
}

/// From start to stop.
fn lives(systemd: &Systemd, code: Code, port: u16, orders: &Orders<'_>) {
    code.deploy(systemd, "v1");
    shell(systemd, orders.start);
    wait_answer(systemd, port, Some("hello v1\n"));

    code.deploy(systemd, "v2");
    shell(systemd, orders.reload);
    wait_answer(systemd, port, Some("hello v2\n"));

    code.deploy_broken(systemd);
    let said = systemd.run("sh", ["-c", orders.reload]);
    match orders.log {
        None => drop(said.fails()),
        Some(log) => {
            said.succeeds();
            eventually("the broken release is refused", LIMIT, || {
                shell(systemd, log).contains(" refused: ").then_some(())
            });
        }
    }
    code.deploy(systemd, "v3");
    assert_eq!(answer(systemd, port).as_deref(), Some("hello v2\n"));
    shell(systemd, orders.reload);
    wait_answer(systemd, port, Some("hello v3\n"));

    shell(systemd, orders.stop);
    wait_answer(systemd, port, None);
}

#[test]
fn supervisor_runs_its_program() {
    let Some(systemd) = machine("supervisord") else { return };
    systemd.file(
        "/etc/supervisord.conf",
        "[supervisord]\nlogfile = /run/supervisord.log\npidfile = /run/supervisord.pid\n\
         childlogdir = /run\n\
         [unix_http_server]\nfile = /run/supervisor.sock\n\
         [rpcinterface:supervisor]\n\
         supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
         [supervisorctl]\nserverurl = unix:///run/supervisor.sock\n\
         [include]\nfiles = /etc/supervisor.d/*.conf\n",
    );
    let program = shipped("supervisor/appserver.conf") + "autostart=false\n";
    systemd.file("/etc/supervisor.d/appserver.conf", program);
    daemon(&systemd, "/usr/bin/supervisord --nodaemon -c /etc/supervisord.conf");
    let control = "/usr/bin/supervisorctl -c /etc/supervisord.conf";
    eventually("supervisord answers", LIMIT, || {
        systemd.run("sh", ["-c", &format!("{control} pid")]).code.filter(|code| *code == 0)
    });
    let orders = Orders {
        start: &format!("{control} start appserver"),
        reload: &format!("{control} signal HUP appserver"),
        stop: &format!("{control} stop appserver"),
        log: Some("cat /run/appserver-stdout*"),
    };
    lives(&systemd, Code::BuiltIn, 8080, &orders);
}

#[test]
fn runit_runs_its_script() {
    let Some(systemd) = machine("runsv") else { return };
    Code::Python.install(&systemd);
    install(&systemd, "/etc/service/shop/run", &shipped("runit/run"));
    systemd.file("/etc/service/shop/down", "");
    daemon(&systemd, "/usr/bin/runsv /etc/service/shop");
    eventually("runsv listens", LIMIT, || {
        systemd.run("test", ["-p", "/etc/service/shop/supervise/ok"]).code.filter(|code| *code == 0)
    });
    let orders = Orders {
        start: "sv -w 30 start /etc/service/shop",
        reload: "sv hup /etc/service/shop",
        stop: "sv -w 30 down /etc/service/shop",
        log: Some("cat /run/supervisor.log"),
    };
    lives(&systemd, Code::Python, 8000, &orders);
}

#[test]
fn s6_learns_when_the_server_serves() {
    let Some(systemd) = machine("s6-supervise") else { return };
    for file in ["notification-fd", "timeout-kill"] {
        systemd.file(&format!("/run/service/appserver/{file}"), shipped(&format!("s6/appserver/{file}")));
    }
    install(&systemd, "/run/service/appserver/run", &shipped("s6/appserver/run"));
    systemd.file("/run/service/appserver/down", "");
    daemon(&systemd, "/usr/bin/s6-supervise /run/service/appserver");
    eventually("s6-supervise listens", LIMIT, || {
        systemd.run("s6-svok", ["/run/service/appserver"]).code.filter(|code| *code == 0)
    });

    // Up is not ready.
    systemd.set_settings(json!({ "load": "hang" }));
    shell(&systemd, "s6-svc -wu -T 30000 -u /run/service/appserver");
    let status = "s6-svstat -o up,ready /run/service/appserver";
    assert_eq!(shell(&systemd, status), "true false");
    shell(&systemd, "s6-svc -wD -T 30000 -d /run/service/appserver");

    let orders = Orders {
        start: &format!(
            "s6-svc -wU -T 30000 -u /run/service/appserver && test \"$({status})\" = 'true true'"
        ),
        reload: "s6-svc -h /run/service/appserver",
        stop: "s6-svc -wD -T 30000 -d /run/service/appserver",
        log: Some("cat /run/supervisor.log"),
    };
    lives(&systemd, Code::BuiltIn, 8080, &orders);
}

#[test]
fn openrc_runs_its_script() {
    let Some(systemd) = machine("openrc-run") else { return };
    install(&systemd, "/etc/init.d/appserver", &shipped("openrc/appserver"));
    // What openrc itself makes when it boots a machine.
    let booted =
        "mkdir -p $(for it in exclusive starting started stopping inactive failed daemons options; do
                  echo /run/openrc/$it; done) && touch /run/openrc/softlevel";
    shell(&systemd, &format!("rm -rf /run/appserver; {booted}"));
    let orders = Orders {
        start: "rc-service --nodeps appserver start",
        reload: "rc-service --nodeps appserver reload",
        stop: "rc-service --nodeps appserver stop",
        log: None,
    };
    lives(&systemd, Code::BuiltIn, 8080, &orders);
    assert_eq!(systemd.run("rc-service", ["--nodeps", "appserver", "status"]).code, Some(3));
}

#[test]
fn the_classic_script_keeps_what_lsb_says() {
    let Some(systemd) = bare_machine() else { return };
    let script = "/etc/init.d/appserver";
    install(&systemd, script, &shipped("init.d/appserver"));
    shell(&systemd, "rm -rf /run/appserver");
    let code = |verb: &str| systemd.run(script, [verb]).code;
    assert_eq!((code("status"), code("stop"), code("try-restart")), (Some(3), Some(0), Some(0)));
    assert_eq!(code("no-such-verb"), Some(2));
    assert_eq!(answer(&systemd, 8080), None);

    systemd.set_settings(json!({ "load": "fail" }));
    assert_ne!(code("start"), Some(0));
    systemd.set_settings(json!({ "version": "v0" }));
    assert_eq!((code("start"), code("start"), code("status")), (Some(0), Some(0), Some(0)));
    assert_eq!(answer(&systemd, 8080).as_deref(), Some("hello v0\n"), "start has waited");
    systemd.set_settings(json!({ "version": "v1" }));
    assert_eq!(code("restart"), Some(0));
    assert_eq!(answer(&systemd, 8080).as_deref(), Some("hello v1\n"));
    assert_eq!((code("try-restart"), code("force-reload"), code("stop")), (Some(0), Some(0), Some(0)));

    let orders = Orders {
        start: &format!("{script} start"),
        reload: &format!("{script} reload"),
        stop: &format!("{script} stop"),
        log: None,
    };
    lives(&systemd, Code::BuiltIn, 8080, &orders);
}

/// A super-server listens, starts the server for the first client, and again after a stop.
fn started_by_a_client(systemd: &Systemd) {
    eventually("somebody listens", LIMIT, || systemd.within(|| Connection::open(&target(8080), LIMIT).ok()));
    for round in 1..=2 {
        systemd.set_settings(json!({ "version": "v1" }));
        wait_answer(systemd, 8080, Some("hello v1\n"));
        systemd.set_settings(json!({ "version": "v2" }));
        shell(systemd, "appserver --reload /run/appserver/pid --wait");
        assert_eq!(answer(systemd, 8080).as_deref(), Some("hello v2\n"), "round {round}");
        systemd.set_settings(json!({ "load": "fail" }));
        systemd.run("appserver", ["--reload", "/run/appserver/pid", "--wait"]).fails();
        assert_eq!(answer(systemd, 8080).as_deref(), Some("hello v2\n"), "round {round}");
        systemd.set_settings(json!({ "version": "v1" }));
        shell(systemd, "appserver --stop /run/appserver/pid --wait");
    }
}

#[test]
fn inetd_starts_the_server_on_the_first_connection() {
    let Some(systemd) = machine("inetd") else { return };
    systemd.file("/etc/inetd.conf", shipped("inetd/inetd.conf"));
    daemon(&systemd, "/usr/sbin/inetd -i /etc/inetd.conf");
    started_by_a_client(&systemd);
}

#[test]
fn xinetd_starts_the_server_on_the_first_connection() {
    let Some(systemd) = machine("xinetd") else { return };
    systemd.file("/etc/xinetd.d/appserver", shipped("xinetd/appserver"));
    daemon(&systemd, "/usr/sbin/xinetd -dontfork -filelog /run/xinetd.log -f /etc/xinetd.d/appserver");
    started_by_a_client(&systemd);
}

#[test]
fn what_cannot_be_run_here_is_well_formed() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let python = |code: &str, file: &str| {
        let output = Command::new("/usr/bin/python3").args(["-c", code]).arg(config.join(file)).output();
        let output = output.expect("scripts/test installs python3");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let job = python(
        "import plistlib, sys; print(*plistlib.load(open(sys.argv[1], 'rb'))['ProgramArguments'])",
        "launchd/org.example.appserver.plist",
    );
    let manifest = python(
        "import sys, xml.etree.ElementTree as t\n\
         for method in t.parse(sys.argv[1]).iter('exec_method'): print(method.get('exec'))",
        "smf/appserver.xml",
    );
    // The options are the server's; start, stop and refresh are all there.
    let server = Server::builtin();
    let mut starts = 0;
    for line in job.lines().chain(manifest.lines()) {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("/usr/local/bin/appserver"));
        let words: Vec<&str> = words.collect();
        if words[0] != "--master" {
            assert!(["--stop", "--reload"].contains(&words[0]), "{line}");
            continue;
        }
        starts += 1;
        let mut check = Command::new(server.program());
        let output = check.args(&words).arg("--show-config").output().expect("it runs");
        let complaints = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && complaints.is_empty(), "{line}: {complaints}");
    }
    assert_eq!((starts, manifest.lines().count()), (2, 3));
    for script in ["openrc/appserver", "init.d/appserver", "s6/appserver/run", "runit/run"] {
        assert!(Command::new("sh").arg("-n").arg(config.join(script)).status().is_ok_and(|it| it.success()));
    }
}
