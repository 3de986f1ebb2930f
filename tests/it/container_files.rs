//! What `config/container` ships: its numbers agree with each other, and its server is drained without a loss.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::container_bounds::BARE;
use crate::shipped_config::{find_address, shipped, with_ini};
use crate::support::container::{Container, possible};
use crate::support::server::set_mode;
use crate::support::{LIMIT, Load, LoadSpec, Server, eventually};

const INI: &str = "container.ini";

/// The documents of a YAML file. `None`, with a line that says so, without Python's yaml module.
fn yaml(file: &str) -> Option<Vec<Value>> {
    let read = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/container").join(file);
    let python = |program: &str, code: &str| {
        let mut command = Command::new(program);
        command.args(["-c", code]).arg(&path).stdin(Stdio::null()).output().ok()
    };
    let has_yaml = |program: &&str| python(program, "import yaml").is_some_and(|it| it.status.success());
    let Some(program) = ["python3", "/usr/bin/python3"].into_iter().find(has_yaml) else {
        eprintln!("skipped: Python has no yaml module");
        return None;
    };
    let output = python(program, read).expect("it ran a moment ago");
    assert!(output.status.success(), "{file}: {output:?}");
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn seconds(text: &Value) -> u64 {
    let text = text.as_str().unwrap_or_else(|| panic!("{text} is no text"));
    text.trim_end_matches('s').parse().expect("whole seconds")
}

/// What the shipped ini says in this environment: option and value.
fn ini_in(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(INI);
    let mut command = Command::new(env!("CARGO_BIN_EXE_appserver"));
    command.arg("--show-config").arg(path).env_clear().envs(environment);
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{output:?}");
    let shown = String::from_utf8(output.stdout).expect("text");
    let option = |line: &str| {
        let (name, rest) = line.split_once(" = ")?;
        Some((name.trim().to_owned(), rest.split(" ;").next()?.trim().to_owned()))
    };
    shown.lines().filter_map(option).collect()
}

/// Seconds from SIGTERM to the end, at most.
fn end_of(ini: &BTreeMap<String, String>) -> u64 {
    ["drain-delay", "worker-reload-mercy"]
        .iter()
        .map(|name| ini[*name].parse::<u64>().expect("seconds"))
        .sum()
}

fn deployment() -> Option<(Value, BTreeMap<String, String>)> {
    let documents = yaml("kubernetes.yaml")?;
    let deployment = documents.into_iter().find(|it| it["kind"] == "Deployment").expect("there is one");
    let pod = deployment["spec"]["template"]["spec"].clone();
    let text = |value: &Value| value.as_str().expect("the cluster takes text only").to_owned();
    let variables = pod["containers"][0]["env"].as_array().expect("a list");
    let environment = variables.iter().map(|it| (text(&it["name"]), text(&it["value"]))).collect();
    Some((pod, environment))
}

#[test]
fn the_numbers_of_the_deployment_agree_with_the_ini() {
    let Some((pod, environment)) = deployment() else { return };
    let (ini, container) = (ini_in(&environment), &pod["containers"][0]);
    assert!(pod["terminationGracePeriodSeconds"].as_u64() > Some(end_of(&ini)), "{ini:?}");
    assert_eq!(ini["http-socket"], format!(":{}", container["ports"][0]["containerPort"]));
    for probe in ["startupProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["path"], ini["ready-path"].as_str(), "{probe}");
    }
    let budget = |probe: &str| {
        let number = |name: &str| container[probe][name].as_u64().expect("a number");
        number("periodSeconds") * number("failureThreshold")
    };
    let mercy: u64 = ini["worker-reload-mercy"].parse().expect("seconds");
    assert!(budget("startupProbe") > 60, "boot-timeout");
    assert!(budget("livenessProbe") > mercy, "the listeners close before the last request has ended");
    assert!(budget("readinessProbe") < ini["drain-delay"].parse().expect("seconds"));
    let mount = &container["volumeMounts"][0];
    assert!(Path::new(&ini["pidfile"]).starts_with(mount["mountPath"].as_str().expect("a path")));
    assert_eq!(mount["name"], pod["volumes"][0]["name"]);
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);

    let documents = yaml("kubernetes.yaml").expect("it was read a moment ago");
    let labels = &documents[0]["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&documents[0]["spec"]["selector"]["matchLabels"], labels);
    assert_eq!((&documents[1]["kind"], &documents[1]["spec"]["selector"]), (&"Service".into(), labels));
    assert_eq!(documents[1]["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    assert_eq!(documents[2]["kind"], "PodDisruptionBudget");
    assert_eq!(&documents[2]["spec"]["selector"]["matchLabels"], labels);
}

#[test]
fn the_numbers_of_the_compose_file_and_of_docker_agree_with_the_ini() {
    // What `docker stop` waits for by itself.
    assert!(end_of(&ini_in(&BTreeMap::new())) < 10);
    let Some(documents) = yaml("compose.yaml") else { return };
    let shop = &documents[0]["services"]["shop"];
    let variables = shop["environment"].as_object().expect("a mapping");
    let environment: BTreeMap<_, _> = variables
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().expect("text").to_owned()))
        .collect();
    let ini = ini_in(&environment);
    assert!(seconds(&shop["stop_grace_period"]) > end_of(&ini), "{ini:?}");
    assert!(shop["ports"][0].as_str().expect("text").ends_with(&ini["http-socket"]));
    let writable = shop["tmpfs"][0].as_str().expect("text");
    assert!(Path::new(&ini["pidfile"]).starts_with(writable) && shop["read_only"] == true);
}

/// The instructions of a Containerfile, continued lines joined.
fn instructions(file: &str) -> Vec<(String, String)> {
    let text = shipped(&format!("container/{file}")).replace("\\\n", " ");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| line.split_once(' ').expect("a word and more"))
        .map(|(a, b)| (a.into(), b.into()))
        .collect()
}

