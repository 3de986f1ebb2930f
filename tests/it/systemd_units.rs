//! Every unit in `config/systemd` under a real systemd: linted, started, reloaded with code that loads and
//! with code that does not, restarted, crashed, stopped.

use serde_json::json;

use crate::shipped_config::shipped;
use crate::support::deploy::{Code, install_shop};
use crate::support::http::Connection;
use crate::support::systemd::{Said, Systemd};
use crate::support::{LIMIT, Load, LoadSpec, Target, eventually, get};

/// All of them.
const UNITS: [&str; 8] = [
    "activated.socket",
    "activated.service",
    "appserver.service",
    "uwsgi-ini.service",
    "forking.service",
    "shop.service",
    "shop-port80.service",
    "hardened.service",
];

/// Ten times the worst mark that the hardened unit may get.
const EXPOSURE: &str = "15";

/// One unit and the address it serves on.
struct Service<'a> {
    systemd: &'a Systemd,
    unit: &'static str,
    target: Target,
    code: Code,
}

impl<'a> Service<'a> {
    fn install(systemd: &'a Systemd, unit: &'static str, port: u16, code: Code) -> Self {
        code.install(systemd);
        systemd.unit(unit, &shipped(&format!("systemd/{unit}")));
        Service { systemd, unit, target: Target::Tcp(([127, 0, 0, 1], port).into()), code }
    }

    fn systemctl(&self, verb: &str) -> Said {
        self.systemd.systemctl([verb, self.unit])
    }

    fn show(&self, property: &str) -> String {
        self.systemd.show(self.unit, property)
    }

    fn deploy(&self, version: &str) {
        self.code.deploy(self.systemd, version);
    }

    #[track_caller]
    fn assert_serves(&self, version: &str) {
        let target = &self.target;
        let answer = self.systemd.within(|| get(target, "/").text());
        assert_eq!(answer, format!("hello {version}\n"), "{}", self.unit);
        assert_eq!(self.show("ActiveState"), "active", "{}", self.unit);
    }

    /// From start to stop, with everything between that happens to a service.
    fn lives(&self) {
        self.deploy("v1");
        self.systemctl("start").succeeds();
        self.assert_serves("v1");
        let main = self.show("MainPID");

        self.deploy("v2");
        self.systemctl("reload").succeeds();
        self.assert_serves("v2");

        self.code.deploy_broken(self.systemd);
        self.systemctl("reload").fails();
        self.assert_serves("v2");
        assert_eq!(self.show("MainPID"), main, "a reload keeps the process");
        assert_eq!(self.show("NRestarts"), "0");
        if self.show("Type") == "notify" {
            let text = self.show("StatusText");
            assert!(text.starts_with("reload 2 refused: "), "{}: {text}", self.unit);
        }

        self.deploy("v3");
        self.systemctl("restart").succeeds();
        self.assert_serves("v3");
        let main = self.show("MainPID");

        self.deploy("v4");
        self.systemd.systemctl(["kill", "--kill-whom=main", "--signal=KILL", self.unit]).succeeds();
        self.systemd.wait_show(self.unit, "NRestarts", |times| times == "1");
        self.systemd.wait_show(self.unit, "ActiveState", |state| state == "active");
        self.assert_serves("v4");
        assert_ne!(self.show("MainPID"), main, "{}", self.unit);

        self.systemctl("stop").succeeds();
        assert_eq!((self.show("ActiveState"), self.show("Result")), ("inactive".into(), "success".into()));
        let target = &self.target;
        assert!(self.systemd.within(|| Connection::open(target, LIMIT)).is_err(), "{}", self.unit);
    }
}

#[test]
fn the_units_are_without_fault_to_the_linter() {
    let Some(systemd) = Systemd::start_newer().or_else(Systemd::start) else { return };
    install_shop(&systemd);
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/systemd");
    let files = std::fs::read_dir(directory).expect("a directory of ours").flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut shipped_units: Vec<_> = names.filter(|name| !name.ends_with(".run")).collect();
    let mut known = UNITS.map(str::to_owned);
    shipped_units.sort();
    known.sort();
    assert_eq!(shipped_units, known, "a unit is not in the tests");
    let units = UNITS.map(|unit| (unit, shipped(&format!("systemd/{unit}"))));
    systemd.units(&units.each_ref().map(|(name, text)| (*name, text.as_str())));
    let paths = UNITS.map(|unit| format!("/etc/systemd/system/{unit}"));
    let verify = ["verify", "--man=no"].into_iter().chain(paths.iter().map(String::as_str));
    let said = systemd.run("systemd-analyze", verify);
    assert_eq!((said.code, said.output.as_str(), said.errors.as_str()), (Some(0), "", ""));
}

#[test]
fn the_plain_unit_lives() {
    let Some(systemd) = Systemd::start() else { return };
    Service::install(&systemd, "appserver.service", 8080, Code::BuiltIn).lives();
}

#[test]
fn the_unit_for_an_ini_of_uwsgi_lives() {
    let Some(systemd) = Systemd::start() else { return };
    let ini = "[uwsgi]\nmaster = true\nprocesses = 2\nhttp-socket = 127.0.0.1:8000\n\
               uid = www-data\ngid = www-data\nvacuum = true\n";
    systemd.file("/etc/appserver/shop.ini", ini);
    Service::install(&systemd, "uwsgi-ini.service", 8000, Code::BuiltIn).lives();
}

