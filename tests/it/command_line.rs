//! The command line: what it prints, and what it says when it is wrong.

use std::process::{Command, Output};

use appserver::config::options::OPTIONS;
use appserver::config::schema::Status;

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_appserver")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_lists_every_option_once_grouped_by_topic() {
    let (code, text, errors) = run(&["--help"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    let mut topic = "";
    for row in OPTIONS {
        let lines = text.lines().map(str::trim_start);
        let named = format!("--{}", row.name);
        let is_its_line = |line: &&str| {
            let line = line
                .split_once(", ")
                .map_or(*line, |(short, rest)| if short.len() == 2 { rest } else { line });
            line.strip_prefix(named.as_str())
                .is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '-'))
        };
        // Options that do nothing yet are in the documentation; a terminal is for those that do.
        let expected = usize::from(row.status == Status::Works);
        assert_eq!(lines.filter(is_its_line).count(), expected, "{named}");
        if expected == 1 && row.group.title() != topic {
            topic = row.group.title();
            assert_eq!(text.matches(&format!("\n{topic}:\n")).count(), 1, "{topic}");
        }
    }
    assert_eq!(run(&["-h"]).1, text);
}

#[test]
fn version_is_one_line() {
    let (code, text, errors) = run(&["--version"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(text, format!("appserver {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_misspelt_option_gets_a_suggestion() {
    for (wrong, right) in
        [("--proceses", "--processes"), ("--pidfle=a", "--pidfile"), ("--http-sockt", "--http-socket")]
    {
        let (code, text, errors) = run(&[wrong]);
        assert_eq!((code, text.as_str()), (Some(2), ""), "{wrong}");
        assert!(errors.contains(right), "{wrong}: {errors}");
    }
    let (code, _, errors) = run(&["--no-such-thing-at-all"]);
    assert!(code == Some(2) && errors.contains("--no-such-thing-at-all"), "{errors}");
}

#[test]
fn a_missing_value_and_a_stray_word_are_explained() {
    for (args, text) in [
        (&["--pidfile"] as &[&str], "--pidfile"),
        (&["-p"], "--processes"),
        (&["--reload"], "--reload"),
        (&["--reload", "pid", "--master"], "--reload"),
    ] {
        let (code, _, errors) = run(args);
        assert_eq!(code, Some(2), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
    for (args, text) in [
        (&["no-such-file.ini"] as &[&str], "no-such-file.ini"),
        (&["--chmod-socket", "660"], "written --name=value"),
        (&["app.py"], "Python"),
    ] {
        let (code, _, errors) = run(args);
        assert_eq!(code, Some(1), "{args:?}: {errors}");
        assert!(errors.contains(text), "{args:?}: {errors}");
    }
}

#[test]
fn all_wrong_values_are_reported_at_once() {
    let (code, text, errors) = run(&[
        "--processes=0",
        "--threads=many",
        "--chmod-socket=999",
        "--http-timeout=soon",
        "--master=perhaps",
        "--static-map=x",
    ]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    let lines: Vec<_> = errors.lines().collect();
    assert_eq!(lines.len(), 6, "{errors}");
    let options = ["processes", "threads", "chmod-socket", "http-timeout", "master", "static-map"];
    for (line, option) in lines.iter().zip(options) {
        assert!(line.starts_with(&format!("command line: {option} = \"")), "{line}");
    }
}

#[test]
fn an_unambiguous_beginning_of_a_name_is_enough() {
    let (code, text, _) = run(&["--vers"]);
    assert!(code == Some(0) && text.starts_with("appserver "));
    let (code, _, errors) = run(&["--pid=a"]);
    assert!(code == Some(2) && errors.contains("pidfile"), "{errors}");
}

#[test]
fn options_without_an_effect_are_told_to_have_none() {
    for option in ["reload-mercy", "auto-procname"] {
        let row = OPTIONS.iter().find(|row| row.name == option).unwrap();
        assert!(matches!(row.status, Status::AcceptedNoEffect(reason) if !reason.is_empty()), "{option}");
    }
}

#[test]
fn options_that_a_file_declares_are_options_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("a.ini");
    let text = "[uwsgi]\ndeclare-option = size=processes=$1;threads=$2\ndeclare-option = tidy=vacuum=true\n";
    std::fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let asked = ["--get", "processes", "--get", "threads", "--get", "vacuum"];
    for (words, expected) in [
        (&["--size", "3 4", "--tidy"][..], "3\n4\ntrue\n"),
        (&["--size=3 4", "-p", "9"], "3\n4\n"),
        (&["--tidy", "--size", "5 6", "--size", "7 8"], "5\n6\ntrue\n"),
    ] {
        let args: Vec<&str> = ["--ini", file].iter().chain(words).chain(&asked).copied().collect();
        assert_eq!(run(&args), (Some(0), expected.to_owned(), String::new()), "{words:?}");
    }
    for args in [
        &["--size", "3 4", "--ini", file][..],
        &["--ini", file, "--size"],
        &["--ini", file, "--tidy=no"],
        &["--ini", file, "--sizes", "3"],
    ] {
        let (code, _, errors) = run(args);
        assert!(code == Some(2) && errors.contains("unexpected argument"), "{args:?}: {errors}");
    }
}

#[test]
fn values_can_be_asked_for() {
    let args = ["--set-ph", "base=/srv", "--env", "A=%(base)", "-M", "--workers", "2", "-p", "3"];
    for (name, expected) in [
        ("base", "/srv\n"),
        ("env", "A=/srv\n"),
        ("master", "true\n"),
        ("processes", "2\n"),
        ("workers", "2\n"),
        ("pidfile", ""),
    ] {
        let args: Vec<&str> = args.iter().chain(&["--get", name]).copied().collect();
        assert_eq!(run(&args), (Some(0), expected.to_owned(), String::new()), "{name}");
    }
    let (code, text, errors) = run(&["--ini", "/nowhere.ini", "-p", "2", "--get", "processes"]);
    assert!((code, text.as_str()) == (Some(1), "2\n") && errors.contains("/nowhere.ini"), "{errors}");
}

#[test]
fn the_names_of_all_options_can_be_listed() {
    let (code, text, _) = run(&["--dump-options"]);
    assert_eq!((code, text.lines().count()), (Some(0), OPTIONS.len()));
}
