//! A configuration means to `appserver` what it means to uWSGI.
//!
//! `tests/differential` holds small configurations and, beside each, what uWSGI 2.0 makes of it
//! (`NAME.expected.json`). Where uWSGI is installed the record is compared with it anew, and
//! `RECORD_UWSGI=1` writes it. Known differences stand in `differences.toml`, each with its reason.
//!
//! A configuration may begin with lines of its own for this test: `;; args: …` is the command line
//! in place of `--ini NAME.ini`, `;; env: NAME=VALUE` a variable. `;; live` says that the values depend
//! on the machine, so that they are compared with uWSGI itself or not at all. `;; unasked` says that
//! uWSGI must not be asked, because it reads past its memory or uses up all of it; the record then is
//! what it is documented to do.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use appserver::config::options;
use appserver::config::schema::{Kind, OptionSpec, Shape};
use serde::{Deserialize, Serialize};

/// What a server makes of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    /// The options in force, as `name = value`, where names that are no options are left out.
    Options(Vec<String>),
    /// It does not start.
    Refused,
}

/// A known difference.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    /// Why; for the reader of the documentation.
    reason: String,
    /// What we make of it instead; `None` is a refusal.
    options: Option<Vec<String>>,
}

struct Case {
    name: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    live: bool,
    unasked: bool,
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential")
}

fn cases() -> Vec<Case> {
    let entries = fs::read_dir(corpus()).expect("the corpus is there");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.expect("the corpus can be listed").file_name().into_string().ok())
        .filter_map(|name| name.strip_suffix(".ini").map(str::to_owned))
        .collect();
    names.sort();
    names.into_iter().map(Case::read).collect()
}

impl Case {
    fn read(name: String) -> Self {
        let text = fs::read_to_string(corpus().join(format!("{name}.ini"))).expect("a case can be read");
        let args = vec!["--ini".to_owned(), format!("{name}.ini")];
        let mut case = Case { name, args, env: Vec::new(), live: false, unasked: false };
        for line in text.lines().map_while(|line| line.strip_prefix(";; ")) {
            match line.split_once(": ") {
                Some(("args", args)) => case.args = args.split(' ').map(str::to_owned).collect(),
                Some(("env", pair)) => {
                    let (name, value) = pair.split_once('=').expect("NAME=VALUE");
                    case.env.push((name.to_owned(), value.to_owned()));
                }
                _ if line == "live" => case.live = true,
                _ if line == "unasked" => case.unasked = true,
                _ => panic!("{}: {line}", case.name),
            }
        }
        case
    }

    fn command(&self, program: &str, before: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(before).args(&self.args).current_dir(corpus()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.envs(self.env.iter().cloned());
        command
    }

    /// Asks uWSGI. What makes it print and leave comes first: a configuration may swallow the rest.
    fn uwsgi(&self) -> Outcome {
        let output = self.command("uwsgi", &["--show-config", "--no-server"]).output().expect("uwsgi runs");
        let log = String::from_utf8_lossy(&output.stderr);
        let shown =
            log.split_once("[uwsgi]\n").and_then(|(_, rest)| rest.split_once(";end of configuration"));
        match shown {
            Some((lines, _)) if output.status.success() => Outcome::Options(in_force(pairs(lines))),
            _ => Outcome::Refused,
        }
    }

    /// Asks the server under test.
    fn ours(&self) -> Outcome {
        #[derive(Deserialize)]
        struct Shown {
            name: String,
            value: String,
            origin: String,
        }
        let output =
            self.command(env!("CARGO_BIN_EXE_appserver"), &["--show-config=json"]).output().expect("it runs");
        if !output.status.success() {
            return Outcome::Refused;
        }
        let shown: Vec<Shown> = serde_json::from_slice(&output.stdout).expect("JSON");
        let given = shown.into_iter().filter(|option| option.origin != "default");
        Outcome::Options(in_force(given.map(|option| (option.name, option.value)).collect()))
    }

    fn record(&self) -> PathBuf {
        corpus().join(format!("{}.expected.json", self.name))
    }

    fn recorded(&self) -> Outcome {
        let text = fs::read_to_string(self.record()).unwrap_or_else(|error| panic!("{}: {error}", self.name));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }
}

/// `name = value` lines; one without an equals sign goes on with the value before.
fn pairs(lines: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for line in lines.strip_suffix('\n').unwrap_or(lines).split('\n') {
        match (line.split_once(" = "), pairs.last_mut()) {
            (Some((name, value)), _) => pairs.push((name.to_owned(), value.to_owned())),
            (None, Some((_, value))) => *value = format!("{value}\n{line}"),
            (None, None) => {}
        }
    }
    pairs
}

/// What both servers should agree on: options under one name, flags in one spelling, of scalars the
/// last one. Placeholders and directives have done their work in the values.
fn in_force(pairs: Vec<(String, String)>) -> Vec<String> {
    let here = corpus().display().to_string();
    let mut options: Vec<(&'static OptionSpec, String)> = Vec::new();
    for (name, value) in pairs {
        let Some(row) = options::find(&name) else { continue };
        if matches!(row.kind, Kind::Directive(_) | Kind::Command(_)) || row.name == "no-server" {
            continue;
        }
        if !row.repeatable {
            options.retain(|(other, _)| other.name != row.name);
        }
        options.push((row, normal(row, &value.replace(&here, "{dir}"))));
    }
    options.into_iter().map(|(row, value)| format!("{} = {value}", row.name)).collect()
}

fn normal(row: &OptionSpec, value: &str) -> String {
    if !matches!(row.kind, Kind::Flag(_) | Kind::FlagOff(_) | Kind::Unused(Shape::Flag)) {
        return value.to_owned();
    }
    match value.to_ascii_lowercase().as_str() {
        "" | "1" | "on" | "yes" | "true" => "true".to_owned(),
        "0" | "off" | "no" | "false" => "false".to_owned(),
        _ => value.to_owned(),
    }
}

fn differences() -> BTreeMap<String, Difference> {
    let text = fs::read_to_string(corpus().join("differences.toml")).expect("the table is there");
    toml::from_str(&text).expect("the table can be read")
}

/// The version the record was made with; others of the series agree, as far as is known.
fn uwsgi_is_here() -> bool {
    let version = Command::new("uwsgi").arg("--version").output();
    version.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).starts_with("2.0."))
}