#[test]
fn the_unit_in_the_background_lives() {
    let Some(systemd) = Systemd::start() else { return };
    let service = Service::install(&systemd, "forking.service", 8080, Code::BuiltIn);
    service.lives();
    assert!(systemd.read("/var/log/appserver/log").expect("a log").contains("goodbye"));

    // The plain option, as in units written for others: the start says less, the rest is the same.
    let text = shipped("systemd/forking.service").replace("--daemonize2=", "--daemonize=");
    systemd.unit("forking.service", &text);
    service.deploy("v5");
    service.systemctl("start").succeeds();
    eventually("it serves", LIMIT, || {
        systemd.read("/var/log/appserver/log").ok()?.contains("ready: ").then_some(())
    });
    service.assert_serves("v5");
    service.systemctl("stop").succeeds();
    assert_eq!(service.show("Result"), "success");
}

#[test]
fn the_unit_for_projects_lives() {
    let Some(systemd) = Systemd::start() else { return };
    Service::install(&systemd, "shop.service", 8000, Code::Python).lives();
}

#[test]
fn the_unit_on_port_80_lives_without_root() {
    let Some(systemd) = Systemd::start() else { return };
    let service = Service::install(&systemd, "shop-port80.service", 80, Code::Python);
    service.lives();
    service.deploy("v5");
    service.systemctl("start").succeeds();
    service.assert_serves("v5");
    let main = service.show("MainPID");
    let status = systemd.read(&format!("/proc/{main}/status")).expect("it runs");
    // www-data has 33 on every Debian; CAP_NET_BIND_SERVICE is bit 10.
    for line in ["Uid:\t33\t33\t33\t33", "CapEff:\t0000000000000400", "CapBnd:\t0000000000000400"] {
        assert!(status.contains(line), "{line}: {status}");
    }
}

#[test]
fn the_hardened_unit_lives_and_scores_well() {
    let Some(systemd) = Systemd::start() else { return };
    let service = Service::install(&systemd, "hardened.service", 8000, Code::Python);
    let path = "/etc/systemd/system/hardened.service";
    let threshold = format!("--threshold={EXPOSURE}");
    let judge = ["security", "--offline=true", &threshold, "--no-pager", path];
    let judged = systemd.run("systemd-analyze", judge);
    println!("{}", judged.output);
    assert_eq!(judged.code, Some(0), "{}", judged.output);
    service.lives();
    // Nothing was refused that the server wanted.
    let complaints: Vec<String> = systemd
        .journal("hardened.service")
        .into_iter()
        .filter(|line| line.contains("not permitted") || line.contains("denied"))
        .collect();
    assert_eq!(complaints, Vec::<String>::new());
}

/// Clients with a connection for each request, all of which are to be served.
fn clients(service: &Service<'_>) -> Load {
    let spec = LoadSpec { keep_alive: 0, fresh: 4, timeout: LIMIT, ..LoadSpec::gets() };
    let target = &service.target;
    service.systemd.within(|| Load::start(target, &spec))
}

#[test]
fn the_unit_with_sockets_lives_and_refuses_nobody() {
    let Some(systemd) = Systemd::start() else { return };
    let service = Service::install(&systemd, "activated.service", 8080, Code::BuiltIn);
    systemd.unit("activated.socket", &shipped("systemd/activated.socket"));
    systemd.systemctl(["start", "activated.socket"]).succeeds();
    assert_eq!(service.show("ActiveState"), "inactive");
    service.deploy("v1");
    let target = &service.target;
    assert_eq!(systemd.within(|| get(target, "/").text()), "hello v1\n", "the first client starts it");
    systemd.wait_show("activated.service", "ActiveState", |state| state == "active");
    let main = service.show("MainPID");

    let load = clients(&service);
    load.wait_for(50);
    service.deploy("v2");
    service.systemctl("reload").succeeds();
    service.assert_serves("v2");
    service.code.deploy_broken(&systemd);
    service.systemctl("reload").fails();
    service.assert_serves("v2");
    assert_eq!(service.show("MainPID"), main);
    service.deploy("v3");
    service.systemctl("restart").succeeds();
    service.assert_serves("v3");
    assert_ne!(service.show("MainPID"), main);
    load.wait_for(50);
    load.stop().assert_nothing_lost();

    // Clients that come once it has crashed: what is being served at that moment is lost.
    // Time enough for the clients to come meanwhile; the unit sees no gate in /tmp.
    systemd.set_settings(json!({ "version": "v4", "load_ms": 3000 }));
    systemd.systemctl(["kill", "--kill-whom=main", "--signal=KILL", service.unit]).succeeds();
    systemd.wait_show(service.unit, "NRestarts", |times| times == "1");
    let load = clients(&service);
    load.wait_for(50);
    let report = load.stop();
    report.assert_nothing_lost();
    assert!(report.longest.as_millis() > 100, "they waited for the start: {report:?}");
    service.assert_serves("v4");

    let other = Target::Tcp("[::1]:8080".parse().expect("an address"));
    assert_eq!(systemd.within(|| get(&other, "/").text()), "hello v4\n");
    systemd.run("test", ["-S", "/run/appserver-activated.sock"]).succeeds();
    systemd.systemctl(["stop", "activated.socket", "activated.service"]).succeeds();
    assert_eq!(service.show("Result"), "success");
    assert!(systemd.within(|| Connection::open(target, LIMIT)).is_err());
}