#[test]
fn the_images_start_the_server_itself_with_the_ini_as_a_user_without_rights() {
    let ini = ini_in(&BTreeMap::new());
    let all = instructions("Containerfile");
    const KNOWN: [&str; 9] =
        ["FROM", "WORKDIR", "COPY", "RUN", "USER", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "ENTRYPOINT"];
    assert_eq!(all.iter().find(|(word, _)| !KNOWN.contains(&word.as_str())), None);
    let of = |word: &str| {
        all.iter().filter(|(it, _)| it == word).map(|(_, rest)| rest.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("FROM").len(), 3, "one builds, two are images");
    assert_eq!(of("STOPSIGNAL"), ["SIGTERM"; 2]);
    assert_eq!(of("USER"), ["10001:0"; 2]);
    let port = ini["http-socket"].trim_start_matches(':');
    assert_eq!(of("EXPOSE"), [port; 2]);
    for entrypoint in of("ENTRYPOINT") {
        let words: Vec<String> = serde_json::from_str(entrypoint).expect("the exec form");
        assert_eq!(words, ["/usr/local/bin/appserver", "/etc/appserver/container.ini"]);
    }
    for check in of("HEALTHCHECK") {
        let (_, command) = check.split_once("CMD ").expect("a command");
        let words: Vec<String> = serde_json::from_str(command).expect("the exec form");
        assert_eq!(words[1..], ["--status".to_owned(), ini["pidfile"].clone()]);
    }
    assert!(of("COPY").contains(&"config/container.ini /etc/appserver/container.ini"));

    // Options of the application come after the ini.
    let (_, options) = instructions("Containerfile.shop").pop().expect("CMD is the last one");
    let words: Vec<String> = serde_json::from_str(&options).expect("the exec form");
    let ini = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(INI);
    let mut check = Command::new(env!("CARGO_BIN_EXE_appserver"));
    // Variables of the tests are not options of the server.
    let output = check.env_clear().arg("--show-config").arg(ini).args(words).output().expect("it runs");
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && shown.contains("module = shop.wsgi:application"), "{output:?}");
}

#[test]
fn the_ini_is_checked_without_complaint() {
    let Some((_, environment)) = deployment() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let here = directory.path().to_str().expect("a plain name");
    let text = shipped(INI).replace("/run/appserver", here);
    std::fs::write(directory.path().join(INI), text).expect("ours");
    let mut check = Command::new(env!("CARGO_BIN_EXE_appserver"));
    check
        .args(["--check-config", INI])
        .current_dir(directory.path())
        .env_clear()
        .envs(environment)
        .env("PORT", "0");
    let output = check.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("error"), "{output:?}");
}

/// A pod that is deleted under load: SIGTERM to process 1, a probe that turns to 503, clients that go elsewhere
/// when it does, and no request that is lost.
#[test]
fn a_rollout_loses_nothing() {
    if !possible() {
        return;
    }
    let variables = "PORT=0 WEB_CONCURRENCY=2 DRAIN_DELAY=3 REQUEST_PATIENCE=20";
    let builder = Server::app().copied().directory_mode(0o755).wrapped_by(BARE);
    set_mode(&builder.path("server-under-test"), 0o755);
    let run = builder.path("").to_str().expect("a plain name").to_owned();
    let builder = builder.env("VARIABLES", variables).env("WRITABLE", "run");
    // The only place where it may write.
    let builder = with_ini(builder, INI, &[(&format!("{run}pid"), "/mnt/run/pid")]);
    let mut container = Container::start(builder);
    find_address(&mut container.server);
    let health = container.execute(&["/mnt/server-under-test", "--status", "/mnt/run/pid"]);
    assert_eq!(health.status.code(), Some(0), "{health:?}");

    let probe = |server: &Server| server.client().fresh("GET", "/-/ready", &[], b"").map(|it| it.status).ok();
    assert_eq!(probe(&container.server), Some(200));
    let load = Load::start(container.server.target(), &LoadSpec::all_kinds());
    load.wait_for(100);
    container.signal(Signal::SIGTERM);
    eventually("the probe sees it", LIMIT, || (probe(&container.server) == Some(503)).then_some(()));
    // Nobody has heard of it yet, and all are served.
    load.wait_for(100);
    load.stop().assert_nothing_lost();
    assert_eq!(container.server.wait_exit(LIMIT).code(), Some(0));
}