fn fail_with(failures: &[String]) {
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn uwsgi_does_what_was_recorded() {
    if !uwsgi_is_here() {
        eprintln!("uWSGI 2.0 is not installed: the record is taken as it is");
        return;
    }
    let record = std::env::var_os("RECORD_UWSGI").is_some();
    let mut failures = Vec::new();
    for case in cases().iter().filter(|case| !case.live && !case.unasked) {
        let outcome = case.uwsgi();
        if record {
            let text = serde_json::to_string_pretty(&outcome).expect("JSON") + "\n";
            fs::write(case.record(), text).expect("the record can be written");
        } else if case.recorded() != outcome {
            failures.push(format!("{}: recorded {:?}, now {outcome:?}", case.name, case.recorded()));
        }
    }
    fail_with(&failures);
}

#[test]
fn a_configuration_means_what_it_means_to_uwsgi() {
    let differences = differences();
    let mut failures = Vec::new();
    for case in cases() {
        let theirs = match (case.live, uwsgi_is_here()) {
            (false, _) => case.recorded(),
            (true, true) => case.uwsgi(),
            (true, false) => continue,
        };
        let ours = case.ours();
        let expected = match differences.get(&case.name) {
            Some(Difference { options: Some(options), .. }) => Outcome::Options(options.clone()),
            Some(Difference { options: None, .. }) => Outcome::Refused,
            None => theirs.clone(),
        };
        if ours != expected {
            failures.push(format!("{}: ours {ours:?}, expected {expected:?}", case.name));
        } else if differences.contains_key(&case.name) && ours == theirs {
            failures.push(format!("{}: no difference any more; take it off the table", case.name));
        }
    }
    fail_with(&failures);
}

#[test]
fn every_difference_has_a_case_and_a_reason() {
    let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
    for (name, difference) in differences() {
        assert!(names.contains(&name), "{name}");
        assert!(difference.reason.ends_with('.'), "{name}: {}", difference.reason);
    }
}

#[test]
fn the_documentation_tells_every_difference() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migrating-from-uwsgi.md");
    let page = fs::read_to_string(&path).expect("the page is there");
    let (before, rest) = page.split_once("differential -->\n").expect("the mark is there");
    let (_, after) = rest.split_once("<!-- end -->").expect("the mark is there");
    let list: String = differences()
        .iter()
        .map(|(name, it)| format!("- {} ([{name}](../tests/differential/{name}.ini))\n", it.reason))
        .collect();
    let fresh = format!("{before}differential -->\n{list}<!-- end -->{after}");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, fresh).expect("the page can be written");
    } else {
        assert!(page == fresh, "run: UPDATE_DOCS=1 cargo test --test it differential");
    }
}

#[test]
fn the_corpus_covers_the_grammar() {
    let names: Vec<String> = cases().into_iter().map(|case| case.name).collect();
    assert!(names.len() >= 60);
    for topic in [
        "ini-", "bool-", "int-", "magic-", "env-", "at-", "ph-", "for", "if-", "set-", "include", "inherit",
        "order-", "strict-",
    ] {
        assert!(names.iter().any(|name| name.starts_with(topic)), "{topic}");
    }
}
